# amaranth: UnusedElaboratable=no
"""What holds for every entry of the catalogue."""
import importlib
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from emitted import emitted
from kinds import marks
from yosys_run import yosys

from mxbench import verilator
from mxbench.manifest import bounds, with_marks
from mxbench.verilator import ToolError
from mxforge import catalog
from mxforge.emit import emit, manifest_of
from mxforge.errors import MxforgeError
from mxforge.flow import player

each_entry = pytest.mark.parametrize("entry", [pytest.param(entry, id=name) for name, entry in catalog.ENTRIES.items()])
# The others are slow.
first_of_a_kind = pytest.mark.parametrize("entry", [
    pytest.param(entry, id=name, marks=marks(name)) for name, entry in catalog.ENTRIES.items()])
# Lines of Verilog for each bit of the ports, at most. Units have up to 34; a quantizer had 100, whose expressions were written out
# at each use, and again in each use of those.
LINES = 50
FPGA, ASIC = {"reset": "sync", "init": True}, {"reset": "async", "init": False}
# Large ones that are made of others are slow for ASICs.
FOR_ASICS = [name for name in catalog.UNITS if not name.startswith("matmul")]
# For FPGAs one entry of each kind, for ASICs each unit; the others are slow.
each_style = pytest.mark.parametrize(("entry", "style"), [
    pytest.param(entry, style, id=f"{name}-{label}",
                 marks=marks(name) if style is FPGA or name in FOR_ASICS else pytest.mark.slow)
    for name, entry in catalog.ENTRIES.items() for label, style in (("fpga", FPGA), ("asic", ASIC))])


def written(entry, folder, **style):
    text, manifest = emitted(entry.component(), entry.name, **style)
    path = folder / f"{entry.name}.v"
    path.write_text(text)
    return text, manifest, path


def check_payloads(manifest):
    for name, port in manifest["ports"].items():
        end = 0
        for field in port.get("fields", ()):
            assert field["offset"] == end, f"{name}: {field['name']} leaves a gap"
            assert field["meaning"], f"emit.MEANINGS lacks {field['name']}"
            end += field["width"] * field.get("count", 1)
        if name.endswith("tdata"):
            end = -(-end // 8) * 8
        assert end in (0, port["width"])


def check_lines(text, manifest):
    bits = sum(port["width"] for port in manifest["ports"].values())
    assert text.count("\n") <= LINES * bits, "expressions are written out again and again: give them signals of their own"


@each_style
def test_tools_accept_the_verilog_and_find_its_contract(entry, style, tmp_path):
    text, manifest, path = written(entry, tmp_path, **style)
    assert "\\" not in text, "escaped identifiers"
    has_initial_values = re.search(r"\binitial\b|^ *(output )?reg [^;]*=|\binit =", text, re.M) is not None
    assert has_initial_values <= style["init"]

    verilator.lint([path], entry.name)

    found = path.with_suffix(".netlist")
    yosys(f"read_verilog {path}; hierarchy -check -top {entry.name}; proc; check -assert; write_json {found}")
    modules = json.loads(found.read_text())["modules"]
    ports = {name: (port["direction"], len(port["bits"])) for name, port in modules[entry.name]["ports"].items()}
    assert ports == {name: (port["dir"] + "put", port["width"]) for name, port in manifest["ports"].items()}
    for name in modules:
        assert name == entry.name or name.startswith(f"{entry.name}__"), f"{name} could collide with another unit's"


def test_lint_complains(tmp_path):
    path = tmp_path / "broken.v"
    path.write_text("module broken(input wire [3:0] i, output wire o);\n  assign o = missing;\nendmodule\n")
    with pytest.raises(ToolError, match="missing"):
        verilator.lint([path], "broken")


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus is not installed (apt-get install iverilog)")
@each_style
def test_icarus_accepts_it(entry, style, tmp_path):
    path = written(entry, tmp_path, **style)[2]
    done = subprocess.run(["iverilog", "-g2005", "-Wall", "-Wno-timescale", "-s", entry.name, "-o", path.with_suffix(".vvp"), path],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@first_of_a_kind
def test_same_input_same_bytes(entry):
    assert emitted(entry.component(), entry.name) == emit(entry.component(), entry.name)


@first_of_a_kind
def test_manifest_is_true_and_golden_matched(entry, sim_build):
    text, manifest = emitted(entry.component(), entry.name)
    assert json.loads(json.dumps(manifest)) == manifest
    assert (manifest["name"], manifest["unit"], manifest["streamed"]) == (entry.name, entry.unit, entry.streamed)
    check_payloads(manifest)
    check_lines(text, manifest)

    stimulus = importlib.import_module(f"mxbench.stimulus.{entry.unit}")
    golden = importlib.import_module(f"mxgolden.{entry.unit}")
    rng = np.random.default_rng(3)
    inputs = stimulus.blocks(manifest["parameters"], 2000, rng)
    if "last" in inputs:
        # The last input's latency is the one that is measured.
        inputs["last"][-1] = 1
    expected = golden.expected(manifest["parameters"], inputs)
    if entry.axi:
        inputs, expected = with_marks(manifest, inputs, expected, rng)
    machine = player.build(text, manifest, sim_build)
    got = machine.play(inputs)
    assert got.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(got[name], expected[name], err_msg=name)
    for measured, declared in (machine.last.latency, manifest["latency"]), (machine.last.interval, manifest["interval"]):
        least, most = bounds(declared)
        assert least <= measured <= most


@each_entry
def test_stimulus_of_few_blocks(entry):
    stimulus = importlib.import_module(f"mxbench.stimulus.{entry.unit}")
    golden = importlib.import_module(f"mxgolden.{entry.unit}")
    parameters = manifest_of(entry.component(), entry.name)["parameters"]
    for count in 1, 2, 3, 40:
        inputs = stimulus.blocks(parameters, count, np.random.default_rng(count))
        assert all(len(array) == count for array in inputs.values())
        golden.expected(parameters, inputs)


def test_unknown_name_gets_near_ones():
    with pytest.raises(MxforgeError, match="did you mean dequantizer"):
        catalog.find("dequantiser")
    with pytest.raises(MxforgeError, match="see mxforge list"):
        catalog.find("zzz")
