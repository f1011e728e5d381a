"""Largest magnitudes for scale_select."""
import numpy as np

from mxgolden.formats import element_format, wide_format

from .floats import wide_values
from .quantizing import amaxes

__all__ = ["blocks", "classes"]


def blocks(parameters, count, rng):
    """``count`` beats: magnitudes at each rule's thresholds, and any."""
    source = parameters["source"]
    wide = wide_format(source)
    shape = (count, parameters["lanes"])
    magnitudes = wide_values(source, shape, rng) & wide.dtype(wide.sign_code - 1)
    return {"amaxes": np.where(rng.random(shape) < 0.6, rng.choice(amaxes(source), shape), magnitudes)}


def classes(parameters, inputs, outputs):
    """How many scales of each kind came out."""
    source, element, rule = parameters["source"], parameters["element"], parameters["scale_rule"]
    wide = wide_format(source)
    amax, scales = inputs["amaxes"], outputs["scales"]
    hits = {
        "zero amax": amax == 0,
        "subnormal amax": (amax > 0) & (amax < 1 << wide.mantissa_width),
        "largest amax": amax == wide.max_code,
        "Inf amax": amax == wide.inf_code,
        "NaN amax": amax > wide.inf_code,
        "NaN scale": scales == 255,
    }
    emax = 0 if rule == "unit" else element_format(element).emax
    if source != "fp16" and emax > 0:
        hits["lowest scale of a normal amax"] = (scales == 0) & (amax >= 1 << wide.mantissa_width)
    if source != "fp16" and emax == 0 and rule != "floor":
        hits["clamped to the highest scale"] = (scales == 254) & (amax == wide.max_code)
    if parameters["nan_policy"] == "element":
        hits["highest scale of Inf"] = scales == 254
    if rule == "rceil" and source == "fp32" and element in ("e4m3", "e5m2"):
        hits["exception of rceil"] = amax == {"e4m3": 0x04600001, "e5m2": 0x07E00001}[element]
    return {name: int(np.sum(hit)) for name, hit in hits.items()}
