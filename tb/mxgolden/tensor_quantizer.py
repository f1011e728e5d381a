"""The conventional FP8 path: one FP32 scale for a whole tensor. The baseline that block scales are measured against.

    amax  = largest finite magnitude of the tensor
    scale = RN_fp32(amax / max_finite);  2^-149 where that rounds to 0;  1.0 where amax is 0
    code  = RNE saturating of RN_fp32(x / scale)
    value = RN_fp32(code's value * scale)

RN: to nearest even, subnormals kept. There are two roundings from x to the code, as in the usual implementations that scale
in FP32 and then convert. NaN becomes 0x7F (0 in formats without NaN), an infinity the largest value, zeros keep their signs.
"""

import numpy as np

from .blocks import CHUNK, check_codes, check_values
from .elements import cast_nearest
from .formats import element_format, wide_format

__all__ = ["dequantize_tensor", "quantize_tensor"]


def quantize_tensor(x, element: str = "e4m3", scale: np.float32 | None = None) -> tuple[np.float32, np.ndarray]:
    """(scale, codes) of a tensor of any shape: float32 or FP32 bit patterns. A piece of a tensor is given its `scale`."""
    to = element_format(element)
    values = check_values(x, "fp32").view(np.float32)
    flat = values.reshape(-1)
    if scale is None:
        finite = np.abs(flat[np.isfinite(flat)])
        amax = finite.max(initial=np.float32(0))
        scale = np.float32(1.0)
        if amax > 0:
            with np.errstate(under="ignore"):
                scale = np.maximum(amax / np.float32(to.max_finite), np.float32(2.0**-149))
    codes = np.empty(flat.shape, np.uint8)
    for start in range(0, len(flat), CHUNK):
        with np.errstate(under="ignore", over="ignore", invalid="ignore"):
            scaled = flat[start : start + CHUNK] / scale
        codes[start : start + CHUNK] = cast_nearest(scaled, element, "saturate")
    return scale, codes.reshape(values.shape)


def dequantize_tensor(codes, scale, element: str = "e4m3") -> np.ndarray:
    """FP32 bit patterns of codes under one FP32 scale."""
    to = element_format(element)
    codes = check_codes(codes, to.width, "codes")
    scale = np.asarray(scale)
    if scale.dtype != np.float32 or scale.shape != ():
        raise ValueError(f"wanted one float32 scale, got {scale.dtype} of shape {scale.shape}")
    with np.errstate(under="ignore", over="ignore", invalid="ignore"):
        table = to.values.astype(np.float32) * scale
    bits = table.view(np.uint32)
    bits[np.isnan(table)] = wide_format("fp32").nan_code
    return bits.take(codes)
