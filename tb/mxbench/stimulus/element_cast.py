"""Values and scales for element_cast."""
import numpy as np

from mxgolden.formats import element_format, wide_format

from .floats import scales as any_scales
from .floats import wide_values
from .quantizing import near_ties, rounding_classes, with_signs

__all__ = ["blocks", "classes"]


def blocks(parameters, count, rng):
    """``count`` beats: any values and scales; values where roundings change under the scale; NaN, Inf; zeros."""
    source, element, lanes = parameters["source"], parameters["element"], parameters["lanes"]
    wide = wide_format(source)
    shape = (count, lanes)
    scales = any_scales(count, rng)
    anything = wide_values(source, shape, rng)
    # Scales that fit the values, so that not all of them overflow or vanish.
    first = (anything[:, 0].astype(np.int64) & (wide.sign_code - 1)) >> wide.mantissa_width
    if source == "fp16":
        first += 112
    scales = np.where(rng.random(count) < 0.5, np.clip(first - rng.integers(-12, 24, count), 0, 255), scales).astype(np.uint8)
    low = 127 + np.rint(np.log2(wide_smallest(wide))).astype(np.int64) - element_format(element).emax
    # Scales where the source's subnormals are just what the element can tell apart.
    near = np.clip(low + rng.integers(-8, 32, count), 0, 254)
    scales = np.where(rng.random(count) < 0.3, near, scales).astype(np.uint8)
    ties = with_signs(near_ties(element, source, scales, rng, lanes), source, rng)
    specials = np.array([0, 1, wide.inf_code, wide.inf_code + 1, wide.nan_code, wide.max_code], wide.dtype)
    ends = with_signs(rng.choice(specials, shape), source, rng)
    kind = rng.random(shape)
    values = np.where(kind < 0.6, ties, np.where(kind < 0.95, anything, ends))
    inputs = {"scale": scales, "values": values}
    if parameters["rounding"] == "stochastic":
        inputs["random"] = randoms(shape, rng)
    return inputs


def wide_smallest(wide):
    return 2.0 ** wide.lsb


def randoms(shape, rng):
    """16-bit numbers: any, and the ends."""
    drawn = rng.integers(0, 1 << 16, shape)
    ends = rng.choice([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFE, 0xFFFF], shape)
    return np.where(rng.random(shape) < 0.7, drawn, ends).astype(np.uint16)


def classes(parameters, inputs, outputs):
    """How many values of each kind were cast."""
    wide = wide_format(parameters["source"])
    to = element_format(parameters["element"])
    values, scale, codes = inputs["values"], inputs["scale"], outputs["elements"]
    magnitudes = values & wide.dtype(wide.sign_code - 1)
    is_nan = magnitudes > wide.inf_code
    is_inf = (magnitudes == wide.inf_code) & (scale != 255)[:, None]
    hits = rounding_classes(parameters, values, scale, codes) | {
        "NaN": int(np.sum(is_nan)),
        "NaN scale": int(np.sum(scale == 255)),
        "NaN under a NaN scale": int(np.sum(is_nan & (scale == 255)[:, None])),
        "Inf": int(np.sum(is_inf)),
    }
    if to.has_nan and parameters["overflow"] == "ieee":
        beyond = to.nan_code if to.inf_code is None else to.inf_code
        overflows = codes & (0x7F if to.inf_code else 0xFF) == beyond
        hits["overflow"] = int(np.sum(overflows & ~is_nan & ~is_inf & (scale != 255)[:, None]))
    return hits
