"""Codes and factors for tensor_dequantizer."""
import numpy as np

from mxgolden import decode
from mxgolden.formats import wide_format

from .floats import codes, wide_values
from .products import factors, few_bits, product_classes
from .quantizing import with_signs

__all__ = ["blocks", "classes"]


def blocks(parameters, count, rng):
    """``count`` beats: codes of all kinds under factors that bring one of them to a border of the target, factors of few bits,
    and any.
    """
    lanes, target = parameters["lanes"], parameters["target"]
    elements = codes(parameters["element"], (count, lanes), rng)
    chosen = elements[np.arange(count), rng.integers(0, lanes, count)]
    bordering = factors(decode(chosen, parameters["element"]), target, rng)
    kind = rng.random(count)
    scale = np.where(kind < 0.7, bordering, np.where(kind < 0.85, few_bits("fp32", count, rng), wide_values(
        "fp32", (count, 1), rng)[:, 0]))
    fp32 = wide_format("fp32")
    specials = np.array([0, 0, 1, fp32.inf_code, fp32.inf_code, fp32.inf_code + 1, fp32.nan_code, fp32.max_code], np.uint32)
    scale = np.where(rng.random(count) < 0.1, rng.choice(specials, count), scale)
    return {"scale": with_signs(scale.astype(np.uint32), "fp32", rng), "elements": elements}


def classes(parameters, inputs, outputs):
    """How many products of each kind there were."""
    with np.errstate(invalid="ignore"):     # signalling NaNs
        scale = np.broadcast_to(inputs["scale"].view(np.float32).astype(np.float64)[:, None], inputs["elements"].shape)
    elements = decode(inputs["elements"], parameters["element"])
    smallest = {"e4m3": 2.0**-6, "e5m2": 2.0**-14}[parameters["element"]]
    products = product_classes(elements, scale, outputs["values"], parameters["target"])
    if parameters["target"] == "fp32":
        # A product of 24 bits and an element's 4 or 3 is never within half a last place below a power of two.
        del products["carry into the next binade"]
    return products | {
        "subnormal element": int(np.sum((np.abs(elements) < smallest) & (elements != 0))),
        "subnormal factor": int(np.sum((np.abs(scale) < 2.0**-126) & (scale != 0))),
    }
