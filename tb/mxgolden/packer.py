"""Expected outputs of the `packer` unit: bytes of blocks, one after the other, a packet at a time."""

import numpy as np

from .layouts import block_bytes, interleave
from .packets import cut_anew

__all__ = ["completing", "expected"]


def _beats(parameters, inputs):
    element, blocks = parameters["element"], parameters["blocks"]
    last = np.asarray(inputs["last"])
    count = len(last)
    size = block_bytes(element, parameters["block_size"])
    if count:
        scales = np.asarray(inputs["scale"]).reshape(count * blocks, 1)
        codes = np.asarray(inputs["elements"]).reshape(count * blocks, parameters["block_size"])
        data = interleave(scales, codes, element).reshape(count, blocks * size)
    else:
        data = np.zeros((0, blocks * size), np.uint8)
    there = np.full(count, blocks)
    if blocks > 1:
        there = np.where(last, np.minimum(np.asarray(inputs["count"], np.int64), blocks), blocks)
    return cut_anew(data, there * size, last, parameters["bus_bytes"])


def completing(parameters: dict, inputs: dict) -> np.ndarray:
    """The input row that completes each output row."""
    return _beats(parameters, inputs)[3]


def expected(parameters: dict, inputs: dict) -> dict:
    """`scale` (N,) or (N, blocks), `elements` (N, blocks * block_size) [, `count` (N,)], `last` (N,) -> `data` (M, bus_bytes),
    `keep` (M,), `last` (M,).
    """
    data, amounts, last, _ = _beats(parameters, inputs)
    width = parameters["bus_bytes"]
    bits = np.arange(64) < amounts[:, None]
    keep = np.packbits(bits, axis=1, bitorder="little").view(np.uint64)[:, 0]
    dtype = np.dtype(f"u{max(1, width // 8)}")
    return {"data": data, "keep": keep.astype(dtype), "last": last.astype(np.uint8)}
