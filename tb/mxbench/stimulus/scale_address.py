"""Walks over scale matrices."""
import numpy as np

__all__ = ["blocks", "classes"]

HARD = 1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 63, 64, 65, 96, 127, 128, 129, 255, 256, 257, 383, 385, 512


def _sizes(rng):
    """Rows and columns: about tiles' ends, small, long and thin, as large as they get."""
    kind = rng.random()
    if kind < 0.05:
        return 1, 1
    if kind < 0.6:
        return int(rng.choice(HARD)), int(rng.choice(HARD[:12] if kind < 0.5 else HARD))
    if kind < 0.8:
        return int(rng.integers(1, 9)), int(rng.integers(1, 9))
    large = int(rng.choice([0, 65535, 65409, int(rng.integers(1, 1 << 16))]))
    thin = int(rng.integers(1, 6))
    return (large, large) if kind < 0.85 else (large, thin) if kind < 0.93 else (thin, large)


def blocks(parameters, count, rng):
    """``count`` beats: walks that are cut short, end, or start again; sizes on other beats that don't matter."""
    inputs = {
        "first": np.zeros(count, np.uint8),
        "rows": rng.integers(0, 1 << 16, count, dtype=np.uint16),
        "columns": rng.integers(0, 1 << 16, count, dtype=np.uint16),
    }
    at = 0
    while at < count:
        rows, columns = _sizes(rng)
        inputs["first"][at], inputs["rows"][at], inputs["columns"][at] = 1, rows, columns
        whole = (rows or 1 << 16) * (columns or 1 << 16)
        if parameters["order"] == "swizzled":
            whole = -(-(rows or 1 << 16) // 128) * -(-(columns or 1 << 16) // 4) * 512
        longest = max(100, count // 40)
        length = whole if rng.random() < 0.6 else int(rng.integers(1, 2 * whole + 2))
        at += min(length, longest)
    return inputs


def classes(parameters, inputs, outputs):
    """Addresses of each kind there were."""
    first, last = inputs["first"].astype(bool), outputs["last"].astype(bool)
    hits = {
        "walks": first,
        "walks to the end": last,
        "walks that start again": last[:-1] & ~first[1:],
        "walks cut short": first[1:] & ~last[:-1],
        "matrix of one scale": first & (inputs["rows"] == 1) & (inputs["columns"] == 1),
        "65,536 rows or columns": first & ((inputs["rows"] == 0) | (inputs["columns"] == 0)),
        "beyond the first row of tiles": outputs["row"] > 127,
        "beyond the first column of tiles": outputs["column"] > 3,
    }
    if parameters["order"] == "swizzled":
        hits |= {"padding": outputs["is_padding"], "no padding": outputs["is_padding"] == 0}
    return {name: int(np.sum(hit)) for name, hit in hits.items()}
