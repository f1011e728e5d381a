"""A virtual board: an accelerator's Verilog in Verilator, behind a pseudo-terminal that a host opens as a serial port."""
import functools
import os
import select
import subprocess
from importlib import resources

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
_SECONDS = 30


@functools.lru_cache(maxsize=4)
def _text(design):
    # Without resets, since a simulation starts from initial values: all that hangs on an input is computed twice a cycle.
    return verilog.convert(design.accelerator(patience=_PATIENCE, domain="units"), name="board", emit_src=False,
                           strip_internal_attrs=True, missing_domain=lambda name: ClockDomain(name, reset_less=True))


def build(design, build_dir):
    """The program of a `VirtualBoard`, built below ``build_dir`` once for each content."""
    harness = resources.files(__package__).joinpath("virtual.cpp.in").read_text().replace("@DIVISOR@", str(design.divisor))
    return verilator.build_program("virtual", _text(design), "board", harness, build_dir, ["-Wno-fatal"])


class VirtualBoard:
    """A virtual board of ``design``, running; ``port`` is what a host opens. It ends with `close`, or with this process.

    ``MxforgeError`` if it doesn't start, :class:`mxbench.verilator.ToolError` if it can't be built.
    """
    def __init__(self, build_dir, design=DESIGN):
        self._process = subprocess.Popen([build(design, build_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
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
