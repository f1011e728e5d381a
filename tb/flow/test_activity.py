# amaranth: UnusedElaboratable=no
"""Switching: gates against their truth tables, counts against a plain count, netlists against golden."""
import importlib
import itertools

import numpy as np
import pytest

from mxforge import catalog
from mxforge.emit import emit
from mxforge.errors import MxforgeError
from mxforge.flow import activity, synth

# What each gate is, as Yosys's manual has it.
TRUTH = {
    "$_BUF_": lambda a: a, "$_NOT_": lambda a: 1 - a, "$_AND_": min, "$_OR_": max, "$_XOR_": lambda a, b: int(a != b),
    "$_NAND_": lambda a, b: 1 - min(a, b), "$_NOR_": lambda a, b: 1 - max(a, b), "$_XNOR_": lambda a, b: int(a == b),
    "$_ANDNOT_": lambda a, b: min(a, 1 - b), "$_ORNOT_": lambda a, b: max(a, 1 - b), "$_MUX_": lambda a, b, s: b if s else a,
    "$_NMUX_": lambda a, b, s: 1 - (b if s else a), "$_AOI3_": lambda a, b, c: 1 - max(min(a, b), c),
    "$_OAI3_": lambda a, b, c: 1 - min(max(a, b), c), "$_AOI4_": lambda a, b, c, d: 1 - max(min(a, b), min(c, d)),
    "$_OAI4_": lambda a, b, c, d: 1 - min(max(a, b), max(c, d)),
}


def netlist(cells, i, o):
    """Cells as ``(type, {pin: bit})``, between the ports i and o."""
    return {"modules": {"top": {
        "ports": {"i": {"direction": "input", "bits": i}, "o": {"direction": "output", "bits": o}},
        "cells": {str(n): {"type": kind, "connections": {pin: [bit] for pin, bit in pins.items()},
                           "port_directions": {pin: "output" if pin == "Y" else "input" for pin in pins}}
                  for n, (kind, pins) in enumerate(cells)}}}}


@pytest.mark.parametrize("kind", activity.GATES)
def test_gates(kind):
    pins = activity.GATES[kind][0]
    vectors = np.array(list(itertools.product((0, 1), repeat=len(pins))), np.uint8)
    bits = list(range(2, 2 + len(pins)))
    gate = activity.Netlist(netlist([(kind, dict(zip(pins, bits, strict=True)) | {"Y": 9})], bits, [9]), "top")
    outputs, _ = gate.run({"i": vectors})
    assert outputs["o"][:, 0].tolist() == [TRUTH[kind](*vector) for vector in vectors.tolist()]


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 64 * 64 - 1, 64 * 64, 64 * 64 + 1, 3 * 64 * 64 + 7])
def test_toggles_are_those_of_a_plain_count(count):
    vectors = np.random.default_rng(count).integers(0, 2, (count, 2), dtype=np.uint8)
    two = activity.Netlist(netlist([("$_NOT_", {"A": 4, "Y": 5}), ("$_AND_", {"A": 2, "B": 3, "Y": 4}),
                                    ("$_OR_", {"A": 2, "B": "1", "Y": 6})], [2, 3], [5, 4, 6, "0"]), "top")
    outputs, toggles = two.run({"i": vectors})
    both = vectors.min(axis=1)
    np.testing.assert_array_equal(outputs["o"], np.stack([1 - both, both, np.ones_like(both), np.zeros_like(both)], axis=1))
    changes = np.count_nonzero(np.diff(both.astype(int)))
    assert toggles.tolist() == [changes, changes, 0]
    # The AND drives the inverter and an output.
    assert two.loads[two.gates].tolist() == [1, 2, 1]


def test_what_cannot_be_counted():
    with pytest.raises(MxforgeError, match=r"combinational units: top has a \$_DFF_P_$"):
        activity.Netlist(netlist([("$_DFF_P_", {"C": 2, "D": 3, "Q": 4})], [2, 3], [4]), "top")
    with pytest.raises(MxforgeError, match=r"^top has a combinational loop$"):
        activity.Netlist(netlist([("$_NOT_", {"A": 4, "Y": 5}), ("$_NOT_", {"A": 5, "Y": 4})], [2], [4]), "top")


@pytest.mark.parametrize(("unit", "parameters"), [
    ("dequantizer", {"lanes": 2}), ("dequantizer", {"lanes": 1, "element": "e2m1", "target": "bf16"}),
    pytest.param("fp32_multiplier", {}, marks=pytest.mark.slow)])
def test_netlists_give_what_golden_gives(unit, parameters):
    entry = catalog.Entry(name="one", unit=unit, parameters=parameters, streamed=False)
    text, manifest = emit(entry.component(), "one")
    rng = np.random.default_rng(5)
    inputs = importlib.import_module(f"mxbench.stimulus.{unit}").blocks(manifest["parameters"], 5000, rng)
    still = {name: np.repeat(array[:1], 100, axis=0) for name, array in inputs.items()}
    found = activity.activity(text, manifest, {"random": inputs, "still": still})
    figures, outputs = found["random"]
    for name, wanted in importlib.import_module(f"mxgolden.{unit}").expected(manifest["parameters"], inputs).items():
        np.testing.assert_array_equal(outputs[name], wanted)
    cells = synth.area(text, "one", "gates")["cells"]
    assert figures["gates"] == sum(cells.values()) and figures["vectors"] == 5000
    assert 0 < figures["toggles"] < figures["driven"] and figures["toggles"] < 4999 * figures["gates"]
    assert found["still"][0]["toggles"] == found["still"][0]["driven"] == 0
