# amaranth: UnusedElaboratable=no
"""The front end of the dot products, apart: exact block sums against ml_dtypes' sums; lanes, proven equal to naive ones."""
import itertools

import ml_dtypes
import numpy as np
import pytest
from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator
from yosys_run import is_never_wrong

from mxforge.formats import ELEMENTS
from mxforge.pipeline import Cuts, delay
from mxforge.products import Operand, Pair, aligned, block_sum, block_sum_layout, element_layout, front_cuts, product
from mxforge.raw import decode

TYPES = {"e4m3": ml_dtypes.float8_e4m3fn, "e5m2": ml_dtypes.float8_e5m2, "e3m2": ml_dtypes.float6_e3m2fn,
         "e2m3": ml_dtypes.float6_e2m3fn, "e2m1": ml_dtypes.float4_e2m1fn}


class Front(wiring.Component):
    def __init__(self, a, b, block_size, lanes, stages):
        self.pair, self.block_size, self.lanes, self.stages = Pair(ELEMENTS[a], ELEMENTS[b]), block_size, lanes, stages
        super().__init__({
            "a": In(data.ArrayLayout(self.pair.a.width, lanes)),
            "b": In(data.ArrayLayout(self.pair.b.width, lanes)),
            "valid": In(1),
            "sum": Out(block_sum_layout(self.pair, block_size)),
        })

    def elaborate(self, platform):
        m = Module()
        cut = Cuts(m, (*front_cuts(self.lanes), "decoded"), self.stages)
        a = Operand.decoded(m, cut, self.pair.a, Const(0, 8), self.a, "a")
        b = Operand.decoded(m, cut, self.pair.b, Const(0, 8), self.b, "b")
        m.d.comb += self.sum.eq(block_sum(m, cut, self.pair, self.block_size, a, b, self.valid))
        # A clock even where no cut is taken.
        delay(m, self.valid, 1, name="clocked")
        return m


def values(codes, element):
    if element == "mxint8":
        return codes.astype(np.int8) / 64
    return codes.astype(np.uint8).view(TYPES[element]).astype(np.float64)


@pytest.mark.parametrize(("lanes", "width", "a", "b"), [
    (32, 42, "e4m3", "e4m3"), (32, 70, "e5m2", "e5m2"), (32, 56, "e4m3", "e5m2"), (1, 37, "e4m3", "e4m3")])
def test_widths(lanes, width, a, b):
    assert Pair(ELEMENTS[a], ELEMENTS[b]).sum_width(lanes) == width


@pytest.mark.parametrize(("a", "b", "block_size", "lanes", "stages"), [
    ("e4m3", "e4m3", 8, 8, 0), ("e5m2", "e5m2", 8, 2, 3), ("e4m3", "e5m2", 4, 4, 4), ("mxint8", "e3m2", 4, 1, 2),
    ("e2m3", "e2m1", 2, 2, 1), ("mxint8", "mxint8", 16, 4, 1)])
def test_block_sum(a, b, block_size, lanes, stages):
    front = Front(a, b, block_size, lanes, stages)
    rng = np.random.default_rng(1)
    blocks, beats = 400, block_size // lanes
    codes = []
    for fmt in front.pair.a, front.pair.b:
        drawn = rng.integers(0, 1 << fmt.width, (blocks, block_size))
        largest = np.array([fmt.max_code, fmt.sign_code | fmt.max_code])[rng.integers(0, 2, (blocks, block_size))]
        kind = rng.integers(0, 3, (blocks, 1))
        # Blocks of any codes, of none that is special, of the largest only.
        finite = np.where((drawn & (fmt.sign_code - 1)) > fmt.max_code, 0, drawn)
        codes.append(np.where(kind == 0, drawn, np.where(kind == 1, finite, largest)))
    # Negative zeros, and the lowest integers.
    codes[0][0], codes[1][0] = front.pair.a.sign_code, front.pair.b.sign_code
    with np.errstate(invalid="ignore"):
        products = values(codes[0], a) * values(codes[1], b)
    seen = []

    async def drive(ctx):
        for block in range(blocks):
            for beat in range(beats):
                at = slice(beat * lanes, (beat + 1) * lanes)
                ctx.set(front.a, codes[0][block][at].tolist())
                ctx.set(front.b, codes[1][block][at].tolist())
                ctx.set(front.valid, 1)
                await ctx.tick()
                if rng.random() < 0.2:
                    ctx.set(front.valid, 0)
                    await ctx.tick()
        ctx.set(front.valid, 0)
        await ctx.tick().repeat(stages + 1)

    async def watch(ctx):
        async for _, _, result in ctx.tick().sample(front.sum):
            if result.is_done:
                flags = result.specials
                seen.append((result.total + result.carry, flags.is_nan, flags.is_plus_inf, flags.is_minus_inf))

    sim = Simulator(front)
    sim.add_clock(1e-6)
    sim.add_testbench(drive)
    sim.add_testbench(watch, background=True)
    sim.run()
    assert len(seen) == blocks
    finite = 0
    for row, (total, is_nan, is_plus_inf, is_minus_inf) in zip(products, seen, strict=True):
        assert is_nan == np.isnan(row).any()
        if not is_nan:
            assert (is_plus_inf, is_minus_inf) == ((row == np.inf).any(), (row == -np.inf).any())
        if np.isfinite(row).all():
            finite += 1
            assert total == sum(int(value * 2.0 ** -front.pair.lsb_exponent) for value in row)
    assert finite > blocks // 2


class Lane(wiring.Component):
    """``is_wrong`` where a lane's term differs from a product of integers, of finite elements; ``places`` moves that."""
    def __init__(self, a, b, places):
        self._pair, self._places = Pair(ELEMENTS[a], ELEMENTS[b]), places
        super().__init__({"a": In(self._pair.a.width), "b": In(self._pair.b.width), "is_wrong": Out(1)})

    def elaborate(self, platform):
        m = Module()

        raws = [decode(m, code, fmt, f"raw{n}") for n, (code, fmt) in enumerate(((self.a, self._pair.a), (self.b, self._pair.b)))]
        elements = [data.View(element_layout(fmt), Cat(raw[field] for field in element_layout(fmt).members))
                    for raw, fmt in zip(raws, (self._pair.a, self._pair.b), strict=True)]
        cut = Cuts(m, front_cuts(1), 0)
        term = aligned(m, cut, product(m, cut, *elements, self._pair, "product"), self._pair, "term")
        integer = Signal(self._pair.product_width)
        a, b = raws
        m.d.comb += [
            integer.eq((a.significand * b.significand) << (a.exponent_code + b.exponent_code) >> (2 + self._places)),
            self.is_wrong.eq(~(a.is_nan | a.is_inf | b.is_nan | b.is_inf)
                             & (term.digits + term.carry != Mux(a.sign ^ b.sign, -integer, integer))),
        ]

        return m


def is_proven(folder, a, b, places=0):
    return is_never_wrong(Lane(a, b, places), folder)


@pytest.mark.parametrize(("a", "b"), [("e4m3", "e4m3"), ("e5m2", "e5m2"), ("e4m3", "e5m2"), ("e2m3", "mxint8"), ("e2m1", "e2m1")])
def test_lane_proven(a, b, tmp_path):
    assert is_proven(tmp_path, a, b)


@pytest.mark.slow
@pytest.mark.parametrize(("a", "b"), list(itertools.product(ELEMENTS, ELEMENTS)))
def test_lane_proven_of_all(a, b, tmp_path):
    assert is_proven(tmp_path, a, b)


def test_lane_elsewhere_is_not_proven(tmp_path):
    assert not is_proven(tmp_path, "e4m3", "e4m3", 1)
