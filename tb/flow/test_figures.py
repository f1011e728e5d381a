"""What tables and sentences make of figures, of which some may be missing."""
import json

import pytest

from mxforge.flow import figures


def area(ecp5=None, gates=None, **facts):
    values = {"ecp5": ecp5} if ecp5 else {}
    return {"command": "mxforge synth x", "tools": {"pyosys": "0.70"}, "latency": 4, "ports": "bare", "unit": "a_unit",
            "beats": {"i": 1, "o": 1}, "verilog_sha256": "ab" * 32, "values": values | ({"gates": gates} if gates else {}), **facts}


def speed(median, beats=1):
    return {"command": "mxforge synth x --fmax", "tools": {"pyosys": "0.70"}, "seeds": [1, 2, 3], "latency": 4,
            "beats": {"i": beats, "o": 1}, "verilog_sha256": "cd" * 32,
            "values": {"device": "d", "median": median, "min": median - 10, "max": median + 5, "each": []}}


def switching(**streams):
    return {"command": "mxforge measure x", "tools": {}, "values": {"source": "s"} | {
        name: {"gates": 100, "vectors": 50, "lanes": 2, "toggles": toggles, "driven": 2 * toggles}
        for name, toggles in streams.items()}}


@pytest.fixture
def some():
    lut = {"lut4_equivalents": 100, "luts": 90, "depth": 7, "ffs": 11, "dsps": 0, "lut_rams": 2}
    found = {
        "area/dequantize1_fp32": area(lut, {"nand2": 250.0, "depth": 20}),
        "area/fp32_multiplier": area(lut | {"lut4_equivalents": 2600}, {"nand2": 6000.0, "depth": 90}),
        "dsp/fp32_multiplier": area(lut | {"lut4_equivalents": 300, "dsps": 4}),
        "fmax/fp32_multiplier_pipelined": speed(150.0),
        "area/one_fast": area(lut | {"lut4_equivalents": 1000}, ports="streams"), "fmax/one_fast": speed(200.0, beats=4),
        "activity/dequantize1_fp32": switching(e8m0=1230), "activity/fp32_multiplier": switching(fp32=50000, tensor=40000),
        "accuracy/weights": {"command": "mxforge measure accuracy/weights", "tools": {"numpy": "2"}, "values": {
            "source": "a model", "tensors": 2, "matrices": 1, "values": 3200, "nonzero": 3000, "blocks": 100,
            "equal": 0.1, "better": {"mx": 0, "fp8": 1},
            "scale_bytes": {"e8m0_32": 100, "fp32_32": 400, "fp32_128": 100, "fp32_tensor": 8},
            "mx": {"sqnr": 31.5, "zeroed": 3}, "fp8": {"sqnr": 31.6, "zeroed": 30}}},
        "accuracy/outliers": {"command": "x", "tools": {}, "values": {"source": "a model", "matrix": "m", "rows": [
            {"octaves": octaves, "mx": {"sqnr": 31.0, "zeroed": 0.01}, "fp8": {"sqnr": sqnr, "zeroed": share}}
            for octaves, sqnr, share in ((0, 31.0, 0.02), (8, 30.5, 1.0), (12, 18.4, 18.0))], "activations": None}},
    }
    for lanes in 1, 2, 4, 8:
        found[f"area/scaled_dot_lanes_{lanes}"] = area(lut | {"lut4_equivalents": 50 + 25 * lanes})
    found["fmax/scaled_dot_lanes_8"] = speed(100.0, beats=4)
    return found


def rows(name, found):
    headings, lines = figures.TABLES[name](found)
    assert all(len(line) == len(headings) and all(isinstance(cell, str) for cell in line) for line in lines)
    return {line[0]: line[1:] for line in lines}


@pytest.mark.parametrize("name", figures.TABLES)
def test_tables_have_what_is_there(name, some):
    rows(name, {})
    rows(name, some)
    assert figures.TABLES[name].__doc__


@pytest.mark.parametrize("name", figures.WORDS)
def test_words_of_nothing(name):
    assert all("None" not in line for line in figures.WORDS[name]({}))


def test_named(some):
    table = rows("named", some)
    assert table["`dequantize1_fp32`"][:2] == ["100 / 250", "7 / 20"]
    assert table["`dot32_e4m3`"] == ["-", "-", "MX-for-FPGA 7,938 / 23,300", "6,191 / 25,200", "6,000 / 24,000", "5,650 / 21,000"]


def test_targets_are_held_to(some):
    said = list(figures.WORDS["named_words"](some))
    assert said == [
        "`dequantize1_fp32`: 100 LUT4, the target of 80 is missed by 25.0 %.",
        "`fp32_multiplier` beside `dequantize1_fp32`: 26.0 times in LUT4, the target of 25 is reached with 4 % to spare; "
        "24.0 times in NAND2, the target of 25 is missed by 4 %."]
    some["area/quantize32_bf16"] = area({"lut4_equivalents": 3000}, {"nand2": 7500.0})
    assert "`quantize32_bf16`: 3,000 LUT4, the target of 3,000 is reached with 0 % to spare; " \
        "7,500 NAND2, the target of 7,600 is reached with 1.3 % to spare." in figures.WORDS["named_words"](some)


def test_the_smaller_multiplier_is_named_too(some):
    some["area/fp32_multiplier_rows"] = area({"lut4_equivalents": 1500, "depth": 7}, {"nand2": 6500.0, "depth": 90})
    said = list(figures.WORDS["named_words"](some))
    assert said[-1] == ("The same with `product` of `rows`, 1,500 / 6,500: 15.0 times in LUT4, the target of 25 is missed by "
                        "40.0 %; 26.0 times in NAND2, the target of 25 is reached with 4 % to spare.")
    assert said[-2].startswith("`fp32_multiplier` beside `dequantize1_fp32`: 26.0 times in LUT4")


def test_fast(some):
    # 200 MHz, four beats a block, 1,000 LUT4.
    assert rows("fast", some) == {"`one_fast`": ["streams", "4", "1,000", "11", "200.0 (190.0 to 205.0)", "200", "50,000"]}
    one = some["area/one_fast"]
    for name, unit, ports in ("a_fast", "quantizer", "bare"), ("b_fast", "scaled_dot", "bare"), ("c_fast", "scaled_dot", "streams"):
        some[f"area/{name}"], some[f"fmax/{name}"] = one | {"unit": unit, "ports": ports}, speed(210.0)
    del some["fmax/c_fast"]
    table = rows("fast", some)
    assert {name: (row[0], row[5]) for name, row in table.items()} == {
        "`one_fast`": ("streams", "200"), "`a_fast`": ("bare", "220"), "`b_fast`": ("bare", "200"), "`c_fast`": ("streams", "200")}
    assert list(figures.WORDS["fast_words"](some)) == [
        "`one_fast`: 200.0 MHz, the target of 200 is reached with 0 % to spare.",
        # 210,000 blocks/s per LUT4 beside 9,273, and beside 4,371.
        "`a_fast`: 210.0 MHz, the target of 220 is missed by 4.5 %; "
        "22.6 times others' blocks/s per LUT4, the target of 4 is reached with 466.2 % to spare.",
        "`b_fast`: 210.0 MHz, the target of 200 is reached with 5 % to spare; "
        "48.0 times others' blocks/s per LUT4, the target of 4 is reached with 1,101.0 % to spare.",
        "Not placed and routed as they are now: `c_fast`."]
    assert rows("peers", {})["a dot product"] == ["34.7", "7,938", "4,371", "`scaled_dot`: 17,486"]


def test_contrast(some):
    table = rows("contrast", some)
    assert table["any FP32 by any, 1 lane: `fp32_multiplier`"] == [
        "2,600", "300 + 4", "6,000", "7 / 90", "-", "150.0 (140.0 to 155.0)", "4"]
    first, *others = figures.WORDS["contrast_words"](some)
    assert first == "An FP32 multiplier is 26.0 times a lane that adds exponents in LUT4, 24.0 times in NAND2."
    assert all("- times" in line for line in others)


def test_activity(some):
    table = figures.TABLES["activity"](some)[1]
    assert table[0] == ["E8M0, 1 lane", "E8M0 for each block", "100", "12.3", "24.6"]
    assert [line[3] for line in table] == ["12.3", "500.0", "400.0"]


def test_scales(some):
    table = rows("scales", some)
    assert table["E8M0, a byte for 32 values"] == ["100", "0.25000", "3.12 %"]
    assert table["FP32, for a tensor"] == ["8", "0.02000", "0"]


def test_accuracy_and_outliers(some):
    said = " ".join(figures.WORDS["accuracy_words"](some))
    assert "SQNR of 31.50 dB with MXFP8 and 31.60 dB" in said and "better by more than 0.1 dB in 0, worse in 1" in said
    assert "MXFP8 is not the more precise" in said and "0.1 % of the nonzero values with MXFP8 (3), 1 % with one" in said
    some["accuracy/weights"]["values"]["better"] = {"mx": 5, "fp8": 1}
    assert "not the more precise" not in " ".join(figures.WORDS["accuracy_words"](some))
    said = " ".join(figures.WORDS["outlier_words"](some))
    assert "Up to 2^8 E4M3's own exponents take it. At 2^12 one scale for the tensor leaves 18.4 dB and makes 18.0 % zero" in said
    assert rows("outliers", some)["2^12"] == ["31.00", "18.40", "0.01", "18.0"]
    for row in some["accuracy/outliers"]["values"]["rows"]:
        row["fp8"]["sqnr"] = 30.0
    assert len(list(figures.WORDS["outlier_words"](some))) == 1


def test_played():
    found = {"played/quantizer": {"values": {"blocks": 10, "blocks_per_second": 1234567, "cores": 2}}}
    assert rows("played", found) == {"`quantizer`": ["1,234,567"]}


def test_lines_through_series(some):
    points = figures.series(some, "scaled_dot_lanes")
    assert [point["x"] for point in points] == [1, 2, 4, 8] and points[3]["rate"] == 25e6 and points[0]["rate"] is None
    start, slope, off = figures.fit(points)
    assert (start, slope) == pytest.approx((50, 25)) and off == pytest.approx(dict.fromkeys((1, 2, 4, 8), 0))
    assert rows("fits", some) == {figures.SERIES["scaled_dot_lanes"][0]: [
        "50 + 25.0 x lanes", "1, 2, 4, 8", "0 %", "1, 2, 4, 8"]}
    assert rows("scaled_dot_lanes", some)["8"][-3:] == ["100.0", "25.0", "100,000"]
    words = figures.SERIES["scaled_dot_lanes"][0]
    assert list(figures.WORDS["scaling_words"](some)) == [
        f"{words}: at 0 the line has 67 % of the LUT4 at 1.", f"Not measured is Fmax of {words} 1, 2, 4."]
    some["fmax/scaled_dot_lanes_2"] = speed(125.0, beats=16)
    # 78,125 a second per LUT4 become 100,000.
    assert (f"{words}: from 2 to 8 Fmax goes from 125.0 to 100.0 MHz (-20 %), and blocks/s per LUT4 become 1.3 times as "
            "many.") in figures.WORDS["scaling_words"](some)
    some["area/scaled_dot_lanes_1"]["values"]["ecp5"]["lut4_equivalents"] = 150
    assert rows("fits", some)[words][2] != "0 %"
    # The tile's blocks are those of all its dot units, the dequantizer's are whole ones.
    for subject in "matmul_tile_units_4", "dequantizer_lanes_8":
        some |= {f"area/{subject}": some["area/scaled_dot_lanes_8"], f"fmax/{subject}": speed(100.0)}
    assert figures.series(some, "matmul_tile_units")[0]["rate"] == 400e6
    assert figures.series(some, "dequantizer_lanes")[0]["rate"] == 25e6


def test_lines_leave_other_circuits_out(some):
    """A quantizer of whole blocks is none of those with several beats."""
    one = some["area/scaled_dot_lanes_1"]
    for lanes, beats, luts in (4, 8, 90), (8, 4, 130), (16, 2, 210), (32, 1, 1000):
        some[f"area/quantizer_lanes_{lanes}"] = one | {
            "beats": {"i": beats, "o": beats}, "values": {"ecp5": one["values"]["ecp5"] | {"lut4_equivalents": luts}}}
    assert rows("fits", some)[figures.SERIES["quantizer_lanes"][0]] == ["50 + 10.0 x lanes", "4, 8, 16", "0 %", "4, 8, 16"]
    assert [row[4] for row in rows("quantizer_lanes", some).values()] == ["+0.0 %"] * 3 + ["another circuit"]
    for size, luts in (16, 100), (32, 110), (64, 130):
        some[f"area/quantizer_block_{size}"] = one | {
            "beats": {"i": 2, "o": 2}, "values": {"ecp5": one["values"]["ecp5"] | {"lut4_equivalents": luts}}}
    said = list(figures.WORDS["scaling_words"](some))
    assert f"{figures.SERIES['quantizer_block'][0]}: from 16 to 64 LUT4 go from 100 to 130 (+30 %)." in said
    del some["area/quantizer_lanes_4"]
    assert figures.fit(figures.series(some, "quantizer_lanes")) is None and rows("quantizer_lanes", some) == {}


def test_origins(some):
    said = list(figures.WORDS["claims_origins"](some))
    assert "fmax/fp32_multiplier_pipelined: `mxforge synth x --fmax`, Verilog cdcdcdcdcdcd; pyosys 0.70, seeds 1 2 3" in said
    assert "accuracy/weights: `mxforge measure accuracy/weights`; numpy 2" in said
    # Names that only begin like those that are shown are of other tables.
    some["area/fp32_multiplier_fast"] = some["area/one_fast"]
    assert not any("_fast" in line for line in figures.WORDS["claims_origins"](some))
    some["area/fp32_multiplier_rows"] = some["area/fp32_multiplier"]
    assert any(line.startswith("area/fp32_multiplier_rows:") for line in figures.WORDS["claims_origins"](some))
    assert any(line.startswith("area/fp32_multiplier_rows:") for line in figures.WORDS["cost_origins"](some))
    del some["area/fp32_multiplier_rows"]
    shown = [line.partition(":")[0] for line in figures.WORDS["cost_origins"](some)]
    assert shown == ["area/dequantize1_fp32", "area/fp32_multiplier", "area/one_fast", "fmax/one_fast", "area/fp32_multiplier_fast"]
    some["played/quantizer"] = {"command": "mxforge measure played/quantizer", "tools": {"numpy": "2"}}
    assert list(figures.WORDS["played_origins"](some)) == ["played/quantizer: `mxforge measure played/quantizer`; numpy 2"]


def test_the_document_is_found():
    found = figures.document()
    assert found == json.loads(json.dumps(found)) and all("values" in record for record in found.values())
