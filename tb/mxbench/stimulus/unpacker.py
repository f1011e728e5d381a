"""Packets of beats."""
import numpy as np

from mxbench.manifest import dtype_of
from mxgolden.layouts import block_bytes

from .packets import ends, lengths

__all__ = ["blocks", "classes"]


def blocks(parameters, count, rng):
    """``count`` beats of any bytes, kept or not; packets that end behind a block, where their last beat can, or anywhere;
    last beats of no bytes; bits of ``keep`` behind the first that is 0, and of other beats, which don't matter.
    """
    width = parameters["bus_bytes"]
    size = block_bytes(parameters["element"], parameters["block_size"])
    last = ends(count, rng)
    at = np.flatnonzero(last)
    before = (lengths(last) - 1) * width
    # The last end of a block that the last beat reaches, if it reaches one.
    whole = (before + width) // size * size - before
    kept = np.full(count, width)
    kind = rng.random(len(at))
    kept[at] = np.where((kind < 0.7) & (whole > 0), whole, np.where(kind < 0.8, 0, rng.integers(0, width + 1, len(at))))

    bits = np.arange(width) < kept[:, None]
    anything = rng.random((count, width)) < 0.5
    behind = np.where(np.arange(width) > kept[:, None], anything, bits)
    bits = np.where(rng.random((count, 1)) < 0.1, np.where(last[:, None], behind, anything), bits)
    keep = np.zeros(count, np.uint64)
    for n in range(width):
        keep |= bits[:, n].astype(np.uint64) << np.uint64(n)
    return {"data": rng.integers(0, 256, (count, width), dtype=np.uint8), "keep": keep.astype(dtype_of(width)), "last": last}


def classes(parameters, inputs, outputs):
    """Packets, beats and transfers of each kind there were."""
    width = parameters["bus_bytes"]
    last = inputs["last"].astype(bool)
    out_last, is_truncated = outputs["last"].astype(bool), outputs["is_truncated"].astype(bool)
    runs = lengths(last)
    nothing = ~outputs["elements"].any(axis=1) & ~outputs["scale"].reshape(len(out_last), -1).any(axis=1)
    first = inputs["keep"] & inputs["keep"].dtype.type(1)
    hits = {
        "packets": last,
        "packet of one beat": runs == 1,
        "packet of many beats": runs > 12,
        "packet that ends with a block": out_last & ~is_truncated,
        "truncated packet": is_truncated,
        "truncated packet, and a whole one behind it": is_truncated[out_last][:-1] & ~is_truncated[out_last][1:],
        "last beat of no bytes": last & (first == 0),
        "transfer of zeros": is_truncated & nothing,
        "other beat with a bit of keep 0": ~last & (inputs["keep"] != (1 << width) - 1),
    }
    if parameters["blocks"] > 1:
        for n in range(parameters["blocks"] + 1):
            hits[f"last transfer of {n} blocks"] = out_last & (outputs["count"] == n)
    return {name: int(np.sum(hit)) for name, hit in hits.items()}
