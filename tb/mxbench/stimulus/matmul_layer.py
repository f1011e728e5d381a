"""Blocks of rows and columns for the matrix tile whose results leave as MX."""
import numpy as np

import mxgolden.matmul_tile

from . import matmul_tile, quantizer

__all__ = ["blocks", "classes"]


def blocks(parameters, count, rng):
    """``count`` rows, those of the tile, of which the last one ends a block of D, if there are rows enough.

    Where any ``c`` may be a result (an addend that no window narrows), some blocks of D are the quantizer's: products of zeros,
    of one block each, which leave D's values to ``c``.
    """
    p = parameters
    inputs = matmul_tile.blocks(p, count, rng)
    last = inputs["last"]
    last[-1] = 1
    missing = -int(last.sum()) % _products(p)
    candidates = np.flatnonzero(last == 0)
    last[rng.choice(candidates, min(missing, len(candidates)), replace=False)] = 1
    if p["addend"] and p["window"] == 254:
        _direct(p, inputs, rng)
    return inputs


def _direct(parameters, inputs, rng):
    p = parameters
    rows, columns, products = p["rows"], p["columns"], _products(p)
    done = np.flatnonzero(inputs["last"])
    done = done[:len(done) // products * products].reshape(-1, products)
    done = done[rng.random(len(done)) < 0.4]
    shape = len(done), rows, products, columns
    d = quantizer.blocks(_quantizer(p), np.prod(shape) // p["block_size"], rng)["values"].reshape(shape).swapaxes(1, 2)
    done = done.ravel()
    inputs["first"][done] = 1
    c = d.reshape(len(done), rows * columns).astype(np.uint32)
    inputs["c"][done, -rows * columns:] = c << 16 if p["target"] == "bf16" else c
    for side in "ab":
        inputs[f"{side}_elements"][done] = 0
        scales = inputs[f"{side}_scales"]
        scales[done] = np.minimum(scales[done], 254)


def _products(parameters):
    return max(1, parameters["block_size"] // parameters["columns"])


def _quantizer(parameters):
    """The parameters of the quantizers of D."""
    p = parameters
    return {"source": p["target"], "element": p["d_element"], "block_size": p["block_size"], "scale_rule": p["scale_rule"],
            "nan_policy": "block", "rounding": "rne", "overflow": "saturate"}


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
    quantized = quantizer.classes(_quantizer(p), {"values": d}, {"scale": scales, "elements": codes})
    return hits | {f"of D: {name}": number for name, number in quantized.items()}
