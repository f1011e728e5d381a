"""Values under a given scale to element codes."""

from functools import cache

import numpy as np

from .codec import encode
from .formats import SCALE_NAN, element_format
from .scales import NAN_POLICIES

__all__ = ["OVERFLOWS", "ROUNDINGS", "cast", "cast_nearest", "check_choices", "values_as_fp32"]

ROUNDINGS = ("rne", "stochastic")
OVERFLOWS = ("saturate", "ieee")

_FP32_INF = 0x7F800000


@cache
def _reciprocals():
    """2^(127 - s) in FP32 for each scale s, exact for all of 0...254 (the last a subnormal); NaN for 0xFF."""
    reciprocals = np.ldexp(np.float32(1.0), 127 - np.arange(256)).astype(np.float32)
    reciprocals[SCALE_NAN] = np.nan
    return reciprocals


@cache
def _halves():
    """All FP16 codes as float32; a table is several times faster than NumPy's conversion."""
    return np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)


def values_as_fp32(values: np.ndarray, source: str) -> np.ndarray:
    """Bits of a source format as float32, exactly."""
    if source == "fp32":
        return values.view(np.float32)
    if source == "bf16":
        wide = values.astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    return _halves().take(values)


@cache
def _nearest(element, overflow):
    """Table of codes by what decides a rounding to nearest even: sign, exponent, the mantissa bits down to the half
    of a step (one more than the element has), and whether anything follows them. Returns the bits dropped, and the
    table.
    """
    to = element_format(element)
    dropped = 23 - (to.mantissa_width + 1)
    kept = np.arange(1 << (32 - dropped), dtype=np.uint32) << dropped
    table = np.empty((len(kept), 2), np.uint8)
    for is_inexact in range(2):
        table[:, is_inexact] = encode((kept | np.uint32(is_inexact)).view(np.float32), element, overflow)
    return dropped, table.ravel()


def cast_nearest(scaled: np.ndarray, element: str, overflow: str) -> np.ndarray:
    """Codes of float32 values as they are, rounded to nearest even."""
    dropped, table = _nearest(element, overflow)
    bits = scaled.view(np.uint32)
    # Floor plus ceiling is twice the kept bits, plus one if anything was dropped. (The ceiling wraps for some negative
    # NaNs, which then fall upon the entry of a positive one.)
    index = bits + np.uint32((1 << dropped) - 1)
    index >>= dropped
    index += bits >> dropped
    return table.take(index, mode="clip")


def _cast_stochastic(scaled, element, overflow, random_bits):
    to = element_format(element)
    bits = scaled.view(np.uint32)
    magnitude = bits & np.uint32(0x7FFFFFFF)
    is_nan = magnitude > _FP32_INF
    # Far above every largest value, where the ladder below still goes on.
    limited = np.minimum(magnitude, np.uint32((127 + 20) << 23))
    exponent = (limited >> 23).astype(np.int64) - 127
    lowest = to.lsb + to.mantissa_width
    ladder = np.full_like(exponent, lowest) if to.is_integer else np.maximum(exponent, lowest)
    # The value in steps of its place on the ladder, plus the random number as a fraction of a step. In float64 the
    # sum is exact unless the value is below 2^-16 of a step, where it stays below 1 as it must.
    steps = np.ldexp(limited.view(np.float32).astype(np.float64), to.mantissa_width - ladder)
    count = np.floor(steps + random_bits * 2.0**-16).astype(np.int64)
    codes = count + ((ladder - lowest) << to.mantissa_width)
    overflows = codes > to.max_code
    np.minimum(codes, to.max_code, out=codes)
    is_negative = bits >> 31 != 0
    if to.is_integer:
        codes = np.where(is_negative, -codes, codes) & 0xFF
    else:
        sign = is_negative.astype(np.int64) << (to.width - 1)
        if overflow == "ieee":
            codes = np.where(overflows, to.nan_code if to.inf_code is None else to.inf_code, codes)
            sign = np.where(overflows & (to.inf_code is None), 0, sign)
        codes = codes | sign
    return np.where(is_nan, to.nan_code or 0, codes).astype(np.uint8)


def check_choices(element: str, nan_policy: str, rounding: str, overflow: str) -> None:
    """ValueError if an element format can't do what is asked."""
    to = element_format(element)
    for name, value, choices in (
        ("nan_policy", nan_policy, NAN_POLICIES),
        ("rounding", rounding, ROUNDINGS),
        ("overflow", overflow, OVERFLOWS),
    ):
        if value not in choices:
            raise ValueError(f"wanted {name} of {', '.join(choices)}; got {value!r}")
    if not to.has_nan and nan_policy != "block":
        raise ValueError(f"wanted nan_policy=block for {element}, which has no NaN; got {nan_policy!r}")
    if not to.has_nan and overflow != "saturate":
        raise ValueError(f"wanted overflow=saturate for {element}, which has no infinity or NaN; got {overflow!r}")


def cast(values, scales, element: str, rounding: str, overflow: str, random_bits=None) -> np.ndarray:
    """Codes of `values` (float32) under `scales` (E8M0 codes that broadcast to them).

    x * 2^(127 - s) is exact in FP32 but where it leaves its range: above, far beyond what any element holds; below, far
    under half of any step. So one multiplication and one rounding are one rounding. A NaN scale makes all values NaN.
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        scaled = values * _reciprocals().take(scales)
    if rounding == "rne":
        return cast_nearest(scaled, element, overflow)
    return _cast_stochastic(scaled, element, overflow, random_bits)
