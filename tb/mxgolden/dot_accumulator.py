"""Expected outputs of the `dot_accumulator` unit.

Row k is a block pair of slot k mod `slots`; each slot has its own products. A row with `first` starts one (acc = `c`, +0 without
addend, then the row's block); one with `last` delivers the result so far; a row after `last` without `first` goes on with the
running sum, which in `exact` is the unrounded one, and otherwise FP32 (a BF16 result is a rounded copy).

Out of window, in `exact`: with R = `window`, the accumulator holds bits of 2^lowest...2^(top - 1), where

    lowest = lsb - R           lsb: exponent of the last bit of a product (E4M3 by E4M3: -18)
    top    = lowest + (signed bits of a block sum) + 2 R + ceil(log2(max_blocks)) - 1

(with E4M3, R = 24 and 4096 blocks: 2^-42...2^58). Out of window are: a block whose integer sum is not zero, that has no NaN or
infinity in elements or scales, and whose scale codes have |a_scale + b_scale - 254| > R; a finite `c` with a nonzero bit below
2^lowest, or of magnitude 2^top or more; more than `max_blocks` blocks since `first`. The result is then NaN with
`is_out_of_window`, until the slot's next `first`. A sum of blocks and c that are all inside is always exact, even if it exceeds
2^top (it stays below 2^(top + 1)).
"""

import numpy as np

from .blocks import CHUNK
from .products import (
    Accumulator,
    Pair,
    block_sums,
    check_addend,
    check_modes,
    check_operand,
    narrowed,
    round_limbs,
    step,
)

__all__ = ["accumulator_bounds", "expected"]


def accumulator_bounds(parameters: dict) -> tuple[int, int]:
    """(lowest, top): exponents of the accumulator's last bit and of its sign bit."""
    pair = Pair.of(parameters["a_element"], parameters["b_element"])
    lowest = pair.lsb - parameters["window"]
    growth = (parameters["max_blocks"] - 1).bit_length()
    return lowest, lowest + pair.block_width(parameters["block_size"]) + 2 * parameters["window"] + growth - 1


def _is_addend_outside(parameters, c):
    lowest, top = accumulator_bounds(parameters)
    field = (c >> 23 & 0xFF).astype(np.int64)
    significand = (c & 0x7FFFFF).astype(np.int64) + np.where(field > 0, 1 << 23, 0)
    exponent = np.maximum(field, 1) - 150
    highest_bit = exponent + np.frexp(significand.astype(np.float64))[1] - 1
    lowest_bit = exponent + np.frexp((significand & -significand).astype(np.float64))[1] - 1
    return (field < 255) & (significand != 0) & ((lowest_bit < lowest) | (highest_bit >= top))


def _exact(parameters, pair, operands, first, last, c, wide):
    """Running sums over the rows, restarted where `first` is set: one more row of the limbs' matrix for each count."""
    result = np.zeros(len(first), wide.dtype)
    is_outside = np.zeros(len(first), np.uint8)
    carry = None
    chunk = max(1, CHUNK // parameters["block_size"])
    for start in range(0, len(first), chunk):
        part = slice(start, start + chunk)
        starts = np.flatnonzero(first[part])
        size = len(first[part])
        row = np.arange(size)
        sums = block_sums(pair, *(operand[part] for operand in operands))
        is_zero = (sums.high + (sums.low >> 16) == 0) & (sums.low & 0xFFFF == 0)
        outside = (sums.special == 0) & ~is_zero
        outside &= np.abs(sums.position - 254) > parameters["window"]
        accumulator = Accumulator(pair, size)
        accumulator.add(row, sums)
        if c is not None:
            accumulator.add_bits(starts, c[part][starts])
            outside[starts] |= _is_addend_outside(parameters, c[part][starts])
        specials = accumulator.specials
        counts = [np.isnan(specials), specials == np.inf, specials == -np.inf, outside, np.ones(size, bool)]
        matrix = np.concatenate([accumulator.limbs, np.array(counts, np.int64)])
        carry = np.zeros((len(matrix), 1), np.int64) if carry is None else carry
        running = np.concatenate([carry, carry + np.cumsum(matrix, axis=1)], axis=1)
        # What had been summed before the row's product began; nothing is subtracted from one that began in an earlier chunk.
        began = np.zeros(size, np.int64)
        began[starts] = starts + 1
        began = np.maximum.accumulate(began)
        totals = running[:, 1:] - np.where(began > 0, running[:, np.maximum(began - 1, 0)], 0)
        carry = totals[:, -1:].copy()
        # Counted in integers, since a NaN can't be subtracted again.
        done = np.flatnonzero(last[part])
        limbs, (nans, ups, downs, outsides, blocks) = totals[:-5, done], totals[-5:, done]
        special = np.where(ups > 0, np.inf, 0.0)
        special[downs > 0] = -np.inf
        special[(nans > 0) | ((ups > 0) & (downs > 0))] = np.nan
        out = (outsides > 0) | (blocks > parameters["max_blocks"])
        bits = round_limbs(limbs, special, pair.floor, wide)
        result[start + done] = np.where(out, wide.nan_code, bits)
        is_outside[start + done] = out
    return result, is_outside


def _stepwise(parameters, pair, operands, first, c, wide):
    """All products at once, one block of each at a time."""
    accumulation = parameters["accumulation"]
    a_codes, a_scales, b_codes, b_scales = operands
    chunk = max(1, CHUNK // parameters["block_size"])
    starts = np.flatnonzero(first)
    lengths = np.diff(np.append(starts, len(first)))
    acc = np.zeros(len(starts), np.uint32) if c is None else c[starts]
    result = np.empty(len(first), np.uint32)
    # Longest first, so that those still going on are the front of the arrays.
    order = np.argsort(-lengths, kind="stable")
    starts, lengths, acc = starts[order], lengths[order], acc[order]
    for block in range(int(lengths.max(initial=0))):
        active = int(np.searchsorted(-lengths, -block, side="left"))
        for begin in range(0, active, chunk):
            part = slice(begin, min(begin + chunk, active))
            rows = starts[part] + block
            acc[part] = step(
                accumulation, pair, a_codes[rows], a_scales[rows], b_codes[rows], b_scales[rows], acc[part]
            )
            result[rows] = acc[part]
    return narrowed(result, wide)


def check_inputs(parameters: dict, inputs: dict) -> None:
    """`ValueError` unless the first row of each slot starts a product: before that, sums are of no product."""
    first = np.asarray(inputs["first"]).astype(bool)
    silent = np.flatnonzero(~first[: parameters["slots"]])
    if silent.size:
        raise ValueError(f"wanted `first` on the first row of each of {parameters['slots']} slots, got none on row {silent[0]}")


def expected(parameters: dict, inputs: dict) -> dict:
    """One row for each row with `last`, in their order: `result` (M,) and, in `exact`, `is_out_of_window` (M,).

    Inputs: `first`, `last`, `a_scale`, `b_scale` (N,), `a_elements`, `b_elements` (N, block_size) [, `c` (N,) FP32 bits].
    """
    block_size = parameters["block_size"]
    wide = check_modes(parameters["accumulation"], parameters["target"], block_size)
    pair = Pair.of(parameters["a_element"], parameters["b_element"])
    operands = []
    for name in "ab":
        scales = np.asarray(inputs[f"{name}_scale"]).reshape(-1, 1)
        codes, scales = check_operand(inputs[f"{name}_elements"], scales, parameters[f"{name}_element"], block_size, name)
        operands += [codes.reshape(-1, block_size), scales.reshape(-1)]
    check_inputs(parameters, inputs)
    first, last = (np.asarray(inputs[name]).astype(bool) for name in ("first", "last"))
    c = check_addend(inputs["c"]) if parameters["addend"] else None
    # One slot after the other: the first row of each carries `first`, so that no product runs into the next slot's.
    slots = parameters["slots"]
    order = np.argsort(np.arange(len(first)) % slots, kind="stable")
    operands = [operand[order] for operand in operands]
    c = None if c is None else c[order]
    outputs = {}
    if parameters["accumulation"] == "exact":
        result, is_outside = _exact(parameters, pair, operands, first[order], last[order], c, wide)
        outputs["is_out_of_window"] = is_outside
    else:
        result = _stepwise(parameters, pair, operands, first[order], c, wide)
    outputs["result"] = result
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return {name: values[back][last] for name, values in outputs.items()}
