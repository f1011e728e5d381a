"""Golden quantize and dequantize against real arithmetic, published tables, ml_dtypes and gfloat."""

import json
from pathlib import Path

import gfloat
import gfloat.formats
import golden_reference as reference
import ml_dtypes
import numpy as np
import pytest

import mxgolden
from mxgolden import block_amax, dequantize, dequantizer, element_cast, quantize, quantizer, scale_select
from mxgolden.formats import ELEMENTS, WIDE
from mxgolden.scales import SCALE_RULES

DATA = Path(__file__).parent / "data"
DTYPES = {"fp32": np.uint32, "bf16": np.uint16, "fp16": np.uint16}


def boundary_values(source, rng, shape):
    """Random bits of a source format, mantissas mostly at or beside a place where a rounding or a scale rule turns."""
    wide = WIDE[source]
    mantissa_width = wide.mantissa_width
    tops = rng.integers(0, 32, shape) << (mantissa_width - 5)
    mantissas = (tops + rng.integers(-1, 2, shape)) & ((1 << mantissa_width) - 1)
    mantissas = np.where(rng.random(shape) < 0.3, rng.integers(0, 1 << mantissa_width, shape), mantissas)
    exponents = rng.integers(0, wide.inf_code >> mantissa_width, shape)
    signs = rng.integers(0, 2, shape) << (wide.width - 1)
    return (signs | exponents << mantissa_width | mantissas).astype(wide.dtype)


def boundary_blocks(source, rng, count, block_size):
    """Blocks whose exponents lie near each other, so that elements reach all codes; some with zeros and specials."""
    wide = WIDE[source]
    mantissa_width = wide.mantissa_width
    bits = boundary_values(source, rng, (count, block_size)).astype(np.int64)
    top = wide.inf_code >> mantissa_width
    centre = rng.choice([0, 1, 2, 5, 12, 20, top // 2, top - 3, top - 1], (count, 1))
    exponents = np.clip(centre - rng.integers(0, 22, bits.shape), 0, top - 1)
    bits = bits & ~(top << mantissa_width) | exponents << mantissa_width
    zero = rng.random(bits.shape) < 0.05
    bits = np.where(zero, bits & wide.sign_code, bits)
    special = (rng.random((count, 1)) < 0.15) & (rng.random(bits.shape) < 0.15)
    chosen = rng.choice([wide.inf_code, wide.inf_code + 1, wide.nan_code], bits.shape)
    bits = np.where(special, chosen | bits & wide.sign_code, bits)
    bits[:2] = [[0], [wide.sign_code]]
    return bits.astype(wide.dtype)


# --- scales

EXCEPTION = {"e4m3": 0x04600001, "e5m2": 0x07E00001}


def select(amaxes, source="fp32", element="e4m3", rule="rceil", policy="block"):
    parameters = {"source": source, "element": element, "scale_rule": rule, "nan_policy": policy, "lanes": 1}
    amaxes = np.asarray(amaxes, DTYPES[source]).reshape(-1, 1)
    return scale_select.expected(parameters, {"amaxes": amaxes})["scales"][:, 0]


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("rule", SCALE_RULES)
@pytest.mark.parametrize("source", WIDE)
def test_scale_rules_equal_real_arithmetic(source, rule, element):
    rng = np.random.default_rng(3)
    sign = WIDE[source].sign_code - 1
    amaxes = (boundary_values(source, rng, 250) & sign).tolist()
    mantissa_width = WIDE[source].mantissa_width
    for exponent in (0, 1, 2, 3, 8, 9, 14, 15, 16, (WIDE[source].inf_code >> mantissa_width) - 1):
        for top in (0, 0x400000, 0x600000, 0x700000, 0x780000, 0x7C0000, 0x7E0000, 0x7F0000, 0x7FFFFF):
            for delta in (-1, 0, 1):
                mantissa = (top >> (23 - mantissa_width)) + delta
                if 0 <= mantissa < 1 << mantissa_width:
                    amaxes.append(exponent << mantissa_width | mantissa)
    if source == "fp32":
        amaxes += [a + d for a in EXCEPTION.values() for d in (-1, 0, 1)]
    wanted = [reference.scale(reference.wide_value(a, source), rule, element) for a in amaxes]
    assert select(amaxes, source, element, rule).tolist() == wanted
    if ELEMENTS[element].has_nan:
        assert select(amaxes, source, element, rule, "element").tolist() == wanted


@pytest.mark.parametrize("element", ["e4m3", "e5m2"])
def test_rceil_is_the_rounded_quotient_rounded_up(element):
    """The published formula: amax times fp32(1 / max), rounded to FP32, then up to a power of two; one exception each."""
    amaxes = np.concatenate(
        [np.arange(0, 0x7F800000, 997, dtype=np.uint32), np.arange(0x04500000, 0x04700000, dtype=np.uint32)]
    )
    quotients = amaxes.view(np.float32) * np.float32(1 / ELEMENTS[element].max_finite)
    wanted = select(quotients.view(np.uint32), rule="unit")
    assert np.array_equal(select(amaxes, element=element), wanted)
    # The plain integer rule says 1 for the exception, 0 just below it, and 1 just above.
    e = EXCEPTION[element]
    assert select([e - 1, e, e + 1], element=element).tolist() == [0, 0, 1]
    assert (np.float32(1 / ELEMENTS[element].max_finite) * np.array([e], np.uint32).view(np.float32)) == 2.0**-127


@pytest.mark.slow
@pytest.mark.parametrize("element", ["e4m3", "e5m2"])
def test_rceil_is_the_rounded_quotient_rounded_up_for_all_amaxes(element):
    for start in range(0, 0x7F800000, 1 << 24):
        amaxes = np.arange(start, min(start + (1 << 24), 0x7F800000), dtype=np.uint32)
        quotients = amaxes.view(np.float32) * np.float32(1 / ELEMENTS[element].max_finite)
        assert np.array_equal(select(amaxes, element=element), select(quotients.view(np.uint32), rule="unit"))


def test_scales_at_the_ends():
    largest = 0x7F7FFFFF
    tops = {rule: [int(select([largest], element=e, rule=rule)[0]) for e in ELEMENTS] for rule in SCALE_RULES}
    # e4m3, e5m2, e3m2, e2m3, e2m1, mxint8
    assert tops == {
        "rceil": [247, 240, 251, 253, 253, 254],
        "floor": [246, 239, 250, 252, 252, 254],
        "ceil": [247, 240, 251, 253, 253, 254],
        "even": [247, 240, 251, 253, 253, 254],
        "floor_plus_1": [247, 240, 251, 253, 253, 254],
        "unit": [254] * 6,
    }
    for rule in SCALE_RULES:
        for element in ELEMENTS:
            zero, tiny, half, above, largest = select([0, 1, 0x400000, 0x400001, 0x7FFFFF], element=element, rule=rule)
            assert zero == tiny == half == 0
            assert above == largest == (rule == "unit")
    # Where each rule turns, in the binade of 1.
    one = 0x3F800000
    for element, rule, mantissa in [
        ("e4m3", "rceil", 0x600000),
        ("e5m2", "rceil", 0x600000),
        ("e3m2", "rceil", 0x600000),
        ("e2m3", "rceil", 0x700000),
        ("e2m1", "rceil", 0x400000),
        ("mxint8", "rceil", 0x7E0000),
        ("e4m3", "even", 0x780000 - 1),
        ("e5m2", "even", 0x700000 - 1),
        ("e4m3", "ceil", 0),
    ]:
        below, above = select([one + mantissa, one + mantissa + 1], element=element, rule=rule)
        assert above == below + 1 == 127 - ELEMENTS[element].emax + 1
    # A reference kernel computes 1 here from a rounded quotient; the rule says 0.
    assert select([0x047FFFFF], rule="floor") == 0


@pytest.mark.parametrize("source", WIDE)
def test_scales_of_specials(source):
    inf = WIDE[source].inf_code
    for rule in SCALE_RULES:
        assert select([inf, inf + 1, WIDE[source].nan_code], source, "e4m3", rule).tolist() == [255, 255, 255]
        assert select([inf, inf + 1], source, "e4m3", rule, "element").tolist() == [254, 255]


# --- quantize

COMBINATIONS = [
    ("fp32", "e4m3", "rceil", "block", "saturate", 32),
    ("fp32", "e4m3", "floor", "element", "ieee", 16),
    ("fp32", "e5m2", "floor", "element", "ieee", 32),
    ("fp32", "e5m2", "rceil", "block", "ieee", 4),
    ("fp32", "e5m2", "even", "element", "saturate", 8),
    ("fp32", "e4m3", "unit", "element", "saturate", 8),
    ("fp32", "e3m2", "rceil", "block", "saturate", 8),
    ("fp32", "e2m3", "floor", "block", "saturate", 8),
    ("fp32", "e2m1", "even", "block", "saturate", 16),
    ("fp32", "mxint8", "rceil", "block", "saturate", 8),
    ("fp32", "mxint8", "floor_plus_1", "block", "saturate", 3),
    ("bf16", "e4m3", "rceil", "element", "saturate", 32),
    ("bf16", "e5m2", "ceil", "block", "ieee", 8),
    ("bf16", "mxint8", "unit", "block", "saturate", 8),
    ("bf16", "e2m1", "floor", "block", "saturate", 5),
    ("fp16", "e4m3", "floor", "block", "ieee", 32),
    ("fp16", "e5m2", "rceil", "element", "saturate", 8),
    ("fp16", "e2m3", "even", "block", "saturate", 64),
    ("fp16", "e3m2", "floor_plus_1", "block", "saturate", 1),
]


@pytest.mark.parametrize("rounding", ["rne", "stochastic"])
@pytest.mark.parametrize(("source", "element", "rule", "policy", "overflow", "block_size"), COMBINATIONS)
def test_quantize_equals_real_arithmetic(source, element, rule, policy, overflow, block_size, rounding):
    rng = np.random.default_rng(4)
    bits = boundary_blocks(source, rng, 2400 // block_size + 2, block_size)
    randoms = None
    if rounding == "stochastic":
        randoms = np.where(rng.random(bits.shape) < 0.5, rng.choice([0, 1, 0x7FFF, 0x8000, 0xFFFF], bits.shape), 0)
        randoms = (randoms + rng.integers(0, 3, bits.shape)).astype(np.uint16)
    scales, codes = quantize(bits, source, element, block_size, rule, policy, rounding, overflow, randoms)
    for i, block in enumerate(bits.tolist()):
        wanted = reference.quantize_block(
            block, source, element, rule, policy, overflow, None if randoms is None else randoms[i].tolist()
        )
        assert (int(scales[i, 0]), codes[i].tolist()) == wanted, i
    parameters = {
        "source": source, "element": element, "block_size": block_size, "scale_rule": rule, "nan_policy": policy,
        "rounding": rounding, "overflow": overflow, "lanes": block_size, "stages": 0,
    }  # fmt: skip
    inputs = {"values": bits} if randoms is None else {"values": bits, "random": randoms}
    out = quantizer.expected(parameters, inputs)
    assert np.array_equal(out["scale"], scales[:, 0])
    assert np.array_equal(out["elements"], codes)
    # The quantizer is its three parts in a row.
    amax = block_amax.expected(parameters, inputs)["amax"]
    assert amax.dtype == DTYPES[source]
    scale = scale_select.expected(parameters, {"amaxes": amax.reshape(-1, 1)})["scales"][:, 0]
    assert np.array_equal(scale, out["scale"])
    cast = element_cast.expected(parameters, {"scale": scale, **inputs})["elements"]
    assert np.array_equal(cast, codes)


@pytest.mark.parametrize("rounding", ["rne", "stochastic"])
@pytest.mark.parametrize("element", ELEMENTS)
def test_element_cast_under_any_scale_equals_real_arithmetic(element, rounding):
    rng = np.random.default_rng(5)
    overflow = "ieee" if ELEMENTS[element].has_nan else "saturate"
    bits = boundary_blocks("fp32", rng, 300, 8)
    # Scales that bring the values to all parts of the element's range, and the ends.
    exponents = ((bits[:, 0] >> 23) & 0xFF).astype(np.int64)
    scales = np.clip(exponents - rng.integers(-20, 20, len(bits)), 0, 254)
    scales = np.where(rng.random(len(bits)) < 0.2, rng.choice([0, 1, 10, 11, 17, 18, 254, 255], len(bits)), scales)
    parameters = {"source": "fp32", "element": element, "rounding": rounding, "overflow": overflow, "lanes": 8}
    inputs = {"scale": scales.astype(np.uint8), "values": bits}
    if rounding == "stochastic":
        inputs["random"] = rng.integers(0, 1 << 16, bits.shape).astype(np.uint16)
    got = element_cast.expected(parameters, inputs)["elements"].tolist()
    for i, row in enumerate(bits.tolist()):
        scale = int(scales[i])
        for j, b in enumerate(row):
            value = reference.wide_value(b, "fp32")
            if scale == 255:
                value = "nan"
            elif not isinstance(value, str):
                value *= reference.two_to(127 - scale)
            random = int(inputs["random"][i, j]) if "random" in inputs else None
            assert got[i][j] == reference.round_to_element(value, b >> 31, element, overflow, random), (i, j)


def test_subnormal_inputs_are_kept():
    # Under scale 0 an FP32 subnormal reaches an element; smallest: half of 2^-9 above 2^-137.
    parameters = {"source": "fp32", "element": "e4m3", "rounding": "rne", "overflow": "saturate", "lanes": 4}
    values = np.array([[1 << 12, (1 << 12) + 1, 1 << 13, 0x80000000 | 1 << 22]], np.uint32)
    got = element_cast.expected(parameters, {"scale": np.zeros(1, np.uint8), "values": values})["elements"]
    assert got.tolist() == [[0x00, 0x01, 0x01, 0xB8]]
    # An amax for which one library divides by 2^-126 instead.
    scales, codes = quantize(np.array([0x8012209E] * 32, np.uint32))
    assert (scales[0], codes[0]) == (0, 0xA9)


def test_all_zero_blocks_keep_the_signs_of_zero():
    bits = np.array([0, 0x80000000] * 16, np.uint32)
    for rule in SCALE_RULES:
        scales, codes = quantize(bits, scale_rule=rule)
        assert scales.tolist() == [0]
        assert codes.tolist() == [0x00, 0x80] * 16
    assert quantize(bits, element="mxint8")[1].tolist() == [0] * 32


def test_nan_policies():
    block = np.ones(32, np.float32)
    block[3] = np.inf
    block[5] = -np.finfo(np.float32).max
    scales, codes = quantize(block)
    assert scales.tolist() == [255]
    assert codes.tolist() == [0x7F] * 32
    scales, codes = quantize(block, element="e2m1")
    assert scales.tolist() == [255]
    assert codes.tolist() == [0] * 32
    # Infinity in the block under `element`: 2^127, by which the largest finite value is -2.0.
    scales, codes = quantize(block, nan_policy="element")
    assert scales.tolist() == [254]
    assert codes.tolist() == [0, 0, 0, 0x7E, 0, 0xC0] + [0] * 26
    assert quantize(block, nan_policy="element", overflow="ieee")[1][3] == 0x7F
    assert quantize(-block, "fp32", "e5m2", nan_policy="element", overflow="ieee")[1][3] == 0xFC
    block = np.full(32, -np.nan, np.float32)
    scales, codes = quantize(block, nan_policy="element")
    assert scales.tolist() == [0]
    assert codes.tolist() == [0x7F] * 32
    block[0] = 448
    scales, codes = quantize(block, nan_policy="element")
    assert scales.tolist() == [127]
    assert codes.tolist() == [0x7E] + [0x7F] * 31


def test_published_mistakes_are_not_ours():
    """Values at which named libraries depart from the rules."""
    # rceil by ceil(log2()): the mantissas just above the threshold.
    assert select([0x50E00001, 0x50E00004]).tolist() == [154, 154]
    # Threshold >= instead of >: exactly 448 * 2^k.
    assert select([0x32E0], "bf16") == 93
    # floor(log2()) in the input's precision.
    assert select([0x09E5], "bf16", rule="floor") == 11
    # round-to-even by adding a half in FP32: just under a half.
    parameters = {"source": "fp32", "element": "e4m3", "rounding": "rne", "overflow": "saturate", "lanes": 1}
    inputs = {"scale": np.array([111], np.uint8), "values": np.array([[0xB27FFFFF]], np.uint32)}
    assert element_cast.expected(parameters, inputs)["elements"] == 0x80


@pytest.mark.parametrize("element", ["e4m3", "e5m2", "e3m2", "e2m3", "e2m1"])
def test_floor_equals_gfloat_block_quantization(element):
    fi = getattr(gfloat.formats, f"format_info_mx{'fp8' if element in ('e4m3', 'e5m2') else 'fp6'}_{element}", None)
    fi = fi or gfloat.formats.format_info_mxfp4_e2m1
    rng = np.random.default_rng(6)
    bits = boundary_blocks("fp32", rng, 60, 32)
    bits = bits[np.isfinite(bits.view(np.float32)).all(axis=-1)]
    scales, codes = quantize(bits, element=element, scale_rule="floor")
    mine = mxgolden.decode(codes, element) * mxgolden.decode(scales, "e8m0")
    for block, wanted in zip(bits.view(np.float32).astype(np.float64), mine, strict=True):
        theirs = gfloat.quantize_block(fi, block, gfloat.compute_scale_amax)
        assert np.array_equal(theirs, wanted)


@pytest.mark.parametrize("element", ["e4m3", "e5m2"])
def test_stochastic_equals_gfloat(element):
    fi = gfloat.formats.format_info_ocp_e4m3 if element == "e4m3" else gfloat.formats.format_info_ocp_e5m2
    rng = np.random.default_rng(7)
    values = np.ldexp(rng.standard_normal(4000).astype(np.float32), rng.integers(-18, 17, 4000)).astype(np.float32)
    randoms = rng.integers(0, 1 << 16, 4000).astype(np.uint16)
    parameters = {"source": "fp32", "element": element, "rounding": "stochastic", "overflow": "saturate", "lanes": 4000}
    inputs = {"scale": np.array([127], np.uint8), "values": values.view(np.uint32)[None], "random": randoms[None]}
    mine = element_cast.expected(parameters, inputs)["elements"][0]
    theirs = gfloat.round_ndarray(
        fi, values.astype(np.float64), gfloat.RoundMode.StochasticFastest, True, randoms.astype(np.int64), 16
    )
    assert np.array_equal(mxgolden.decode(mine, element), theirs)


def test_shapes_and_sources_agree():
    rng = np.random.default_rng(8)
    x = rng.standard_normal((3, 5, 96)).astype(np.float32)
    scales, codes = quantize(x)
    assert scales.shape == (3, 5, 3)
    assert codes.shape == x.shape
    assert scales.dtype == codes.dtype == np.uint8
    for a, b in zip(quantize(x.view(np.uint32)), (scales, codes), strict=True):
        assert np.array_equal(a, b)
    # Neither the order in memory nor the place in a chunk matters.
    for a, b in zip(quantize(np.asfortranarray(x)), (scales, codes), strict=True):
        assert np.array_equal(a, b)
    assert np.array_equal(quantize(x[1, 2])[1], codes[1, 2])
    many = np.tile(x.reshape(-1), 200)
    assert np.array_equal(quantize(many)[1], np.tile(codes.reshape(-1), 200))
    # BF16 and FP16 values are FP32 values.
    for source, dtype in (("bf16", ml_dtypes.bfloat16), ("fp16", np.float16)):
        narrow = x.astype(dtype)
        for a, b in zip(quantize(narrow.view(np.uint16), source), quantize(narrow.astype(np.float32)), strict=True):
            assert np.array_equal(a, b)
    assert quantize(np.zeros((0, 32), np.float32))[0].shape == (0, 1)
    x[0, 0, 0] = np.nan
    before = x.copy()
    quantize(x, nan_policy="element")
    assert np.array_equal(x.view(np.uint32), before.view(np.uint32))


def outlier(element, block_size):
    x = np.array([0.5, -1.2, 0.8, 250.0, -0.9, 1.5, -0.2, 0.6], np.float32)
    scales, codes = quantize(x, element=element, block_size=block_size)
    return scales.tolist(), dequantize(codes, scales, element, block_size=block_size).view(np.float32).tolist()


def test_block_scaling_confines_an_outlier():
    """Eight values with an outlier under one scale, then in blocks of four, of which only the first has the outlier.

    Where elements have little range, one scale loses all but the outlier, and two scales keep the second block.
    """
    assert outlier("mxint8", 8) == ([134], [0, -2, 0, 250, 0, 2, 0, 0])
    assert outlier("mxint8", 4) == ([134, 127], [0, -2, 0, 250, -0.90625, 1.5, -0.203125, 0.59375])
    assert outlier("e2m1", 8) == ([133], [0, 0, 0, 256, 0, 0, 0, 0])
    assert outlier("e2m1", 4) == ([133, 125], [0, 0, 0, 256, -1, 1.5, -0.25, 0.5])
    # The 17 binades of E4M3 reach from 250 to these values under one scale: the second block gains nothing yet,
    # but 2^-8 of room below it.
    values = [0.5, -1.25, 0.8125, 256, -0.875, 1.5, -0.203125, 0.625]
    assert outlier("e4m3", 8) == ([127], values)
    assert outlier("e4m3", 4) == ([127, 119], values)


def test_sizes():
    """64 FP32 values are 2048 bits, packed 528; a million weights need 31,250 scales."""
    scales, codes = quantize(np.ones(64, np.float32))
    assert 8 * (scales.size + codes.size) == 528
    assert 32 * 64 == 2048
    scales, codes = quantize(np.zeros(1_000_000, np.float32))
    assert scales.size == 31_250
    assert codes.size == 1_000_000


# --- published tables


@pytest.mark.parametrize("rule", ["floor", "rceil"])
@pytest.mark.parametrize("source", ["fp32", "bf16"])
def test_torchao_contract(source, rule):
    with np.load(DATA / "torchao_contract.npz") as table:
        rows = {k: table[f"{source}_{rule}_{k}"] for k in ("names", "input_bits", "e4m3_codes", "e4m3_scale")}
    assert len(rows["names"]) == 18
    scales, codes = quantize(rows["input_bits"], source, scale_rule=rule)
    for name, s, c, wanted_s, wanted_c in zip(
        rows["names"], scales[:, 0], codes, rows["e4m3_scale"], rows["e4m3_codes"], strict=True
    ):
        assert s == wanted_s, name
        assert c.tolist() == wanted_c.tolist(), name


def test_torchao_conversions_to_e8m0():
    with np.load(DATA / "torchao_contract.npz") as table:
        bits, wanted = table["e8m0_rceil_fp32_bits"], table["e8m0_rceil_expected"]
    # Rounding a number itself up to a power of two is the unit rule, which clamps at 2^127 where the conversion has NaN.
    beyond = (bits > 0x7F000000) & (bits < 0x7F800000)
    assert np.array_equal(select(bits, rule="unit"), np.where(beyond, 254, wanted))
    assert (wanted[beyond] == 255).all()
    assert len(bits) == 18


def b200():
    return json.loads((DATA / "b200_reported.json").read_text())


@pytest.mark.parametrize("row", b200()["ue8m0_from_f32"]["rows"], ids=lambda row: row[0])
def test_b200_conversions_to_e8m0(row):
    """Down is the floor rule, up the unit rule, both of an element with emax 0; without `satfinite` an infinity is NaN."""
    bits, down, up, down_saturating, up_saturating = row
    amax = [int(bits, 16) & 0x7FFFFFFF]
    special = amax[0] >= 0x7F800000
    if down is not None:
        assert select(amax, element="mxint8", rule="floor") == down
    if up is not None:
        finite_beyond = 0x7F000000 < amax[0] < 0x7F800000
        assert select(amax, rule="unit") == (254 if finite_beyond else up)
    if down_saturating is not None:
        policy = "element" if special else "block"
        assert select(amax, element="e4m3" if special else "mxint8", rule="floor", policy=policy) == down_saturating
    if up_saturating is not None:
        assert select(amax, rule="unit", policy="element") == up_saturating


@pytest.mark.parametrize("row", b200()["cvt_rn_satfinite"]["rows"], ids=lambda row: f"{row[0]}-{row[1]}")
def test_b200_nearest_conversions(row):
    bits, element, code = row
    parameters = {"source": "fp32", "element": element, "rounding": "rne", "overflow": "saturate", "lanes": 1}
    inputs = {"scale": np.array([127], np.uint8), "values": np.array([[int(bits, 16)]], np.uint32)}
    assert element_cast.expected(parameters, inputs)["elements"].tolist() == [[code]]


@pytest.mark.parametrize("row", b200()["cvt_rs_satfinite_e4m3"]["rows"], ids=lambda row: f"{row[0]}-{row[1]}")
def test_b200_stochastic_conversions(row):
    bits, random, code = row
    parameters = {"source": "fp32", "element": "e4m3", "rounding": "stochastic", "overflow": "saturate", "lanes": 1}
    inputs = {
        "scale": np.array([127], np.uint8),
        "values": np.array([[int(bits, 16)]], np.uint32),
        "random": np.array([[random]], np.uint16),
    }
    assert element_cast.expected(parameters, inputs)["elements"].tolist() == [[code]]


def test_b200_nan_codes():
    codes = b200()["nan"]
    for element in ("e4m3", "e5m2"):
        for target in ("fp16", "bf16"):
            got = dequantize(np.array([0x7F], np.uint8), np.array([127], np.uint8), element, target, 1)
            assert got == int(codes["e4m3_or_e5m2_nan_to_f16_or_bf16"], 16)
        nan = np.array([0x7FC00000, 0xFFC00000, 0x7F800001, 0xFF800001], np.uint32)
        got = quantize(nan, element=element, block_size=4, nan_policy="element")[1]
        assert got.tolist() == [int(codes[f"f32_nan_to_{element}"], 16)] * 4


# --- dequantize


def all_pairs(element):
    width = ELEMENTS[element].width
    codes = np.tile(np.arange(1 << width, dtype=np.uint8), 256)
    return codes, np.repeat(np.arange(256, dtype=np.uint8), 1 << width)


@pytest.mark.parametrize("overflow", ["inf", "saturate"])
@pytest.mark.parametrize("target", WIDE)
@pytest.mark.parametrize("element", ELEMENTS)
def test_dequantize_equals_floating_point_on_every_pair(element, target, overflow):
    codes, scales = all_pairs(element)
    got = dequantize(codes, scales, element, target, 1, overflow)
    values = mxgolden.decode(codes, element)
    with np.errstate(all="ignore"):
        # At most 7 significant bits: the FP32 product is exact or overflows, so that a cast of it is one rounding.
        product = values.astype(np.float32) * scales.view(ml_dtypes.float8_e8m0fnu).astype(np.float32)
        wanted = product.astype({"fp32": np.float32, "bf16": ml_dtypes.bfloat16, "fp16": np.float16}[target])
    bits = wanted.view(DTYPES[target])
    is_nan = np.isnan(wanted)
    assert (got[is_nan] == WIDE[target].nan_code).all()
    if overflow == "saturate":
        lost = np.isinf(wanted) & np.isfinite(values)
        bits = np.where(lost, bits - 1, bits)
    assert np.array_equal(got[~is_nan], bits[~is_nan])
    parameters = {"element": element, "target": target, "overflow": overflow, "lanes": 16, "stages": 0}
    rows = codes.reshape(-1, 1)[:, [0] * 16]
    out = dequantizer.expected(parameters, {"scale": scales, "elements": rows})["values"]
    assert out.dtype == DTYPES[target]
    assert np.array_equal(out, np.repeat(got[:, None], 16, axis=1))


@pytest.mark.parametrize(
    ("element", "subnormal", "overflowing", "inexact"), [("e4m3", 568, 560, 96), ("e5m2", 1058, 960, 440)]
)
def test_counts_of_exceptional_pairs(element, subnormal, overflowing, inexact):
    codes, scales = all_pairs(element)
    fp32 = dequantize(codes, scales, element, "fp32", 1)
    magnitude = fp32 & 0x7FFFFFFF
    assert ((magnitude > 0) & (magnitude < 0x800000)).sum() == subnormal
    finite = np.isfinite(mxgolden.decode(codes, element))
    lost = (magnitude == 0x7F800000) & finite
    assert lost.sum() == overflowing
    assert scales[lost].min() == {"e4m3": 247, "e5m2": 240}[element]
    bf16 = dequantize(codes, scales, element, "bf16", 1)
    kept = (magnitude < 0x7F800000) & (bf16 & 0x7FFF < 0x7F80)
    assert ((bf16.astype(np.uint32) << 16 != fp32) & kept).sum() == inexact


def test_dequantize_single_roundings():
    def one(code, scale, target, **options):
        return int(dequantize(np.array([code], np.uint8), np.array([scale], np.uint8), "e4m3", target, 1, **options)[0])

    # A scale rounded to FP16 first would lose both.
    assert one(0x79, 94, "fp16") == 0x0001
    assert one(0x80, 254, "fp16") == 0x8000
    assert one(0x01, 0, "fp32") == 1 << 13
    assert one(0x7E, 255, "bf16") == 0x7FFF
    assert one(0xFE, 254, "fp32") == 0xFF800000
    assert one(0xFE, 254, "fp32", overflow="saturate") == 0xFF7FFFFF
    inf = dequantize(np.array([0xFC], np.uint8), np.array([0], np.uint8), "e5m2", "bf16", 1, "saturate")
    assert inf == 0xFF80


# --- errors

X = np.zeros((2, 64), np.float32)
S, C = np.zeros((2, 2), np.uint8), np.zeros((2, 64), np.uint8)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: quantize(X[:, :33]), r"multiple of block_size 32, got shape \(2, 33\)"),
        (lambda: quantize(X[0, 0]), r"multiple of block_size 32, got shape \(\)"),
        (lambda: quantize(X, "bf16"), "wanted bit patterns in uint16 for source bf16, got float32"),
        (lambda: quantize(X.view(np.uint32), "fp16"), "wanted bit patterns in uint16 for source fp16, got uint32"),
        (lambda: quantize(X.astype(float)), "wanted float32 or bit patterns in uint32 for source fp32, got float64"),
        (lambda: quantize(X, "fp64"), "wanted a wide format of fp32, bf16, fp16; got 'fp64'"),
        (lambda: quantize(X, element="e4m4"), "wanted an element format of e4m3, .* got 'e4m4'"),
        (lambda: quantize(X, block_size=0), "wanted a block_size of 1 or more, got 0"),
        (lambda: quantize(X, scale_rule="round"), "wanted scale_rule of rceil, .* got 'round'"),
        (lambda: quantize(X, nan_policy="all"), "wanted nan_policy of block, element; got 'all'"),
        (lambda: quantize(X, rounding="up"), "wanted rounding of rne, stochastic; got 'up'"),
        (lambda: quantize(X, overflow="inf"), "wanted overflow of saturate, ieee; got 'inf'"),
        (lambda: quantize(X, element="e2m1", nan_policy="element"), "wanted nan_policy=block for e2m1"),
        (lambda: quantize(X, element="mxint8", overflow="ieee"), "wanted overflow=saturate for mxint8"),
        (lambda: quantize(X, rounding="stochastic"), "wanted random_bits with rounding 'stochastic', got none"),
        (lambda: quantize(X, random_bits=C), "wanted no random_bits with rounding 'rne', got some"),
        (
            lambda: quantize(X, rounding="stochastic", random_bits=C),
            r"wanted random_bits as uint16 of shape \(2, 64\), got uint8 of \(2, 64\)",
        ),
        (lambda: dequantize(C, S[:, :1]), r"wanted scales of shape \(2, 2\) for codes of \(2, 64\), got \(2, 1\)"),
        (lambda: dequantize(C.astype(int), S), "wanted codes as uint8, got int64"),
        (lambda: dequantize(C, S.astype(int)), "wanted scales as uint8, got int64"),
        (lambda: dequantize(C + np.uint8(64), S, "e3m2"), "wanted codes of 6 bits, got 0x40"),
        (lambda: dequantize(C, S, target="fp8"), "wanted a wide format of fp32, bf16, fp16; got 'fp8'"),
        (lambda: dequantize(C, S, overflow="ieee"), "wanted overflow of inf, saturate; got 'ieee'"),
        (lambda: dequantize(C[:, :40], S), "multiple of block_size 32"),
    ],
)
def test_errors_say_what_was_wanted(call, words):
    with pytest.raises(ValueError, match=words):
        call()
