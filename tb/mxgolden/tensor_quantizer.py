"""The conventional FP8 path: one FP32 factor for a whole tensor. The baseline that block scales are measured against.

    amax   = largest finite magnitude of the tensor
    factor = RN_fp32(max_finite / amax);  the largest FP32 number where that is infinite;  1.0 where amax is 0
    scale  = RN_fp32(1 / factor)
    code   = RNE saturating of RN_fp32(x * factor)
    value  = RN_fp32(code's value * scale)

RN: to nearest even, subnormals kept. There are two roundings from x to the code, as in the usual implementations that scale
in FP32 and then convert; Transformer Engine's factors. `scale` is what is stored beside the codes. NaN becomes 0x7F (0 in
formats without NaN), an infinity the largest value, zeros keep their signs.

The division is the host's. The `tensor_quantizer` unit is given the factor, and delivers amax.
"""

import numpy as np

from .blocks import CHUNK, check_values
from .elements import cast_nearest, values_as_fp32
from .formats import element_format, wide_format
from .fp32_multiplier import multiply
from .scales import magnitudes_as_fp32

__all__ = ["expected", "quantize_tensor", "tensor_factor"]


def tensor_factor(amax, element: str = "e4m3") -> np.float32:
    """The factor that values are multiplied by, for a tensor of the largest magnitude `amax`; 1.0 if that isn't finite."""
    amax = np.float32(amax)
    if amax < 0:
        raise ValueError(f"wanted an amax of 0 or more, got {amax}")
    if amax == 0 or not np.isfinite(amax):
        return np.float32(1.0)
    with np.errstate(over="ignore"):
        factor = np.float32(element_format(element).max_finite) / amax
    return min(factor, np.finfo(np.float32).max)


def quantize_tensor(x, element: str = "e4m3", amax: np.float32 | None = None) -> tuple[np.float32, np.ndarray]:
    """(scale, codes) of a tensor of any shape: float32 or FP32 bit patterns. A piece of a tensor is given the `amax` of all."""
    values = check_values(x, "fp32").view(np.float32)
    flat = values.reshape(-1)
    if amax is None:
        amax = np.abs(flat[np.isfinite(flat)]).max(initial=np.float32(0))
    factor = tensor_factor(amax, element)
    codes = np.empty(flat.shape, np.uint8)
    for start in range(0, len(flat), CHUNK):
        scaled = multiply(flat[start : start + CHUNK], factor).view(np.float32)
        codes[start : start + CHUNK] = cast_nearest(scaled, element, "saturate")
    with np.errstate(under="ignore"):
        return np.float32(1.0) / factor, codes.reshape(values.shape)


def expected(parameters: dict, inputs: dict) -> dict:
    """`scale` (N,) FP32 bits, `values` (N, lanes), `first` (N,) -> `elements` (N, lanes), `amax` (N,) FP32 bits.

    `amax`: the largest finite magnitude since the last row with `first`, or from the first row on; 0 if there is none.
    """
    source, wide = parameters["source"], wide_format(parameters["source"])
    values = check_values(inputs["values"], source)
    factors = check_values(inputs["scale"], "fp32").view(np.float32).reshape(-1, 1)
    elements = np.empty(values.shape, np.uint8)
    largest = np.empty(len(values), np.int64)
    step = max(1, CHUNK // parameters["lanes"])
    for start in range(0, len(values), step):
        part = slice(start, start + step)
        scaled = multiply(values_as_fp32(values[part], source), factors[part]).view(np.float32)
        elements[part] = cast_nearest(scaled, parameters["element"], parameters["overflow"])
        magnitudes = values[part] & wide.dtype(wide.sign_code - 1)
        magnitudes = np.where(magnitudes < wide.inf_code, magnitudes, wide.dtype(0))
        largest[part] = magnitudes_as_fp32(magnitudes.max(axis=1), source)
    # Each tensor's magnitudes are above all of the one before.
    tensor = np.cumsum(np.asarray(inputs["first"]).astype(np.int64)) << 31
    return {"elements": elements, "amax": (np.maximum.accumulate(tensor | largest) & 0x7FFFFFFF).astype(np.uint32)}
