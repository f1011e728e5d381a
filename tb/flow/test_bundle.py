"""The emitted directory works by itself."""
import os
import re
import shutil
import subprocess
import sys

import pytest

from mxbench import verilator
from mxforge import catalog
from mxforge.emit import emit
from mxforge.flow import bundle

ENTRIES = "dequantizer_e2m1_fp16", "dequantize1_fp32", "quantizer_e2m1_serial", "scaled_dot_e2m1_serial", "unpacker_e2m1_32"


def emitted(name, folder):
    text, manifest = emit(catalog.ENTRIES[name].component(), name)
    bundle.write(bundle.files(text, manifest), folder / name, name)
    return folder / name


def make(folder, *arguments):
    # Nothing of this clone is in sight but the packages that requirements.txt names.
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "MAKEFLAGS", "MAKELEVEL")}
    return subprocess.run(["make", f"BENCH_PYTHON={sys.executable}", *arguments], cwd=folder, env=environment,
                          capture_output=True, text=True)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    """Verilator's runtime, as each emitted directory would build it for itself."""
    return verilator.runtime(tmp_path_factory.getbasetemp() / "runtime").parent


def with_runtime(folder, runtime):
    (folder / "build").mkdir()
    (folder / "build" / runtime.name).symlink_to(runtime)
    return folder


@pytest.mark.parametrize("name", ENTRIES)
def test_make_runs_its_benches(name, tmp_path, runtime):
    folder = with_runtime(emitted(name, tmp_path), runtime)
    done = make(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    passed, count = re.search(r"^(\d+) of (\d+) benches passed$", done.stdout, re.M).groups()
    assert passed == count and int(count) >= 3
    modules = {path.parent.name for path in (folder / "bench").rglob("*.py")}
    assert {"mxbench", "mxgolden", "stimulus"} <= modules


def test_make_notices_a_wrong_bit(tmp_path, runtime):
    folder = with_runtime(emitted("dequantize1_fp32", tmp_path), runtime)
    verilog = folder / "dequantize1_fp32.v"
    text = verilog.read_text()
    assert "32'd2147483647" in text, "the NaN that is planted as another"
    verilog.write_text(text.replace("32'd2147483647", "32'd2147483646"))
    done = make(folder)
    assert done.returncode != 0
    assert re.search(r"^[01] of 3 benches passed$", done.stdout, re.M), done.stdout


def test_waves(tmp_path, runtime):
    folder = with_runtime(emitted("dequantize1_fp32", tmp_path), runtime)
    assert make(folder, "WAVES=1").returncode == 0
    assert "$enddefinitions" in (folder / "build" / "dump.vcd").read_text()


def test_missing_compiler_gets_one_line(tmp_path):
    folder = emitted("dequantize1_fp32", tmp_path)
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("make", "sh", "python3", "env"):
        (tools / name).symlink_to(shutil.which(name))
    done = subprocess.run(["make", f"BENCH_PYTHON={sys.executable}"], cwd=folder, env={"PATH": str(tools)},
                          capture_output=True, text=True)
    assert done.returncode != 0
    assert "g++ missing: Verilator needs a C++ compiler; apt-get install g++ make" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", catalog.ENTRIES)
def test_package_and_template_fit_the_verilog(name, tmp_path):
    """A top made of the instantiation template alone passes lint with the package and the unit."""
    folder = emitted(name, tmp_path)
    ports = [port for port in ("clk", "rst") if f".{port}({port})" in (folder / f"{name}_template.svh").read_text()]
    top = tmp_path / "top.sv"
    top.write_text(f"module top({', '.join(f'input logic {port}' for port in ports)});\n`include \"{name}_template.svh\"\n"
                   "/* verilator lint_off UNUSEDSIGNAL */\n/* verilator lint_off UNDRIVEN */\nendmodule\n")
    tools = verilator.find()
    waived = [f"-Wno-{rule}" for rule in (*verilator.WAIVERS, "UNDRIVEN", "PINCONNECTEMPTY", "DECLFILENAME", "UNUSEDPARAM")]
    verilator.run_tool([tools.verilator, "--lint-only", "-Wall", *waived, f"-I{folder}", "--top-module", "top",
                        folder / f"{name}_pkg.sv", folder / f"{name}.v", top], env=tools.environment())


def test_same_input_same_bytes(tmp_path):
    for again in "a", "b":
        (tmp_path / again).mkdir()
        emitted("quantizer_e2m1_serial", tmp_path / again)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) > 20
    for path in files:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes(), path
