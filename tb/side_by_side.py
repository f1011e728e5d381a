"""Many configurations of a unit in one model, so that one build and one play do for them all."""
from amaranth import *
from amaranth.lib import data

from mxforge.pipeline import delay
from mxforge.unit import Unit

__all__ = ["SideBySide"]


class SideBySide(Unit):
    """``units`` (by name), which have the cadence of the first one and fields of its input. The output has each unit's fields
    under its name: ``name``, if its output is a single field, else ``name_field``; with the latency of the slowest, for which
    the others wait.
    """
    def __init__(self, units):
        self._units = units
        first = next(iter(units.values()))
        self.is_stateful, self.cadence = first.is_stateful, first.cadence
        self._latency, self._beats = max(unit.latency for unit in units.values()), first.beats
        for unit in units.values():
            assert (unit.beats, unit.cadence) == (self._beats, self.cadence)
        fields = {}
        for name, unit in units.items():
            fields |= {self.key(name, field, unit): value.shape for field, value in unit.signature.members["o"].shape}
        super().__init__(first.parameters, i=first.signature.members["i"].shape, o=data.StructLayout(fields))

    @staticmethod
    def key(name, field, unit):
        return name if len(list(unit.signature.members["o"].shape)) == 1 else f"{name}_{field}"

    @property
    def latency(self):
        return self._latency

    @property
    def beats(self):
        return self._beats

    def elaborate(self, platform):
        m = Module()

        valids = []
        for name, unit in self._units.items():
            m.submodules[name] = unit
            for key, _ in unit.i.shape():
                m.d.comb += unit.i[key].eq(self.i[key])
            waits = self._latency - unit.latency
            for key, _ in unit.o.shape():
                of = self.key(name, key, unit)
                m.d.comb += self.o[of].eq(delay(m, unit.o[key], waits, name=f"{of}_waiting"))
            if self.is_stateful:
                m.d.comb += unit.i_valid.eq(self.i_valid)
                valids.append(delay(m, unit.o_valid, waits, name=f"{name}_valid_waiting", reset_less=False))
        if self.is_stateful:
            # Seen from the first; after one that differed there are no outputs any more, which the count of them shows.
            valids = Cat(valids)
            differed = Signal()
            m.d.sync += differed.eq(differed | (valids.any() & ~valids.all()))
            m.d.comb += self.o_valid.eq(valids.all() & ~differed)

        return m
