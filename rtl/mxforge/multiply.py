"""Products of two floating-point numbers, rounded once."""
from dataclasses import dataclass

from amaranth import *
from amaranth.lib import data
from amaranth.utils import bits_for, ceil_log2

from .arith import any_bit, select
from .formats import FloatFormat
from .pipeline import across, through
from .round import round_up_to_nearest_even

__all__ = ["Multiplier"]

# The widest factor that one DSP block of the common FPGAs multiplies.
_DSP_WIDTH = 18


def _top(value, width):
    """The top ``width`` bits of ``value``, followed by zeros where it has less; and the bits below them."""
    below = max(0, len(value) - width)
    return Cat(C(0, max(0, width - len(value))), value[below:]), value[:below]


def _places(width):
    """Where the parts of a factor start, of which a DSP block takes each."""
    return (0, width // 2) if width > _DSP_WIDTH else (0,)


def _cut_up(value, places):
    """The parts of ``value`` that start at ``places``, with these."""
    return [(place, value[place:end]) for place, end in zip(places, (*places[1:], len(value)), strict=True)]


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

    ``product`` of ``operator`` leaves the product to synthesis, which has DSPs for it, or its own array of adders. ``rows`` is a
    sum of rows: no DSPs, and fewer LUTs than synthesis makes of an operator without them. Each two bits of ``a`` choose 0, ``b``,
    ``2b`` or ``3b``, and a tree of adders sums what they choose. (Each lane adds ``3b``; synthesis makes one of those that have
    the same ``b``.) With all cuts no stage of it is longer than a carry chain.

    Cuts: :attr:`cuts`, in the order of the data :attr:`path`. ``multiples`` is behind the sum ``3b``, ``partials`` behind the rows
    or the partial products: an operator of more than 18 bits then multiplies in halves, as the multipliers of FPGAs do, and sums
    behind the cut.
    """
    a: FloatFormat
    b: FloatFormat
    target: FloatFormat
    overflow: str = "inf"
    product: str = "operator"

    PRODUCTS = "operator", "rows"
    # Most useful first.
    CUTS = ("product", "shifted", "coarse", "partials", "rounded", "fine", "operands", "result", "coarse_found", "moved", "far",
            "near", "window", "far_found", "over", "multiples", "sums_1", "sums_2", "sums_3")

    @property
    def cuts(self):
        """Names of the cuts that the formats have, most useful first."""
        path = self.path
        return tuple(name for name in self.CUTS if name in path)

    @property
    def path(self):
        """Names of the cuts in the order of the data."""
        multiples = ("multiples",) if self.product == "rows" else ()
        steps = [name for k in reversed(range(self._steps)) for names in self._step_cuts(k) for name in names]
        return ("operands", *multiples, "partials", *self._sums, "product", "window", *steps, "moved", "shifted", "rounded",
                "over", "result")

    @property
    def _sums(self):
        """Cuts behind each level of the tree that sums the product's parts but the last, which ``product`` is behind."""
        widths = self.a.significand_width, self.b.significand_width
        parts = -(-widths[0] // 2) if self.product == "rows" else len(_places(widths[0])) * len(_places(widths[1]))
        return tuple(f"sums_{level}" for level in range(1, ceil_log2(parts)))

    def _step_cuts(self, k):
        """Names of the cuts between what step ``k`` of the shifter finds and what it moves, and of those behind it."""
        from_first = self._steps - 1 - k
        if from_first < 2:
            name = ("far", "coarse")[from_first]
            return (f"{name}_found",), (name,)
        return (), {2: ("near",), 1: ("fine",)}.get(k, ())

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
        """Bits of the target for two numbers that :func:`.raw.decode` took apart, behind the cut ``operands``. What is the same
        in many lanes is the ``b``.
        """
        limits = self._limits
        limit = Signal(limits, name=f"{name}_limit")
        held = {
            "code": a.exponent_code, "base": b.exponent_code + self._offset, "sign": a.sign ^ b.sign,
            "is_nan": a.is_nan | b.is_nan | (a.is_inf & b.is_zero) | (b.is_inf & a.is_zero), "is_inf": a.is_inf | b.is_inf}
        if self.product == "rows":
            held = across(cut, "multiples", f"{name}_{{}}", **held)
        m.d.comb += limit.eq(held.pop("code") + held.pop("base"))
        held = across(cut, "partials", f"{name}_{{}}", limit=limit, **held)
        limit = held["limit"]
        flags = Signal(data.StructLayout({"limit": limits, "sign": 1, "is_nan": 1, "is_inf": 1}), name=f"{name}_flags")
        steps = self._steps
        is_tiny = limit[-1] & ~limit[steps:-1].all()
        # Where not even the guard bit is reached, nothing moves.
        held["limit"] = Cat(limit[:steps] & ~is_tiny.replicate(steps), limit[steps:])
        m.d.comb += [flags[part].eq(value) for part, value in held.items()]

        flags = through(cut, (*self._sums, "product"), flags, f"{name}_flags")
        product = Signal(len(a.significand) + len(b.significand), name=f"{name}_product")
        multiply = self._by_rows if self.product == "rows" else self._by_operator
        m.d.comb += product.eq(multiply(m, cut, a.significand, b.significand, name))
        product = cut("product", product, name)
        return self._rounded(m, cut, *self._moved(m, cut, product, flags, name), name)

    def _by_operator(self, m, cut, a, b, name):
        if not cut.count("partials", *self._sums):
            return a * b
        parts = []
        for x_place, x in _cut_up(a, _places(len(a))):
            for y_place, y in _cut_up(b, _places(len(b))):
                partial = cut("partials", x * y, f"{name}_partial{x_place}_{y_place}")
                parts.append((partial, x_place + y_place, ((1 << len(x)) - 1) * ((1 << len(y)) - 1)))
        return self._summed(m, cut, parts, name)

    def _by_rows(self, m, cut, a, b, name):
        multiples = [cut("multiples", multiple, f"{name}_times{n}") if n else multiple
                     for n, multiple in enumerate((C(0, 1), b, Cat(C(0, 1), b), b + Cat(C(0, 1), b)))]
        parts = []
        for place, digit in _cut_up(cut("multiples", a, f"{name}_digits"), range(0, len(a), 2)):
            row = Signal(len(b) + len(digit), name=f"{name}_row{place}")
            m.d.comb += row.eq(select(m, multiples[:1 << len(digit)], digit))
            parts.append((cut("partials", row, f"{name}_row{place}"), place, ((1 << len(digit)) - 1) * ((1 << len(b)) - 1)))
        return self._summed(m, cut, parts, name)

    def _summed(self, m, cut, parts, name):
        """The sum of ``parts``, from the lowest place up: each a value, its place, and the most that the value can be."""
        level = 0
        while len(parts) > 1:
            level += 1
            sums = []
            for n, ((low, low_place, low_most), (high, high_place, high_most)) in enumerate(
                    zip(parts[::2], parts[1::2], strict=False)):
                above = high_place - low_place
                most = low_most + (high_most << above)
                total = Signal(bits_for(most), name=f"{name}_sum{level}_{n}")
                m.d.comb += total.eq(Cat(low[:above], low[above:] + high))
                sums.append((total, low_place, most))
            parts = sums + parts[len(parts) & ~1:]
            if len(parts) > 1:
                parts = [(cut(f"sums_{level}", value, f"{name}_{n}"), *rest) for n, (value, *rest) in enumerate(parts)]
        return parts[0][0]

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
        window, sticky, free, flags = across(
            cut, "window", f"{name}_{{}}", window=window, sticky=sticky, free=free, flags=flags).values()
        limit, taken = flags.limit, []
        for k in reversed(range(steps)):
            step = 1 << k
            empty = ~any_bit(window[kept + step:])
            take = Signal(name=f"{name}_take{step}")
            m.d.comb += take.eq(empty & (free | limit[k]))
            free = free | (limit[k] & ~empty)
            taken.insert(0, take)
            found, behind = self._step_cuts(k)
            for cut_name in found:
                # Bits that choose have a cycle to get to all that they move.
                window, sticky, free, taken, flags = across(
                    cut, cut_name, f"{name}_{{}}", window=window, sticky=sticky, free=free, taken=Cat(taken), flags=flags).values()
                taken = list(taken)
                take, limit = taken[0], flags.limit
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
            state = through(cut, behind, state, name)
            window, sticky, free, taken, flags = state.window, state.sticky, state.free, list(state.taken), state.flags
            limit = flags.limit

        window, sticky, taken, flags = across(
            cut, "moved", f"{name}_{{}}", window=window, sticky=sticky, taken=Cat(taken), flags=flags).values()
        exponent = Signal(bits_for(self._limits[-1]), name=f"{name}_exponent")
        # Without its hidden bit the number is subnormal or zero.
        m.d.comb += exponent.eq(Mux(window[-1], flags.limit - taken, 0))
        return (cut("shifted", value, f"{name}_{label}") for value, label in (
            (window, "window"), (sticky, "sticky"), (exponent, "exponent"), (Cat(flags.sign, flags.is_nan, flags.is_inf), "flags")))

    def _rounded(self, m, cut, window, sticky, exponent, flags, name):
        target = self.target
        guard, kept = window[0], window[1:]
        up = round_up_to_nearest_even(kept[0], guard, sticky)
        magnitude = Signal(target.mantissa_width + len(exponent) + 1, name=f"{name}_magnitude")
        m.d.comb += magnitude.eq(Cat(kept[:-1], exponent) + Cat(up, C(0, target.mantissa_width - 1), kept[-1]))
        magnitude, flags = cut("rounded", magnitude, name), cut("rounded", flags, f"{name}_flags")

        field = magnitude[target.mantissa_width:]
        is_over = field[:target.exponent_width].all() | any_bit(field[target.exponent_width:])
        magnitude, is_over, flags = (cut("over", value, f"{name}_{label}") for value, label in (
            (magnitude, "magnitude"), (is_over, "is_over"), (flags, "flags")))
        sign, is_nan, is_inf = flags
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
