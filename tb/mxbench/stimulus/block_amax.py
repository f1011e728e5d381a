"""Blocks for block_amax."""
import numpy as np

from mxgolden.formats import wide_format

from .floats import wide_values
from .quantizing import with_signs

__all__ = ["blocks", "classes"]


def blocks(parameters, count, rng):
    """``count`` blocks: any values; magnitudes of few bits, so that many are near or alike; NaN, Inf; zeros."""
    source, size = parameters["source"], parameters["block_size"]
    wide = wide_format(source)
    shape = (count, size)
    values = wide_values(source, shape, rng)
    # One base, and single bits changed in it: what a wrong comparison of a bit shows.
    base = rng.integers(0, wide.inf_code, (count, 1)).astype(wide.dtype)
    flipped = base ^ (wide.dtype(1) << rng.integers(0, wide.width - 1, shape).astype(wide.dtype))
    alike = with_signs(np.where(rng.random(shape) < 0.3, flipped, base), source, rng)
    kind = rng.random((count, 1))
    values = np.where(kind < 0.5, alike, values)
    specials = np.array([wide.inf_code, wide.inf_code + 1, wide.nan_code, wide.inf_code + 2, wide.max_code], wide.dtype)
    rare = rng.random((count, 1)) ** 6
    values = np.where(rng.random(shape) < rare, with_signs(rng.choice(specials, shape), source, rng), values)
    return {"values": np.where(kind > 0.97, with_signs(np.zeros(shape, wide.dtype), source, rng), values)}


def classes(parameters, inputs, outputs):
    """How many blocks of each kind there were."""
    wide = wide_format(parameters["source"])
    magnitudes = inputs["values"] & wide.dtype(wide.sign_code - 1)
    has_nan = (magnitudes > wide.inf_code).any(axis=1)
    has_inf = (magnitudes == wide.inf_code).any(axis=1)
    is_largest = magnitudes == outputs["amax"][:, None]
    hits = {
        "all zero": (magnitudes == 0).all(axis=1),
        "subnormal": (outputs["amax"] > 0) & (outputs["amax"] < 1 << wide.mantissa_width),
        "NaN": has_nan & ~has_inf,
        "Inf": has_inf & ~has_nan,
        "NaN and Inf": has_inf & has_nan,
        "largest more than once": is_largest.sum(axis=1) > 1,
    }
    alone = is_largest & (is_largest.sum(axis=1) == 1)[:, None]
    return {name: int(np.sum(hit)) for name, hit in hits.items()} | {
        "largest alone, the place that had it least": int(alone.sum(axis=0).min())}
