"""Fixtures that put a unit through Verilator."""
import fcntl
import hashlib
import json
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SIM_BUILD = ROOT / "sim_build"


@pytest.fixture
def simulate(request):
    """``simulate(component, name)``: emit, build once, and run the benches of ``mxbench.bench`` and the cocotb tests of the
    calling test's own module.
    """
    from cocotb_tools.runner import get_results, get_runner

    from mxbench.verilator import WAIVERS, find, runtime
    from mxforge.emit import emit

    toolchain = find()

    def run(component, name, *, blocks=None):
        text, manifest = emit(component, name)
        key = hashlib.sha256("\0".join([text, toolchain.version, *WAIVERS]).encode()).hexdigest()[:12]
        build_dir = SIM_BUILD / f"{name}-{key}"
        build_dir.mkdir(parents=True, exist_ok=True)
        os.environ.update(toolchain.environment())
        runner = get_runner("verilator")
        with open(build_dir / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            built = build_dir / "built"
            if not built.exists():
                (build_dir / f"{name}.v").write_text(text)
                runner.build(sources=[build_dir / f"{name}.v"], hdl_toplevel=name, build_dir=build_dir,
                             build_args=[*(f"-Wno-{w}" for w in WAIVERS), "-LDFLAGS", str(runtime(SIM_BUILD))],
                             timescale=("1ns", "1ns"), log_file=build_dir / "build.log")
                built.touch()
        run_dir = SIM_BUILD / "runs" / f"{request.module.__name__}-{request.node.name}"
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / "manifest.json").write_text(json.dumps(manifest, indent=2))
        environment = {"MXFORGE_MANIFEST": str(run_dir / "manifest.json"), "PYTHONPATH": f"{ROOT / 'tb'}:{ROOT / 'rtl'}"}
        if blocks:
            environment["MXFORGE_BLOCKS"] = str(blocks)
        results = runner.test(hdl_toplevel=name, hdl_toplevel_lang="verilog", test_module=["mxbench.bench"],
                              build_dir=build_dir, test_dir=run_dir, seed=1, log_file=run_dir / "sim.log", extra_env=environment)
        count, failed = get_results(results)
        assert count > 0, f"no cocotb test ran, see {run_dir / 'sim.log'}"
        assert failed == 0, f"{failed} of {count} cocotb tests failed, see {run_dir / 'sim.log'}"

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
