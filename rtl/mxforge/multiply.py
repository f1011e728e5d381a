"""Products of two floating-point numbers, rounded once."""
from dataclasses import dataclass

from amaranth import *
from amaranth.lib import data
from amaranth.utils import bits_for

from .arith import any_bit, tree_sum
from .formats import FloatFormat
from .round import round_up_to_nearest_even

__all__ = ["Multiplier"]

# The widest factor that one DSP block of the common FPGAs multiplies.
_DSP_WIDTH = 18


def _top(value, width):
    """The top ``width`` bits of ``value``, followed by zeros where it has less; and the bits below them."""
    below = max(0, len(value) - width)
    return Cat(C(0, max(0, width - len(value))), value[below:]), value[:below]


def _parts(significand):
    """``(part, place)`` of a factor: itself, or two halves where it is too wide for a DSP block."""
    if len(significand) <= _DSP_WIDTH:
        return [(significand, 0)]
    half = len(significand) // 2
    return [(significand[:half], 0), (significand[half:], half)]


@dataclass(frozen=True)
class Multiplier:
    """``a * b`` of two formats, rounded once to nearest even in ``target`` (IEEE 754-2019, 5.4.1), in combinational logic with
    cut points.

    Subnormals are kept on all sides. A NaN, and infinity times zero, give the canonical NaN; other infinities stay. What rounds
    beyond the largest number becomes Inf, or with ``overflow`` of ``saturate`` the largest. The sign is that of both.

    Neither operand is normalised: a subnormal enters with exponent code 1 and a leading zero. One shifter behind the product
    does for everything. ``limit``, the sum of the exponents, is the exponent field less 1 of a product whose leading one stands
    at the top. So the product moves left until its leading one is there, but by ``limit`` at most, from where on it is
    subnormal; and if that is negative, right by its complement, which is done by starting ``2**steps`` places to the right
    and moving left by what is too much. Each step tests the bits that it would push out, and compares with the limit on the way.
    A product of two subnormals is below half of the smallest one or (where formats differ) has a negative limit; so no product
    moves further than the width of a significand, but for those that don't reach the guard bit.

    What the shifter leaves behind was below the guard bit all along, and the steps have fewer bits each. Rounding adds the guard's
    decision, the hidden bit and the exponent field less 1 in one adder, so that carries run from subnormals to normal numbers
    and on to Inf with no case of their own, and rounding is once wherever the last place is.

    Cuts, in the order of the data: ``CUTS``. With ``partials`` a significand of more than 18 bits is multiplied in halves, as the
    multipliers of FPGAs are, and the partial products are summed behind the cut; without it the product is one operator.
    """
    a: FloatFormat
    b: FloatFormat
    target: FloatFormat
    overflow: str = "inf"

    CUTS = "operands", "partials", "product", "coarse", "fine", "shifted", "rounded", "result"

    def _limit(self, a_code, b_code):
        return a_code + b_code + self._offset

    @property
    def _offset(self):
        return self.target.bias - self.a.bias - self.b.bias

    @property
    def _steps(self):
        """Steps of the shifter: as many as the longest way to the left needs, and as clear all bits above the sticky ones."""
        a, b = self.a, self.b
        tops = [(1 << fmt.exponent_width) - 1 for fmt in (a, b)]
        zeros = [(tops, 1)]
        # The leading zeros of a product with subnormals, wherever it may come out normal.
        zeros += [((1, tops[1]), a.significand_width), ((tops[0], 1), b.significand_width)]
        zeros += [((1, 1), a.significand_width + b.significand_width - 1)]
        way = max(places for codes, places in zeros if self._limit(*codes) >= 0)
        return max(way, self.target.significand_width).bit_length()

    @property
    def _limits(self):
        largest = self._limit((1 << self.a.exponent_width) - 1, (1 << self.b.exponent_width) - 1)
        return range(min(self._limit(1, 1), -1 << self._steps), largest + 1)

    def result(self, m, cut, a, b, name):
        """Bits of the target for two numbers that :func:`.raw.decode` took apart. What is the same in many lanes is the ``b``."""
        a, b = cut("operands", a, f"{name}_a"), cut("operands", b, f"{name}_b")
        limits = self._limits
        flags_layout = data.StructLayout({"limit": limits, "sign": 1, "is_nan": 1, "is_inf": 1})
        flags = Signal(flags_layout, name=f"{name}_flags")
        limit = Signal(limits, name=f"{name}_limit")
        steps = self._steps
        is_tiny = limit[-1] & ~limit[steps:-1].all()
        m.d.comb += [
            limit.eq(a.exponent_code + (b.exponent_code + self._offset)),
            # Where not even the guard bit is reached, nothing moves.
            flags.limit.eq(Cat(limit[:steps] & ~is_tiny.replicate(steps), limit[steps:])),
            flags.sign.eq(a.sign ^ b.sign),
            flags.is_nan.eq(a.is_nan | b.is_nan | (a.is_inf & b.is_zero) | (b.is_inf & a.is_zero)),
            flags.is_inf.eq(a.is_inf | b.is_inf),
        ]
        product, flags = self._product(m, cut, a.significand, b.significand, flags, name)
        return self._rounded(m, cut, *self._moved(m, cut, product, flags, name), name)

    def _product(self, m, cut, a, b, flags, name):
        product = Signal(len(a) + len(b), name=f"{name}_product")
        if cut.count("partials"):
            partials = []
            for x, x_place in _parts(a):
                for y, y_place in _parts(b):
                    place = x_place + y_place
                    partials.append(Cat(C(0, place), cut("partials", x * y, f"{name}_partial{x_place}_{y_place}")))
            m.d.comb += product.eq(tree_sum(partials))
            flags = cut("partials", flags, f"{name}_flags")
        else:
            m.d.comb += product.eq(a * b)
        return cut("product", product, name), cut("product", flags, f"{name}_flags")

    def _moved(self, m, cut, product, flags, name):
        """``(significand, sticky, exponent, flags)``: a guard bit and the target's significand, what is below, and the
        exponent field less the hidden bit.
        """
        kept, steps = self.target.significand_width, self._steps
        limit = flags.limit
        is_below = limit[-1]
        # To the left of the kept bits and the guard bit, what the steps may bring there.
        above, lost = _top(product, kept + (1 << steps))
        below, lost_below = _top(product, kept)
        window = Signal(kept + (1 << steps), name=f"{name}_window")
        sticky = Signal(name=f"{name}_sticky")
        m.d.comb += [
            window.eq(Mux(is_below, below, above)),
            sticky.eq(any_bit(lost) | (is_below & any_bit(lost_below[len(lost):]))),
        ]
        free = ~is_below & any_bit(limit[steps:-1])
        taken = []
        for k in reversed(range(steps)):
            step = 1 << k
            empty = ~any_bit(window[kept + step:])
            take = Signal(name=f"{name}_take{step}")
            m.d.comb += take.eq(empty & (free | limit[k]))
            free = free | (limit[k] & ~empty)
            taken.insert(0, take)
            state = Signal(data.StructLayout({
                "window": kept + step, "sticky": 1, "free": 1, "taken": len(taken), "flags": flags.shape()}),
                name=f"{name}_moved{step}")
            m.d.comb += [
                state.window.eq(Mux(take, window[:kept + step], window[step:])),
                state.sticky.eq(sticky | (~take & any_bit(window[:step]))),
                state.free.eq(free),
                state.taken.eq(Cat(taken)),
                state.flags.eq(flags),
            ]
            # After the first two steps, and before the last.
            for cut_name, at in ("coarse", steps - 2), ("fine", 1):
                if k == at:
                    state = cut(cut_name, state, name)
            window, sticky, free, taken, flags = state.window, state.sticky, state.free, list(state.taken), state.flags
            limit = flags.limit

        exponent = Signal(bits_for(self._limits[-1]), name=f"{name}_exponent")
        # Without its hidden bit the number is subnormal or zero.
        m.d.comb += exponent.eq(Mux(window[-1], limit - Cat(taken), 0))
        return (cut("shifted", value, f"{name}_{label}") for value, label in (
            (window, "window"), (sticky, "sticky"), (exponent, "exponent"), (Cat(flags.sign, flags.is_nan, flags.is_inf), "flags")))

    def _rounded(self, m, cut, window, sticky, exponent, flags, name):
        target = self.target
        guard, kept = window[0], window[1:]
        up = round_up_to_nearest_even(kept[0], guard, sticky)
        magnitude = Signal(target.mantissa_width + len(exponent) + 1, name=f"{name}_magnitude")
        m.d.comb += magnitude.eq(Cat(kept[:-1], exponent) + Cat(up, C(0, target.mantissa_width - 1), kept[-1]))
        magnitude, flags = cut("rounded", magnitude, name), cut("rounded", flags, f"{name}_flags")

        sign, is_nan, is_inf = flags
        field = magnitude[target.mantissa_width:]
        is_over = field[:target.exponent_width].all() | any_bit(field[target.exponent_width:])
        value = Signal(target.width, name=f"{name}_value")
        with m.If(is_nan):
            m.d.comb += value.eq(target.nan_code)
        with m.Elif(is_inf):
            m.d.comb += value.eq(Cat(C(target.inf_code, target.width - 1), sign))
        with m.Elif(is_over):
            over_code = target.inf_code if self.overflow == "inf" else target.max_code
            m.d.comb += value.eq(Cat(C(over_code, target.width - 1), sign))
        with m.Else():
            m.d.comb += value.eq(Cat(magnitude[:target.width - 1], sign))
        return cut("result", value, name)
