"""Units' Verilog, played beside their golden: every bit is compared."""
import importlib
from dataclasses import dataclass, field

import numpy as np

from ..emit import emit
from ..pipeline import streamed
from . import player

__all__ = ["Checked", "Comparison"]

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


class Checked:
    """A unit's Verilog, being built in ``pool`` to be played, beside its golden."""
    def __init__(self, component, name, build_dir, pool):
        text, self.manifest = emit(streamed(component), name)
        self._golden = importlib.import_module(f"mxgolden.{self.unit}")
        self._player = pool.submit(player.build, text, self.manifest, build_dir)

    def wait(self):
        self._player.result()

    @property
    def player(self):
        """What plays it, once it is built."""
        return self._player.result()

    @property
    def unit(self):
        return self.manifest["unit"]

    @property
    def output_width(self):
        """Bits of the output's payload."""
        return self.manifest["ports"]["o__payload"]["width"]

    def play(self, inputs, where):
        """Outputs of the Verilog, and their `Comparison`; ``where(row, item)`` says in words what an item is part of."""
        outputs = self.player.play(inputs)
        wanted = self._golden.expected(self.manifest["parameters"], inputs)
        comparison = Comparison()
        for name, got in outputs.items():
            comparison.add(Comparison.of(
                got, wanted[name], lambda *index, name=name: f"{where(*index)}: the {self.unit} gives {name}"))
        return outputs, comparison
