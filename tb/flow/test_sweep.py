# amaranth: UnusedElaboratable=no
"""`mxforge sweep`: which points, what is written of them, and that a second run takes up what an interrupted one did."""
import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import ml_dtypes
import numpy as np
import pytest

from mxforge import catalog
from mxforge.errors import MxforgeError
from mxforge.flow import sweep, synth

ROOT = Path(__file__).resolve().parent.parent.parent
LINE = "sweep", "dequantizer", "--element", "e2m1", "--bare", "-o", "out", "--build-dir", "build"


@pytest.mark.parametrize(("text", "unit", "values"), [
    ("lanes=1,2,8", "dequantizer", [1, 2, 8]), ("stages=0..3", "dequantizer", [0, 1, 2, 3]), ("stages=4", "dequantizer", [4]),
    ("lanes=2,1..3,16", "dequantizer", [2, 1, 3, 16]), ("element=e2m1,e4m3", "dequantizer", ["e2m1", "e4m3"]),
    ("scale-rule=floor", "quantizer", ["floor"]), ("addend=yes,no", "scaled_dot", [True, False])])
def test_values(text, unit, values):
    assert sweep.values_of(text, unit) == (text.partition("=")[0].replace("-", "_"), values)


@pytest.mark.parametrize(("text", "answer"), [
    ("lane=1", "--vary must name a parameter of quantizer, not 'lane'; did you mean lanes?"),
    ("colour=1", "--vary must name a parameter of quantizer, not 'colour'; it has stages, source, element, "),
    ("lanes", "--vary lanes has ''; write values as lanes=1,2,4 or 0..4"),
    ("lanes=", "--vary lanes= has ''; write values as"),
    ("lanes=1,x", "--vary lanes=1,x has 'x'; write values as"),
    ("stages=4..0", "--vary stages=4..0 has '4..0'; write values as"),
    ("scale_rule=floor,ceiling", "--vary scale_rule=floor,ceiling has 'ceiling'; write values as scale_rule=rceil,floor,"),
    ("lanes=3", "no combination is possible: lanes must be a power of two, not 3"),
])
def test_refused(text, answer, refused):
    refused("sweep", "quantizer", "--vary", text, "-o", "out", answer=answer)


@pytest.mark.parametrize(("line", "answer"), [
    ("sweep quantizer -o out", "Missing option '--vary'"),
    ("sweep quantizer --vary lanes=1", "Missing option '-o' / '--output'"),
    ("sweep quantiser --vary lanes=1 -o out", "no unit or catalogue entry 'quantiser'"),
    ("sweep quantizer --vary lanes=1 --vary lanes=2 -o out", "--vary must name each parameter once"),
    ("sweep quantizer --vary lanes=1 -o out --target fpga", "--target must be one of ecp5, ice40, xc7, gates; not 'fpga'"),
    ("sweep quantizer --vary lanes=1 -o file", "file is a file; file must be a directory"),
])
def test_refused_invocations(line, answer, refused, tmp_path):
    (tmp_path / "file").write_text("")
    refused(*line.split(), answer=answer)


def test_points():
    entry = catalog.Entry(name="quantizer", unit="quantizer", parameters={"lanes": 32, "block_size": 8})
    possible, left_out = sweep.points(entry, {"lanes": [4, 16], "element": ["e4m3", "e2m1"]})
    assert [(combination, one.parameters) for combination, one in possible] == [
        ({"lanes": 4, "element": element}, {"lanes": 4, "block_size": 8, "element": element}) for element in ("e4m3", "e2m1")]
    assert [combination["lanes"] for combination, _ in left_out] == [16, 16]
    assert all(why == "lanes must divide block_size (8), not 16; set both" for _, why in left_out)


def decibels(exact, became):
    return 10 * np.log10(np.square(exact).sum() / np.square(exact - became).sum())


def test_sqnr_of_units():
    """Against ml_dtypes in float64."""
    x = np.random.default_rng(0).standard_normal((64, 1024), dtype=np.float32).astype(np.float64)

    def quantized(dtype, largest, blocks):
        amax = np.abs(blocks).max(axis=-1, keepdims=True)
        scale = np.exp2(np.ceil(np.log2(amax / largest)))
        return (blocks / scale).astype(dtype).astype(np.float64) * scale

    e4m3 = quantized(ml_dtypes.float8_e4m3fn, 448, x.reshape(-1, 32)).reshape(x.shape)
    assert sweep.sqnr("quantizer", {}) == pytest.approx(decibels(x, e4m3))
    e2m1 = quantized(ml_dtypes.float4_e2m1fn, 6, x.reshape(-1, 8)).reshape(x.shape)
    assert sweep.sqnr("quantizer", {"element": "e2m1", "block_size": 8, "lanes": 8}) == pytest.approx(decibels(x, e2m1))
    assert sweep.sqnr("dequantizer", {"lanes": 1}) == pytest.approx(decibels(x, e4m3))
    a, b = x.reshape(2, 32, 1024)
    dots = np.prod(e4m3.reshape(2, 32, 1024), axis=0).sum(axis=-1)
    assert sweep.sqnr("dot_accumulator", {}) == pytest.approx(decibels((a * b).sum(axis=-1), dots), abs=1e-4)
    assert sweep.sqnr("fp32_multiplier", {}) is None


@pytest.mark.parametrize("parameters", [
    {"unit": "quantizer", "source": "bf16", "scale_rule": "floor"}, {"unit": "quantizer", "rounding": "stochastic"},
    {"unit": "dequantizer", "target": "bf16", "element": "mxint8"}, {"unit": "scaled_dot", "accumulation": "blackwell"},
    {"unit": "matmul_tile", "accumulation": "fp32_chain", "a_element": "e2m1"}, {"unit": "dual_quantizer", "block_size": 16}])
def test_sqnr_is_less_than_the_formats(parameters):
    unit = parameters.pop("unit")
    assert 10 < sweep.sqnr(unit, parameters) < 50


@pytest.fixture
def quick(monkeypatch):
    """A fake synthesis, whose area grows with the Verilog; ``stop_at`` calls it is interrupted, at a ``bad`` target it fails."""
    class Fake:
        calls, stop_at, bad = 0, None, None

    fake = Fake()

    def area(text, top, target, luts_only=False):
        if fake.calls == fake.stop_at:
            raise KeyboardInterrupt
        fake.calls += 1
        if target == fake.bad:
            raise MxforgeError("Yosys ended with status 1: it broke")
        return {"luts": len(text), "lut4_equivalents": len(text), "nand2": len(text) / 2, "ffs": 0, "depth": 3, "path": {},
                "cells": {}, "tools": {}}

    monkeypatch.setattr(synth, "area", area)
    return fake


def test_a_sweep(mxforge, quick, tmp_path):
    status, out, error = mxforge(*LINE, "--vary", "lanes=1,2,4", "--vary", "stages=0,1,9", "--target", "ecp5", "--target", "gates")
    assert (status, error) == (0, "")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["results.csv", "results.json", "sweep.svg"]
    assert out.count("\n") == 2 + 3 * 2 * 2 + 3 + 1
    assert out.count("Left out: lanes ") == 3 and "Left out: lanes 1, stages 9: stages must be 0 to 7 (" in out
    assert re.split("  +", out.splitlines()[0].strip()) == [
        "lanes", "stages", "latency", "mapped to", "LUTs", "LUT4 equivalents", "FFs", "NAND2 equivalents", "depth", "SQNR, dB"]

    facts = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(facts) == {"mxforge", "unit", "ports", "varied", "targets", "luts_only", "seeds", "points", "left_out"}
    assert facts["varied"] == {"lanes": [1, 2, 4], "stages": [0, 1, 9]} and facts["targets"] == ["ecp5", "gates"]
    assert [point["varied"] for point in facts["points"]] == [
        {"lanes": lanes, "stages": stages} for lanes in (1, 2, 4) for stages in (0, 1)]
    for point in facts["points"]:
        assert point["parameters"]["element"] == "e2m1" and point["latency"] == point["varied"]["stages"]
        assert set(point["targets"]) == {"ecp5", "gates"} and point["sqnr"] > 15
    assert len({point["verilog_sha256"] for point in facts["points"]}) == 6

    with open(tmp_path / "out" / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 and len(rows[0]) == len(set(rows[0]))
    point = facts["points"][1]
    row = next(row for row in rows if (row["lanes"], row["stages"], row["mapped_to"]) == ("1", "1", "gates"))
    assert float(row["nand2"]) == point["targets"]["gates"]["area"]["nand2"]
    assert (row["latency"], row["verilog_sha256"], row["error"]) == ("1", point["verilog_sha256"], "")


def test_the_picture(mxforge, quick, tmp_path):
    assert mxforge(*LINE, "--vary", "lanes=1,2,4", "--vary", "stages=0,1")[0] == 0
    drawn = (tmp_path / "out" / "sweep.svg").read_text()
    words = [element.text for element in ElementTree.fromstring(drawn).iter() if element.tag.endswith("}text")]
    for word in ("lanes", "latency, cycles", "ecp5: LUT4 equivalents", "stages 0", "stages 1",
                 "dequantizer, bare: labels are lanes"):
        assert word in words
    # SQNR is the same for all, Fmax wasn't measured.
    assert not any("SQNR" in word or "Fmax" in word for word in words)
    facts = json.loads((tmp_path / "out" / "results.json").read_text())
    assert sweep.draw(facts) == drawn
    for number, point in enumerate(facts["points"]):
        point["targets"]["ecp5"]["fmax"] = {"median": 100 + number}
    assert "Fmax, MHz (median of seeds)" in sweep.draw(facts)


@pytest.mark.parametrize("vary", [["element=e4m3,e2m1"], ["lanes=1,3,25"], ["stages=0"], ["target=fp32,bf16", "stages=0..2"]])
def test_every_kind_of_axis_is_drawn(vary, mxforge, quick, tmp_path):
    varied = [word for one in vary for word in ("--vary", one)]
    status, _, error = mxforge("sweep", "dequantizer", "--bare", "--lanes", "1", "-o", "out", "--build-dir", "build", *varied)
    assert (status, error) == (0, "")
    assert ElementTree.fromstring((tmp_path / "out" / "sweep.svg").read_text()).tag.endswith("svg")


def test_a_point_that_fails_does_not_stop_the_others(mxforge, quick, tmp_path):
    quick.bad = "gates"
    line = *LINE, "--vary", "lanes=1,2", "--jobs", "1"
    status, out, _ = mxforge(*line, "--target", "gates", "--target", "ecp5")
    assert status == 0 and out.count("Failed: lanes ") == 2
    assert "Failed: lanes 1, gates: Yosys ended with status 1: it broke" in out
    with open(tmp_path / "out" / "results.csv", newline="") as file:
        assert [row["error"] for row in csv.DictReader(file)] == ["Yosys ended with status 1: it broke", ""] * 2
    status, out, error = mxforge(*line, "--target", "gates")
    assert (status, error) == (2, "mxforge: no point could be measured\n") and out.count("Failed: lanes ") == 2
    # What failed is tried again.
    quick.bad = None
    assert mxforge(*line, "--target", "gates")[0] == 0


def test_an_interrupted_sweep_goes_on(mxforge, quick, tmp_path):
    quick.stop_at = 2
    line = *LINE, "--vary", "lanes=1,2,4,8", "--jobs", "1"
    status, out, error = mxforge(*line)
    assert (status, out, error.strip()) == (130, "", "")
    assert not (tmp_path / "out").exists() and len(list((tmp_path / "build" / "synth").iterdir())) == quick.calls == 2
    quick.stop_at = None
    assert mxforge(*line)[0] == 0 and quick.calls == 4
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert mxforge(*line)[0] == 0 and quick.calls == 4
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == first


@pytest.mark.slow
def test_a_sweep_that_is_killed_with_its_tools(tmp_path):
    """As a terminal's Ctrl-C does; what the tools left in temporary files is gone."""
    (tmp_path / "temporary").mkdir()
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'rtl'}{os.pathsep}{ROOT / 'tb'}", "TMPDIR": str(tmp_path / "temporary")}
    command = [sys.executable, "-m", "mxforge", "sweep", "dequantizer", "--bare", "--vary", "lanes=1,2,4,8,16,32", "-o", "out",
               "--build-dir", "build", "--jobs", "2", "--target", "ecp5"]
    child = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                             start_new_session=True)
    while len(list(tmp_path.glob("build/synth/*.json"))) < 2:
        assert child.poll() is None, child.stderr.read()
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGINT)
    out, error = child.communicate(timeout=60)
    assert (child.returncode, out, error.strip()) == (130, "", "")
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("build/synth/*")}
    assert 2 <= len(kept) < 6 and all(path.suffix == ".json" for path in kept)
    assert not list((tmp_path / "temporary").iterdir()) and not (tmp_path / "out").exists()
    subprocess.run(command, env=environment, cwd=tmp_path, check=True, capture_output=True)
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items())
    assert len(list(tmp_path.glob("build/synth/*.json"))) == 6
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())["points"]) == 6
