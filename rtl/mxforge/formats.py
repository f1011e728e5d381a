"""Number formats, each described once."""
from dataclasses import dataclass

from amaranth import signed, unsigned
from amaranth.lib import data

__all__ = ["BF16", "E2M1", "E2M3", "E3M2", "E4M3", "E5M2", "E8M0", "ELEMENTS", "FP16", "FP32", "MXINT8", "WIDES",
           "FloatFormat", "IntegerFormat", "ScaleFormat"]


@dataclass(frozen=True, kw_only=True)
class FloatFormat:
    """A binary floating-point format with subnormals; every constant follows from four facts.

    ``specials`` says what the top of the code range means: ``"ieee"``, the top exponent holds Inf and NaN (E5M2,
    FP32, BF16, FP16); ``"nan"``, only the all-ones magnitude is NaN and there is no Inf (E4M3); ``"none"``, all codes
    are finite (FP6, FP4). Sources: OCP OFP8 v1.0, table 1; OCP MX v1.0, 5.3; IEEE 754-2019, 3.6.
    """
    name: str
    exponent_width: int
    mantissa_width: int
    specials: str

    @property
    def width(self):
        return 1 + self.exponent_width + self.mantissa_width

    @property
    def significand_width(self):
        return 1 + self.mantissa_width

    @property
    def bias(self):
        return (1 << (self.exponent_width - 1)) - 1

    @property
    def has_inf(self):
        return self.specials == "ieee"

    @property
    def has_nan(self):
        return self.specials != "none"

    @property
    def sign_code(self):
        """The sign bit alone: negative zero."""
        return 1 << (self.width - 1)

    @property
    def nan_code(self):
        """The canonical NaN, all ones but the sign; zero where there is no NaN (codes of a NaN block then say nothing)."""
        return self.sign_code - 1 if self.has_nan else 0

    @property
    def inf_code(self):
        return ((1 << self.exponent_width) - 1) << self.mantissa_width if self.has_inf else None

    @property
    def max_code(self):
        """The largest finite magnitude."""
        if self.has_inf:
            return self.inf_code - 1
        return self.sign_code - (2 if self.has_nan else 1)

    @property
    def emax(self):
        """The unbiased exponent of the largest finite value."""
        return (self.max_code >> self.mantissa_width) - self.bias

    @property
    def max_significand(self):
        """The significand of the largest finite value, hidden bit included, as an integer."""
        return (1 << self.mantissa_width) | (self.max_code & ((1 << self.mantissa_width) - 1))

    @property
    def max_value(self):
        return self.max_significand * 2.0 ** (self.emax - self.mantissa_width)

    @property
    def lsb_exponent(self):
        """The weight of the last bit of a subnormal is ``2**lsb_exponent``."""
        return 1 - self.bias - self.mantissa_width

    @property
    def shape(self):
        # Amaranth packs the first field at the least significant bit.
        return data.StructLayout({
            "mantissa": unsigned(self.mantissa_width),
            "exponent_code": unsigned(self.exponent_width),
            "sign": unsigned(1),
        })


@dataclass(frozen=True, kw_only=True)
class IntegerFormat:
    """A two's complement element of ``width`` bits worth ``i * 2**-mantissa_width`` (OCP MX v1.0, 5.3.4).

    It is read as a float that never leaves its lowest binade: the exponent code is always 1. The most negative code
    decodes, but is never written, so that the range is symmetric.
    """
    name: str
    width: int
    mantissa_width: int

    specials = "none"
    has_inf = has_nan = False
    nan_code = 0
    inf_code = None
    exponent_width = 1
    bias = 1
    emax = 0

    @property
    def significand_width(self):
        """The magnitude of the most negative code needs all bits."""
        return self.width

    @property
    def sign_code(self):
        return 1 << (self.width - 1)

    @property
    def max_code(self):
        return self.sign_code - 1

    @property
    def max_significand(self):
        return self.max_code

    @property
    def max_value(self):
        return self.max_significand * 2.0 ** -self.mantissa_width

    @property
    def lsb_exponent(self):
        return -self.mantissa_width

    @property
    def shape(self):
        return signed(self.width)


@dataclass(frozen=True, kw_only=True)
class ScaleFormat:
    """A power of two: exponent bits only, no sign, no zero, no Inf; all ones is NaN (OCP MX v1.0, 5.4.1)."""
    name: str
    width: int

    @property
    def bias(self):
        return (1 << (self.width - 1)) - 1

    @property
    def nan_code(self):
        return (1 << self.width) - 1

    @property
    def max_code(self):
        return self.nan_code - 1

    @property
    def emax(self):
        return self.max_code - self.bias

    @property
    def shape(self):
        return unsigned(self.width)


E4M3 = FloatFormat(name="e4m3", exponent_width=4, mantissa_width=3, specials="nan")
E5M2 = FloatFormat(name="e5m2", exponent_width=5, mantissa_width=2, specials="ieee")
E3M2 = FloatFormat(name="e3m2", exponent_width=3, mantissa_width=2, specials="none")
E2M3 = FloatFormat(name="e2m3", exponent_width=2, mantissa_width=3, specials="none")
E2M1 = FloatFormat(name="e2m1", exponent_width=2, mantissa_width=1, specials="none")
MXINT8 = IntegerFormat(name="mxint8", width=8, mantissa_width=6)

E8M0 = ScaleFormat(name="e8m0", width=8)

FP32 = FloatFormat(name="fp32", exponent_width=8, mantissa_width=23, specials="ieee")
BF16 = FloatFormat(name="bf16", exponent_width=8, mantissa_width=7, specials="ieee")
FP16 = FloatFormat(name="fp16", exponent_width=5, mantissa_width=10, specials="ieee")

ELEMENTS = {f.name: f for f in (E4M3, E5M2, E3M2, E2M3, E2M1, MXINT8)}
WIDES = {f.name: f for f in (FP32, BF16, FP16)}
