# amaranth: UnusedElaboratable=no
"""Pipeline registers, stalls and streams: the only place where units get them from."""
from amaranth import *
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for, ceil_log2
from amaranth.vendor import SiliconBluePlatform

from .arith import any_bit
from .unit import Around, StreamUnit

__all__ = ["Cuts", "ResultQueue", "Streamed", "across", "burst", "chain", "delay", "streamed", "through",
           "wait"]

# Bits of a payload that share pointers.
GROUP = 128


def _register(m, value, name, reset_less=True):
    register = Signal(value.shape(), name=name, reset_less=reset_less)
    m.d.sync += register.eq(value)
    return register


def delay(m, value, cycles, *, name, reset_less=True):
    """``value``, ``cycles`` clock cycles later. Marks that say what is valid need ``reset_less=False``."""
    for n in range(cycles):
        value = _register(m, value, f"{name}_{n + 1}", reset_less)
    return value


def wait(m, value, cycles, *, name):
    """As :func:`delay`, but in memory where that is less: a wide value for several cycles."""
    if cycles < 4:
        return delay(m, value, cycles, name=name)
    # Reading takes the last of them.
    distance = cycles - 1
    depth = 1 << ceil_log2(cycles)
    parts = []
    for n, low in enumerate(range(0, len(value), GROUP)):
        part = value[low:low + GROUP]
        m.submodules[f"{name}{n}"] = storage = memory.Memory(shape=unsigned(len(part)), depth=depth, init=[])
        write, read = storage.write_port(), storage.read_port()
        m.d.comb += [write.en.eq(1), write.data.eq(part)]
        for label, port, start in ("write_at", write, 0), ("read_at", read, depth - distance):
            at = Signal(range(depth), init=start, name=f"{name}_{label}{n}")
            m.d.comb += port.addr.eq(at)
            m.d.sync += at.eq(at + 1)
        parts.append(read.data)
    return Cat(parts)


def burst(m, start, beats, *, name):
    """High for ``beats`` cycles from each ``start`` on; the next one comes when they are over, or later."""
    remaining = Signal(range(beats), name=name)
    m.d.sync += remaining.eq(Mux(start, beats - 1, remaining - remaining.any()))
    return start | remaining.any()


def _some(m, most, more, less, *, init, name):
    """A register that says whether a count of 0 to ``most``, which starts at ``init``, isn't 0. Each cycle ``more`` is added to it,
    ``less``, a bit, taken away.
    """
    count = Signal(range(most + 1), init=init, name=name)
    is_some = Signal(init=init > 0, name=f"{name}_is_some")
    m.d.sync += is_some.eq(any_bit(more) | any_bit(count[1:]) | (count[0] & ~less))
    if len(more) == 1:
        # Both sums are there before it is known which of them counts.
        with m.If(more ^ less):
            m.d.sync += count.eq(Mux(more, count + 1, count - 1))
    else:
        m.d.sync += count.eq(count + more - less)
    return is_some


class Cuts:
    """Named places where a datapath may be cut by a register.

    A core lists its cut points, most useful first; ``stages`` takes that many of them. Everything that crosses a cut
    point must pass through it. Payload registers have no reset: what they hold means nothing until the stream says that
    it is valid.
    """
    def __init__(self, m, names, stages):
        if stages > len(names):
            raise ValueError(f"stages must be at most {len(names)} ({', '.join(names)}), not {stages}")
        self._m = m
        self._names = names
        self._chosen = set(names[:stages])

    def __call__(self, cut, value, label="", *, reset_less=True):
        """``value`` on the far side of ``cut``; ``label`` tells signals of one cut apart. ``reset_less``: without reset."""
        if cut not in self._names:
            raise ValueError(f"cut must be one of {', '.join(self._names)}, not {cut!r}")
        if cut not in self._chosen:
            return value
        return _register(self._m, value, f"{cut}_{label}_q" if label else f"{cut}_q", reset_less)

    def count(self, *cuts):
        """How many of ``cuts`` are taken."""
        return sum(cut in self._chosen for cut in cuts)


def across(cut, name, label="{}", /, **values):
    """The ``values`` on the far side of the cut ``name``, by their own names, which stand for ``{}`` in ``label``."""
    return {part: cut(name, value, label.format(part)) for part, value in values.items()}


def through(cut, cuts, value, label, *, reset_less=True):
    """``value`` on the far side of ``cuts``, one after another; ``reset_less`` as of :class:`Cuts`."""
    for name in cuts:
        value = cut(name, value, label, reset_less=reset_less)
    return value


class ResultQueue(wiring.Component):
    """A queue that is never asked to hold more than ``depth``: credits elsewhere see to that, so nothing checks.

    ``o.valid`` comes from a register, ``o.payload`` from memory that is read where registers say, without a clock. What
    ``w_en`` and ``o.ready`` reach is narrow: each group of payload bits has pointers of its own, and the memory, of more words than
    are ever held, is written in every cycle, where the next result goes. An iCE40 has no memory but what is read by a clock: there
    the next address is read.

    Members
    -------
    w_data : :py:`In(shape)`, w_en : :py:`In(1)`
    o : :py:`Out(stream.Signature(shape))`
        First seen valid a cycle after the write.
    """
    latency = 1

    def __init__(self, shape, depth):
        self._shape = shape
        self._depth = depth
        super().__init__({"w_data": In(shape), "w_en": In(1), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()

        # A power of two makes the pointers wrap by themselves. It is more than is held, as there is always a word being written.
        depth = 1 << bits_for(self._depth)
        taken = Signal()
        m.d.comb += [
            taken.eq(self.o.valid & self.o.ready),
            self.o.valid.eq(_some(m, self._depth, self.w_en, taken, init=0, name="level")),
        ]
        given, shown = Value.cast(self.w_data), Value.cast(self.o.payload)
        for n, low in enumerate(range(0, len(given), GROUP)):
            part = given[low:low + GROUP]
            m.submodules[f"storage{n}"] = storage = memory.Memory(shape=unsigned(len(part)), depth=depth, init=[])
            write = storage.write_port()
            is_clocked = isinstance(platform, SiliconBluePlatform)
            read = storage.read_port(transparent_for=[write]) if is_clocked else storage.read_port(domain="comb")
            m.d.comb += [write.data.eq(part), write.en.eq(1), shown[low:low + GROUP].eq(read.data)]
            # A tool doesn't see that these are equal to those of another group, as they follow from themselves.
            for name, port, step in ("write_at", write, self.w_en), ("read_at", read, taken):
                at = Signal(range(depth), name=f"{name}{n}")
                m.d.comb += port.addr.eq(at + step if port is read and is_clocked else at)
                with m.If(step):
                    m.d.sync += at.eq(at + 1)

        return m


class Streamed(Around, wiring.Component):
    """A core between two streams.

    The core runs freely, with no clock enable: a ``ready`` that reached every register would be its slowest net. Results
    wait in a queue, and a beat is accepted while the queue has room for all that is under way (a credit for each beat), so
    that a stalled output loses nothing.

    Members
    -------
    i, o : :py:`stream.Signature`
        The core's ``i`` and ``o`` as payloads. One beat every ``interval`` cycles while ``o.ready`` is high.
    """
    def __init__(self, core):
        super().__init__(core, {
            "i": In(stream.Signature(core.signature.members["i"].shape)),
            "o": Out(stream.Signature(core.signature.members["o"].shape)),
        })

    @property
    def latency(self):
        return self._core.latency + ResultQueue.latency

    def elaborate(self, platform):
        m = Module()

        m.submodules.core = core = self._core
        # A credit is away from the beat's transfer until two cycles after its result's.
        away = self.latency + 2
        if core.cadence == "blocks":
            away += (core.beats[0] - 1) * core.interval
        credits = -(-away // core.interval)
        m.submodules.results = results = ResultQueue(core.signature.members["o"].shape, credits)
        wiring.connect(m, results.o, wiring.flipped(self.o))

        accepted = Signal()
        delivered = Signal()
        done = Signal()
        # A beat that leaves the core without a result gives its credit back there.
        is_lost = Signal()
        # Through a register, so that no path leads from one side to the other.
        returned = Signal(2 if core.is_stateful and core.cadence == "some" else 1)
        m.d.sync += returned.eq(delivered + is_lost)
        ready = _some(m, credits, returned, accepted, init=credits, name="free")
        if core.interval > 1:
            pause = Signal(range(core.interval))
            m.d.sync += pause.eq(Mux(accepted, core.interval - 1, pause - (pause != 0)))
            ready &= pause == 0
        m.d.comb += [
            self.i.ready.eq(ready),
            accepted.eq(self.i.valid & self.i.ready),
            delivered.eq(self.o.valid & self.o.ready),
            core.i.eq(self.i.payload),
            results.w_data.eq(core.o),
        ]
        if core.is_stateful:
            m.d.comb += [core.i_valid.eq(accepted), results.w_en.eq(core.o_valid)]
        if core.cadence == "some" or not core.is_stateful:
            m.d.comb += done.eq(delay(m, accepted, core.latency, name="under_way", reset_less=False))
            m.d.comb += is_lost.eq(done & ~core.o_valid) if core.is_stateful else results.w_en.eq(done)

        return m


def streamed(core):
    """``core`` between streams; a unit that is so by itself as it is."""
    return core if isinstance(core, StreamUnit) else Streamed(core)


def chain(m, source, *units):
    """Connect ``source`` through ``units`` and return the last output stream.

    Amaranth 0.5 connects payloads of equal width whatever their layout, so E4M3 would feed E5M2; this compares the
    signatures first. Raises ``TypeError`` where they differ.
    """
    for unit in units:
        if source.signature != unit.i.signature.flip():
            raise TypeError(f"Cannot connect {source.signature!r} to {unit.i.signature.flip()!r}")
        wiring.connect(m, source, unit.i)
        source = unit.o
    return source
