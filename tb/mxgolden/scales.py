"""From the largest magnitude of a block to its scale."""

import numpy as np

from .formats import SCALE_NAN, element_format, wide_format

__all__ = ["NAN_POLICIES", "SCALE_RULES", "block_amaxes", "magnitudes_as_fp32", "scales_of"]

SCALE_RULES = ("rceil", "floor", "ceil", "even", "floor_plus_1", "unit")
NAN_POLICIES = ("block", "element")

_FP32_INF = 0x7F800000
# The reference computes RN_fp32(amax / max) and rounds that up to a power of two. RN pulls these two amaxes, and no
# others, down to exactly 2^-127.
_RCEIL_EXCEPTIONS = {"e4m3": 0x04600001, "e5m2": 0x07E00001}


def magnitudes_as_fp32(magnitudes: np.ndarray, source: str) -> np.ndarray:
    """Magnitude bits of a source format (sign clear) widened exactly to FP32 bits."""
    if source == "fp32":
        return magnitudes
    if source == "bf16":
        return magnitudes.astype(np.uint32) << 16
    wide = np.ascontiguousarray(magnitudes, np.uint16).view(np.float16).astype(np.float32)
    return wide.view(np.uint32)


def scales_of(amax: np.ndarray, source: str, element: str, scale_rule: str, nan_policy: str) -> np.ndarray:
    """E8M0 codes of blocks whose largest magnitudes are `amax` (magnitude bits of `source`, sign clear), same shape.

    A NaN amax gives 0xFF under both policies (under `element` no block has one, since a NaN enters its amax as 0); an
    infinite one 0xFF (`block`) or 0xFE (`element`).
    """
    to = element_format(element)
    a = magnitudes_as_fp32(np.asarray(amax), source)
    # A carry out of the 23 mantissa bits steps the exponent: `addend` is what is missing to one.
    addend, emax = {
        "rceil": (0x7FFFFF - to.rceil_mantissa, to.emax),
        "floor": (0, to.emax),
        "ceil": (0x7FFFFF, to.emax),
        "even": (1 << (22 - to.mantissa_width), to.emax),
        "floor_plus_1": (0x800000, to.emax),
        "unit": (0x7FFFFF, 0),
    }[scale_rule]
    exponents = a + np.uint32(addend)
    exponents >>= 23
    exponents = exponents.view(np.int32)
    exponents -= emax
    np.clip(exponents, 0, 254, out=exponents)
    scales = exponents.astype(np.uint8)
    if emax == 0:
        # Only here can amaxes below 2^-126 reach a scale other than 0, and only the unit rule lets them.
        scales = np.where(a < 0x800000, (a > 0x400000) if scale_rule == "unit" else 0, scales).astype(np.uint8)
    if scale_rule == "rceil" and source == "fp32" and element in _RCEIL_EXCEPTIONS:
        scales[a == _RCEIL_EXCEPTIONS[element]] = 0
    special = a >= _FP32_INF
    if special.any():
        is_inf = a == _FP32_INF
        scales[special] = SCALE_NAN
        if nan_policy == "element":
            scales[is_inf] = 0xFE
    return scales


def block_amaxes(values: np.ndarray, source: str, nan_policy: str) -> np.ndarray:
    """Largest magnitude bits along the last axis, NaN counting as the largest (`block`) or as 0 (`element`)."""
    wide = wide_format(source)
    magnitudes = values & wide.dtype(wide.sign_code - 1)
    if nan_policy == "element":
        is_nan = magnitudes > wide.inf_code
        if is_nan.any():
            magnitudes[is_nan] = 0
    return magnitudes.max(axis=-1)
