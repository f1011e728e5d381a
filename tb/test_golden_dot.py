"""Golden dot products against fractions, and against the published sample of results."""

from itertools import product
from pathlib import Path

import golden_reference as reference
import numpy as np
import pytest

import mxgolden
from mxgolden import dot, dot_accumulator, scaled_dot
from mxgolden.formats import ELEMENTS
from mxgolden.products import ACCUMULATIONS, Pair

DATA = Path(__file__).parent / "data"
MAIN_PAIRS = [("e4m3", "e4m3"), ("e5m2", "e5m2"), ("e4m3", "e5m2")]


def is_nan(bits):
    return (bits & 0x7FFFFFFF) > 0x7F800000


def operand(rng, element, count, blocks, block_size):
    """Codes and scales of rows in several styles."""
    f = ELEMENTS[element]
    codes = rng.integers(0, 1 << f.width, (count, blocks, block_size))
    finite = np.flatnonzero(np.isfinite(f.values))
    codes = finite[codes % len(finite)]
    # Sparse blocks, blocks of extreme and of tiny codes.
    style = rng.integers(0, 5, (count, blocks, 1))
    codes = np.where((style == 1) & (rng.random(codes.shape) < 0.9), 0, codes)
    sign = rng.integers(0, 2, codes.shape) << (f.width - 1)
    extreme = f.max_code ^ (sign if not f.is_integer else np.where(sign > 0, 0xFE, 0))
    codes = np.where(style == 2, extreme, codes)
    codes = np.where(style == 3, codes & (3 | 1 << (f.width - 1)), codes)
    special = np.flatnonzero(~np.isfinite(f.values))
    if len(special):
        row_is_special = rng.random((count, 1, 1)) < 0.12
        codes = np.where(row_is_special & (rng.random(codes.shape) < 0.04), rng.choice(special, codes.shape), codes)
    near = rng.integers(110, 145, (count, blocks))
    anywhere = rng.integers(0, 255, (count, blocks))
    ends = rng.choice([0, 1, 60, 127, 194, 253, 254], (count, blocks))
    scales = np.choose(rng.integers(0, 3, (count, 1)), [near, anywhere, ends])
    scales = np.where(rng.random(scales.shape) < 0.01, 255, scales)
    return codes.astype(np.uint8), scales.astype(np.uint8)


def rows_of(rng, a_element, b_element, count, blocks, block_size):
    """Operands and addends of rows, many of which cancel or lie at a rounding's boundary."""
    a, sa = operand(rng, a_element, count, blocks, block_size)
    b, sb = operand(rng, b_element, count, blocks, block_size)
    # Some rows cancel all but a little: the second half of the first block is minus the first.
    half = block_size // 2
    if half and not ELEMENTS[a_element].is_integer:
        cancels = rng.random(count) < 0.3
        a[cancels, 0, half : 2 * half] = a[cancels, 0, :half] ^ (1 << (ELEMENTS[a_element].width - 1))
        b[cancels, 0, half : 2 * half] = b[cancels, 0, :half]
        a[cancels & (rng.random(count) < 0.5), 1:] = 0
        b[cancels & (rng.random(count) < 0.5), 0, 0] ^= 1
    random = rng.integers(0, 1 << 32, count, dtype=np.uint64).astype(np.uint32)
    ordinary = rng.integers(0x3D000000, 0x45000000, count).astype(np.uint32) | random & np.uint32(0x80000000)
    named = rng.choice(
        np.array([0, 0x80000000, 1, 0x80000001, 0x007FFFFF, 0x00800000, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000, 0xFF800000,
                  0x7FC00000, 0x3F800000], np.uint32),
        count,
    )  # fmt: skip
    # What nearly cancels the product, or lies near a tie beside it.
    flat = (a.reshape(count, -1), sa, b.reshape(count, -1), sb)
    opposite = dot(*flat, None, a_element, b_element, block_size=block_size) ^ np.uint32(0x80000000)
    near = opposite ^ rng.integers(0, 4, count).astype(np.uint32)
    scaled = (near.astype(np.int64) + (rng.integers(-26, 27, count) << 23)).clip(0, 0xFFFFFFFF).astype(np.uint32)
    c = np.choose(rng.integers(0, 5, count), [random, ordinary, named, near, scaled])
    return flat, c.astype(np.uint32)


def as_blocks(row, codes, scales, block_size):
    return codes[row].reshape(-1, block_size).tolist(), scales[row].tolist()


def compare(flat, c, a_element, b_element, accumulation, block_size, target="fp32"):
    a, sa, b, sb = flat
    got = dot(a, sa, b, sb, c, a_element, b_element, accumulation, block_size, target)
    for row in range(len(c)):
        wanted = reference.dot(
            *as_blocks(row, a, sa, block_size),
            *as_blocks(row, b, sb, block_size),
            int(c[row]), a_element, b_element, accumulation, target,
        )  # fmt: skip
        assert int(got[row]) == wanted, (row, hex(got[row]), hex(wanted))
    return got


@pytest.mark.parametrize("accumulation", ACCUMULATIONS)
@pytest.mark.parametrize(("a_element", "b_element"), list(product(ELEMENTS, ELEMENTS)))
def test_dot_equals_fractions_for_all_pairs(a_element, b_element, accumulation):
    rng = np.random.default_rng(sum(map(ord, a_element + b_element)))
    flat, c = rows_of(rng, a_element, b_element, 60, 2, 8)
    compare(flat, c, a_element, b_element, accumulation, 8)


@pytest.mark.parametrize("accumulation", ACCUMULATIONS)
@pytest.mark.parametrize(("a_element", "b_element"), MAIN_PAIRS)
def test_dot_equals_fractions(a_element, b_element, accumulation):
    rng = np.random.default_rng(11)
    flat, c = rows_of(rng, a_element, b_element, 500, 3, 32)
    got = compare(flat, c, a_element, b_element, accumulation, 32)
    # The rows reach what they are for.
    magnitude = got & 0x7FFFFFFF
    assert is_nan(got).any()
    assert (magnitude == 0x7F800000).any()
    assert (got == 0).any()
    assert ((magnitude > 0) & (magnitude < 0x800000)).any()
    assert ((magnitude >= 0x800000) & (magnitude < 0x7F800000)).sum() > 150


@pytest.mark.parametrize("accumulation", ["exact", "fp32_fused", "fp32_chain"])
@pytest.mark.parametrize(("a_element", "b_element"), MAIN_PAIRS)
def test_bf16_results_equal_fractions(a_element, b_element, accumulation):
    rng = np.random.default_rng(12)
    flat, c = rows_of(rng, a_element, b_element, 150, 2, 8)
    got = compare(flat, c, a_element, b_element, accumulation, 8, "bf16")
    assert got.dtype == np.uint16


def test_exact_bf16_is_one_rounding():
    # 1 + 2^-8 is a tie of BF16. A block of 2^-30 tips it up, but FP32 drops that: the tie then goes down.
    codes = np.array([[0x38, 0, 0x38, 0]], np.uint8)
    scales, unit = np.array([[127, 97]], np.uint8), np.array([[127, 127]], np.uint8)
    tie = np.array([0x3B800000], np.uint32)
    operands = (codes, scales, codes, unit, tie)
    assert dot(*operands, block_size=2, target="bf16").tolist() == [0x3F81]
    assert dot(*operands, block_size=2, accumulation="fp32_fused", target="bf16").tolist() == [0x3F80]
    assert dot(*operands, block_size=2, accumulation="fp32_chain", target="bf16").tolist() == [0x3F80]


@pytest.mark.parametrize("target", ["fp32", "bf16"])
@pytest.mark.parametrize(("a_element", "b_element"), list(product(ELEMENTS, ELEMENTS)))
def test_anything_beside_a_tie_breaks_it(a_element, b_element, target):
    """Half of the smallest subnormal rounds to 0; with any smaller power of two, however far below, it rounds to 1."""
    half = {"fp32": -150, "bf16": -134}[target]
    exponents = np.arange(half - 1, -255, -1)
    one = {e: int(mxgolden.encode(1.0, e)) for e in (a_element, b_element)}
    a = np.full((len(exponents), 2), one[a_element], np.uint8)
    b = np.full((len(exponents), 2), one[b_element], np.uint8)
    sums = np.stack([np.full(len(exponents), half), exponents], axis=1) + 254
    sa = np.minimum(sums, 254).astype(np.uint8)
    sb = (sums - sa).astype(np.uint8)
    for accumulation in ("exact", "fp32_fused"):
        args = (a_element, b_element, accumulation, 1, target)
        assert (dot(a[:, :1], sa[:, :1], b[:, :1], sb[:, :1], None, *args) == 0).all()
        if accumulation == "exact":
            assert (dot(a, sa, b, sb, None, *args) == 1).all()


# --- published results


@pytest.mark.parametrize("length", [32, 64, 128])
@pytest.mark.parametrize(
    ("witness", "accumulation", "has_addend"),
    [
        ("exact_rne", "exact", True),
        ("exact_rne_noc", "exact", False),
        ("fp32chain", "fp32_chain", True),
        ("mmasim", "blackwell", True),
    ],
)
@pytest.mark.parametrize(("a_element", "b_element"), MAIN_PAIRS)
def test_sample_of_dot_products(a_element, b_element, witness, accumulation, has_addend, length):
    with np.load(DATA / "dot_sample.npz") as table:
        a, b, sa, sb, c, artifact, wanted = (
            table[f"{a_element}_{b_element}_{name}"]
            for name in ("a", "b", "sa", "sb", "c", "mmasim_zero_artifact", f"{witness}_k{length}")
        )
    blocks = length // 32
    flat = (a[:, :blocks].reshape(-1, length), sa[:, :blocks], b[:, :blocks].reshape(-1, length), sb[:, :blocks])
    got = dot(*flat, c if has_addend else None, a_element, b_element, accumulation)
    compared = np.ones(len(c), bool)
    if witness == "mmasim":
        compared = ~artifact[:, :blocks].any(axis=1)
        assert compared.sum() >= 58
    nan = is_nan(wanted)
    assert np.array_equal(is_nan(got), nan)
    assert (got[nan] == 0x7FFFFFFF).all()
    compared &= ~nan
    assert np.array_equal(got[compared], wanted[compared])


# --- named cases

ONE = 0x38
MAX = 0x7E


def block(codes):
    return np.array([codes + [0] * (32 - len(codes))], np.uint8)


def single(a, b, c=0, sa=127, sb=127, accumulation="exact", a_element="e4m3", b_element="e4m3"):
    c = np.array([c], np.uint32)
    sa, sb = np.array([[sa]], np.uint8), np.array([[sb]], np.uint8)
    return int(dot(block(a), sa, block(b), sb, c, a_element, b_element, accumulation)[0])


def test_blackwell_truncates_where_exact_rounds():
    one = 0x3F800000
    # 2^-8 * 2^-6 under scales of 2^-11 in all: one product of -2^-25.
    tiny = {"a": [0x81 + 1], "b": [0x08]}
    assert reference.element_value(0x82, "e4m3") * reference.element_value(0x08, "e4m3") == -reference.two_to(-14)
    assert single(**tiny, c=one, sa=116, accumulation="blackwell") == 0x3F7FFFFF
    assert single(**tiny, c=one, sa=116) == one
    # 32 products of -2^-26 are dropped one by one; exactly they are 2^-21.
    many = {"a": [0x82] * 32, "b": [0x08] * 32}
    assert single(**many, c=one, sa=115, accumulation="blackwell") == one
    assert single(**many, c=one, sa=115) == 0x3F7FFFF8
    # A zero product under the largest scales doesn't drop c.
    zeros = {"a": [0] * 32, "b": [MAX] * 32}
    assert single(**zeros, c=one, sa=254, sb=254, accumulation="blackwell") == one
    # A negative sum that is truncated to zero is +0; rounded exactly it keeps its sign.
    smallest = {"a": [0x81], "b": [0x01]}
    assert single(**smallest, sa=0, sb=0, accumulation="blackwell") == 0
    assert single(**smallest, sa=0, sb=0) == 0x80000000
    # C alone comes back, subnormal or not; and overflow is infinite even where a truncation would not reach it.
    for c in (0x00000001, 0x807FFFFF, 0x7F7FFFFF):
        assert single([0], [0], c=c, accumulation="blackwell") == c
    assert single([0x38] * 2, [0x38] * 2, c=0x7F7FFFFF, sa=254, accumulation="blackwell") == 0x7F800000


@pytest.mark.parametrize("accumulation", ACCUMULATIONS)
def test_specials(accumulation):
    nan, inf, minus_inf = 0x7FFFFFFF, 0x7F800000, 0xFF800000

    def e5m2(a, b, **options):
        return single(a, b, a_element="e5m2", b_element="e5m2", accumulation=accumulation, **options)

    def e4m3(a, b, **options):
        return single(a, b, accumulation=accumulation, **options)

    assert e4m3([0x7F], [0]) == nan
    assert e4m3([ONE], [0xFF]) == nan
    assert e4m3([ONE], [ONE], sa=255) == nan
    assert e4m3([0], [0], sb=255) == nan
    assert e4m3([ONE], [ONE], c=0x7F800001) == nan
    assert e4m3([ONE], [ONE], c=inf) == inf
    assert e4m3([ONE], [ONE], c=minus_inf) == minus_inf
    assert e5m2([0x7C], [0x3C]) == inf
    assert e5m2([0x7C], [0xBC]) == minus_inf
    assert e5m2([0xFC], [0xFC]) == inf
    assert e5m2([0x7C], [0x00]) == nan
    assert e5m2([0x80], [0xFC]) == nan
    assert e5m2([0x7C, 0x7C], [0x3C, 0xBC]) == nan
    assert e5m2([0x7C], [0x3C], c=minus_inf) == nan
    assert e5m2([0x7C], [0x3C], c=inf) == inf
    assert e5m2([0x7C, 0x7B], [0x3C, 0xFB], sa=254, sb=254) == inf
    assert e5m2([0x7D, 0x7C], [0x3C, 0x3C]) == nan
    assert e5m2([0x7C], [0x3C], sb=255) == nan


def test_signs_of_zero():
    zero, minus = 0, 0x80000000
    for accumulation in ACCUMULATIONS:
        # Exact zeros, of products of either sign and of cancellation.
        assert single([0x80], [ONE], accumulation=accumulation) == zero
        assert single([ONE, 0xB8], [ONE, ONE], accumulation=accumulation) == zero
        assert single([0x80], [ONE], c=minus, accumulation=accumulation) == zero
        assert single([ONE], [ONE], c=0xBF800000, accumulation=accumulation) == zero
    # A nonzero negative sum that rounds to zero: -2^-18 * 2^-254.
    for accumulation, c, wanted in [
        ("exact", zero, minus),
        ("exact", minus, minus),
        ("fp32_fused", zero, minus),
        ("fp32_fused", minus, minus),
        # The block rounds to -0, and then +0 + -0 = +0.
        ("fp32_chain", zero, zero),
        ("fp32_chain", minus, minus),
        ("blackwell", zero, zero),
        ("blackwell", minus, zero),
    ]:
        assert single([0x81], [0x01], c=c, sa=0, sb=0, accumulation=accumulation) == wanted, accumulation


def test_overflow_and_order():
    # Two blocks of 2^128 each and of opposite sign: exact cancels, modes that round at each block overflow first.
    codes = np.array([[0x48] + [0] * 31 + [0xC8] + [0] * 31], np.uint8)
    others = np.full((1, 64), 0x40, np.uint8)
    sa, sb = np.full((1, 2), 254, np.uint8), np.full((1, 2), 125, np.uint8)
    results = {m: int(dot(codes, sa, others, sb, None, accumulation=m)[0]) for m in ACCUMULATIONS}
    assert results == {
        "exact": 0,
        "fp32_fused": 0x7F800000,
        # 2^128 - 2^128 are two infinities here.
        "fp32_chain": 0x7FFFFFFF,
        "blackwell": 0x7F800000,
    }


def test_widths():
    assert Pair.of("e4m3", "e4m3").block_width(32) == 42
    assert Pair.of("e5m2", "e5m2").block_width(32) == 70
    assert Pair.of("e4m3", "e5m2").block_width(32) == 56
    assert (Pair.of("e4m3", "e4m3").lsb, Pair.of("e5m2", "e5m2").lsb, Pair.of("e4m3", "e5m2").lsb) == (-18, -32, -25)
    # The longest sums: all products the largest, in both signs, at both ends of the window.
    for sign in (0, 0x80):
        for scale in (0, 127, 254):
            a = np.full((1, 4096 * 32), 0x7B, np.uint8)
            s = np.full((1, 4096), scale, np.uint8)
            got = dot(a, s, a ^ np.uint8(sign), s, None, "e5m2", "e5m2")
            value = 57344**2 * 4096 * 32 * reference.two_to(2 * scale - 254)
            assert got == reference.round_to_wide(-value if sign else value, "fp32")
    # Window of E5M2 by E5M2: 2^-286 is not lost beside 2^290 when that cancels.
    codes = np.array([[0x7B, 0, 0xFB, 0, 0x01, 0]], np.uint8)
    others = np.array([[0x7B, 0, 0x7B, 0, 0x01, 0]], np.uint8)
    scales = np.array([[254, 254, 0]], np.uint8)
    c = np.array([0], np.uint32)
    assert dot(codes, scales, others, scales, c, "e5m2", "e5m2", block_size=2) == 0
    scales = np.array([[254, 254, 80]], np.uint8)
    assert mxgolden.decode(dot(codes, scales, others, scales, c, "e5m2", "e5m2", block_size=2), "fp32") == 2.0**-126


@pytest.mark.parametrize("accumulation", ACCUMULATIONS)
def test_leading_axes_broadcast(accumulation):
    rng = np.random.default_rng(13)
    a = rng.integers(0, 0x7F, (5, 1, 64)).astype(np.uint8)
    b = rng.integers(0, 0x7F, (7, 64)).astype(np.uint8)
    sa = rng.integers(110, 140, (5, 1, 2)).astype(np.uint8)
    sb = rng.integers(110, 140, (7, 2)).astype(np.uint8)
    c = rng.standard_normal((2, 1, 1)).astype(np.float32)
    got = dot(a, sa, b, sb, c, accumulation=accumulation)
    assert got.shape == (2, 5, 7)
    assert got.dtype == np.uint32
    for i, j, k in product(range(2), range(5), range(7)):
        one = dot(a[j, 0], sa[j, 0], b[k], sb[k], c[i, 0, 0], accumulation=accumulation)
        assert one.shape == ()
        assert one == got[i, j, k]
    assert dot(a[:0], sa[:0], b[:1], sb[:1], accumulation=accumulation).shape == (0, 1)


def test_chunks_change_nothing():
    rng = np.random.default_rng(14)
    (a, sa, b, sb), c = rows_of(rng, "e5m2", "e4m3", 3000, 2, 16)
    for accumulation in ACCUMULATIONS:
        whole = dot(a, sa, b, sb, c, "e5m2", "e4m3", accumulation, 16)
        for part in (slice(0, 1), slice(2040, 2060), slice(2999, 3000)):
            one = dot(a[part], sa[part], b[part], sb[part], c[part], "e5m2", "e4m3", accumulation, 16)
            assert np.array_equal(one, whole[part])
    # Few long rows: an exact sum doesn't know blocks.
    row = [part[:100].reshape(1, -1) for part in (a, sa, b, sb)]
    parts = dot(*(part[:100] for part in (a, sa, b, sb)), None, "e5m2", "e4m3", block_size=16)
    assert len(parts) == 100
    wanted = reference.dot(*as_blocks(0, *row[:2], 16), *as_blocks(0, *row[2:], 16), 0, "e5m2", "e4m3", "exact")
    assert dot(*row, None, "e5m2", "e4m3", block_size=16) == wanted


def test_scaled_dot_expected():
    rng = np.random.default_rng(15)
    (a, sa, b, sb), c = rows_of(rng, "e4m3", "e5m2", 50, 1, 16)
    inputs = {"a_elements": a, "a_scale": sa[:, 0], "b_elements": b, "b_scale": sb[:, 0], "c": c}
    for accumulation, addend, target in [("exact", True, "fp32"), ("exact", False, "bf16"), ("blackwell", True, "fp32")]:
        parameters = {
            "a_element": "e4m3", "b_element": "e5m2", "block_size": 16, "lanes": 8, "addend": addend,
            "accumulation": accumulation, "target": target, "stages": 2,
        }  # fmt: skip
        used = inputs if addend else {k: v for k, v in inputs.items() if k != "c"}
        out = scaled_dot.expected(parameters, used)["result"]
        wanted = dot(a, sa, b, sb, c if addend else None, "e4m3", "e5m2", accumulation, 16, target)
        assert np.array_equal(out, wanted)
        assert out.dtype == (np.uint32 if target == "fp32" else np.uint16)


# --- dot_accumulator


def stream(rng, count, slots, a_element, b_element, block_size, mean_length):
    (a, sa, b, sb), c = rows_of(rng, a_element, b_element, count, 1, block_size)
    first = rng.random(count) < 1 / mean_length
    first[:slots] = True
    return {
        "a_elements": a, "a_scale": sa[:, 0], "b_elements": b, "b_scale": sb[:, 0], "c": c,
        "first": first.astype(np.uint8), "last": (rng.random(count) < 0.4).astype(np.uint8),
    }  # fmt: skip


def slow_accumulator(parameters, inputs):
    """Row by row with fractions, as the contract says."""
    slots, window = parameters["slots"], parameters["window"]
    names = (parameters["a_element"], parameters["b_element"])
    lowest, top = dot_accumulator.accumulator_bounds(parameters)
    products = [None] * slots
    results, flags = [], []
    for k in range(len(inputs["first"])):
        row = {name: values[k].tolist() for name, values in inputs.items()}
        c = row["c"] if parameters["addend"] else 0
        if row["first"]:
            products[k % slots] = state = {"blocks": [], "c": c, "out": False}
            value = reference.wide_value(c, "fp32")
            if not isinstance(value, str) and value:
                outside = (value / reference.two_to(lowest)).denominator != 1 or abs(value) >= reference.two_to(top)
                state["out"] = outside
        state = products[k % slots]
        operands = (row["a_elements"], row["a_scale"], row["b_elements"], row["b_scale"])
        state["blocks"].append(operands)
        terms = reference.block_terms(*operands, *names)
        if not any(isinstance(t, str) for t in terms) and sum(terms):
            state["out"] |= abs(row["a_scale"] + row["b_scale"] - 254) > window
        state["out"] |= len(state["blocks"]) > parameters["max_blocks"]
        if row["last"]:
            columns = list(zip(*state["blocks"], strict=True))
            bits = reference.dot(*columns, state["c"], *names, parameters["accumulation"], parameters["target"])
            is_out = state["out"] and parameters["accumulation"] == "exact"
            results.append(reference.NAN[parameters["target"]] if is_out else bits)
            flags.append(int(is_out))
    return results, flags


@pytest.mark.parametrize("accumulation", ACCUMULATIONS)
@pytest.mark.parametrize(
    ("names", "slots", "window", "max_blocks", "addend", "target"),
    [
        (("e4m3", "e4m3"), 1, 254, 4096, True, "fp32"),
        (("e5m2", "e5m2"), 3, 254, 4096, True, "fp32"),
        (("e4m3", "e5m2"), 2, 24, 4, True, "fp32"),
        (("e4m3", "e4m3"), 4, 10, 6, False, "fp32"),
        (("mxint8", "e2m1"), 1, 20, 64, True, "fp32"),
        (("e5m2", "e4m3"), 2, 100, 8, True, "bf16"),
    ],
)
def test_dot_accumulator_equals_fractions(names, slots, window, max_blocks, addend, target, accumulation):
    if accumulation == "blackwell" and target != "fp32":
        pytest.skip("blackwell has no BF16 result")
    rng = np.random.default_rng(16)
    inputs = stream(rng, 180, slots, *names, 8, 4)
    parameters = {
        "a_element": names[0], "b_element": names[1], "block_size": 8, "lanes": 8, "addend": addend, "slots": slots,
        "accumulation": accumulation, "window": window, "max_blocks": max_blocks, "target": target,
    }  # fmt: skip
    out = dot_accumulator.expected(parameters, inputs)
    results, flags = slow_accumulator(parameters, inputs)
    assert out["result"].tolist() == results
    assert out["result"].dtype == (np.uint32 if target == "fp32" else np.uint16)
    if accumulation == "exact":
        assert out["is_out_of_window"].tolist() == flags
        assert (0 < sum(flags) < len(flags)) == (window < 254)
    else:
        assert "is_out_of_window" not in out


def accumulate(rows, **options):
    """Rows of (first, last, a code, a scale, c): one element of that value times 1 a block."""
    parameters = {
        "a_element": "e4m3", "b_element": "e4m3", "block_size": 32, "lanes": 32, "addend": True, "slots": 1,
        "accumulation": "exact", "window": 24, "max_blocks": 4096, "target": "fp32", **options,
    }  # fmt: skip
    first, last, code, scale, c = (np.array(column) for column in zip(*rows, strict=True))
    a = np.zeros((len(rows), 32), np.uint8)
    a[:, 0] = code
    b = np.full_like(a, ONE)
    out = dot_accumulator.expected(
        parameters,
        {
            "first": first.astype(np.uint8), "last": last.astype(np.uint8), "a_elements": a, "b_elements": b,
            "a_scale": scale.astype(np.uint8), "b_scale": np.full(len(rows), 127, np.uint8), "c": c.astype(np.uint32),
        },
    )  # fmt: skip
    return [hex(r) for r in out["result"]], out["is_out_of_window"].tolist()


def test_window():
    parameters = {"a_element": "e4m3", "b_element": "e4m3", "block_size": 32, "window": 24, "max_blocks": 4096}
    # 102 bits.
    assert dot_accumulator.accumulator_bounds(parameters) == (-42, 59)
    nan = "0x7fffffff"
    assert accumulate([(1, 1, ONE, 151, 0), (1, 1, ONE, 103, 0)]) == (["0x4b800000", "0x33800000"], [0, 0])
    assert accumulate([(1, 1, ONE, 152, 0), (1, 1, ONE, 102, 0)]) == ([nan, nan], [1, 1])
    assert accumulate([(1, 1, ONE, 127, 0), (1, 1, ONE, 128, 0)], window=0) == (["0x3f800000", nan], [0, 1])
    # Zero, NaN and infinite sums are never outside; out of window is kept until the next `first`, whatever comes.
    assert accumulate([(1, 1, 0, 254, 0)]) == (["0x0"], [0])
    assert accumulate([(1, 1, 0x7F, 254, 0), (1, 1, ONE, 255, 0)]) == ([nan] * 2, [0, 0])
    rows = [(1, 0, ONE, 254, 0), (0, 1, 0x7F, 127, 0), (0, 1, ONE, 127, 0), (1, 1, ONE, 127, 0)]
    assert accumulate(rows) == ([nan, nan, "0x3f800000"], [1, 1, 0])
    # Addends: the last bit at 2^-42, the first below 2^59; infinities and NaN are none of the window's business.
    ulp42 = (127 - 42) << 23
    addends = [ulp42, ulp42 - (1 << 23), 0x5CFFFFFF, 0x5D000000, 0xDD000000, 0x2B000001, 0x7F800000, 0x7F800001, 0x80000000]
    results, flags = accumulate([(1, 1, 0, 127, c) for c in addends])
    assert flags == [0, 1, 0, 1, 1, 1, 0, 0, 0]
    assert results == [hex(ulp42), nan, "0x5cffffff", nan, nan, nan, "0x7f800000", nan, "0x0"]


def test_infinities_of_different_blocks():
    inf, minus = "0x7f800000", "0xff800000"
    rows = [(1, 1, 0x7C, 127, 0), (0, 1, ONE, 127, 0), (0, 1, 0xFC, 127, 0), (1, 1, 0xFC, 127, 0), (1, 1, ONE, 127, 0)]
    results, flags = accumulate(rows, a_element="e5m2")
    assert results == [inf, inf, "0x7fffffff", minus, "0x3f000000"]
    assert flags == [0] * 5


def test_max_blocks_and_running_sums():
    rows = [(1, 0, ONE, 127, 0)] + [(0, 1, ONE, 127, 0)] * 4 + [(1, 1, ONE, 127, 0)]
    results, flags = accumulate(rows, max_blocks=4)
    assert flags == [0, 0, 0, 1, 0]
    assert results == ["0x40000000", "0x40400000", "0x40800000", "0x7fffffff", "0x3f800000"]
    # An exact running sum is not the rounded result: 1 + 2^-24 (a tie, down) + 2^-24.
    rows = [(1, 0, ONE, 127, 0), (0, 1, ONE, 103, 0), (0, 1, ONE, 103, 0)]
    assert accumulate(rows)[0] == ["0x3f800000", "0x3f800001"]


def test_streams_longer_than_a_chunk():
    rng = np.random.default_rng(17)
    inputs = stream(rng, 6000, 2, "e4m3", "e4m3", 32, 1500)
    parameters = {
        "a_element": "e4m3", "b_element": "e4m3", "block_size": 32, "lanes": 32, "addend": True, "slots": 2,
        "accumulation": "exact", "window": 254, "max_blocks": 4096, "target": "fp32",
    }  # fmt: skip
    # Ordinary values, so that all rows of a product show in its result.
    for name in ("a_elements", "b_elements"):
        inputs[name] &= 0xBF
    for name in ("a_scale", "b_scale"):
        inputs[name] = rng.integers(125, 130, 6000).astype(np.uint8)
    inputs["c"] = rng.standard_normal(6000).astype(np.float32).view(np.uint32)
    out = dot_accumulator.expected(parameters, inputs)["result"]
    assert len(np.unique(out)) > 100
    checked = 0
    ends = np.flatnonzero(inputs["last"])
    for position in range(0, len(ends), 60):
        k = ends[position]
        begin = max(j for j in range(k % 2, k + 1, 2) if inputs["first"][j])
        rows = slice(begin, k + 1, 2)
        one = dot(
            inputs["a_elements"][rows].reshape(-1), inputs["a_scale"][rows],
            inputs["b_elements"][rows].reshape(-1), inputs["b_scale"][rows], inputs["c"][begin],
        )  # fmt: skip
        assert out[position] == one
        checked += (k - begin) // 2 > 1024
    assert checked


# --- errors

C32 = np.zeros((2, 64), np.uint8)
S = np.zeros((2, 2), np.uint8)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: dot(C32[:, :40], S, C32, S), r"multiple of block_size 32, got shape \(2, 40\)"),
        (lambda: dot(C32, S[:, :1], C32, S), r"wanted a_scales of shape \(2, 2\) for codes of \(2, 64\), got \(2, 1\)"),
        (lambda: dot(C32, S, C32[:, :32], S[:, :1]), "wanted last axes of one length, got 64 of a_codes and 32 of b_codes"),
        (lambda: dot(C32, S, C32[[0, 1, 0]], S[[0, 1, 0]]), r"wanted leading axes that broadcast, got \(2,\), \(3,\)"),
        (lambda: dot(C32, S, C32, S, np.zeros(3, np.float32)), r"that broadcast, got \(2,\), \(2,\), \(3,\)"),
        (lambda: dot(C32, S, C32, S, np.zeros(2)), "wanted c as float32 or FP32 bit patterns in uint32, got float64"),
        (lambda: dot(C32, S, C32, S, accumulation="fp64"), "wanted accumulation of exact, .* got 'fp64'"),
        (lambda: dot(C32, S, C32, S, target="fp16"), "wanted target of fp32, bf16; got 'fp16'"),
        (
            lambda: dot(C32, S, C32, S, accumulation="blackwell", target="bf16"),
            "wanted target=fp32 for accumulation blackwell, got 'bf16'",
        ),
        (lambda: dot(C32, S, C32, S, a_element="e3m4"), "wanted an element format of .* got 'e3m4'"),
        (lambda: dot(C32 + np.uint8(16), S, C32, S, a_element="e2m1"), "wanted a_codes of 4 bits, got 0x10"),
        (lambda: dot(C32.astype(float), S, C32, S), "wanted a_codes as uint8, got float64"),
        (lambda: dot(C32, S, C32, S, block_size=1 << 14), "wanted a block_size of at most 8192"),
        (lambda: accumulate([(0, 1, ONE, 127, 0)]), "wanted `first` on the first row of each of 1 slots, got none on row 0"),
    ],
)
def test_errors_say_what_was_wanted(call, words):
    with pytest.raises(ValueError, match=words):
        call()
