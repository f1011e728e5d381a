"""Expected outputs of the `matmul_layer` unit: the tile's results, quantized in blocks along the rows of D.

Inputs are the tile's. Results of products that are delivered one after the other are neighbours in D; `block_size / columns`
of them make a block of each row, and a row of the outputs. What is left of a block that never ends gives none.
"""

import numpy as np

from . import blocks, matmul_tile

__all__ = ["check_inputs", "expected"]

check_inputs = matmul_tile.check_inputs


def expected(parameters: dict, inputs: dict) -> dict:
    """One row for each block of D's rows, its beats' items one after the other: `scales` (M, beats * rows * blocks a beat),
    `elements` (M, beats * rows * columns), `last` (M, beats) and, in `exact`, `is_out_of_window` (M, beats * rows).
    """
    p = parameters
    rows, columns, size = p["rows"], p["columns"], p["block_size"]
    beats = max(1, size // columns)
    tile = matmul_tile.expected(p, inputs)
    count = len(tile["results"]) // beats

    def whole(values):
        return values[: count * beats].reshape(count, beats, rows, columns)

    d = whole(tile["results"]).swapaxes(1, 2).reshape(count, rows, beats * columns)
    scales, codes = blocks.quantize(d, p["target"], p["d_element"], size, p["scale_rule"])
    last = np.zeros((count, beats), np.uint8)
    last[:, -1] = 1
    outputs = {
        "scales": np.tile(scales.reshape(count, rows * (beats * columns // size)), (1, beats)),
        "elements": codes.reshape(count, rows, beats, columns).swapaxes(1, 2).reshape(count, rows * beats * columns),
        "last": last,
    }
    if "is_out_of_window" in tile:
        flags = whole(tile["is_out_of_window"]).any(axis=(1, 3)).astype(np.uint8)
        outputs["is_out_of_window"] = np.tile(flags, (1, beats))
    return outputs
