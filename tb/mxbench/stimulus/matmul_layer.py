"""Blocks of rows and columns for the matrix tile whose results leave as MX."""
import numpy as np

import mxgolden.matmul_tile

from . import matmul_tile, quantizer

__all__ = ["blocks", "classes"]


def blocks(parameters, count, rng):
    """``count`` rows, those of the tile, of which the last one ends a block of D, if there are rows enough."""
    inputs = matmul_tile.blocks(parameters, count, rng)
    last = inputs["last"]
    last[-1] = 1
    missing = -int(last.sum()) % _products(parameters)
    candidates = np.flatnonzero(last == 0)
    last[rng.choice(candidates, min(missing, len(candidates)), replace=False)] = 1
    return inputs


def _products(parameters):
    return max(1, parameters["block_size"] // parameters["columns"])


def classes(parameters, inputs, outputs):
    """The tile's, and the quantizer's over the blocks of D."""
    p = parameters
    rows, columns, size, beats = p["rows"], p["columns"], p["block_size"], _products(p)
    results = mxgolden.matmul_tile.expected(p, inputs)
    hits = matmul_tile.classes(p, inputs, results)
    count = len(outputs["last"])
    d = results["results"][:count * beats].reshape(count, beats, rows, columns).swapaxes(1, 2).reshape(-1, size)
    scales = outputs["scales"].reshape(count, beats, -1)[:, -1].ravel()
    codes = outputs["elements"].reshape(count, beats, rows, columns).swapaxes(1, 2).reshape(-1, size)
    quantized = quantizer.classes(
        {"source": p["target"], "element": p["d_element"], "scale_rule": p["scale_rule"], "nan_policy": "block",
         "rounding": "rne", "overflow": "saturate"}, {"values": d}, {"scale": scales, "elements": codes})
    return hits | {f"of D: {name}": number for name, number in quantized.items()}
