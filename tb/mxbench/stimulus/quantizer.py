"""Blocks for the quantizer."""
import numpy as np

from mxgolden.formats import wide_format
from mxgolden.scales import scales_of

from .element_cast import randoms
from .floats import wide_values
from .quantizing import amaxes, finite_blocks, ladder, rounding_classes, scaled_magnitudes, with_signs

__all__ = ["blocks", "classes"]


def blocks(parameters, count, rng):
    """``count`` blocks: any values; every hard amax among values where roundings change; NaN, Inf, both; zeros."""
    source, element, size = parameters["source"], parameters["element"], parameters["block_size"]
    wide = wide_format(source)
    shape = (count, size)
    hard = amaxes(source)
    hard = hard[hard <= wide.max_code]
    # Each amax in turn, as far as there are blocks; in the end other ones.
    anything = wide_values(source, shape, rng)
    drawn = rng.integers(0, wide.inf_code, count).astype(wide.dtype)
    amax = np.where(rng.random(count) < 0.7, np.resize(rng.permutation(hard), count), drawn)
    scales = scales_of(amax, source, element, parameters["scale_rule"], "block")
    directed = with_signs(finite_blocks(amax, scales, element, source, size, rng), source, rng)
    values = np.where(rng.random((count, 1)) < 0.75, directed, anything)
    # Random bits are NaN or Inf too often for large blocks.
    is_special = (values & wide.inf_code) == wide.inf_code
    values = np.where(is_special, values & ~wide.dtype(1 << wide.mantissa_width), values)

    specials = np.array([wide.inf_code, wide.inf_code, wide.inf_code + 1, wide.nan_code, wide.max_code], wide.dtype)
    few = rng.random(shape) < rng.choice([1, 2, size], (count, 1)) / size
    spoilt = np.where(few, with_signs(rng.choice(specials, shape), source, rng), values)
    single = np.where(few, with_signs(np.broadcast_to(rng.choice(specials, (count, 1)), shape), source, rng), values)
    zeros = with_signs(np.zeros(shape, wide.dtype), source, rng)
    kind = rng.random((count, 1))
    values = np.where(kind < 0.06, spoilt, np.where(kind < 0.14, single, np.where(kind < 0.16, zeros, values)))
    inputs = {"values": values}
    if parameters["rounding"] == "stochastic":
        inputs["random"] = randoms(shape, rng)
    return inputs


def classes(parameters, inputs, outputs):
    """How many blocks, and values, of each kind there were."""
    source, element, rule = parameters["source"], parameters["element"], parameters["scale_rule"]
    wide = wide_format(source)
    values, scale, codes = inputs["values"], outputs["scale"], outputs["elements"]
    magnitudes = values & wide.dtype(wide.sign_code - 1)
    amax = magnitudes.max(axis=1)
    is_finite = amax < wide.inf_code
    has_nan = (magnitudes > wide.inf_code).any(axis=1)
    has_inf = (magnitudes == wide.inf_code).any(axis=1)
    is_largest = (magnitudes == amax[:, None]) & is_finite[:, None] & (amax > 0)[:, None]
    hits = {
        "all zero": amax == 0,
        "subnormal amax": (amax > 0) & (amax < 1 << wide.mantissa_width),
        "largest amax": amax == wide.max_code,
        "NaN in the block": has_nan & ~has_inf,
        "Inf in the block": has_inf & ~has_nan,
        "NaN and Inf in the block": has_inf & has_nan,
    }
    if parameters["nan_policy"] == "block":
        hits["NaN block"] = scale == 255
    else:
        hits["largest scale"] = scale == 254
        hits["all NaN"] = (magnitudes > wide.inf_code).all(axis=1)
    if source != "fp16" and rule != "unit" and element != "mxint8":
        hits["lowest scale of a normal amax"] = (scale == 0) & (amax >= 1 << wide.mantissa_width)
    if rule == "rceil" and source == "fp32" and element in ("e4m3", "e5m2"):
        hits["exception of rceil"] = amax == {"e4m3": 0x04600001, "e5m2": 0x07E00001}[element]
    rounding = rounding_classes(parameters, values, scale, codes)
    if rule in ("floor", "even"):
        scaled = scaled_magnitudes(values, scale[:, None], source)
        hits["above the largest"] = np.isfinite(scaled) & (scaled > ladder(element)[0][-1])
    elif rule != "rceil":
        # Scales that leave the highest binade empty.
        del rounding["largest"]
    return {name: int(np.sum(hit)) for name, hit in hits.items()} | rounding | {
        "amax alone, the place that had it least": int((is_largest & (is_largest.sum(axis=1) == 1)[:, None]).sum(axis=0).min())}
