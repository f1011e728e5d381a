"""Expected outputs of the `quantizer` unit."""

import numpy as np

from .blocks import quantize

__all__ = ["expected"]


def expected(parameters: dict, inputs: dict) -> dict:
    """`values` (N, block_size) [, `random` (N, block_size)] -> `scale` (N,), `elements` (N, block_size)."""
    scales, codes = quantize(
        np.asarray(inputs["values"]),
        parameters["source"],
        parameters["element"],
        parameters["block_size"],
        parameters["scale_rule"],
        parameters["nan_policy"],
        parameters["rounding"],
        parameters["overflow"],
        inputs.get("random"),
    )
    return {"scale": scales.reshape(-1), "elements": codes}
