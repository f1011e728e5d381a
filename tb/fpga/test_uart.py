# amaranth: UnusedElaboratable=no
"""Bytes over a simulated line."""
import itertools

import pytest
from amaranth import *
from amaranth.sim import Simulator

from mxforge.fpga.uart import UartReceiver, UartTransmitter


def run(component, *benches):
    simulator = Simulator(component)
    simulator.add_clock(1e-6)
    for bench in benches:
        simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("divisor", [4, 5, 16])
def test_all_bytes_without_a_pause(divisor):
    m = Module()
    m.submodules.transmitter = transmitter = UartTransmitter(divisor)
    m.submodules.receiver = receiver = UartReceiver(divisor)
    m.d.comb += receiver.rx.eq(transmitter.tx)
    wanted = [*range(256), 0xFF, 0x00]
    got, times = [], []

    async def send(ctx):
        ctx.set(transmitter.i.valid, 1)
        for byte in wanted:
            ctx.set(transmitter.i.payload, byte)
            await ctx.tick().until(transmitter.i.ready)
        ctx.set(transmitter.i.valid, 0)

    async def receive(ctx):
        cycle = 0
        while len(got) < len(wanted):
            _, _, valid, error, byte = await ctx.tick().sample(receiver.o_valid, receiver.o_error, receiver.o)
            cycle += 1
            assert not error
            if valid:
                got.append(byte)
                times.append(cycle)

    run(m, send, receive)
    assert got == wanted
    assert {later - earlier for earlier, later in itertools.pairwise(times)} == {10 * divisor}


def line(byte, stop=1):
    return [0, *(byte >> n & 1 for n in range(8)), stop]


@pytest.mark.parametrize("phase", [0, 0.3, 0.6, 0.9])
@pytest.mark.parametrize(("divisor", "faster"), [
    (4, 0.024), (4, -0.04), (5, 0.034), (5, -0.04), (6, 0.033), (7, 0.034), (8, 0.037), (8, 0), (8, -0.04), (51, 0.05),
    (51, -0.05)])
def test_a_clock_that_is_off(divisor, faster, phase):
    """As far as the docstring says, wherever edges lie between clocks."""
    receiver = UartReceiver(divisor)
    wanted = [0x00, 0xFF, 0x55, 0xA5, 0x01, 0x80] * 3
    levels = [level for byte in wanted for level in line(byte)] + [1] * 3
    bit = divisor / (1 + faster)
    got = []

    async def bench(ctx):
        for cycle in range(int(bit * len(levels) - phase)):
            ctx.set(receiver.rx, levels[int((cycle + phase) / bit)])
            _, _, valid, error, byte = await ctx.tick().sample(receiver.o_valid, receiver.o_error, receiver.o)
            assert not error
            if valid:
                got.append(byte)

    run(receiver, bench)
    assert got == wanted


def test_glitches_and_breaks():
    receiver = UartReceiver(8)
    seen = []

    async def bench(ctx):
        async def hold(level, cycles):
            ctx.set(receiver.rx, level)
            for _ in range(cycles):
                _, _, valid, error, byte = await ctx.tick().sample(receiver.o_valid, receiver.o_error, receiver.o)
                if valid or error:
                    seen.append("error" if error else byte)

        await hold(1, 20)
        await hold(0, 2)
        await hold(1, 100)
        assert seen == []
        # A line held low is one error, however long; bytes come again once it was high.
        await hold(0, 400)
        assert seen == ["error"]
        for level in (1, *line(0x3C), 1):
            await hold(level, 8)
        for level in (*line(0x42, stop=0), 1, *line(0x43), 1):
            await hold(level, 8)

    run(receiver, bench)
    assert seen == ["error", 0x3C, "error", 0x43]


def test_refuses():
    for component in UartReceiver, UartTransmitter:
        with pytest.raises(ValueError, match="divisor must be 4 or more, not 3"):
            component(3)
