"""MX elements and their shared scale back to wide floats, by adding exponents."""
from dataclasses import dataclass

from amaranth import *
from amaranth.lib import data
from amaranth.utils import bits_for

from . import parameters
from .arith import any_bit, plus
from .formats import E8M0, ELEMENTS, WIDES
from .pipeline import Cuts
from .raw import normalized, normalized_exponents
from .round import round_up_to_nearest_even, split
from .unit import Unit

__all__ = ["Dequantizer"]

# Bits of the part of a shift that is done first.
FINE = 2


def _is_among(value, values, chosen):
    """Whether ``value``, known to be of the range ``values``, is one of ``chosen``, neighbours at an end, or a single one."""
    if not chosen:
        return Const(0, 1)
    if chosen[0] == values.start:
        return value[-1] if chosen[-1] == -1 else value <= chosen[-1]
    if len(chosen) == 1:
        return value == chosen[0]
    return value >= chosen[0]


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
    def _lowest(self):
        """The target's exponent field of the smallest element under scale 0."""
        return self._target.bias - E8M0.bias - self._element.bias + normalized_exponents(self._element).start

    @property
    def _most(self):
        """The most places that a subnormal moves and still rounds to something."""
        return min(self._target.mantissa_width + 2, 1 - self._lowest)

    def elaborate(self, platform):
        m = Module()
        p = self.parameters
        cut = Cuts(m, p.cuts, p.stages)

        shared = cut("elements", self._shared(m), "shared")
        for lane in range(p.lanes):
            element = normalized(m, self.i.elements[lane], self._element, f"element{lane}")
            element = cut("elements", element, f"element{lane}")
            m.d.comb += self.o.values[lane].eq(self._value(m, cut, shared, element, lane))

        return m

    def _shared(self, m):
        """What the lanes share of the scale: the ``low`` bits of the smallest element's exponent field, as many as a lane adds
        to; and what the bits above say, without and with a carry into them.
        """
        low = bits_for(len(normalized_exponents(self._element)) - 1)
        width, top = self._target.exponent_width, (1 << self._target.exponent_width) - 1
        fields = range(self._lowest, self._lowest + E8M0.max_code + 1)
        base = Signal(range(fields.start, fields.stop + 1), name="base")
        m.d.comb += base.eq(self.i.scale + self._lowest)
        above = base[low:].as_signed()
        values = range(fields.start >> low, (fields.stop - 1 >> low) + 1)
        facts = {"is_negative": 1, "is_far": 1, "is_zero": 1, "is_top": 1, "is_over": 1}
        high = data.StructLayout(({"field": width - low} if width > low else {}) | facts)
        shared = Signal(data.StructLayout({"low": low, "is_nan": 1, "high": data.ArrayLayout(high, 2)}), name="shared")
        m.d.comb += [shared.low.eq(base[:low]), shared.is_nan.eq(self.i.scale == E8M0.nan_code)]
        for carry, facts in enumerate(shared.high):
            def holds(condition, carry=carry):
                return _is_among(above, values, [value for value in values if condition(value + carry)])
            m.d.comb += [
                facts.is_negative.eq(holds(lambda total: total < 0)),
                facts.is_far.eq(holds(lambda total: total < -1)),
                facts.is_zero.eq(holds(lambda total: total == 0)),
                facts.is_top.eq(holds(lambda total: total == top >> low)),
                facts.is_over.eq(holds(lambda total: total > top >> low)),
            ]
            if width > low:
                field = plus(m, above, carry, width - low)
                m.d.comb += facts.field.eq((field | facts.is_over.replicate(len(field))) & ~facts.is_negative.replicate(len(field)))
        return shared

    def _value(self, m, cut, shared, element, lane):
        target = self._target
        width, places = target.mantissa_width, self._most.bit_length()
        is_saturating = self.parameters.overflow == "saturate"

        total = Signal(len(shared.low) + 1, name=f"total{lane}")
        m.d.comb += total.eq(shared.low + element.steps)
        low, carry = total[:-1], total[-1]
        high = Signal(shared.high[0].shape(), name=f"high{lane}")
        m.d.comb += high.eq(Mux(carry, shared.high[1], shared.high[0]))

        is_nan = Signal(name=f"is_nan{lane}")
        is_special = Signal(name=f"is_special{lane}")
        is_over = Signal(name=f"is_over{lane}")
        is_tiny = Signal(name=f"is_tiny{lane}")
        in_field = low[:target.exponent_width]
        beyond = any_bit(low[target.exponent_width:])
        m.d.comb += [
            is_nan.eq(element.is_nan | shared.is_nan),
            is_special.eq(is_nan | element.is_inf),
            is_over.eq(high.is_over | (high.is_top & (in_field.all() | beyond))),
            is_tiny.eq(high.is_negative | (high.is_zero & ~low.any())),
        ]

        numbers = data.StructLayout({
            "fraction": element.fraction.shape(), "field": target.exponent_width, "fine": FINE,
            "groups": (self._most >> FINE) + 1, "sign": 1, "is_nan": 1, "is_full": 1,
        })
        sums = Signal(numbers, name=f"sums{lane}")
        is_up = is_special | high.is_over | (high.is_top & beyond)
        is_none = ~is_special & (element.is_zero | high.is_negative)
        field = (in_field | is_up.replicate(len(in_field))) & ~is_none.replicate(len(in_field))
        size = target.exponent_width - len(in_field)
        if size:
            # Which of the shared fields; both for all ones.
            is_carried = is_special | (~element.is_zero & carry)
            is_plain = is_special | (~element.is_zero & ~carry)
            upper = Mux(is_carried & is_plain, ~C(0, size), (shared.high[1].field & is_carried.replicate(size))
                        | (shared.high[0].field & is_plain.replicate(size)))
            field = Cat(field, upper)
        if is_saturating:
            field = Cat(field[0] & ~(is_over & ~is_special), field[1:])
        # A subnormal moves by 1 - total places; group g has those from g << FINE on.
        is_near = is_tiny
        if self._lowest < 2 - (1 << places):
            is_near = is_tiny & ~high.is_far & (~high.is_negative | (low[places:].all() & any_bit(low[1:places])))
        is_number = ~element.is_zero & ~element.is_inf & ~is_over
        halves = low[1:places]
        for group, selected in enumerate(sums.groups):
            mask = (1 << len(halves)) - 1
            is_in = (halves == (-2 * group & mask)) | (halves == (-2 * group - 1 & mask))
            is_in = (is_near & is_in) if group else (~is_tiny | (is_near & is_in))
            m.d.comb += selected.eq(is_nan | (is_number & is_in))
        m.d.comb += [
            sums.fraction.eq(element.fraction),
            sums.field.eq(field),
            sums.fine.eq(Cat(is_tiny & ~low[0], is_tiny & low[1])),
            sums.sign.eq(element.sign & ~is_nan),
            sums.is_nan.eq(is_nan),
            sums.is_full.eq(is_nan | (is_over & ~is_special)) if is_saturating else sums.is_full.eq(is_nan),
        ]
        sums = cut("sums", sums, f"{lane}")

        # As many bits below the mantissa as the longest shift needs, so that none is lost.
        below = max(0, len(element.fraction) + self._most - width)
        steps = (1 << FINE) - 1
        fine = Signal(1 + len(element.fraction) + steps, name=f"fine{lane}")
        m.d.comb += fine.eq(Cat(C(0, steps), sums.fraction, C(1, 1)) >> sums.fine)
        # From the hidden bit's place down.
        down = list(reversed(fine))
        moved = Signal(width + below, name=f"moved{lane}")
        for place in range(1, width + below + 1):
            bits = [down[place - (group << FINE)] & selected for group, selected in enumerate(sums.groups)
                    if 0 <= place - (group << FINE) < len(down)]
            m.d.comb += moved[width + below - place].eq(any_bit(Cat(bits)))
        moved = cut("shifted", moved, f"moved{lane}")
        sums = cut("shifted", sums, f"sums{lane}")

        kept, guard, sticky = split(moved, below)
        magnitude = Cat(kept, sums.field)
        if below:
            # Only subnormals lose bits, so the carry reaches no further than the lowest exponent.
            magnitude = (magnitude + round_up_to_nearest_even(kept[0], guard, sticky))[:target.width - 1]
        ones = Cat(sums.is_full.replicate(width), sums.is_nan.replicate(target.exponent_width))
        return cut("result", Cat(magnitude | ones, sums.sign), f"{lane}")
