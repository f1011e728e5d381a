"""Fixtures that put a unit through Verilator."""
import inspect
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SIM_BUILD = ROOT / "sim_build"


@pytest.fixture
def simulate(request):
    """``simulate(component, name)``: emit, build once, and run the benches of ``mxbench.bench`` and the cocotb tests of the
    calling test's own module.
    """
    from mxbench.runner import run as run_benches
    from mxforge.emit import emit

    modules = ["mxbench.bench"]
    if "@cocotb." in inspect.getsource(request.module):
        modules.append(request.module.__name__)

    def run(component, name, *, blocks=None):
        text, manifest = emit(component, name)
        run_dir = SIM_BUILD / "runs" / f"{request.module.__name__}-{request.node.name}"
        run_dir.mkdir(parents=True, exist_ok=True)
        verilog, contract, log = run_dir / f"{name}.v", run_dir / "manifest.json", run_dir / "sim.log"
        verilog.write_text(text)
        contract.write_text(json.dumps(manifest, indent=2))
        count, failed = run_benches(verilog, contract, modules, SIM_BUILD, log_file=log,
                                    extra_env={"MXFORGE_BLOCKS": str(blocks)} if blocks else None)
        assert failed == 0, f"{failed} of {count} cocotb tests failed, see {log}"

    return run


@pytest.fixture
def sim_build():
    """The folder of everything that is built."""
    return SIM_BUILD


@pytest.fixture
def play(sim_build):
    """``play(component, name, inputs)``: the outputs of the emitted Verilog for whole arrays, by the C++ player."""
    from mxforge.emit import emit
    from mxforge.flow import player

    def run(component, name, inputs, **options):
        return player.build(*emit(component, name), sim_build).play(inputs, **options)

    return run
