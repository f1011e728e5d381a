"""FP8 codes under one FP32 scale back to values, and the expected outputs of the `tensor_dequantizer` unit."""

import numpy as np

from .blocks import CHUNK, check_codes, check_values
from .codec import encode
from .formats import element_format, wide_format
from .fp32_multiplier import multiply

__all__ = ["dequantize_tensor", "expected"]


def dequantize_tensor(codes, scale, element: str = "e4m3") -> np.ndarray:
    """FP32 bit patterns of codes under one FP32 scale."""
    to = element_format(element)
    codes = check_codes(codes, to.width, "codes")
    scale = np.asarray(scale)
    if scale.dtype != np.float32 or scale.shape != ():
        raise ValueError(f"wanted one float32 scale, got {scale.dtype} of shape {scale.shape}")
    return multiply(to.values.astype(np.float32), scale).take(codes)


def expected(parameters: dict, inputs: dict) -> dict:
    """`scale` (N,) FP32 bits, `elements` (N, lanes) -> `values` (N, lanes): exact products rounded once to the target.

    A product has at most 28 significant bits, so float64 holds it. `overflow`: as of `dequantize`.
    """
    element, target = element_format(parameters["element"]), parameters["target"]
    overflow = "ieee" if parameters["overflow"] == "inf" else "saturate"
    codes = check_codes(inputs["elements"], element.width, "elements")
    scales = check_values(inputs["scale"], "fp32").view(np.float32).reshape(-1, 1)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        scales = scales.astype(np.float64)
    values = np.empty(codes.shape, wide_format(target).dtype)
    step = max(1, CHUNK // parameters["lanes"])
    for start in range(0, len(codes), step):
        part = slice(start, start + step)
        with np.errstate(invalid="ignore"):  # infinity times zero
            exact = element.values.take(codes[part]) * scales[part]
        values[part] = encode(exact, target, overflow)
    return {"values": values}
