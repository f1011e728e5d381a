"""Formats, encode and decode of the golden model against the literals of the specifications, ml_dtypes and gfloat."""

import gfloat
import gfloat.formats
import ml_dtypes
import numpy as np
import pytest

from mxgolden import decode, encode
from mxgolden.formats import ELEMENTS, WIDE

ML_DTYPES = {
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
    "e3m2": ml_dtypes.float6_e3m2fn,
    "e2m3": ml_dtypes.float6_e2m3fn,
    "e2m1": ml_dtypes.float4_e2m1fn,
    "e8m0": ml_dtypes.float8_e8m0fnu,
    "bf16": ml_dtypes.bfloat16,
    "fp16": np.float16,
    "fp32": np.float32,
}
GFLOAT = {
    "e4m3": gfloat.formats.format_info_ocp_e4m3,
    "e5m2": gfloat.formats.format_info_ocp_e5m2,
    "e3m2": gfloat.formats.format_info_ocp_e3m2,
    "e2m3": gfloat.formats.format_info_ocp_e2m3,
    "e2m1": gfloat.formats.format_info_ocp_e2m1,
    "mxint8": gfloat.formats.format_info_ocp_int8,
    "e8m0": gfloat.formats.format_info_ocp_e8m0,
    "bf16": gfloat.formats.format_info_bfloat16,
    "fp16": gfloat.formats.format_info_binary16,
}
FLOATS = [name for name in ELEMENTS if name != "mxint8"]
WIDTHS = {**{name: f.width for name, f in ELEMENTS.items()}, "e8m0": 8, "bf16": 16, "fp16": 16, "fp32": 32}


def same(a, b):
    """Equal values with equal signs of zero; NaN equals NaN."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    is_nan = np.isnan(a)
    return np.array_equal(is_nan, np.isnan(b)) and np.array_equal(
        a[~is_nan].view(np.uint64), b[~is_nan].astype(np.float64).view(np.uint64)
    )


def all_codes(name):
    dtype = np.uint8 if WIDTHS[name] <= 8 else np.uint16
    return np.arange(1 << WIDTHS[name], dtype=np.uint32).astype(dtype)


def fp32_sample():
    """FP32 bits: every exponent with mantissas at and beside each place where an element's rounding can turn, and
    random."""
    rng = np.random.default_rng(1)
    tops = np.arange(1 << 9, dtype=np.uint32)[:, None] << 14
    near = (tops + np.array([-1, 0, 1], np.int64)).astype(np.uint32).ravel() & 0x7FFFFF
    exponents = np.arange(256, dtype=np.uint32)[:, None] << 23
    directed = (exponents | np.unique(near)).ravel()
    random = rng.integers(0, 1 << 31, 1_000_000).astype(np.uint32)
    bits = np.concatenate([directed, random])
    return np.concatenate([bits, bits | 0x80000000])


# OCP OFP8 v1.0 table 1, OCP MX v1.0 section 5.3 and 5.4; IEEE 754.
@pytest.mark.parametrize(
    ("name", "code", "value"),
    [
        ("e4m3", 0x7E, 448.0),
        ("e4m3", 0x78, 256.0),
        ("e4m3", 0x08, 2.0**-6),
        ("e4m3", 0x07, 0.875 * 2.0**-6),
        ("e4m3", 0x01, 2.0**-9),
        ("e4m3", 0x38, 1.0),
        ("e4m3", 0x7F, np.nan),
        ("e4m3", 0xFF, np.nan),
        ("e4m3", 0x80, -0.0),
        ("e5m2", 0x7B, 57344.0),
        ("e5m2", 0x04, 2.0**-14),
        ("e5m2", 0x03, 0.75 * 2.0**-14),
        ("e5m2", 0x01, 2.0**-16),
        ("e5m2", 0x3C, 1.0),
        ("e5m2", 0x7C, np.inf),
        ("e5m2", 0xFC, -np.inf),
        ("e5m2", 0x7D, np.nan),
        ("e5m2", 0x7E, np.nan),
        ("e5m2", 0xFF, np.nan),
        ("e3m2", 0x1F, 28.0),
        ("e3m2", 0x04, 0.25),
        ("e3m2", 0x01, 0.0625),
        ("e3m2", 0x3F, -28.0),
        ("e2m3", 0x1F, 7.5),
        ("e2m3", 0x08, 1.0),
        ("e2m3", 0x01, 0.125),
        ("e2m1", 0x7, 6.0),
        ("e2m1", 0x2, 1.0),
        ("e2m1", 0x1, 0.5),
        ("e2m1", 0xF, -6.0),
        ("mxint8", 0x7F, 127 / 64),
        ("mxint8", 0x01, 1 / 64),
        ("mxint8", 0xFF, -1 / 64),
        ("mxint8", 0x80, -2.0),
        ("e8m0", 0x00, 2.0**-127),
        ("e8m0", 0x7F, 1.0),
        ("e8m0", 0xFE, 2.0**127),
        ("e8m0", 0xFF, np.nan),
        ("fp32", 0x7F7FFFFF, (2 - 2.0**-23) * 2.0**127),
        ("fp32", 0x00000001, 2.0**-149),
        ("fp32", 0x00800000, 2.0**-126),
        ("fp32", 0xFF800000, -np.inf),
        ("fp32", 0x7F800001, np.nan),
        ("bf16", 0x7F7F, (2 - 2.0**-7) * 2.0**127),
        ("bf16", 0x0001, 2.0**-133),
        ("bf16", 0x0040, 2.0**-127),
        ("bf16", 0x7F80, np.inf),
        ("fp16", 0x7BFF, 65504.0),
        ("fp16", 0x0001, 2.0**-24),
        ("fp16", 0x0400, 2.0**-14),
        ("fp16", 0xFC00, -np.inf),
        ("fp16", 0x7C01, np.nan),
    ],
)
def test_codes_have_the_values_of_the_specification(name, code, value):
    assert same(decode(np.array([code]), name), [value])


def test_counts_of_finite_magnitudes_are_those_of_the_specification():
    assert {name: f.max_code for name, f in ELEMENTS.items()} == {
        "e4m3": 0x7E, "e5m2": 0x7B, "e3m2": 0x1F, "e2m3": 0x1F, "e2m1": 0x7, "mxint8": 0x7F,
    }  # fmt: skip
    # OCP MX v1.0: emax is that of the largest normal number.
    assert {name: f.emax for name, f in ELEMENTS.items()} == {
        "e4m3": 8, "e5m2": 15, "e3m2": 4, "e2m3": 2, "e2m1": 2, "mxint8": 0,
    }  # fmt: skip
    for f in ELEMENTS.values():
        assert f.max_finite == (1 + f.rceil_mantissa / 2**23) * 2.0**f.emax


@pytest.mark.parametrize("name", [*FLOATS, "e8m0", "bf16", "fp16"])
def test_decode_equals_ml_dtypes_on_every_code(name):
    codes = all_codes(name)
    with np.errstate(invalid="ignore"):
        assert same(decode(codes, name), codes.view(ML_DTYPES[name]).astype(np.float64))


@pytest.mark.parametrize("name", GFLOAT)
def test_decode_equals_gfloat_on_every_code(name):
    codes = all_codes(name)
    assert same(decode(codes, name), gfloat.decode_ndarray(GFLOAT[name], codes.astype(np.int64)))


def test_decode_of_fp32_equals_numpy():
    bits = fp32_sample()
    with np.errstate(invalid="ignore"):
        assert same(decode(bits, "fp32"), bits.view(np.float32).astype(np.float64))


@pytest.mark.parametrize("name", [*ELEMENTS, *WIDE])
def test_encode_inverts_decode(name):
    codes = all_codes(name) if name != "fp32" else fp32_sample()
    values = decode(codes, name)
    nan = np.isnan(values)
    keep = ~nan
    if name == "mxint8":
        keep &= codes != 0x80
    assert np.array_equal(encode(values, name, "ieee" if name == "e5m2" else None)[keep], codes[keep])
    if nan.any():
        assert set(encode(values[nan], name)) == {{"fp32": 0x7FFFFFFF}.get(name, 0x7FFF if name in WIDE else 0x7F)}


@pytest.mark.parametrize("source", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("name", FLOATS)
def test_encode_equals_ml_dtypes(name, source):
    with np.errstate(all="ignore"):
        values = (fp32_sample() if source == "fp32" else all_codes(source)).view(ML_DTYPES[source]).astype(np.float32)
        theirs = values.astype(ML_DTYPES[name]).view(np.uint8)
    mine = encode(values, name, "ieee" if ELEMENTS[name].has_nan else "saturate")
    is_nan = np.isnan(decode(mine, name))
    if ELEMENTS[name].has_nan:
        assert np.array_equal(is_nan, np.isnan(decode(theirs, name)))
        assert (mine[is_nan] == 0x7F).all()
        assert np.array_equal(mine[~is_nan], theirs[~is_nan])
        saturated = encode(values, name)
        lost = ~np.isfinite(decode(mine, name)) & ~np.isnan(values)
        assert np.array_equal(saturated[~lost], mine[~lost])
        assert np.array_equal(saturated[lost], np.where(values[lost] < 0, 0x80, 0) | ELEMENTS[name].max_code)
    else:
        ok = ~np.isnan(values)
        assert np.array_equal(mine[ok], theirs[ok])
        assert (mine[~ok] == 0).all()


@pytest.mark.parametrize("name", sorted(GFLOAT.keys() - {"e8m0", "bf16", "fp16"}))
def test_encode_equals_gfloat_rounding(name):
    bits = fp32_sample()[::7]
    values = bits.view(np.float32)
    values = values[np.isfinite(values)].astype(np.float64)
    theirs = gfloat.round_ndarray(GFLOAT[name], values, gfloat.RoundMode.TiesToEven, sat=True)
    mine = decode(encode(values, name), name)
    if name == "mxint8":
        # gfloat saturates to -2.0, a code that MX lets be and that mxforge never writes; an integer has one zero.
        theirs = np.maximum(theirs, -127 / 64) + 0.0
    assert same(mine, theirs)


@pytest.mark.parametrize("name", ["bf16", "fp16", "fp32"])
def test_encode_of_wide_formats_equals_ml_dtypes(name):
    rng = np.random.default_rng(2)
    exponents = rng.integers(-160, 140, 400_000)
    # Ties, their neighbours, and random significands.
    significands = 1 + rng.integers(0, 1 << 12, 400_000) / 2**12 + rng.integers(-1, 2, 400_000) * 2.0**-40
    values = np.ldexp(significands * rng.choice([-1, 1], 400_000), exponents)
    values = np.concatenate([values, [0.0, -0.0, np.inf, -np.inf, np.nan, 65519.999, 65520.0, -65520.0, 2.0**-25]])
    with np.errstate(all="ignore"):
        # ml_dtypes goes to bfloat16 through float32: only values that FP32 holds are its own rounding.
        if name == "bf16":
            values = values.astype(np.float32).astype(np.float64)
        theirs = values.astype(ML_DTYPES[name]).view(WIDE[name].dtype)
    mine = encode(values, name)
    ok = ~np.isnan(values)
    assert np.array_equal(mine[ok], theirs[ok])


def test_encode_at_the_top():
    assert encode([448.0, 464.0, 464.0001, np.inf, -1e9], "e4m3", "ieee").tolist() == [0x7E, 0x7E, 0x7F, 0x7F, 0x7F]
    assert encode([57344.0, 61439.9, 61440.0, -np.inf], "e5m2", "ieee").tolist() == [0x7B, 0x7B, 0x7C, 0xFC]
    assert encode([464.1, -np.inf, 61440.0], "e4m3").tolist() == [0x7E, 0xFE, 0x7E]
    assert encode([np.inf, -61440.0], "e5m2").tolist() == [0x7B, 0xFB]
    assert encode([-2.0, -5.0, 1.99], "mxint8").tolist() == [0x81, 0x81, 0x7F]
    assert encode([1e39, -1e39, np.inf], "fp32", "saturate").tolist() == [0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000]
    assert encode([2.0**-10, 2.0**-10 * 1.001, -(2.0**-10), 3 * 2.0**-10], "e4m3").tolist() == [0, 1, 0x80, 2]
    assert encode([2.0**-17, 2.0**-17 * 1.001, -(2.0**-17)], "e5m2").tolist() == [0, 1, 0x80]


def test_encode_of_scales():
    codes = np.arange(256, dtype=np.uint8)
    assert np.array_equal(encode(decode(codes, "e8m0"), "e8m0"), codes)
    for wrong in (3.0, 0.0, -1.0, 2.0**128, 2.0**-128):
        with pytest.raises(ValueError, match="wanted powers of two"):
            encode(wrong, "e8m0")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: decode([0], "e4m4"), "wanted a format of e4m3, .*got 'e4m4'"),
        (lambda: decode([16], "e2m1"), "wanted codes of e2m1 below 2"),
        (lambda: decode([0.5], "e4m3"), "wanted integer codes of e4m3, got float64"),
        (lambda: encode([1j], "e4m3"), "wanted real numbers, got complex128"),
        (lambda: encode([1.0], "e4m3", "wrap"), "wanted overflow of saturate, ieee; got 'wrap'"),
        (lambda: encode([1.0], "e2m1", "ieee"), "wanted overflow=saturate for e2m1"),
    ],
)
def test_errors_say_what_was_wanted(call, words):
    with pytest.raises(ValueError, match=words):
        call()
