"""Expected outputs of the `scale_address` unit."""

import numpy as np

from .layouts import swizzled_offset, swizzled_place

__all__ = ["expected"]


def expected(parameters: dict, inputs: dict) -> dict:
    """`first` (N,), `rows` (N,), `columns` (N,) -> `offset` (N,), `row` (N,), `column` (N,), `is_padding` (N,), `last` (N,)."""
    first = np.asarray(inputs["first"]).astype(bool)
    count = len(first)
    outputs = {
        "offset": np.zeros(count, np.uint32),
        "row": np.zeros(count, np.uint16),
        "column": np.zeros(count, np.uint16),
        "is_padding": np.zeros(count, np.uint8),
        "last": np.zeros(count, np.uint8),
    }
    starts = np.flatnonzero(first)
    starts = np.concatenate([[0], starts]) if count and not first[0] else starts
    for start, end in zip(starts, np.append(starts[1:], count), strict=True):
        # 0 stands for 2^16; before the first walk the matrix is a single scale.
        rows, columns = (int(inputs[name][start]) or 1 << 16 if first[start] else 1 for name in ("rows", "columns"))
        steps = np.arange(end - start, dtype=np.int64)
        if parameters["order"] == "planar":
            size = rows * columns
            row, column = np.divmod(steps % size, columns)
            offset = swizzled_offset(row, column, columns)
        else:
            size = -(-rows // 128) * -(-columns // 4) * 512
            offset = steps % size
            row, column = swizzled_place(offset, columns)
        part = slice(start, end)
        outputs["offset"][part], outputs["row"][part], outputs["column"][part] = offset, row, column
        outputs["is_padding"][part] = (row >= rows) | (column >= columns)
        outputs["last"][part] = steps % size == size - 1
    return outputs
