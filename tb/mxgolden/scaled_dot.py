"""Expected outputs of the `scaled_dot` unit."""

import numpy as np

from .products import dot

__all__ = ["expected"]


def expected(parameters: dict, inputs: dict) -> dict:
    """`a_scale` (N,), `a_elements` (N, block_size), `b_scale`, `b_elements` [, `c` (N,) FP32 bits] -> `result` (N,)."""
    result = dot(
        inputs["a_elements"],
        np.asarray(inputs["a_scale"]).reshape(-1, 1),
        inputs["b_elements"],
        np.asarray(inputs["b_scale"]).reshape(-1, 1),
        inputs["c"] if parameters["addend"] else None,
        parameters["a_element"],
        parameters["b_element"],
        parameters["accumulation"],
        parameters["block_size"],
        parameters["target"],
    )
    return {"result": result}
