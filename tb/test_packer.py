# amaranth: UnusedElaboratable=no
from dataclasses import asdict

import cocotb
import numpy as np
import pytest
from amaranth import *
from amaranth.lib import data, wiring
from buses import BUSES, check_cover, cover
from cocotb.triggers import RisingEdge
from emitted import emitted

from mxbench.bench import compare, some_pauses, vectors
from mxbench.stream import put_all, start
from mxforge.arith import select, thermometer
from mxforge.catalog import Entry
from mxforge.errors import MxforgeError
from mxforge.flow import player
from mxforge.formats import ELEMENTS
from mxforge.packer import Packer
from mxforge.packing import block_fields
from mxforge.unit import StreamUnit
from mxforge.unpacker import Unpacker
from mxgolden import packer as golden

COVER = cover(("e4m3", "e5m2", "mxint8"), ("e3m2", "e2m3"))


@cocotb.test()
async def keeps_the_bus_busy(dut):
    """A beat is there in each cycle that would take one, whatever the packets, from the first beat to the last."""
    manifest, i, o = await start(dut)
    p = manifest["parameters"]
    if manifest["interval"][0] == manifest["interval"][1] == 1 or manifest["throughput"]["o"] < 1:
        return              # the bus is not what it waits for
    inputs, expected = vectors(manifest, 300)
    if p["blocks"] > 1:
        # No packet ends with a transfer of no block: it may be a beat of its own, or not, and takes a cycle anyway.
        inputs["count"] = np.maximum(inputs["count"], 1)
        expected = golden.expected(p, inputs)
    beats = len(expected["last"])
    cocotb.start_soon(put_all(dut.clk, i, i.layout.to_beats(inputs)))
    taken, pause = 0, 0
    while taken < beats:
        o.ready.value = int(pause == 0)
        await RisingEdge(dut.clk)
        valid = bool(o.valid.value)
        assert valid or not taken or pause, f"no beat {taken} of {beats}"
        taken += valid and not pause
        pause = pause - 1 if pause else some_pauses()


@pytest.mark.parametrize("parameters", [
    {"stages": 1},
    {"element": "e2m1", "bus_bytes": 64},
    {"bus_bytes": 64, "blocks": 2, "stages": 2},
    {"element": "e3m2", "block_size": 4, "bus_bytes": 1},
])
def test_bench(simulate, parameters):
    simulate(Packer(**parameters), "packer")


def check(verify, parameters, count, **options):
    hits = verify(Packer(**parameters), count, **options)
    assert all(hits.values()), hits


@pytest.mark.parametrize(("bus_bytes", "element"), COVER)
def test_each_bus_and_width(verify, bus_bytes, element):
    parameters = {"element": element, "bus_bytes": bus_bytes}
    check(verify, parameters, 20_000)
    check(verify, parameters, 10_000, stalls=bus_bytes)


def test_cover_is_one():
    check_cover(COVER)


@pytest.mark.slow
@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("bus_bytes", BUSES)
def test_product(verify, bus_bytes, element):
    for blocks in 1, 2, 4:
        check(verify, {"element": element, "bus_bytes": bus_bytes, "blocks": blocks}, 100_000)
        check(verify, {"element": element, "bus_bytes": bus_bytes, "blocks": blocks}, 100_000, stalls=blocks)


# Sizes that share a divisor, one that divides the other, both alike; blocks that are no power of two, of few elements, of many.
@pytest.mark.parametrize("parameters", [
    {"block_size": 7, "bus_bytes": 8},
    {"block_size": 15, "bus_bytes": 4},
    {"block_size": 1, "bus_bytes": 64, "blocks": 5},
    {"block_size": 2, "bus_bytes": 64, "element": "e2m1"},
    {"block_size": 12, "bus_bytes": 16, "element": "e2m3", "blocks": 3},
    {"block_size": 256, "bus_bytes": 32, "element": "e3m2"},
    {"blocks": 8, "bus_bytes": 64},
    {"blocks": 3, "bus_bytes": 2},
])
def test_other_sizes(verify, parameters):
    verify(Packer(**parameters), 20_000)
    verify(Packer(**parameters), 10_000, stalls=1)


@pytest.mark.parametrize(("parameters", "stages"), [
    *(({"bus_bytes": 8}, n) for n in range(4)),
    *(({"bus_bytes": 64, "blocks": 2}, n) for n in range(4)),
    *(({"bus_bytes": 32, "element": "e2m1"}, n) for n in range(3)),
])
def test_every_depth(verify, parameters, stages):
    check(verify, parameters | {"stages": stages}, 10_000)
    check(verify, parameters | {"stages": stages}, 5_000, stalls=stages)


def packets(parameters, lengths, seed=1):
    """Packets of so many blocks each."""
    rng = np.random.default_rng(seed)
    of, size = parameters["blocks"], parameters["block_size"]
    transfers = [-(-length // of) for length in lengths]
    count = sum(transfers)
    width = ELEMENTS[parameters["element"]].width
    inputs = {"scale": rng.integers(0, 256, (count, of), dtype=np.uint8)[:, 0 if of == 1 else slice(None)],
              "elements": rng.integers(0, 1 << width, (count, of * size), dtype=np.uint8),
              "last": np.zeros(count, np.uint8)}
    ends = np.cumsum(transfers) - 1
    inputs["last"][ends] = 1
    if of > 1:
        inputs["count"] = np.zeros(count, np.uint8)
        inputs["count"][ends] = np.array(lengths) - (np.array(transfers) - 1) * of
    return inputs


def rates(unit, inputs, expected, sim_build, stalls=None):
    name = type(unit).__module__.rpartition(".")[2]
    machine = player.build(*emitted(unit, name), sim_build)
    compare(machine.play(inputs, stalls=stalls), expected, inputs)
    return machine.last


@pytest.mark.parametrize("lengths", [[3000], [1] * 500, [2] * 300, list(range(1, 60))], ids=["long", "ones", "twos", "rising"])
@pytest.mark.parametrize(("bus_bytes", "element", "blocks"), [
    (1, "e2m1", 1), (8, "e3m2", 1), (16, "e4m3", 1), (16, "e2m1", 1), (32, "e4m3", 1), (64, "e4m3", 2), (64, "e2m3", 3),
    (64, "e2m1", 4)])
def test_the_bus_is_full(bus_bytes, element, blocks, lengths, sim_build, verified):
    """Transfers no narrower than the bus: a beat each cycle from first to last, packets' ends included."""
    unit = Packer(bus_bytes=bus_bytes, element=element, blocks=blocks)
    inputs = packets(asdict(unit.parameters), lengths)
    expected = golden.expected(asdict(unit.parameters), inputs)
    full = rates(unit, inputs, expected, sim_build)
    assert full.output_rate == 1.0
    stalled = rates(unit, inputs, expected, sim_build, stalls=1)
    if len(lengths) == 1:
        assert unit.throughput["o"] == 1 and abs(full.input_rate - unit.throughput["i"]) < 0.01
        verified("packer", measured=f"{element}, {blocks} x {unit.parameters.block_bytes} bytes to {bus_bytes}: "
                 f"{full.output_rate:.3f} beats a cycle, with both sides stalled at random {stalled.output_rate:.3f}")


@pytest.mark.parametrize("length", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(("bus_bytes", "element"), [(64, "e4m3"), (64, "e2m1"), (32, "e2m1")])
def test_narrow_transfers(bus_bytes, element, length, sim_build, verified):
    """A transfer a cycle, and one more for a packet whose last transfer completes a beat and begins another."""
    unit = Packer(bus_bytes=bus_bytes, element=element)
    size, count = unit.parameters.block_bytes, 50
    inputs = packets(asdict(unit.parameters), [length] * count)
    full = rates(unit, inputs, golden.expected(asdict(unit.parameters), inputs), sim_build)
    before = (length - 1) * size % bus_bytes
    straddles = before + size > bus_bytes
    # The last transfer's own second cycle comes after it.
    assert full.inputs / full.input_rate == count * length + (count - 1) * straddles
    if length == 1000:
        verified("packer", measured=f"{element}, 1 x {size} bytes to {bus_bytes}: {full.output_rate:.3f} beats a cycle")


class RoundTrip(StreamUnit):
    """A packer, and an unpacker behind it."""
    interval = 1, 40

    def __init__(self, **options):
        self._packer, self._unpacker = Packer(**options), Unpacker(**options)
        p = self._packer.parameters
        self.latency = [a + b for a, b in zip(self._packer.latency, self._unpacker.latency, strict=True)]
        self.throughput = {"i": 1, "o": 1}
        super().__init__(p, i=data.StructLayout(block_fields(p)), o=data.StructLayout(block_fields(p) | {"is_truncated": 1}))

    def elaborate(self, platform):
        m = Module()
        m.submodules.packer, m.submodules.unpacker = self._packer, self._unpacker
        wiring.connect(m, wiring.flipped(self.i), self._packer.i)
        wiring.connect(m, self._packer.o, self._unpacker.i)
        wiring.connect(m, self._unpacker.o, wiring.flipped(self.o))
        return m


@pytest.mark.parametrize(("bus_bytes", "element", "blocks"), [
    (1, "e4m3", 1), (2, "e3m2", 1), (4, "e2m1", 1), (8, "e5m2", 2), (16, "e4m3", 1), (32, "e2m3", 1), (64, "e2m1", 1),
    (64, "mxint8", 2)])
def test_round_trip(bus_bytes, element, blocks, sim_build, verified):
    unit = RoundTrip(bus_bytes=bus_bytes, element=element, blocks=blocks)
    inputs = packets(asdict(unit.parameters), np.random.default_rng(5).integers(1, 40, 200).tolist())
    expected = inputs | {"is_truncated": np.zeros_like(inputs["last"])}
    if blocks > 1:
        is_short = inputs["last"].astype(bool)
        expected["count"] = np.where(is_short, inputs["count"], blocks).astype(np.uint8)
        # Blocks that are not there come back as zeros.
        is_there = np.arange(blocks) < expected["count"][:, None]
        expected["scale"] = inputs["scale"] * is_there
        expected["elements"] = inputs["elements"] * np.repeat(is_there, unit.parameters.block_size, axis=1)
    for stalls in None, 1, 2:
        rates(unit, inputs, expected, sim_build, stalls)
    verified("packer", blocks=len(inputs["last"]), values=3 * inputs["elements"].size)


def test_bytes_in_memory():
    """A block's bytes, as the format's description has them: FP4 two a byte, FP6 four in three bytes, the lowest first."""
    def stream(element, block_size, bus_bytes, elements):
        inputs = {"scale": np.uint8([0x7F, 0x80]), "elements": np.uint8(elements), "last": np.uint8([0, 1])}
        p = {"element": element, "block_size": block_size, "bus_bytes": bus_bytes, "blocks": 1}
        return golden.expected(p, inputs)

    beats = stream("e2m1", 2, 4, [[0x1, 0xE], [0x3, 0x4]])
    assert beats["data"].tolist() == [[0x7F, 0xE1, 0x80, 0x43]] and beats["keep"].tolist() == [15]
    beats = stream("e3m2", 4, 4, [[0x01, 0x02, 0x03, 0x3F], [0x20, 0, 0, 0]])
    assert beats["data"].tolist() == [[0x7F, 0x81, 0x30, 0xFC], [0x80, 0x20, 0, 0]]
    beats = stream("e4m3", 3, 16, [[1, 2, 3], [4, 5, 6]])
    assert beats["data"].tolist() == [[0x7F, 1, 2, 3, 0x80, 4, 5, 6, *[0] * 8]]
    assert (beats["keep"].tolist(), beats["last"].tolist()) == ([0xFF], [1])


@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("bus_bytes", [1, 4, 64])
def test_golden_against_bytes(bus_bytes, blocks):
    """Golden's arrays against Python's bytes, a packet after the other."""
    p = {"element": "e4m3", "block_size": 6, "bus_bytes": bus_bytes, "blocks": blocks}
    rng = np.random.default_rng(bus_bytes)
    inputs = packets(p, rng.integers(1, 30, 300).tolist())
    if blocks > 1:
        inputs["count"] = rng.integers(0, 4, len(inputs["last"]), dtype=np.uint8)
    inputs["last"][-1] = 0
    beats, packet, ends = [], b"", []
    for n in range(len(inputs["last"])):
        scales, elements = np.atleast_1d(inputs["scale"][n]), inputs["elements"][n].reshape(blocks, 6)
        last = inputs["last"][n]
        there = min(int(inputs["count"][n]), blocks) if last and blocks > 1 else blocks
        for block in range(there):
            packet += bytes([scales[block]]) + elements[block].tobytes()
        while len(packet) > bus_bytes or (len(packet) == bus_bytes and not last):
            beats.append((packet[:bus_bytes], 0))
            packet = packet[bus_bytes:]
            ends.append(n)
        if last:
            beats.append((packet, 1))
            packet = b""
            ends.append(n)
    got = golden.expected(p, inputs)
    assert [bytes(row) for row in got["data"]] == [beat.ljust(bus_bytes, b"\0") for beat, _ in beats]
    assert got["keep"].tolist() == [(1 << len(beat)) - 1 for beat, _ in beats]
    assert got["last"].tolist() == [last for _, last in beats]
    assert golden.completing(p, inputs).tolist() == ends


def test_empty_inputs():
    p = {"element": "e4m3", "block_size": 32, "bus_bytes": 16, "blocks": 1}
    nothing = np.zeros(0, np.uint8)
    got = golden.expected(p, {"scale": nothing, "elements": np.zeros((0, 32), np.uint8), "last": nothing})
    assert got["data"].shape == (0, 16) and got["keep"].dtype == np.uint16


def test_thermometer_and_select():
    from amaranth.sim import Simulator

    m = Module()
    amount, index = Signal(range(9)), Signal(3)
    ones, chosen = Signal(8), Signal(4)
    m.d.comb += [ones.eq(thermometer(m, amount)), chosen.eq(select(m, [C(n, 4) for n in (5, 9, 2, 7, 1)], index))]

    async def bench(ctx):
        for n in range(9):
            ctx.set(amount, n)
            assert ctx.get(ones) == (1 << n) - 1
        for n in range(8):
            ctx.set(index, n)
            assert ctx.get(chosen) == (5, 9, 2, 7, 1, 1, 1, 1)[n]

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()


def test_no_bare_core():
    for unit in "packer", "unpacker":
        with pytest.raises(MxforgeError, match=f"{unit} has no bare core"):
            Entry(name=unit, unit=unit, streamed=False)


@pytest.mark.parametrize(("values", "error", "message"), [
    ({"block_size": 3, "element": "e2m1"}, ValueError, "block_size must make whole bytes of e2m1's 4 bits, not 3"),
    ({"block_size": 6, "element": "e3m2"}, ValueError, "block_size must make whole bytes of e3m2's 6 bits, not 6"),
    ({"bus_bytes": 12}, ValueError, "bus_bytes must be a power of two, not 12"),
    ({"bus_bytes": 128}, ValueError, "bus_bytes must be 1 to 64, not 128"),
    ({"blocks": 0}, ValueError, "blocks must be 1 to 64, not 0"),
    ({"stages": 4}, ValueError, r"stages must be 0 to 3 \(result, window, shifted\), not 4"),
    ({"bus_bytes": 1, "stages": 3}, ValueError, r"stages must be 0 to 2 \(result, window\), not 3"),
    ({"element": 8}, TypeError, "element must be a name, not 8"),
])
def test_refuses(values, error, message):
    with pytest.raises(error, match=message):
        Packer(**values)
