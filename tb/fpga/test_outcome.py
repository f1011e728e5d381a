"""What is said of a block, on blocks that golden quantized."""
import numpy as np
import pytest

import mxgolden
from mxforge.fpga.outcome import OUTCOMES, InputError, difference, outcome, shown, values_of
from mxforge.quantizer import Quantizer
from mxgolden import quantizer


def went(texts, elsewhere=0.0, **parameters):
    """The outcome of a block, the rest of it 1."""
    p = Quantizer.Parameters(lanes=4, **parameters)
    bits, _ = values_of(" ".join([*texts, *["1"] * (32 - len(texts))]), 32)
    block = quantizer.expected(vars(p), {"values": bits[None]})
    values = mxgolden.dequantize(block["elements"], block["scale"][:, None], p.element)
    assert difference(p, {"values": bits[None]}, block["scale"], block["elements"], values) == 0
    return outcome(p, bits, block["scale"][0], block["elements"][0], values[0], elsewhere)


def kinds(answer, side="mx"):
    return [row[side]["outcome"] for row in answer["rows"]]


@pytest.mark.parametrize(("text", "bits"), [
    ("1.5", 0x3FC00000), ("-0", 0x80000000), ("0x3f800000", 0x3F800000), ("0X7FA00000", 0x7FA00000), ("-0x1.8p1", 0xC0400000),
    ("0x1p-149", 1), ("inf", 0x7F800000), ("-Infinity", 0xFF800000), ("nan", 0x7FC00000), ("3.4028235e38", 0x7F7FFFFF),
    ("1e-60", 0), ("+.5", 0x3F000000), ("\N{MINUS SIGN}1.5", 0xBFC00000), ("1.", 0x3F800000), ("+0x.8p1", 0x3F800000),
])
def test_ways_to_write_a_value(text, bits):
    assert values_of(text, 1)[0][0] == bits


def test_what_is_between_values():
    bits, typed = values_of("1, 2;3\n4\t 5,,6 ", 6)
    assert bits.view(np.float32).tolist() == [1, 2, 3, 4, 5, 6] and typed == ["1", "2", "3", "4", "5", "6"]
    assert values_of("\ufeff[[1 2],\n (3,4)] \u200b", 4)[1] == ["1", "2", "3", "4"]


@pytest.mark.parametrize(("text", "message", "span"), [
    ("1 2 abc 4", "value 3, 'abc', is not a number", (4, 7)),
    ("1,0x3f8", "value 2, '0x3f8', is no bit pattern, which has 8 hexadecimal digits", (2, 7)),
    ("1e39", "value 1, '1e39', is beyond FP32, whose largest is 3.4028235e+38", (0, 4)),
    ("0x1p9999", "value 1, '0x1p9999', is beyond FP32, whose largest is 3.4028235e+38", (0, 8)),
    ("x" * 99, f"value 1, '{'x' * 24}...', is not a number", (0, 99)),
    ("1 2 3", "a block is 4 values; these are 3, 1 missing", None),
    ("1 2 3 4 5 6", "a block is 4 values; these are 6, 2 too many", None),
    ("", "a block is 4 values; these are 0, 4 missing", None),
    ("1,5;2;3;4", "'1,5' between semicolons: a decimal comma must be a point", (0, 3)),
    ("1,5\t2,5\t3,5\t4,5", "a block is 4 values; these are 8, 4 too many; a decimal comma must be a point", None),
    ("1 2 3 1_0", "value 4, '1_0', is not a number", (6, 9)), ("0b1 2 3 4", "value 1, '0b1', is not a number", (0, 3)),
    ("1 \N{FULLWIDTH DIGIT ONE}", "value 2, '\N{FULLWIDTH DIGIT ONE}', is not a number", (2, 3)),
    ("0xp3", "value 1, '0xp3', is no bit pattern, which has 8 hexadecimal digits", (0, 4)),
    ("1 . 3 4", "value 2, '.', is not a number", (2, 3)), ("e5", "value 1, 'e5', is not a number", (0, 2)),
])
def test_refuses_texts(text, message, span):
    with pytest.raises(InputError) as refused:
        values_of(text, 4)
    assert (str(refused.value), refused.value.field, refused.value.span) == (message, "values", span)


def test_shortest_texts_give_the_value_back():
    values = np.random.default_rng(1).integers(0, 1 << 32, 5000, np.uint32).view(np.float32)
    for value in values[np.isfinite(values)]:
        assert np.float32(shown(value)) == value


def test_what_became_of_values():
    """Each kind, of a block whose scale is 2^-8 but for those that say otherwise."""
    rounded = went(["1.01", "0.5", "1e-9", "-1e-6"])
    assert kinds(rounded)[:4] == ["rounded", "exact", "flushed", "flushed"]
    first, _, lost, _ = (row["mx"] for row in rounded["rows"][:4])
    assert first["hex"] == "0x78" and first["value"] == "1" and first["error"] == "0.01" and first["relative"] == "0.0099"
    assert first["bits"] == [["sign", "0"], ["exponent", "1111"], ["mantissa", "000"]]
    assert (lost["value"], lost["relative"]) == ("0", "1")
    assert kinds(went(["1.95"], scale_rule="floor"))[0] == "saturated"
    assert kinds(went(["1.95"], scale_rule="floor", overflow="ieee"))[0] == "overflowed"
    assert kinds(went(["nan", "inf"])) == ["NaN", *["spoiled"] * 31]
    special = went(["0x7fa00000", "inf", "-inf"], element="e5m2", nan_policy="element", overflow="ieee")
    assert kinds(special)[:4] == ["NaN", "infinity", "infinity", "flushed"]
    assert special["rows"][0]["mx"]["error"] is None and special["sqnr"]["mx"] is None
    assert special["scale"]["hex"] == "0xfe" and special["amax"]["value"] == "inf"
    # Neither element is beyond the largest; FP32 is too small for them. An infinity that E4M3 doesn't have saturates.
    huge = went(["3.4028235e38", "-3.4028235e38", "1e38"])
    assert kinds(huge)[:4] == ["beyond FP32", "beyond FP32", "rounded", "flushed"]
    assert huge["rows"][0]["mx"]["hex"] == "0x78" and huge["rows"][0]["mx"]["value"] == "inf"
    infinite = went(["inf", "-inf", "nan"], nan_policy="element")
    assert kinds(infinite)[:4] == ["saturated", "saturated", "NaN", "flushed"] and infinite["rows"][1]["mx"]["hex"] == "0xfe"
    assert kinds(went(["inf"], nan_policy="element", overflow="ieee"))[0] == "overflowed"
    assert kinds(went(["nan", "inf"], element="e2m1")) == ["NaN", *["spoiled"] * 31]
    assert kinds(infinite, "fp8")[:4] == ["saturated", "saturated", "NaN", "exact"]
    assert {*kinds(went(["0"] * 32), "fp8")} == {"exact"}
    found = {kind for answer in (rounded, huge, special, went(["nan"]), went(["1.95"], scale_rule="floor"),
                                 went(["1.95"], scale_rule="floor", overflow="ieee")) for kind in kinds(answer)}
    assert found == set(OUTCOMES)


def test_subnormals_and_integers():
    answer = went(["0.00003", "0.1"])
    assert [row["mx"]["is_subnormal"] for row in answer["rows"][:3]] == [True, False, False]
    whole = went(["-0.5"], element="mxint8")["rows"][0]["mx"]
    assert whole["bits"] == [["integer", "11100000"]] and not whole["is_subnormal"]
    assert len(went([], element="e2m1")["rows"][0]["mx"]["hex"]) == 3


def test_the_scale():
    answer = went(["-300"])
    assert answer["scale"] == {"hex": "0x7f", "bits": "01111111", "exponent": 0, "value": "1"}
    assert answer["amax"] == {"hex": "0x43960000", "value": "300"}
    assert [row["is_largest"] for row in answer["rows"]] == [True, *[False] * 31]
    assert went(["nan"])["scale"]["exponent"] is None


def test_conventional_fp8_beside_it():
    """A large value elsewhere spoils its block there only; without one its largest is exact but for the scale's rounding."""
    texts = ["3", "0.01", "-0.02"]
    alone, spoiled = went(texts), went(texts, elsewhere=1e7)
    assert alone["rows"][0]["mx"] == spoiled["rows"][0]["mx"] and alone["sqnr"]["mx"] == spoiled["sqnr"]["mx"]
    assert kinds(alone, "fp8")[0] in ("exact", "rounded")
    assert kinds(spoiled, "fp8")[:3] == ["flushed"] * 3
    assert spoiled["tensor"]["amax"] == "1e+07" and alone["tensor"]["amax"] == "3"
    # A smaller one doesn't count.
    assert went(texts, elsewhere=2.0) == alone
    assert went([], element="e2m1")["tensor"]["element"] == "e4m3" and went([], element="e5m2")["tensor"]["element"] == "e5m2"
    assert went([])["sqnr"]["mx"] == "infinite"


def test_differences_are_counted():
    p = Quantizer.Parameters(lanes=4)
    bits, _ = values_of("1 " * 32, 32)
    block = quantizer.expected(vars(p), {"values": bits[None]})
    values = mxgolden.dequantize(block["elements"], block["scale"][:, None], p.element)
    values[0, :3] ^= 1
    assert difference(p, {"values": bits[None]}, block["scale"] + np.uint8(1), block["elements"], values) == 4
