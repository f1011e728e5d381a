"""What becomes of a block of typed values: bits before and after, errors, and why."""
import re
from collections import Counter
from dataclasses import asdict

import numpy as np

import mxgolden
from mxgolden import quantizer
from mxgolden.fp32_multiplier import multiply
from mxgolden.scales import block_amaxes
from mxgolden.tensor_quantizer import tensor_factor

from ..errors import MxforgeError
from ..formats import E8M0, ELEMENTS, FP32, IntegerFormat

__all__ = ["OUTCOMES", "InputError", "difference", "outcome", "shown", "values_of"]

# What may become of a value, in words for people.
OUTCOMES = {
    "exact": "the value itself",
    "rounded": "a value nearby",
    "saturated": "beyond the largest element, which it became",
    "overflowed": "beyond the largest element: its code is NaN or infinity",
    "beyond FP32": "a finite element, but more than FP32 holds with the scale",
    "flushed": "too small for this scale: it became zero",
    "infinity": "infinity, as it was",
    "NaN": "NaN, as it was",
    "spoiled": "NaN, as a NaN or an infinity makes of all in its block",
}
# Around and between values: also the brackets of lists, and what has no width.
_WORD = re.compile(r"[^\s,;()\[\]{}\ufeff\u200b]+")
# A bit pattern, a hexadecimal number as C and Python write it, a decimal one.
_PATTERN = re.compile(r"0x[0-9a-f]{8}", re.I)
_HEX_FLOAT = re.compile(r"[+-]?0x(?=\.?[0-9a-f])[0-9a-f]*\.?[0-9a-f]*p[+-]?[0-9]+", re.I)
_DECIMAL = re.compile(r"[+-]?((?=\.?[0-9])[0-9]*\.?[0-9]*(e[+-]?[0-9]+)?|inf(inity)?|nan)", re.I)
_DECIMAL_COMMA = re.compile(r"[0-9],[0-9]")
# How much of what was typed a message repeats.
_REPEATED = 24


class InputError(MxforgeError):
    """What is wrong with ``field`` of the page; ``span``: where it stands in the field's text."""
    def __init__(self, field, message, span=None):
        super().__init__(message)
        self.field = field
        self.span = span


def values_of(text, count):
    """``count`` values of a text as FP32 bits, and each as it was typed. `InputError` names the first that is wrong."""
    found = list(_WORD.finditer(text))
    comma = _DECIMAL_COMMA.search(text)
    if comma and ";" in text:
        raise InputError("values", f"'{comma[0]}' between semicolons: a decimal comma must be a point", comma.span())
    bits = np.empty(len(found), np.uint32)
    for n, word in enumerate(found):
        try:
            bits[n] = _bits_of(word[0])
        except ValueError as error:
            typed = word[0] if len(word[0]) <= _REPEATED else word[0][:_REPEATED] + "..."
            raise InputError("values", f"value {n + 1}, '{typed}', {error}", word.span()) from None
    if len(found) != count:
        missing = count - len(found)
        what = f"{missing} missing" if missing > 0 else f"{-missing} too many"
        if comma and len(found) == 2 * count:
            what += "; a decimal comma must be a point"
        raise InputError("values", f"a block is {count} values; these are {len(found)}, {what}")
    return bits, [word[0] for word in found]


def _bits_of(word):
    # Web pages and spreadsheets have the minus sign proper.
    word = word.replace("\N{MINUS SIGN}", "-")
    if _PATTERN.fullmatch(word):
        return int(word, 16)
    if _HEX_FLOAT.fullmatch(word):
        try:
            number = float.fromhex(word)
        except OverflowError:
            number = np.finfo(np.float64).max
    elif word.lower().startswith("0x"):
        raise ValueError("is no bit pattern, which has 8 hexadecimal digits")
    elif _DECIMAL.fullmatch(word):
        number = float(word)
    else:
        raise ValueError("is not a number")
    with np.errstate(over="ignore"):
        narrow = np.float32(number)
    if np.isinf(narrow) and "inf" not in word.lower():
        raise ValueError(f"is beyond FP32, whose largest is {shown(np.finfo(np.float32).max)}")
    return narrow.view(np.uint32)


def shown(number):
    """The shortest text that gives the float32 back."""
    text = str(np.float32(number))
    return text.removesuffix(".0")


def difference(parameters, inputs, scale, codes, values):
    """How many of a quantizer's and a dequantizer's outputs for a block golden has otherwise."""
    wanted = quantizer.expected(asdict(parameters), inputs)
    wide = mxgolden.dequantize(wanted["elements"], wanted["scale"][:, None], parameters.element, block_size=parameters.block_size)
    pairs = (scale, wanted["scale"]), (codes, wanted["elements"]), (values, wide)
    return sum(int(np.count_nonzero(got != right)) for got, right in pairs)


def outcome(parameters, bits, scale, codes, values, elsewhere=0.0):
    """A block in words and digits, for a page. ``bits`` and ``values`` are FP32 bits (block_size,), before and after; ``elsewhere``
    is the largest magnitude of the rest of the tensor, which counts for conventional FP8.
    """
    element = ELEMENTS[parameters.element]
    before, after = bits.view(np.float32), values.view(np.float32)
    is_nan_scale = scale == E8M0.nan_code
    unit = np.nan if is_nan_scale else 2.0 ** (int(scale) - E8M0.bias)
    finite = np.abs(before[np.isfinite(before)]).max(initial=np.float32(0))
    # The block's is what the hardware compared, infinity and NaN with the rest.
    magnitudes = bits & np.uint32(FP32.sign_code - 1)
    amax = block_amaxes(bits[None], "fp32", parameters.nan_policy)[0]

    # Of what has no 8-bit float here, E4M3 is what conventional FP8 would be.
    conventional = parameters.element if parameters.element in ("e4m3", "e5m2") else "e4m3"
    whole = max(finite, np.float32(elsewhere))
    tensor_scale, tensor_codes = mxgolden.quantize_tensor(bits, conventional, whole)
    tensor_values = mxgolden.dequantize_tensor(tensor_codes, tensor_scale, conventional).view(np.float32)

    # What the codes stand for by themselves, and what was cast to them.
    plain, tensor_plain = (
        mxgolden.dequantize(these, np.full(1, E8M0.bias, np.uint8), fmt, block_size=len(bits)).view(np.float32)
        for these, fmt in ((codes, parameters.element), (tensor_codes, conventional)))
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = before.astype(np.float64) / unit
        tensor_scaled = multiply(before, tensor_factor(whole, conventional)).view(np.float32)
    rows = []
    for n in range(len(bits)):
        rows.append({
            "hex": f"0x{bits[n]:08x}", "bits": _fields(int(bits[n]), FP32), "before": shown(before[n]),
            "mx": _side(before[n], scaled[n], plain[n], after[n], int(codes[n]), element),
            "fp8": _side(before[n], tensor_scaled[n], tensor_plain[n], tensor_values[n], int(tensor_codes[n]),
                         ELEMENTS[conventional]),
            "is_largest": bool(magnitudes[n] == amax),
        })
    return {
        "scale": {"hex": f"0x{scale:02x}", "bits": f"{scale:08b}", "exponent": None if is_nan_scale else int(scale) - E8M0.bias,
                  "value": shown(unit)},
        "amax": {"hex": f"0x{amax:08x}", "value": shown(amax.view(np.float32))},
        "tensor": {"element": conventional, "scale": shown(tensor_scale), "amax": shown(whole)},
        "rows": rows,
        "counts": {side: dict(Counter(row[side]["outcome"] for row in rows)) for side in ("mx", "fp8")},
        "sqnr": {"mx": _decibels(before, after), "fp8": _decibels(before, tensor_values)},
    }


def _side(before, scaled, plain, after, code, element):
    """What became of a value that was ``scaled``, then cast to a ``code`` of the format ``element``, which is ``plain`` without
    its scale, ``after`` with it.
    """
    x, y = float(before), float(after)
    error = abs(y - x) if np.isfinite([x, y]).all() else None
    return {
        "hex": f"0x{code:0{-(-element.width // 4)}x}", "bits": _fields(code, element), "value": shown(after),
        "outcome": _kind(x, float(scaled), float(plain), y, element.max_value), "is_subnormal": _is_subnormal(code, element),
        "error": None if error is None else f"{error:.3g}",
        "relative": None if error is None else f"{error / abs(x):.3g}" if error else "0",
    }


def _kind(x, scaled, plain, y, largest):
    if np.isnan(x):
        return "NaN"
    if np.isnan(scaled):
        return "spoiled"
    if not np.isfinite(plain):
        return "infinity" if np.isinf(x) and np.isinf(plain) else "overflowed"
    if np.isinf(x):
        return "saturated"
    if np.isinf(y):
        return "beyond FP32"
    if x == y:
        return "exact"
    if y == 0:
        return "flushed"
    return "saturated" if abs(scaled) > largest else "rounded"


def _is_subnormal(code, element):
    if isinstance(element, IntegerFormat):
        return False
    return 0 < code % element.sign_code < 1 << element.mantissa_width


def _fields(code, fmt):
    """Bits of a code by fields, as ``[name, digits]``."""
    digits = f"{code:0{fmt.width}b}"
    if isinstance(fmt, IntegerFormat):
        return [["integer", digits]]
    middle = 1 + fmt.exponent_width
    return [["sign", digits[0]], ["exponent", digits[1:middle]], ["mantissa", digits[middle:]]]


def _decibels(before, after):
    """SQNR as text; None where a value isn't finite."""
    if not np.isfinite([before, after]).all():
        return None
    sqnr = mxgolden.sqnr(before, after)
    return "infinite" if np.isinf(sqnr) else f"{sqnr:.2f}"
