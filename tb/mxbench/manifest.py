"""The manifest that ships beside the Verilog: what its ports carry."""
import json
import os
from pathlib import Path

import numpy as np

__all__ = ["Payload", "as_streams", "bounds", "dtype_of", "has_marks", "load", "marks", "with_marks"]


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


def as_streams(manifest):
    """The manifest of an AXI4-Stream top as if it were a unit between plain streams, whose payloads are ``tdata``, ``tkeep``
    where it is a field of the unit, and ``tlast``, the first at the least significant bit; other manifests as they are.

    A ``tlast`` that is no field of the unit is an array field of that name, one item a beat.
    """
    if not manifest.get("axi"):
        return manifest

    def payload(side):
        parts = [manifest["ports"][f"{side}_t{part}"] for part in ("data", "keep", "last")]
        fields, offset = [], 0
        for name, port in zip(("tdata", "tkeep", "tlast"), parts, strict=True):
            found = port.get("fields", [])
            if name == "tlast" and not found:
                found = [{"name": name, "offset": 0, "count": 1, "width": 1, "signed": False, "meaning": "1 ends a packet"}]
            fields += [field | {"offset": field["offset"] + offset} for field in found]
            offset += port["width"] if found else 0
        return {"dir": parts[0]["dir"], "width": offset, "fields": fields}

    def flag(direction):
        return {"dir": direction, "width": 1}

    ports = {"clk": flag("in"), "rst": flag("in"),
             "i__valid": flag("in"), "i__ready": flag("out"), "i__payload": payload("s_axis"),
             "o__valid": flag("out"), "o__ready": flag("in"), "o__payload": payload("m_axis")}
    return manifest | {"axi": False, "ports": ports}


def has_marks(manifest, port):
    """Whether an AXI4-Stream top has at ``i`` or ``o`` a ``tlast`` that is no field of the unit."""
    return any(field["name"] == "tlast" for field in Payload(as_streams(manifest), port).fields)


def marks(manifest, inputs, results):
    """The ``tlast`` (results, beats) that must come out of an AXI4-Stream top where it is no field of the unit.

    ``inputs`` have ``last`` or, one a beat, ``tlast``. Of a block, that of its last beat comes out at the last beat.
    """
    last = inputs["last"] if "last" in inputs else inputs["tlast"][:, -1]
    found = np.zeros((results, manifest["beats"]["o"]), np.uint8)
    # Where not every row gives a result, those with `last` do.
    found[:, -1] = last if results == len(last) else last[last != 0]
    return found


def with_marks(manifest, inputs, expected, rng):
    """``inputs`` and ``expected`` outputs of a unit with ``tlast`` where its AXI4-Stream top has it: at random beats and the last.
    """
    if has_marks(manifest, "i"):
        rows = len(next(iter(inputs.values())))
        tlast = (rng.integers(0, 4, (rows, manifest["beats"]["i"])) == 0).astype(np.uint8)
        tlast[-1, -1] = 1
        inputs = inputs | {"tlast": tlast}
    if has_marks(manifest, "o"):
        results = len(next(iter(expected.values())))
        expected = expected | {"tlast": marks(manifest, inputs, results)}
    return inputs, expected
