# amaranth: UnusedElaboratable=no
"""Each format three times: the RTL's record, the golden table, and ml_dtypes; and the RTL's decoding against the second."""
import ml_dtypes
import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator

import mxgolden
from mxforge.formats import E8M0, ELEMENTS, WIDES, IntegerFormat
from mxforge.raw import decode, normalized

WITNESS = {
    "e4m3": ml_dtypes.float8_e4m3fn, "e5m2": ml_dtypes.float8_e5m2, "e3m2": ml_dtypes.float6_e3m2fn,
    "e2m3": ml_dtypes.float6_e2m3fn, "e2m1": ml_dtypes.float4_e2m1fn,
    "fp32": np.float32, "bf16": ml_dtypes.bfloat16, "fp16": np.float16,
}
FLOATS = [f for f in (ELEMENTS | WIDES).values() if f.name in WITNESS]


@pytest.mark.parametrize("fmt", FLOATS, ids=lambda f: f.name)
def test_record_against_ml_dtypes(fmt):
    info = ml_dtypes.finfo(WITNESS[fmt.name])
    assert fmt.width == info.bits
    assert fmt.mantissa_width == info.nmant
    assert fmt.exponent_width == info.nexp
    assert fmt.max_value == float(info.max)
    assert 2.0 ** (1 - fmt.bias) == float(info.smallest_normal)
    assert 2.0 ** fmt.lsb_exponent == float(info.smallest_subnormal)
    assert 2.0 ** fmt.emax <= fmt.max_value < 2.0 ** (fmt.emax + 1)

    storage = np.dtype(f"u{-(-fmt.width // 8)}")

    def value(code):
        return np.array([code], storage).view(WITNESS[fmt.name]).astype(np.float64)[0]

    assert value(fmt.max_code) == fmt.max_value
    assert not fmt.has_nan or np.isnan(value(fmt.nan_code))
    assert not fmt.has_inf or value(fmt.inf_code) == np.inf
    assert fmt.has_inf or fmt.inf_code is None


def test_scale_record():
    info = ml_dtypes.finfo(ml_dtypes.float8_e8m0fnu)
    assert 2.0 ** E8M0.emax == float(info.max)
    assert 2.0 ** -E8M0.bias == float(np.array([0], np.uint8).view(ml_dtypes.float8_e8m0fnu)[0])
    assert np.isnan(np.array([E8M0.nan_code], np.uint8).view(ml_dtypes.float8_e8m0fnu).astype(np.float32)[0])


def test_integer_record():
    fmt = ELEMENTS["mxint8"]
    assert (fmt.max_value, fmt.lsb_exponent, fmt.max_code) == (127 / 64, -6, 127)


def every_code(fmt, function, names):
    """``[{field: value}]`` of a decoding ``function`` for each code."""
    m = Module()
    code = Signal(fmt.width)
    result = function(m, code, fmt, "decoded")
    rows = []

    async def bench(ctx):
        for value in range(1 << fmt.width):
            ctx.set(code, value)
            rows.append({name: ctx.get(getattr(result, name)) for name in names})

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
    return rows


@pytest.mark.parametrize("fmt", ELEMENTS.values(), ids=lambda f: f.name)
def test_decoding_of_each_code(fmt):
    values = mxgolden.decode(np.arange(1 << fmt.width, dtype=np.uint8), fmt.name)
    flags = ["sign", "is_nan", "is_inf", "is_zero"]
    raws = every_code(fmt, decode, ["significand", "exponent_code", *flags])
    normals = every_code(fmt, normalized, ["fraction", "exponent_code", *flags])
    for value, raw, normal in zip(values, raws, normals, strict=True):
        for decoded in (raw, normal):
            assert decoded["is_nan"] == np.isnan(value)
            assert decoded["is_inf"] == np.isinf(value)
            assert decoded["is_zero"] == (value == 0)
            if not isinstance(fmt, IntegerFormat) and not np.isnan(value):
                assert decoded["sign"] == np.signbit(value)
        if not np.isfinite(value):
            continue
        sign = -1 if raw["sign"] else 1
        weight = 2.0 ** (raw["exponent_code"] - fmt.bias - fmt.mantissa_width)
        assert sign * raw["significand"] * weight == value
        if value:
            hidden = 1 << (fmt.significand_width - 1)
            weight = 2.0 ** (normal["exponent_code"] - fmt.bias) / hidden
            assert sign * (hidden + normal["fraction"]) * weight == value
