"""How far a quantized tensor is from its source."""

import numpy as np

__all__ = ["flushed_share", "sqnr"]


def _pair(reference, approximation):
    reference, approximation = (np.asarray(x) for x in (reference, approximation))
    for x in (reference, approximation):
        if x.dtype.kind != "f":
            raise ValueError(f"wanted floating-point values (view bit patterns as float32), got {x.dtype}")
    if reference.shape != approximation.shape:
        raise ValueError(f"wanted arrays of one shape, got {reference.shape} and {approximation.shape}")
    return reference, approximation


def sqnr(reference, approximation, axis=None) -> np.ndarray | float:
    """Signal to quantization noise in dB: 10 log10(sum x^2 / sum (x - y)^2), in float64, over `axis` or everything.

    Infinite where nothing is lost (also of zeros), and of a value that is not finite NaN.
    """
    reference, approximation = _pair(reference, approximation)
    # Infinities, and NaNs that signal: the cast warns of them too.
    with np.errstate(divide="ignore", invalid="ignore"):
        x = reference.astype(np.float64)
        signal = np.square(x).sum(axis=axis)
        noise = np.square(x - approximation).sum(axis=axis)
        return np.where(noise == 0, np.inf, 10 * np.log10(signal / noise))[()]


def flushed_share(reference, approximation) -> float:
    """Share of the nonzero values that became zero."""
    reference, approximation = _pair(reference, approximation)
    is_nonzero = reference != 0
    count = np.count_nonzero(is_nonzero)
    return np.count_nonzero(is_nonzero & (approximation == 0)) / count if count else 0.0
