# amaranth: UnusedElaboratable=no
"""The units, and the named configurations that are emitted, linted, simulated and synthesised."""
import difflib
from dataclasses import dataclass, field

from .dequantizer import Dequantizer
from .errors import MxforgeError
from .pipeline import Streamed

__all__ = ["ENTRIES", "UNITS", "Entry", "find"]

UNITS = {unit.__module__.rpartition(".")[2]: unit for unit in (
    Dequantizer,
)}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A named configuration: a unit, the parameters that differ from its defaults, between streams or as a bare core."""
    name: str
    unit: str
    parameters: dict = field(default_factory=dict)
    streamed: bool = True

    def component(self):
        core = UNITS[self.unit](**self.parameters)
        return Streamed(core) if self.streamed else core


def _streamed(name, unit, **parameters):
    return Entry(name=name, unit=unit, parameters=parameters)


def _bare(name, unit, **parameters):
    return Entry(name=name, unit=unit, parameters=parameters, streamed=False)


# Every unit under its own name, with its defaults; then configurations of note. Those named after lanes are
# combinational, for comparing areas.
ENTRIES = {entry.name: entry for entry in (
    *(_streamed(unit, unit) for unit in UNITS),
    _streamed("dequantizer_e5m2_bf16", "dequantizer", element="e5m2", target="bf16", stages=2),
    _streamed("dequantizer_e2m1_fp16", "dequantizer", element="e2m1", target="fp16", lanes=8, stages=1),
    _streamed("dequantizer_mxint8_fp32", "dequantizer", element="mxint8", stages=4, overflow="saturate"),
    _bare("dequantize32_fp32", "dequantizer"),
    _bare("dequantize1_fp32", "dequantizer", lanes=1),
)}


def find(name):
    """The entry of that name; ``MxforgeError`` with the nearest names if there is none."""
    if name in ENTRIES:
        return ENTRIES[name]
    near = difflib.get_close_matches(name.lower(), ENTRIES, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "see mxforge list"
    raise MxforgeError(f"no unit or catalogue entry {name!r}; {hint}")
