"""Units' Verilog, played beside their golden: every bit is compared."""
import importlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from ..emit import emit
from ..pipeline import streamed
from . import player

__all__ = ["Checked", "Comparison", "built", "compared"]

# Mismatches that are told in words.
TOLD = 10


@dataclass(kw_only=True)
class Comparison:
    """Bit patterns compared with golden, those that differ, and the first of them in words."""
    compared: int = 0
    mismatches: int = 0
    told: list = field(default_factory=list)

    @classmethod
    def of(cls, got, wanted, say):
        """Of two arrays; ``say(*index)`` says in words what an item is, up to its value."""
        wrong = np.argwhere(got != wanted)
        return cls(compared=got.size, mismatches=len(wrong), told=[
            f"{say(*index)} {got[tuple(index)]:#04x}, golden {wanted[tuple(index)]:#04x}" for index in wrong[:TOLD]])

    def add(self, other):
        self.compared += other.compared
        self.mismatches += other.mismatches
        self.told = (self.told + other.told)[:TOLD]


def compared(unit, parameters, inputs, outputs, where):
    """`Comparison` of a unit's ``outputs`` with golden; ``where(row, item)`` says in words what an item is part of."""
    wanted = importlib.import_module(f"mxgolden.{unit}").expected(parameters, inputs)
    comparison = Comparison()
    for name, got in outputs.items():
        comparison.add(Comparison.of(got, wanted[name], lambda *index, name=name: f"{where(*index)}: the {unit} gives {name}"))
    return comparison


class Checked:
    """A unit's Verilog ``text`` beside its golden, built below ``build_dir`` when it is first played."""
    def __init__(self, text, manifest, build_dir):
        self.text = text
        self.manifest = manifest
        self.build_dir = build_dir
        self._player = None

    @classmethod
    def emitted(cls, component, name, build_dir):
        """Of a core, between streams."""
        return cls(*emit(streamed(component), name), build_dir)

    @property
    def player(self):
        """What plays it."""
        if self._player is None:
            self._player = player.build(self.text, self.manifest, self.build_dir)
        return self._player

    @property
    def unit(self):
        return self.manifest["unit"]

    @property
    def output_width(self):
        """Bits of the output's payload."""
        return self.manifest["ports"]["o__payload"]["width"]

    def play(self, inputs, where):
        """Outputs of the Verilog, and their `Comparison`; ``where`` as of `compared`."""
        outputs = self.player.play(inputs)
        return outputs, compared(self.unit, self.manifest["parameters"], inputs, outputs, where)


def built(units, jobs):
    """The list of ``units``, each built: ``jobs`` of them at once, while the next ones come."""
    with ThreadPoolExecutor(jobs) as pool:
        builds = [(unit, pool.submit(getattr, unit, "player")) for unit in units]
        for _, build in builds:
            build.result()
    return [unit for unit, _ in builds]
