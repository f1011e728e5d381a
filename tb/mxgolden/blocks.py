"""Blocks of values to and from element codes under one scale each."""

from functools import cache

import numpy as np

from .codec import encode
from .elements import cast, check_choices, values_as_fp32
from .formats import SCALE_NAN, element_format, wide_format
from .scales import SCALE_RULES, block_amaxes, scales_of

__all__ = ["CHUNK", "dequantize", "quantize"]

# Elements a chunk: the temporaries of one chunk stay in the second-level cache.
CHUNK = 1 << 15


def check_block_size(block_size) -> int:
    if not isinstance(block_size, (int, np.integer)) or block_size < 1:
        raise ValueError(f"wanted a block_size of 1 or more, got {block_size!r}")
    return int(block_size)


def check_codes(codes, width: int, name: str) -> np.ndarray:
    """Codes as uint8; ValueError if they are none."""
    codes = np.asarray(codes)
    if codes.dtype != np.uint8:
        raise ValueError(f"wanted {name} as uint8, got {codes.dtype}")
    if width < 8 and codes.size and codes.max() >> width:
        raise ValueError(f"wanted {name} of {width} bits, got {codes.max():#04x}")
    return codes


def check_values(x, source: str) -> np.ndarray:
    """Bit patterns of the source format, contiguous."""
    wide = wide_format(source)
    x = np.asarray(x)
    if x.dtype == np.float32 and source == "fp32":
        return np.ascontiguousarray(x).view(np.uint32).reshape(x.shape)
    if x.dtype != wide.dtype:
        wanted = "float32 or bit patterns in uint32" if source == "fp32" else "bit patterns in uint16"
        raise ValueError(f"wanted {wanted} for source {source}, got {x.dtype}")
    return np.ascontiguousarray(x).reshape(x.shape)


def check_blocks(shape: tuple, block_size: int) -> None:
    if not shape or shape[-1] % block_size:
        raise ValueError(f"wanted a last axis that is a multiple of block_size {block_size}, got shape {shape}")


def quantize(
    x,
    source: str = "fp32",
    element: str = "e4m3",
    block_size: int = 32,
    scale_rule: str = "rceil",
    nan_policy: str = "block",
    rounding: str = "rne",
    overflow: str = "saturate",
    random_bits=None,
) -> tuple[np.ndarray, np.ndarray]:
    """MX blocks of `x` along its last axis: (scales, codes), both uint8.

    `x`: bit patterns (uint32, uint16) or, for source fp32, float32. scales: as `x`, the last axis divided by
    `block_size`; codes: as `x`. `random_bits` (rounding="stochastic" only): one 16-bit number per value, uint16 of
    the shape of `x`.
    """
    values = check_values(x, source)
    block_size = check_block_size(block_size)
    check_blocks(values.shape, block_size)
    if scale_rule not in SCALE_RULES:
        raise ValueError(f"wanted scale_rule of {', '.join(SCALE_RULES)}; got {scale_rule!r}")
    check_choices(element, nan_policy, rounding, overflow)
    random_bits = check_random_bits(random_bits, rounding, values.shape)

    shape = values.shape
    rows = values.reshape(-1, block_size)
    scales = np.empty(len(rows), np.uint8)
    codes = np.empty(rows.shape, np.uint8)
    randoms = None if random_bits is None else random_bits.reshape(rows.shape)
    step = max(1, CHUNK // block_size)
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        amaxes = block_amaxes(rows[part], source, nan_policy)
        scales[part] = scales_of(amaxes, source, element, scale_rule, nan_policy)
        codes[part] = cast(
            values_as_fp32(rows[part], source),
            scales[part, None],
            element,
            rounding,
            overflow,
            None if randoms is None else randoms[part],
        )
    return scales.reshape(*shape[:-1], shape[-1] // block_size), codes.reshape(shape)


def check_random_bits(random_bits, rounding: str, shape: tuple) -> np.ndarray | None:
    if rounding != "stochastic":
        if random_bits is not None:
            raise ValueError(f"wanted no random_bits with rounding {rounding!r}, got some")
        return None
    if random_bits is None:
        raise ValueError("wanted random_bits with rounding 'stochastic', got none")
    random_bits = np.asarray(random_bits)
    if random_bits.dtype != np.uint16 or random_bits.shape != shape:
        got = f"{random_bits.dtype} of {random_bits.shape}"
        raise ValueError(f"wanted random_bits as uint16 of shape {shape}, got {got}")
    return random_bits


@cache
def _products(element, target, overflow):
    """Table of all 65,536 products, at scale * 2^width + code, each rounded once from the exact value."""
    to = wide_format(target)
    scales = np.arange(256)[:, None]
    # Exact in float64: at most 7 significant bits, exponents within -143...143.
    exact = np.ldexp(element_format(element).values[None, :], scales - 127)
    exact[SCALE_NAN] = np.nan
    return encode(exact, target, "ieee" if overflow == "inf" else "saturate").astype(to.dtype).ravel()


def dequantize(
    codes, scales, element: str = "e4m3", target: str = "fp32", block_size: int = 32, overflow: str = "inf"
) -> np.ndarray:
    """Bit patterns of the target format (uint32, uint16), of the shape of `codes`: each exact product rounded once,
    RNE.

    `overflow`: what becomes of a finite product beyond the target: "inf", or "saturate" to its largest value. An E5M2
    infinity stays one.
    """
    to = element_format(element)
    wide = wide_format(target)
    if overflow not in ("inf", "saturate"):
        raise ValueError(f"wanted overflow of inf, saturate; got {overflow!r}")
    codes = check_codes(codes, to.width, "codes")
    scales = check_codes(scales, 8, "scales")
    block_size = check_block_size(block_size)
    check_blocks(codes.shape, block_size)
    wanted = (*codes.shape[:-1], codes.shape[-1] // block_size)
    if scales.shape != wanted:
        raise ValueError(f"wanted scales of shape {wanted} for codes of {codes.shape}, got {scales.shape}")
    table = _products(element, target, overflow)
    rows = codes.reshape(-1, block_size)
    offsets = scales.reshape(-1, 1)
    values = np.empty(rows.shape, wide.dtype)
    step = max(1, CHUNK // block_size)
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        index = (offsets[part].astype(np.uint32) << to.width) + rows[part]
        values[part] = table.take(index, mode="clip")
    return values.reshape(codes.shape)
