"""What every AXI4-Stream top must pass, with source and sink of cocotbext-axi and the protocol's rules watched beside them."""
import logging
import random

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, FallingEdge, RisingEdge, Timer, with_timeout
from cocotbext.axi import AxiStreamBus, AxiStreamFrame, AxiStreamSink, AxiStreamSource

from . import bench
from .manifest import Payload, as_streams, bounds, load, with_marks

__all__ = ["Top", "Watch", "Wires", "start", "vectors"]

_PERIOD = 10
# Nanoseconds without a packet, after which the unit hangs.
_PATIENCE = 1_000_000


class Wires:
    """One stream's signals, and its payload as integers of ``tdata``, ``tkeep`` and ``tlast``, as :func:`as_streams` has it."""
    def __init__(self, dut, manifest, side, port):
        self.tvalid, self.tready, self.tdata, self.tkeep, self.tlast = (
            getattr(dut, f"{side}_t{name}") for name in ("valid", "ready", "data", "keep", "last"))
        self.layout = Payload(as_streams(manifest), port)
        self.data_width = manifest["ports"][f"{side}_tdata"]["width"]
        self.bytes = self.data_width // 8
        self.has_keep = "fields" in manifest["ports"][f"{side}_tkeep"]

    def sample(self):
        return int(self.tdata.value), int(self.tkeep.value), int(self.tlast.value)

    def to_packets(self, beats):
        """Frames of cocotbext-axi: each a packet, but for the last one if it is left open."""
        data, keep = bytearray(), []
        for beat in beats:
            data += (beat & ((1 << self.data_width) - 1)).to_bytes(self.bytes, "little")
            above = beat >> self.data_width
            keep += [above >> n & 1 for n in range(self.bytes)] if self.has_keep else [1] * self.bytes
            if above >> (self.bytes if self.has_keep else 0) & 1:
                yield AxiStreamFrame(bytes(data), keep)
                data, keep = bytearray(), []
        assert not data, "the last beat must end its packet"

    def to_beats(self, packet):
        for at in range(0, len(packet.tdata), self.bytes):
            beat = int.from_bytes(packet.tdata[at:at + self.bytes], "little")
            above = sum(bit << n for n, bit in enumerate(packet.tkeep[at:at + self.bytes])) if self.has_keep else 0
            is_last = at + self.bytes == len(packet.tdata)
            yield beat | (above | is_last << (self.bytes if self.has_keep else 0)) << self.data_width


class Watch:
    """The rules of AXI4-Stream on one side, and what was transferred when."""
    def __init__(self, dut, wires):
        self.cycles = []
        self.beats = []
        cocotb.start_soon(self._run(dut, wires))

    async def _run(self, dut, wires):
        edge = RisingEdge(dut.aclk)
        held, was_in_reset = None, False
        cycle = 0
        while True:
            await edge
            cycle += 1
            in_reset = not dut.aresetn.value
            is_valid = bool(wires.tvalid.value)
            assert not (was_in_reset and is_valid), "tvalid is high after an edge in reset"
            if held is not None and not in_reset:
                assert is_valid, "tvalid dropped before a transfer"
                assert wires.sample() == held, "tdata, tkeep or tlast changed before a transfer"
            held = None
            if is_valid and not in_reset:
                tdata, tkeep, tlast = wires.sample()
                assert wires.has_keep or tkeep == (1 << wires.bytes) - 1, f"tkeep is {tkeep:#x}, not all ones"
                if wires.tready.value:
                    self.cycles.append(cycle)
                    above = tkeep | tlast << wires.bytes if wires.has_keep else tlast
                    self.beats.append(tdata | above << wires.data_width)
                else:
                    held = tdata, tkeep, tlast
            was_in_reset = in_reset


class Top:
    """An AXI4-Stream top between source and sink, in reset at first; without ``sink``, ``m_axis_tready`` is the caller's."""
    def __init__(self, dut, sink=True):
        self.manifest = load()
        self.dut = dut
        self.i, self.o = Wires(dut, self.manifest, "s_axis", "i"), Wires(dut, self.manifest, "m_axis", "o")
        Clock(dut.aclk, _PERIOD, "ns").start()
        dut.aresetn.value = 0
        self.sent, self.received = Watch(dut, self.i), Watch(dut, self.o)

        def end(kind, prefix):
            made = kind(AxiStreamBus.from_prefix(dut, prefix), dut.aclk, dut.aresetn, reset_active_level=False)
            made.log.setLevel(logging.ERROR)
            return made

        self.source = end(AxiStreamSource, "s_axis")
        self.sink = end(AxiStreamSink, "m_axis") if sink else None

    async def reset(self, cycles):
        """Reset, and nothing waits to be sent or has been received afterwards."""
        self.dut.aresetn.value = 0
        await ClockCycles(self.dut.aclk, cycles)
        for end in self.source, self.sink:
            if end:
                end.clear()
        for watch in self.sent, self.received:
            watch.cycles.clear()
            watch.beats.clear()
        self.dut.aresetn.value = 1

    def stall(self, input_pauses=None, output_pauses=None):
        """Idle cycles before input beats, and cycles in which no output beat is taken, by functions that say how many."""
        for end, pauses in (self.source, input_pauses), (self.sink, output_pauses):
            end.set_pause_generator(_gate(pauses) if pauses else None)
            end.pause = False

    def send(self, inputs):
        """Queue rows of arrays (with ``tlast``, one a beat, where it is no field); returns how many beats that are."""
        beats = self.i.layout.to_beats(inputs)
        last = 1 << (self.i.data_width + self.i.bytes * self.i.has_keep)
        # A field of a block counts on its last beat.
        for n, beat in enumerate(beats):
            if (n + 1) % self.i.layout.beats and "last" in inputs and random.randrange(2):
                beats[n] = beat & ~last
        for packet in self.i.to_packets(beats):
            self.source.send_nowait(packet)
        return len(beats)

    async def receive(self, expected):
        """As many rows as are ``expected``, the first since the reset."""
        wanted = self.o.layout.to_beats(expected)
        last = self.o.data_width + self.o.bytes * self.o.has_keep
        in_packets = 1 + max((n for n, beat in enumerate(wanted) if beat >> last & 1), default=-1)
        beats = []
        while len(beats) < in_packets:
            packet = await with_timeout(self.sink.recv(compact=False), _PATIENCE, "ns")
            beats += self.o.to_beats(packet)
        assert len(beats) == in_packets, f"{len(beats)} beats, expected {in_packets}"
        # Those of a packet that nothing ends stay in the sink.
        for _ in range(_PATIENCE // _PERIOD):
            if len(self.received.beats) >= len(wanted):
                break
            await RisingEdge(self.dut.aclk)
        return self.o.layout.to_rows(beats + self.received.beats[in_packets:len(wanted)])


def _gate(pauses):
    while True:
        for _ in range(pauses()):
            yield True
        yield False


def vectors(manifest, count):
    """``(inputs, outputs)`` as of :func:`bench.vectors`, with ``tlast`` where it is no field of the unit."""
    inputs, expected = bench.vectors(manifest, count)
    return with_marks(manifest, inputs, expected, np.random.default_rng(random.randrange(1 << 32)))


async def start(dut, *, sink=True):
    """The :class:`Top` of ``dut``, out of reset."""
    top = Top(dut, sink)
    await top.reset(2)
    return top


async def run_blocks(top, count):
    inputs, expected = vectors(top.manifest, count)
    top.send(inputs)
    bench.compare(await top.receive(expected), expected, inputs)
    top.stall()
    before = len(top.received.beats)
    await ClockCycles(top.dut.aclk, bounds(top.manifest["latency"])[1] + 4)
    assert len(top.received.beats) == before, "more results than expected"


@cocotb.test()
async def matches_golden(dut):
    await run_blocks(await start(dut), bench.BLOCKS)


@cocotb.test()
async def matches_golden_with_idle_inputs(dut):
    top = await start(dut)
    top.stall(input_pauses=bench.some_pauses)
    await run_blocks(top, bench.BLOCKS // 3)


@cocotb.test()
async def matches_golden_under_back_pressure(dut):
    top = await start(dut)
    top.stall(output_pauses=bench.some_pauses)
    await run_blocks(top, bench.BLOCKS // 3)


@cocotb.test()
async def obeys_stream_rules(dut):
    top = await start(dut)
    top.stall(bench.some_pauses, bench.some_pauses)
    await run_blocks(top, bench.BLOCKS // 3)


@cocotb.test()
async def latency_and_interval_are_declared(dut):
    # Every input block gives a result in each unit's stimulus of a single block.
    blocks = 40
    top = await start(dut)
    # Both ends take a cycle to wake up.
    await ClockCycles(dut.aclk, 4)
    inputs, expected = vectors(top.manifest, blocks)
    top.send(inputs)
    await top.receive(expected)
    bench.check_timing(top.manifest, top.sent.cycles, top.received.cycles, inputs)
    dut._log.info("latency %s, interval %s, as declared", top.manifest["latency"], top.manifest["interval"])


@cocotb.test()
async def valid_ignores_ready(dut):
    top = await start(dut, sink=False)
    inputs, _ = vectors(top.manifest, 60)
    dut.m_axis_tready.value = 0
    top.send(inputs)
    await with_timeout(RisingEdge(dut.m_axis_tvalid), _PATIENCE, "ns")
    for _ in range(150):
        await FallingEdge(dut.aclk)
        seen = set()
        for ready in (0, 1):
            dut.m_axis_tready.value = ready
            await Timer(1, "ns")
            seen.add((int(dut.m_axis_tvalid.value), *top.o.sample()))
        assert len(seen) == 1, "output depends combinationally on m_axis_tready"
        dut.m_axis_tready.value = random.randrange(2)


@cocotb.test()
async def starts_anew_after_reset(dut):
    top = await start(dut)
    interrupted = 0
    for _ in range(12):
        top.stall(bench.some_pauses, random.choice([None, bench.some_pauses]))
        inputs, expected = vectors(top.manifest, 60)
        top.send(inputs)
        await ClockCycles(dut.aclk, random.randrange(1, 80))
        # What had come until then is right.
        beats = top.o.layout.to_beats(expected)
        got = list(top.received.beats)
        assert got == beats[:len(got)], "wrong before the reset"
        interrupted += bool(top.sent.beats) and len(got) < len(beats)
        await top.reset(random.randrange(1, 4))
    assert interrupted > 3, "hardly a reset came in mid-stream"
    top.stall(bench.some_pauses, bench.some_pauses)
    await run_blocks(top, bench.BLOCKS // 6)


@cocotb.test()
async def reset_is_of_the_declared_kind(dut):
    top = await start(dut, sink=False)
    dut.m_axis_tready.value = 0
    top.send(vectors(top.manifest, 60)[0])
    await with_timeout(RisingEdge(dut.m_axis_tvalid), _PATIENCE, "ns")
    await FallingEdge(dut.aclk)
    dut.aresetn.value = 0
    await Timer(1, "ns")
    assert bool(dut.m_axis_tvalid.value) == (top.manifest["reset"] == "sync"), "within the cycle"
    await RisingEdge(dut.aclk)
    await Timer(1, "ns")
    assert not dut.m_axis_tvalid.value, "after the edge"
