"""An accelerator behind a serial line: units, and what answers a host's requests with them."""
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from ..emit import unit_of
from ..matmul_tile import MatmulTile
from . import protocol
from .framing import FrameReceiver, FrameSender
from .protocol import Command, Status
from .uart import UartReceiver, UartTransmitter

__all__ = ["COUNTERS", "Accelerator", "Service"]

# How frames end at the receiver.
_ENDS = Status.OK, Status.CORRUPT, Status.TOO_LONG, Status.OVERRUN, Status.TIMEOUT
# What COUNTERS answers, 16 bits each: frames by how they ended, and those for which there was no room even to say so.
COUNTERS = (*(status.name.lower() for status in _ENDS), "dropped")

# What of a request is read at once: its length in the ring, what every one has, and the counts.
_HEADER = 2 + protocol.REQUEST.size + protocol.COUNTS.size


def _bytes(width):
    return -(-width // 8)


@dataclass(frozen=True)
class Service:
    """A unit between streams, at ``command``.

    The body of its request is, behind the counts, the unit's input payloads, each in whole bytes; that of the answer its output
    payloads. A :class:`.MatmulTile` takes them in three parts, so that none need travel twice: panels of A (the scales and
    elements of as many rows as the tile has), all blocks of one after the other; of B likewise; then C, a payload's for each
    pair of panels. Results come for each panel of A with each of B.
    """
    command: Command
    unit: object

    @property
    def core(self):
        return unit_of(self.unit)

    @property
    def is_tile(self):
        return isinstance(self.core, MatmulTile)

    @cached_property
    def _spans(self):
        """Of a tile's payload, the bits of A, B and C."""
        layout = self.core.i.shape()
        ends = [layout["a_scales"].offset, layout["b_scales"].offset, layout["c"].offset if "c" in layout.members else layout.size,
                layout.size]
        if any((end - ends[0]) % 8 for end in ends):
            raise ValueError(f"a beat of a tile's elements must be whole bytes, not {self.core.parameters}")
        return list(pairwise(ends))

    @property
    def input_bytes(self):
        """Of a beat: of A, B and C, or the whole payload in the place of A."""
        if self.is_tile:
            return tuple((high - low) // 8 for low, high in self._spans)
        return _bytes(self.core.i.shape().size), 0, 0

    @property
    def output_bytes(self):
        return _bytes(self.core.o.shape().size)

    def payload(self, first, last, a, b, c):
        """The unit's input, of registers that end with the parts."""
        sizes = self.input_bytes
        parts = [register[len(register) - 8 * size:] for register, size in zip((a, b, c), sizes, strict=True)]
        return Cat(first, last, *parts) if self.is_tile else parts[0][:self.core.i.shape().size]


class Accelerator(wiring.Component):
    """Units behind a serial line, by the protocol of :mod:`.protocol`.

    A request waits in a ring of memory until it is there as a whole and its checksum is right; only then is anything done,
    in the order of arrival, and only from what the request holds: no request depends on another one's having arrived. Lengths are
    checked before a unit sees a byte, so that a request either is served to its end or leaves no trace. What can't be served
    is answered with a :class:`.protocol.Status`.

    A unit takes a byte a cycle, a byte on the line takes ``10 * divisor`` cycles: with answers that are no longer than
    requests (:func:`.protocol.least_request`) the ring never holds more than the request in work and the one that arrives, however
    long requests follow each other without a pause.

    Members
    -------
    rx : :py:`In(1)`, tx : :py:`Out(1)`
        The line; high when idle.
    is_busy : :py:`Out(1)`
        While a request comes, is in work, or its answer is on its way.
    is_active : :py:`Out(1)`
        While the units need their clock: outside of that no port of theirs moves. ``domain`` is the units'; a clock of theirs that
        stands still then is what makes a simulation fast.
    """
    def __init__(self, services, identity, *, divisor, depth=4096, patience=1 << 22, domain="sync"):
        self._services = tuple(services)
        self._identity = bytes(identity)
        self._divisor = divisor
        self._depth = depth
        self._patience = patience
        self._domain = domain
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1), "is_busy": Out(1), "is_active": Out(1)})

    @staticmethod
    def limit(depth):
        """Bytes of the longest packet, with a ring of ``depth`` bytes."""
        return depth // 2 - 2

    def elaborate(self, platform):
        m = Module()

        m.submodules.uart_receiver = uart_receiver = UartReceiver(self._divisor)
        m.submodules.receiver = receiver = FrameReceiver(self._depth, self.limit(self._depth), self._patience)
        m.submodules.sender = sender = FrameSender(512)
        m.submodules.uart_transmitter = uart_transmitter = UartTransmitter(self._divisor)
        wiring.connect(m, sender.o, uart_transmitter.i)
        m.d.comb += [
            uart_receiver.rx.eq(self.rx),
            receiver.i.eq(uart_receiver.o),
            receiver.i_valid.eq(uart_receiver.o_valid),
            receiver.i_error.eq(uart_receiver.o_error),
            self.tx.eq(uart_transmitter.tx),
        ]
        m.submodules.requests = requests = _Requests(self._services, self._identity, receiver, sender, self._domain)
        m.d.comb += [
            self.is_busy.eq(receiver.is_busy | requests.is_busy | sender.is_busy | ~uart_transmitter.i.ready),
            self.is_active.eq(requests.is_active),
        ]

        return m


class _Requests(wiring.Component):
    """What serves the packets in the ring of ``receiver``, and gives answers to ``sender``."""
    def __init__(self, services, identity, receiver, sender, domain):
        self._services = services
        self._identity = identity
        self._receiver = receiver
        self._sender = sender
        self._domain = domain
        super().__init__({"is_busy": Out(1), "is_active": Out(1)})

    def _constant(self, m, index, name, values):
        """Which of ``values`` the service at ``index`` has."""
        # One bit at least: of none the complement is false too.
        signal = Signal(bits_for(max(values)), name=name)
        with m.Switch(index):
            for n, value in enumerate(values):
                with m.Case(n):
                    m.d.comb += signal.eq(value)
        return signal

    def elaborate(self, platform):
        m = Module()
        receiver, services = self._receiver, self._services

        # The service that is asked for, and its facts.
        index = Signal(range(len(services)))
        sizes = [self._constant(m, index, f"{part}_size", [service.input_bytes[n] for service in services])
                 for n, part in enumerate("abc")]
        beats = self._constant(m, index, "beats", [service.core.beats[0] for service in services])
        block_sizes = [self._constant(m, index, f"{part}_block_size", [
            service.input_bytes[n] * service.core.beats[0] for service in services]) for n, part in enumerate("ab")]
        # Of a block; a tile's come of panels.
        results = self._constant(m, index, "results", [0 if service.is_tile else service.core.beats[1] for service in services])
        is_tile = self._constant(m, index, "is_tile", [service.is_tile for service in services])

        # What a request says.
        header = Signal(8 * _HEADER)
        length, version, command, tag = header[:16], header[16:24], header[24:32], header[32:48]
        blocks = header[48:64]
        a_panels, b_panels = (Mux(is_tile, header[low:low + 8], 1) for low in (64, 72))
        status = Signal(Status)

        # Where it is read, into which register.
        starts = [Signal.like(receiver.free, name=f"{part}_start") for part in "ab"]
        at = [Signal.like(receiver.free, name=f"{part}_at") for part in "abc"]
        parts = [Signal(8 * max(1, *(service.input_bytes[n] for service in services)), name=f"{part}_bytes")
                 for n, part in enumerate("abc")]
        reads, landing = Signal(4), Signal(4)
        m.d.sync += landing.eq(reads)
        for mark, register, domain in zip(landing, (*parts, header), (*[self._domain] * 3, "sync"), strict=True):
            with m.If(mark):
                m.d[domain] += register.eq(Cat(register[8:], receiver.data))
        m.d.comb += receiver.address.eq(at[0][:-1])
        for mark, pointer in zip(reads, (*at, at[0]), strict=True):
            with m.If(mark):
                m.d.comb += receiver.address.eq(pointer[:-1])
                m.d.sync += pointer.eq(pointer + 1)

        # How much of a part, a block, a panel, a product is done.
        byte = Signal(range(max(_HEADER, *(len(part) // 8 for part in parts))))
        beat = Signal.like(beats)
        block = Signal.like(blocks)
        a_panel, b_panel = Signal(8), Signal(8)
        is_last_block = block == blocks - 1
        in_block, in_panel = (beat, beat == beats - 1), (block, is_last_block)
        in_a, in_b = (a_panel, a_panel == a_panels - 1), (b_panel, b_panel == b_panels - 1)

        def step(*counters):
            """Count on by one, each of ``(counter, is_last)`` when those before it are at their last; whether all were."""
            is_end = C(1)
            for counter, is_last in counters:
                with m.If(is_end):
                    m.d.sync += counter.eq(Mux(is_last, 0, counter + 1))
                is_end &= is_last
            return is_end

        # What the body needs, and how many payloads the answer will have.
        needed, total = Signal(17), Signal(16)
        room = length - (protocol.ASKED + protocol.COUNTS.size)
        is_wrong = Signal()
        m.d.comb += is_wrong.eq(
            (room < 0) | (needed > room.as_unsigned()) | (blocks == 0) | (a_panels == 0) | (b_panels == 0))

        offered, accepted = Signal(), Signal()
        for n, service in enumerate(services):
            unit = service.unit
            m.d.comb += [
                unit.i.payload.eq(service.payload(block == 0, is_last_block, *parts)),
                unit.i.valid.eq(offered & (index == n)),
            ]
            with m.If(index == n):
                m.d.comb += accepted.eq(offered & unit.i.ready)

        is_reset = Signal()
        for service in services:
            m.submodules[service.command.name.lower()] = DomainRenamer(self._domain)(ResetInserter(is_reset)(service.unit))
        report = Signal(16 * len(COUNTERS))
        counters = self._counters(m, is_reset)

        m.submodules.identity = identity = memory.Memory(shape=8, depth=len(self._identity), init=self._identity)
        told = identity.read_port()
        told_at = Signal(range(len(self._identity)))
        m.d.comb += told.addr.eq(told_at)

        is_collecting = Signal()
        to_sender = self._sender.i
        sent = to_sender.valid & to_sender.ready
        is_served = (status == Status.OK) & (command >= min(service.command for service in services))
        has_more = (status == Status.OK) & (command != Command.RESET)
        answer = Array([C(protocol.VERSION, 8), Cat(command[:7], C(1, 1)), tag[:8], tag[8:], status])
        with m.FSM() as fsm:
            with m.State("idle"):
                m.d.sync += at[0].eq(receiver.free)
                with m.If(receiver.end != receiver.free):
                    m.next = "header"
            with m.State("header"):
                m.d.comb += reads[3].eq(1)
                with m.If(step((byte, byte == _HEADER - 1))):
                    m.next = "header_lands"
            with m.State("header_lands"):
                m.next = "decide"
            with m.State("decide"):
                m.d.sync += [
                    needed.eq(0),
                    total.eq(0),
                    at[0].eq(receiver.free + _HEADER),
                    starts[0].eq(receiver.free + _HEADER),
                    report.eq(Cat(counters)),
                    told_at.eq(0),
                    status.eq(Status.OK),
                ]
                m.next = "answer"
                with m.If(length < protocol.ASKED):
                    m.d.sync += [status.eq(length), command.eq(0), tag.eq(protocol.UNKNOWN_TAG)]
                with m.Elif(version != protocol.VERSION):
                    m.d.sync += status.eq(Status.UNKNOWN_VERSION)
                with m.Else(), m.Switch(command):
                    for n, service in enumerate(services):
                        with m.Case(service.command):
                            m.d.sync += index.eq(n)
                            m.next = "measure_a"
                    with m.Case(Command.IDENTIFY, Command.COUNTERS):
                        pass
                    with m.Case(Command.RESET):
                        m.d.comb += is_reset.eq(1)
                    with m.Default():
                        m.d.sync += status.eq(Status.UNKNOWN_COMMAND)

            # What has no B or C needs no bytes of them.
            for state, size, more, counters, pointers, following in (
                    ("measure_a", block_sizes[0], results, (in_panel, in_a), [], "measure_b"),
                    ("measure_b", block_sizes[1], 0, (in_panel, in_b), [starts[1], at[1]], "measure_c"),
                    ("measure_c", sizes[2], is_tile, (in_b, in_a), [at[2]], "measured")):
                with m.State(state):
                    with m.If(~Cat(counter for counter, _ in counters).any()):
                        m.d.sync += [pointer.eq(starts[0] + needed) for pointer in pointers]
                    m.d.sync += [needed.eq(needed + size), total.eq(total + more)]
                    with m.If(step(*counters)):
                        m.next = following
                    with m.If(is_wrong):
                        m.next = "measured"
            with m.State("measured"):
                m.next = "answer"
                with m.If(is_wrong):
                    m.d.sync += status.eq(Status.BAD_LENGTH)

            with m.State("answer"):
                m.d.comb += [
                    to_sender.valid.eq(1),
                    to_sender.payload.data.eq(answer[byte[:3]]),
                    to_sender.payload.last.eq((byte == len(answer) - 1) & ~has_more),
                ]
                with m.If(sent), m.If(step((byte, byte == len(answer) - 1))):
                    m.next = "done"
                    with m.If(is_served):
                        m.d.sync += is_collecting.eq(1)
                        m.next = "a"
                    with m.Elif(has_more):
                        m.next = "tell"
            with m.State("tell"):
                is_end = Mux(command == Command.IDENTIFY, told_at == len(self._identity) - 1, byte == len(report) // 8 - 1)
                m.d.comb += [
                    to_sender.valid.eq(1),
                    to_sender.payload.data.eq(Mux(command == Command.IDENTIFY, told.data, report[:8])),
                    to_sender.payload.last.eq(is_end),
                ]
                with m.If(sent):
                    # The memory's answer comes a cycle later.
                    m.d.comb += told.addr.eq(told_at + 1)
                    m.d.sync += [told_at.eq(told_at + 1), report.eq(report[8:]), byte.eq(byte + 1)]
                    with m.If(is_end):
                        m.next = "done"

            for n, (part, following) in enumerate(zip("abc", ("b", "c", "land"), strict=True)):
                with m.State(part):
                    is_end = byte == sizes[n] - 1
                    m.d.comb += reads[n].eq(1)
                    with m.If(step((byte, is_end))):
                        m.next = following
                        # C belongs to a product's first beat, and stays.
                        with m.If(~is_tile if part == "a" else (sizes[2] == 0) | (block != 0) | (beat != 0)):
                            m.next = "land"
            with m.State("land"):
                m.next = "offer"
            with m.State("offer"):
                # With room for a result only: units stand still without (is_active).
                m.d.comb += offered.eq(to_sender.ready)
                with m.If(accepted):
                    m.next = "a"
                    with m.If(step(in_block, in_panel)):
                        # The same panel of A with the next one of B, or the next one of A with the first of B.
                        with m.If(in_b[1]):
                            m.d.sync += [starts[0].eq(at[0]), at[1].eq(starts[1])]
                        with m.Else():
                            m.d.sync += at[0].eq(starts[0])
                        with m.If(step(in_b, in_a)):
                            m.next = "collect"
            with m.State("collect"), m.If(~is_collecting):
                m.next = "done"
            with m.State("done"):
                m.d.sync += [counter.eq(0) for counter in (byte, beat, block, a_panel, b_panel)]
                m.d.sync += receiver.free.eq(receiver.free + 2 + Mux(length < protocol.ASKED, 0, length))
                m.next = "idle"
        m.d.comb += [
            self.is_busy.eq(~fsm.ongoing("idle") | (receiver.end != receiver.free)),
            self.is_active.eq(is_reset | landing[:3].any() | (is_collecting & to_sender.ready)),
        ]

        self._collect(m, index, total, is_collecting)

        return m

    def _counters(self, m, is_reset):
        counters = [Signal(16, name=f"{name}_count") for name in COUNTERS]
        receiver = self._receiver
        whens = [*(receiver.is_done & (receiver.status == status) for status in _ENDS), receiver.is_dropped]
        for counter, when in zip(counters, whens, strict=True):
            with m.If(is_reset):
                m.d.sync += counter.eq(0)
            with m.Elif(when):
                m.d.sync += counter.eq(counter + 1)
        return counters

    def _collect(self, m, index, total, is_collecting):
        """``total`` payloads of the service's results to the sender, byte by byte, while ``is_collecting``."""
        services, to_sender = self._services, self._sender.i
        size = self._constant(m, index, "output_size", [service.output_bytes for service in services])
        at = Signal(range(max(service.output_bytes for service in services)))
        collected = Signal.like(total)
        valid, byte = Signal(), Signal(8)
        is_end, is_last = Signal(), Signal()
        m.d.comb += [is_end.eq(at == size - 1), is_last.eq(collected == total - 1)]
        with m.Switch(index):
            for n, service in enumerate(services):
                o = service.unit.o
                payload = Cat(o.payload, C(0, 8 * service.output_bytes - len(Value.cast(o.payload))))
                with m.Case(n):
                    m.d.comb += [
                        valid.eq(o.valid),
                        byte.eq(payload.word_select(at[:bits_for(service.output_bytes - 1)], 8)),
                        o.ready.eq(is_collecting & is_end & to_sender.ready),
                    ]
        with m.If(is_collecting):
            m.d.comb += [
                to_sender.valid.eq(valid),
                to_sender.payload.data.eq(byte),
                to_sender.payload.last.eq(is_end & is_last),
            ]
            with m.If(valid & to_sender.ready):
                m.d.sync += at.eq(Mux(is_end, 0, at + 1))
                with m.If(is_end):
                    m.d.sync += [collected.eq(Mux(is_last, 0, collected + 1)), is_collecting.eq(~is_last)]
