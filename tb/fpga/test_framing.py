# amaranth: UnusedElaboratable=no
"""Frames in simulation, beside the library of the host's side."""
import zlib

import numpy as np
import pytest
from amaranth.sim import Simulator
from cobs import cobs

from mxforge.fpga.framing import FrameReceiver, FrameSender
from mxforge.fpga.protocol import Status


def checked(packet):
    return packet + zlib.crc32(packet).to_bytes(4, "little")


def packets(lengths, rng):
    """Random ones with many zeros; without any, and of zeros alone."""
    for length in lengths:
        yield bytes(rng.choice(np.array([0, 0, 1, 255, 7], np.uint8), length))
        yield bytes(rng.integers(1, 256, length, np.uint8))
    yield bytes(9)


def test_sender():
    """Runs of 254 bytes and one less or more; a line that takes bytes now and then."""
    rng = np.random.default_rng(1)
    sender = FrameSender(512)
    wanted = list(packets([1, 2, 3, 249, 250, 251, 254, 255, 504, 508, 512, 600], rng))
    got = bytearray()

    async def put(ctx):
        for packet in wanted:
            for n, byte in enumerate(packet):
                ctx.set(sender.i.payload, {"data": byte, "last": n == len(packet) - 1})
                ctx.set(sender.i.valid, 1)
                await ctx.tick().until(sender.i.ready)
                ctx.set(sender.i.valid, 0)
                if rng.random() < 0.1:
                    await ctx.tick()

    async def get(ctx):
        while got.count(0) < len(wanted):
            ctx.set(sender.o.ready, 1)
            got.append(*await ctx.tick().sample(sender.o.payload).until(sender.o.valid))
            ctx.set(sender.o.ready, 0)
            for _ in range(int(rng.choice([0, 0, 1, 4]))):
                await ctx.tick()
        assert not ctx.get(sender.is_busy)

    simulator = Simulator(sender)
    simulator.add_clock(1e-6)
    simulator.add_testbench(put)
    simulator.add_testbench(get)
    simulator.run()
    frames = bytes(got).split(b"\0")
    assert frames.pop() == b""
    assert [cobs.decode(frame) for frame in frames] == [checked(packet) for packet in wanted]


class Bench:
    """A receiver, what is fed to it, and what it leaves in the ring."""
    def __init__(self, ctx, receiver, depth):
        self.ctx, self.receiver, self.depth = ctx, receiver, depth
        self.free = 0
        self.dropped = 0

    async def byte(self, byte, *, error=False, pause=3):
        ctx, receiver = self.ctx, self.receiver
        ctx.set(receiver.i, byte)
        ctx.set(receiver.i_error if error else receiver.i_valid, 1)
        await ctx.tick()
        ctx.set(receiver.i_valid, 0)
        ctx.set(receiver.i_error, 0)
        for _ in range(pause):
            *_, dropped = await ctx.tick().sample(receiver.is_dropped)
            self.dropped += dropped

    async def frame(self, packet):
        for byte in cobs.encode(packet) + b"\0":
            await self.byte(byte)

    async def _read(self, at):
        self.ctx.set(self.receiver.address, at % self.depth)
        await self.ctx.tick()
        return self.ctx.get(self.receiver.data)

    async def take(self):
        """Packets and faults that are there; the ring is free then."""
        await self.ctx.tick().repeat(6)
        end, found = self.ctx.get(self.receiver.end), []
        while self.free != end:
            length = await self._read(self.free) + 256 * await self._read(self.free + 1)
            is_fault = length < 8
            found.append(Status(length) if is_fault else bytes([await self._read(self.free + 2 + n) for n in range(length)]))
            self.free = (self.free + 2 + (0 if is_fault else length)) % (2 * self.depth)
        self.ctx.set(self.receiver.free, self.free)
        return found


def received(bench, depth=256, limit=100, patience=40):
    receiver = FrameReceiver(depth, limit, patience)

    async def run(ctx):
        await bench(Bench(ctx, receiver, depth))

    simulator = Simulator(receiver)
    simulator.add_clock(1e-6)
    simulator.add_testbench(run)
    simulator.run()


def test_receiver_takes_whole_packets():
    rng = np.random.default_rng(2)

    async def bench(line):
        for packet in packets([4, 5, 17, 95, 96], rng):
            await line.frame(checked(packet))
            assert await line.take() == [checked(packet)]
        # A run of 254 bytes needs a longer ring.

    received(bench)


def test_receiver_takes_long_runs():
    rng = np.random.default_rng(3)

    async def bench(line):
        for packet in packets([249, 250, 251, 490], rng):
            await line.frame(checked(packet))
            assert await line.take() == [checked(packet)]

    received(bench, depth=1024, limit=510)


def test_receiver_says_what_was_wrong():
    good, other = checked(b"good packet\0"), checked(b"\0\0\0\0another")

    async def bench(line):
        async def then_good(*faults):
            # What follows is taken as if nothing had been.
            await line.frame(other)
            assert await line.take() == [*faults, other]

        for n in range(len(good)):
            await line.frame(good[:n] + bytes([good[n] ^ 0x10]) + good[n + 1:])
        await then_good(*[Status.CORRUPT] * len(good))
        await line.frame(good[:-1])
        await then_good(Status.CORRUPT)
        # A code that promises more than comes; a frame that is too short for a packet.
        for byte in b"\x09abc\0", b"\1\0", b"\5\0":
            for one in byte:
                await line.byte(one)
        await then_good(*[Status.CORRUPT] * 3)
        # A byte that the line spoilt, in a frame and outside.
        encoded = cobs.encode(good)
        for n, byte in enumerate(encoded):
            await line.byte(byte, error=n == 5)
        await line.byte(0)
        await line.byte(0, error=True)
        await line.byte(0)
        await then_good(Status.CORRUPT, Status.CORRUPT)
        await line.frame(checked(bytes(97)))
        await line.frame(checked(bytes(96)))
        assert await line.take() == [Status.TOO_LONG, checked(bytes(96))]
        # Empty frames are nothing.
        for _ in range(3):
            await line.byte(0)
        await then_good()
        # The rest of a frame that stopped is another frame's beginning.
        for byte in encoded[:8]:
            await line.byte(byte)
        await line.byte(7, pause=45)
        await then_good(Status.TIMEOUT)

    received(bench)


def test_receiver_without_room():
    """Neither the packets that are there nor those that come later suffer."""
    packet = checked(bytes(range(80)))

    async def bench(line):
        for _ in range(3):
            for _ in range(5):
                await line.frame(packet)
            found = await line.take()
            assert found[:2] == [packet] * 2 and set(found[2:]) == {Status.OVERRUN}
        # Full to the last byte, even faults are lost, but counted.
        faults = 140
        for _ in range(faults):
            await line.byte(1)
            await line.byte(0)
        found = await line.take()
        assert set(found) == {Status.CORRUPT} and len(found) + line.dropped == faults and line.dropped
        await line.frame(packet)
        assert await line.take() == [packet]

    received(bench)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: FrameReceiver(100, 20, 9), "depth must be a power of two, 64 or more, not 100"),
    (lambda: FrameReceiver(128, 63, 9), "limit must be 8 to 62, half of the ring, not 63"),
    (lambda: FrameSender(256), "depth must be a power of two, 512 or more, not 256"),
])
def test_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()
