# amaranth: UnusedElaboratable=no
"""The rounder of a block sum without an addend, proven equal to one that takes it step by step."""
import pytest
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from yosys_run import is_never_wrong

from mxforge.arith import count_leading_zeros, shift_right_sticky
from mxforge.formats import BF16, FP32
from mxforge.pipeline import Cuts
from mxforge.round import round_up_to_nearest_even, split
from mxforge.scaled_add import Numbers, ScaledAdd, scale_sum_layout


def naive(m, target, value, exponent, flags):
    """Bits of the target for ``value * 2**exponent``, both signed: absolute value, leading zeros, shifts, rounding."""
    magnitude = Signal(len(value))
    m.d.comb += magnitude.eq(abs(value))
    zeros = Signal(range(len(value) + 1))
    m.d.comb += zeros.eq(count_leading_zeros(m, magnitude))
    # A guard bit and what is below it, whatever is shifted out.
    padded = Cat(C(0, target.significand_width + 1), (magnitude << zeros)[:len(value)])
    field = Signal(signed(13))
    right = Signal(range(len(padded) + 1))
    m.d.comb += [
        field.eq(exponent + (len(value) - 1 + target.bias) - zeros),
        right.eq(Mux(field >= 1, 0, Mux(1 - field > len(padded), len(padded), 1 - field))),
    ]
    moved, lost = shift_right_sticky(m, padded, right)
    kept, guard, sticky = split(moved, len(padded) - target.significand_width)
    rounded = Signal(target.significand_width + 1)
    m.d.comb += rounded.eq(kept + round_up_to_nearest_even(kept[0], guard, sticky | lost))
    code = Signal(target.width + 8)
    # The hidden bit is one of the exponent field's.
    m.d.comb += code.eq(Mux(magnitude == 0, 0, rounded + ((Mux(field >= 1, field, 1) - 1).as_unsigned() << target.mantissa_width)))
    is_over = flags.is_inf | (code >= target.inf_code)
    number = Mux(is_over, target.inf_code, code)[:target.width - 1]
    sign = Mux(flags.is_inf, flags.inf_sign, value < 0)
    result = Signal(target.width)
    m.d.comb += result.eq(Mux(flags.is_nan, target.nan_code, Cat(number, sign)))
    return result


class Against(wiring.Component):
    """``is_wrong`` where :class:`ScaledAdd` differs from :func:`naive` whose sum is worth 2**``off`` times as much."""
    def __init__(self, target, sum_width, lsb_exponent, off):
        self._target, self._sum_width, self._lsb_exponent, self._off = target, sum_width, lsb_exponent, off
        super().__init__({"total": In(signed(sum_width)), "carry": In(1), "scales": In(scale_sum_layout()),
                          "flags": In(Numbers.layout), "is_wrong": Out(1)})

    def elaborate(self, platform):
        m = Module()

        add = ScaledAdd(self._sum_width, self._lsb_exponent, self._target, False)
        cut = Cuts(m, add.cuts, 0)
        places = add.places(m, self.scales, None)
        result = add.result(m, cut, self.total, self.carry, places, None, self.flags)
        exponent = self.scales.code - 254 + self._lsb_exponent + self._off
        wanted = naive(m, self._target, self.total + self.carry, exponent, self.flags)
        m.d.comb += self.is_wrong.eq(result != wanted)

        return m


def is_proven(folder, target, sum_width, lsb_exponent, off=0):
    return is_never_wrong(Against(target, sum_width, lsb_exponent, off), folder)


# Sums of 32 products of E4M3, one that is narrower than the window, and one of which much is below the target's significand.
@pytest.mark.parametrize(("target", "sum_width", "lsb_exponent"), [
    pytest.param(FP32, 42, -18, marks=pytest.mark.slow), (BF16, 42, -18), (FP32, 12, -8), (BF16, 28, -32)])
def test_proven(target, sum_width, lsb_exponent, tmp_path):
    assert is_proven(tmp_path, target, sum_width, lsb_exponent)


def test_what_is_wrong_is_not_proven(tmp_path):
    assert not is_proven(tmp_path, FP32, 12, -8, off=1)
