"""Products of FP32 numbers, as IEEE 754 has them."""
from dataclasses import dataclass

from amaranth import *
from amaranth.lib import data

from . import parameters
from .formats import FP32
from .multiply import Multiplier
from .pipeline import Cuts
from .raw import decode
from .unit import Unit

__all__ = ["FP32Multiplier"]


class FP32Multiplier(Unit):
    """``a * b`` of FP32 numbers, rounded once to nearest even (IEEE 754-2019, 5.4.1): what an FP32 scale costs a lane.

    Complete: subnormals are kept, in and out, with one rounding wherever the last place is; zeros and infinities have the sign
    of both operands; what rounds beyond the largest number becomes Inf. A NaN, and Inf times zero, give the canonical NaN
    (0x7FFFFFFF).

    Design: a product of 24 by 24 bits, one shifter and one rounding adder behind it (:class:`.multiply.Multiplier`).

    Cuts: the product; the shifted product; the shifter, after two steps; partial products, from where on an operator's product is a
    sum of four of 12 by 12 bits; the rounded number; the shifter's last step but one; the operands; the result. And, for a clock
    above 200 MHz in ECP5, cuts between what a step of the shifter finds and what it moves, behind the other steps, what they start
    from, the finding of overflow, three times a factor, and each level of the sum of partial products or of rows.

    Members
    -------
    i : ``a`` [lanes], ``b`` [lanes], bits of FP32.
    o : ``products`` [lanes], bits of FP32.

    Latency is ``stages``; one beat a cycle.
    """
    is_operator = True

    @dataclass(frozen=True, kw_only=True)
    class Parameters(parameters.Parameters):
        product: str = parameters.choice("operator", Multiplier.PRODUCTS, "Left to synthesis and DSPs, or a sum of rows.")
        lanes: int = parameters.integer(1, 1, 1024, "Products a cycle.")

        @property
        def lane_multiplier(self):
            return Multiplier(FP32, FP32, FP32, product=self.product)

        @property
        def cuts(self):
            return self.lane_multiplier.cuts

        def __post_init__(self):
            super().__post_init__()
            self.check_stages()

    def __init__(self, **options):
        p = self.Parameters(**options)
        numbers = data.ArrayLayout(unsigned(FP32.width), p.lanes)
        super().__init__(p, i=data.StructLayout({"a": numbers, "b": numbers}), o=data.StructLayout({"products": numbers}))

    def elaborate(self, platform):
        m = Module()
        p = self.parameters
        cut = Cuts(m, p.cuts, p.stages)

        multiplier = p.lane_multiplier
        for lane in range(p.lanes):
            a, b = (cut("operands", decode(m, codes[lane], FP32, f"{side}{lane}"), f"product{lane}_{side}")
                    for side, codes in (("a", self.i.a), ("b", self.i.b)))
            m.d.comb += self.o.products[lane].eq(multiplier.result(m, cut, a, b, f"product{lane}"))

        return m
