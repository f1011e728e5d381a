"""Where the scales of a matrix lie in the swizzled plane of tensor cores."""
from dataclasses import dataclass

from amaranth import *
from amaranth.lib import data

from . import parameters
from .pipeline import Cuts
from .unit import Unit

__all__ = ["ScaleAddress"]

ORDERS = "planar", "swizzled"
_SIZE_WIDTH = 16
# A tile of the swizzled plane has 128 rows of 4 scales: 5 bits of a row's place, 2 bits of its quarter, 2 bits of its column.
_TILE_WIDTH = 9


class ScaleAddress(Unit):
    """Addresses of a scale matrix in the 128x4 swizzled plane that Blackwell's matrix instructions read, either way.

    Each beat gives the next address of a walk; one with ``first`` starts a walk over a matrix of ``rows`` (of the M or N
    dimension) by ``columns`` (blocks along K), 0 for 65,536, which other beats need not tell. After its last address, which has
    ``last``, the walk starts again. Until the first ``first`` the matrix has one row and one column.

    **planar**: row by row, as the scales of a planar layout come; ``offset`` is where each goes. **swizzled**: byte by byte
    through the plane; ``row`` and ``column`` tell the scale that lies there, or ``is_padding`` that none does, and a zero
    belongs there.

    The scale of row r and column c of a matrix with C columns lies at ``512 * (r // 128 * ceil(C / 4) + c // 4) + 16 * (r % 32)
    + 4 * (r % 128 // 32) + c % 4``; the plane has ``512 * ceil(rows / 128) * ceil(C / 4)`` bytes.

    Design. Counters: row, column and tile, of which the offset's upper bits are the tile and the others bits of row and column in
    another order. Tiles count on through a row of tiles, and go back to its first at the end of each matrix row but the 128th,
    so that nothing is multiplied. Only in the plane's last row and column of tiles is there padding, which nine bits
    decide.

    Cuts: the address; the beat.

    Members
    -------
    i : ``first``; ``rows``, ``columns`` 16 bits, read with ``first``.
    o : ``offset`` 32 bits; ``row``, ``column`` 16 bits; ``is_padding``, never in ``planar``; ``last``.
    i_valid : a beat. o_valid : its address.

    Latency is ``stages``; one beat a cycle.
    """
    is_stateful = True
    notes = ("Each beat gives the next address of a walk; after its last one the walk starts again.",
             "rows and columns are read with first. Until the first first the matrix has one row and one column.")

    @dataclass(frozen=True, kw_only=True)
    class Parameters(parameters.Parameters):
        order: str = parameters.choice("planar", ORDERS, "What is walked through: the matrix row by row, or the swizzled plane.")

        cuts = "address", "beat"

        def __post_init__(self):
            super().__post_init__()
            self.check_stages()

    def __init__(self, **options):
        super().__init__(
            self.Parameters(**options),
            i=data.StructLayout({"first": 1, "rows": _SIZE_WIDTH, "columns": _SIZE_WIDTH}),
            o=data.StructLayout({
                "offset": 2 * _SIZE_WIDTH, "row": _SIZE_WIDTH, "column": _SIZE_WIDTH, "is_padding": 1, "last": 1}))

    def elaborate(self, platform):
        m = Module()
        p = self.parameters
        cut = Cuts(m, p.cuts, p.stages)

        valid = cut("beat", self.i_valid, "valid", reset_less=False)
        first = cut("beat", self.i.first, "first")
        # The last row and column.
        rows = cut("beat", (self.i.rows - 1)[:_SIZE_WIDTH], "rows")
        columns = cut("beat", (self.i.columns - 1)[:_SIZE_WIDTH], "columns")
        rows, columns = (self._held(m, valid & first, first, size, name) for size, name in ((rows, "rows"), (columns, "columns")))

        walk = self._planar if p.order == "planar" else self._swizzled
        address = Signal(self.o.shape())
        walk(m, valid, first, rows, columns, address)
        m.d.comb += [self.o.eq(cut("address", address)), self.o_valid.eq(cut("address", valid, "valid", reset_less=False))]

        return m

    @staticmethod
    def _held(m, en, first, value, name):
        """``value`` of the beat with ``first``, from that beat on."""
        held = Signal(len(value), name=f"{name}_held")
        now = Signal(len(value), name=f"last_of_{name}")
        m.d.comb += now.eq(Mux(first, value, held))
        with m.If(en):
            m.d.sync += held.eq(value)
        return now

    @staticmethod
    def _counter(m, width, first, name):
        """``(now, next)``: a counter that ``first`` clears; ``next`` is to be put into it."""
        counter = Signal(width, name=name)
        now = Signal(width, name=f"{name}_now")
        m.d.comb += now.eq(Mux(first, 0, counter))
        return now, counter

    def _planar(self, m, valid, first, rows, columns, address):
        row, next_row = self._counter(m, _SIZE_WIDTH, first, "row")
        column, next_column = self._counter(m, _SIZE_WIDTH, first, "column")
        tile_width = len(address.offset) - _TILE_WIDTH
        tile, next_tile = self._counter(m, tile_width, first, "tile")
        # The first tile of this row of tiles.
        start, next_start = self._counter(m, tile_width, first, "start")

        ends_row = column == columns
        ends = ends_row & (row == rows)
        following = Signal(tile_width)
        m.d.comb += following.eq(tile + 1)
        with m.If(valid):
            m.d.sync += next_column.eq(column + 1)
            m.d.sync += next_row.eq(row)
            m.d.sync += next_start.eq(start)
            m.d.sync += next_tile.eq(Mux(column[:2].all(), following, tile))
            with m.If(ends_row):
                m.d.sync += [next_column.eq(0), next_row.eq(row + 1), next_tile.eq(start)]
                with m.If(row[:7].all()):
                    m.d.sync += [next_start.eq(following), next_tile.eq(following)]
            with m.If(ends):
                m.d.sync += [next_row.eq(0), next_tile.eq(0), next_start.eq(0)]
        m.d.comb += [
            address.offset.eq(Cat(column[:2], row[5:7], row[:5], tile)),
            address.row.eq(row),
            address.column.eq(column),
            address.last.eq(ends),
        ]

    def _swizzled(self, m, valid, first, rows, columns, address):
        offset, next_offset = self._counter(m, len(address.offset), first, "offset")
        down, next_down = self._counter(m, _SIZE_WIDTH - 7, first, "down")
        across, next_across = self._counter(m, _SIZE_WIDTH - 2, first, "across")

        row = Cat(offset[4:9], offset[2:4])
        column = offset[:2]
        is_lowest = down == rows[7:]
        is_rightmost = across == columns[2:]
        ends_tile = offset[:_TILE_WIDTH].all()
        ends = ends_tile & is_lowest & is_rightmost
        with m.If(valid):
            m.d.sync += next_offset.eq(Mux(ends, 0, offset + 1))
            m.d.sync += [next_down.eq(down), next_across.eq(across)]
            with m.If(ends_tile):
                m.d.sync += next_across.eq(Mux(is_rightmost, 0, across + 1))
                with m.If(is_rightmost):
                    m.d.sync += next_down.eq(Mux(is_lowest, 0, down + 1))
        m.d.comb += [
            address.offset.eq(offset),
            address.row.eq(Cat(row, down)),
            address.column.eq(Cat(column, across)),
            address.is_padding.eq((is_lowest & (row > rows[:7])) | (is_rightmost & (column > columns[:2]))),
            address.last.eq(ends),
        ]
