"""FP32 multiplication, and the expected outputs of the `fp32_multiplier` unit.

The product of two FP32 numbers has at most 48 significant bits, the last of them worth 2^-298 or more, and is below
2^256: float64 (53 bits, normal from 2^-1022 to 2^1024) holds it exactly. So the conversion to float32 is the only
rounding, in the subnormals too, where it is to their last place at once.
"""

import numpy as np

from .blocks import CHUNK, check_values

__all__ = ["expected", "multiply"]

_NAN = np.uint32(0x7FFFFFFF)


def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """FP32 bits of the products of float32 arrays that broadcast, each rounded once, RNE."""
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        exact = a.astype(np.float64) * b.astype(np.float64)
        bits = exact.astype(np.float32).view(np.uint32)
    return np.where(np.isnan(exact), _NAN, bits)


def expected(parameters: dict, inputs: dict) -> dict:
    """`a` (N, lanes), `b` (N, lanes) -> `products` (N, lanes), all FP32 bits."""
    a, b = (check_values(inputs[name], "fp32").view(np.float32) for name in "ab")
    products = np.empty(a.shape, np.uint32)
    step = max(1, CHUNK // parameters["lanes"])
    for start in range(0, len(a), step):
        part = slice(start, start + step)
        products[part] = multiply(a[part], b[part])
    return {"products": products}
