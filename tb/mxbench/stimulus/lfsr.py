"""Values for lfsr."""
import numpy as np

from mxbench.manifest import dtype_of

__all__ = ["blocks", "classes"]


def blocks(parameters, count, rng):
    """``count`` beats of any values."""
    width = parameters["width"]
    shape = (count, parameters["lanes"])
    return {"values": rng.integers(0, 1 << width, shape, dtype=np.uint64).astype(dtype_of(width))}


def classes(parameters, inputs, outputs):
    """How often each bit of the random numbers was 1, and 0: the least."""
    bits = outputs["random"][:, :, None] >> np.arange(16) & 1
    return {"1, least of any bit": int(bits.sum(axis=(0, 1)).min()), "0, least of any bit": int((1 - bits).sum(axis=(0, 1)).min())}
