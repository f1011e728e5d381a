# amaranth: UnusedElaboratable=no
"""The units, and the named configurations that are emitted, linted, simulated and synthesised."""
from dataclasses import dataclass, field

from .axi_stream import AxiStream
from .block_amax import BlockAmax
from .dequantizer import Dequantizer
from .dot_accumulator import DotAccumulator
from .dual_quantizer import DualQuantizer
from .element_cast import ElementCast
from .errors import MxforgeError, nearest
from .fp32_multiplier import FP32Multiplier
from .lfsr import Lfsr
from .matmul_layer import MatmulLayer
from .matmul_tile import MatmulTile
from .packer import Packer
from .pipeline import streamed
from .quantizer import Quantizer
from .scale_address import ScaleAddress
from .scale_select import ScaleSelect
from .scaled_dot import ScaledDot
from .tensor_dequantizer import TensorDequantizer
from .tensor_quantizer import TensorQuantizer
from .unit import StreamUnit
from .unpacker import Unpacker

__all__ = ["ENTRIES", "UNITS", "Entry", "find"]

UNITS = {unit.__module__.rpartition(".")[2]: unit for unit in (
    Dequantizer,
    BlockAmax,
    ScaleSelect,
    ElementCast,
    Quantizer,
    DualQuantizer,
    Lfsr,
    ScaledDot,
    DotAccumulator,
    MatmulTile,
    MatmulLayer,
    FP32Multiplier,
    TensorQuantizer,
    TensorDequantizer,
    Packer,
    Unpacker,
    ScaleAddress,
)}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A named configuration: a unit, the parameters that differ from its defaults, between streams (of AXI, too) or as a
    bare core.
    """
    name: str
    unit: str
    parameters: dict = field(default_factory=dict)
    streamed: bool = True
    axi: bool = False

    @property
    def ports(self):
        return "axi" if self.axi else "streams" if self.streamed else "bare"

    def __post_init__(self):
        if not self.streamed and issubclass(UNITS[self.unit], StreamUnit):
            raise MxforgeError(f"{self.unit} has no bare core: it is between streams by itself")

    def component(self):
        core = UNITS[self.unit](**self.parameters)
        if self.axi:
            try:
                return AxiStream(core)
            except TypeError as error:
                raise MxforgeError(f"{self.unit} can't be put between AXI4-Streams: {error}") from error
        return streamed(core) if self.streamed else core


def _streamed(name, unit, **parameters):
    return Entry(name=name, unit=unit, parameters=parameters)


def _axi(name, unit, **parameters):
    return Entry(name=name, unit=unit, parameters=parameters, axi=True)


def _bare(name, unit, **parameters):
    return Entry(name=name, unit=unit, parameters=parameters, streamed=False)


# Every unit under its own name, with its defaults; then configurations of note. Those named after lanes, and operators, are
# combinational, for comparing areas.
ENTRIES = {entry.name: entry for entry in (
    *(_bare(name, name) if getattr(unit, "is_operator", False) else _streamed(name, name) for name, unit in UNITS.items()),
    _streamed("dequantizer_e5m2_bf16", "dequantizer", element="e5m2", target="bf16", stages=2),
    _streamed("dequantizer_e2m1_fp16", "dequantizer", element="e2m1", target="fp16", lanes=8, stages=1),
    _streamed("dequantizer_mxint8_fp32", "dequantizer", element="mxint8", stages=4, overflow="saturate"),
    _streamed("dequantizer_fast", "dequantizer", stages=7),
    _streamed("block_amax_fp32_4x8", "block_amax", source="fp32", lanes=8, stages=1),
    _streamed("quantizer_bf16_floor", "quantizer", source="bf16", scale_rule="floor", stages=2),
    _streamed("quantizer_bf16_fast", "quantizer", source="bf16", stages=18),
    _streamed("quantizer_e2m1_serial", "quantizer", element="e2m1", lanes=4, stages=1),
    _streamed("quantizer_stochastic", "quantizer", element="e5m2", rounding="stochastic", lanes=8),
    _streamed("dual_quantizer_bf16_e5m2", "dual_quantizer", source="bf16", element="e5m2", block_size=16, stages=9),
    _streamed("dual_quantizer_stochastic", "dual_quantizer", element="e2m1", block_size=8, rounding="stochastic", stages=2),
    _streamed("scaled_dot_e5m2_e4m3", "scaled_dot", a_element="e5m2", stages=6),
    _streamed("scaled_dot_e2m1_serial", "scaled_dot", a_element="e2m1", b_element="e2m1", lanes=1, addend=False, target="bf16",
              stages=2),
    _streamed("scaled_dot_fast", "scaled_dot", addend=False, stages=28),
    _streamed("scaled_dot_blackwell", "scaled_dot", accumulation="blackwell", stages=8),
    _streamed("dot_accumulator_narrow", "dot_accumulator", window=40, max_blocks=256, lanes=8, stages=4),
    _streamed("dot_accumulator_fused", "dot_accumulator", accumulation="fp32_fused", lanes=8, stages=8, slots=4),
    _streamed("dot_accumulator_chain", "dot_accumulator", accumulation="fp32_chain", a_element="e5m2", lanes=4, stages=12),
    _streamed("dot_accumulator_blackwell", "dot_accumulator", accumulation="blackwell", stages=12, slots=8),
    _streamed("fp32_multiplier_streamed", "fp32_multiplier"),
    _streamed("fp32_multiplier_fast", "fp32_multiplier", product="rows", stages=19),
    _streamed("tensor_quantizer_bf16_fast", "tensor_quantizer", source="bf16", product="rows", stages=23),
    _streamed("tensor_dequantizer_e5m2_bf16", "tensor_dequantizer", element="e5m2", target="bf16", multiplier="trimmed", stages=2),
    _streamed("tensor_dequantizer_fast", "tensor_dequantizer", multiplier="trimmed", product="rows", stages=16),
    _axi("dequantizer_axis", "dequantizer", stages=2),
    _axi("quantizer_axis", "quantizer", source="bf16", lanes=8, stages=3),
    _axi("dot_accumulator_axis", "dot_accumulator", accumulation="fp32_fused", lanes=8, stages=8),
    _streamed("packer_64", "packer", bus_bytes=64, blocks=2, stages=2),
    _streamed("packer_e3m2_4", "packer", element="e3m2", bus_bytes=4),
    _streamed("unpacker_64", "unpacker", bus_bytes=64, blocks=2, stages=2),
    _streamed("unpacker_e2m1_32", "unpacker", element="e2m1", bus_bytes=32, stages=1),
    _streamed("scale_address_swizzled", "scale_address", order="swizzled", stages=1),
    _streamed("matmul_layer_exact", "matmul_layer", accumulation="exact", columns=4, block_size=16, lanes=16, window=40,
              max_blocks=256, stages=6, d_element="e5m2", scale_rule="floor", quantizer_stages=2),
    _streamed("matmul_tile_exact", "matmul_tile", accumulation="exact", lanes=8, window=40, max_blocks=256, stages=6),
    _streamed("matmul_tile_chain", "matmul_tile", accumulation="fp32_chain", a_element="e5m2", lanes=4, stages=12),
    _streamed("matmul_tile_blackwell", "matmul_tile", accumulation="blackwell", stages=12, slots=8),
    _bare("dequantize32_fp32", "dequantizer"),
    _bare("dequantize1_fp32", "dequantizer", lanes=1),
    _bare("dequantize32_fast", "dequantizer", stages=7),
    _bare("quantize32_bf16", "quantizer", source="bf16"),
    _bare("quantize32_fast", "quantizer", source="bf16", stages=18),
    _bare("dot32_e4m3", "scaled_dot", addend=False),
    _bare("dot32_fast", "scaled_dot", addend=False, stages=28),
    _bare("dot8_e4m3_c", "scaled_dot", block_size=8, lanes=8),
)}


def find(name):
    """The entry of that name; ``MxforgeError`` with the nearest names if there is none."""
    if name in ENTRIES:
        return ENTRIES[name]
    hint = nearest(name.lower(), ENTRIES, "see mxforge list", n=3, cutoff=0.5)
    raise MxforgeError(f"no unit or catalogue entry {name!r}; {hint}")
