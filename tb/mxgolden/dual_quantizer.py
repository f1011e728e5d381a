"""Expected outputs of the `dual_quantizer` unit."""

import numpy as np

from .blocks import quantize

__all__ = ["expected"]


def expected(parameters: dict, inputs: dict) -> dict:
    """`values` (N, size * size), tiles row by row [, `random` alike] -> `row_scales` (N, size), `row_elements`
    (N, size * size), and of the tile's transpose `column_scales` and `column_elements` alike.
    """
    size = parameters["block_size"]
    tiles = {name: np.asarray(array).reshape(-1, size, size) for name, array in inputs.items()}
    outputs = {}
    for side, axes in ("row", (0, 1, 2)), ("column", (0, 2, 1)):
        blocks = {name: np.ascontiguousarray(array.transpose(axes)) for name, array in tiles.items()}
        scales, codes = quantize(
            blocks["values"],
            parameters["source"],
            parameters["element"],
            size,
            parameters["scale_rule"],
            parameters["nan_policy"],
            parameters["rounding"],
            parameters["overflow"],
            blocks.get("random"),
        )
        outputs[f"{side}_scales"] = scales.reshape(-1, size)
        outputs[f"{side}_elements"] = codes.reshape(-1, size * size)
    return outputs
