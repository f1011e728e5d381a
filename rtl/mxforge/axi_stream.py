# amaranth: UnusedElaboratable=no
"""Units between AXI4-Streams, with the port names that Verilog designs give them."""
from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from .pipeline import Streamed, delay
from .unit import Around, Unit

__all__ = ["AxiStream", "Marked"]

# Payload fields that have a signal of their own in a stream of AXI.
_LAST, _KEEP, _DATA = "last", "keep", "data"


class Marked(Around, Unit):
    """A core with a mark ``last`` beside its payloads: it ends packets, and goes along with the data.

    Where each beat gives one (``cadence`` each), the mark goes from the one to the other. Where the output comes of several
    beats, or of none (some), it is the mark of the beat that gives it; that of a beat that gives nothing is dropped. Where blocks
    come out as beats (blocks), the last output beat has the mark of the block's last input beat; other marks are dropped.

    A core whose input has a field ``last`` already keeps it: it is the mark.

    Members
    -------
    i, o : the core's, and ``last``.
    i_valid, o_valid : the core's.
    """
    def __init__(self, core):
        self.is_stateful = core.is_stateful
        super().__init__(core, core.parameters, i=_with_last(core.i.shape()), o=_with_last(core.o.shape()))

    def elaborate(self, platform):
        m = Module()

        m.submodules.core = core = self._core
        for name, _ in core.i.shape():
            m.d.comb += Value.cast(core.i[name]).eq(self.i[name])
        for name, _ in core.o.shape():
            m.d.comb += Value.cast(self.o[name]).eq(core.o[name])
        if core.is_stateful:
            m.d.comb += [core.i_valid.eq(self.i_valid), self.o_valid.eq(core.o_valid)]

        last, cycles = self.i.last, core.latency
        if core.cadence == "blocks":
            beats_in, beats_out = core.beats
            beat = Signal(ceil_log2(beats_in))
            with m.If(self.i_valid):
                m.d.sync += beat.eq(Mux(beat == beats_in - 1, 0, beat + 1))
            last = last & self.i_valid & (beat == beats_in - 1)
            cycles += beats_out - 1
        m.d.comb += self.o.last.eq(delay(m, last, cycles, name="last"))

        return m


def _with_last(layout):
    return data.StructLayout({name: field.shape for name, field in layout} | {_LAST: 1})


class AxiStream(Around, wiring.Component):
    """A unit as a subordinate and a manager of AXI4-Stream (AMBA, ARM IHI 0051), with a clock and a reset of its own.

    ``tdata`` is the payload: its fields in their order, the first at the least significant bit, with as many zeros on top as make
    whole bytes (on the way in they are not looked at). Fields with a signal of their own in AXI are on it and not in ``tdata``:

    * ``last`` is ``tlast``. A unit without it gets its packets through all the same, by :class:`Marked`; so does one with
      it at the input alone (the dot accumulator, whose packets are products, and whose results are packets of one beat).
    * ``keep``, of a payload that has only it, ``data`` and ``last``, is ``tkeep``.

    Elsewhere beats are whole: ``m_axis_tkeep`` is all ones, and ``s_axis_tkeep`` must be, and is not looked at.

    Rules. ``m_axis_tvalid`` never waits for ``m_axis_tready``, and stays with its payload until the transfer; both follow from
    registers. ``aresetn`` is active low, and must rise with the clock. It is seen at rising edges of ``aclk``, or at once if
    ``domain.async_reset`` is set before elaboration. In reset ``m_axis_tvalid`` is low. What was under way before is lost.

    Attributes
    ----------
    domain : :py:`ClockDomain`
        Of the unit, on ``aclk`` and ``aresetn``.

    Members
    -------
    aclk, aresetn
        Clock and reset.
    s_axis_tvalid, s_axis_tready, s_axis_tdata, s_axis_tkeep, s_axis_tlast
        The input.
    m_axis_tvalid, m_axis_tready, m_axis_tdata, m_axis_tkeep, m_axis_tlast
        The output.

    Latency and interval are those of the unit between streams.
    """
    def __init__(self, core):
        if isinstance(core, Unit):
            i, o = core.i.shape(), core.o.shape()
            self._streamed = Streamed(core if _LAST in dict(o) else Marked(core))
        else:
            i, o = (_payload(core, port) for port in "io")
            if _LAST not in dict(o):
                raise TypeError("A unit that is no core must have last at its output, where packets end")
            self._streamed = core
        super().__init__(core, {
            "aclk": In(1),
            "aresetn": In(1),
            **_ports("s_axis", In, i),
            **_ports("m_axis", Out, o),
        })
        self.domain = ClockDomain("sync")
        # The port itself, so that its edges come no delta cycle later.
        self.domain.clk = self.aclk

    @property
    def latency(self):
        return self._streamed.latency

    @property
    def throughput(self):
        return self._core.throughput

    def elaborate(self, platform):
        m = Module()

        m.domains.sync = self.domain
        m.d.comb += self.domain.rst.eq(~self.aresetn)

        m.submodules.unit = unit = self._streamed
        i, o = unit.i, unit.o
        m.d.comb += [
            i.valid.eq(self.s_axis_tvalid),
            self.s_axis_tready.eq(i.ready),
            self.m_axis_tvalid.eq(o.valid),
            o.ready.eq(self.m_axis_tready),
        ]
        for name, _ in i.payload.shape():
            m.d.comb += Value.cast(i.payload[name]).eq(self._signal("s_axis", name))
        for name, _ in o.payload.shape():
            m.d.comb += self._signal("m_axis", name).eq(o.payload[name])
        if _KEEP not in dict(o.payload.shape()):
            m.d.comb += self.m_axis_tkeep.eq(~0)

        return m

    def _signal(self, side, name):
        """Where a payload's field is."""
        if name == _LAST:
            return Value.cast(getattr(self, f"{side}_tlast"))
        if name == _KEEP:
            return Value.cast(getattr(self, f"{side}_tkeep"))
        return Value.cast(getattr(self, f"{side}_tdata")[name])


def _payload(component, port):
    """The payload's layout of a stream of a component that is no core."""
    found = {path: member.shape for path, member, _ in component.signature.flatten(component)}
    layout = found.get((port, "payload"))
    if not isinstance(layout, data.Layout):
        raise TypeError(f"A unit that is no core must have a stream {port} of a structure")
    return layout


def _ports(side, flow, layout):
    """Ports of one stream; those that carry fields of the unit have layouts."""
    fields = {name: field.shape for name, field in layout}
    on_data = data.StructLayout({name: shape for name, shape in fields.items() if name not in (_LAST, _KEEP)})
    size = -(-on_data.size // 8)
    if _KEEP in fields and (set(fields) != {_DATA, _KEEP, _LAST} or Shape.cast(fields[_KEEP]).width * 8 != on_data.size):
        raise TypeError(f"A payload with keep must have data, a bit of keep for each byte of it, and last, not {', '.join(fields)}")

    def alone(name, width):
        return data.StructLayout({name: fields[name]}) if name in fields else width

    return {
        f"{side}_tvalid": flow(1),
        f"{side}_tready": flow(1).flip(),
        f"{side}_tdata": flow(data.FlexibleLayout(size * 8, {name: field for name, field in on_data})),
        f"{side}_tkeep": flow(alone(_KEEP, size)),
        f"{side}_tlast": flow(alone(_LAST, 1)),
    }
