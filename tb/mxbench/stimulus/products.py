"""Factors whose products are hard to round."""
import numpy as np

from mxgolden import decode, encode
from mxgolden.formats import wide_format

from .quantizing import with_signs

__all__ = ["factors", "few_bits", "product_classes"]


def _borders(target):
    """Magnitudes at which something changes: half of the smallest number, the smallest, the smallest normal one and what lies
    halfway below it, the last that rounds to the largest number, and powers of two between.
    """
    wide = wide_format(target)
    normal = wide.lsb + wide.mantissa_width
    largest = decode(wide.max_code, target)
    step = largest - decode(wide.max_code - 1, target)
    powers = 2.0 ** np.linspace(wide.lsb, np.log2(largest), 12).astype(np.int64)
    smallest = 2.0**wide.lsb
    return np.array([smallest / 2, smallest, 1.5 * smallest, 2.0**normal - smallest, 2.0**normal - smallest / 2, 2.0**normal,
                     largest, largest + step / 2, largest + step, *powers])


def factors(values, target, rng):
    """FP32 magnitude bits of a second factor for each of ``values`` (float64): the product is at, or next to, what rounds one way
    or the other in ``target``; or exact in few more bits than the target has, the last of them often the guard bit.
    """
    shape = values.shape
    magnitudes = np.abs(np.where(np.isfinite(values) & (values != 0), values, 1.0))
    borders = rng.choice(_borders(target), shape)
    with np.errstate(over="ignore", under="ignore"):
        bits = encode(borders / magnitudes, "fp32", "saturate").astype(np.int64)
    near = np.clip(bits + rng.choice([0, 0, 0, 1, -1, 2, -2], shape), 0, wide_format("fp32").max_code)
    # Few bits, so that with a value of few bits the product has about one more than fit.
    wide = wide_format(target)
    kept = rng.integers(0, 24, shape)
    mantissas = (rng.integers(0, 1 << 23, shape) >> kept | 1) << kept & 0x7FFFFF
    exponents = np.clip((bits >> 23) + rng.integers(-wide.mantissa_width - 2, 3, shape), 0, 254)
    few = exponents << 23 | mantissas
    return np.where(rng.random(shape) < 0.5, near, few).astype(np.uint32)


def few_bits(source, shape, rng):
    """Bits of numbers of few significant bits, subnormals among them."""
    wide = wide_format(source)
    kept = rng.integers(0, wide.mantissa_width + 1, shape)
    mantissas = (rng.integers(0, 1 << wide.mantissa_width, shape) >> kept | 1) << kept & ((1 << wide.mantissa_width) - 1)
    exponents = rng.integers(0, wide.inf_code >> wide.mantissa_width, shape)
    exponents = np.where(rng.random(shape) < 0.1, 0, exponents)
    return with_signs((exponents << wide.mantissa_width | mantissas).astype(wide.dtype), source, rng)


def product_classes(a, b, bits, target):
    """How often a product of float64 factors, which holds it exactly, was rounded in each way to ``bits`` of the target."""
    wide = wide_format(target)
    with np.errstate(invalid="ignore"):
        exact = np.abs(a * b)
    magnitude = (bits & wide.dtype(wide.sign_code - 1)).astype(np.int64)
    finite = np.isfinite(exact)
    number = finite & (magnitude <= wide.max_code)
    value = decode(np.minimum(magnitude, wide.max_code), target)
    following = decode(np.minimum(magnitude + 1, wide.max_code), target)
    before = decode(np.maximum(magnitude - 1, 0), target)
    exact = np.where(finite, exact, 0.0)
    is_up, is_down = number & (value > exact), number & (value < exact)
    is_tie = (is_up & (exact - before == value - exact)) | (is_down & (exact - value == following - exact))
    per_binade = 1 << wide.mantissa_width
    smallest_normal = per_binade
    hits = {
        "NaN": np.isnan(a) | np.isnan(b),
        "Inf times zero": (np.isinf(a) & (b == 0)) | (np.isinf(b) & (a == 0)),
        "Inf": (np.isinf(a) & (np.abs(b) > 0)) | (np.isinf(b) & (np.abs(a) > 0)),
        "overflow": finite & ~np.isnan(exact) & (exact > decode(wide.max_code, target)) & (magnitude >= wide.max_code),
        "largest": number & (magnitude == wide.max_code),
        "exact": number & (value == exact) & (exact > 0),
        "rounded up": is_up,
        "rounded down": is_down,
        "tie, to even above": is_tie & is_up,
        "tie, to even below": is_tie & is_down,
        "tie of subnormals": is_tie & (magnitude <= smallest_normal),
        "carry into the next binade": is_up & (magnitude % per_binade == 0) & (magnitude > smallest_normal),
        "carry into the smallest normal": is_up & (magnitude == smallest_normal),
        "largest subnormal": number & (magnitude == smallest_normal - 1),
        "subnormal": number & (magnitude > 0) & (magnitude < smallest_normal),
        "rounded up to the smallest": is_up & (magnitude == 1),
        "tie between zero and the smallest": is_tie & (magnitude == 0),
        "underflow to zero": number & (exact > 0) & (magnitude == 0),
        "positive zero": number & (exact == 0) & (bits == 0),
        "negative zero": number & (exact == 0) & (bits == wide.sign_code),
    }
    return {name: int(np.sum(hit)) for name, hit in hits.items()}
