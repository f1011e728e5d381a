"""Tiles of wide values to MX twice: row by row, and column by column."""
from dataclasses import dataclass

from amaranth import *
from amaranth.lib import data, memory

from . import parameters
from .arith import exchange, tree_max
from .block_amax import level_cuts
from .element_cast import RANDOM_WIDTH, Caster
from .formats import E8M0, ELEMENTS, WIDES
from .pipeline import Cuts, burst, delay, through
from .quantizer import decoded_lanes, rule_and_caster
from .scale_select import SCALE_RULES
from .unit import Unit

__all__ = ["DualQuantizer"]


class DualQuantizer(Unit):
    """Both MX copies of a tile of ``block_size`` rows and columns: blocks along its rows, and blocks along its columns.

    Each copy is quantized from the values themselves, bit for bit as :class:`Quantizer` would do it, fed with the tile and with
    its transpose. Blocks of the hardware run along the axis that is summed over, so that a matrix which is also used
    transposed (the backward pass of training) needs both. Under stochastic rounding both copies use a value's one random number.

    Design. A row is compared, cast and put aside as it comes: its codes are the narrowest form it has, and wait in a plain
    memory of a tile. Of the columns, running maxima of the keys (:class:`ScaleRule`) are kept, which after the tile's last row
    move to a shift register, the next column's key in front, and leave the running ones to the next tile. What waits for them
    is the decoded values. They lie in ``block_size`` memories (banks) of one write and one read port, so that a row is written, and
    a column read, in one cycle: the value of row r and column c in bank r ^ c. That puts a row in its banks by exchanging
    neighbours, pairs, fours and so on, as the bits of r say, and a column back in order likewise: log2(block_size) multiplexers
    a lane, and no adders for addresses. The column is put in order behind its casters, where it is codes.

    One tile of memory does for tiles without gaps. A column is read when its scale is there, from the cycle behind the tile's last
    row on, and the next tile's row of that number comes then or later, and is written where the column was. So every other tile
    lies in the banks turned: bank b has an address of row or column k that is k or k ^ b, and for each bit of it one of two wires.

    Cuts: the rows' scales, with what their lanes share of them; those of the cast, on both sides; each level of the rows' tree; the
    keys, with half of the normalising. The columns' scales have a register of their own always. A tile of 2 has no cut for the
    levels, since a row must be cast within the tile's time.

    Members
    -------
    i : ``values`` [block_size], a row, bits of ``source``; with stochastic rounding ``random`` [block_size], 16 bits.
    o : of row k and column k in beat k ``row_scales`` [1], ``column_scales`` [1], 8 bits (E8M0), and ``row_elements``,
        ``column_elements`` [block_size], codes of ``element``, a row's from left to right, a column's from top to bottom.
    i_valid, o_valid
        Tiles are ``block_size`` beats each, counted from reset. ``o_valid`` is high for a tile's output beats, the first of
        them ``latency`` cycles after its last input beat, the others right behind it.

    Latency is 2, plus the cuts taken at the keys and in the cast; those of the rows alone cost none. One beat a cycle.
    """
    is_stateful = True
    cadence = "blocks"

    @dataclass(frozen=True, kw_only=True)
    class Parameters(parameters.Parameters):
        source: str = parameters.choice("fp32", WIDES, "Format of the values.")
        element: str = parameters.choice("e4m3", ELEMENTS, "Element format.")
        block_size: int = parameters.integer(32, 2, 64, "Values under one scale: rows and columns of a tile.", power_of_two=True)
        scale_rule: str = parameters.choice("rceil", SCALE_RULES, "How the scale follows from the largest magnitude.")
        nan_policy: str = parameters.choice(
            "block", ("block", "element"), "A NaN or Inf makes its blocks NaN; or NaN stays alone, Inf takes the largest scale.")
        rounding: str = parameters.choice("rne", ("rne", "stochastic"), "To nearest even, or by random numbers.")
        overflow: str = parameters.choice("saturate", ("saturate", "ieee"), "What a value above the largest element becomes.")

        @property
        def levels(self):
            """Cuts of the rows' tree."""
            return level_cuts(self.block_size) if self.block_size > 2 else ()

        @property
        def cuts(self):
            levels = self.levels
            return "scale", "shifted", *levels[:1], "keys", "difference", "rounded", *levels[1:], "result"

        def __post_init__(self):
            super().__post_init__()
            self.check_specials()
            self.check_stages()

    def __init__(self, **options):
        p = self.Parameters(**options)
        fields = {"values": data.ArrayLayout(unsigned(WIDES[p.source].width), p.block_size)}
        if p.rounding == "stochastic":
            fields["random"] = data.ArrayLayout(unsigned(RANDOM_WIDTH), p.block_size)
        copy = {"scales": data.ArrayLayout(E8M0.shape, 1),
                "elements": data.ArrayLayout(unsigned(ELEMENTS[p.element].width), p.block_size)}
        super().__init__(
            p,
            i=data.StructLayout(fields),
            o=data.StructLayout({f"{side}_{name}": shape for side in ("row", "column") for name, shape in copy.items()}))

    @property
    def latency(self):
        p = self.parameters
        return 2 + sum(name in ("keys", *Caster.CUTS) for name in p.cuts[:p.stages])

    @property
    def beats(self):
        return self.parameters.block_size, self.parameters.block_size

    def elaborate(self, platform):
        m = Module()
        p = self.parameters
        size = p.block_size
        cut = Cuts(m, p.cuts, p.stages)

        rule, caster = rule_and_caster(p)
        keys, decoded = decoded_lanes(m, cut, self.i, p, rule, caster)
        written = delay(m, self.i_valid, cut.count("keys"), name="written", reset_less=False)

        # The tile's row, and above it whether the tile lies turned; so for what is read.
        writing = Signal(range(2 * size))
        is_known = Signal()
        m.d.comb += is_known.eq(written & writing[:-1].all())
        m.d.sync += writing.eq(writing + written)
        read_en = burst(m, delay(m, is_known, 1, name="start", reset_less=False), size, name="remaining")
        reading = Signal(range(2 * size))
        m.d.sync += reading.eq(reading + read_en)

        column_scale = rule.scale(m, self._column_key(m, keys, written, is_known), "column_scale")
        shared = delay(m, caster.share(m, column_scale), 1, name="column_shared")
        column_scale = delay(m, column_scale, 1, name="column_scale")
        columns = self._transposed(m, decoded, writing, written, reading)
        codes = [caster.encode(m, cut, shared, value, f"column{bank}") for bank, value in enumerate(columns)]

        casting = cut.count(*Caster.CUTS)
        column = delay(m, reading[:-1], casting, name="column")
        row = self._rows(m, cut, rule, caster, keys, decoded, written, column)
        place = delay(m, column, 1, name="place")
        column_scale = through(cut, Caster.CUTS, column_scale, "column_scale")
        m.d.comb += [
            Cat(self.o.row_scales, self.o.row_elements).eq(row),
            self.o.column_scales.eq(column_scale),
            self.o.column_elements.eq(Cat(*exchange(m, codes, place))),
            self.o_valid.eq(delay(m, read_en, 1 + casting, name="valid", reset_less=False)),
        ]

        return m

    def _column_key(self, m, keys, written, is_known):
        """The largest key of each column in turn, from the cycle after ``is_known`` on."""
        following = Const(0, len(keys[0]))
        for n, key in reversed(list(enumerate(keys))):
            # Zero, which no key is below, is where a tile starts.
            running = Signal(len(key), name=f"running{n}")
            maximum = tree_max(m, [running, key])
            with m.If(written):
                m.d.sync += running.eq(Mux(is_known, 0, maximum))
            following = delay(m, Mux(is_known, maximum, following), 1, name=f"column_key{n}")
        return following

    def _transposed(self, m, decoded, writing, written, reading):
        """The values of column ``reading``, a cycle later, that of row r from bank r ^ column."""
        (row, is_written_turned), (column, is_read_turned) = ((index[:-1], index[-1]) for index in (writing, reading))
        values = []
        for bank, value in enumerate(exchange(m, [value.as_value() for value in decoded], row)):
            m.submodules[f"bank{bank}"] = storage = memory.Memory(shape=len(value), depth=self.parameters.block_size, init=[])
            write = storage.write_port()
            read = storage.read_port()
            m.d.comb += [
                write.en.eq(written),
                write.addr.eq(row ^ Mux(is_written_turned, bank, 0)),
                write.data.eq(value),
                read.addr.eq(column ^ Mux(is_read_turned, 0, bank)),
            ]
            values.append(data.View(decoded.shape().elem_shape, read.data))
        return values

    def _rows(self, m, cut, rule, caster, keys, decoded, written, column):
        """Scale and codes of row ``column`` of the tile that is read, a cycle later."""
        p = self.parameters
        key = tree_max(m, keys, lambda level, n, value: cut(f"level_{level}", value, f"{n}") if p.levels else value)
        for name in p.levels:
            decoded = cut(name, decoded, "decoded")
        scale = rule.scale(m, key, "row_scale")
        shared = cut("scale", caster.share(m, scale), "row_shared")
        decoded = cut("scale", decoded, "decoded")
        codes = [caster.encode(m, cut, shared, value, f"row{lane}") for lane, value in enumerate(decoded)]
        scale = through(cut, ("scale", *Caster.CUTS), scale, "row_scale")

        m.submodules.rows = storage = memory.Memory(shape=len(Cat(scale, *codes)), depth=p.block_size, init=[])
        write = storage.write_port()
        read = storage.read_port()
        m.d.comb += [
            write.en.eq(delay(
                m, written, cut.count(*p.levels, "scale", *Caster.CUTS), name="row_written", reset_less=False)),
            write.data.eq(Cat(scale, *codes)),
            read.addr.eq(column),
        ]
        m.d.sync += write.addr.eq(write.addr + write.en)
        return read.data
