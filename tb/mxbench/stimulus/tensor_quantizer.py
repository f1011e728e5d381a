"""Values and factors for tensor_quantizer."""
import numpy as np

from mxgolden import decode, encode
from mxgolden.elements import values_as_fp32
from mxgolden.formats import element_format, wide_format
from mxgolden.fp32_multiplier import multiply

from .floats import wide_values
from .products import few_bits
from .quantizing import ladder, near_ties, rounding_classes, with_signs

__all__ = ["blocks", "classes"]


def _ties(element, source, scales, rng, lanes):
    """Values (N, lanes) whose products with the FP32 ``scales`` are at, or next to, what rounds one way or the other."""
    magnitudes, midpoints = ladder(element)
    wanted = rng.choice(np.concatenate([midpoints, midpoints[:2], midpoints[-2:], magnitudes]), (len(scales), lanes))
    bits = encode(wanted / scales.view(np.float32).astype(np.float64)[:, None], source, "saturate").astype(np.int64)
    near = bits + rng.choice([0, 0, 0, -1, 1, -2, 2], bits.shape)
    wide = wide_format(source)
    return np.clip(near, 0, wide.max_code).astype(wide.dtype)


def blocks(parameters, count, rng):
    """``count`` beats: values next to ties under any factor, and under powers of two; any values under the factor that fits
    them, or one that brings a value to a tie; any of both; NaN, Inf; zeros.
    """
    source, element, lanes = parameters["source"], parameters["element"], parameters["lanes"]
    wide, fp32 = wide_format(source), wide_format("fp32")
    shape = (count, lanes)

    # Factors under which the element's range lies in the source's.
    low, high = (24, 230) if source != "fp16" else (113, 150)
    exponents = rng.integers(low, high, count)
    any_factor = (exponents << 23 | few_bits("fp32", count, rng) & 0x7FFFFF).astype(np.uint32)
    under_any = _ties(element, source, any_factor, rng, lanes)
    codes = rng.integers(0, 255, count).astype(np.uint8)
    power = (2.0 ** (127 - codes.astype(np.float64))).astype(np.float32).view(np.uint32)
    under_power = near_ties(element, source, codes, rng, lanes)

    values = with_signs(wide_values(source, shape, rng) & wide.dtype(wide.sign_code - 1), source, rng)
    finite = np.where(values & wide.inf_code == wide.inf_code, 0, values).astype(wide.dtype)
    magnitudes = np.abs(values_as_fp32(finite, source).astype(np.float64))
    amax = magnitudes.max(axis=1)
    at_tie = np.where(rng.random(count) < 0.5, element_format(element).max_finite, rng.choice(ladder(element)[1], count))
    fitting = encode(at_tie / np.where(amax > 0, amax, 1.0), "fp32", "saturate")

    kind = rng.choice(4, count, p=[.45, .15, .25, .15])
    scale = np.choose(kind, [any_factor, power, fitting, wide_values("fp32", (count, 1), rng)[:, 0]])
    values = np.where((kind == 0)[:, None], with_signs(under_any, source, rng), values)
    values = np.where((kind == 1)[:, None], with_signs(under_power, source, rng), values)
    specials = np.array([0, wide.inf_code, wide.inf_code, wide.inf_code + 1, wide.nan_code, wide.max_code, 1], wide.dtype)
    rare = rng.random((count, 1)) ** 6
    values = np.where(rng.random(shape) < rare, with_signs(rng.choice(specials, shape), source, rng), values)
    # Beats of which nothing counts for amax.
    without = rng.choice([wide.inf_code, wide.nan_code], shape).astype(wide.dtype)
    without = np.where(rng.random(shape) < rng.choice([0, 0.5], (count, 1)), wide.dtype(0), without)
    values = np.where(rng.random((count, 1)) < 0.06, with_signs(without, source, rng), values)
    ends = np.array([0, 1, 1 << 22, 1 << 23, fp32.max_code, fp32.inf_code, fp32.nan_code, fp32.inf_code + 1], np.uint32)
    scale = np.where(rng.random(count) < 0.05, rng.choice(ends, count), scale)
    scale = np.where(rng.random(count) < 0.1, scale | fp32.sign_code, scale).astype(np.uint32)
    first = np.where(rng.random(count) < 0.8, rng.random(count) < 0.3, rng.random(count) < 0.01)
    return {"scale": scale, "values": values, "first": first.astype(np.uint8)}


def classes(parameters, inputs, outputs):
    """How many values were scaled and cast in each way, and how many beats' amax is of which kind."""
    source = parameters["source"]
    wide = wide_format(source)
    codes, amax = outputs["elements"], outputs["amax"]
    values = values_as_fp32(inputs["values"], source)
    factors = inputs["scale"].view(np.float32)[:, None]
    products = multiply(values, factors)
    with np.errstate(invalid="ignore"):     # signalling NaNs, infinity times zero
        exact = values.astype(np.float64) * factors.astype(np.float64)
    once = encode(exact, parameters["element"], parameters["overflow"])
    magnitudes = inputs["values"] & wide.dtype(wide.sign_code - 1)
    is_finite = magnitudes < wide.inf_code
    own = np.where(is_finite, magnitudes, 0).max(axis=1)
    own = (np.abs(decode(own, source)).astype(np.float32)).view(np.uint32)
    is_first = inputs["first"].astype(bool)
    has_finite = is_finite.any(axis=1)
    hits = rounding_classes({"element": parameters["element"], "source": "fp32"}, products, np.full(len(amax), 127), codes) | {
        "rounded twice, to another code than once": codes != once,
        "product beyond FP32": np.isfinite(exact) & (products & np.uint32(0x7FFFFFFF) == 0x7F800000),
        "NaN": np.isnan(exact),
        "Inf": np.isinf(exact),
        "subnormal value": (magnitudes > 0) & (magnitudes < 1 << wide.mantissa_width),
        "subnormal factor": (np.abs(factors) < np.float32(2.0**-126)) & (factors != 0),
        "tensor starts": is_first,
        "tensor starts below the last one": is_first[1:] & (amax[1:] < amax[:-1]),
        "amax of this beat": (amax == own) & (own > 0) & ~is_first,
        "amax of a beat before": amax > own,
        "amax of 0": amax == 0,
        "amax of a subnormal": has_finite & (own > 0) & (own < (1 << 23 if source != "fp16" else 113 << 23)) & (amax == own),
        "nothing but NaN and Inf": ~has_finite,
    }
    if parameters["lanes"] > 1:
        hits["amax beside NaN or Inf"] = has_finite & ~is_finite.all(axis=1)
    alone = (magnitudes == np.where(is_finite, magnitudes, 0).max(axis=1, keepdims=True)) & is_finite
    alone &= (alone.sum(axis=1) == 1)[:, None] & (amax == own)[:, None]
    return {name: int(np.sum(hit)) for name, hit in hits.items()} | {
        "largest alone, the place that had it least": int(alone.sum(axis=0).min())}
