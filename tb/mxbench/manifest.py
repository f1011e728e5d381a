"""The manifest that ships beside the Verilog: what its ports carry."""
import json
import os
from pathlib import Path

import numpy as np

__all__ = ["Payload", "bounds", "dtype_of", "load"]


def load(path=None):
    """The manifest at ``path``, or at the one that the environment's ``MXFORGE_MANIFEST`` names."""
    return json.loads(Path(path or os.environ["MXFORGE_MANIFEST"]).read_text())


def bounds(cycles):
    """``(least, most)`` of a latency or an interval: the same but where it depends on the data."""
    return tuple(cycles) if isinstance(cycles, list) else (cycles, cycles)


def dtype_of(width):
    """The smallest unsigned NumPy type of at least ``width`` bits."""
    for bits in (8, 16, 32, 64):
        if width <= bits:
            return np.dtype(f"u{bits // 8}")
    raise ValueError(f"width must be 1 to 64, not {width}")


class Payload:
    """The fields of a payload port, and blocks as its beats.

    A block is one row of each array: of an array field as many items as ``beats`` beats carry, of a scalar field one, which
    each beat repeats.
    """
    def __init__(self, manifest, port):
        streamed = manifest["streamed"]
        self.fields = manifest["ports"][f"{port}__payload" if streamed else port]["fields"]
        self.beats = manifest["beats"][port]

    def pack(self, values):
        """One beat as an integer, from its fields' values (a sequence for an array field)."""
        word = 0
        for f in self.fields:
            items = values[f["name"]] if "count" in f else [values[f["name"]]]
            mask = (1 << f["width"]) - 1
            for n, item in enumerate(items):
                word |= (int(item) & mask) << (f["offset"] + n * f["width"])
        return word

    def unpack(self, word):
        """A beat's fields' values, unsigned (a list for an array field)."""
        values = {}
        for f in self.fields:
            mask = (1 << f["width"]) - 1
            items = [(word >> (f["offset"] + n * f["width"])) & mask for n in range(f.get("count", 1))]
            values[f["name"]] = items if "count" in f else items[0]
        return values

    def to_beats(self, rows):
        """Beats, as integers, of row arrays."""
        blocks = len(next(iter(rows.values())))
        beats = []
        for block in range(blocks):
            for beat in range(self.beats):
                values = {}
                for f in self.fields:
                    row = rows[f["name"]][block]
                    values[f["name"]] = row[beat * f["count"]:(beat + 1) * f["count"]] if "count" in f else row
                beats.append(self.pack(values))
        return beats

    def to_rows(self, beats):
        """Row arrays of beats; the scalars of a block are its last beat's."""
        values = [self.unpack(beat) for beat in beats]
        rows = {}
        for f in self.fields:
            column = [v[f["name"]] for v in values]
            array = np.array(column, dtype=dtype_of(f["width"]))
            if "count" in f:
                rows[f["name"]] = array.reshape(-1, self.beats * f["count"])
            else:
                rows[f["name"]] = array[self.beats - 1::self.beats]
        return rows
