# amaranth: UnusedElaboratable=no
"""A matrix tile whose results leave as MX: what the next layer's tile takes."""
from dataclasses import asdict, dataclass, fields, replace

from amaranth import *
from amaranth.lib import data, wiring

from . import parameters
from .formats import E8M0, ELEMENTS
from .matmul_tile import MatmulTile
from .pipeline import Streamed, chain, delay
from .quantizer import Quantizer
from .scale_select import SCALE_RULES
from .unit import StreamUnit, Unit

__all__ = ["MatmulLayer", "RowQuantizers"]


class MatmulLayer(StreamUnit):
    """A :class:`MatmulTile` and, behind it, the quantizers that make MX blocks of its results: tiles chain into layers.

    ``D = A B + C`` comes out in blocks of ``block_size`` along D's rows, which is the axis that a next layer sums over, so its
    scales and elements are that layer's A as they are. Products that are delivered one after the other are neighbours in D:
    ``block_size / columns`` of them make a block of each row, or, with more columns than ``block_size``, one product makes
    several. The last of a block gives its output beats; products of a block that never ends give nothing.

    The sum is rounded to ``target``, and that is quantized, bit for bit as :class:`Quantizer` would do it with ``target`` as its
    source: two roundings, as where D goes through memory. A NaN or Inf makes its block NaN: scale 0xFF.

    Design. ``rows`` quantizers of ``columns`` lanes, or of ``block_size`` with more columns than that, behind the tile's queue
    (:class:`.pipeline.Streamed`), with one of their own, so each half has its own credits and no path between. They take a
    product every cycle, which no tile exceeds.

    Cuts: ``stages`` are the tile's, ``quantizer_stages`` the quantizer's (:class:`Quantizer`).

    Members
    -------
    i : the tile's.
    o : ``scales`` [rows * blocks], 8 bits (E8M0), of the ``blocks`` of each row that a beat has a part of, on each beat of a block;
        ``elements`` [rows * columns], codes of ``d_element``, row after row; ``last`` [1], on a block's last beat;
        ``is_out_of_window`` [rows], with ``exact`` only: a term of the row's block lay outside the accumulator's window, and
        the block is NaN.

    Latency is the tile's and the quantizer's, one more each for their queues: from the input beat that completes a block of D to
    its first output beat; the others follow, one a cycle. Interval as the tile's.
    """
    @dataclass(frozen=True, kw_only=True)
    class Parameters(MatmulTile.Parameters):
        d_element: str = parameters.choice("e4m3", ELEMENTS, "Element format of D.")
        scale_rule: str = parameters.choice("rceil", SCALE_RULES, "How D's scales follow from the largest magnitude.")
        quantizer_stages: int = parameters.integer(0, 0, 64, "Pipeline cuts taken of the quantizers.")

        @property
        def tile(self):
            return MatmulTile.Parameters(**{f.name: getattr(self, f.name) for f in fields(MatmulTile.Parameters)})

        @property
        def quantizer(self):
            """The quantizers' parameters."""
            return replace(self._uncut_quantizer, stages=self.quantizer_stages)

        @property
        def _uncut_quantizer(self):
            return Quantizer.Parameters(
                source=self.target, element=self.d_element, block_size=self.block_size, lanes=min(self.columns, self.block_size),
                scale_rule=self.scale_rule)

        @property
        def products(self):
            """Products that make a block of D."""
            return max(1, self.block_size // self.columns)

        @property
        def blocks(self):
            """Blocks of each row that a beat has a part of."""
            return max(1, self.columns // self.block_size)

        def __post_init__(self):
            super().__post_init__()
            if not 2 <= self.block_size <= 256:
                raise ValueError(f"block_size must be 2 to 256 where D is quantized, not {self.block_size!r}")
            if self.columns & (self.columns - 1):
                raise ValueError(f"columns must be a power of two where D is quantized, not {self.columns!r}")
            cuts = self._uncut_quantizer.cuts
            if self.quantizer_stages > len(cuts):
                raise ValueError(f"quantizer_stages must be 0 to {len(cuts)} ({', '.join(cuts)}), not {self.quantizer_stages!r}")

    cadence = "some"

    def __init__(self, **options):
        p = self.Parameters(**options)
        tile = MatmulTile(**asdict(p.tile))
        self._tile = Streamed(tile)
        self._quantizers = Streamed(RowQuantizers(p, tile.o.shape()))
        super().__init__(p, i=tile.i.shape(), o=self._quantizers.core.o.shape())

    @property
    def notes(self):
        p = self.parameters
        made = f"{p.products} products that are delivered one after the other make" if p.products > 1 else "Each product makes"
        return *self._tile.notes, f"{made} {'a block' if p.blocks == 1 else f'{p.blocks} blocks'} of each of D's rows."

    @property
    def latency(self):
        return self._tile.latency + self._quantizers.latency

    @property
    def interval(self):
        return self._tile.interval

    @property
    def beats(self):
        return self.parameters.tile.beats, self.parameters.products

    def elaborate(self, platform):
        m = Module()

        m.submodules.tile = self._tile
        m.submodules.quantizers = self._quantizers
        wiring.connect(m, wiring.flipped(self.i), self._tile.i)
        wiring.connect(m, chain(m, self._tile.o, self._quantizers), wiring.flipped(self.o))

        return m


class RowQuantizers(Unit):
    """A tile's ``results``, of that layout, a product a beat, to MX blocks along the rows.

    Members
    -------
    i : the tile's o.
    o : as :class:`MatmulLayer`'s.
    i_valid, o_valid
        Only where a block takes several products: ``o_valid`` is high for a block's output beats, the first of them ``latency``
        cycles after its last product, the others right behind it.
    """
    def __init__(self, parameters, results):
        p = parameters
        self.is_stateful = p.products > 1
        self.cadence = "blocks" if p.products > 1 else "each"
        outputs = {
            "scales": data.ArrayLayout(E8M0.shape, p.rows * p.blocks),
            "elements": data.ArrayLayout(unsigned(ELEMENTS[p.d_element].width), p.rows * p.columns),
            "last": data.ArrayLayout(unsigned(1), 1)}
        if p.accumulation == "exact":
            outputs["is_out_of_window"] = data.ArrayLayout(unsigned(1), p.rows)
        super().__init__(p, i=results, o=data.StructLayout(outputs))

    @property
    def latency(self):
        return self.parameters.quantizer.latency

    @property
    def beats(self):
        return self.parameters.products, self.parameters.products

    def elaborate(self, platform):
        m = Module()
        p = self.parameters

        results = self.i.results.as_value()
        quantizers = [Quantizer(**asdict(p.quantizer)) for _ in range(p.rows * p.blocks)]
        width = len(results) // len(quantizers)
        for n, quantizer in enumerate(quantizers):
            m.submodules[f"row_{n // p.blocks}_{n % p.blocks}"] = quantizer
            m.d.comb += quantizer.i.values.eq(results.word_select(n, width))
            if self.is_stateful:
                m.d.comb += quantizer.i_valid.eq(self.i_valid)
        m.d.comb += [
            self.o.scales.eq(Cat(quantizer.o.scale for quantizer in quantizers)),
            self.o.elements.eq(Cat(quantizer.o.elements for quantizer in quantizers)),
        ]

        is_last = C(1, 1)
        if self.is_stateful:
            valid = quantizers[0].o_valid
            left = Signal(range(p.products), init=p.products - 1)
            with m.If(valid):
                m.d.sync += left.eq(left - 1)
            is_last = left == 0
            m.d.comb += self.o_valid.eq(valid)
        m.d.comb += self.o.last[0].eq(is_last)
        if p.accumulation == "exact":
            self._flags(m)

        return m

    def _flags(self, m):
        """``is_out_of_window`` of each row, with its block."""
        p = self.parameters
        flags = Cat(self.i.is_out_of_window.as_value().word_select(row, p.columns).any() for row in range(p.rows))
        if not self.is_stateful:
            m.d.comb += self.o.is_out_of_window.eq(delay(m, flags, self.latency, name="flags"))
            return
        left = Signal(range(p.products), init=p.products - 1)
        so_far = Signal(p.rows)
        with m.If(self.i_valid):
            m.d.sync += [left.eq(left - 1), so_far.eq(Mux(left == 0, 0, so_far | flags))]
        # A block's beats begin as late as the next block's last product may come.
        is_known = delay(m, self.i_valid & (left == 0), self.latency - 1, name="is_known", reset_less=False)
        known = delay(m, so_far | flags, self.latency - 1, name="flags")
        held = Signal(p.rows)
        with m.If(is_known):
            m.d.sync += held.eq(known)
        m.d.comb += self.o.is_out_of_window.eq(held)
