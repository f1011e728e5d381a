"""Golden model of microscaling (MX) arithmetic: every bit that the hardware must give, from NumPy alone.

Floating-point values are bit patterns (uint32, uint16) or float32 arrays; codes and scales are uint8; blocks run
along the last axis. One module a hardware unit has `expected(parameters, inputs)` for benches.
"""

from .blocks import dequantize, quantize
from .codec import decode, encode
from .layouts import (
    deinterleave,
    from_planes,
    interleave,
    pack_codes,
    swizzle_scales,
    swizzled_offset,
    swizzled_place,
    to_planes,
    unpack_codes,
    unswizzle_scales,
)
from .measures import flushed_share, sqnr
from .products import dot
from .tensor_dequantizer import dequantize_tensor
from .tensor_quantizer import quantize_tensor

__all__ = [
    "decode",
    "deinterleave",
    "dequantize",
    "dequantize_tensor",
    "dot",
    "encode",
    "flushed_share",
    "from_planes",
    "interleave",
    "pack_codes",
    "quantize",
    "quantize_tensor",
    "sqnr",
    "swizzle_scales",
    "swizzled_offset",
    "swizzled_place",
    "to_planes",
    "unpack_codes",
    "unswizzle_scales",
]
