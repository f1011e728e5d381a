"""Multiplication of small formats, exhaustively, against fractions."""
import itertools

import golden_reference as reference
import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator

from mxforge.formats import BF16, E4M3, E5M2, FP16, FP32, FloatFormat
from mxforge.multiply import Multiplier
from mxforge.pipeline import Cuts
from mxforge.raw import decode

SMALL = {
    name: FloatFormat(name=name, exponent_width=exponent_width, mantissa_width=mantissa_width, specials="ieee")
    for name, exponent_width, mantissa_width in (("s132", 3, 2), ("s133", 3, 3), ("s142", 4, 2), ("s124", 2, 4), ("s151", 5, 1))
}


@pytest.fixture
def small(monkeypatch):
    """The reference with the small formats."""
    for name, fmt in SMALL.items():
        monkeypatch.setitem(reference.WIDE, name, (fmt.exponent_width, fmt.mantissa_width))
        monkeypatch.setitem(reference.NAN, name, fmt.nan_code)


@pytest.mark.parametrize(("a", "b", "target", "overflow"), [
    ("s133", "s133", "s133", "inf"),
    ("s133", "s142", "s132", "saturate"),
    ("s142", "s133", "s124", "inf"),
    ("s124", "s142", "s142", "inf"),
    ("s132", "s151", "s133", "saturate"),
    ("s151", "s133", "s151", "inf"),
    ("s151", "s151", "s133", "inf"),
])
def test_every_product(small, a, b, target, overflow):
    a, b, target = SMALL[a], SMALL[b], SMALL[target]
    m = Module()
    a_code, b_code, code = Signal(a.width), Signal(b.width), Signal(target.width)
    raws = decode(m, a_code, a, "a"), decode(m, b_code, b, "b")
    m.d.comb += code.eq(Multiplier(a, b, target, overflow).result(m, Cuts(m, Multiplier.CUTS, 0), *raws, "product"))
    wrong = []

    async def bench(ctx):
        for pair in itertools.product(range(1 << a.width), range(1 << b.width)):
            ctx.set(a_code, pair[0])
            ctx.set(b_code, pair[1])
            got, wanted = ctx.get(code), reference.multiply(*pair, a.name, b.name, target.name)
            has_inf = target.inf_code in (wanted, wanted - target.sign_code)
            if overflow == "saturate" and has_inf and not any(raw.is_inf for raw in map(ctx.get, raws)):
                wanted -= 1
            if got != wanted:
                wrong.append((*pair, got, wanted))

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
    assert not wrong, [tuple(map(hex, row)) for row in wrong[:5]]


@pytest.mark.parametrize(("a", "b", "target", "steps"), [
    (FP32, FP32, FP32, 5), (BF16, FP32, FP32, 5), (FP16, FP32, FP32, 5), (E4M3, FP32, BF16, 5), (E5M2, FP32, FP16, 4)])
def test_steps_of_the_shifter(a, b, target, steps):
    assert Multiplier(a, b, target)._steps == steps
