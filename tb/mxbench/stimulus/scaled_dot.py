"""Block pairs and addends for the dot products."""
import numpy as np

from mxgolden.formats import ELEMENTS

from .floats import codes, scales, wide_values

__all__ = ["block_pairs", "block_sums", "blocks", "classes"]

MANTISSA = {"fp32": 23, "bf16": 7}


def _finite(element):
    """Codes of finite values, by integer."""
    table = ELEMENTS[element]
    finite = np.flatnonzero(np.isfinite(table.values))
    return finite[np.argsort(np.abs(table.integers[finite]), kind="stable")]


def _powers(element):
    """Codes of the positive powers of two, ascending."""
    integers = ELEMENTS[element].integers
    return np.array([c for c in _finite(element) if integers[c] > 0 and integers[c] & (integers[c] - 1) == 0])


def _draw(values, shape, rng):
    return values[rng.integers(0, len(values), shape)]


def block_pairs(parameters, count, rng):
    """``(a_elements, a_scale, b_elements, b_scale)`` of ``count`` block pairs, of all kinds mixed."""
    names = parameters["a_element"], parameters["b_element"]
    size = parameters["block_size"]
    finite = [_finite(name) for name in names]
    powers = [_powers(name) for name in names]
    lsb = sum(ELEMENTS[name].lsb for name in names)
    shape = (count, size)
    kind = rng.integers(0, 12, count)

    def pick(which, sides):
        for n in range(2):
            elements[n][which] = sides[n][which].astype(np.uint8)

    # 0, 1: anything goes; 2, 3: finite codes.
    elements = [codes(name, shape, rng) for name in names]
    pick((kind == 2) | (kind == 3), [_draw(f, shape, rng) for f in finite])
    # 4: products of like size, so that sums have few bits.
    start = [rng.integers(0, max(1, len(f) - 24), (count, 1)) for f in finite]
    pick(kind == 4, [f[s + rng.integers(0, min(24, len(f)), shape)] for f, s in zip(finite, start, strict=True)])
    # 5: the largest only; 6: the smallest.
    for which, part in (5, [f[-2:] for f in finite]), (6, [f[:8] for f in finite]):
        pick(kind == which, [_draw(p, shape, rng) for p in part])
    # 7: terms in pairs that cancel, but for one in some blocks.
    sides = [_draw(f, shape, rng) for f in finite]
    half = size // 2
    for n, table in enumerate(ELEMENTS[name] for name in names):
        sides[n][:, half:2 * half] = sides[n][:, :half]
        if n == 0 and half:
            negated = {table.values[c]: c for c in finite[0]}
            opposite = np.array([negated.get(-table.values[c], c) if np.isfinite(table.values[c]) else c
                                 for c in range(1 << table.width)])
            sides[0][:, half:2 * half] = opposite[sides[0][:, :half]]
    pick(kind == 7, sides)
    off = (kind == 7) & (rng.random(count) < 0.5)
    elements[0][off, 0] = _draw(finite[0][:4], int(off.sum()), rng)
    elements[1][off, 0] = _draw(finite[1][:4], int(off.sum()), rng)
    # 8: zeros; 9: a single product, in any lane.
    zero = [_draw(f[:1] if ELEMENTS[n].is_integer else np.array([0, 1 << (ELEMENTS[n].width - 1)]), shape, rng)
            for n, f in zip(names, finite, strict=True)]
    pick((kind == 8) | (kind == 9), zero)
    single = np.flatnonzero(kind == 9)
    lane = rng.integers(0, size, len(single))
    for n in range(2):
        elements[n][single, lane] = _draw(finite[n], len(single), rng)
    # 10, 11: a power of two, alone or with the smallest product, or with others a given distance below: ties.
    pick(kind >= 10, zero)
    few = np.flatnonzero(kind >= 10)
    place = rng.permuted(np.tile(np.arange(size), (len(few), 1)), axis=1)
    for n in range(2):
        elements[n][few, place[:, 0]] = _draw(powers[n][-6:] if n else finite[0], len(few), rng)
        if size > 2:
            elements[n][few, place[:, 1]] = _draw(powers[n], len(few), rng)
            with_least = few[rng.random(len(few)) < 0.6]
            at = place[np.isin(few, with_least), 2]
            least = np.concatenate([powers[n][:1], finite[n][finite[n] >= 1 << (ELEMENTS[names[n]].width - 1)][1:2]])
            elements[n][with_least, at] = _draw(least, len(with_least), rng)

    a_scale, b_scale = scales(count, rng), scales(count, rng)
    # Results at the ends of FP32: of subnormals, and of everything.
    total = np.where(rng.random(count) < 0.5, -149 - lsb, 128 - lsb) + 254 - rng.integers(-4, 80, count)
    near = (rng.random(count) < 0.25) & (total >= 0) & (total <= 508)
    first = np.clip(rng.integers(0, 255, count), total - 254, np.minimum(total, 254))
    a_scale = np.where(near, first, a_scale)
    b_scale = np.where(near, total - first, b_scale)
    return elements[0], a_scale.astype(np.uint8), elements[1], b_scale.astype(np.uint8)


def block_sums(parameters, a_elements, b_elements):
    """Exact sums of products as Python integers, on the last place of the product of the smallest subnormals."""
    a = ELEMENTS[parameters["a_element"]].integers[a_elements]
    b = ELEMENTS[parameters["b_element"]].integers[b_elements]
    high, low = np.einsum("ij,ij->i", a, b >> 16), np.einsum("ij,ij->i", a, b & 0xFFFF)
    return [(int(h) << 16) + int(n) for h, n in zip(high, low, strict=True)]


def _bits(value):
    """FP32 bits of an integer times a power of two, (integer, exponent)."""
    integer, exponent = value
    excess = max(0, abs(integer).bit_length() - 60)
    with np.errstate(over="ignore", under="ignore"):
        return int(np.float32(np.ldexp(float(integer >> excess), exponent + excess)).view(np.uint32))


def _addend(kind, total, exponent, mantissa, rng):
    """An addend, as FP32 bits, that is hard for ``total * 2**exponent``."""
    length = abs(total).bit_length()
    if kind == 0:
        # At, far above or far below the sum.
        place = exponent + length - 24 + int(rng.integers(-60, 60))
        return _bits((int(rng.integers(1 << 23, 1 << 24)) * int(rng.choice([-1, 1])), place))
    if kind == 1:
        # What cancels the sum, but for its last places.
        bits = _bits((-total, exponent))
        return (bits & 0x80000000) | min(max((bits & 0x7FFFFFFF) + int(rng.integers(-1, 2)), 0), 0x7F7FFFFF)
    if kind == 2:
        # Brings the sum to half of the result's last place, or one of its own last places beside that.
        step = max(length - mantissa - 1, 1 - exponent - 127 - mantissa - 22, 1)
        rest = (1 << (step - 1)) - total % (1 << step) + int(rng.integers(-1, 2))
        return _bits((rest, exponent))
    # The sum's leading bit is half of the last place of C.
    place = exponent + length + (23 - mantissa)
    low = 1 << (23 - mantissa - 1) if mantissa < 23 and rng.random() < 0.5 else 0
    significand = (int(rng.integers(1 << mantissa, 2 << mantissa)) << (23 - mantissa)) | low
    if low:
        # C itself stands on a tie of the result: the sum only tips it.
        place += int(rng.integers(0, 60))
    if rng.random() < 0.3:
        significand = 1 << 23
    if rng.random() < 0.2:
        significand = (1 << 24) - (1 << (23 - mantissa))
    return _bits((significand * int(rng.choice([-1, 1])), place - (23 - mantissa)))


def blocks(parameters, count, rng):
    """``count`` block pairs, with addends that cancel, tie, dominate or vanish."""
    a_elements, a_scale, b_elements, b_scale = block_pairs(parameters, count, rng)
    inputs = {"a_scale": a_scale, "a_elements": a_elements, "b_scale": b_scale, "b_elements": b_elements}
    if not parameters["addend"]:
        return inputs
    c = wide_values("fp32", (count,), rng)
    ends = np.array([0, 0x80000000, 1, 0x80000001, 0x007FFFFF, 0x00800000, 0x80800000, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F000000,
                     0x7F800000, 0xFF800000, 0x7F800001, 0x7FC00000, 0xFFFFFFFF, 0x3F800000, 0xBF800000], dtype=np.uint32)
    kind = rng.integers(0, 10, count)
    c = np.where(kind < 2, _draw(ends, count, rng), c)
    hard = np.flatnonzero(kind > 3)
    lsb = sum(ELEMENTS[parameters[f"{side}_element"]].lsb for side in "ab")
    exponents = a_scale.astype(np.int64) + b_scale - 254 + lsb
    mantissa = MANTISSA[parameters["target"]]
    sums = block_sums(parameters, a_elements[hard], b_elements[hard])
    for row, total in zip(hard, sums, strict=True):
        if total:
            c[row] = _addend(int(rng.integers(0, 4)), total, int(exponents[row]), mantissa, rng)
    inputs["c"] = c.astype(np.uint32)
    return inputs


def _exact(total, exponent, c):
    """``total * 2**exponent + c`` as (integer, exponent); c in FP32 bits, finite."""
    field, fraction = (c >> 23) & 0xFF, c & 0x7FFFFF
    significand = (fraction | (0x800000 if field else 0)) * (-1 if c >> 31 else 1)
    if not significand:
        return total, exponent
    place = max(field, 1) - 150
    least = min(exponent, place)
    return (total << (exponent - least)) + (significand << (place - least)), least


def _rounding(integer, exponent, mantissa):
    """How an exact number stands to the places of the result: exact, tie, beside a tie, or nothing special."""
    length = abs(integer).bit_length()
    step = max(exponent + length - 1 - mantissa, -126 - mantissa) - exponent
    if step <= 0:
        return "exact"
    rest = abs(integer) & ((1 << step) - 1)
    half = 1 << (step - 1)
    if rest == half:
        return "tie, to even downwards" if (abs(integer) >> step) % 2 == 0 else "tie, to even upwards"
    if rest == half - 1 or rest == half + 1:
        return "one last place below a tie" if rest < half else "one last place above a tie"
    return "exact" if rest == 0 else "inexact"


def classes(parameters, inputs, outputs):
    """How many blocks of each kind there were."""
    mantissa = MANTISSA[parameters["target"]]
    result = outputs["result"].astype(np.int64)
    sign = 1 << (mantissa + 8)
    magnitude = result & (sign - 1)
    inf = 255 << mantissa
    a, b = (ELEMENTS[parameters[f"{side}_element"]] for side in "ab")
    a_values, b_values = a.values[inputs["a_elements"]], b.values[inputs["b_elements"]]
    c = inputs["c"].astype(np.int64) if parameters["addend"] else np.zeros(len(result), np.int64)
    nan_scale = (inputs["a_scale"] == 255) | (inputs["b_scale"] == 255)
    finite = np.isfinite(a_values).all(axis=1) & np.isfinite(b_values).all(axis=1) & ~nan_scale & ((c >> 23) % 256 != 255)
    counts = {
        "NaN": int(np.sum(magnitude > inf)),
        "NaN scale": int(np.sum(nan_scale)),
        "overflow to Inf": int(np.sum(finite & (magnitude == inf))),
        "+0": int(np.sum(result == 0)),
        "subnormal": int(np.sum((magnitude > 0) & (magnitude < 1 << mantissa))),
        "smallest normal": int(np.sum(magnitude == 1 << mantissa)),
        "largest binade": int(np.sum(magnitude >> mantissa == 254)),
    }
    if parameters["accumulation"] == "exact":
        counts["underflow to -0"] = int(np.sum(result == sign))
    if a.inf_code is not None or b.inf_code is not None:
        with np.errstate(invalid="ignore"):
            products = a_values * b_values
        counts |= {
            "Inf from elements": int(np.sum(~finite & (magnitude == inf))),
            "Inf times zero": int(np.sum((np.isnan(products) & ~np.isnan(a_values) & ~np.isnan(b_values)).any(axis=1))),
        }
        if parameters["block_size"] > 1:
            counts["infinities of both signs"] = int(np.sum((products == np.inf).any(axis=1) & (products == -np.inf).any(axis=1)))
    if parameters["addend"]:
        counts |= {
            "C is NaN": int(np.sum(c & 0x7FFFFFFF > 0x7F800000)), "C is Inf": int(np.sum(c & 0x7FFFFFFF == 0x7F800000)),
            "C is +0": int(np.sum(c == 0)), "C is -0": int(np.sum(c == 0x80000000)),
            "C is subnormal": int(np.sum((c & 0x7FFFFFFF > 0) & (c & 0x7FFFFFFF < 0x800000))),
        }

    exponents = inputs["a_scale"].astype(np.int64) + inputs["b_scale"] - 254 + a.lsb + b.lsb
    named = ["zero block", "sum of one last place"]
    if parameters["block_size"] > 1:
        named.append("sum cancels to zero")
    if parameters["addend"]:
        named += ["sum and C cancel to zero", "C alone counts", "C vanishes", "C and sum of opposite sign"]
    if parameters["accumulation"] == "exact":
        named += ["tie, to even downwards", "tie, to even upwards", "one last place below a tie", "one last place above a tie"]
    counts |= dict.fromkeys(named, 0)
    rows = np.flatnonzero(finite)
    has_terms = ((a_values != 0) & (b_values != 0)).any(axis=1)
    sums = block_sums(parameters, inputs["a_elements"][rows], inputs["b_elements"][rows])
    hits = []
    for row, total in zip(rows, sums, strict=True):
        addend = int(c[row])
        integer, least = _exact(total, int(exponents[row]), addend)
        if not total:
            hits.append("sum cancels to zero" if has_terms[row] else "zero block")
        elif abs(total) == 1:
            hits.append("sum of one last place")
        if parameters["addend"] and total and addend & 0x7FFFFFFF:
            alone, least_alone = _exact(total, int(exponents[row]), 0)
            length, alone_length = abs(integer).bit_length() + least, abs(alone).bit_length() + least_alone
            c_length = max((addend >> 23) & 0xFF, 1) - 126
            if not integer:
                hits.append("sum and C cancel to zero")
            if c_length > alone_length + 26:
                hits.append("C alone counts")
            elif c_length < alone_length - 26:
                hits.append("C vanishes")
            if (total < 0) != bool(addend >> 31) and length:
                hits.append("C and sum of opposite sign")
        if integer and parameters["accumulation"] == "exact":
            hits.append(_rounding(integer, least, mantissa))
    for hit in hits:
        if hit in counts:
            counts[hit] += 1
    return counts
