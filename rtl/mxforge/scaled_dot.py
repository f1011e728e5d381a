"""Dot product of two MX blocks, with an addend."""
import functools
from dataclasses import dataclass

from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from . import parameters
from .blackwell import TruncatedSum
from .formats import E8M0, ELEMENTS, FP32, WIDES
from .pipeline import Cuts, through
from .products import (
    Operand,
    Pair,
    block_sum,
    front_cuts,
    number_layout,
    product,
    specials,
    specials_over_beats,
    tree_cuts,
)
from .raw import decode
from .scaled_add import Numbers, ScaledAdd, scale_sum
from .unit import Unit

__all__ = ["BlockReplay", "ScaledDot"]


class BlockReplay(wiring.Component):
    """Holds the beats of a block until the last has come, then gives them again, one a cycle from the next cycle on.

    Two blocks of memory: one is read while the other is written. A block takes at least as long to come as to go, so they
    never meet. Blocks are counted from reset.

    Members
    -------
    w_data : :py:`In(shape)`, w_valid : :py:`In(1)`
        A beat. ``w_is_first``, ``w_is_last``: which of its block's it is.
    r_data : :py:`Out(shape)`, r_valid : :py:`Out(1)`
    """
    def __init__(self, shape, beats):
        self._shape = shape
        self._beats = beats
        super().__init__({
            "w_data": In(shape), "w_valid": In(1), "w_is_first": Out(1), "w_is_last": Out(1),
            "r_data": Out(shape), "r_valid": Out(1)})

    def elaborate(self, platform):
        m = Module()

        m.submodules.storage = storage = memory.Memory(
            shape=unsigned(Shape.cast(self._shape).width), depth=2 * self._beats, init=[])
        write = storage.write_port()
        read = storage.read_port()

        last = self._beats - 1
        writing = Signal(range(2 * self._beats))
        reading = Signal(range(2 * self._beats))
        is_going = Signal()
        starts = Signal()
        beat = writing[:-1]
        # The half that is full, from its first beat.
        half = Cat(C(0, len(beat)), writing[-1])
        address = Signal.like(reading)
        m.d.comb += [
            self.w_is_first.eq(beat == 0),
            self.w_is_last.eq(beat == last),
            starts.eq(self.w_valid & self.w_is_last),
            address.eq(Mux(starts, half, reading)),
            write.addr.eq(writing),
            write.data.eq(self.w_data),
            write.en.eq(self.w_valid),
            read.addr.eq(address),
            self.r_data.eq(read.data),
        ]
        m.d.sync += [
            writing.eq(writing + self.w_valid),
            reading.eq(address + 1),
            self.r_valid.eq(starts | is_going),
            is_going.eq(starts | (is_going & (reading[:-1] != last))),
        ]

        return m


class ScaledDot(Unit):
    """``2**(a_scale - 127) * 2**(b_scale - 127) * sum(a_elements * b_elements) + c`` of one block pair.

    ``exact``: the infinitely precise sum, ``c`` included, rounded once to nearest even; an exactly zero one is +0.
    ``blackwell``: the tensor core's, as published (:class:`.blackwell.TruncatedSum`). Subnormals are kept everywhere. NaN (a
    NaN scale, element or addend, Inf times zero, infinities of both signs) comes out as all ones but the sign; otherwise
    an infinity stays, and a sum beyond the largest finite number becomes one.

    Design. Elements are multiplied as small integers; the scales meet only the sum, as an exponent of 9 bits. Exact:
    products are added as integers (:func:`.products.block_sum`), then comes a floating addition
    (:class:`.scaled_add.ScaledAdd`). With fewer lanes than elements a block takes several beats, whose integers are added
    up exactly. Blackwell: no product can be aligned before the largest exponent of the block is known, so with several
    beats the block's products are held (:class:`BlockReplay`) and go on one beat a cycle when the last has come. Blocks
    are counted from reset.

    Cuts, which ``Parameters.cuts`` lists most useful first, in the order of the data: ``decoded`` elements; ``partials``, the
    rows of a product that are still to be added; ``products``; in exact ``aligning`` and ``aligned``, halfway to their places
    and there; in blackwell ``max1``... and ``place``, the levels that find the largest exponent and what follows from it,
    then ``aligned``; ``tree1``... and ``sum``; the addition's (:class:`.scaled_add.ScaledAdd`; in blackwell ``added``, with
    C, and :func:`.scaled_add.round_cuts`); ``result``. The first few part the chain into even steps. With all of them there
    are two or three LUTs between registers, or the carry chain of an adder.

    Members
    -------
    i : ``a_scale``, ``b_scale`` 8 bits (E8M0); ``a_elements``, ``b_elements`` [lanes], codes; ``c`` 32 bits (FP32), with
        ``addend`` only. Scales and ``c`` are the same on each beat of a block; the last counts.
    o : ``result``, bits of ``target``.

    Latency is ``stages``, of blackwell with several beats as many more; one beat a cycle.
    """
    @dataclass(frozen=True, kw_only=True)
    class Parameters(parameters.Parameters):
        a_element: str = parameters.choice("e4m3", ELEMENTS, "Element format of one side.")
        b_element: str = parameters.choice("e4m3", ELEMENTS, "Element format of the other side.")
        block_size: int = parameters.integer(32, 1, 1024, "Elements that share a scale.", power_of_two=True)
        lanes: int = parameters.integer(32, 1, 1024, "Products a cycle.", power_of_two=True)
        addend: bool = parameters.boolean(True, "Adds c, an FP32 number.")
        accumulation: str = parameters.choice("exact", ("exact", "blackwell"), "How products and c are added up.")
        target: str = parameters.choice("fp32", ("fp32", "bf16"), "Format of the result.")

        @property
        def cuts(self):
            """Cut points, most useful first."""
            add, fine = self.add.main_cuts, self.add.fine_cuts
            tree = tree_cuts(self.lanes)
            # Behind the tree's last there is nothing before "sum", if a block takes one beat.
            tree, last = (tree, ()) if self.block_size > self.lanes else (tree[:-1], tree[-1:])
            # The middle one first.
            tree = *tree[len(tree) // 2:], *tree[:len(tree) // 2]
            if self.accumulation == "exact":
                return ("sum", add[0], "aligned", *add[1:4], "products", *tree[:1], *add[4:], *tree[1:], "decoded", "result", *fine,
                        "aligning", "partials", *last)
            added = ("added",) if self.addend else ()
            return ("aligned", "place", "sum", *add[:3], "products", *add[3:], *added, *tree_cuts(self.lanes, "max"), *tree,
                    "decoded", "result", *fine, "partials", *last)

        @property
        def pair(self):
            return Pair(ELEMENTS[self.a_element], ELEMENTS[self.b_element])

        @property
        def add(self):
            """What follows the products."""
            pair = self.pair
            if self.accumulation == "blackwell":
                return TruncatedSum(pair, self.block_size, self.addend)
            return ScaledAdd(pair.sum_width(self.block_size), pair.lsb_exponent, WIDES[self.target], self.addend)

        def __post_init__(self):
            super().__post_init__()
            self.check_block()
            if self.accumulation == "blackwell" and self.target != "fp32":
                raise ValueError(f"target must be fp32 with accumulation=blackwell, not {self.target!r}")
            self.check_stages()

    def __init__(self, **options):
        p = self.Parameters(**options)
        fields = {}
        for side in "a", "b":
            element = getattr(p.pair, side)
            fields |= {f"{side}_scale": E8M0.shape, f"{side}_elements": data.ArrayLayout(unsigned(element.width), p.lanes)}
        if p.addend:
            fields["c"] = unsigned(FP32.width)
        super().__init__(p, i=data.StructLayout(fields), o=data.StructLayout({"result": unsigned(WIDES[p.target].width)}))

    @property
    def is_stateful(self):
        return self.beats[0] > 1

    @property
    def cadence(self):
        return "some" if self.is_stateful else "each"

    @property
    def beats(self):
        p = self.parameters
        return p.block_size // p.lanes, 1

    @property
    def latency(self):
        p = self.parameters
        return p.stages + (self.beats[0] if self.is_stateful and p.accumulation == "blackwell" else 0)

    def elaborate(self, platform):
        m = Module()
        p = self.parameters
        cut = Cuts(m, p.cuts, p.stages)

        valid = self.i_valid if self.is_stateful else Const(0, 1)
        a = Operand.decoded(m, cut, p.pair.a, self.i.a_scale, self.i.a_elements, "a")
        b = Operand.decoded(m, cut, p.pair.b, self.i.b_scale, self.i.b_elements, "b")
        valid = cut("decoded", valid, "valid", reset_less=False)
        scales = scale_sum(m, a, b, "scales")
        c = cut("decoded", decode(m, self.i.c, FP32, "c_raw"), "c") if p.addend else None
        build = self._exact if p.accumulation == "exact" else self._blackwell
        result, done = build(m, cut, valid, a, b, scales, c)
        m.d.comb += self.o.result.eq(cut("result", result))
        if self.is_stateful:
            m.d.comb += self.o_valid.eq(cut("result", done, "done", reset_less=False))

        return m

    def _exact(self, m, cut, valid, a, b, scales, c):
        p = self.parameters
        front = *front_cuts(p.lanes), "sum"

        block = block_sum(m, cut, p.pair, p.block_size, a, b, valid)
        done = cut("sum", block.is_done, "done", reset_less=False)
        total = cut("sum", block.total, "total")
        carry = cut("sum", block.carry, "carry")
        special = cut("sum", block.specials, "specials")

        scales = through(cut, front[:2], scales, "scales")
        if p.addend:
            c = through(cut, front[:2], c, "c")
        places = p.add.places(m, scales, c, cuts=[functools.partial(cut, name) for name in front[2:4]])
        places = through(cut, front[4:], places, "places")
        scales = through(cut, front[2:], scales, "scales")
        if p.addend:
            c = through(cut, front[2:], c, "c")
        flags = Numbers.of(m, special, scales.is_nan, c, "flags")
        result = p.add.result(m, cut, total, carry, places, c, flags)
        return result, through(cut, p.add.cuts, done, "done", reset_less=False)

    def _blackwell(self, m, cut, valid, a, b, scales, c):
        p = self.parameters
        beats = self.beats[0]
        to_largest = "partials", "products", *tree_cuts(p.lanes, "max")

        products = [product(m, cut, *pair, p.pair, f"product{lane}")
                    for lane, pair in enumerate(zip(a.elements, b.elements, strict=True))]
        products = [cut("products", one, f"product{lane}") for lane, one in enumerate(products)]
        largest = p.add.largest(m, cut, products)
        is_nan = through(cut, to_largest[:2], a.is_nan | b.is_nan, "is_nan")
        special = through(cut, to_largest[2:], specials(m, products, is_nan, "specials"), "specials")
        # Flags have told what they know; of a memory nothing is trimmed that is stored.
        layout = number_layout(p.pair)
        products = [data.View(layout, through(cut, to_largest[2:], one.as_value()[:layout.size], f"product{lane}"))
                    for lane, one in enumerate(products)]
        scales = through(cut, to_largest, scales, "scales")
        if p.addend:
            c = through(cut, to_largest, c, "c")
        valid = through(cut, to_largest, valid, "valid", reset_less=False)

        if beats > 1:
            shape = data.ArrayLayout(layout, p.lanes)
            m.submodules.replay = replay = BlockReplay(shape, beats)
            m.d.comb += [replay.w_valid.eq(valid), replay.w_data.eq(Cat(*products))]
            special = specials_over_beats(m, special, replay.w_is_first, beats, valid, "specials")
            so_far = Signal.like(largest, name="largest_so_far", reset_less=True)
            before = Mux(replay.w_is_first, 0, so_far)
            block_largest = Mux(largest > before, largest, before)
            # What is the block's stays until the next one is complete.
            block = {"special": special, "largest": block_largest, "scales": scales} | ({"c": c} if p.addend else {})
            held = {name: Signal(value.shape(), name=f"held_{name}", reset_less=True) for name, value in block.items()}
            with m.If(valid):
                m.d.sync += so_far.eq(block_largest)
                with m.If(replay.w_is_last):
                    m.d.sync += [held[name].eq(value) for name, value in block.items()]
            special, largest, scales, c = held["special"], held["largest"], held["scales"], held.get("c")
            products, valid = replay.r_data, replay.r_valid

        place = cut("place", p.add.place(m, largest, scales, c), "place")
        flags = cut("place", Numbers.of(m, special, scales.is_nan, c, "flags"), "flags")
        valid = cut("place", valid, "valid", reset_less=False)
        terms = []
        for lane in range(p.lanes):
            one = cut("place", products[lane], f"placed{lane}")
            terms.append(cut("aligned", p.add.term(m, one, place, f"term{lane}"), f"term{lane}"))
        valid = cut("aligned", valid, "aligned_valid", reset_less=False)
        total, done = p.add.sum(m, cut, terms, beats, valid)
        total = cut("sum", total, "total")
        done = cut("sum", done, "done", reset_less=False)

        before_add = "aligned", *tree_cuts(p.lanes), "sum"
        limit = through(cut, before_add, place.limit, "limit")
        flags = through(cut, before_add, flags, "flags")
        if p.addend:
            addend = p.add.addend(m, cut("place", c, "c_placed"), place)
            total = cut("added", p.add.with_addend(m, total, through(cut, before_add, addend, "addend")), "total")
            limit, flags = cut("added", limit, "limit"), cut("added", flags, "flags")
            done = cut("added", done, "added_done", reset_less=False)
        result = p.add.result(m, cut, total, limit, flags)
        return result, through(cut, p.add.cuts, done, "done", reset_less=False)
