"""Dot products of block pairs, in every accumulation mode.

A block pair's sum of element products is an integer in units of the product of the formats' smallest steps, at most 70 bits
for E5M2 by E5M2 in blocks of 32, and is held as high * 2^16 + low in two int64. Sums of blocks under any scales span up to
578 bits and more: they are held as limbs, 32 bits each in an int64, whose carries wait until the end.
"""

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np

from .blocks import CHUNK, check_block_size, check_blocks, check_codes
from .codec import decode, encode
from .formats import SCALE_NAN, WIDE, Element, Wide, element_format, wide_format

__all__ = ["ACCUMULATIONS", "Pair", "Sums", "dot"]

ACCUMULATIONS = ("exact", "fp32_fused", "fp32_chain", "blackwell")

_FP32 = WIDE["fp32"]
_LIMB_BITS = 32
_LIMB_MASK = (1 << _LIMB_BITS) - 1
# The highest position, 508 + 16 of a scale pair and `high`, begins in limb 16; three limbs of a term, one for the carries of
# up to 2^30 terms.
_LIMBS = 20
# Up to here the halves of a block sum fit their int64 for every pair of formats.
_MAX_BLOCK_SIZE = 1 << 13
# Fraction bits kept below the largest exponent.
_BLACKWELL_FRACTION = 25


@dataclass(frozen=True)
class Pair:
    """Two element formats; `lsb` is the exponent of the last bit of their products."""

    a: Element
    b: Element

    @staticmethod
    @cache
    def of(a_element: str, b_element: str) -> "Pair":
        return Pair(element_format(a_element), element_format(b_element))

    @property
    def lsb(self) -> int:
        return self.a.lsb + self.b.lsb

    @property
    def floor(self) -> int:
        """Exponent of the last bit of a sum under any scales; that of any FP32 addend is not below it."""
        return self.lsb - 254

    def block_width(self, block_size: int) -> int:
        """Bits of a signed block sum."""
        # MXINT8 decodes -128, too.
        most = [int(np.abs(element.integers).max()) for element in (self.a, self.b)]
        return (most[0] * most[1] * block_size).bit_length() + 1


@dataclass
class Sums:
    """Exact sums of block pairs: (high * 2^16 + low) * 2^(position + pair.floor), `position` the sum of the scale codes.

    `special` is 0.0, or the infinity or NaN that the block is instead; then the integers say nothing.
    """

    high: np.ndarray
    low: np.ndarray
    position: np.ndarray
    special: np.ndarray


@cache
def _split(name):
    """Integers of an E5M2 operand as high * 2^16 + low, low nonnegative."""
    integers = element_format(name).integers
    return integers >> 16, integers & 0xFFFF


def block_sums(pair: Pair, a_codes, a_scales, b_codes, b_scales) -> Sums:
    """Sums over the last axis of the codes (n, block_size), scales (n,)."""
    a = pair.a.integers.take(a_codes)
    if pair.a.name == pair.b.name == "e5m2":
        high, low = (np.einsum("ij,ij->i", a, part.take(b_codes)) for part in _split(pair.b.name))
    else:
        low = np.einsum("ij,ij->i", a, pair.b.integers.take(b_codes))
        high = np.zeros_like(low)
    position = a_scales.astype(np.int64) + b_scales
    special = _specials(pair, a_codes, b_codes)
    special[(a_scales == SCALE_NAN) | (b_scales == SCALE_NAN)] = np.nan
    return Sums(high, low, position, special)


@cache
def _is_special(name):
    return ~np.isfinite(element_format(name).values)


def _specials(pair, a_codes, b_codes):
    """What IEEE arithmetic on the elements' values gives where it is not finite, else 0: infinity times zero and opposite
    infinities are NaN. Finite products can't overflow float64.
    """
    special = np.zeros(len(a_codes))
    rows = _is_special(pair.a.name).take(a_codes).any(axis=1) | _is_special(pair.b.name).take(b_codes).any(axis=1)
    if rows.any():
        with np.errstate(invalid="ignore"):
            products = pair.a.values.take(a_codes[rows]) * pair.b.values.take(b_codes[rows])
            special[rows] = np.where(np.isfinite(products), 0.0, products).sum(axis=1)
    return special


def _addend(c):
    """FP32 bits as (signed significand, exponent of its last bit, special)."""
    field = ((c >> 23) & 0xFF).astype(np.int64)
    significand = (c & 0x7FFFFF).astype(np.int64) + np.where(field > 0, 1 << 23, 0)
    special = np.zeros(c.shape)
    special[field == 255] = decode(c[field == 255], "fp32")
    return np.where(c >> 31 != 0, -significand, significand), np.maximum(field, 1) - 150, special


class Accumulator:
    """Exact sums of any number of terms, one a row; `specials` sums up what is not finite as IEEE arithmetic does."""

    def __init__(self, pair: Pair, rows: int):
        self.pair = pair
        self.limbs = np.zeros((_LIMBS, rows), np.int64)
        self.specials = np.zeros(rows)

    def _deposit(self, rows, values, positions):
        limb, shift = positions >> 5, positions & 31
        low = (values & _LIMB_MASK) << shift
        high = (values >> _LIMB_BITS) << shift
        flat = self.limbs.reshape(-1)
        index = limb * self.limbs.shape[1] + rows
        np.add.at(flat, index, low & _LIMB_MASK)
        # `low` is below 2^63, so that this shift is the unsigned one.
        np.add.at(flat, index + self.limbs.shape[1], (low >> _LIMB_BITS) + (high & _LIMB_MASK))
        np.add.at(flat, index + 2 * self.limbs.shape[1], high >> _LIMB_BITS)

    def add(self, rows, sums: Sums) -> None:
        """Add block sums to the rows given (which may repeat)."""
        self._deposit(rows, sums.low, sums.position)
        if sums.high.any():
            self._deposit(rows, sums.high, sums.position + 16)
        with np.errstate(invalid="ignore"):
            np.add.at(self.specials, rows, sums.special)

    def add_bits(self, rows, c) -> None:
        """Add FP32 bits."""
        significand, exponent, special = _addend(c)
        self._deposit(rows, significand, exponent - self.pair.floor)
        with np.errstate(invalid="ignore"):
            np.add.at(self.specials, rows, special)

    def rounded(self, wide: Wide) -> np.ndarray:
        """Each row's sum rounded once, RNE; only an exact zero is +0."""
        return round_limbs(self.limbs, self.specials, self.pair.floor, wide)


def _carry(limbs):
    for low, high in pairwise(limbs):
        high += low >> _LIMB_BITS
        low &= _LIMB_MASK


def round_limbs(limbs, specials, floor: int, wide: Wide) -> np.ndarray:
    """Bits of sums of limbs (limbs, rows) in units of 2^floor; where `specials` is not 0, of that."""
    limbs = limbs.copy()
    _carry(limbs)
    is_negative = limbs[-1] < 0
    if is_negative.any():
        limbs *= np.where(is_negative, -1, 1)
        _carry(limbs)
    is_used = limbs != 0
    top = np.maximum(_LIMBS - 1 - is_used[::-1].argmax(axis=0), 1)
    top[~is_used.any(axis=0)] = 1
    row = np.arange(limbs.shape[1])
    significand = limbs[top, row].astype(np.uint64) << np.uint64(_LIMB_BITS) | limbs[top - 1, row].astype(np.uint64)
    is_inexact = is_used.argmax(axis=0) < top - 1
    is_inexact &= significand != 0
    bits = round_bits(is_negative, significand, is_inexact, floor + _LIMB_BITS * (top - 1), wide)
    return _with_specials(bits, specials, wide)


def _with_specials(bits, specials, wide):
    if specials.any():
        bits = np.where(np.isinf(specials), wide.inf_code | np.where(specials < 0, wide.sign_code, 0), bits)
        bits = np.where(np.isnan(specials), wide.nan_code, bits).astype(wide.dtype)
    return bits


def _bit_length(values):
    """Of uint64 below 2^32, as int64."""
    return np.frexp(values.astype(np.float64))[1].astype(np.int64)


def round_bits(is_negative, significand, is_inexact, exponent, wide: Wide, truncate: bool = False) -> np.ndarray:
    """Bits of (-1)^is_negative * significand * 2^exponent, RNE or toward zero, overflow to infinity in both.

    `significand` is uint64; `is_inexact` tells of something beyond its last bit (then it has more than 32 bits).
    """
    upper = significand >> np.uint64(32)
    length = np.where(upper != 0, 32 + _bit_length(upper), _bit_length(significand & np.uint64(_LIMB_MASK)))
    step = np.where(length > 0, np.maximum(exponent + length - 1 - wide.mantissa_width, wide.lsb), wide.lsb)
    shift = step - exponent
    # Shifted in two parts, since half of the last bit may be the significand's first.
    early = np.clip(shift - 62, 0, 63).astype(np.uint64)
    kept = significand >> early
    is_inexact = is_inexact | (kept << early != significand)
    right = np.clip(shift, 0, 62).astype(np.uint64)
    count = kept >> right
    rest = kept - (count << right)
    count <<= np.clip(-shift, 0, 62).astype(np.uint64)
    if not truncate:
        # Compared at twice the scale, so that a shift of 0 needs no exception: its rest is 0.
        one = np.uint64(1)
        twice, unit = rest << one, one << right
        is_odd = count & one != 0
        count += (twice > unit) | ((twice == unit) & (right > 0) & (is_inexact | is_odd))
    codes = count.astype(np.int64) + ((step - wide.lsb) << wide.mantissa_width)
    codes = np.minimum(codes, wide.inf_code)
    return (codes | np.where(is_negative, wide.sign_code, 0)).astype(wide.dtype)


def add_rounded(pair: Pair, sums: Sums, c=None) -> np.ndarray:
    """FP32 bits of each block sum plus `c` (FP32 bits), rounded once."""
    rows = np.arange(len(sums.position))
    accumulator = Accumulator(pair, len(rows))
    accumulator.add(rows, sums)
    if c is not None:
        accumulator.add_bits(rows, c)
    return accumulator.rounded(_FP32)


def add_fp32(a, b) -> np.ndarray:
    """FP32 addition of bits, with the NaN that mxforge emits."""
    with np.errstate(invalid="ignore", over="ignore"):
        total = a.view(np.float32) + b.view(np.float32)
    return np.where(np.isnan(total), np.uint32(_FP32.nan_code), total.view(np.uint32))


def blackwell_step(pair: Pair, a_codes, a_scales, b_codes, b_scales, c) -> np.ndarray:
    """FP32 bits of one step: codes (n, block_size), scales (n,), c (n,) FP32 bits."""
    a, b = pair.a, pair.b
    products = a.significands.take(a_codes) * b.significands.take(b_codes)
    exponents = a.exponents.take(a_codes) + b.exponents.take(b_codes)
    exponents += (a_scales.astype(np.int64) + b_scales - 254)[:, None]
    addend, addend_exponent, special = _addend(c)
    addend_exponent = addend_exponent + 23
    # Zeros take no part in the choice of the largest exponent.
    nowhere = -(1 << 20)
    largest = np.where(products != 0, exponents, nowhere).max(axis=1)
    largest = np.maximum(largest, np.where(addend != 0, addend_exponent, nowhere))
    total = _aligned(products, _BLACKWELL_FRACTION - a.mantissa_width - b.mantissa_width, largest[:, None] - exponents)
    total = total.sum(axis=1) + _aligned(addend, _BLACKWELL_FRACTION - 23, largest - addend_exponent)
    magnitude = np.abs(total).astype(np.uint64)
    exact = np.zeros(len(c), bool)
    bits = round_bits(total < 0, magnitude, exact, largest - _BLACKWELL_FRACTION, _FP32, truncate=True)
    bits[bits == _FP32.sign_code] = 0
    with np.errstate(invalid="ignore"):
        special = special + _specials(pair, a_codes, b_codes)
    special[(a_scales == SCALE_NAN) | (b_scales == SCALE_NAN)] = np.nan
    return _with_specials(bits, special, _FP32)


def _aligned(significands, left, shift):
    """Fixed point, truncated toward zero."""
    magnitude = (np.abs(significands) << left) >> np.clip(shift, 0, 63)
    return np.where(significands < 0, -magnitude, magnitude)


def step(accumulation: str, pair: Pair, a_codes, a_scales, b_codes, b_scales, acc) -> np.ndarray:
    """FP32 bits after one more block, in the modes that round at each."""
    if accumulation == "blackwell":
        return blackwell_step(pair, a_codes, a_scales, b_codes, b_scales, acc)
    sums = block_sums(pair, a_codes, a_scales, b_codes, b_scales)
    if accumulation == "fp32_fused":
        return add_rounded(pair, sums, acc)
    return add_fp32(acc, add_rounded(pair, sums))


def narrowed(bits, wide: Wide) -> np.ndarray:
    """FP32 bits rounded once more, RNE, to a narrower target."""
    return bits if wide.name == "fp32" else encode(decode(bits, "fp32"), wide.name)


def check_modes(accumulation: str, target: str, block_size: int) -> Wide:
    """The target's format; ValueError for what a dot product can't do."""
    if accumulation not in ACCUMULATIONS:
        raise ValueError(f"wanted accumulation of {', '.join(ACCUMULATIONS)}; got {accumulation!r}")
    if target not in ("fp32", "bf16"):
        raise ValueError(f"wanted target of fp32, bf16; got {target!r}")
    if accumulation == "blackwell" and target != "fp32":
        raise ValueError(f"wanted target=fp32 for accumulation blackwell, got {target!r}")
    if check_block_size(block_size) > _MAX_BLOCK_SIZE:
        raise ValueError(f"wanted a block_size of at most {_MAX_BLOCK_SIZE} in a dot product, got {block_size}")
    return wide_format(target)


def check_addend(c) -> np.ndarray:
    """FP32 bits."""
    c = np.asarray(c)
    if c.dtype == np.float32:
        c = np.ascontiguousarray(c).view(np.uint32).reshape(c.shape)
    if c.dtype != np.uint32:
        raise ValueError(f"wanted c as float32 or FP32 bit patterns in uint32, got {c.dtype}")
    return c


def check_operand(codes, scales, element: str, block_size: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    codes = check_codes(codes, element_format(element).width, f"{name}_codes")
    scales = check_codes(scales, 8, f"{name}_scales")
    check_blocks(codes.shape, block_size)
    wanted = (*codes.shape[:-1], codes.shape[-1] // block_size)
    if scales.shape != wanted:
        raise ValueError(f"wanted {name}_scales of shape {wanted} for codes of {codes.shape}, got {scales.shape}")
    return codes.reshape(*wanted, block_size), scales


def dot(
    a_codes,
    a_scales,
    b_codes,
    b_scales,
    c=None,
    a_element: str = "e4m3",
    b_element: str = "e4m3",
    accumulation: str = "exact",
    block_size: int = 32,
    target: str = "fp32",
) -> np.ndarray:
    """Dot products along the last axis plus `c`, as bit patterns of the target (uint32; uint16 for bf16).

    Leading axes broadcast, those of `c` (FP32: float32 or uint32) too, and are the result's shape. `accumulation`:

    * "exact": everything summed exactly and rounded once, RNE, to the target; an exact zero is +0.
    * "fp32_fused": acc = c (+0 if absent); for each block acc = RN(acc + exact block sum), as "exact" with c = acc.
    * "fp32_chain": the same with acc = RN(acc + RN(exact block sum)), and the signs of zero of IEEE additions.
    * "blackwell": one tensor-core step a block, acc fed back as c; needs target fp32.

    fp32_fused and fp32_chain accumulate in FP32 whatever the target: for bf16 their final FP32 value is rounded once more,
    RNE. A NaN element, scale or c, infinity times zero and opposite infinities give NaN, otherwise infinities win.
    """
    wide = check_modes(accumulation, target, block_size)
    pair = Pair.of(a_element, b_element)
    a_blocks, a_scales = check_operand(a_codes, a_scales, a_element, block_size, "a")
    b_blocks, b_scales = check_operand(b_codes, b_scales, b_element, block_size, "b")
    if a_scales.shape[-1] != b_scales.shape[-1]:
        a_length, b_length = (scales.shape[-1] * block_size for scales in (a_scales, b_scales))
        raise ValueError(f"wanted last axes of one length, got {a_length} of a_codes and {b_length} of b_codes")
    c = None if c is None else check_addend(c)
    leading = [a_scales.shape[:-1], b_scales.shape[:-1]] + ([] if c is None else [c.shape])
    try:
        shape = np.broadcast_shapes(*leading)
    except ValueError:
        raise ValueError(f"wanted leading axes that broadcast, got {', '.join(map(str, leading))}") from None

    blocks = a_scales.shape[-1]
    a_blocks, b_blocks = (np.broadcast_to(x, (*shape, blocks, block_size)) for x in (a_blocks, b_blocks))
    a_scales, b_scales = (np.broadcast_to(x, (*shape, blocks)) for x in (a_scales, b_scales))
    c = np.broadcast_to(np.uint32(0) if c is None else c, shape)
    count = int(np.prod(shape, dtype=np.int64))
    result = np.empty(count, wide.dtype)
    chunk = max(1, CHUNK // block_size)

    def operands(rows, block):
        """Codes and scales of a block, or of an array of blocks, at index arrays `rows` of the leading axes."""
        where = (*rows, block)
        return (
            a_blocks[where].reshape(-1, block_size),
            a_scales[where].reshape(-1),
            b_blocks[where].reshape(-1, block_size),
            b_scales[where].reshape(-1),
        )

    for start in range(0, count, chunk):
        size = min(chunk, count - start)
        rows = np.unravel_index(np.arange(start, start + size), shape) if shape else ()
        acc = c[rows].reshape(-1)
        if accumulation == "exact":
            accumulator = Accumulator(pair, size)
            accumulator.add_bits(np.arange(size), acc)
            # Rows may be few and long as well as many and short.
            for first in range(0, size * blocks, chunk):
                row, block = np.divmod(np.arange(first, min(first + chunk, size * blocks)), blocks)
                accumulator.add(row, block_sums(pair, *operands([axis[row] for axis in rows], block)))
            result[start : start + size] = accumulator.rounded(wide)
            continue
        for block in range(blocks):
            acc = step(accumulation, pair, *operands(rows, block), acc)
        result[start : start + size] = narrowed(acc, wide)
    return result.reshape(shape)
