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


@pytest.mark.parametrize("kind", Multiplier.PRODUCTS)
@pytest.mark.parametrize(("a", "b", "target", "overflow"), [
    ("s133", "s133", "s133", "inf"),
    ("s133", "s142", "s132", "saturate"),
    ("s142", "s133", "s124", "inf"),
    ("s124", "s142", "s142", "inf"),
    ("s132", "s151", "s133", "saturate"),
    ("s151", "s133", "s151", "inf"),
    ("s151", "s151", "s133", "inf"),
])
def test_every_product(small, a, b, target, overflow, kind):
    a, b, target = SMALL[a], SMALL[b], SMALL[target]
    m = Module()
    a_code, b_code, code = Signal(a.width), Signal(b.width), Signal(target.width)
    raws = decode(m, a_code, a, "a"), decode(m, b_code, b, "b")
    multiplier = Multiplier(a, b, target, overflow, kind)
    m.d.comb += code.eq(multiplier.result(m, Cuts(m, multiplier.cuts, 0), *raws, "product"))
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


def test_cuts_are_those_of_the_formats():
    path = Multiplier(FP32, FP32, FP32, product="rows").path
    assert set(path) == set(Multiplier.CUTS)
    # Two partial products of an operator have one sum, two rows as well; four steps of the shifter have no third cut.
    assert set(path) - set(Multiplier(E4M3, FP32, FP32).path) == {"multiples", "sums_1", "sums_2", "sums_3"}
    assert set(path) - set(Multiplier(E5M2, FP32, FP16, product="rows").path) == {"near", "sums_1", "sums_2", "sums_3"}
    for product in Multiplier.PRODUCTS:
        multiplier = Multiplier(BF16, FP32, FP32, product=product)
        assert sorted(multiplier.cuts) == sorted(multiplier.path)
