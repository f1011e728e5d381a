"""Values that units find hard."""
import numpy as np

__all__ = ["WIDTHS", "around", "codes", "scales", "wide_values"]

# (width, mantissa bits) of the wide formats.
WIDTHS = {"fp32": (32, 23), "bf16": (16, 7), "fp16": (16, 10)}
CODE_WIDTHS = {"e4m3": 8, "e5m2": 8, "e3m2": 6, "e2m3": 6, "e2m1": 4, "mxint8": 8}


def codes(element, shape, rng):
    """Element codes, all alike likely, with a share of blocks that repeat few codes (zeros, ends, NaN, Inf)."""
    width = CODE_WIDTHS[element]
    drawn = rng.integers(0, 1 << width, shape, dtype=np.uint8)
    sign = 1 << (width - 1)
    ends = np.array([0, sign, 1, sign | 1, sign - 1, 2 * sign - 1, sign - 2, sign - 4, 2 * sign - 2], dtype=np.uint8)
    special = ends[rng.integers(0, len(ends), shape)]
    rare = rng.random(shape[:-1] + (1,)) if len(shape) > 1 else rng.random()
    return np.where(rng.random(shape) < rare ** 4, special, drawn)


def scales(count, rng):
    """E8M0 codes: uniform, and a share at the ends and around the middle."""
    drawn = rng.integers(0, 256, count)
    ends = np.array([0, 1, 2, 8, 9, 10, 17, 18, 126, 127, 128, 240, 246, 247, 253, 254, 255])
    middle = 127 + np.rint(rng.normal(0, 6, count)).astype(np.int64)
    kind = rng.random(count)
    return np.where(kind < 0.4, drawn, np.where(kind < 0.6, ends[rng.integers(0, len(ends), count)], middle)).astype(np.uint8)


def around(bits, width, spread=1):
    """Each bit pattern and its neighbours, as magnitudes below the sign bit."""
    bits = np.asarray(bits, dtype=np.int64)
    near = np.concatenate([bits + d for d in range(-spread, spread + 1)])
    return np.unique(near[(near >= 0) & (near < 1 << (width - 1))]).astype(np.uint64)


def wide_values(source, shape, rng, exponents=None):
    """Bit patterns of ``source``: random bits; values of like size in a block; mantissas near ties and ends; zeros.

    ``exponents`` (low, high) bounds the biased exponent of a block's centre.
    """
    width, mantissa = WIDTHS[source]
    top = (1 << (width - 1 - mantissa)) - 1
    low, high = exponents or (0, top)
    centre = rng.integers(low, high + 1, shape[:-1] + (1,))
    exponent = np.clip(centre - rng.integers(0, 24, shape), 0, top)
    fraction = rng.integers(0, 1 << mantissa, shape)
    # Mantissas with few bits set below the first few: ties, and what is next to ties.
    kept = rng.integers(0, min(mantissa, 6) + 1, shape)
    mask = ~((1 << (mantissa - kept)) - 1)
    tie = (fraction & mask) | (1 << np.maximum(mantissa - kept - 1, 0))
    near = np.clip(tie + rng.integers(-1, 2, shape), 0, (1 << mantissa) - 1)
    kind = rng.random(shape)
    fraction = np.where(kind < 0.35, fraction, np.where(kind < 0.75, near, fraction & mask))
    bits = (rng.integers(0, 2, shape) << (width - 1)) | (exponent << mantissa) | fraction
    bits = np.where(rng.random(shape) < 0.03, bits & (1 << (width - 1)), bits)
    wild = rng.integers(0, 1 << width, shape)
    bits = np.where(rng.random(shape[:-1] + (1,)) < 0.1, wild, bits)
    return bits.astype(np.uint32 if width == 32 else np.uint16)
