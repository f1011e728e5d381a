"""What every unit has."""
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Around", "StreamUnit", "Unit"]


class Unit(wiring.Component):
    """A core: plain payloads in and out, fixed latency, free-running, no clock enable.

    ``cadence`` says what comes out for what goes in. ``"each"``: one output for each input beat, ``latency`` cycles
    after it. ``"some"``: at most one output a beat, ``latency`` cycles after it, where ``o_valid`` is high.
    ``"blocks"``: as many output beats as input beats, a block at a time from ``latency`` cycles after the block's last
    beat, where ``o_valid`` is high.

    Members
    -------
    i, o
        Payloads, structures of the unit.
    i_valid : :py:`In(1)`, o_valid : :py:`Out(1)`
        Only in cores that hold state (``is_stateful``): this cycle's payload is a beat.
    """
    # Sentences for the contract: what its ports' widths and timing don't tell.
    notes = ()
    is_stateful = False
    cadence = "each"
    interval = 1

    def __init__(self, parameters, i, o):
        self._parameters = parameters
        members = {"i": In(i), "o": Out(o)}
        if self.is_stateful:
            members |= {"i_valid": In(1), "o_valid": Out(1)}
        super().__init__(members)

    @property
    def parameters(self):
        return self._parameters

    @property
    def latency(self):
        """Cycles from the (last) input beat to the (first) output beat."""
        return self._parameters.latency

    @property
    def beats(self):
        """Beats of a block, in and out."""
        return 1, 1


class Around:
    """What a component round a core has of the core's contract."""
    def __init__(self, core, *args, **kwargs):
        self._core = core
        super().__init__(*args, **kwargs)

    @property
    def core(self):
        return self._core

    @property
    def parameters(self):
        return self._core.parameters

    @property
    def notes(self):
        return self._core.notes

    @property
    def cadence(self):
        return self._core.cadence

    @property
    def beats(self):
        return self._core.beats

    @property
    def latency(self):
        return self._core.latency

    @property
    def interval(self):
        return self._core.interval


class StreamUnit(wiring.Component):
    """A unit between streams by itself, without a bare core.

    Its cadence is ``"elastic"`` where it doesn't say another: how many outputs an input gives depends on the data. Latency and
    interval are then bounds, ``[least, most]``: cycles from the transfer of the input that completes an output to the edge
    at which that is first seen valid, and from one input to the next, while ``o.ready`` is high. An input completes no
    more than ``interval[1]`` outputs. ``throughput`` is transfers a cycle in long packets.

    Members
    -------
    i, o : :py:`stream.Signature`
        Payloads are structures of the unit.
    """
    notes = ()
    cadence = "elastic"
    beats = 1, 1

    def __init__(self, parameters, i, o):
        self._parameters = parameters
        super().__init__({"i": In(stream.Signature(i)), "o": Out(stream.Signature(o))})

    @property
    def parameters(self):
        return self._parameters
