"""Expected outputs of the `unpacker` unit: the bytes of each packet, a block after the other."""

import numpy as np

from .layouts import block_bytes, deinterleave
from .packets import cut_anew

__all__ = ["completing", "expected"]


def _transfers(parameters, inputs):
    width = parameters["bus_bytes"]
    keep = np.asarray(inputs["keep"]).astype(np.uint64)
    last = np.asarray(inputs["last"])
    data = np.asarray(inputs["data"]).reshape(len(last), width)
    kept = np.unpackbits(keep[:, None].view(np.uint8), axis=1, count=width, bitorder="little")
    amounts = np.where(last, np.cumprod(kept, axis=1).sum(axis=1), width)
    size = block_bytes(parameters["element"], parameters["block_size"])
    return size, cut_anew(data, amounts, last, parameters["blocks"] * size)


def completing(parameters: dict, inputs: dict) -> np.ndarray:
    """The input row that completes each output row."""
    return _transfers(parameters, inputs)[1][3]


def expected(parameters: dict, inputs: dict) -> dict:
    """`data` (N, bus_bytes), `keep` (N,), `last` (N,) -> `scale` (M,) or (M, blocks), `elements` (M, blocks * block_size)
    [, `count` (M,)], `last` (M,), `is_truncated` (M,).
    """
    blocks = parameters["blocks"]
    size, (data, amounts, last, _) = _transfers(parameters, inputs)
    scales, codes = deinterleave(data.reshape(-1), parameters["element"], parameters["block_size"])
    count = len(data)
    outputs = {"scale": scales if blocks == 1 else scales.reshape(count, blocks), "elements": codes.reshape(count, -1)}
    if blocks > 1:
        outputs["count"] = (-(-amounts // size)).astype(np.uint8)
    is_truncated = (amounts % size != 0) | (amounts == 0)
    return outputs | {"last": last.astype(np.uint8), "is_truncated": is_truncated.astype(np.uint8)}
