"""Codes of single numbers: decode to float64, which holds every format exactly, and encode by nearest-even search."""

from functools import cache

import numpy as np

from .formats import ELEMENTS, SCALE_NAN, WIDE, _look_up

__all__ = ["decode", "encode"]

_ALL = {**ELEMENTS, **WIDE, "e8m0": None}


def _format(name):
    return _look_up(_ALL, name, "a format")


def _codes(codes, dtype, width, name):
    codes = np.asarray(codes)
    if codes.dtype.kind not in "ui":
        raise ValueError(f"wanted integer codes of {name}, got {codes.dtype}")
    if codes.size and (codes.min() < 0 or int(codes.max()) >> width):
        raise ValueError(f"wanted codes of {name} below 2^{width}, got {codes.min()}...{codes.max()}")
    return codes.astype(dtype)


def decode(codes, format: str) -> np.ndarray:
    """Values of codes of any format (elements, wide formats, `e8m0`) as float64, exactly."""
    wanted = _format(format)
    if wanted is None:
        codes = _codes(codes, np.int64, 8, format)
        return np.where(codes == SCALE_NAN, np.nan, np.ldexp(1.0, np.where(codes == SCALE_NAN, 127, codes) - 127))
    codes = _codes(codes, np.int64, wanted.width, format)
    if format in ELEMENTS:
        return wanted.values[codes]
    magnitude = codes & (wanted.sign_code - 1)
    # The ladder again: 2^mantissa_width codes for each doubling of the step.
    per_binade = 1 << wanted.mantissa_width
    binade = np.maximum(magnitude // per_binade - 1, 0)
    value = np.ldexp((magnitude - binade * per_binade).astype(np.float64), binade + wanted.lsb)
    value = np.where(magnitude == wanted.inf_code, np.inf, value)
    value = np.where(magnitude > wanted.inf_code, np.nan, value)
    return np.where(codes >= wanted.sign_code, -value, value)


@cache
def _midpoints(name):
    magnitudes = np.array(ELEMENTS[name].magnitudes)
    # The last is where the step beyond the largest value would begin: past it, a value overflows.
    step = magnitudes[-1] - magnitudes[-2]
    return (magnitudes + np.append(magnitudes[1:], magnitudes[-1] + step)) / 2


def _encode_element(values, wanted, overflow):
    midpoints = _midpoints(wanted.name)
    magnitude = np.abs(values)
    is_nan = np.isnan(values)
    below = np.searchsorted(midpoints, np.where(is_nan, 0.0, magnitude), side="left")
    tie = np.minimum(below, wanted.max_code)
    codes = below + ((magnitude == midpoints[tie]) & (tie % 2 == 1) & (below == tie))
    overflows = codes > wanted.max_code
    codes = np.minimum(codes, wanted.max_code)
    if wanted.is_integer:
        codes = np.where(values < 0, -codes, codes) & 0xFF
    else:
        if overflow == "ieee" and wanted.inf_code is not None:
            codes = np.where(overflows, wanted.inf_code, codes)
        codes = codes | (np.signbit(values).astype(np.int64) << (wanted.width - 1))
        if overflow == "ieee" and wanted.inf_code is None:
            codes = np.where(overflows, wanted.nan_code, codes)
    return np.where(is_nan, wanted.nan_code or 0, codes).astype(np.uint8)


def _encode_wide(values, wanted, overflow):
    magnitude = np.abs(values)
    finite = np.where(np.isfinite(magnitude), magnitude, 0.0)
    exponent = np.where(finite == 0, wanted.lsb, np.frexp(finite)[1] - 1)
    step = np.maximum(exponent - wanted.mantissa_width, wanted.lsb).astype(np.int64)
    # Scaling by a power of two is exact, but for float64 subnormals: far below half a step of any format.
    with np.errstate(under="ignore"):
        count = np.rint(np.ldexp(finite, -step)).astype(np.int64)
    codes = count + ((step - wanted.lsb) << wanted.mantissa_width)
    codes = np.minimum(codes, wanted.inf_code if overflow == "ieee" else wanted.max_code)
    codes = np.where(np.isinf(magnitude), wanted.inf_code, codes)
    codes = codes | np.where(np.signbit(values), wanted.sign_code, 0)
    return np.where(np.isnan(values), wanted.nan_code, codes).astype(wanted.dtype)


def encode(values, format: str, overflow: str | None = None) -> np.ndarray:
    """Codes of float64 (or narrower) values, rounded once to nearest even.

    `overflow`: "saturate" (the default of element formats; infinities then saturate too) or "ieee" (the default of
    wide formats; E4M3, which has no infinity, overflows to NaN). A wide format with "saturate" clamps finite values
    only. NaN becomes the NaN that mxforge emits (0x7F, 0x7FFF, 0x7FFFFFFF), or code 0 in formats without NaN. `e8m0`
    takes powers of two of its range and NaN, and refuses the rest: how a scale is rounded is the scale rule's
    business.
    """
    wanted = _format(format)
    values = np.asarray(values)
    if values.dtype.kind not in "fiu":
        raise ValueError(f"wanted real numbers, got {values.dtype}")
    with np.errstate(invalid="ignore"):  # a signalling NaN is a NaN
        values = values.astype(np.float64)
    if overflow is None:
        overflow = "ieee" if format in WIDE else "saturate"
    if overflow not in ("saturate", "ieee"):
        raise ValueError(f"wanted overflow of saturate, ieee; got {overflow!r}")
    if wanted is None:
        is_nan = np.isnan(values)
        fraction, exponent = np.frexp(np.where(is_nan, 1.0, values))
        codes = exponent + 126
        wrong = (fraction != 0.5) | (codes < 0) | (codes > 254)
        if wrong.any():
            raise ValueError(f"wanted powers of two of 2^-127...2^127 for e8m0, got {values[wrong].flat[0]}")
        return np.where(is_nan, SCALE_NAN, codes).astype(np.uint8)
    if format in WIDE:
        return _encode_wide(values, wanted, overflow)
    if overflow == "ieee" and not wanted.has_nan:
        raise ValueError(f"wanted overflow=saturate for {format}, which has neither infinity nor NaN; got 'ieee'")
    return _encode_element(values, wanted, overflow)
