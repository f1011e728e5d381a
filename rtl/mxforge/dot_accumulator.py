"""Long scaled dot products: block pairs that come one after another."""
from dataclasses import dataclass

from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from . import kulisch, parameters
from .arith import any_bit
from .blackwell import TruncatedSum
from .formats import BF16, E8M0, ELEMENTS, FP32
from .pipeline import Cuts, through
from .products import (
    Operand,
    Pair,
    add_with_carry,
    block_sum,
    element_layout,
    front_cuts,
    product,
    specials,
    specials_layout,
    tree_cuts,
)
from .raw import decode
from .round import round_up_to_nearest_even, split
from .scaled_add import Numbers, ScaledAdd, scale_sum, scale_sum_layout
from .unit import Unit

__all__ = ["AccumulatingUnit", "DecodedDot", "DotAccumulator"]

TARGETS = {f.name: f for f in (FP32, BF16)}
ACCUMULATIONS = "exact", "fp32_fused", "fp32_chain", "blackwell"


def _slots(m, first, start, count, valid, name="slot"):
    """``(before, slot, write)`` of ``count`` FP32 numbers, of which each valid block takes the next.

    ``before`` is what the block finds, ``start`` if it is the ``first``; ``write(valid, slot, value)`` puts its number back.
    """
    if count == 1:
        held = Signal(FP32.width, name=name, reset_less=True)

        def write(valid, _, value):
            with m.If(valid):
                m.d.sync += held.eq(value)
        return Mux(first, start, held), C(0, 1), write

    m.submodules.slots = storage = memory.Memory(shape=unsigned(FP32.width), depth=count, init=[])
    read_port, write_port = storage.read_port(domain="comb"), storage.write_port()
    slot = Signal(range(count), name=name)
    m.d.comb += read_port.addr.eq(slot)
    with m.If(valid):
        m.d.sync += slot.eq(Mux(slot == count - 1, 0, slot + 1))

    def write(valid, slot, value):
        m.d.comb += [write_port.en.eq(valid), write_port.addr.eq(slot), write_port.data.eq(value)]
    return Mux(first, start, read_port.data), slot, write


def _narrowed(m, bits, target, name="narrowed"):
    """FP32 bits rounded to nearest even in ``target``, whose exponent field is as wide."""
    places = FP32.mantissa_width - target.mantissa_width
    if not places:
        return bits
    kept, guard, sticky = split(bits[:-1], places)
    result = Signal(target.width, name=name)
    m.d.comb += result.eq(Cat((kept + round_up_to_nearest_even(kept[0], guard, sticky))[:target.width - 1], bits[-1]))
    # The canonical NaN would run over.
    with m.If(bits[:-1] > FP32.inf_code):
        m.d.comb += result.eq(target.nan_code)
    return result


def marks_layout():
    return data.StructLayout({"first": 1, "last": 1})


def _result_layout(p):
    return data.StructLayout({"result": TARGETS[p.target].width} | ({"is_out_of_window": 1} if p.accumulation == "exact" else {}))


class AccumulatingUnit(Unit):
    """A unit whose beats go to products: what its parameters (:class:`DotAccumulator.Parameters`) say of its contract."""
    is_stateful = True
    cadence = "some"

    @property
    def notes(self):
        slots = self.parameters.slots
        return ("A block with first starts a product, one with last delivers it; after that it goes on, unless it starts anew.",
                *([f"Block k belongs to product k mod {slots}, with marks of its own."] if slots > 1 else []),
                f"After reset the first block{' of each product' if slots > 1 else ''} must have first.")

    @property
    def interval(self):
        return self.parameters.interval

    @property
    def beats(self):
        return self.parameters.beats, 1


class DotAccumulator(AccumulatingUnit):
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

    **fp32_fused**: after each block the sum is rounded to FP32, ``acc = RNE(acc + block)``, the block being exact.
    **fp32_chain**: ``acc = RNE(acc + RNE(block))``, IEEE additions, signs of zero included. To ``bf16`` the result, not the
    running sum, is rounded once more.
    **blackwell**: the tensor core's sum of products and running sum (:class:`.blackwell.TruncatedSum`), a step a block. To
    ``fp32`` only, and a whole block a beat.

    Design, exact. The exact block sum is moved to its place in two steps, within a segment and by whole segments. Segments add
    by themselves, their carries waiting for the next block: one block a cycle, whatever the width. On ``first`` the adders
    take ``c`` in place of the sum so far, in one's complement, its missing 1 as the lowest segment's carry. The cycle after
    its last block, a product is read from the newest slot; waiting carries are resolved and the number is rounded behind the
    accumulator, which meanwhile takes the next block. Slots shift by one with each block.

    Design, FP32. The running sum goes through a floating addition (:class:`.scaled_add.ScaledAdd`) and back to its slot. The
    cuts of this loop, ``Parameters.loop``, are the last of the list. With n of them, a block finds its slot's sum if it
    comes n + 1 cycles after the slot's last block; hence the interval. All before is outside: the block's exact sum,
    and its rounding in fp32_chain, whose addition takes an integer of 25 bits; in blackwell the products and their largest
    exponent, but not their sum, since the running sum's exponent may be larger and each product is truncated by itself.

    Cuts, which ``Parameters.cuts`` lists most useful first: up to the block's sum, ``total`` in exact, and in FP32 from there
    on, they are those of :class:`.scaled_dot.ScaledDot`; ``result`` is behind all. In exact ``shifted`` and ``placed`` follow
    the sum, a term moved within a segment and put into one; behind the accumulator ``carries`` and ``resolved``, whether
    segments pass a carry on, and the number without carries waiting; ``leading``, ``coarse`` and ``fine``, moved by a first,
    larger and smaller steps until its leading one is at the top; ``normalized``, its exponent code and whether it rounds up.
    In fp32_chain the block's rounding has those of an addition without C, ``term_...``.

    Members
    -------
    i : ``first``, ``last``; ``a_scale``, ``b_scale`` 8 bits (E8M0); ``a_elements``, ``b_elements`` [lanes], codes; ``c`` 32
        bits (FP32), with ``addend`` only.
    o : ``result``, bits of ``target``; ``is_out_of_window``, with ``exact`` only.

    Latency is ``stages`` + 1 in exact, else ``stages``. A beat each cycle in exact; else every (n + 1) / (``slots`` * beats of
    a block) cycles, rounded up.
    """
    @dataclass(frozen=True, kw_only=True)
    class Parameters(parameters.Parameters):
        a_element: str = parameters.choice("e4m3", ELEMENTS, "Element format of a.")
        b_element: str = parameters.choice("e4m3", ELEMENTS, "Element format of b.")
        block_size: int = parameters.integer(32, 1, 1024, "Elements that share a scale.", power_of_two=True)
        lanes: int = parameters.integer(32, 1, 1024, "Products a cycle.", power_of_two=True)
        addend: bool = parameters.boolean(True, "Whether products start from an FP32 number c.")
        accumulation: str = parameters.choice("exact", ACCUMULATIONS, "How blocks are summed.")
        window: int = parameters.integer(254, 0, 254, "Largest |a_scale + b_scale - 254| that the exact accumulator holds.")
        max_blocks: int = parameters.integer(4096, 1, 1 << 20, "Blocks of a product that the exact accumulator holds.")
        slots: int = parameters.integer(1, 1, 64, "Products that are interleaved.")
        target: str = parameters.choice("fp32", TARGETS, "Format of the result.")

        @property
        def cuts(self):
            """Cut points, most useful first. ``decoded`` is before :class:`DecodedDot`."""
            partials, products, aligning, aligned, *tree = front_cuts(self.lanes)
            if self.accumulation == "exact":
                return ("total", "resolved", "placed", "fine", aligned, *reversed(tree), "carries", "coarse", "shifted", "leading",
                        products, "decoded", "result", "normalized", aligning, partials)
            if self.accumulation == "blackwell":
                return "products", "decoded", *reversed(tree_cuts(self.lanes, "max")), "result", "partials", *self.loop
            main, fine = ([f"term_{cut}" for cut in cuts] if self.accumulation == "fp32_chain" else []
                          for cuts in (self.term.main_cuts, self.term.fine_cuts))
            return "sum", aligned, *main, *reversed(tree), products, "decoded", "result", *fine, aligning, partials, *self.loop

        @property
        def loop(self):
            """Those of the cut points that the running sum goes through, block after block."""
            if self.accumulation == "blackwell":
                return "place", "aligned", *tree_cuts(self.lanes), "sum", "added", *self.add.cuts
            return () if self.accumulation == "exact" else self.add.cuts

        @property
        def beats(self):
            return self.block_size // self.lanes

        @property
        def latency(self):
            return self.stages + (self.accumulation == "exact")

        @property
        def interval(self):
            loop = 1 + len(set(self.loop).intersection(self.cuts[:self.stages]))
            return -(-loop // (self.slots * self.beats))

        @property
        def pair(self):
            return Pair(ELEMENTS[self.a_element], ELEMENTS[self.b_element])

        @property
        def term(self):
            """The block's rounding in fp32_chain."""
            return ScaledAdd(self.pair.sum_width(self.block_size), self.pair.lsb_exponent, FP32, False)

        @property
        def add(self):
            """The addition to the running sum."""
            if self.accumulation == "blackwell":
                return TruncatedSum(self.pair, self.block_size, True)
            if self.accumulation == "fp32_fused":
                return ScaledAdd(self.pair.sum_width(self.block_size), self.pair.lsb_exponent, FP32, True)
            # An FP32 number is its signed significand times two to the exponent code and this, as if that were of the scales.
            lsb_exponent = FP32.lsb_exponent - 1 + 2 * E8M0.bias
            return ScaledAdd(FP32.significand_width + 1, lsb_exponent, FP32, True)

        def __post_init__(self):
            super().__post_init__()
            self.check_block()
            if self.accumulation != "exact":
                for name in "window", "max_blocks":
                    default = type(self).__dataclass_fields__[name].default
                    if getattr(self, name) != default:
                        raise ValueError(f"{name} must be {default} but for accumulation exact, not {getattr(self, name)!r}")
            if self.accumulation == "blackwell":
                if self.target != "fp32":
                    raise ValueError(f"target must be fp32 for accumulation blackwell, not {self.target!r}")
                if self.lanes != self.block_size:
                    raise ValueError(f"lanes must be block_size ({self.block_size}) for accumulation blackwell, not {self.lanes!r}")
            self.check_stages()

    def __init__(self, **options):
        p = self.Parameters(**options)
        super().__init__(
            p,
            i=data.StructLayout({
                "first": 1,
                "last": 1,
                "a_scale": E8M0.shape,
                "a_elements": data.ArrayLayout(unsigned(p.pair.a.width), p.lanes),
                "b_scale": E8M0.shape,
                "b_elements": data.ArrayLayout(unsigned(p.pair.b.width), p.lanes),
            } | ({"c": FP32.width} if p.addend else {})),
            o=_result_layout(p))

    def elaborate(self, platform):
        m = Module()
        p = self.parameters
        cut = Cuts(m, p.cuts, p.stages)

        m.submodules.dot = dot = DecodedDot(p)
        a = Operand.decoded(m, cut, p.pair.a, self.i.a_scale, self.i.a_elements, "a")
        b = Operand.decoded(m, cut, p.pair.b, self.i.b_scale, self.i.b_elements, "b")
        m.d.comb += [
            *dot.given(a, b),
            dot.marks.first.eq(cut("decoded", self.i.first, "first")),
            dot.marks.last.eq(cut("decoded", self.i.last, "last")),
            dot.i_valid.eq(cut("decoded", self.i_valid, "valid", reset_less=False)),
            self.o.eq(dot.o),
            self.o_valid.eq(dot.o_valid),
        ]
        if p.addend:
            m.d.comb += dot.c.eq(cut("decoded", self.i.c, "c"))

        return m


class DecodedDot(wiring.Component):
    """A :class:`DotAccumulator` behind the decoding of its operands, which many of them may share.

    Members
    -------
    marks : ``first``, ``last``.
    c : with ``addend`` only.
    a_scale, a_scale_is_nan, a_is_nan, a_elements : the operand (:class:`.products.Operand`); ``b_...`` the other one.
    i_valid : this cycle's inputs are a beat. o, o_valid : as the accumulator's.
    """
    def __init__(self, parameters):
        p = self._parameters = parameters
        self._pair = p.pair
        self._target = TARGETS[p.target]
        members = {"i_valid": In(1), "o_valid": Out(1), "o": Out(_result_layout(p)), "marks": In(marks_layout())}
        for side in "ab":
            members |= {f"{side}_scale": In(E8M0.shape), f"{side}_scale_is_nan": In(1), f"{side}_is_nan": In(1),
                        f"{side}_elements": In(element_layout(getattr(p.pair, side))).array(p.lanes)}
        super().__init__(members | ({"c": In(FP32.width)} if p.addend else {}))

    def given(self, a, b):
        """Statements that connect two operands."""
        for side, operand in ("a", a), ("b", b):
            for name in "scale", "scale_is_nan", "is_nan":
                yield getattr(self, f"{side}_{name}").eq(getattr(operand, name))
            for element, given in zip(getattr(self, f"{side}_elements"), operand.elements, strict=True):
                yield element.eq(given)

    def elaborate(self, platform):
        m = Module()
        p = self._parameters
        cut = Cuts(m, p.cuts, p.stages)
        a = Operand(self.a_scale, self.a_scale_is_nan, self.a_is_nan, tuple(self.a_elements))
        b = Operand(self.b_scale, self.b_scale_is_nan, self.b_is_nan, tuple(self.b_elements))

        # What goes with a block, beside its sum.
        fields = {"first": 1, "last": 1, "scales": scale_sum_layout()} | ({"c": FP32.width} if p.addend else {})
        beside = Signal(data.StructLayout(fields))
        m.d.comb += [
            beside.first.eq(self.marks.first),
            beside.last.eq(self.marks.last),
            beside.scales.eq(scale_sum(m, a, b, "scales")),
        ]
        if p.addend:
            m.d.comb += beside.c.eq(self.c)
        if p.accumulation == "blackwell":
            self._blackwell(m, cut, a, b, beside)
            return m
        block = block_sum(m, cut, self._pair, p.block_size, a, b, self.i_valid)
        beside = through(cut, front_cuts(p.lanes), beside, "beside")
        if p.accumulation == "exact":
            self._exact(m, cut, block, beside)
        else:
            self._fp32(m, cut, block, beside)

        return m

    def _fp32(self, m, cut, block, beside):
        p = self._parameters
        valid = cut("sum", block.is_done, "valid", reset_less=False)
        total, carry = cut("sum", block.total, "total"), cut("sum", block.carry, "carry")
        specials = cut("sum", block.specials, "specials")
        beside = cut("sum", beside, "beside")
        scales = beside.scales

        if p.accumulation == "fp32_chain":
            def term_cut(name, *value, **options):
                return cut(f"term_{name}", *value, **options)

            flags = Numbers.of(m, specials, scales.is_nan, None, "block_flags")
            places = p.term.places(m, scales, None, "block_places")
            bits = Signal(FP32.width, name="term_bits")
            m.d.comb += bits.eq(p.term.result(m, term_cut, total, carry, places, None, flags, "term"))
            valid = through(term_cut, p.term.cuts, valid, "valid", reset_less=False)
            beside = through(term_cut, p.term.cuts, beside, "beside")
            term = decode(m, bits, FP32, "term_raw")
            # In one's complement, as block sums are.
            total = Signal(signed(FP32.significand_width + 1), name="term_total")
            carry = term.sign
            scales = Signal(scale_sum_layout(), name="term_scales")
            specials = Signal(specials_layout(), name="term_specials")
            m.d.comb += [
                total.eq(Cat(term.significand, C(0, 1)) ^ term.sign.replicate(len(total))),
                scales.code.eq(term.exponent_code),
                specials.is_nan.eq(term.is_nan),
                specials.is_plus_inf.eq(term.is_inf & ~term.sign),
                specials.is_minus_inf.eq(term.is_inf & term.sign),
            ]

        before = Signal(FP32.width)
        found, slot, write = _slots(m, beside.first, beside.c if p.addend else 0, p.slots, valid)
        m.d.comb += before.eq(found)
        acc = decode(m, before, FP32, "acc")
        flags = Numbers.of(m, specials, scales.is_nan, acc, "flags")
        after = Signal(FP32.width)
        m.d.comb += after.eq(p.add.result(m, cut, total, carry, p.add.places(m, scales, acc), acc, flags))
        if p.accumulation == "fp32_chain":
            # IEEE: only the sum of two negative zeros is one.
            is_minus_zero = acc.is_zero & acc.sign & term.is_zero & term.sign
            with m.If(through(cut, p.loop, is_minus_zero, "is_minus_zero")):
                m.d.comb += after[-1].eq(1)
        self._close(m, cut, beside.last, valid, slot, write, after)

    def _blackwell(self, m, cut, a, b, beside):
        p = self._parameters
        to_largest = "partials", "products", *tree_cuts(p.lanes, "max")
        products = [product(m, cut, *pair, p.pair, f"product{lane}")
                    for lane, pair in enumerate(zip(a.elements, b.elements, strict=True))]
        products = [cut("products", one, f"product{lane}") for lane, one in enumerate(products)]
        largest = p.add.largest(m, cut, products)
        is_nan = through(cut, to_largest[:2], a.is_nan | b.is_nan, "is_nan")
        special = through(cut, to_largest[2:], specials(m, products, is_nan, "specials"), "specials")
        products = [through(cut, to_largest[2:], one, f"product{lane}") for lane, one in enumerate(products)]
        beside = through(cut, to_largest, beside, "beside")
        valid = through(cut, to_largest, self.i_valid, "valid", reset_less=False)

        before = Signal(FP32.width)
        found, slot, write = _slots(m, beside.first, beside.c if p.addend else 0, p.slots, valid)
        m.d.comb += before.eq(found)
        acc = decode(m, before, FP32, "acc")
        place = cut("place", p.add.place(m, largest, beside.scales, acc), "place")
        flags = cut("place", Numbers.of(m, special, beside.scales.is_nan, acc, "flags"), "flags")
        terms = []
        for lane, one in enumerate(products):
            one = cut("place", one, f"placed{lane}")
            terms.append(cut("aligned", p.add.term(m, one, place, f"term{lane}"), f"term{lane}"))
        total, _ = p.add.sum(m, cut, terms, 1, valid)
        to_sum = "aligned", *tree_cuts(p.lanes), "sum"
        addend = through(cut, to_sum, p.add.addend(m, cut("place", acc, "acc_placed"), place), "addend")
        limit, flags = through(cut, (*to_sum, "added"), place.limit, "limit"), through(cut, (*to_sum, "added"), flags, "flags")
        total = cut("added", p.add.with_addend(m, cut("sum", total, "total"), addend), "total")
        after = Signal(FP32.width)
        m.d.comb += after.eq(p.add.result(m, cut, total, limit, flags))
        self._close(m, cut, beside.last, valid, slot, write, after)

    def _close(self, m, cut, last, valid, slot, write, after):
        """The end of the loop that a block entered as ``valid``: back to its slot, and out if it is the ``last``."""
        p = self._parameters
        valid = through(cut, p.loop, valid, "loop_valid", reset_less=False)
        write(valid, through(cut, p.loop, slot, "slot"), after)

        last = through(cut, p.loop, last, "last")
        m.d.comb += [
            self.o.result.eq(cut("result", _narrowed(m, after, self._target))),
            self.o_valid.eq(cut("result", valid & last, "valid", reset_less=False)),
        ]

    def _exact(self, m, cut, block, beside):
        p = self._parameters
        window = kulisch.Window(self._pair, p.block_size, p.window, p.max_blocks)
        segments = kulisch.Segments(window.width_with(p.addend))

        # The term, its place, and what it means.
        offset = 2 * E8M0.bias - p.window
        widest = 2 * p.window
        facts_layout = data.StructLayout({"first": 1, "last": 1, "specials": specials_layout(), "is_outside": 1})
        facts = Signal(facts_layout, name="block_facts")
        is_special = block.specials.as_value().any() | beside.scales.is_nan
        # The scales of a NaN are above the range too, but then it is no matter.
        is_far = (beside.scales.code < offset) | (beside.scales.code > offset + widest) if offset else C(0, 1)
        total = Signal(signed(self._pair.sum_width(p.block_size)))
        position = Signal(range(max(widest, 1) + 1))
        m.d.comb += [
            total.eq(add_with_carry(block.total, C(0, 1), block.carry, len(total))),
            position.eq(beside.scales.code - offset),
            facts.first.eq(beside.first),
            facts.last.eq(beside.last),
            facts.specials.eq(block.specials),
            facts.specials.is_nan.eq(block.specials.is_nan | beside.scales.is_nan),
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
