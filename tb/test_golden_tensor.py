"""The conventional per-tensor path and the measures, against fractions and by hand."""

from fractions import Fraction

import golden_reference as reference
import numpy as np
import pytest

from mxgolden import dequantize, dequantize_tensor, flushed_share, quantize, quantize_tensor, sqnr
from mxgolden.formats import ELEMENTS
from mxgolden.tensor_quantizer import tensor_factor


def bits_of(value):
    return int(np.float32(value).view(np.uint32))


def slow(values, element):
    """Scale and codes by fractions."""
    exact = [reference.wide_value(bits_of(v), "fp32") for v in values]
    amax = max((abs(v) for v in exact if not isinstance(v, str)), default=Fraction(0))
    factor = Fraction(1)
    if amax:
        factor = reference.wide_value(reference.round_to_wide(reference.ladder(element)[-2] / amax, "fp32"), "fp32")
        factor = reference.wide_value(0x7F7FFFFF, "fp32") if factor == "inf" else factor
    codes = []
    for value, number in zip(values, exact, strict=True):
        if not isinstance(number, str):
            number = reference.wide_value(reference.round_to_wide(number * factor, "fp32"), "fp32")
        codes.append(reference.round_to_element(number, int(np.signbit(value)), element, "saturate"))
    return reference.wide_value(reference.round_to_wide(1 / factor, "fp32"), "fp32"), codes


@pytest.mark.parametrize("element", ELEMENTS)
def test_quantize_tensor_equals_fractions(element):
    rng = np.random.default_rng(20)
    for exponent in (0, -60, 90, -149, -140, -126, -118):
        with np.errstate(under="ignore"):
            x = np.ldexp(rng.standard_normal(40), exponent + rng.integers(-12, 3, 40)).astype(np.float32)
        x[3], x[4] = 0.0, -0.0
        scale, codes = quantize_tensor(x, element)
        wanted_scale, wanted_codes = slow(x, element)
        assert Fraction(float(scale)) == wanted_scale
        assert codes.tolist() == wanted_codes
        got = dequantize_tensor(codes, scale, element)
        for code, bits in zip(codes.tolist(), got.tolist(), strict=True):
            value = reference.element_value(code, element) * wanted_scale
            assert bits & 0x7FFFFFFF == reference.round_to_wide(abs(value), "fp32")


def test_pieces_of_a_tensor_under_its_amax():
    x = np.random.default_rng(21).standard_normal(100).astype(np.float32)
    scale, codes = quantize_tensor(x)
    pieces = [quantize_tensor(piece, amax=np.abs(x).max()) for piece in np.split(x, [30, 31])]
    assert {piece[0] for piece in pieces} == {scale}
    assert (np.concatenate([piece[1] for piece in pieces]) == codes).all()


@pytest.mark.parametrize(("amax", "factor"), [
    # Transformer Engine: 1 for an amax of 0 or one that isn't finite; the largest number where the quotient is infinite.
    (0.0, 1.0),
    (np.inf, 1.0),
    (np.nan, 1.0),
    (448.0, 1.0),
    (1.0, 448.0),
    (3.0, np.float32(448) / np.float32(3)),
    (float(np.finfo(np.float32).max), np.float32(448) / np.finfo(np.float32).max),
    (2.0**-119, 448 * 2.0**119),
    (448 * 2.0**-128, np.finfo(np.float32).max),
    (2.0**-126, np.finfo(np.float32).max),
    (2.0**-149, np.finfo(np.float32).max),
])
def test_tensor_factor(amax, factor):
    got = tensor_factor(amax)
    assert got.dtype == np.float32 and got == np.float32(factor)


def test_quantize_tensor_specials():
    scale, codes = quantize_tensor(np.array([[0.0, -0.0]], np.float32))
    assert (scale, codes.tolist()) == (1.0, [[0, 0x80]])
    assert dequantize_tensor(codes, scale).tolist() == [[0, 0x80000000]]
    assert quantize_tensor(np.zeros((0, 3), np.float32))[1].shape == (0, 3)
    x = np.array([448, -np.inf, np.nan, 1], np.float32)
    scale, codes = quantize_tensor(x)
    assert (scale, codes.tolist()) == (1.0, [0x7E, 0xFE, 0x7F, 0x38])
    assert dequantize_tensor(codes, scale).tolist() == [bits_of(448), bits_of(-448), 0x7FFFFFFF, bits_of(1)]
    assert quantize_tensor(x, "e2m1")[1].tolist() == [7, 15, 0, 0]
    # The factor of so small an amax would be infinite; the largest there is leaves the range to the element's bottom.
    scale, codes = quantize_tensor(np.array([2.0**-126, 2.0**-130, 2.0**-149], np.float32))
    assert (bits_of(scale), codes.tolist()) == (0x00200000, [0x48, 0x28, 0])
    assert dequantize_tensor(codes, scale).tolist() == [0x00800000, 0x00080000, 0]
    with pytest.raises(ValueError, match="wanted one float32 scale, got float64"):
        dequantize_tensor(codes, 1.0)
    with pytest.raises(ValueError, match="wanted float32 or bit patterns in uint32"):
        quantize_tensor(np.zeros(2))
    with pytest.raises(ValueError, match=r"wanted an amax of 0 or more, got -1\.0"):
        quantize_tensor(x, amax=np.float32(-1))


def test_block_scales_keep_what_one_scale_flushes():
    """A tensor whose blocks differ by many binades: one scale flushes the small ones, block scales lose none."""
    rng = np.random.default_rng(21)
    x = np.ldexp(rng.standard_normal((64, 32)), -np.arange(64)[:, None] // 2).astype(np.float32)
    scale, codes = quantize_tensor(x)
    tensor = dequantize_tensor(codes, scale).view(np.float32)
    scales, codes = quantize(x)
    blocks = dequantize(codes, scales).view(np.float32)
    assert flushed_share(x, tensor) > 0.3
    assert flushed_share(x, blocks) < 0.001
    # Of the smallest blocks nothing was left.
    assert (sqnr(x, tensor, axis=-1)[-8:] == 0).all()
    # Three mantissa bits: between 25 and 40 dB in each block.
    by_block = sqnr(x, blocks, axis=-1)
    assert by_block.shape == (64,)
    assert ((by_block > 25) & (by_block < 40)).all()


def test_measures():
    x = np.array([3.0, 4.0], np.float32)
    assert sqnr(x, x) == np.inf
    assert sqnr(x, np.array([3.0, 3.5])) == pytest.approx(20.0)
    assert sqnr(np.zeros(2), np.zeros(2)) == np.inf
    assert np.isnan(sqnr(np.array([np.inf]), np.array([448.0])))
    signalling = np.array([0x7F800001], np.uint32).view(np.float32)
    assert np.isnan(sqnr(signalling, signalling))
    assert flushed_share(np.array([0.0, 1.0, 2.0, -3.0]), np.array([0.0, 0.0, 2.0, -0.0])) == pytest.approx(2 / 3)
    assert flushed_share(np.zeros(3), np.zeros(3)) == 0.0
    with pytest.raises(ValueError, match="wanted floating-point values"):
        sqnr(np.array([1], np.uint32), x[:1])
    with pytest.raises(ValueError, match=r"wanted arrays of one shape, got \(2,\) and \(1,\)"):
        sqnr(x, x[:1])
