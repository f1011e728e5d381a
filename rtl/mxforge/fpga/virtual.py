"""A virtual board: an accelerator's Verilog in Verilator, behind a pseudo-terminal that a host opens as a serial port."""
import functools
import hashlib
import os
import select
import shutil
import subprocess
from importlib import resources
from pathlib import Path

from amaranth import ClockDomain
from amaranth.back import verilog

from mxbench import verilator

from ..errors import MxforgeError
from .design import Design

__all__ = ["DESIGN", "VirtualBoard", "build"]

# Few lanes: the line is slower in any case, and so is the simulation of more.
DESIGN = Design(board="virtual", clock=12_000_000, divisor=4, depth=16384, units={
    "quantize": {"lanes": 4, "stages": 2},
    "dequantize": {"lanes": 4, "stages": 1},
    "dot": {"lanes": 4, "stages": 2},
    "matmul": {"lanes": 4, "stages": 2},
})
# Clocks without a byte after which half a frame is given up.
_PATIENCE = 1 << 20
_FLAGS = ("-O3", "--inline-mult", "2000", "--timescale", "1ns/1ns", "-Wno-WIDTH", "-Wno-CASEINCOMPLETE", "-Wno-UNOPTFLAT",
          "-Wno-fatal")
_SECONDS = 30


@functools.lru_cache(maxsize=4)
def _text(patience, design):
    # Without resets, since a simulation starts from initial values: all that hangs on an input is computed twice a cycle.
    return verilog.convert(design.accelerator(patience=patience, domain="units"), name="board", emit_src=False,
                           strip_internal_attrs=True, missing_domain=lambda name: ClockDomain(name, reset_less=True))


def build(design, build_dir, patience=_PATIENCE):
    """The program of a `VirtualBoard`, built below ``build_dir`` once for each content."""
    tools = verilator.find()
    verilator.require_compiler()
    text = _text(patience, design)
    source = resources.files(__package__).joinpath("virtual.cpp.in").read_text().replace("@DIVISOR@", str(design.divisor))
    key = hashlib.sha256("\0".join([text, source, tools.version, *_FLAGS]).encode()).hexdigest()[:12]
    folder = Path(build_dir).absolute() / f"board-{key}"
    with verilator.locked(folder):
        if not (folder / "built").exists():
            shutil.rmtree(folder / "obj_dir", ignore_errors=True)
            board, harness = folder / "board.v", folder / "virtual.cpp"
            board.write_text(text)
            harness.write_text(source)
            library = verilator.runtime(build_dir)
            verilator.run_tool([tools.verilator, "--cc", "--top-module", "board", "--prefix", "Vtop", "-Mdir", folder / "obj_dir",
                                *_FLAGS, board], env=tools.environment(), cwd=folder)
            verilator.compile_model(folder / "obj_dir", harness, folder / "obj_dir" / "board", library)
            (folder / "built").touch()
    return folder / "obj_dir" / "board"


class VirtualBoard:
    """A virtual board of ``design``, running; ``port`` is what a host opens. It ends with `close`, or with this process.

    ``patience``: clocks without a byte, after which half a frame is given up. ``MxforgeError`` if it doesn't start, and
    :class:`mxbench.verilator.ToolError` if it can't be built.
    """
    def __init__(self, build_dir, design=DESIGN, patience=_PATIENCE):
        self._process = subprocess.Popen([build(design, build_dir, patience)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         start_new_session=True)
        ready, _, _ = select.select([self._process.stdout], [], [], _SECONDS)
        self.port = os.fsdecode(self._process.stdout.readline()).strip() if ready else ""
        if not self.port:
            self.close()
            raise MxforgeError(f"the virtual board didn't start (status {self._process.returncode})")

    def close(self):
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
