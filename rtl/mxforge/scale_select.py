"""The scale of a block from its largest magnitude, by rule."""
from dataclasses import dataclass

from amaranth import *
from amaranth.lib import data

from . import parameters
from .arith import any_bit, normalize
from .formats import E8M0, ELEMENTS, WIDES
from .pipeline import Cuts
from .unit import Unit

__all__ = ["SCALE_RULES", "ScaleRule", "ScaleSelect"]

SCALE_RULES = "rceil", "floor", "ceil", "even", "floor_plus_1", "unit"


class ScaleRule:
    """A scale rule for one source and element format, as two combinational steps, ``key`` and ``scale``.

    Each rule is the exponent code of amax minus a constant, plus one if amax's mantissa is above a threshold, and so never
    falls as amax grows. What it needs of a magnitude is a key of the exponent code and that one bit (nothing but the exponent
    code for ``floor`` and ``floor_plus_1``), and the key of the largest magnitude is the largest key: a block may compare
    keys of 9 bits where magnitudes have 31. Each threshold is a run of ones, so it is an AND and an OR, not a comparison.

    FP16 subnormals have normal scales, which need a normalised amax; one of those is cheaper than a block of normalised
    values, so that an FP16 key is the magnitude itself.
    """
    def __init__(self, source, element, rule, nan_policy):
        self._source = source
        self._element = element
        self._rule = rule
        self._special_code = E8M0.nan_code if nan_policy == "block" else E8M0.max_code
        # The scale is the exponent code of FP32 and E8M0 (their bias is the same) minus this.
        self._offset = {"unit": 0, "floor_plus_1": element.emax - 1}.get(rule, element.emax)
        self._rebias = E8M0.bias - source.bias
        # The FP32 arithmetic that rceil reproduces rounds one amax down to the threshold: this one, a unit in the last
        # place above 2**-127 times the largest element.
        self._exception = element.emax if rule == "rceil" and source.name == "fp32" and element.has_nan else None

    @property
    def _is_exponent_only(self):
        return self._rule in ("floor", "floor_plus_1")

    @property
    def is_reduced(self):
        """Whether a key is less than the magnitude."""
        return self._source.bias == E8M0.bias

    @property
    def key_width(self):
        if not self.is_reduced:
            return self._source.width - 1
        return self._source.exponent_width + (not self._is_exponent_only)

    @property
    def max_code(self):
        """The largest scale of a finite magnitude."""
        return min(E8M0.max_code, E8M0.max_code - self._offset + 1)

    def _is_above(self, exponent_code, mantissa):
        """Whether a normal magnitude, or an FP32 or BF16 subnormal, is above the rule's threshold in its binade."""
        width = len(mantissa)
        if self._is_exponent_only:
            return Const(0, 1)
        if self._rule == "even":
            # Half up: the bits that stay and the first that goes.
            return mantissa[width - self._element.mantissa_width - 1:].all()
        if self._rule == "rceil":
            ones = (self._element.max_significand & ((1 << self._element.mantissa_width) - 1)).bit_count()
            low = mantissa[:width - ones]
            is_low_set = low.any()
            if self._exception is not None:
                is_low_set = low[1:].any() | (low[0] & (exponent_code != self._exception))
            return mantissa[width - ones:].all() & is_low_set
        if self._rule == "unit" and self.is_reduced:
            # 2**-127 is itself a subnormal, and a power of two.
            return any_bit(mantissa[:-1]) & (mantissa[-1] | exponent_code.any()) | (mantissa[-1] & exponent_code.any())
        return mantissa.any()

    def key(self, magnitude):
        """What the scale depends on, as an unsigned number that grows with the magnitude."""
        if not self.is_reduced:
            return magnitude
        mantissa, exponent_code = magnitude[:self._source.mantissa_width], magnitude[self._source.mantissa_width:]
        if self._is_exponent_only:
            return exponent_code
        is_above = self._is_above(exponent_code, mantissa)
        if self._offset == 0 and self._rule != "unit":
            # No subnormal amax has a scale above the least, but where the rule is unit.
            is_above = is_above & exponent_code.any()
        return Cat(is_above, exponent_code)

    def scale(self, m, key, name="scale"):
        """The E8M0 code of a block whose largest key is ``key``.

        At least 0. At most 254 if amax is finite, clamped only where the element's largest power of two is 1 (MXINT8) or is
        not made use of (``unit``). Inf gives 0xFF under the policy ``block``, 0xFE under ``element``; so does NaN, which
        under ``element`` is no amax.
        """
        source = self._source
        if self.is_reduced:
            is_above, exponent_code = (Const(0, 1), key) if self._is_exponent_only else (key[0], key[1:])
            is_special = exponent_code.all()
            exponent = exponent_code
            # Elsewhere the offset takes care of the lowest exponent.
            is_least = ~exponent_code.any() if self._offset < 0 else Const(0, 1)
        else:
            exponent_code = key[source.mantissa_width:]
            is_normal = exponent_code.any()
            is_special = exponent_code.all()
            significand, zeros = normalize(m, Cat(key[:source.mantissa_width], is_normal))
            exponent = Cat(exponent_code[0] | ~is_normal, exponent_code[1:]) - zeros + self._rebias
            is_above = self._is_above(exponent_code, significand[:-1])
            is_least = ~significand[-1]
        total = Signal(range(min(-self._offset, 0), E8M0.nan_code - self._offset + 2), name=f"{name}_total")
        scale = Signal(E8M0.shape, name=name)
        m.d.comb += total.eq(exponent - self._offset + is_above)
        with m.If(is_special):
            m.d.comb += scale.eq(self._special_code)
        with m.Elif(is_least | (total[-1] if self._offset > 0 else 0)):
            m.d.comb += scale.eq(0)
        with m.Elif(total > E8M0.max_code):
            m.d.comb += scale.eq(E8M0.max_code)
        with m.Else():
            m.d.comb += scale.eq(total)
        return scale


class ScaleSelect(Unit):
    """E8M0 scales of blocks whose largest magnitudes are given.

    With E the exponent code and m the mantissa of amax as FP32, emax the exponent of the largest element:
    ``floor``: E - emax (OCP MX v1.0, 6.3). ``rceil``: E - emax, plus 1 if amax is above the largest element's multiple, so
    that nothing saturates; bit for bit NVIDIA's, with the one FP32 amax per FP8 type that its arithmetic rounds down.
    ``ceil``: E - emax, plus 1 unless amax is a power of two. ``even``: as ``floor``, of amax rounded half up to the element's
    mantissa. ``floor_plus_1``: E - emax + 1. ``unit``: the least power of two not below amax.
    All are clamped to 0...254, and 0 if amax is zero or, but for ``unit``, below 2**-126.

    An infinite amax gives 0xFF (NaN) under the policy ``block`` and 0xFE under ``element``; a NaN always gives 0xFF.

    Cuts: the keys; the scales.

    Members
    -------
    i : ``amaxes`` [lanes], magnitude bits of ``source``.
    o : ``scales`` [lanes], 8 bits each (E8M0).

    Latency is ``stages``; one beat a cycle.
    """
    CUTS = "scales", "keys"

    @dataclass(frozen=True, kw_only=True)
    class Parameters(parameters.Parameters):
        source: str = parameters.choice("fp32", WIDES, "Format of the magnitudes.")
        element: str = parameters.choice("e4m3", ELEMENTS, "Element format.")
        scale_rule: str = parameters.choice("rceil", SCALE_RULES, "How the scale follows from the largest magnitude.")
        nan_policy: str = parameters.choice("block", ("block", "element"), "What Inf does: a NaN scale, or the largest.")
        lanes: int = parameters.integer(1, 1, 1024, "Magnitudes a cycle.")

        @property
        def cuts(self):
            return ScaleSelect.CUTS

        def __post_init__(self):
            super().__post_init__()
            self.check_specials()
            self.check_stages()

    def __init__(self, **options):
        p = self.Parameters(**options)
        self._source = WIDES[p.source]
        super().__init__(
            p,
            i=data.StructLayout({"amaxes": data.ArrayLayout(unsigned(self._source.width - 1), p.lanes)}),
            o=data.StructLayout({"scales": data.ArrayLayout(E8M0.shape, p.lanes)}))

    def elaborate(self, platform):
        m = Module()
        p = self.parameters
        cut = Cuts(m, p.cuts, p.stages)

        rule = ScaleRule(self._source, ELEMENTS[p.element], p.scale_rule, p.nan_policy)
        for lane in range(p.lanes):
            # A name of its own: an item of an array is written out at each use, with all of the array.
            amax = Signal(self._source.width - 1, name=f"amax{lane}")
            m.d.comb += amax.eq(self.i.amaxes[lane])
            is_nan = amax[self._source.mantissa_width:].all() & amax[:self._source.mantissa_width].any()
            key = cut("keys", rule.key(amax), f"{lane}")
            is_nan = cut("keys", is_nan, f"is_nan{lane}")
            scale = Mux(is_nan, E8M0.nan_code, rule.scale(m, key, f"scale{lane}"))
            m.d.comb += self.o.scales[lane].eq(cut("scales", scale, f"{lane}"))

        return m
