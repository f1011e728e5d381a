"""What every bare core must pass: a core without streams, fed by its own clock."""
import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge, Timer

from .bench import BLOCKS, compare, vectors
from .manifest import Payload, load

__all__ = ["play"]


async def play(dut, manifest, beats, pauses=None):
    """The output beats for the input ``beats``; fails if one comes at another time than the manifest declares."""
    outputs = []
    if "clk" not in manifest["ports"]:
        for beat in beats:
            dut.i.value = beat
            await Timer(1, "ns")
            outputs.append(int(dut.o.value))
        return outputs

    holds_state = "i_valid" in manifest["ports"]
    Clock(dut.clk, 10, "ns").start()
    dut.i.value = 0
    if holds_state:
        dut.i_valid.value = 0
    dut.rst.value = 1
    await ClockCycles(dut.clk, 2)
    dut.rst.value = 0
    edge = RisingEdge(dut.clk)
    latency = manifest["latency"]
    beats_in, beats_out = manifest["beats"]["i"], manifest["beats"]["o"]
    cycle, sent, due, pause = 0, 0, set(), 0
    waiting = list(reversed(beats))
    fed = False
    while waiting or cycle <= max(due, default=0) + 1:
        # What is set here is the payload of the next edge.
        fed = bool(waiting) and pause == 0
        dut.i.value = waiting.pop() if fed else random.getrandbits(manifest["ports"]["i"]["width"])
        if fed:
            sent += 1
            if sent % beats_in == 0:
                due.update(range(cycle + latency, cycle + latency + beats_out))
            pause = manifest["interval"] - 1 + (pauses() if pauses and holds_state else 0)
        else:
            pause = max(0, pause - 1)
        if holds_state:
            dut.i_valid.value = int(fed)
        await edge
        if dut.o_valid.value if holds_state else cycle in due:
            assert cycle in due, f"an output at cycle {cycle}, where none is due"
            outputs.append(int(dut.o.value))
        cycle += 1
    return outputs


async def _run_blocks(dut, count, pauses=None):
    manifest = load()
    i, o = Payload(manifest, "i"), Payload(manifest, "o")
    inputs, expected = vectors(manifest, count)
    got = o.to_rows(await play(dut, manifest, i.to_beats(inputs), pauses))
    compare(got, expected, inputs)


@cocotb.test()
async def matches_golden(dut):
    await _run_blocks(dut, BLOCKS)


@cocotb.test()
async def matches_golden_with_idle_inputs(dut):
    await _run_blocks(dut, BLOCKS // 3, lambda: random.choice([0, 0, 1, 3]))
