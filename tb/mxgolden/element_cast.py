"""Expected outputs of the `element_cast` unit."""

import numpy as np

from .blocks import CHUNK, check_random_bits, check_values
from .elements import cast, check_choices, values_as_fp32

__all__ = ["expected"]


def expected(parameters: dict, inputs: dict) -> dict:
    """`scale` (N,), `values` (N, lanes) [, `random` (N, lanes)] -> `elements` (N, lanes)."""
    source, element = parameters["source"], parameters["element"]
    rounding, overflow = parameters["rounding"], parameters["overflow"]
    check_choices(element, "block", rounding, overflow)
    values = check_values(inputs["values"], source)
    scales = np.asarray(inputs["scale"]).reshape(-1, 1)
    randoms = check_random_bits(inputs.get("random"), rounding, values.shape)
    elements = np.empty(values.shape, np.uint8)
    step = max(1, CHUNK // max(1, values.shape[-1]))
    for start in range(0, len(values), step):
        part = slice(start, start + step)
        elements[part] = cast(
            values_as_fp32(values[part], source),
            scales[part],
            element,
            rounding,
            overflow,
            None if randoms is None else randoms[part],
        )
    return {"elements": elements}
