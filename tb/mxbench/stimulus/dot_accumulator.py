"""Block pairs for the dot accumulator."""
from dataclasses import dataclass

import numpy as np

from .floats import CODE_WIDTHS, codes, scales, wide_values

__all__ = ["blocks", "classes", "marks", "products"]

# Exponent of the last bit of a product of two elements, per element.
LSB = {"e4m3": -9, "e5m2": -16, "e3m2": -4, "e2m3": -3, "e2m1": -1, "mxint8": -6}
# Magnitudes from here on are not finite.
SPECIAL = {"e4m3": 0x7F, "e5m2": 0x7C}
MANTISSA = {"fp32": 23, "bf16": 7}


def _lengths(rows, longest, rng):
    """Rows of one product after the other: most short, some longer and a few of about ``longest``."""
    if not rows:
        return []
    lengths = []
    while sum(lengths) < rows:
        kind = rng.random()
        lengths.append(int(rng.integers(1, 5) if kind < 0.6 else rng.integers(1, min(20, longest) + 1) if kind < 0.98 else
                           rng.integers(max(1, longest - 1), longest + 3)))
    lengths[-1] -= sum(lengths) - rows
    return lengths


def _finite(element, drawn):
    sign = 1 << (CODE_WIDTHS[element] - 1)
    limit = SPECIAL.get(element)
    return drawn if limit is None else np.where((drawn & (sign - 1)) >= limit, drawn & sign, drawn).astype(np.uint8)


def _negated(element, drawn):
    if element == "mxint8":
        return (-drawn.astype(np.int16) & 0xFF).astype(np.uint8)
    return drawn ^ np.uint8(1 << (CODE_WIDTHS[element] - 1))


def _fp32(sign, exponent, mantissa):
    """FP32 bits of ``2**exponent * 1.mantissa``, as near as subnormals and the largest exponent allow."""
    field = np.clip(exponent + 127, 0, 254)
    subnormal = 1 << np.clip(exponent + 149, 0, 22)
    return ((sign << 31) | (field << 23) | np.where(field == 0, subnormal, mantissa)).astype(np.uint32)


@dataclass(frozen=True)
class Marks:
    """Which rows, slot after slot, start and end a product: ``product``, its number, ``step``, the row within it, ``first`` and
    ``last``; and how many ``products`` there are.
    """
    products: int
    product: np.ndarray
    step: np.ndarray
    first: np.ndarray
    last: np.ndarray


def marks(parameters, count, rng):
    """The `Marks` of ``count`` rows."""
    p = parameters
    slots = p["slots"]
    longest = p["max_blocks"] if p["max_blocks"] <= 64 else 40
    lengths = [n for slot in range(slots) for n in _lengths(len(range(slot, count, slots)), longest, rng)]
    product = np.repeat(np.arange(len(lengths)), lengths)
    step = np.arange(count) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    last = step == np.repeat(np.array(lengths) - 1, lengths)
    # Results on the way, and rows that go on after them.
    last |= rng.random(count) < 0.1
    goes_on = rng.random(len(lengths)) < 0.1
    edges = np.cumsum([0] + [len(range(slot, count, slots)) for slot in range(slots)])[:-1]
    first = (step == 0) & (~goes_on[product] | np.isin(np.arange(count), edges))
    return Marks(len(lengths), product, step, first, last)


def blocks(parameters, count, rng):
    """``count`` rows, of products that each follow one theme."""
    return products(parameters, marks(parameters, count, rng), rng)


def products(parameters, marks, rng):
    """Rows for `Marks`; the themes of products are:

    * wild: any codes, any scales;
    * like: finite codes, scales near each other;
    * back: like, and a block in two takes back the one before it;
    * units: blocks worth one power of two each, and so c; the powers are the same again (cancellation, carries through all
      ones and back), as far apart as a result is long (ties, and what decides them), or anywhere;
    * ends: finite codes, scales at the window's ends and one beyond;
    * zeros: zeros of both signs;
    * traces: the smallest negative blocks there are, and -0.
    """
    p = parameters
    radius, slots = p["window"], p["slots"]
    a, b = p["a_element"], p["b_element"]
    count, product, step = len(marks.step), marks.product, marks.step
    theme = rng.choice(["wild", "like", "back", "units", "ends", "zeros", "traces"], marks.products,
                       p=[.15, .25, .15, .34, .06, .03, .02])
    row_theme = theme[product]

    # The scales' exponent sum: near the product's centre, and mostly in the window.
    mantissa = MANTISSA[p["target"]]
    lsb = LSB[a] + LSB[b]
    centre = rng.integers(-radius, radius + 1, marks.products)
    # Where subnormals and overflow are, if the window reaches there.
    edge = np.array([-149, -127, -126, 127, 103, 0])[rng.integers(0, 6, marks.products)] - lsb
    centre = np.where(rng.random(marks.products) < 0.5, centre, np.clip(edge, -radius, radius))[product]
    far = np.array([0, 0, 0, 0, 1, -1, -2, -mantissa, -mantissa - 1, -mantissa - 1, -mantissa - 2, -mantissa - 3, -2 * mantissa,
                    -40, 24, 63, 64, -64])[rng.integers(0, 18, count)]
    near = np.rint(rng.normal(0, 4, count)).astype(np.int64)
    anywhere = rng.integers(-radius, radius + 1, count)
    total = centre + np.where(row_theme == "units", np.where(rng.random(count) < 0.9, far, anywhere - centre), near)
    total = np.clip(total, -radius, radius)
    ends = np.array([-radius, radius, -radius - 1, radius + 1])[rng.choice(4, count, p=[.48, .48, .02, .02])]
    total = np.where(row_theme == "ends", ends, total)
    total = np.where(row_theme == "traces", -radius, total)
    total = np.clip(254 + total, 0, 508)
    low, high = np.maximum(0, total - 254), np.minimum(254, total)
    a_scale = rng.integers(low, high + 1)
    b_scale = total - a_scale
    wild = row_theme == "wild"
    if radius == 254:
        a_scale, b_scale = np.where(wild, scales(count, rng), a_scale), np.where(wild, scales(count, rng), b_scale)
    nan_scale = rng.random(count) < 0.004
    a_scale = np.where(nan_scale, 255, a_scale).astype(np.uint8)
    b_scale = b_scale.astype(np.uint8)

    a_codes = codes(a, (count, p["block_size"]), rng)
    b_codes = codes(b, (count, p["block_size"]), rng)
    tame = ~wild & (rng.random(count) < 0.98)
    a_codes = np.where(tame[:, None], _finite(a, a_codes), a_codes)
    b_codes = np.where(tame[:, None], _finite(b, b_codes), b_codes)

    # One product of the smallest elements, plus or minus, in any lane.
    trace = row_theme == "traces"
    unit = (row_theme == "units") | trace
    lane = rng.integers(0, p["block_size"], count)
    rows = np.flatnonzero(unit)
    one = np.ones(len(rows), np.uint8)
    sign = (rng.random(len(rows)) < 0.5) | trace[rows]
    a_codes[rows], b_codes[rows] = 0, 0
    a_codes[rows, lane[rows]] = np.where(sign, _negated(a, one), one)
    b_codes[rows, lane[rows]] = 1
    zeros = np.flatnonzero(row_theme == "zeros")
    sign = np.uint8(0 if b == "mxint8" else 1 << (CODE_WIDTHS[b] - 1))
    b_codes[zeros] = sign * rng.integers(0, 2, b_codes[zeros].shape, dtype=np.uint8)

    c = wide_values("fp32", (count, 1), rng)[:, 0]
    power = total - 254 + lsb
    c_unit = _fp32(rng.integers(0, 2, count), power + np.where(rng.random(count) < 0.5, 0, far),
                   np.where(rng.random(count) < 0.5, 0, rng.integers(0, 1 << 23, count)))
    c_power = power + rng.integers(0, 44, count)
    # Most end in a narrow window.
    below = np.where(rng.random(count) < 0.9, np.clip(lsb - radius - (c_power - 23), 0, 23), 0)
    c_near = _fp32(rng.integers(0, 2, count), c_power, rng.integers(0, 1 << 23, count) >> below << below)
    kind = rng.random(count)
    c = np.where(unit, c_unit, np.where(wild & (radius == 254) | (kind < 0.05), c, np.where(kind < 0.3, 0, c_near)))
    c = np.where(trace, 0x8000_0000, c)
    c = np.where((row_theme == "zeros") | (rng.random(count) < 0.02), c & 0x8000_0000, c).astype(np.uint32)

    rows = {"first": marks.first, "last": marks.last, "a_scale": a_scale, "a_elements": a_codes, "b_scale": b_scale,
            "b_elements": b_codes}
    if p["addend"]:
        rows["c"] = c
    taken = np.flatnonzero((step % 2 == 1) & (row_theme == "back") & (rng.random(count) < 0.8))
    for name in ("a_scale", "b_scale", "a_elements", "b_elements"):
        rows[name][taken] = rows[name][taken - 1]
    b_codes[taken] = _negated(b, b_codes[taken])

    # Row k belongs to slot k mod slots.
    order = np.argsort(np.concatenate([np.arange(slot, count, slots) for slot in range(slots)]))
    rows = {name: values[order] for name, values in rows.items()}
    rows["last"][-1] = True
    return {name: values.astype(np.uint8) if values.dtype == bool else values for name, values in rows.items()}


def classes(parameters, inputs, outputs):
    """What the rows ask for, and how many results of each kind came out."""
    p = parameters
    slots = p["slots"]
    width, mantissa = {"fp32": (32, 23), "bf16": (16, 7)}[p["target"]]
    magnitude = outputs["result"] & ((1 << (width - 1)) - 1)
    exponent, fraction = magnitude >> mantissa, magnitude & ((1 << mantissa) - 1)
    top = (1 << (width - 1 - mantissa)) - 1
    first, last = inputs["first"].astype(bool), inputs["last"].astype(bool)
    total = inputs["a_scale"].astype(np.int64) + inputs["b_scale"] - 254
    has_nan_scale = (inputs["a_scale"] == 255) | (inputs["b_scale"] == 255)
    counts = {
        "results": int(np.sum(last)),
        "products that start again": int(np.sum(first)),
        "running sums that go on after a result": int(np.sum(last[:-slots] & ~first[slots:])),
        "NaN scales": int(np.sum(has_nan_scale)),
        "NaN": int(np.sum((exponent == top) & (fraction != 0))),
        "Inf": int(np.sum((exponent == top) & (fraction == 0))),
        "+0": int(np.sum(outputs["result"] == 0)),
        "-0": int(np.sum(outputs["result"] == 1 << (width - 1))),
        "negative": int(np.sum(outputs["result"] >> (width - 1) == 1)),
    }
    if p["window"] == 254:
        counts |= {
            "subnormal": int(np.sum((exponent == 0) & (fraction != 0))),
            "largest exponent": int(np.sum(exponent == top - 1)),
        }
    if p["accumulation"] == "exact":
        counts |= {
            "block at the window's low end": int(np.sum((total == -p["window"]) & ~has_nan_scale)),
            "block at the window's high end": int(np.sum((total == p["window"]) & ~has_nan_scale)),
        }
        if p["window"] < 254:
            counts["out of window"] = int(np.sum(outputs["is_out_of_window"]))
    return counts
