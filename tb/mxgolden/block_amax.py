"""Expected outputs of the `block_amax` unit."""

import numpy as np

from .blocks import CHUNK, check_blocks, check_values
from .scales import block_amaxes

__all__ = ["expected"]


def expected(parameters: dict, inputs: dict) -> dict:
    """`values` (N, block_size) -> `amax` (N,): magnitude bits, one less than the source has.

    nan_policy `block`: the largest magnitude bits, so that a NaN wins with its own mantissa; `element`: a NaN counts
    as 0.
    """
    values = check_values(inputs["values"], parameters["source"])
    check_blocks(values.shape, parameters["block_size"])
    rows = values.reshape(-1, parameters["block_size"])
    amax = np.empty(len(rows), values.dtype)
    step = max(1, CHUNK // parameters["block_size"])
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        amax[part] = block_amaxes(rows[part], parameters["source"], parameters["nan_policy"])
    return {"amax": amax}
