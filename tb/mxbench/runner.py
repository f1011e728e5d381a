"""Run cocotb benches on emitted Verilog in Verilator."""
import contextlib
import hashlib
import importlib.metadata
import json
import shutil
from pathlib import Path

import cocotb_tools.config
from cocotb_tools import runner

from . import verilator

__all__ = ["run"]


class _Verilator(runner.Verilator):
    """cocotb's runner with our toolchain and runtime, and with only the ports in sight of the bench: 1.2x faster."""
    def __init__(self, tools):
        super().__init__()
        self._tools = tools

    def _simulator_in_path_build_only(self):
        self.executable = self._tools.verilator

    def _set_env_build(self):
        self.env = self._tools.environment()

    def _build_command(self):
        verilate, _ = super()._build_command()
        at = verilate.index("--public-flat-rw")
        return [[*verilate[:at], "--public-depth", "1", *verilate[at + 1:]]]


def run(verilog_path, manifest_path, test_modules, build_root, *, seed=1, waves=False, extra_env=None, run_dir=None,
        log_file=None):
    """``(count, failed)``: how many tests of the cocotb modules ran on the Verilog, and how many of them failed.

    Builds once for each content below ``build_root``, and runs in ``run_dir`` (the manifest's folder by default), where
    results and, with ``waves``, ``dump.vcd`` are left. The bench finds the manifest by ``MXFORGE_MANIFEST``. What
    cocotb says goes to ``log_file``, else to the terminal. ``ToolError`` if nothing ran.
    """
    tools = verilator.find()
    manifest_path = Path(manifest_path).absolute()
    text = Path(verilog_path).read_text()
    name = json.loads(manifest_path.read_text())["name"]
    run_dir = Path(run_dir or manifest_path.parent).absolute()
    simulator = _Verilator(tools)

    versions = [tools.version, importlib.metadata.version("cocotb")]
    key = hashlib.sha256("\0".join([text, *versions, f"waves={waves}"]).encode()).hexdigest()[:12]
    build_dir = Path(build_root).absolute() / f"cocotb-{name}-{key}"
    with verilator.locked(build_dir):
        if not (build_dir / "built").exists():
            shutil.rmtree(build_dir / "obj_dir", ignore_errors=True)
            source = build_dir / f"{name}.v"
            source.write_text(text)
            library = verilator.runtime(build_root)
            log = build_dir / "build.log"
            try:
                simulator.build(sources=[source], hdl_toplevel=name, build_dir=build_dir / "obj_dir", waves=waves,
                                timescale=("1ns", "1ns"), log_file=log)
            except RuntimeError as error:
                raise verilator.ToolError(f"Verilator could not build {name}:\n{log.read_text().strip()}") from error
            libraries = cocotb_tools.config.libs_dir
            verilator.compile_model(
                build_dir / "obj_dir", cocotb_tools.config.share_dir / "lib" / "verilator" / "verilator.cpp",
                build_dir / "obj_dir" / name, library, optimized=False, features=("TRACE", "TRACE_VCD") if waves else (),
                link=[f"-Wl,-rpath,{libraries}", f"-L{libraries}", "-lcocotbvpi_verilator"])
            (build_dir / "built").touch()

    results = run_dir / "results.xml"
    # It exits where a test failed; what failed is in the results.
    with contextlib.suppress(SystemExit, RuntimeError):
        simulator.test(
            hdl_toplevel=name, hdl_toplevel_lang="verilog", test_module=test_modules, build_dir=build_dir / "obj_dir",
            test_dir=run_dir, results_xml=str(results), seed=seed, waves=waves, log_file=log_file,
            # By default pytest rewrites the asserts of all that is imported, NumPy's too: half of a bench's time.
            extra_env={"MXFORGE_MANIFEST": str(manifest_path), "COCOTB_REWRITE_ASSERTION_FILES": " ".join(
                ["*/mxbench/*.py", *(f"{module.rpartition('.')[2]}.py" for module in test_modules)])} | (extra_env or {}))
    try:
        count, failed = runner.get_results(results)
    except RuntimeError as error:
        raise verilator.ToolError(f"the simulation of {name} ended without results"
                                  + (f", see {log_file}" if log_file else "")) from error
    # cocotb passes in silence where no test matched.
    if count == 0:
        raise verilator.ToolError(f"no cocotb test ran: none in {', '.join(test_modules)}")
    return count, failed
