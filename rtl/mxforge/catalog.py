# amaranth: UnusedElaboratable=no
"""The units, and the named configurations that are emitted, linted, simulated and synthesised."""
import difflib
from dataclasses import dataclass, field

from .block_amax import BlockAmax
from .dequantizer import Dequantizer
from .dot_accumulator import DotAccumulator
from .element_cast import ElementCast
from .errors import MxforgeError
from .lfsr import Lfsr
from .matmul_tile import MatmulTile
from .pipeline import Streamed
from .quantizer import Quantizer
from .scale_select import ScaleSelect
from .scaled_dot import ScaledDot

__all__ = ["ENTRIES", "UNITS", "Entry", "find"]

UNITS = {unit.__module__.rpartition(".")[2]: unit for unit in (
    Dequantizer,
    BlockAmax,
    ScaleSelect,
    ElementCast,
    Quantizer,
    Lfsr,
    ScaledDot,
    DotAccumulator,
    MatmulTile,
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
    _streamed("block_amax_fp32_4x8", "block_amax", source="fp32", lanes=8, stages=1),
    _streamed("quantizer_bf16_floor", "quantizer", source="bf16", scale_rule="floor", stages=2),
    _streamed("quantizer_e2m1_serial", "quantizer", element="e2m1", lanes=4, stages=1),
    _streamed("quantizer_stochastic", "quantizer", element="e5m2", rounding="stochastic", lanes=8),
    _streamed("scaled_dot_e5m2_e4m3", "scaled_dot", a_element="e5m2", stages=6),
    _streamed("scaled_dot_e2m1_serial", "scaled_dot", a_element="e2m1", b_element="e2m1", lanes=1, addend=False, target="bf16",
              stages=2),
    _streamed("scaled_dot_blackwell", "scaled_dot", accumulation="blackwell", stages=8),
    _streamed("dot_accumulator_narrow", "dot_accumulator", window=40, max_blocks=256, lanes=8, stages=4),
    _streamed("dot_accumulator_fused", "dot_accumulator", accumulation="fp32_fused", lanes=8, stages=8, slots=4),
    _streamed("dot_accumulator_chain", "dot_accumulator", accumulation="fp32_chain", a_element="e5m2", lanes=4, stages=12),
    _streamed("dot_accumulator_blackwell", "dot_accumulator", accumulation="blackwell", stages=12, slots=8),
    _streamed("matmul_tile_exact", "matmul_tile", accumulation="exact", lanes=8, window=40, max_blocks=256, stages=6),
    _streamed("matmul_tile_chain", "matmul_tile", accumulation="fp32_chain", a_element="e5m2", lanes=4, stages=12),
    _streamed("matmul_tile_blackwell", "matmul_tile", accumulation="blackwell", stages=12, slots=8),
    _bare("dequantize32_fp32", "dequantizer"),
    _bare("dequantize1_fp32", "dequantizer", lanes=1),
    _bare("quantize32_bf16", "quantizer", source="bf16"),
    _bare("dot32_e4m3", "scaled_dot", addend=False),
    _bare("dot8_e4m3_c", "scaled_dot", block_size=8, lanes=8),
)}


def find(name):
    """The entry of that name; ``MxforgeError`` with the nearest names if there is none."""
    if name in ENTRIES:
        return ENTRIES[name]
    near = difflib.get_close_matches(name.lower(), ENTRIES, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "see mxforge list"
    raise MxforgeError(f"no unit or catalogue entry {name!r}; {hint}")
