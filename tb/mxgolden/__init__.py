"""Golden model of microscaling (MX) arithmetic: every bit that the hardware must give, from NumPy alone.

Floating-point values are bit patterns (uint32, uint16) or float32 arrays; codes and scales are uint8; blocks run
along the last axis. One module a hardware unit has `expected(parameters, inputs)` for benches.
"""

from .blocks import dequantize, quantize
from .codec import decode, encode
from .products import dot

__all__ = ["decode", "dequantize", "dot", "encode", "quantize"]
