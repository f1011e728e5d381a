"""Element codes taken apart."""
from amaranth import *
from amaranth.lib import data

from .arith import normalize, plus
from .formats import IntegerFormat

__all__ = ["decode", "normalized", "normalized_exponents", "normalized_layout", "raw_layout"]


def raw_layout(fmt):
    """What ``decode`` gives: ``(-1)**sign * significand * 2**(exponent_code - bias - mantissa_width)`` unless NaN or Inf.

    ``exponent_code`` is at least 1, so subnormals need no case of their own.
    """
    return data.StructLayout({
        "significand": unsigned(fmt.significand_width),
        "exponent_code": unsigned(fmt.exponent_width),
        "sign": unsigned(1),
        "is_nan": unsigned(1),
        "is_inf": unsigned(1),
        "is_zero": unsigned(1),
    })


def decode(m, code, fmt, name):
    """The :func:`raw_layout` of an element code, named ``name``. Combinational; NaN and Inf leave the numbers undefined."""
    raw = Signal(raw_layout(fmt), name=name)
    if isinstance(fmt, IntegerFormat):
        negative = code[fmt.width - 1]
        m.d.comb += [
            raw.significand.eq(Mux(negative, (~code + 1)[:fmt.width], code)),
            raw.exponent_code.eq(1),
            raw.sign.eq(negative),
            raw.is_zero.eq(code == 0),
        ]
        return raw
    mantissa = code[:fmt.mantissa_width]
    exponent_code = code[fmt.mantissa_width:fmt.width - 1]
    magnitude = code[:fmt.width - 1]
    is_normal = exponent_code.any()
    m.d.comb += [
        raw.significand.eq(Cat(mantissa, is_normal)),
        raw.exponent_code.eq(Cat(exponent_code[0] | ~is_normal, exponent_code[1:])),
        raw.sign.eq(code[fmt.width - 1]),
        raw.is_zero.eq(magnitude == 0),
    ]
    if fmt.has_inf:
        top = exponent_code.all()
        m.d.comb += [raw.is_nan.eq(top & mantissa.any()), raw.is_inf.eq(top & ~mantissa.any())]
    elif fmt.has_nan:
        m.d.comb += raw.is_nan.eq(magnitude.all())
    return raw


def normalized_exponents(fmt):
    """The range of exponent codes of normalized elements: below 1 for what was subnormal."""
    if isinstance(fmt, IntegerFormat):
        return range(1 - fmt.mantissa_width, fmt.width - fmt.mantissa_width + 1)
    return range(1 - fmt.mantissa_width, 1 << fmt.exponent_width)


def normalized_layout(fmt):
    """What ``normalized`` gives: ``(-1)**sign * 1.fraction * 2**(exponent_code - bias)`` unless NaN, Inf or zero."""
    return data.StructLayout({
        "fraction": unsigned(fmt.significand_width - 1),
        "exponent_code": normalized_exponents(fmt),
        "sign": unsigned(1),
        "is_nan": unsigned(1),
        "is_inf": unsigned(1),
        "is_zero": unsigned(1),
    })


def normalized(m, code, fmt, name):
    """The :func:`normalized_layout` of an element code: the leading one is hidden in subnormals too."""
    raw = decode(m, code, fmt, f"{name}_raw")
    result = Signal(normalized_layout(fmt), name=name)
    significand, zeros = normalize(m, raw.significand)
    width = len(result.exponent_code)
    # What has no hidden bit has exponent code 1: a leading one in the hidden bit's place would keep that. The significand's top bit
    # is ``above`` places higher, and each leading zero takes one off; 1 + above - zeros, as -zeros is ~zeros + 1.
    above = fmt.significand_width - 1 - fmt.mantissa_width
    exponent_code = plus(m, ~Cat(zeros, C(0, width - len(zeros))), above + 2, width)
    # With one, nothing moves: the code is the element's own, and needs no sum.
    if not isinstance(fmt, IntegerFormat):
        exponent_code = Mux(raw.significand[-1], Cat(code[fmt.mantissa_width:fmt.width - 1], C(0, 1))[:width], exponent_code)
    m.d.comb += [
        result.fraction.eq(significand[:-1]),
        result.exponent_code.eq(exponent_code),
        result.sign.eq(raw.sign),
        result.is_nan.eq(raw.is_nan),
        result.is_inf.eq(raw.is_inf),
        result.is_zero.eq(raw.is_zero),
    ]
    return result
