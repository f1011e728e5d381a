"""A virtual board: an accelerator's Verilog in Verilator, behind a pseudo-terminal that a host opens as a serial port."""
import contextlib
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

__all__ = ["DESIGN", "VirtualBoard", "build", "program"]

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
# Verilator's options and features for waves.
_WAVES = ("--trace-vcd", "--trace-depth", "3"), ("TRACE", "TRACE_VCD")


@functools.lru_cache(maxsize=4)
def _text(design):
    # Without resets, since a simulation starts from initial values: all that hangs on an input is computed twice a cycle.
    return verilog.convert(design.accelerator(patience=_PATIENCE, domain="units"), name="board", emit_src=False,
                           strip_internal_attrs=True, missing_domain=lambda name: ClockDomain(name, reset_less=True))


def build(design, build_dir, waves=False):
    """The program of a `VirtualBoard`, built below ``build_dir`` once for each content; with ``waves`` one that can write them."""
    text, options, features = _text(design), (), ()
    if waves:
        # Verilator leaves names that start so out of the waves; a VCD file can't have those that Yosys made.
        text = text.replace("\\$", "\\_")
        options, features = _WAVES
    return program(text, design.divisor, build_dir, options, features)


def program(text, divisor, build_dir, options=(), features=()):
    """That of module ``board`` of Verilog ``text``; ``options`` of Verilator, ``features`` as of `verilator.compile_model`."""
    harness = resources.files(__package__).joinpath("virtual.cpp.in").read_text().replace("@DIVISOR@", str(divisor))
    return verilator.build_program("virtual", text, "board", harness, build_dir, ["-Wno-fatal", *options], features)


class VirtualBoard:
    """A virtual board of ``design``, running; ``port`` is what a host opens. It ends with `close`, or with this process.

    ``waves``: built so that it can write them (`record`), and slower. ``MxforgeError`` if it doesn't start,
    :class:`mxbench.verilator.ToolError` if it can't be built.
    """
    def __init__(self, build_dir, design=DESIGN, waves=False):
        self._process = subprocess.Popen([build(design, build_dir, waves)], bufsize=0, stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, start_new_session=True)
        self.port = self._heard().strip()
        if not self.port:
            self.close()
            raise MxforgeError(f"the virtual board didn't start (status {self._process.returncode})")

    def _heard(self):
        ready, _, _ = select.select([self._process.stdout], [], [], _SECONDS)
        return os.fsdecode(self._process.stdout.readline()) if ready else ""

    def _tell(self, line):
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(os.fsencode(f"{line}\n"))
        if not self._heard():
            raise MxforgeError("the virtual board has ended")

    @contextlib.contextmanager
    def record(self, path):
        """What the board does meanwhile, as a VCD file: a step of time is a clock, with what its rising edge finds."""
        self._tell(path)
        yield
        self._tell("")

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
