"""Expected outputs of the `matmul_tile` unit: a dot accumulator for each row and column.

Row k of the inputs is a block of each of A's rows and each of B's columns. Where `lanes` is less than `block_size` it takes
`block_size / lanes` beats, and the arrays hold one beat's items after the other: `a_elements` (N, beats * rows * lanes), `a_scales`
(N, beats * rows), `c` (N, beats * rows * columns). Scales and `c` count on the last beat.
"""

import numpy as np

from . import dot_accumulator

__all__ = ["check_inputs", "dots", "expected"]


def check_inputs(parameters: dict, inputs: dict) -> None:
    """`ValueError` unless the first row of each slot starts a product."""
    dot_accumulator.check_inputs(parameters, inputs)


def dots(parameters: dict, inputs: dict) -> tuple[dict, dict]:
    """(parameters, inputs) of `dot_accumulator` for all dot units at once: rows (k, row, column), the column running
    fastest.

    Each dot unit has slots of its own: unit u of U takes rows k U + u, so that its slot s is one of `slots` * U.
    """
    p = parameters
    shape = len(np.asarray(inputs["first"])), p["rows"], p["columns"]
    units = p["rows"] * p["columns"]
    flat = {name: np.repeat(np.asarray(inputs[name]), units) for name in ("first", "last")}
    for side, count, axis in (("a", p["rows"], 2), ("b", p["columns"], 1)):
        elements = np.asarray(inputs[f"{side}_elements"])
        elements = elements.reshape(shape[0], -1, count, p["lanes"]).swapaxes(1, 2).reshape(shape[0], count, -1)
        scales = np.asarray(inputs[f"{side}_scales"])[:, -count:]
        whole = np.broadcast_to(np.expand_dims(elements, axis), (*shape, p["block_size"]))
        flat[f"{side}_elements"] = whole.reshape(-1, p["block_size"])
        flat[f"{side}_scale"] = np.broadcast_to(np.expand_dims(scales, axis), shape).reshape(-1)
    if p["addend"]:
        flat["c"] = np.asarray(inputs["c"])[:, -units:].reshape(-1)
    return p | {"slots": p["slots"] * units}, flat


def expected(parameters: dict, inputs: dict) -> dict:
    """One row for each row with `last`, in their order: `results` (M, rows * columns) and, in `exact`,
    `is_out_of_window`.
    """
    check_inputs(parameters, inputs)
    outputs = dot_accumulator.expected(*dots(parameters, inputs))
    outputs["results"] = outputs.pop("result")
    units = parameters["rows"] * parameters["columns"]
    return {name: values.reshape(-1, units) for name, values in outputs.items()}
