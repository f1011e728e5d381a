"""The emitted directory works by itself."""
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from emitted import emitted
from kinds import marks

from mxbench import verilator
from mxforge import __version__, catalog
from mxforge.emit import CLOCKS, emit, manifest_of
from mxforge.flow import bundle

ENTRIES = {name: catalog.ENTRIES[name] for name in (
    "dequantizer_e2m1_fp16", "dequantize1_fp32", "quantizer_e2m1_serial", "dual_quantizer_stochastic",
    "scaled_dot_e2m1_serial", "quantizer_axis", "unpacker_e2m1_32")} | {
    entry.name: entry for entry in (
        catalog.Entry(name="interleaved", unit="dot_accumulator", parameters={
            "block_size": 4, "lanes": 2, "slots": 5, "accumulation": "fp32_fused", "stages": 14}),
        catalog.Entry(name="bare_lfsr", unit="lfsr", parameters={"lanes": 2}, streamed=False),
        catalog.Entry(name="bare_quantizer", unit="quantizer", parameters={
            "block_size": 8, "lanes": 2, "stages": 3}, streamed=False),
        catalog.Entry(name="tile", unit="matmul_tile", parameters={"block_size": 4, "lanes": 4, "stages": 3}),
        catalog.Entry(name="layer", unit="matmul_layer", parameters={"block_size": 4, "lanes": 4}),
        catalog.Entry(name="bare_accumulator", unit="dot_accumulator", parameters={
            "block_size": 4, "lanes": 2, "stages": 6}, streamed=False))}


def written(name, folder):
    text, manifest = emitted((ENTRIES | catalog.ENTRIES)[name].component(), name)
    bundle.write(bundle.files(text, manifest), folder / name, name)
    return folder / name


def make(folder, *arguments):
    # Nothing of this clone is in sight but the packages that requirements.txt names.
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "MAKEFLAGS", "MAKELEVEL")}
    return subprocess.run(["make", f"BENCH_PYTHON={sys.executable}", *arguments], cwd=folder, env=environment,
                          capture_output=True, text=True)


@pytest.fixture
def runtime(sim_build):
    """Verilator's runtime, as each emitted directory would build it for itself."""
    return verilator.runtime(sim_build).parent


def with_runtime(folder, runtime):
    (folder / "build").mkdir()
    (folder / "build" / runtime.name).symlink_to(runtime)
    return folder


@pytest.mark.parametrize("name", ENTRIES)
def test_make_runs_its_benches(name, tmp_path, runtime):
    folder = with_runtime(written(name, tmp_path), runtime)
    done = make(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    passed, count = re.search(r"^(\d+) of (\d+) benches passed$", done.stdout, re.M).groups()
    assert passed == count and int(count) >= 3, done.stdout
    modules = {path.parent.name for path in (folder / "bench").rglob("*.py")}
    assert {"mxbench", "mxgolden", "stimulus"} <= modules


@pytest.mark.parametrize("unit", catalog.UNITS)
def test_bench_has_all_that_it_imports(unit, tmp_path):
    """Stimulus and golden of each unit, in an interpreter that has nothing else of ours."""
    manifest = manifest_of(catalog.ENTRIES[unit].component(), unit)
    for path, text in bundle.files("", manifest).items():
        if path.startswith("bench/"):
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    code = f"""
import json, numpy as np
from mxbench.stimulus import {unit} as stimulus
from mxgolden import {unit} as golden
parameters = json.loads({json.dumps(json.dumps(manifest["parameters"]))})
inputs = stimulus.blocks(parameters, 40, np.random.default_rng(1))
stimulus.classes(parameters, inputs, golden.expected(parameters, inputs))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "bench", capture_output=True, text=True,
                          env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"})
    assert done.returncode == 0, done.stderr


def test_make_notices_a_wrong_bit(tmp_path, runtime):
    folder = with_runtime(written("dequantize1_fp32", tmp_path), runtime)
    verilog = folder / "dequantize1_fp32.v"
    text = verilog.read_text()
    planted, count = re.subn(r"(assign o = \{.*, )\w+ \};", r"\g<1>1'h0 };", text)
    assert count == 1, "the NaN that is planted as another"
    verilog.write_text(planted)
    done = make(folder)
    assert done.returncode != 0
    assert re.search(r"^[01] of 3 benches passed$", done.stdout, re.M), done.stdout


def test_waves(tmp_path, runtime):
    folder = with_runtime(written("dequantize1_fp32", tmp_path), runtime)
    assert make(folder, "WAVES=1").returncode == 0
    assert "$enddefinitions" in (folder / "build" / "dump.vcd").read_text()


def test_missing_compiler_gets_one_line(tmp_path):
    folder = written("dequantize1_fp32", tmp_path)
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("make", "sh", "python3", "env"):
        (tools / name).symlink_to(shutil.which(name))
    done = subprocess.run(["make", f"BENCH_PYTHON={sys.executable}"], cwd=folder, env={"PATH": str(tools)},
                          capture_output=True, text=True)
    assert done.returncode != 0
    assert "g++ missing: Verilator needs a C++ compiler; apt-get install g++" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in catalog.ENTRIES])
def test_package_and_template_fit_the_verilog(name, tmp_path):
    """A top made of the instantiation template alone passes lint with the package and the unit."""
    folder = written(name, tmp_path)
    ports = [port for port in CLOCKS if f".{port}({port})" in (folder / f"{name}_template.svh").read_text()]
    top = tmp_path / "top.sv"
    # What the template declares is left open here; no rule is waived for the unit.
    top.write_text("/* verilator lint_off UNUSEDSIGNAL */\n/* verilator lint_off UNDRIVEN */\n"
                   f"module top({', '.join(f'input logic {port}' for port in ports)});\n"
                   f"`include \"{name}_template.svh\"\nendmodule\n")
    tools = verilator.find()
    verilator.run_tool([tools.verilator, "--lint-only", "-Wall", f"-I{folder}", "--top-module", "top",
                        folder / f"{name}_pkg.sv", folder / f"{name}.v", top], env=tools.environment())


@pytest.mark.parametrize("name", ["quantizer_bf16_floor", "dequantize1_fp32"])
def test_core_file_lints_in_fusesoc(name, tmp_path):
    folder = written(name, tmp_path)
    entry = catalog.ENTRIES[name]
    fusesoc = [sys.executable, "-m", "fusesoc.main", "--cores-root", folder, "run", "--target", "lint", "--work-root",
               tmp_path / "work", f"mxforge:{entry.unit}:{name}:{__version__}"]
    environment = verilator.find().environment({"XDG_CACHE_HOME": str(tmp_path / "cache")})
    verilator.run_tool(fusesoc, env=environment, cwd=tmp_path)
    package = folder / f"{name}_pkg.sv"
    package.write_text(package.read_text().replace("endpackage", "  localparam int SPARE = 1;\nendpackage"))
    with pytest.raises(verilator.ToolError, match="SPARE"):
        verilator.run_tool(fusesoc, env=environment, cwd=tmp_path)
@pytest.mark.parametrize("name", ["dequantizer_e2m1_fp16", "dot_accumulator_axis", "lfsr"])
def test_constants_describe_the_package(name, tmp_path):
    """Checked by Verilator as it elaborates."""
    folder = written(name, tmp_path)
    manifest = json.loads((folder / f"{name}.json").read_text())
    constants = {constant["name"]: constant["value"] for constant in manifest["constants"]}
    assert len(constants) == len(manifest["constants"]), "a name twice"
    assert constants["LATENCY"] == manifest["latency"] and constants["INTERVAL"] == manifest["interval"]
    package = f"{name}_pkg"
    checks = []
    for constant, value in constants.items():
        literal = f'"{value}"' if isinstance(value, str) else f"64'd{value}"
        checks.append(f"{package}::{constant} == {literal}")
    for side in [constant.removesuffix("_WIDTH") for constant in constants
                 if constant in ("I_WIDTH", "O_WIDTH", "S_AXIS_TDATA_WIDTH", "M_AXIS_TDATA_WIDTH")]:
        checks.append(f"$bits({package}::{side.lower()}_t) == {package}::{side}_WIDTH")
    assert len(checks) > 10
    top = tmp_path / "top.sv"

    def lint(checks):
        top.write_text("module top;\n" + "".join(f"  if (!({check})) $error;\n" for check in checks) + "endmodule\n")
        tools = verilator.find()
        files = folder / f"{package}.sv", top
        verilator.run_tool([tools.verilator, "--lint-only", "-Wno-WIDTHEXPAND", "--top-module", "top", *files],
                           env=tools.environment())

    lint(checks)
    with pytest.raises(verilator.ToolError, match="error"):
        lint([*checks, f"{package}::LATENCY == 1000"])


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus is not installed (apt-get install iverilog)")
@pytest.mark.parametrize("name", ["quantizer_stochastic", "scaled_dot", "lfsr"])
def test_constants_are_plain_verilog(name, tmp_path):
    manifest = emitted(catalog.ENTRIES[name].component(), name)[1]
    lines = "\n".join(constant["verilog"] for constant in manifest["constants"])
    (tmp_path / "top.v").write_text(f"module top;\n{lines}\nendmodule\n")
    done = subprocess.run(["iverilog", "-g2005", "-Wall", "-Wno-timescale", "-o", tmp_path / "top.vvp", tmp_path / "top.v"],
                          capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_constants_of_formats():
    def constants(name, fact="value", **parameters):
        entry = replace(catalog.ENTRIES[name], parameters=catalog.ENTRIES[name].parameters | parameters)
        return {constant["name"]: constant[fact] for constant in emit(entry.component(), name)[1]["constants"]}

    found = constants("quantizer_axis")
    # OCP OFP8 v1.0, table 1; OCP MX v1.0, 5.4.1.
    assert (found["ELEMENT_WIDTH"], found["ELEMENT_BIAS"]) == (8, 7)
    assert (found["ELEMENT_MAX_CODE"], found["ELEMENT_NAN_CODE"]) == (0x7E, 0x7F)
    assert (found["SCALE_WIDTH"], found["SCALE_BIAS"], found["SCALE_NAN_CODE"]) == (8, 127, 0xFF)
    assert (found["BLOCK_SIZE"], found["LANES"], found["I_BEATS"], found["O_BEATS"]) == (32, 8, 4, 4)
    assert (found["S_AXIS_TDATA_WIDTH"], found["S_AXIS_TDATA_VALUES_COUNT"], found["M_AXIS_TDATA_ELEMENTS_OFFSET"]) == (128, 8, 8)
    assert "ELEMENT_INF_CODE" not in found and found["SOURCE_INF_CODE"] == 0x7F80
    found = constants("dequantizer_mxint8_fp32")
    assert found["ELEMENT_FRACTION_WIDTH"] == 6 and "ELEMENT_BIAS" not in found and "ELEMENT_NAN_CODE" not in found
    assert "SCALE_BIAS" not in constants("lfsr")
    seed = constants("lfsr", "verilog", seed=0xFEDC_BA98_7654_3210)["SEED"]
    assert seed == "localparam [63:0] SEED = 64'hfedcba9876543210;"


def test_same_input_same_bytes(tmp_path):
    for again in "a", "b":
        (tmp_path / again).mkdir()
        written("quantizer_e2m1_serial", tmp_path / again)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) > 20
    for path in files:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes(), path
