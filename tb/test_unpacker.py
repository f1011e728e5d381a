# amaranth: UnusedElaboratable=no
from dataclasses import asdict

import cocotb
import numpy as np
import pytest
from buses import BUSES, check_cover, cover
from cocotb.triggers import RisingEdge
from emitted import emitted

from mxbench.manifest import dtype_of
from mxbench.stream import put_all, start
from mxforge.flow import player
from mxforge.formats import ELEMENTS
from mxforge.unpacker import Unpacker
from mxgolden import packer as golden_packer
from mxgolden import unpacker as golden

COVER = cover(("e5m2", "mxint8", "e4m3"), ("e2m3", "e3m2"))


def beats_of(parameters, lengths, rng):
    """Packets of so many bytes each, of any bytes; behind them, in their last beats, too."""
    width = parameters["bus_bytes"]
    counts = [max(1, -(-length // width)) for length in lengths]
    total = sum(counts)
    kept = np.full(total, width)
    ends = np.cumsum(counts) - 1
    kept[ends] = np.array(lengths) - (np.array(counts) - 1) * width
    keep = np.zeros(total, np.uint64)
    for n in range(width):
        keep |= (kept > n).astype(np.uint64) << np.uint64(n)
    last = np.zeros(total, np.uint8)
    last[ends] = 1
    return {"data": rng.integers(0, 256, (total, width), dtype=np.uint8), "keep": keep.astype(dtype_of(width)), "last": last}


@cocotb.test()
async def recovers_from_truncation(dut):
    """A packet cut at each byte of its second block, and of its first; the whole one behind it comes whole."""
    manifest, i, o = await start(dut)
    p = manifest["parameters"]
    size = golden.block_bytes(p["element"], p["block_size"])
    lengths = [length for cut in range(2 * size) for length in (cut, 3 * size)]
    inputs = beats_of(p, lengths, np.random.default_rng(3))
    cocotb.start_soon(put_all(dut.clk, i, i.layout.to_beats(inputs)))
    o.ready.value = 1
    packets, blocks = [], 0
    while len(packets) < len(lengths):
        await RisingEdge(dut.clk)
        if o.valid.value:
            beat = o.layout.unpack(int(o.payload.value))
            blocks += beat.get("count", 1)
            if beat["last"]:
                packets.append((blocks, beat["is_truncated"]))
                blocks = 0
    for (blocks, is_truncated), length in zip(packets, lengths, strict=True):
        assert is_truncated == (length % size != 0 or length == 0), length
        assert blocks == (-(-length // size) if length or p["blocks"] > 1 else 1), length


@pytest.mark.parametrize("parameters", [
    {"stages": 1},
    {"element": "e2m1", "bus_bytes": 64, "stages": 3},
    {"bus_bytes": 64, "blocks": 2, "stages": 2},
    {"element": "e3m2", "block_size": 4, "bus_bytes": 1},
])
def test_bench(simulate, parameters):
    simulate(Unpacker(**parameters), "unpacker")


def check(verify, parameters, count, **options):
    hits = verify(Unpacker(**parameters), count, **options)
    assert all(hits.values()), hits


@pytest.mark.parametrize(("bus_bytes", "element"), COVER)
def test_each_bus_and_width(verify, bus_bytes, element):
    parameters = {"element": element, "bus_bytes": bus_bytes}
    check(verify, parameters, 40_000)
    check(verify, parameters, 20_000, stalls=bus_bytes)


def test_cover_is_one():
    check_cover(COVER)


@pytest.mark.slow
@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("bus_bytes", BUSES)
def test_product(verify, bus_bytes, element):
    for blocks in 1, 2, 4:
        parameters = {"element": element, "bus_bytes": bus_bytes, "blocks": blocks}
        verify(Unpacker(**parameters), 100_000)
        verify(Unpacker(**parameters), 100_000, stalls=blocks)


# Sizes that share a divisor, one that divides the other, both alike; blocks that are no power of two, of few elements, of many.
@pytest.mark.parametrize("parameters", [
    {"block_size": 7, "bus_bytes": 8},
    {"block_size": 15, "bus_bytes": 4},
    {"block_size": 1, "bus_bytes": 64, "blocks": 5},
    {"block_size": 2, "bus_bytes": 64, "element": "e2m1"},
    {"block_size": 12, "bus_bytes": 16, "element": "e2m3", "blocks": 3},
    {"block_size": 256, "bus_bytes": 32, "element": "e3m2"},
    {"blocks": 4, "bus_bytes": 64},
    {"blocks": 3, "bus_bytes": 2},
])
def test_other_sizes(verify, parameters):
    verify(Unpacker(**parameters), 40_000)
    verify(Unpacker(**parameters), 20_000, stalls=1)


@pytest.mark.parametrize(("parameters", "stages"), [
    *(({"bus_bytes": 8}, n) for n in range(3)),
    *(({"bus_bytes": 64, "blocks": 2}, n) for n in range(3)),
    *(({"bus_bytes": 32, "element": "e2m1"}, n) for n in range(4)),
])
def test_every_depth(verify, parameters, stages):
    verify(Unpacker(**parameters, stages=stages), 20_000)
    verify(Unpacker(**parameters, stages=stages), 10_000, stalls=stages)


def played(unit, inputs, sim_build, stalls=None):
    machine = player.build(*emitted(unit, "unpacker"), sim_build)
    got = machine.play(inputs, stalls=stalls)
    return got, machine.last


@pytest.mark.parametrize("stalls", [None, 1])
@pytest.mark.parametrize(("bus_bytes", "element", "blocks"), [
    (1, "e2m1", 1), (4, "e3m2", 1), (16, "e4m3", 1), (32, "e2m1", 1), (64, "e4m3", 1), (64, "e4m3", 2), (64, "e2m1", 4)])
def test_truncated_at_every_byte(bus_bytes, element, blocks, stalls, sim_build, verified):
    """Packets of 0 to a few blocks' bytes, each with a whole one behind it, against the bytes themselves."""
    unit = Unpacker(bus_bytes=bus_bytes, element=element, blocks=blocks)
    p = asdict(unit.parameters)
    size = unit.parameters.block_bytes
    lengths = [length for cut in range((blocks + 2) * size + 1) for length in (cut, (1 + cut % 5) * size)]
    inputs = beats_of(p, lengths, np.random.default_rng(2))
    got, _ = played(unit, inputs, sim_build, stalls)

    ends = np.flatnonzero(inputs["last"])
    row = 0
    for begin, length in zip(np.append(0, ends[:-1] + 1), lengths, strict=True):
        packet = inputs["data"][begin:].reshape(-1)[:length].tobytes()
        transfers = max(1, -(-length // (blocks * size)))
        whole = packet.ljust(transfers * blocks * size, b"\0")
        # A block's bytes are its payload's bits, from the first on.
        bits = np.unpackbits(np.frombuffer(whole, np.uint8).reshape(-1, size), axis=1, bitorder="little")
        width = ELEMENTS[element].width
        weights = 1 << np.arange(width)
        codes = bits[:, 8:].reshape(len(bits), -1, width) @ weights
        part = slice(row, row + transfers)
        assert (got["scale"][part].reshape(-1) == [whole[n] for n in range(0, len(whole), size)]).all()
        assert (got["elements"][part].reshape(codes.shape) == codes).all()
        assert got["last"][part].tolist() == [0] * (transfers - 1) + [1]
        is_truncated = length % size != 0 or length == 0
        assert got["is_truncated"][part].tolist() == [0] * (transfers - 1) + [is_truncated]
        if blocks > 1:
            there = -(-length // size) - (transfers - 1) * blocks
            assert got["count"][part].tolist() == [blocks] * (transfers - 1) + [there]
        row += transfers
    assert row == len(got["last"])
    verified("unpacker", blocks=len(inputs["last"]), values=got["elements"].size)


@pytest.mark.parametrize("bus_bytes", [1, 16, 64])
def test_beats_of_no_bytes(bus_bytes, sim_build):
    """Behind whole blocks an empty last beat gives a transfer of zeros, as an empty packet does."""
    unit = Unpacker(bus_bytes=bus_bytes, block_size=15)
    beats = max(1, 16 // bus_bytes)
    blocks = beats * bus_bytes // 16
    inputs = beats_of(asdict(unit.parameters), [beats * bus_bytes, 0, 0], np.random.default_rng(1))
    inputs["last"][beats - 1] = 0               # the empty beat ends the packet before it
    got, _ = played(unit, inputs, sim_build)
    assert got["is_truncated"].tolist() == got["last"].tolist() == [0] * blocks + [1, 1]
    assert not got["elements"][blocks:].any() and not got["scale"][blocks:].any()
    assert (got["elements"][:blocks].reshape(-1, 15) == inputs["data"][:beats].reshape(-1, 16)[:, 1:]).all()


@pytest.mark.parametrize("lengths", [[3000], [1] * 500, [2] * 300, list(range(1, 60))], ids=["long", "ones", "twos", "rising"])
@pytest.mark.parametrize(("bus_bytes", "element", "blocks"), [
    (1, "e2m1", 1), (8, "e3m2", 1), (16, "e4m3", 1), (16, "e2m1", 1), (32, "e4m3", 1), (64, "e4m3", 1), (64, "e2m1", 1)])
def test_rates_of_whole_packets(bus_bytes, element, blocks, lengths, sim_build, verified):
    """A beat each cycle where the bus is no wider than a block, else a block each cycle; packets' ends included."""
    unit = Unpacker(bus_bytes=bus_bytes, element=element)
    size = unit.parameters.block_bytes
    inputs = beats_of(asdict(unit.parameters), [size * length for length in lengths], np.random.default_rng(1))
    _, full = played(unit, inputs, sim_build)
    if bus_bytes <= size:
        assert full.input_rate == 1.0
    else:
        assert full.output_rate == 1.0
    _, stalled = played(unit, inputs, sim_build, stalls=1)
    if len(lengths) == 1:
        assert abs(full.input_rate - unit.throughput["i"]) < 0.01 and abs(full.output_rate - unit.throughput["o"]) < 0.01
        verified("unpacker", measured=f"{element}, {bus_bytes} bytes to {size}: {full.input_rate:.3f} beats a cycle, with both "
                 f"sides stalled at random {stalled.input_rate:.3f}")


@pytest.mark.parametrize("lengths", [[3000], [1] * 300, list(range(1, 60))], ids=["long", "ones", "rising"])
@pytest.mark.parametrize(("element", "blocks"), [("e4m3", 2), ("e2m3", 3), ("e2m1", 4)])
def test_several_blocks_fill_the_bus(element, blocks, lengths, sim_build, verified):
    """64 bytes a cycle, but for a last beat that completes a transfer and begins another."""
    unit = Unpacker(bus_bytes=64, element=element, blocks=blocks)
    size = unit.parameters.block_bytes
    inputs = beats_of(asdict(unit.parameters), [size * length for length in lengths], np.random.default_rng(1))
    _, full = played(unit, inputs, sim_build)
    transfer = blocks * size

    def is_double(length):
        before = (length * size - 1) // 64 * 64
        return -(-length * size // transfer) - before // transfer == 2
    assert full.inputs / full.input_rate == full.inputs + sum(map(is_double, lengths[:-1]))
    if len(lengths) == 1:
        assert full.input_rate == 1.0
        verified("unpacker", measured=f"{element}, 64 bytes to {blocks} x {size}: {full.input_rate:.3f} beats a cycle")


@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("bus_bytes", [1, 4, 64])
def test_golden_undoes_the_packer(bus_bytes, blocks):
    p = {"element": "e2m3", "block_size": 8, "bus_bytes": bus_bytes, "blocks": blocks}
    rng = np.random.default_rng(blocks)
    count = 400
    inputs = {"scale": rng.integers(0, 256, (count, blocks), dtype=np.uint8)[:, 0 if blocks == 1 else slice(None)],
              "elements": rng.integers(0, 64, (count, 8 * blocks), dtype=np.uint8),
              "last": (rng.random(count) < 0.2).astype(np.uint8)}
    inputs["last"][-1] = 1
    if blocks > 1:
        inputs["count"] = np.full(count, blocks, np.uint8)
    back = golden.expected(p, golden_packer.expected(p, inputs))
    for name, array in inputs.items():
        np.testing.assert_array_equal(back[name], array)
    assert not back["is_truncated"].any()


@pytest.mark.parametrize(("values", "error", "message"), [
    ({"block_size": 3, "element": "e2m1"}, ValueError, "block_size must make whole bytes of e2m1's 4 bits, not 3"),
    ({"bus_bytes": 0}, ValueError, "bus_bytes must be 1 to 64, not 0"),
    ({"blocks": 65}, ValueError, "blocks must be 1 to 64, not 65"),
    ({"stages": 3}, ValueError, r"stages must be 0 to 2 \(result, shifted\), not 3"),
])
def test_refuses(values, error, message):
    with pytest.raises(error, match=message):
        Unpacker(**values)
