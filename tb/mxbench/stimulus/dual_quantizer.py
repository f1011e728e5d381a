"""Tiles for the dual_quantizer."""
import numpy as np

from mxgolden.formats import wide_format

from .quantizer import blocks as quantizer_blocks
from .quantizer import classes as quantizer_classes
from .quantizing import with_signs

__all__ = ["blocks", "classes"]


def _turned(arrays, size):
    """Each row of the arrays, a tile, transposed; as blocks of ``size``."""
    return {name: array.reshape(-1, size, size).swapaxes(1, 2).reshape(-1, size) for name, array in arrays.items()}


def blocks(parameters, count, rng):
    """``count`` tiles: a quantizer's blocks as rows or as columns; one row, one column or both of other size than the rest;
    a single NaN, Inf or value among zeros or numbers; zeros."""
    source, size = parameters["source"], parameters["block_size"]
    wide = wide_format(source)
    inputs = quantizer_blocks(parameters, count * size, rng)
    is_turned = rng.random((count, 1, 1)) < 0.5
    turned = _turned(inputs, size)
    inputs = {name: np.where(is_turned, turned[name].reshape(-1, size, size), array.reshape(-1, size, size))
              for name, array in inputs.items()}

    # Exponents of one centre, lifted or lowered in a row, a column, or both.
    top = wide.inf_code >> wide.mantissa_width
    centre = rng.integers(1, top, (count, 1, 1))
    lift = np.zeros((count, size, size), np.int64)
    for shape in ((count, size, 1), (count, 1, size)):
        is_one = np.arange(size).reshape(shape[1:]) == rng.integers(0, size, (count, 1, 1))
        lift += np.where(is_one & (rng.random((count, 1, 1)) < 0.6), rng.integers(-24, 25, (count, 1, 1)), 0)
    exponents = np.clip(centre + lift + rng.integers(-3, 1, lift.shape), 0, top - 1)
    mantissas = rng.integers(0, 1 << wide.mantissa_width, lift.shape)
    crossed = with_signs((exponents << wide.mantissa_width | mantissas).astype(wide.dtype), source, rng)

    specials = np.array([wide.inf_code, wide.nan_code, wide.inf_code + 1, 1, 1 << wide.mantissa_width, wide.max_code], wide.dtype)
    is_alone = (np.arange(size * size) == rng.integers(0, size * size, (count, 1))).reshape(lift.shape)
    special = with_signs(np.broadcast_to(rng.choice(specials, (count, 1, 1)), lift.shape), source, rng)
    zeros = with_signs(np.zeros_like(crossed), source, rng)
    kind = rng.random((count, 1, 1))
    values = np.where(kind < 0.3, crossed, inputs["values"])
    values = np.where((kind > 0.2) & (kind < 0.35) & is_alone, special, values)
    values = np.where(kind > 0.95, np.where(is_alone, special, zeros), values)
    values = np.where(kind > 0.99, zeros, values)
    return {name: array.reshape(count, -1) for name, array in (inputs | {"values": values}).items()}


def classes(parameters, inputs, outputs):
    """How many rows and columns, and values, of each kind there were, and tiles."""
    size = parameters["block_size"]
    wide = wide_format(parameters["source"])
    rows = {name: array.reshape(-1, size) for name, array in inputs.items()}
    hits = {}
    for side, values in ("row", rows), ("column", _turned(inputs, size)):
        copy = {"scale": outputs[f"{side}_scales"].reshape(-1), "elements": outputs[f"{side}_elements"].reshape(-1, size)}
        hits |= {f"{side}: {name}": count for name, count in quantizer_classes(parameters, values, copy).items()}
        scales = outputs[f"{side}_scales"].astype(np.int64)
        finite = np.where(scales == 255, -1, scales)
        hits[f"{side}: one scale far above the others"] = int(np.sum(np.diff(np.sort(finite, axis=1))[:, -1] > 6))
    magnitudes = inputs["values"] & wide.dtype(wide.sign_code - 1)
    specials = (magnitudes >= wide.inf_code).sum(axis=1)
    by_row = outputs["row_elements"].reshape(-1, size, size)
    by_column = outputs["column_elements"].reshape(-1, size, size).swapaxes(1, 2)
    tiles = {
        "tile with one NaN or Inf": specials == 1,
        "tile of zeros": (magnitudes == 0).all(axis=1),
        "tile with one number among zeros": ((magnitudes > 0).sum(axis=1) == 1) & (specials == 0),
        "tile whose copies differ in codes": (by_row != by_column).any(axis=(1, 2)),
        "tile whose copies are alike": (by_row == by_column).all(axis=(1, 2)) & (magnitudes > 0).any(axis=1),
    }
    return hits | {name: int(np.sum(hit)) for name, hit in tiles.items()}
