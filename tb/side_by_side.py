"""Many configurations of a unit in one model, so that one build and one play exhaust them all."""
from amaranth import *
from amaranth.lib import data

from mxforge.unit import Unit

__all__ = ["SideBySide"]


class SideBySide(Unit):
    """``units`` (by name), of one field of output, with the first one's input; the output has that field of each by its name."""
    def __init__(self, units):
        self._units = units
        first = next(iter(units.values()))
        layouts = {name: unit.signature.members["o"].shape for name, unit in units.items()}
        fields = {name: next(iter(layout))[1].shape for name, layout in layouts.items()}
        super().__init__(first.parameters, i=first.signature.members["i"].shape, o=data.StructLayout(fields))

    def elaborate(self, platform):
        m = Module()

        for name, unit in self._units.items():
            m.submodules[name] = unit
            for key, _ in unit.i.shape():
                m.d.comb += unit.i[key].eq(self.i[key])
            m.d.comb += self.o[name].eq(unit.o.as_value())

        return m
