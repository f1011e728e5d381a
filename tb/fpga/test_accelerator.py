# amaranth: UnusedElaboratable=no
"""Requests over the pins of a small accelerator, in simulation; test_virtual has larger ones."""
import struct
from dataclasses import asdict

import numpy as np
import pytest
from amaranth.sim import Simulator
from cobs import cobs

import mxgolden
from mxforge.dequantizer import Dequantizer
from mxforge.fpga import protocol
from mxforge.fpga.accelerator import COUNTERS, Accelerator, Service
from mxforge.fpga.protocol import Answer, Command, Status
from mxforge.matmul_tile import MatmulTile
from mxforge.pipeline import Streamed
from mxforge.quantizer import Quantizer
from mxgolden import dequantizer, quantizer

DIVISOR = 4
IDENTITY = b"who I am\0"


class Host:
    """Bytes to and from the pins."""
    def __init__(self, ctx, accelerator):
        self.ctx, self.accelerator = ctx, accelerator
        self.answers = []
        self.tag = 0x1233

    async def send(self, data):
        for byte in data:
            for level in (0, *(byte >> n & 1 for n in range(8)), 1):
                self.ctx.set(self.accelerator.rx, level)
                await self.ctx.tick().repeat(DIVISOR)

    async def listen(self, ctx):
        """Runs in the background."""
        frame = bytearray()
        while True:
            while ctx.get(self.accelerator.tx):
                await ctx.tick()
            await ctx.tick().repeat(DIVISOR // 2)
            byte = 0
            for n in range(8):
                await ctx.tick().repeat(DIVISOR)
                byte |= ctx.get(self.accelerator.tx) << n
            await ctx.tick().repeat(DIVISOR)
            assert ctx.get(self.accelerator.tx), "no stop bit"
            if byte:
                frame.append(byte)
            else:
                self.answers.append(protocol.answer_of(cobs.decode(bytes(frame))))
                frame.clear()

    async def hear(self, count=1):
        """The next ``count`` answers."""
        for _ in range(50_000):
            if len(self.answers) >= count:
                break
            await self.ctx.tick()
        found, self.answers[:] = self.answers[:count], self.answers[count:]
        assert len(found) == count, "no answer"
        return found

    async def ask(self, command, body=b""):
        self.tag += 1
        await self.send(cobs.encode(protocol.request(command, self.tag, body)) + b"\0")
        answer, = await self.hear()
        assert (answer.command, answer.tag) == (command, self.tag)
        return answer


def run(accelerator, bench):
    async def host(ctx):
        nonlocal line
        line.ctx = ctx
        await bench(line)
        assert line.answers == []
        await ctx.tick().repeat(20 * DIVISOR)
        assert not ctx.get(accelerator.is_busy) and not ctx.get(accelerator.is_active)

    line = Host(None, accelerator)
    simulator = Simulator(accelerator)
    simulator.add_clock(1e-6)
    simulator.add_testbench(host)
    simulator.add_testbench(line.listen, background=True)
    simulator.run()


def counts(**some):
    return struct.pack(f"<{len(COUNTERS)}H", *(some.get(name, 0) for name in COUNTERS))


def test_questions_and_faults():
    accelerator = Accelerator([Service(Command.DEQUANTIZE, Streamed(Dequantizer(lanes=1, target="fp16")))], IDENTITY,
                              divisor=DIVISOR, depth=128, patience=1000)

    async def bench(host):
        assert (await host.ask(Command.IDENTIFY)).body == IDENTITY
        assert (await host.ask(Command.COUNTERS)).body == counts(ok=2)
        good = cobs.encode(protocol.request(Command.COUNTERS, 7)) + b"\0"
        corrupt = good[:4] + b"\x55" + good[5:]
        for sent, status in ((corrupt, Status.CORRUPT), (b"\3ab\0", Status.CORRUPT),
                             (cobs.encode(protocol.request(Command.COUNTERS, 7, bytes(80))) + b"\0", Status.TOO_LONG)):
            await host.send(sent)
            assert await host.hear() == [Answer(None, protocol.UNKNOWN_TAG, status, b"")]
        # Half a frame, and a host that comes back much later.
        await host.send(good[:5])
        await host.ctx.tick().repeat(1100)
        assert (await host.hear())[0].status == Status.TIMEOUT
        assert (await host.ask(Command.COUNTERS)).body == counts(ok=3, corrupt=2, too_long=1, timeout=1)
        assert (await host.ask(Command.RESET)).body == b""
        assert (await host.ask(Command.COUNTERS)).body == counts(ok=1)
        for command in 3, 15, Command.QUANTIZE, Command.MATMUL, 0x7F:
            assert (await host.ask(command)).status == Status.UNKNOWN_COMMAND
        newer = bytes([2, Command.IDENTIFY, 9, 0])
        await host.send(cobs.encode(newer + protocol.CHECKSUM.pack(protocol.zlib.crc32(newer))) + b"\0")
        assert await host.hear() == [Answer(Command.IDENTIFY, 9, Status.UNKNOWN_VERSION, b"")]
        # Two at once, without a pause.
        await host.send(good + good)
        assert [answer.body for answer in await host.hear(2)] == [counts(ok=8), counts(ok=9)]

    run(accelerator, bench)


def test_units_of_one_beat_and_of_several():
    units = {Command.QUANTIZE: Streamed(Quantizer(lanes=2, block_size=4, stages=2)),
             Command.DEQUANTIZE: Streamed(Dequantizer(lanes=3, target="bf16", stages=1))}
    accelerator = Accelerator([Service(command, unit) for command, unit in units.items()], IDENTITY, divisor=DIVISOR, depth=1024)
    rng = np.random.default_rng(1)
    values = rng.normal(size=(7, 4)).astype(np.float32)
    values[2, 1], values[3, 2], values[5] = np.nan, -np.inf, 0
    wanted = quantizer.expected(asdict(units[Command.QUANTIZE].core.parameters), {"values": values.view(np.uint32)})
    beats = b"".join(bytes([scale, *elements[n:n + 2]])
                     for scale, elements in zip(wanted["scale"], wanted["elements"], strict=True) for n in (0, 2))
    codes, scales = rng.integers(0, 256, (9, 3), np.uint8), rng.integers(0, 256, 9, np.uint8)
    floats = dequantizer.expected(asdict(units[Command.DEQUANTIZE].core.parameters), {"scale": scales, "elements": codes})["values"]

    async def bench(host):
        body = struct.pack("<HBB", 7, 1, 1) + values.tobytes()
        assert await host.ask(Command.QUANTIZE, body) == Answer(Command.QUANTIZE, host.tag, Status.OK, beats)
        # What fills a request up is not looked at; panels are a tile's.
        assert (await host.ask(Command.QUANTIZE, body[:2] + b"\0\xff" + body[4:] + bytes(50))).body == beats
        single = struct.pack("<HBB", 1, 1, 1) + values[:1].tobytes()
        for short in single[:-1], single[:4], single[:3], b"", struct.pack("<HBB", 0, 1, 1), struct.pack("<H", 0xFFFF) + single[2:]:
            assert (await host.ask(Command.QUANTIZE, short)).status == Status.BAD_LENGTH
        assert (await host.ask(Command.QUANTIZE, single)).body == beats[:6]
        body = struct.pack("<HBB", 9, 1, 1) + np.column_stack([scales, codes]).tobytes()
        assert (await host.ask(Command.DEQUANTIZE, body)).body == floats.tobytes()

    run(accelerator, bench)


@pytest.mark.parametrize(("addend", "lanes", "columns"), [(True, 2, 1), (False, 1, 1)])
def test_products_of_panels(addend, lanes, columns):
    unit = Streamed(MatmulTile(lanes=lanes, block_size=2, rows=2, columns=columns, addend=addend, stages=2))
    accelerator = Accelerator([Service(Command.MATMUL, unit)], IDENTITY, divisor=DIVISOR, depth=1024)
    rng = np.random.default_rng(2)

    def side(panels, lines, blocks):
        """Scales, codes, and the bytes of the panels' beats."""
        codes = rng.integers(0, 256, (panels, lines, blocks, 2), np.uint8)
        scales = rng.integers(120, 134, (panels, lines, blocks), np.uint8)
        beats = b"".join(scales[panel, :, block].tobytes() + codes[panel, :, block, beat:beat + lanes].tobytes()
                         for panel in range(panels) for block in range(blocks) for beat in range(0, 2, lanes))
        return scales.reshape(panels * lines, blocks), codes.reshape(panels * lines, -1), beats

    def product(blocks, a_panels, b_panels):
        (a_scales, a, a_beats), (b_scales, b, b_beats) = side(a_panels, 2, blocks), side(b_panels, columns, blocks)
        c = rng.normal(size=(len(a), len(b))).astype(np.float32) if addend else np.zeros((len(a), len(b)), np.float32)
        results = mxgolden.dot(
            a[:, None], a_scales[:, None], b, b_scales, c.view(np.uint32), "e4m3", "e4m3", "fp32_fused", block_size=2)
        by_panels = [array.reshape(a_panels, 2, b_panels, columns).swapaxes(1, 2).tobytes() for array in (c, results)]
        body = struct.pack("<HBB", blocks, a_panels, b_panels) + a_beats + b_beats + (by_panels[0] if addend else b"")
        return body, by_panels[1]

    async def bench(host):
        for blocks, a_panels, b_panels in (1, 1, 1), (3, 2, 2):
            body, wanted = product(blocks, a_panels, b_panels)
            assert (await host.ask(Command.MATMUL, body)).body == wanted
        for short in body[:-1], body[:1] + b"\1" + body[2:], body[:2] + b"\5" + body[3:], body[:3] + b"\0" + body[4:], body[:4]:
            assert (await host.ask(Command.MATMUL, short)).status == Status.BAD_LENGTH
        assert (await host.ask(Command.MATMUL, body + bytes(9))).body == wanted

    run(accelerator, bench)


def test_refuses_beats_that_are_not_whole_bytes():
    with pytest.raises(ValueError, match="must be whole bytes"):
        _ = Service(Command.MATMUL, Streamed(MatmulTile(a_element="e2m1", lanes=1, rows=1))).input_bytes
