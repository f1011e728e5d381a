# amaranth: UnusedElaboratable=no
import itertools
import random
import re
from collections import deque

import pytest
from amaranth import *
from amaranth.back import rtlil
from amaranth.hdl import Fragment
from amaranth.lib import data
from amaranth.sim import Simulator
from amaranth.vendor import SiliconBluePlatform

from mxforge import parameters
from mxforge.dequantizer import Dequantizer
from mxforge.pipeline import GROUP, Cuts, ResultQueue, Streamed, burst, chain, delay, wait
from mxforge.unit import Unit

LAYOUT = data.StructLayout({"number": 16})


class Relay(Unit):
    """Gives back its input; as ``cadence`` says, all of it, the odd numbers only, or pairs after both have come."""
    def __init__(self, cadence, latency, interval=1, is_stateful=True):
        self.cadence, self.interval, self.is_stateful, self._latency = cadence, interval, is_stateful, latency
        super().__init__(parameters.Parameters(), LAYOUT, LAYOUT)

    latency = property(lambda self: self._latency)
    beats = property(lambda self: (2, 2) if self.cadence == "blocks" else (1, 1))

    def elaborate(self, platform):
        m = Module()
        number, valid = self.i.number, self.i_valid if self.is_stateful else Const(1)
        late = self._latency
        if self.cadence == "blocks":
            # Two beats in, then both out, one cycle apart as they must come.
            second = Signal()
            m.d.sync += second.eq(second ^ valid)
            ends = valid & second
            first = Signal(16)
            with m.If(valid & ~second):
                m.d.sync += first.eq(number)
            start = delay(m, ends, late, name="start", reset_less=False)
            pair = delay(m, Cat(first, number), late, name="pair")
            held = delay(m, pair, 1, name="held")
            again = delay(m, start, 1, name="again", reset_less=False)
            m.d.comb += [self.o.number.eq(Mux(start, pair[:16], held[16:])), self.o_valid.eq(start | again)]
            return m
        m.d.comb += self.o.number.eq(delay(m, number, late, name="late"))
        if self.is_stateful:
            chosen = valid & (number[0] | (self.cadence == "each"))
            m.d.comb += self.o_valid.eq(delay(m, chosen, late, name="valid", reset_less=False))
        return m


def play(dut, numbers, count, input_rate=1.0, output_rate=1.0, seed=1):
    """``(results, transfer cycles of inputs, of outputs)``."""
    rng = random.Random(seed)
    taken, results, given = [], [], []

    async def bench(ctx):
        held, sent = None, 0
        valid = False
        for cycle in range(20_000):
            if not valid and sent < len(numbers):
                valid = rng.random() < input_rate
            ctx.set(dut.i.valid, valid)
            ctx.set(dut.i.payload.number, numbers[min(sent, len(numbers) - 1)])
            ready = rng.random() < output_rate
            ctx.set(dut.o.ready, not ready)
            before = ctx.get(dut.o.valid), ctx.get(dut.o.payload.number)
            ctx.set(dut.o.ready, ready)
            o_valid, payload = ctx.get(dut.o.valid), ctx.get(dut.o.payload.number)
            assert before == (o_valid, payload), "output depends combinationally on ready"
            if held is not None:
                assert o_valid and payload == held, "valid or payload changed before the transfer"
            accepted = valid and ctx.get(dut.i.ready)
            if o_valid and ready:
                results.append(payload)
                given.append(cycle)
            held = payload if o_valid and not ready else None
            if accepted:
                taken.append(cycle)
                sent += 1
                valid = False
            await ctx.tick()
            if len(results) == count and sent == len(numbers) and cycle > given[-1] + 20:
                return
        raise AssertionError(f"{len(results)} of {count} results, {sent} of {len(numbers)} beats taken")

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return results, taken, given


def queue_moves(depth):
    """``(write, ready)`` cycle by cycle, never more than ``depth`` waiting: at each level each pair, long runs, and chance."""
    rng = random.Random(depth)
    fill, hold, pass_on, drain = (1, 0), (0, 0), (1, 1), (0, 1)
    yield from [drain, drain, pass_on, pass_on, drain, drain]
    for level in range(1, depth + 1):
        yield from [*[fill] * level, hold, hold, *([pass_on] * 2 * depth), *[drain] * level, drain, hold]
    for _ in range(40 * depth):
        rates = rng.choice((0, 0.3, 0.7, 1)), rng.choice((0, 0.3, 0.7, 1))
        yield from [tuple(int(rng.random() < rate) for rate in rates) for _ in range(rng.randrange(1, 2 * depth))]
    yield from [drain] * (depth + 1)


@pytest.mark.parametrize("cycles", range(1, 10))
def test_wait(cycles):
    """Values of three groups, the last not full; from the first on."""
    m = Module()
    given = Signal(2 * GROUP + 5)
    late = Signal.like(given)
    m.d.comb += late.eq(wait(m, given, cycles, name="late"))
    values = [random.Random(n).getrandbits(len(given)) for n in range(40)]
    seen = []

    async def testbench(ctx):
        for value in values:
            ctx.set(given, value)
            seen.append(ctx.get(late))
            await ctx.tick()

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    assert seen[cycles:] == values[:len(values) - cycles]


class Ice40(SiliconBluePlatform):
    device, package, default_clk, resources, connectors = "iCE40UP5K", "SG48", None, (), ()


@pytest.mark.parametrize("platform", [None, Ice40()], ids=["", "ice40"])
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 8])
def test_queue(depth, platform):
    width = 2 * GROUP + 1
    dut = ResultQueue(width, depth)
    seen = set()

    async def bench(ctx):
        waiting, written = deque(), 1
        for write, ready in queue_moves(depth):
            # There is room for what comes as something goes.
            write &= len(waiting) < depth or ready
            number = written * 0x9E3779B97F4A7C15F39CC0605CEDC834 % (1 << width)
            ctx.set(dut.w_en, write)
            ctx.set(dut.w_data, number if write else ~number)
            for value in not ready, ready:
                ctx.set(dut.o.ready, value)
                assert ctx.get(dut.o.valid) == bool(waiting)
                assert not waiting or ctx.get(dut.o.payload) == waiting[0]
            seen.add((len(waiting), write, ready))
            if waiting and ready:
                waiting.popleft()
            if write:
                waiting.append(number)
                written += 1
            await ctx.tick()
        assert not waiting and written > 10 * depth

    simulator = Simulator(Fragment.get(dut, platform))
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert seen == set(itertools.product(range(depth + 1), (0, 1), (0, 1))) - {(depth, 1, 0)}


@pytest.mark.parametrize(("platform", "clocked"), [(None, "0"), (Ice40(), "1")])
def test_memory_that_an_ice40_has_is_read_by_the_clock(platform, clocked):
    reads = re.findall(r"cell \$memrd_v2.*?\bend\b", rtlil.convert(ResultQueue(5, 3), platform=platform), re.S)
    assert [re.search(r"CLK_ENABLE (\S+)", read)[1] for read in reads] == [clocked]


CORES = [("each", False), ("each", True), ("some", True), ("blocks", True)]


@pytest.mark.parametrize("latency", [0, 1, 5])
@pytest.mark.parametrize(("cadence", "is_stateful"), CORES)
@pytest.mark.parametrize(("input_rate", "output_rate"), [(1, 1), (0.4, 1), (1, 0.3), (0.5, 0.5)])
def test_streamed_loses_nothing(cadence, is_stateful, latency, input_rate, output_rate):
    rng = random.Random(7)
    numbers = [rng.randrange(1 << 16) for _ in range(300)]
    wanted = [n for n in numbers if cadence != "some" or n & 1]
    dut = Streamed(Relay(cadence, latency, is_stateful=is_stateful))
    results, _, _ = play(dut, numbers, len(wanted), input_rate, output_rate)
    assert results == wanted


@pytest.mark.parametrize("latency", [0, 1, 5])
@pytest.mark.parametrize(("cadence", "is_stateful"), CORES)
def test_streamed_keeps_the_rate(cadence, is_stateful, latency):
    numbers = list(range(1, 401, 2))
    dut = Streamed(Relay(cadence, latency, is_stateful=is_stateful))
    _, taken, given = play(dut, numbers, len(numbers))
    assert taken == list(range(taken[0], taken[0] + len(numbers)))
    assert given[0] - taken[dut.beats[0] - 1] == dut.latency
    assert given[-1] - given[0] == len(numbers) - 1


@pytest.mark.parametrize("interval", [2, 3])
def test_streamed_keeps_the_interval(interval):
    numbers = list(range(1, 41, 2))
    dut = Streamed(Relay("some", 4, interval))
    results, taken, _ = play(dut, numbers, len(numbers))
    assert results == numbers
    assert {b - a for a, b in itertools.pairwise(taken)} == {interval}


def test_cuts_refuse_what_they_lack():
    with pytest.raises(ValueError, match=r"stages must be at most 2 \(a, b\), not 3"):
        Cuts(Module(), ("a", "b"), 3)
    with pytest.raises(ValueError, match="cut must be one of a, b, not 'c'"):
        Cuts(Module(), ("a", "b"), 1)("c", Signal())


def test_chain_compares_layouts():
    a, b = Streamed(Dequantizer(element="e4m3", target="fp16")), Streamed(Dequantizer(element="e4m3", target="bf16"))
    with pytest.raises(TypeError, match="Cannot connect"):
        chain(Module(), a.o, b)


@pytest.mark.parametrize("beats", [2, 3, 8])
def test_burst(beats):
    m = Module()
    start, runs = Signal(), Signal()
    m.d.comb += runs.eq(burst(m, start, beats, name="remaining"))
    gaps = [3, beats, beats, beats + 1, beats, 2 * beats]
    starts = set(itertools.accumulate(gaps))

    async def bench(ctx):
        for cycle in range(sum(gaps) + 2 * beats):
            ctx.set(start, cycle in starts)
            assert ctx.get(runs) == any(cycle - n in starts for n in range(beats))
            await ctx.tick()

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
