"""Packets of blocks."""
import numpy as np

from mxgolden.layouts import block_bytes

from .floats import codes
from .packets import ends, lengths

__all__ = ["blocks", "classes"]


def blocks(parameters, count, rng):
    """``count`` transfers: any scales and codes; on a packet's last any count of blocks, on others one that doesn't matter."""
    of = parameters["blocks"]
    inputs = {
        "scale": rng.integers(0, 256, (count, of), dtype=np.uint8)[:, 0 if of == 1 else slice(None)],
        "elements": codes(parameters["element"], (count, of * parameters["block_size"]), rng),
        "last": ends(count, rng),
    }
    if of > 1:
        inputs["count"] = rng.integers(0, 1 << of.bit_length(), count, dtype=np.uint8)
    return inputs


def classes(parameters, inputs, outputs):
    """Packets and beats of each kind there were."""
    of, width = parameters["blocks"], parameters["bus_bytes"]
    size = block_bytes(parameters["element"], parameters["block_size"])
    last = inputs["last"].astype(bool)
    runs = lengths(last)
    kept = sum((outputs["keep"] >> np.uint8(n)) & np.uint8(1) for n in range(width)).astype(np.int64)
    hits = {
        "packets": last,
        "packet of one transfer": runs == 1,
        "packet of many transfers": runs > 12,
        "one transfer, and another behind it": (runs[:-1] == 1) & (runs[1:] == 1),
    }
    if width > 1:
        hits["whole last beat"] = (kept == width) & (outputs["last"] == 1)
        hits["last beat of fewer bytes"] = (kept < width) & (outputs["last"] == 1)
    if size % 2 and width > 1:
        # A place that a block never starts at would be a shift that nothing tries.
        starts = np.concatenate([np.arange(run * of) * size % width for run in runs[:1000]])
        hits["block at each place of a beat, the least"] = np.bincount(starts, minlength=width).min()
    if of > 1:
        hits["no block on the last transfer"] = last & (inputs["count"] == 0)
        hits["some blocks on the last transfer"] = last & (inputs["count"] > 0) & (inputs["count"] < of)
        hits["all blocks on the last transfer"] = last & (inputs["count"] >= of)
        hits["last beat of no bytes"] = kept == 0
    return {name: int(np.sum(hit)) for name, hit in hits.items()}
