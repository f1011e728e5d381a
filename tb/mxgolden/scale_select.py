"""Expected outputs of the `scale_select` unit."""

import numpy as np

from .blocks import CHUNK
from .elements import check_choices
from .formats import wide_format
from .scales import SCALE_RULES, scales_of

__all__ = ["expected"]


def expected(parameters: dict, inputs: dict) -> dict:
    """`amaxes` (N, lanes), magnitude bits without sign -> `scales` (N, lanes).

    A NaN amax gives 0xFF whatever the policy; an infinite one 0xFF (`block`) or 0xFE (`element`).
    """
    source, element, rule = parameters["source"], parameters["element"], parameters["scale_rule"]
    wide = wide_format(source)
    amaxes = np.asarray(inputs["amaxes"])
    if amaxes.dtype != wide.dtype:
        raise ValueError(f"wanted amaxes as {np.dtype(wide.dtype)}, got {amaxes.dtype}")
    if rule not in SCALE_RULES:
        raise ValueError(f"wanted scale_rule of {', '.join(SCALE_RULES)}; got {rule!r}")
    check_choices(element, parameters["nan_policy"], "rne", "saturate")
    flat = amaxes.reshape(-1)
    scales = np.empty(len(flat), np.uint8)
    for start in range(0, len(flat), CHUNK):
        part = slice(start, start + CHUNK)
        scales[part] = scales_of(flat[part], source, element, rule, parameters["nan_policy"])
    return {"scales": scales.reshape(amaxes.shape)}
