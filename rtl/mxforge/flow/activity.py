"""How much a combinational unit switches: its netlist of gates, evaluated on vectors in NumPy, and its toggles counted."""
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter

import numpy as np

from ..errors import MxforgeError
from . import synth
from .player import Beats

__all__ = ["GATES", "Netlist", "activity"]

# What Yosys's `abc -g cmos` and `synth` are made of, on words of bits: pins in the order of the arguments.
GATES = {
    "$_BUF_": ("A", lambda a: a),
    "$_NOT_": ("A", lambda a: ~a),
    "$_AND_": ("AB", lambda a, b: a & b),
    "$_OR_": ("AB", lambda a, b: a | b),
    "$_XOR_": ("AB", lambda a, b: a ^ b),
    "$_NAND_": ("AB", lambda a, b: ~(a & b)),
    "$_NOR_": ("AB", lambda a, b: ~(a | b)),
    "$_XNOR_": ("AB", lambda a, b: ~(a ^ b)),
    "$_ANDNOT_": ("AB", lambda a, b: a & ~b),
    "$_ORNOT_": ("AB", lambda a, b: a | ~b),
    "$_MUX_": ("ABS", lambda a, b, s: a ^ (s & (a ^ b))),
    "$_NMUX_": ("ABS", lambda a, b, s: ~(a ^ (s & (a ^ b)))),
    "$_AOI3_": ("ABC", lambda a, b, c: ~((a & b) | c)),
    "$_OAI3_": ("ABC", lambda a, b, c: ~((a | b) & c)),
    "$_AOI4_": ("ABCD", lambda a, b, c, d: ~((a & b) | (c & d))),
    "$_OAI4_": ("ABCD", lambda a, b, c, d: ~((a | b) & (c | d))),
}
# Vectors evaluated at a time: a word of 64 a net, times this.
_WORDS = 64
_POPCOUNT = np.array([n.bit_count() for n in range(1 << 16)], np.uint8)


class Netlist:
    """Combinational gates of the module ``top`` of a netlist, as Yosys writes it in JSON, ready to be evaluated.

    ``MxforgeError`` where there is a cell that is none of `GATES` (a register, too), or a loop.
    """
    def __init__(self, netlist, top):
        module = netlist["modules"][top]
        cells = list(synth.cells_of(netlist, top).values())
        for cell in cells:
            if cell["type"] not in GATES:
                raise MxforgeError(f"switching is counted in combinational units: {top} has a {cell['type']}")
        # A row a net; the first two are the constants, and what nothing drives is 0.
        self._rows = {"0": 0, "x": 0, "z": 0, "1": 1}
        self.ports = {name: [self._row(bit) for bit in port["bits"]] for name, port in module["ports"].items()}
        self.gates = np.array([self._row(cell["connections"]["Y"][0]) for cell in cells], int)
        self._steps = self._in_steps(cells, top)
        self.count = len(cells)
        # Pins that a net drives, those of the module's outputs included.
        self.loads = np.zeros(len(self._rows), int)
        read = [self._row(cell["connections"][pin][0]) for cell in cells for pin in GATES[cell["type"]][0]]
        read += [row for name, port in module["ports"].items() if port["direction"] == "output" for row in self.ports[name]]
        np.add.at(self.loads, read, 1)

    def _row(self, bit):
        return self._rows.setdefault(bit, len(self._rows))

    def _in_steps(self, cells, top):
        """Gates of one type on one level are evaluated at once: ``(function, output rows, rows of each pin)``."""
        drivers = {cell["connections"]["Y"][0]: n for n, cell in enumerate(cells)}
        pins = [[cell["connections"][pin][0] for pin in GATES[cell["type"]][0]] for cell in cells]
        before = {n: [drivers[bit] for bit in bits if bit in drivers] for n, bits in enumerate(pins)}
        levels, steps = {}, defaultdict(list)
        try:
            for n in TopologicalSorter(before).static_order():
                levels[n] = 1 + max((levels[other] for other in before[n]), default=0)
                steps[levels[n], cells[n]["type"]].append(n)
        except CycleError:
            raise MxforgeError(f"{top} has a combinational loop") from None
        return [(GATES[kind][1], self.gates[of], np.array([[self._row(bit) for bit in pins[n]] for n in of]).T)
                for (_, kind), of in sorted(steps.items())]

    def run(self, inputs):
        """Evaluate ``{port: bits}``, arrays of 0 and 1 (vectors, width), in their order: ``(outputs, toggles)``, outputs in the
        same form, and how often each gate's output changed from a vector to the next, no gate having any delay.
        """
        total = len(next(iter(inputs.values())))
        outputs = {name: np.empty((total, len(rows)), np.uint8) for name, rows in self.ports.items() if name not in inputs}
        toggles = np.zeros(self.count, np.int64)
        step = 64 * _WORDS
        for start in range(0, total, step - 1):
            # Each piece begins with the last vector of the one before.
            part = slice(start, min(start + step, total))
            nets = np.zeros((len(self._rows), -(-(part.stop - start) // 64)), np.uint64)
            nets[1] = ~np.uint64(0)
            for name, bits in inputs.items():
                packed = np.packbits(bits[part].T, axis=1, bitorder="little")
                nets.view(np.uint8)[self.ports[name], :packed.shape[1]] = packed
            for function, out, pins in self._steps:
                nets[out] = function(*nets[pins])
            for name, bits in outputs.items():
                unpacked = np.unpackbits(nets.view(np.uint8)[self.ports[name]], axis=1, bitorder="little")
                bits[part] = unpacked[:, :part.stop - start].T
            toggles += _changes(nets[self.gates], part.stop - start)
        return outputs, toggles


def _changes(words, count):
    """How often each row's bits differ from the next, among the first ``count``."""
    following = words >> np.uint64(1)
    following[:, :-1] |= words[:, 1:] << np.uint64(63)
    changed = words ^ following
    # The last vector has none after it.
    changed[:, -1] &= np.uint64((1 << (count - 1) % 64) - 1)
    return _POPCOUNT[changed.view(np.uint16)].sum(axis=1, dtype=np.int64)


def activity(text, manifest, streams):
    """What switches in a bare combinational unit that is given rows one after the other: a proxy of its energy.

    The unit's Verilog is mapped to CMOS gates as for `synth.area`, and evaluated without delays: no glitches, no wires, no clock.
    ``streams``: ``{name: inputs}``; for each ``(figures, outputs)``: ``gates``; ``vectors``; ``toggles``, changes of gates'
    outputs; ``driven``, of the pins that they drive, which stand for capacitance; and arrays by field, as the netlist gives them.
    """
    netlist = Netlist(synth.netlist(text, manifest["name"], "gates"), manifest["name"])
    taken, given = (Beats(manifest["ports"][side], 1) for side in "io")
    results = {}
    for name, inputs in streams.items():
        rows, count = taken.check(inputs)
        outputs, toggles = netlist.run({"i": np.unpackbits(taken.pack(rows), axis=1, bitorder="little")[:, :taken.width]})
        payloads = np.packbits(outputs["o"], axis=1, bitorder="little")
        fields = given.empty(count)
        given.unpack(np.pad(payloads, ((0, 0), (0, given.size - payloads.shape[1]))), fields)
        results[name] = {"gates": netlist.count, "vectors": count, "toggles": int(toggles.sum()),
                         "driven": int(toggles @ netlist.loads[netlist.gates])}, fields
    return results
