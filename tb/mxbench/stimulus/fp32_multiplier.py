"""Factors for fp32_multiplier."""
import numpy as np

from mxgolden.formats import wide_format

from .floats import wide_values
from .products import factors, few_bits, product_classes
from .quantizing import with_signs

__all__ = ["blocks", "classes"]

_TINY = np.float32(2.0**-126)


def blocks(parameters, count, rng):
    """``count`` beats: any numbers; numbers of few bits; second factors that bring the product to a border or a tie; subnormals;
    NaN, Inf and zeros; the factors in either order.
    """
    wide = wide_format("fp32")
    shape = (count, parameters["lanes"])

    def anything():
        return wide_values("fp32", shape, rng)

    a = np.where(rng.random(shape) < 0.5, few_bits("fp32", shape, rng), anything())
    with np.errstate(invalid="ignore"):     # signalling NaNs
        values = a.view(np.float32).astype(np.float64)
    b = with_signs(factors(values, "fp32", rng), "fp32", rng)
    kind = rng.random(shape)
    b = np.where(kind < 0.7, b, np.where(kind < 0.85, anything(), few_bits("fp32", shape, rng)))
    inf = wide.inf_code
    specials = np.array([0, 0, 1, inf, inf, inf + 1, wide.nan_code, wide.max_code, 1 << 23], np.uint32)
    a = np.where(rng.random(shape) < 0.1, with_signs(rng.choice(specials, shape), "fp32", rng), a)
    b = np.where(rng.random(shape) < 0.1, with_signs(rng.choice(specials, shape), "fp32", rng), b)
    is_swapped = rng.random(shape) < 0.5
    return {"a": np.where(is_swapped, b, a), "b": np.where(is_swapped, a, b)}


def classes(parameters, inputs, outputs):
    """How many products of each kind there were."""
    with np.errstate(invalid="ignore"):     # signalling NaNs
        a, b = (inputs[name].view(np.float32).astype(np.float64) for name in "ab")
    magnitude = outputs["products"] & np.uint32(0x7FFFFFFF)
    is_subnormal = [(np.abs(x) < _TINY) & (x != 0) for x in (a, b)]
    is_normal = (magnitude >= 1 << 23) & (magnitude < 0x7F800000)
    return product_classes(a, b, outputs["products"], "fp32") | {
        "subnormal times normal, a number again": int(np.sum((is_subnormal[0] | is_subnormal[1]) & is_normal)),
        "subnormal times normal, subnormal": int(np.sum((is_subnormal[0] ^ is_subnormal[1]) & (magnitude > 0) & ~is_normal)),
        "two subnormals": int(np.sum(is_subnormal[0] & is_subnormal[1])),
    }
