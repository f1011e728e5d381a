"""Blocks for the dequantizer."""
import numpy as np

from .floats import WIDTHS, codes, scales

__all__ = ["blocks", "classes"]


def blocks(parameters, count, rng):
    """``count`` beats: codes of all kinds under scales at the ends and in the middle."""
    lanes = parameters["lanes"]
    return {"scale": scales(count, rng), "elements": codes(parameters["element"], (count, lanes), rng)}


def classes(parameters, inputs, outputs):
    """How many values of each kind came out."""
    width, mantissa = WIDTHS[parameters["target"]]
    magnitude = outputs["values"] & ((1 << (width - 1)) - 1)
    exponent = magnitude >> mantissa
    top = (1 << (width - 1 - mantissa)) - 1
    fraction = magnitude & ((1 << mantissa) - 1)
    return {
        "NaN scale": int(np.sum(inputs["scale"] == 255)),
        "NaN": int(np.sum((exponent == top) & (fraction != 0))),
        "Inf": int(np.sum((exponent == top) & (fraction == 0))),
        "zero": int(np.sum(magnitude == 0)),
        "subnormal": int(np.sum((exponent == 0) & (fraction != 0))),
        "smallest normal": int(np.sum((exponent == 1) & (fraction == 0))),
        "largest exponent": int(np.sum(exponent == top - 1)),
    }
