"""Blocks of rows and columns for the matrix tile."""
import numpy as np

from mxgolden.matmul_tile import dots

from . import dot_accumulator

__all__ = ["blocks", "classes"]


def blocks(parameters, count, rng):
    """``count`` rows: what the dot accumulator gets, for as many dot units as the longer side has.

    The units on the diagonal get block pairs that are made for each other; the others a row of one and a column of another.
    """
    p = parameters
    rows, columns, beats = p["rows"], p["columns"], p["block_size"] // p["lanes"]
    marks = dot_accumulator.marks(p, count, rng)
    drawn = [dot_accumulator.products(p, marks, rng) for _ in range(max(rows, columns))]
    inputs = {name: drawn[0][name] for name in ("first", "last")}
    for side, number in ("a", rows), ("b", columns):
        elements = np.stack([one[f"{side}_elements"] for one in drawn[:number]], axis=1)
        elements = elements.reshape(count, number, beats, p["lanes"]).swapaxes(1, 2)
        inputs[f"{side}_elements"] = elements.reshape(count, -1)
        scales = np.stack([one[f"{side}_scale"] for one in drawn[:number]], axis=1)
        inputs[f"{side}_scales"] = _on_last_beat(scales, beats, rng)
    if p["addend"]:
        # Off the diagonal the addend is its row's.
        c = np.stack([drawn[row]["c"] for row in range(rows) for _ in range(columns)], axis=1)
        inputs["c"] = _on_last_beat(c, beats, rng)
    return inputs


def _on_last_beat(values, beats, rng):
    """What is read on the last beat, behind others that must not matter."""
    count, width = values.shape
    whole = rng.integers(0, np.iinfo(values.dtype).max, (count, beats, width), values.dtype, endpoint=True)
    whole[:, -1] = values
    return whole.reshape(count, -1)


def classes(parameters, inputs, outputs):
    """The dot accumulator's, over all dot units."""
    flat = {name.replace("results", "result"): values.reshape(-1) for name, values in outputs.items()}
    return dot_accumulator.classes(*dots(parameters, inputs), flat)
