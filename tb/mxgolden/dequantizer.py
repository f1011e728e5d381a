"""Expected outputs of the `dequantizer` unit."""

import numpy as np

from .blocks import dequantize

__all__ = ["expected"]


def expected(parameters: dict, inputs: dict) -> dict:
    """`scale` (N,), `elements` (N, lanes) -> `values` (N, lanes)."""
    elements = np.asarray(inputs["elements"])
    values = dequantize(
        elements,
        np.asarray(inputs["scale"]).reshape(-1, 1),
        parameters["element"],
        parameters["target"],
        elements.shape[-1],
        parameters["overflow"],
    )
    return {"values": values}
