"""Conventional FP8: elements back to wide floats, under one FP32 factor for a tensor."""
from dataclasses import dataclass

from amaranth import *
from amaranth.lib import data

from . import parameters
from .formats import FP32, WIDES
from .multiply import Multiplier
from .pipeline import Cuts
from .raw import decode, raw_layout
from .tensor_quantizer import FP8
from .unit import Unit

__all__ = ["TensorDequantizer"]


class TensorDequantizer(Unit):
    """Per-tensor dequantizer: ``element * scale`` by a multiplier a lane, as FP32, BF16 or FP16; what MX does by adding.

    ``scale`` is the factor that elements are multiplied by, any FP32 number: the inverse of the quantizer's. The exact product is
    rounded once, to nearest even, in the target, and not in FP32 before. Subnormals are kept on all sides. A NaN on either
    side, and infinity times zero, give NaN, all ones but the sign; another infinity stays one. A finite product
    beyond the target's range becomes Inf or the largest finite value (``overflow``). The sign is that of both.

    Design (:class:`.multiply.Multiplier`). With ``multiplier`` of ``fp32`` the elements become FP32 numbers, and are multiplied as
    such, 24 by 24 bits, as by conventional hardware whose multipliers serve other ends as well. (Synthesis that sees a lane as a
    whole finds that the elements' low bits are zeros.) ``trimmed`` multiplies the significands that elements have, 4 or 3 bits by
    24, for the same results.

    Cuts: those of :class:`.multiply.Multiplier`.

    Members
    -------
    i : ``scale`` 32 bits (FP32); ``elements`` [lanes], codes of ``element``.
    o : ``values`` [lanes], bits of ``target``.

    Latency is ``stages``; one beat a cycle.
    """
    @dataclass(frozen=True, kw_only=True)
    class Parameters(parameters.Parameters):
        element: str = parameters.choice("e4m3", FP8, "Element format.")
        target: str = parameters.choice("fp32", WIDES, "Format of the values.")
        overflow: str = parameters.choice("inf", ("inf", "saturate"), "What a value too large for the target becomes.")
        multiplier: str = parameters.choice("fp32", ("fp32", "trimmed"), "24 by 24 bits, or as wide as an element needs it.")
        product: str = parameters.choice("operator", Multiplier.PRODUCTS, "Left to synthesis and DSPs, or a sum of rows.")
        lanes: int = parameters.integer(32, 1, 1024, "Elements a cycle.")

        @property
        def lane_multiplier(self):
            factor = FP8[self.element] if self.multiplier == "trimmed" else FP32
            return Multiplier(factor, FP32, WIDES[self.target], self.overflow, self.product)

        @property
        def cuts(self):
            return self.lane_multiplier.cuts

        def __post_init__(self):
            super().__post_init__()
            self.check_stages()

    def __init__(self, **options):
        p = self.Parameters(**options)
        self._element = FP8[p.element]
        self._target = WIDES[p.target]
        super().__init__(
            p,
            i=data.StructLayout({"scale": FP32.width, "elements": data.ArrayLayout(unsigned(self._element.width), p.lanes)}),
            o=data.StructLayout({"values": data.ArrayLayout(unsigned(self._target.width), p.lanes)}))

    def elaborate(self, platform):
        m = Module()
        p = self.parameters
        cut = Cuts(m, p.cuts, p.stages)

        multiplier = p.lane_multiplier
        scale = cut("operands", decode(m, self.i.scale, FP32, "scale"), "scale")
        for lane in range(p.lanes):
            element = decode(m, self.i.elements[lane], self._element, f"element{lane}")
            if p.multiplier == "fp32":
                element = self._widened(m, element, f"wide{lane}")
            element = cut("operands", element, f"value{lane}_a")
            m.d.comb += self.o.values[lane].eq(multiplier.result(m, cut, element, scale, f"value{lane}"))

        return m

    def _widened(self, m, element, name):
        """A decoded element as an FP32 number. A subnormal stays without its leading one: the multiplier finds that as well."""
        wide = Signal(raw_layout(FP32), name=name)
        m.d.comb += [
            wide.significand.eq(Cat(C(0, FP32.significand_width - self._element.significand_width), element.significand)),
            wide.exponent_code.eq(element.exponent_code + (FP32.bias - self._element.bias)),
            wide.sign.eq(element.sign),
            wide.is_nan.eq(element.is_nan),
            wide.is_inf.eq(element.is_inf),
            wide.is_zero.eq(element.is_zero),
        ]
        return wide
