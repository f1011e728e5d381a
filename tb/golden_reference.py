"""Slow reference of the golden tests: real arithmetic on Python's fractions and integers, one number at a time."""

from bisect import bisect_right
from fractions import Fraction
from functools import cache

WIDE = {"fp32": (8, 23), "bf16": (8, 7), "fp16": (5, 10)}
NAN = {"fp32": 0x7FFFFFFF, "bf16": 0x7FFF, "fp16": 0x7FFF}
FIELDS = {"e4m3": (4, 3), "e5m2": (5, 2), "e3m2": (3, 2), "e2m3": (2, 3), "e2m1": (2, 1)}


def two_to(exponent):
    return Fraction(1 << exponent) if exponent >= 0 else Fraction(1, 1 << -exponent)


def floor_log2(value):
    """Of a positive fraction."""
    guess = value.numerator.bit_length() - value.denominator.bit_length()
    return guess if value >= two_to(guess) else guess - 1


def field_value(code, exponent_width, mantissa_width):
    """Value of a code by its fields as if all exponents were ordinary, with its sign (a zero's is lost)."""
    sign = code >> (exponent_width + mantissa_width)
    exponent = (code >> mantissa_width) & ((1 << exponent_width) - 1)
    mantissa = code & ((1 << mantissa_width) - 1)
    bias = (1 << (exponent_width - 1)) - 1
    if exponent:
        mantissa += 1 << mantissa_width
    magnitude = mantissa * two_to(max(exponent, 1) - bias - mantissa_width)
    return -magnitude if sign else magnitude


def wide_value(bits, source):
    """Fraction, or "nan", "inf", "-inf"."""
    exponent_width, mantissa_width = WIDE[source]
    magnitude = bits & ((1 << (exponent_width + mantissa_width)) - 1)
    top = ((1 << exponent_width) - 1) << mantissa_width
    if magnitude > top:
        return "nan"
    if magnitude == top:
        return "inf" if bits == magnitude else "-inf"
    return field_value(bits, exponent_width, mantissa_width)


@cache
def element_value(code, element):
    if element == "mxint8":
        return Fraction(code - 256 if code >= 128 else code, 64)
    magnitude = code & ~(1 << sum(FIELDS[element]))
    if (element == "e4m3" and magnitude == 0x7F) or (element == "e5m2" and magnitude > 0x7C):
        return "nan"
    if element == "e5m2" and magnitude == 0x7C:
        return "inf" if code == magnitude else "-inf"
    return field_value(code, *FIELDS[element])


@cache
def ladder(element):
    """Finite magnitudes by code, and the one that would follow."""
    if element == "mxint8":
        return [Fraction(i, 64) for i in range(129)]
    values = []
    for code in range(1 << sum(FIELDS[element])):
        value = element_value(code, element)
        if isinstance(value, str):
            break
        values.append(value)
    return [*values, 2 * values[-1] - values[-2]]


def scale(amax, rule, element):
    """E8M0 code for a finite largest magnitude, by real arithmetic."""
    largest = ladder(element)[-2]
    emax = floor_log2(largest)
    if amax == 0 or (amax < two_to(-126) and rule != "unit"):
        return 0
    exponent = floor_log2(amax)
    up = exponent + (amax > two_to(exponent))
    if rule == "floor":
        code = exponent - emax
    elif rule == "floor_plus_1":
        code = exponent - emax + 1
    elif rule == "ceil":
        code = up - emax
    elif rule == "unit":
        code = up
    elif rule == "even":
        mantissa_width = {"mxint8": 6}.get(element) or FIELDS[element][1]
        step = two_to(exponent - mantissa_width)
        code = floor_log2((amax / step + Fraction(1, 2)).__floor__() * step) - emax
    else:
        code = exponent - emax
        code += amax > largest * two_to(code)
        exceptions = {("e4m3", 0x04600001), ("e5m2", 0x07E00001)}
        if any(e == element and amax == field_value(bits, 8, 23) for e, bits in exceptions):
            return 0
    return min(max(code + 127, 0), 254)


def round_to_element(value, is_negative, element, overflow, random=None):
    """Code of a value (fraction or "nan", "inf", "-inf")."""
    rungs = ladder(element)
    width = 8 if element == "mxint8" else 1 + sum(FIELDS[element])
    nan_code = 0x7F if element in ("e4m3", "e5m2") else 0
    if value == "nan":
        return nan_code
    if isinstance(value, str):
        code = len(rungs) - 1
    else:
        magnitude = abs(value)
        code = bisect_right(rungs, magnitude) - 1
        if code < len(rungs) - 1:
            step = rungs[code + 1] - rungs[code]
            rest = (magnitude - rungs[code]) / step
            if random is None:
                code += rest > Fraction(1, 2) or (rest == Fraction(1, 2) and code % 2 == 1)
            else:
                code += rest + Fraction(random, 1 << 16) >= 1
    if code == len(rungs) - 1:
        if overflow == "ieee" and element == "e4m3":
            return 0x7F
        code = 0x7C if overflow == "ieee" and element == "e5m2" else code - 1
    if element == "mxint8":
        return -code & 0xFF if is_negative else code
    return code | is_negative << (width - 1)


def quantize_block(bits, source, element, rule, policy, overflow, randoms=None):
    """(scale, codes) of one block."""
    values = [wide_value(b, source) for b in bits]
    width = 1 + sum(WIDE[source])
    finite = [abs(v) for v in values if not isinstance(v, str)]
    specials = {v for v in values if isinstance(v, str)}
    if policy == "block" and specials:
        code = 0xFF
    elif specials & {"inf", "-inf"}:
        code = 0xFE
    else:
        code = scale(max(finite, default=0), rule, element)
    codes = []
    for i, (b, v) in enumerate(zip(bits, values, strict=True)):
        if code == 0xFF:
            v = "nan"
        elif not isinstance(v, str):
            v = v * two_to(127 - code)
        codes.append(round_to_element(v, b >> (width - 1), element, overflow, None if randoms is None else randoms[i]))
    return code, codes


def round_to_wide(value, target, truncate=False):
    """Bits of a fraction rounded to nearest even (or toward zero); exact zero is +0, overflow goes to infinity."""
    exponent_width, mantissa_width = WIDE[target]
    bias = (1 << (exponent_width - 1)) - 1
    magnitude = abs(value)
    if magnitude == 0:
        return 0
    step = max(floor_log2(magnitude), 1 - bias) - mantissa_width
    scaled = magnitude / two_to(step)
    count = scaled.__floor__() if truncate else round(scaled)
    if count >> (mantissa_width + 1):
        count, step = count >> 1, step + 1
    field = step + mantissa_width + bias if count >> mantissa_width else 0
    top = (1 << exponent_width) - 1
    bits = top << mantissa_width if field >= top else field << mantissa_width | count & ((1 << mantissa_width) - 1)
    return bits | (value < 0) << (exponent_width + mantissa_width)


def _sum(values):
    """IEEE's sum of fractions and infinities; finite sums exact."""
    specials = {v for v in values if isinstance(v, str)}
    if "nan" in specials or {"inf", "-inf"} <= specials:
        return "nan"
    if specials:
        return specials.pop()
    return sum(values, Fraction(0))


def _product(a, b):
    if isinstance(a, str) or isinstance(b, str):
        if "nan" in (a, b) or 0 in (a, b):
            return "nan"
        negative = sum(v == "-inf" or (not isinstance(v, str) and v < 0) for v in (a, b))
        return "-inf" if negative == 1 else "inf"
    return a * b


def _bits(value, target, truncate=False):
    if value == "nan":
        return NAN[target]
    if isinstance(value, str):
        exponent_width, mantissa_width = WIDE[target]
        inf = ((1 << exponent_width) - 1) << mantissa_width
        return inf | (value == "-inf") << (exponent_width + mantissa_width)
    return round_to_wide(value, target, truncate)


def block_terms(a_codes, a_scale, b_codes, b_scale, a_element, b_element):
    """The products of a block pair."""
    if 255 in (a_scale, b_scale):
        return ["nan"]
    factor = two_to(a_scale + b_scale - 254)
    values = []
    for a, b in zip(a_codes, b_codes, strict=True):
        product = _product(element_value(a, a_element), element_value(b, b_element))
        values.append(product if isinstance(product, str) else product * factor)
    return values


def add_fp32(a, b):
    """IEEE addition of FP32 bits."""
    if a == b == 0x80000000:
        return a
    return _bits(_sum([wide_value(a, "fp32"), wide_value(b, "fp32")]), "fp32")


def multiply(a, b, a_format, b_format, target):
    """IEEE multiplication of bits of two wide formats, into a third."""
    exact = _product(wide_value(a, a_format), wide_value(b, b_format))
    signs = [code >> sum(WIDE[name]) for code, name in ((a, a_format), (b, b_format))]
    if exact == 0 and signs[0] != signs[1]:
        return 1 << sum(WIDE[target])
    return _bits(exact, target)


def _operand_exponent(code, element):
    """Exponent under which a multiplier sees an operand: subnormals share that of the smallest normal."""
    if element == "mxint8":
        return 0
    exponent_width, mantissa_width = FIELDS[element]
    field = (code >> mantissa_width) & ((1 << exponent_width) - 1)
    return max(field, 1) - ((1 << (exponent_width - 1)) - 1)


def blackwell(a_codes, a_scale, b_codes, b_scale, c, a_element, b_element):
    terms = block_terms(a_codes, a_scale, b_codes, b_scale, a_element, b_element)
    addend = wide_value(c, "fp32")
    total = _sum([*terms, addend])
    if isinstance(total, str):
        return _bits(total, "fp32")
    exponents = [
        _operand_exponent(a, a_element) + _operand_exponent(b, b_element) + a_scale + b_scale - 254
        for a, b, term in zip(a_codes, b_codes, terms, strict=True)
        if term
    ]
    if addend:
        exponents.append(max(floor_log2(abs(addend)), -126))
    if not exponents:
        return 0
    unit = two_to(max(exponents) - 25)
    fixed = sum((abs(v) / unit).__floor__() * (-1 if v < 0 else 1) for v in [*terms, addend])
    bits = round_to_wide(fixed * unit, "fp32", truncate=True)
    return 0 if bits == 0x80000000 else bits


def dot(a_blocks, a_scales, b_blocks, b_scales, c, a_element, b_element, accumulation, target="fp32"):
    """Bits of one dot product of lists of blocks; `c` FP32 bits."""
    operands = list(zip(a_blocks, a_scales, b_blocks, b_scales, strict=True))
    if accumulation == "exact":
        terms = [_sum(block_terms(*o, a_element, b_element)) for o in operands]
        return _bits(_sum([*terms, wide_value(c, "fp32")]), target)
    acc = c
    for o in operands:
        if accumulation == "blackwell":
            acc = blackwell(*o, acc, a_element, b_element)
            continue
        block = _sum(block_terms(*o, a_element, b_element))
        if accumulation == "fp32_fused":
            acc = _bits(_sum([block, wide_value(acc, "fp32")]), "fp32")
        else:
            acc = add_fp32(acc, _bits(block, "fp32"))
    if operands and accumulation == "fp32_chain" and wide_value(acc, "fp32") == "nan":
        acc = NAN["fp32"]
    return acc if target == "fp32" else _bits_of_rounded(acc, target)


def _bits_of_rounded(acc, target):
    value = wide_value(acc, "fp32")
    bits = _bits(value, target)
    # The sign of a zero is that of the accumulator.
    return 0x8000 if value == 0 and acc >> 31 else bits
