# amaranth: UnusedElaboratable=no
import json
import subprocess
import sys

import pytest

from mxbench import runner, verilator
from mxforge.dequantizer import Dequantizer
from mxforge.emit import emit
from mxforge.pipeline import Streamed

BENCH = """
import cocotb

@cocotb.test()
async def passes(dut):
    assert hasattr(dut, "i__payload")

@cocotb.test()
async def fails(dut):
    assert False
"""


@pytest.fixture
def unit(tmp_path, monkeypatch):
    """A folder with an emitted unit and the modules of a bench."""
    text, manifest = emit(Streamed(Dequantizer(element="e2m1", target="bf16", lanes=1, stages=0)), "dequantizer")
    (tmp_path / "dequantizer.v").write_text(text)
    (tmp_path / "dequantizer.json").write_text(json.dumps(manifest))
    (tmp_path / "one_of_two_passes.py").write_text(BENCH)
    (tmp_path / "has_no_tests.py").write_text("")
    (tmp_path / "dies.py").write_text("import os, cocotb\n\n@cocotb.test()\nasync def dies(dut):\n    os._exit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def run(folder, module, sim_build, **options):
    return runner.run(folder / "dequantizer.v", folder / "dequantizer.json", [module], sim_build,
                      log_file=folder / "sim.log", **options)


def test_counts(unit, sim_build):
    assert run(unit, "one_of_two_passes", sim_build) == (2, 1)
    assert "fails" in (unit / "sim.log").read_text()


@pytest.mark.parametrize(("module", "message"), [
    ("has_no_tests", "no cocotb test ran|ended without results"),
    ("dies", "the simulation of dequantizer ended without results, see .*sim.log"),
])
def test_no_results_is_an_error(unit, sim_build, module, message):
    with pytest.raises(verilator.ToolError, match=message):
        run(unit, module, sim_build)


def test_waves(unit, sim_build):
    run(unit, "one_of_two_passes", sim_build, waves=True)
    assert "$enddefinitions" in (unit / "dump.vcd").read_text()


def test_verilog_that_is_none(unit, sim_build):
    (unit / "dequantizer.v").write_text("module dequantizer(; endmodule")
    with pytest.raises(verilator.ToolError, match="syntax error"):
        run(unit, "one_of_two_passes", sim_build)


def test_needs_no_generator():
    """Emitted directories are run where only the bench and its golden model are installed."""
    done = subprocess.run([sys.executable, "-c", "import mxbench.runner, mxbench.bench, mxbench.verilator, sys\n"
                           "assert not {'mxforge', 'amaranth'} & set(sys.modules)"],
                          env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
