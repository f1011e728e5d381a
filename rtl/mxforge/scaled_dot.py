"""Dot product of two MX blocks, with an addend."""
from dataclasses import dataclass

from amaranth import *
from amaranth.lib import data

from . import parameters
from .formats import E8M0, ELEMENTS, FP32, WIDES
from .pipeline import Cuts
from .products import Pair, block_sum, front_cuts, through
from .raw import decode
from .scaled_add import Numbers, ScaledAdd, scale_sum
from .unit import Unit

__all__ = ["ScaledDot"]


class ScaledDot(Unit):
    """``2**(a_scale - 127) * 2**(b_scale - 127) * sum(a_elements * b_elements) + c`` of one block pair.

    Exact: the infinitely precise sum, ``c`` included, rounded once to nearest even; an exactly zero one is +0. Subnormals
    are kept everywhere. NaN (a NaN scale, element or addend, Inf times zero, infinities of both signs) comes out as all ones
    but the sign; otherwise an infinity stays, and a sum beyond the largest finite number becomes one.

    Design. Elements are multiplied as small integers and added as integers (:func:`.products.block_sum`); the scales meet
    only the sum, as a 9-bit exponent (:class:`.scaled_add.ScaledAdd`). With fewer lanes than elements a block takes
    several beats, whose integers are added up exactly; blocks are counted from reset.

    Cuts: ``Parameters.cuts``.

    Members
    -------
    i : ``a_scale``, ``b_scale`` 8 bits (E8M0); ``a_elements``, ``b_elements`` [lanes], codes; ``c`` 32 bits (FP32), with
        ``addend`` only. Scales and ``c`` are the same on each beat of a block; the last counts.
    o : ``result``, bits of ``target``.

    Latency is ``stages``; one beat a cycle.
    """
    @dataclass(frozen=True, kw_only=True)
    class Parameters(parameters.Parameters):
        a_element: str = parameters.choice("e4m3", ELEMENTS, "Element format of one side.")
        b_element: str = parameters.choice("e4m3", ELEMENTS, "Element format of the other side.")
        block_size: int = parameters.integer(32, 1, 1024, "Elements that share a scale.", power_of_two=True)
        lanes: int = parameters.integer(32, 1, 1024, "Products a cycle.", power_of_two=True)
        addend: bool = parameters.boolean(True, "Adds c, an FP32 number.")
        accumulation: str = parameters.choice("exact", ("exact",), "How products and c are added up.")
        target: str = parameters.choice("fp32", ("fp32", "bf16"), "Format of the result.")

        @property
        def cuts(self):
            """Cut points, most useful first."""
            placing, shifts = self.add.cuts[:-len(self.add.shift_cuts)], self.add.shift_cuts
            front = front_cuts(self.lanes)
            return "sum", "aligned", *placing[-1:], *shifts, *placing[:-1], *front[:1], *front[2:], "result"

        @property
        def pair(self):
            return Pair(ELEMENTS[self.a_element], ELEMENTS[self.b_element])

        @property
        def add(self):
            pair = self.pair
            return ScaledAdd(pair.sum_width(self.block_size), pair.lsb_exponent, WIDES[self.target], self.addend)

        def __post_init__(self):
            super().__post_init__()
            self.check_block()
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

    def elaborate(self, platform):
        m = Module()
        p = self.parameters
        cut = Cuts(m, p.cuts, p.stages)
        before_add = *front_cuts(p.lanes), "sum"

        valid = self.i_valid if self.is_stateful else Const(0, 1)
        block = block_sum(m, cut, p.pair, p.block_size, self.i.a_elements, self.i.b_elements, valid)
        done = cut("sum", block.is_done, "done", reset_less=False)
        total = cut("sum", block.total, "total")
        carry = cut("sum", block.carry, "carry")
        specials = cut("sum", block.specials, "specials")

        scales = scale_sum(m, self.i.a_scale, self.i.b_scale, "scales")
        c = decode(m, self.i.c, FP32, "c_raw") if p.addend else None
        places = p.add.places(m, scales, c)
        scales = through(cut, before_add, scales, "scales")
        places = through(cut, before_add, places, "places")
        if p.addend:
            c = through(cut, before_add, c, "c")

        flags = Numbers.of(m, specials, scales.is_nan, c, "flags")
        result = p.add.result(m, cut, total, carry, places, c, flags)
        m.d.comb += self.o.result.eq(cut("result", result))
        if self.is_stateful:
            done = through(cut, (*p.add.cuts, "result"), done, "done", reset_less=False)
            m.d.comb += self.o_valid.eq(done)

        return m
