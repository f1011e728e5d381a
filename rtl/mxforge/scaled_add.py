"""A scaled integer plus an FP32 number, rounded once: how the dot product units end."""
from amaranth import *
from amaranth.lib import data

from .arith import any_bit, shift_left
from .formats import E8M0, FP32
from .pipeline import across
from .products import add_with_carry, any_over

__all__ = ["Numbers", "ScaledAdd", "round_cuts", "round_sum", "scale_sum", "scale_sum_layout"]


def scale_sum_layout():
    """Two scales: the product's is ``2**(code - 254)``, or NaN."""
    return data.StructLayout({"code": E8M0.width + 1, "is_nan": 1})


def scale_sum(m, a, b, name):
    """The :func:`scale_sum_layout` of two operands (:class:`.products.Operand`)."""
    result = Signal(scale_sum_layout(), name=name)
    m.d.comb += [
        result.code.eq(a.scale + b.scale),
        result.is_nan.eq(a.scale_is_nan | b.scale_is_nan),
    ]
    return result


def round_cuts(window):
    """``(main, fine)``: cut points of :func:`round_sum`, each most useful first.

    Main ones are between its steps, such that the first few part the chain of steps evenly. Fine ones are within: what tells
    whether a step moves is found before one, and the digits move behind it.
    """
    first, *steps = (1 << k for k in reversed(range(window.bit_length())))
    others = (f"shift{step}" for step in steps if step not in (8, 1))
    main = "shift8", "shift1", f"shift{first}", "exponent", *others, "rounded"
    return main, ("digits", *(f"find{step}" for step in (first, *steps)), "overflow")


def _uncut(value, label):
    return value


def _normalized(m, cut, value, fill, limit, keep, rest, name):
    """The top ``keep`` bits of ``value`` moved left until its top bit is set, but at most ``limit`` places; ``fill`` enters
    from the right.

    Returns ``(value, unlike, fill, limit, places, rest)`` behind cuts ``find...`` and ``shift...`` of each step; ``unlike``: a
    bit below is not ``fill``; ``rest`` is any view that goes along. Each step tests the top part of what the one before left,
    and compares with the limit on the way: once the limit has had a bit that was not used, it can't be reached any more. What
    the steps to come can't bring up to the kept bits is left behind.
    """
    steps = (len(value) - 1).bit_length()
    free = any_bit(limit[steps:])
    unlike = C(0, 1)
    taken = []
    for k in reversed(range(steps)):
        step, width = 1 << k, len(value)
        # After a step that is taken, these are fill.
        behind = max(0, width - (keep + step - 1))
        find = f"find{step}"
        empty = ~any_over(cut, find, value[width - step:], f"{name}_top", 16)
        is_unlike = any_over(cut, find, value[:behind] ^ fill.replicate(behind), f"{name}_is_unlike", 9)
        value, unlike, fill, limit, free, rest, *taken = across(
            cut, find, f"{name}_{{}}", value=value, unlike=unlike, fill=fill, limit=limit, free=free, rest=rest,
            **{f"taken{n}": bit for n, bit in enumerate(taken)}).values()
        take = Signal(name=f"{name}_take{step}")
        m.d.comb += take.eq(empty & (free | limit[k]))
        taken.insert(0, take)
        free = free | (limit[k] & ~empty)
        unlike = unlike | (~take & is_unlike)
        value = Mux(take, Cat(fill.replicate(step), value[:width - step]), value)[behind:]
        crossing = data.StructLayout({
            "value": len(value), "unlike": 1, "fill": 1, "limit": len(limit), "free": 1, "taken": len(taken),
            "rest": rest.shape()})
        state = Signal(crossing, name=f"{name}_shift{step}")
        m.d.comb += [
            state.value.eq(value), state.unlike.eq(unlike), state.fill.eq(fill), state.limit.eq(limit), state.free.eq(free),
            state.taken.eq(Cat(taken)), state.rest.eq(rest),
        ]
        state = cut(f"shift{step}", state, name)
        value, unlike, fill, limit, free, rest = state.value, state.unlike, state.fill, state.limit, state.free, state.rest
        taken = list(state.taken)
    return value, unlike, fill, limit, Cat(*taken), rest


class Numbers:
    """Flags of a result: NaN, Inf and sign, decided before its digits."""
    layout = data.StructLayout({"is_nan": 1, "is_inf": 1, "inf_sign": 1})

    @classmethod
    def of(cls, m, specials, scale_is_nan, c, name):
        """From the specials of a sum, its scales and an addend (or None): opposite infinities make NaN."""
        plus, minus, is_nan = specials.is_plus_inf, specials.is_minus_inf, specials.is_nan | scale_is_nan
        if c is not None:
            plus, minus, is_nan = plus | (c.is_inf & ~c.sign), minus | (c.is_inf & c.sign), is_nan | c.is_nan
        flags = Signal(cls.layout, name=name)
        m.d.comb += [flags.is_nan.eq(is_nan | (plus & minus)), flags.is_inf.eq(plus | minus), flags.inf_sign.eq(minus)]
        return flags


def _packed(m, cut, target, sign, magnitude, flags, name):
    """Bits of ``target`` from a magnitude whose exponent field may be too wide: what doesn't fit is Inf. Crosses ``overflow``."""
    top = magnitude[target.mantissa_width:]
    is_over = (top[:target.exponent_width].all() | any_bit(top[target.exponent_width:])) | flags.is_inf
    magnitude = magnitude[:target.width - 1]
    is_over, magnitude, sign, flags = across(
        cut, "overflow", f"{name}_{{}}", is_over=is_over, magnitude=magnitude, sign=sign, flags=flags).values()
    result = Signal(target.width, name=name)
    with m.If(flags.is_nan):
        m.d.comb += result.eq(target.nan_code)
    with m.Elif(is_over):
        m.d.comb += result.eq(Cat(C(target.inf_code, target.width - 1), Mux(flags.is_inf, flags.inf_sign, sign)))
    with m.Else():
        m.d.comb += result.eq(Cat(magnitude, sign))
    return result


def round_sum(m, cut, target, window, total, carry, lost, limit, flags, name, *, truncate=False):
    """Bits of ``target`` for the integer ``total + carry``, and something of ``lost`` below its last place.

    The integer's magnitude has at most ``window`` bits. ``limit`` is the exponent field, minus one, of a number whose
    leading one stands at the window's top, not below zero. Rounded once to nearest even, and then only an exact zero loses
    its sign; or truncated, and then zero is always +0. Crosses :func:`round_cuts` of the window.

    The magnitude is the integer's digits, complemented if it is negative, followed by a tail of zeros, or of ones and a
    last carry; the tail enters from the right as digits move left. Under a tail of ones a guard of 1 always goes up when
    rounding, and digits that are all ones after a guard of 0 are the tie; truncation goes up where all below is ones.

    The shift left stops at the exponent of subnormals. The hidden bit is added to the exponent field minus one, so subnormals
    and the carry of rounding come out right by themselves.
    """
    negative = total[-1]
    tail = Signal(name=f"{name}_tail")
    # A total that waits for a carry ends in ones if it is positive, and exactly if it is negative.
    m.d.comb += tail.eq(~lost & (negative ^ carry))
    digits = Cat(tail, total[:-1] ^ negative.replicate(len(total) - 1))
    digits = Cat(digits, C(0, window + 1 - len(digits)))
    is_nonzero = any_over(cut, "digits", digits, f"{name}_is_nonzero", 9)
    digits, negative, tail, lost, limit, flags = across(
        cut, "digits", f"{name}_{{}}", digits=digits, negative=negative, tail=tail, lost=lost, limit=limit, flags=flags).values()
    rest = Signal(data.StructLayout({"sign": 1, "is_lost": 1, "flags": Numbers.layout}), name=f"{name}_rest")
    # What is negative with no digits, no tail and nothing lost is an exact zero.
    m.d.comb += [rest.sign.eq(negative & (is_nonzero | lost)), rest.is_lost.eq(lost), rest.flags.eq(flags)]
    keep = target.significand_width + 1
    digits, unlike_tail, tail, limit, places, rest = _normalized(m, cut, digits, tail, limit, keep, rest, name)

    guard, kept = digits[0], digits[1:]
    up = Signal(name=f"{name}_up")
    if truncate:
        m.d.comb += up.eq(tail & guard & ~unlike_tail)
        sign = rest.sign & (any_bit(kept) | up)
    else:
        m.d.comb += up.eq(Mux(tail, guard | (~unlike_tail & kept[0]), guard & (unlike_tail | rest.is_lost | kept[0])))
        sign = rest.sign
    # Without a hidden bit the number is subnormal, and the difference zero; or it is zero.
    exponent = Signal(len(limit), name=f"{name}_exponent")
    m.d.comb += exponent.eq(Mux(kept[-1], limit - places, 0))
    kept, up, sign, exponent, flags = across(
        cut, "exponent", f"{name}_{{}}", kept=kept, up=up, sign=sign, exponent=exponent, flags=rest.flags).values()
    magnitude = Signal(target.mantissa_width + len(limit) + 1, name=f"{name}_magnitude")
    hidden = C(0, target.mantissa_width), kept[-1]
    m.d.comb += magnitude.eq((Cat(C(1, 1), kept[:-1], exponent) + Cat(up, *hidden))[1:])
    magnitude, sign, flags = across(cut, "rounded", f"{name}_{{}}", magnitude=magnitude, sign=sign, flags=flags).values()
    return _packed(m, cut, target, sign, magnitude, flags, name)


class ScaledAdd:
    """``integer * 2**(scale - 254 + lsb_exponent) + c``, or without ``addend`` the first alone, rounded once to nearest even.

    The integer is signed, of ``sum_width`` bits; ``c`` is FP32. Only an exactly zero sum gives +0; a nonzero negative one
    that rounds to zero gives -0.

    Why a window is enough, with C. W is the integer's magnitude width, 24 at least, C's significand 24 bits. Both stand in a
    window whose last place has an exponent chosen by where C's last place lies, d places above the integer's.

    * far, d >= W + 2: the window's last place is W + 2 below C's. The integer stands there as if it were as near as that,
      which is at most a quarter of C's last place, and less where it is really less; either way less than half a last
      place of the result, even if that is one binade below C. So it only tells which side of C the sum is on, and
      rounding needs no more. C = 0 has the exponent of the FP32 subnormals, whose last place no result goes below: an
      integer far below rounds to zero with its sign, and no result has to move right.
    * level, 0 <= d < W + 2: the integer's last place is the window's; C stands inside. Exact.
    * below, d < 0: the window has 25 places below the integer's. What C has below them is only said to be there: then C is
      below a quarter of the integer's last place, so a sum with a nonzero integer is above 3/4 of it, and its
      significand of 24 bits and the guard bit end within the window. With a zero integer C would lose bits, so a zero
      integer counts as far.

    W of 24 at least makes the window hold C below, and reach up to 2**-126 in each case.

    Without C the integer stands at the window's top, and moves left as the exponent of subnormals lets it. Where even that place
    is below normal numbers, it first moves right, by more places than the target's significand has, and left again by what
    that was too much: ``limit`` is then what is left of those places, and none where all of the integer is below half of the
    last subnormal. So one shifter does for both ways. Below the integer the window has what the way back may bring up.

    Negative numbers stand in one's complement: C's missing 1, if nothing of C is lost, is left over by the window's adder,
    whose carry-in is the integer's, and goes into the tail of :func:`round_sum`.

    Cuts, most useful first: ``cuts``, of which ``fine_cuts`` are within a step and ``main_cuts`` between two, as of
    :func:`round_cuts`. What the data cross before: with C ``placing`` and ``placed``, where C goes and C there, and ``added``, all
    main ones; without C ``moved``, the integer at its place in the window, a fine one.
    """
    def __init__(self, sum_width, lsb_exponent, target, addend):
        self._sum_width = sum_width
        self._lsb_exponent = lsb_exponent
        self._target = target
        self._addend = addend

    @property
    def _width(self):
        return max(self._sum_width - 1, FP32.significand_width)

    @property
    def _window(self):
        """Bits of the sum's magnitude, from its highest place or C's hidden bit there down."""
        return self._width + (2 + FP32.significand_width if self._addend else self._padding)

    @property
    def _right(self):
        """So many places, a power of two, leave no more than something lost of a number at the window's top."""
        return 1 << self._target.significand_width.bit_length()

    @property
    def _padding(self):
        """Places below the integer that such a way to the right needs, for what the way back may bring up again."""
        return max(0, self._right + self._target.significand_width - self._width)

    @property
    def _fraction(self):
        """Places below the integer that the window has where C is below."""
        return FP32.significand_width + 1

    @property
    def main_cuts(self):
        main = round_cuts(self._window)[0]
        return ("added", *main[:3], "placed", *main[3:], "placing") if self._addend else main

    @property
    def fine_cuts(self):
        fine = round_cuts(self._window)[1]
        return fine if self._addend else ("moved", *fine)

    @property
    def cuts(self):
        return *self.main_cuts, *self.fine_cuts

    def places(self, m, scales, c, name="places", cuts=(_uncut, _uncut)):
        """Where C stands, from the scales and C alone: a view for :meth:`result`, so that it can be had early.

        ``cuts``: a ``cut(value, label)`` between the sums and what is compared with them, and one before the choice.
        """
        first, second = cuts
        # Of the integer's last place, under a scale code of zero.
        lsb_exponent = self._lsb_exponent - 2 * E8M0.bias
        # The exponent field of a one at the window's top where the integer's last place is the window's (where the integer
        # stands at its top, without C), minus one.
        level = (self._window if self._addend else self._width) - 1 + lsb_exponent + FP32.bias - 1
        if c is None:
            result = Signal(data.StructLayout({"is_low": 1, "limit": 10}), name=name)
            limit = Signal(signed(11), name=f"{name}_limit")
            fine = self._right.bit_length() - 1
            m.d.comb += limit.eq(scales.code + level)
            limit = first(limit, f"{name}_limit")
            # Moved right, it has as many places more; fewer than none are none.
            m.d.comb += [
                result.is_low.eq(limit[-1]),
                result.limit.eq(Mux(~limit[-1], limit, limit[:fine] & limit[fine:].all().replicate(fine))),
            ]
            return second(result, name)
        layout = data.StructLayout({
            "is_far": 1, "is_below": 1, "position": (self._window + FP32.significand_width - 1).bit_length(), "limit": 10})
        result = Signal(layout, name=name)
        fraction = self._fraction
        distance = Signal(signed(11), name=f"{name}_distance")
        m.d.comb += distance.eq(c.exponent_code - scales.code + (FP32.lsb_exponent - 1 - lsb_exponent))
        distance, c_code, code = (first(value, f"{name}_{label}") for value, label in (
            (distance, "distance"), (c.exponent_code, "c_code"), (scales.code, "code")))
        is_far = distance >= self._width + 2
        is_below = distance < 0
        far_position = self._width + 2 + FP32.significand_width
        below_position = Signal(signed(12), name=f"{name}_below_position")
        m.d.comb += below_position.eq(distance + fraction + FP32.significand_width)
        is_far, is_below, below_position, level_position, far_limit, level_limit = (
            second(value, f"{name}_{label}") for value, label in (
                (is_far, "is_far"), (is_below, "is_below"), (below_position, "below_position"),
                (distance + FP32.significand_width, "level_position"), (c_code - 1, "far_limit"), (code + level, "level_limit")))
        m.d.comb += [
            result.is_far.eq(is_far),
            result.is_below.eq(is_below),
            result.position.eq(Mux(is_far, far_position, Mux(
                is_below, Mux(below_position < 0, 0, below_position), level_position))),
            result.limit.eq(Mux(is_far, far_limit, level_limit - Mux(is_below, fraction, 0))),
        ]
        return result

    def result(self, m, cut, total, carry, places, c, flags, name="result"):
        """Bits of the target for the integer ``total + carry``, behind :attr:`cuts`."""
        target, window = self._target, self._window
        if self._addend:
            total, carry, limit, lost, flags = self._sum(m, cut, total, carry, places, c, flags, name)
        else:
            limit = places.limit
            total, lost = self._at_top(m, total, carry, places.is_low, name)
            total, carry, limit, lost, flags = across(
                cut, "moved", f"{name}_{{}}", total=total, carry=carry, limit=limit, lost=lost, flags=flags).values()

        return round_sum(m, cut, target, window, total, carry, lost, limit, flags, name)

    def _at_top(self, m, total, carry, is_low, name):
        """``(total, lost)``: the integer in the window, at its top; but further right where that is below normal numbers."""
        padding, right = self._padding, self._right
        top = Signal(signed(self._width + 1), name=f"{name}_top")
        moved = Signal(signed(self._window + 1), name=f"{name}_moved")
        lost = Signal(name=f"{name}_lost")
        m.d.comb += [
            top.eq(total),
            # A carry runs through ones, and is due at their end.
            moved.eq(Mux(is_low, top >> (right - padding), Cat(carry.replicate(padding), top).as_signed())),
            lost.eq(is_low & any_bit(top[:right - padding] ^ carry.replicate(right - padding))),
        ]
        return moved, lost

    def _sum(self, m, cut, total, carry, places, c, flags, name):
        """``(total, carry, limit, lost, flags)``: both in the window, behind the cuts of an addend."""
        window, fraction = self._window, self._fraction
        is_zero = ~any_bit(total.as_unsigned() ^ carry.replicate(len(total)))
        placing = Signal(data.StructLayout({
            "total": total.shape(), "carry": 1, "is_below": 1, "position": len(places.position), "limit": len(places.limit),
            "c_sign": 1, "c_significand": FP32.significand_width, "flags": Numbers.layout}), name=f"{name}_placing")
        m.d.comb += [
            placing.total.eq(total), placing.carry.eq(carry), placing.c_sign.eq(c.sign), placing.c_significand.eq(c.significand),
            placing.flags.eq(flags), placing.is_below.eq(places.is_below & ~is_zero),
            placing.position.eq(Mux(is_zero, self._width + 2 + FP32.significand_width, places.position)),
            placing.limit.eq(Mux(is_zero, c.exponent_code - 1, places.limit)),
        ]
        placing = cut("placing", placing, name)

        c_places = shift_left(placing.c_significand, placing.position, window + FP32.significand_width)
        placed = Signal(data.StructLayout({
            "total": signed(window + 1), "carry": 1, "c": signed(window + 1), "c_carry": 1, "limit": len(placing.limit),
            "is_lost": 1, "flags": Numbers.layout}), name=f"{name}_placed")
        is_lost = any_bit(c_places[:FP32.significand_width])
        m.d.comb += [
            # Ones below the integer take its carry up to its last place.
            placed.total.eq(
                Mux(placing.is_below, Cat(placing.carry.replicate(fraction), placing.total).as_signed(), placing.total)),
            placed.carry.eq(placing.carry),
            placed.c.eq(Cat(c_places[FP32.significand_width:], C(0, 1)) ^ placing.c_sign.replicate(window + 1)),
            placed.c_carry.eq(placing.c_sign & ~is_lost),
            placed.limit.eq(placing.limit), placed.is_lost.eq(is_lost), placed.flags.eq(placing.flags),
        ]
        placed = cut("placed", placed, name)

        added = Signal(data.StructLayout({
            "total": signed(window + 1), "carry": 1, "limit": len(placed.limit), "is_lost": 1, "flags": Numbers.layout}),
            name=f"{name}_added")
        m.d.comb += [
            added.total.eq(add_with_carry(placed.total, placed.c, placed.carry, window + 1)), added.carry.eq(placed.c_carry),
            added.limit.eq(placed.limit), added.is_lost.eq(placed.is_lost), added.flags.eq(placed.flags),
        ]
        added = cut("added", added, name)
        return added.total, added.carry, added.limit, added.is_lost, added.flags
