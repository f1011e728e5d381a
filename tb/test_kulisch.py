# amaranth: UnusedElaboratable=no
"""The Kulisch accumulator at widths small enough to try everything."""
from fractions import Fraction

import numpy as np
import pytest
from amaranth import *
from amaranth.lib import data
from amaranth.sim import Simulator

from mxforge import kulisch, parameters
from mxforge.formats import E4M3, E5M2, FloatFormat
from mxforge.pipeline import Cuts, Streamed
from mxforge.products import Pair
from mxforge.unit import Unit

WIDTH, TERM = 7, 4
SEGMENTS = 4


class Step(Unit):
    """One addition to any state, and what the state before it stands for."""
    def __init__(self):
        super().__init__(
            parameters.Parameters(),
            i=data.StructLayout({"digits": WIDTH, "carries": SEGMENTS, "term": TERM, "position": 3, "enable": 1, "below": 1}),
            o=data.StructLayout({"digits": WIDTH, "carries": SEGMENTS, "resolved": WIDTH}))

    def elaborate(self, platform):
        m = Module()
        segments = kulisch.Segments(WIDTH)
        state = Signal(segments.layout)
        m.d.comb += [state.digits.eq(self.i.digits), state.carries.eq(self.i.carries)]
        term, coarse = kulisch.place(m, self.i.term.as_signed(), self.i.position, "term")
        digits = kulisch.spread(m, segments, term, coarse, self.i.enable, "spread", below=self.i.below)
        after = kulisch.accumulate(m, segments, state, digits, "after")
        cut = Cuts(m, ("carries", "resolved"), 0)
        m.d.comb += [
            self.o.digits.eq(after.digits),
            self.o.carries.eq(after.carries),
            self.o.resolved.eq(kulisch.resolve(m, cut, segments, state, "sum")),
        ]
        return m


def test_every_state_and_term(play, monkeypatch):
    monkeypatch.setattr(kulisch, "SEGMENT_WIDTH", 2)
    fields = {"digits": WIDTH, "carries": SEGMENTS, "term": TERM, "position": 3, "enable": 1, "below": 1}
    index = np.arange(1 << sum(fields.values()))
    inputs = {}
    for name, width in fields.items():
        inputs[name] = (index & ((1 << width) - 1)).astype(np.uint8)
        index >>= width
    outputs = play(Streamed(Step()), "step", inputs)

    def number(values):
        carries = sum((values["carries"] >> n & 1).astype(int) << 2 * n for n in range(SEGMENTS))
        return (values["digits"] + carries) % (1 << WIDTH)

    term = inputs["term"].astype(int) - ((inputs["term"].astype(int) >> TERM - 1) << TERM)
    position = inputs["position"].astype(int)
    # Whole segments below the term may be ones.
    below = np.where(inputs["below"] == 1, (1 << (position & ~1)) - 1, 0)
    added = np.where(inputs["enable"] == 1, (term << position) + below, 0)
    np.testing.assert_array_equal(number(outputs), (number(inputs) + added) % (1 << WIDTH))
    np.testing.assert_array_equal(outputs["resolved"], number(inputs))


TINY = FloatFormat(name="tiny", exponent_width=3, mantissa_width=2, specials="ieee")


def nearest_even(value):
    """TINY bits, by trying all of them; between two of the same distance, the even one. Overflow as if there were a next."""
    candidates = [(abs(abs(value) - Fraction(m if e == 0 else 4 + m) * Fraction(2) ** (max(e, 1) - 5)), m & 1, e << 2 | m)
                  for e in range(8) for m in range(4)]
    code = min(min(candidates)[2], TINY.inf_code)
    return code | (TINY.sign_code if value < 0 else 0)


@pytest.mark.parametrize("lsb_exponent", [-9, -7, -6, -5, -4, -3, -1, 0])
def test_rounded(lsb_exponent):
    width = 10
    m = Module()
    number = Signal(width)
    code, _ = kulisch.rounded(m, Cuts(m, kulisch.RESULT_CUTS, 0), number, lsb_exponent, TINY, C(0, 1), "r")
    result = Signal(TINY.width)
    m.d.comb += result.eq(code)

    async def bench(ctx):
        for value in range(-1 << width - 1, 1 << width - 1):
            ctx.set(number, value)
            wanted = nearest_even(value * Fraction(2) ** lsb_exponent)
            assert ctx.get(result) == wanted, f"{value} * 2**{lsb_exponent}: {ctx.get(result):#x}, expected {wanted:#x}"

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize(("a", "b", "radius", "blocks", "width", "lsb_exponent"), [
    (E4M3, E4M3, 254, 1, 550, -272), (E5M2, E5M2, 254, 1, 578, -286), (E4M3, E5M2, 254, 1, 564, -279),
    (E4M3, E4M3, 254, 4096, 562, -272), (E4M3, E4M3, 24, 4096, 102, -42)])
def test_window(a, b, radius, blocks, width, lsb_exponent):
    window = kulisch.Window(Pair(a, b), 32, radius, blocks)
    assert (window.width, window.lsb_exponent) == (width, lsb_exponent)
    assert window.width_with(False) == width
    # Only in a narrow window can an addend be about as large as the sum.
    assert window.width_with(True) == width + (radius < 254)
