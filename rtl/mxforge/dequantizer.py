"""MX elements and their shared scale back to wide floats, by adding exponents."""
from dataclasses import dataclass

from amaranth import *
from amaranth.lib import data
from amaranth.utils import ceil_log2

from . import parameters
from .formats import E8M0, ELEMENTS, WIDES
from .pipeline import Cuts
from .raw import normalized, normalized_exponents
from .round import round_up_to_nearest_even, split
from .unit import Unit

__all__ = ["Dequantizer"]


class Dequantizer(Unit):
    """E8M0 exponent adder: ``element * 2**(scale - 127)`` as FP32, BF16 or FP16, without a multiplier.

    Exact wherever the target can hold the product; otherwise rounded once, RNE. Subnormals are kept on both sides. A NaN
    scale (0xFF) makes every value NaN, a NaN element its own (OCP MX v1.0, 5.1); NaN comes out as all ones but the sign.
    An E5M2 Inf stays Inf. A finite product beyond the target's range, which OCP MX leaves open, becomes Inf or the
    largest finite value (``overflow``), with its sign. Zeros keep their sign.

    Design. The lanes share ``scale`` plus the difference of the biases. A lane normalises its element, so that the
    target's exponent is one sum of the shared number and a small signed exponent. Where the sum is 1 or more it is the
    exponent field, and the fraction, never wider than the target's mantissa, stands at the top of the mantissa. Below 1
    the target is subnormal: the significand moves right by 1 minus the sum, at most ``mantissa_width + 2`` places, since
    from there on all of it is below half of the last place. Only subnormals lose bits, so the rounding carry ends at the
    smallest normal, and no overflow comes of it. FP32 holds every product exactly, and has no rounder.

    Cuts: the sums, the result, the normalised elements, the shifted significands.

    Members
    -------
    i : ``scale`` 8 bits (E8M0); ``elements`` [lanes], codes of ``element``.
    o : ``values`` [lanes], bits of ``target``.

    Latency is ``stages``; one beat a cycle.
    """
    CUTS = "sums", "result", "elements", "shifted"

    @dataclass(frozen=True, kw_only=True)
    class Parameters(parameters.Parameters):
        element: str = parameters.choice("e4m3", ELEMENTS, "Element format.")
        target: str = parameters.choice("fp32", WIDES, "Format of the values.")
        lanes: int = parameters.integer(32, 1, 1024, "Elements a cycle.")
        overflow: str = parameters.choice("inf", ("inf", "saturate"), "What a value too large for the target becomes.")

        @property
        def cuts(self):
            return Dequantizer.CUTS

        def __post_init__(self):
            super().__post_init__()
            self.check_stages()

    def __init__(self, **options):
        p = self.Parameters(**options)
        self._element = ELEMENTS[p.element]
        self._target = WIDES[p.target]
        super().__init__(
            p,
            i=data.StructLayout({"scale": E8M0.shape, "elements": data.ArrayLayout(unsigned(self._element.width), p.lanes)}),
            o=data.StructLayout({"values": data.ArrayLayout(unsigned(self._target.width), p.lanes)}))

    @property
    def _offset(self):
        """The target's exponent field is the scale plus the element's exponent code plus this."""
        return self._target.bias - E8M0.bias - self._element.bias

    def _exponents(self):
        element = normalized_exponents(self._element)
        return range(element.start + self._offset, element.stop + E8M0.max_code + self._offset)

    def elaborate(self, platform):
        m = Module()
        p = self.parameters
        cut = Cuts(m, p.cuts, p.stages)

        offset = self._offset
        base = Signal(range(offset, E8M0.max_code + offset + 1))
        scale_is_nan = Signal()
        m.d.comb += [
            base.eq(self.i.scale + offset),
            scale_is_nan.eq(self.i.scale == E8M0.nan_code),
        ]
        base = cut("elements", base, "base")
        scale_is_nan = cut("elements", scale_is_nan, "scale_is_nan")
        for lane in range(p.lanes):
            element = normalized(m, self.i.elements[lane], self._element, f"element{lane}")
            element = cut("elements", element, f"element{lane}")
            m.d.comb += self.o.values[lane].eq(self._value(m, cut, base, scale_is_nan, element, lane))

        return m

    def _value(self, m, cut, base, scale_is_nan, element, lane):
        target = self._target
        width = target.mantissa_width
        top = (1 << target.exponent_width) - 1

        # Flags in the order of their precedence; a lane is none of them, or a number of the given exponent.
        numbers = data.StructLayout({
            "fraction": element.fraction.shape(), "exponent_code": target.exponent_width, "places": ceil_log2(width + 3),
            "sign": 1, "is_nan": 1, "is_inf": 1, "is_over": 1, "is_zero": 1,
        })
        sums = Signal(numbers, name=f"sums{lane}")
        exponents = self._exponents()
        exponent = Signal(exponents, name=f"exponent{lane}")
        is_tiny = exponent <= 0
        m.d.comb += [
            exponent.eq(base + element.exponent_code),
            sums.fraction.eq(element.fraction),
            sums.exponent_code.eq(Mux(is_tiny, 0, exponent)),
            sums.places.eq(Mux(is_tiny, Mux(exponent < -(width + 1), width + 2, 1 - exponent), 0)),
            sums.sign.eq(element.sign),
            sums.is_nan.eq(element.is_nan | scale_is_nan),
            sums.is_inf.eq(element.is_inf),
            sums.is_over.eq(exponent >= top),
            sums.is_zero.eq(element.is_zero),
        ]
        sums = cut("sums", sums, f"{lane}")

        # As many bits below the mantissa as the longest shift needs, so that none is lost.
        most = min(width + 2, 1 - exponents.start)
        below = max(0, len(element.fraction) + most - width)
        significand = Cat(C(0, width + below - len(sums.fraction)), sums.fraction, C(1, 1))
        moved = Signal(width + 1 + below, name=f"moved{lane}")
        m.d.comb += moved.eq(significand >> sums.places)
        moved = cut("shifted", moved, f"moved{lane}")
        sums = cut("shifted", sums, f"sums{lane}")

        kept, guard, sticky = split(moved[:width + below], below)
        magnitude = Cat(kept, sums.exponent_code)
        if below:
            # Only subnormals lose bits, so the carry reaches no further than the lowest exponent.
            magnitude = magnitude + round_up_to_nearest_even(kept[0], guard, sticky)
        over_code = target.inf_code if self.parameters.overflow == "inf" else target.max_code
        value = Signal(target.width, name=f"value{lane}")
        with m.If(sums.is_nan):
            m.d.comb += value.eq(target.nan_code)
        with m.Elif(sums.is_inf):
            m.d.comb += value.eq(Cat(C(target.inf_code, target.width - 1), sums.sign))
        with m.Elif(sums.is_zero):
            m.d.comb += value.eq(Cat(C(0, target.width - 1), sums.sign))
        with m.Elif(sums.is_over):
            m.d.comb += value.eq(Cat(C(over_code, target.width - 1), sums.sign))
        with m.Else():
            m.d.comb += value.eq(Cat(magnitude[:target.width - 1], sums.sign))
        return cut("result", value, f"{lane}")
