"""What every streamed unit must pass, driven by its manifest, its stimulus and its golden model."""
import importlib
import itertools
import os
import random

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge, RisingEdge, Timer

from .manifest import bounds
from .stream import get_all, put_all, start

# Enough blocks for each directed case of the stimulus, few enough for seconds; volume is the player's work.
BLOCKS = int(os.environ.get("MXFORGE_BLOCKS", "600"))


def stimulus_of(manifest):
    return importlib.import_module(f"mxbench.stimulus.{manifest['unit']}")


def golden_of(manifest):
    return importlib.import_module(f"mxgolden.{manifest['unit']}")


def vectors(manifest, count):
    """``(inputs, outputs)``: rows of stimulus, and what golden makes of them."""
    rng = np.random.default_rng(random.randrange(1 << 32))
    inputs = stimulus_of(manifest).blocks(manifest["parameters"], count, rng)
    return inputs, golden_of(manifest).expected(manifest["parameters"], inputs)


def compare(got, expected, inputs=None):
    """Fail at the first difference, with the field, the row and the item."""
    assert set(got) == set(expected), f"fields {sorted(got)}, expected {sorted(expected)}"
    for name, wanted in expected.items():
        wanted = np.asarray(wanted)
        assert got[name].shape == wanted.shape, f"{name}: shape {got[name].shape}, expected {wanted.shape}"
        wrong = np.argwhere(got[name] != wanted)
        if len(wrong):
            at = tuple(wrong[0])
            fed = {k: v[at[0]] for k, v in inputs.items()} if inputs and len(wanted) == len(next(iter(inputs.values()))) else ""
            raise AssertionError(f"{name}{list(map(int, at))} is {got[name][at]:#x}, expected {wanted[at]:#x}; "
                                 f"{len(wrong)} of {wanted.size} differ {fed}")


def check_timing(manifest, taken, seen, inputs):
    """Fail unless latency and interval are as declared, by the cycles of input and output beats of ``inputs`` at full speed."""
    beats_in, beats_out = manifest["beats"]["i"], manifest["beats"]["o"]
    steps = {b - a for a, b in itertools.pairwise(taken)}
    least, most = bounds(manifest["interval"])
    assert least <= min(steps) and max(steps) <= most, f"beats every {steps} cycles, declared {manifest['interval']}"
    if manifest["cadence"] == "elastic":
        # Golden says which input completes an output.
        last = [taken[n] for n in golden_of(manifest).completing(manifest["parameters"], inputs)]
        latencies = {b - a for a, b in zip(last, seen, strict=True)}
    elif len(seen) * beats_in == len(taken) * beats_out:
        latencies = {b - a for a, b in zip(taken[beats_in - 1::beats_in], seen[0::beats_out], strict=True)}
    else:
        latencies = {seen[-beats_out] - taken[-1]}
    least, most = bounds(manifest["latency"])
    assert min(latencies) == least and max(latencies) <= most, f"latencies {latencies}, declared {manifest['latency']}"


def some_pauses():
    """Pauses of several characters: none, single cycles, long ones."""
    return random.choice([0, 0, 0, 1, 2, random.randrange(12)])


async def run_blocks(dut, count, input_pauses=None, output_pauses=None):
    manifest, i, o = await start(dut)
    inputs, expected = vectors(manifest, count)
    results = len(next(iter(expected.values()))) * o.layout.beats
    feed = cocotb.start_soon(put_all(dut.clk, i, i.layout.to_beats(inputs), input_pauses))
    got = o.layout.to_rows(await get_all(dut.clk, o, results, output_pauses))
    await feed
    compare(got, expected, inputs)
    o.ready.value = 1
    for _ in range(bounds(manifest["latency"])[1] + 4):
        await RisingEdge(dut.clk)
        assert not o.valid.value, "more results than expected"
    stimulus = stimulus_of(manifest)
    for name, hits in stimulus.classes(manifest["parameters"], inputs, expected).items():
        dut._log.info("%6d x %s", hits, name)


@cocotb.test()
async def matches_golden(dut):
    await run_blocks(dut, BLOCKS)


@cocotb.test()
async def matches_golden_with_idle_inputs(dut):
    await run_blocks(dut, BLOCKS // 3, input_pauses=some_pauses)


@cocotb.test()
async def matches_golden_under_back_pressure(dut):
    await run_blocks(dut, BLOCKS // 3, output_pauses=some_pauses)


@cocotb.test()
async def obeys_stream_rules(dut):
    await run_blocks(dut, BLOCKS // 3, some_pauses, some_pauses)


@cocotb.test()
async def latency_and_interval_are_declared(dut):
    manifest, i, o = await start(dut)
    # Every input block gives a result in each unit's stimulus of a single block.
    blocks = 40
    inputs, expected = vectors(manifest, blocks)
    results = len(next(iter(expected.values()))) * o.layout.beats
    beats = i.layout.to_beats(inputs)
    o.ready.value = 1
    i.valid.value = 1
    sent, taken, seen = 0, [], []
    i.payload.value = beats[0]
    cycle = 0
    while len(seen) < results:
        await RisingEdge(dut.clk)
        if sent < len(beats) and i.ready.value:
            taken.append(cycle)
            sent += 1
            i.payload.value = beats[min(sent, len(beats) - 1)]
            i.valid.value = int(sent < len(beats))
        if o.valid.value:
            seen.append(cycle)
        cycle += 1
        assert cycle < 10_000, f"{len(seen)} of {results} beats came"
    check_timing(manifest, taken, seen, inputs)
    dut._log.info("latency %s, interval %s, as declared", manifest["latency"], manifest["interval"])


@cocotb.test()
async def valid_ignores_ready(dut):
    manifest, i, o = await start(dut)
    inputs, _ = vectors(manifest, 60)
    cocotb.start_soon(put_all(dut.clk, i, i.layout.to_beats(inputs), some_pauses))
    held = 0
    for cycle in itertools.count():
        if held == 20:
            break
        assert cycle < 100_000, f"o.valid was high in {held} cycles only"
        await FallingEdge(dut.clk)
        held += int(o.valid.value)
        seen = set()
        for ready in (0, 1):
            o.ready.value = ready
            await Timer(1, "ns")
            seen.add((int(o.valid.value), int(o.payload.value)))
        assert len(seen) == 1, "output depends combinationally on ready"
        o.ready.value = random.randrange(2)
