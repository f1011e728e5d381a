"""Long scaled dot products: block pairs that come one after another."""
from dataclasses import dataclass

from amaranth import *
from amaranth.lib import data
from amaranth.utils import bits_for

from . import kulisch, parameters
from .arith import any_bit
from .formats import BF16, E8M0, ELEMENTS, FP32
from .pipeline import Cuts
from .products import Pair, add_with_carry, block_sum, front_cuts, specials_layout, through
from .unit import Unit

__all__ = ["DotAccumulator"]

TARGETS = {f.name: f for f in (FP32, BF16)}


class DotAccumulator(Unit):
    """``c + sum(2**(a_scale - 127) * 2**(b_scale - 127) * sum(a_elements * b_elements))`` over the block pairs of a product.

    A block pair with ``first`` starts a product, from ``c`` (+0 without addend); one with ``last`` delivers the sum so far,
    itself included. A block after that goes on with the running sum, unless it starts anew. The first block after reset
    must start one. With ``slots`` of S, S products are interleaved: block k belongs to slot k mod S, with marks of its own.
    Marks, scales and ``c`` are read on a block's last beat.

    NaN (a NaN scale, element or addend, Inf times zero, infinities of both signs) comes out as all ones but the sign;
    otherwise an infinity stays, and a sum beyond the largest finite number becomes one. Subnormals are kept everywhere.

    **exact**: the infinitely precise sum, rounded once to nearest even; an exactly zero one is +0. It lives in a
    fixed-point number (:mod:`.kulisch`) of ``sum_width + 2 * window + ceil(log2(max_blocks))`` bits, the lowest worth the
    last place of a product under a scale of ``2**-window``. What it can't hold is out of window: a block that is neither
    zero nor special, with ``abs(a_scale + b_scale - 254) > window``; a ``c`` with a bit below the lowest or at the sign's
    place or above; more than ``max_blocks`` blocks since ``first``. Then results are NaN with ``is_out_of_window`` until the
    slot's next ``first``.

    Design. The exact block sum is moved to its place in two steps, within a segment and by whole segments. Segments add
    by themselves, their carries waiting for the next block: one block a cycle, whatever the width. On ``first`` the adders
    take ``c`` in place of the sum so far, in one's complement, its missing 1 as the lowest segment's carry. The cycle after
    its last block, a product is read from the newest slot; waiting carries are resolved and the number is rounded behind the
    accumulator, which meanwhile takes the next block. Slots shift by one with each block.

    Cuts: ``Parameters.cuts``.

    Members
    -------
    i : ``first``, ``last``; ``a_scale``, ``b_scale`` 8 bits (E8M0); ``a_elements``, ``b_elements`` [lanes], codes; ``c`` 32
        bits (FP32), with ``addend`` only.
    o : ``result``, bits of ``target``; ``is_out_of_window``.

    Latency is ``stages`` + 1; one beat a cycle.
    """
    CUTS = ("total", "resolved", "placed", "fine", "aligned", "carries", "coarse", "shifted", "leading", "products", "result",
            "normalized")

    @dataclass(frozen=True, kw_only=True)
    class Parameters(parameters.Parameters):
        a_element: str = parameters.choice("e4m3", ELEMENTS, "Element format of a.")
        b_element: str = parameters.choice("e4m3", ELEMENTS, "Element format of b.")
        block_size: int = parameters.integer(32, 1, 1024, "Elements that share a scale.", power_of_two=True)
        lanes: int = parameters.integer(32, 1, 1024, "Products a cycle.", power_of_two=True)
        addend: bool = parameters.boolean(True, "Whether products start from an FP32 number c.")
        accumulation: str = parameters.choice("exact", ("exact",), "How blocks are summed.")
        window: int = parameters.integer(254, 0, 254, "Largest |a_scale + b_scale - 254| that the exact accumulator holds.")
        max_blocks: int = parameters.integer(4096, 1, 1 << 20, "Blocks of a product that the exact accumulator holds.")
        slots: int = parameters.integer(1, 1, 64, "Products that are interleaved.")
        target: str = parameters.choice("fp32", TARGETS, "Format of the result.")

        @property
        def cuts(self):
            """Cut points, most useful first."""
            tree = front_cuts(self.lanes)[2:]
            return *DotAccumulator.CUTS[:5], *reversed(tree), *DotAccumulator.CUTS[5:]

        def __post_init__(self):
            super().__post_init__()
            self.check_block()
            self.check_stages()

    is_stateful = True
    cadence = "some"

    def __init__(self, **options):
        p = self.Parameters(**options)
        self._pair = Pair(ELEMENTS[p.a_element], ELEMENTS[p.b_element])
        self._target = TARGETS[p.target]
        super().__init__(
            p,
            i=data.StructLayout({
                "first": 1,
                "last": 1,
                "a_scale": E8M0.shape,
                "a_elements": data.ArrayLayout(unsigned(self._pair.a.width), p.lanes),
                "b_scale": E8M0.shape,
                "b_elements": data.ArrayLayout(unsigned(self._pair.b.width), p.lanes),
            } | ({"c": FP32.width} if p.addend else {})),
            o=data.StructLayout({"result": self._target.width, "is_out_of_window": 1}))

    @property
    def latency(self):
        return self.parameters.stages + 1

    @property
    def beats(self):
        return self.parameters.block_size // self.parameters.lanes, 1

    def elaborate(self, platform):
        m = Module()
        p = self.parameters
        cut = Cuts(m, p.cuts, p.stages)

        # What goes with a block, beside its sum.
        fields = {"first": 1, "last": 1, "scales": E8M0.width + 1, "scale_is_nan": 1} | ({"c": FP32.width} if p.addend else {})
        beside = Signal(data.StructLayout(fields))
        m.d.comb += [
            beside.first.eq(self.i.first),
            beside.last.eq(self.i.last),
            beside.scales.eq(self.i.a_scale + self.i.b_scale),
            beside.scale_is_nan.eq((self.i.a_scale == E8M0.nan_code) | (self.i.b_scale == E8M0.nan_code)),
        ]
        if p.addend:
            m.d.comb += beside.c.eq(self.i.c)
        block = block_sum(m, cut, self._pair, p.block_size, self.i.a_elements, self.i.b_elements, self.i_valid)
        beside = through(cut, front_cuts(p.lanes), beside, "beside")
        self._exact(m, cut, block, beside)

        return m

    def _exact(self, m, cut, block, beside):
        p = self.parameters
        window = kulisch.Window(self._pair, p.block_size, p.window, p.max_blocks)
        segments = kulisch.Segments(window.width_with(p.addend))

        # The term, its place, and what it means.
        offset = 2 * E8M0.bias - p.window
        widest = 2 * p.window
        facts_layout = data.StructLayout({"first": 1, "last": 1, "specials": specials_layout(), "is_outside": 1})
        facts = Signal(facts_layout, name="block_facts")
        is_special = block.specials.as_value().any() | beside.scale_is_nan
        # The scales of a NaN are above the range too, but then it is no matter.
        is_far = (beside.scales < offset) | (beside.scales > offset + widest) if offset else C(0, 1)
        total = Signal(signed(self._pair.sum_width(p.block_size)))
        position = Signal(range(max(widest, 1) + 1))
        m.d.comb += [
            total.eq(add_with_carry(block.total, C(0, 1), block.carry, len(total))),
            position.eq(beside.scales - offset),
            facts.first.eq(beside.first),
            facts.last.eq(beside.last),
            facts.specials.eq(block.specials),
            facts.specials.is_nan.eq(block.specials.is_nan | beside.scale_is_nan),
            facts.is_outside.eq(~is_special & is_far),
        ]
        valid = cut("total", block.is_done, "valid", reset_less=False)
        total = cut("total", total, "sum")
        position = cut("total", position, "position")
        facts = cut("total", facts, "facts")
        is_nonzero = total.any()
        term, coarse = kulisch.place(m, total, position, "term")
        term, coarse = cut("shifted", term, "term"), cut("shifted", coarse, "coarse")
        placed_facts = Signal(facts_layout, name="placed_facts")
        m.d.comb += [placed_facts.eq(facts), placed_facts.is_outside.eq(facts.is_outside & is_nonzero)]
        facts = cut("shifted", placed_facts, "facts")
        valid = cut("shifted", valid, "valid", reset_less=False)
        digits = cut("placed", kulisch.spread(m, segments, term, coarse, valid, "term_digits"), "digits")

        state_layout = data.StructLayout({
            "number": segments.layout, "count": unsigned(bits_for(p.max_blocks)), "specials": specials_layout(), "is_outside": 1})
        start = Signal(state_layout)
        if p.addend:
            c = cut("total", beside.c, "c")
            self._place_addend(m, cut, window, segments, c, start)
        facts = cut("placed", facts, "facts")
        valid = cut("placed", valid, "valid", reset_less=False)

        # Slots go round: a block finds its product in the oldest.
        slots = [Signal(state_layout, name=f"slot{n}", reset_less=True) for n in range(p.slots)]
        before = Signal(state_layout)
        after = Signal(state_layout)
        m.d.comb += before.eq(Mux(facts.first, start.as_value(), slots[-1].as_value()))
        is_full = before.count == p.max_blocks
        m.d.comb += [
            after.number.eq(kulisch.accumulate(m, segments, before.number, digits, "number")),
            after.count.eq(Mux(is_full, before.count, before.count + 1)),
            after.specials.eq(before.specials.as_value() | facts.specials.as_value()),
            after.is_outside.eq(before.is_outside | facts.is_outside | is_full),
        ]
        with m.If(valid):
            for slot, value in zip(slots, [after] + slots, strict=False):
                m.d.sync += slot.eq(value)
        done = Signal()
        m.d.sync += done.eq(valid & facts.last)

        # The newest slot, in the only cycle in which it is sure to be.
        result = slots[0]
        number = kulisch.resolve(m, cut, segments, result.number, "sum")
        beside = through(cut, ("carries", "resolved"), Cat(result.specials, result.is_outside), "result_facts")
        code, beside = kulisch.rounded(m, cut, number, window.lsb_exponent, self._target, beside, "sum")
        done = through(cut, ("carries", "resolved", *kulisch.RESULT_CUTS), done, "done", reset_less=False)
        special = data.View(specials_layout(), beside[:-1])
        is_outside = beside[-1]
        output = Signal(self.o.shape())
        m.d.comb += output.is_out_of_window.eq(is_outside)
        with m.If(is_outside | special.is_nan | (special.is_plus_inf & special.is_minus_inf)):
            m.d.comb += output.result.eq(self._target.nan_code)
        with m.Elif(special.is_plus_inf | special.is_minus_inf):
            m.d.comb += output.result.eq(Cat(C(self._target.inf_code, self._target.width - 1), special.is_minus_inf))
        with m.Else():
            m.d.comb += output.result.eq(code)
        m.d.comb += [
            self.o.eq(cut("result", output)),
            self.o_valid.eq(cut("result", done, "done", reset_less=False)),
        ]

    def _place_addend(self, m, cut, window, segments, c, start):
        """The state ``start`` of a product that starts from the FP32 number ``c``."""
        mantissa, exponent_code, sign = c[:FP32.mantissa_width], c[FP32.mantissa_width:FP32.width - 1], c[-1]
        is_normal = exponent_code.any()
        significand = Cat(mantissa, is_normal)
        # Segments below the window, where it ends above FP32's last place: what falls there is lost.
        skip = -(-len(significand) // kulisch.SEGMENT_WIDTH) if window.lsb_exponent > FP32.lsb_exponent else 0
        offset = FP32.lsb_exponent - 1 - window.lsb_exponent + skip * kulisch.SEGMENT_WIDTH
        position = Signal(range(min(offset, 0), offset + 256), name="c_position")
        # The lowest exponent code that is beyond the window's top.
        too_large = window.width - 1 + window.lsb_exponent + FP32.bias
        is_top = exponent_code.all()
        facts = Signal(data.StructLayout({"specials": specials_layout(), "is_outside": 1}), name="c_facts")
        m.d.comb += [
            position.eq(Cat(exponent_code[0] | ~is_normal, exponent_code[1:]) + offset),
            facts.specials.is_nan.eq(is_top & mantissa.any()),
            facts.specials.is_plus_inf.eq(is_top & ~mantissa.any() & ~sign),
            facts.specials.is_minus_inf.eq(is_top & ~mantissa.any() & sign),
        ]
        term, coarse = kulisch.place(m, Cat(significand, C(0, 1)), position, "c_term")
        is_below = significand.any() & ((position < 0) if offset < 0 else C(0, 1))
        for n in range(skip):
            for k in range(n + 1):
                word = term[k * kulisch.SEGMENT_WIDTH:(k + 1) * kulisch.SEGMENT_WIDTH]
                is_below = is_below | (any_bit(word) & (coarse == n - k))
        is_above = exponent_code >= too_large if too_large <= FP32.bias * 2 else C(0, 1)
        m.d.comb += facts.is_outside.eq(~is_top & (is_below | is_above))
        flipped = Signal(signed(len(term)), name="c_flipped")
        m.d.comb += flipped.eq(term ^ sign.replicate(len(term)))
        term, coarse = cut("shifted", flipped, "c_term"), cut("shifted", coarse, "c_coarse")
        facts = cut("shifted", facts, "c_facts")
        digits = kulisch.spread(m, segments, term, coarse, C(1, 1), "c_digits", skip=skip, below=term[-1])
        facts = cut("placed", facts, "c_facts")
        digits = cut("placed", digits, "c_digits")
        m.d.comb += [
            start.number.digits.eq(digits),
            # One's complement so far.
            start.number.carries[0].eq(cut("placed", term[-1], "c_sign")),
            start.specials.eq(facts.specials),
            start.is_outside.eq(facts.is_outside),
        ]
