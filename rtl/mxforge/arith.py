"""Combinational arithmetic of exact shapes."""
from amaranth import *

__all__ = ["any_bit", "count_leading_zeros", "exchange", "is_among", "normalize", "plus", "plus_rippling", "select", "shift_left",
           "shift_right_sticky", "thermometer", "tree_max", "tree_sum"]


def _named(m, name, value):
    # What is used more than once needs a signal: an expression is written out at each use, and again in each use of that.
    signal = Signal(len(value), name=name)
    m.d.comb += signal.eq(value)
    return signal


def plus(m, value, constant, width):
    """``(value + constant) % (1 << width)``, ``width`` bits, of an unsigned ``value`` and any whole ``constant``.

    Without a carry chain, which for a few bits costs more than they share.
    """
    bits, carry = [], Const(0, 1)
    for n in range(width):
        bit = value[n] if n < len(value) else Const(0, 1)
        is_one = constant >> n & 1
        bits.append(~(bit ^ carry) if is_one else bit ^ carry)
        if n + 1 < width:
            carry = _named(m, "carry", bit | carry if is_one else bit & carry)
    return _named(m, "total", Cat(bits))


def plus_rippling(m, a, b, name):
    """``a + b`` of two unsigned values, one bit wider than the wider; the carry goes from place to place in plain logic."""
    bits, carry = [], Const(0, 1)
    for place in range(max(len(a), len(b))):
        x, y = (value[place] if place < len(value) else Const(0, 1) for value in (a, b))
        half, carries = Signal(name=f"{name}_half{place}"), Signal(name=f"{name}_carry{place}")
        m.d.comb += [half.eq(x ^ y), carries.eq((x & y) | (carry & half))]
        bits.append(half ^ carry)
        carry = carries
    result = Signal(len(bits) + 1, name=name)
    m.d.comb += result.eq(Cat(bits, carry))
    return result


def is_among(m, value, chosen, possible):
    """Whether ``value`` is one of ``chosen``; it is known to be one of ``possible``, and what else it could be is left open.

    The bits that tell those apart are tested, and no others.
    """
    others = set(possible) - set(chosen)
    terms, left = [], sorted(set(chosen))
    while left:
        # Of the first number, the bits without which it would be one of the others.
        mask = (1 << len(value)) - 1
        for n in reversed(range(len(value))):
            if all((left[0] ^ other) & mask & ~(1 << n) for other in others):
                mask &= ~(1 << n)
        bits = [bit if left[0] >> n & 1 else ~bit for n, bit in enumerate(value) if mask >> n & 1]
        terms.append(Cat(bits).all() if bits else Const(1, 1))
        left = [number for number in left if (number ^ left[0]) & mask]
    return _named(m, "is_among", any_bit(Cat(terms)))


def tree_sum(values):
    """The exact sum, ceil(log2 n) bits wider than the widest operand at most; ``sum()`` grows by a bit an operand."""
    values = list(values)
    while len(values) > 1:
        pairs = [a + b for a, b in zip(values[::2], values[1::2], strict=False)]
        values = pairs + values[len(values) & ~1:]
    return values[0]


def tree_max(m, values, cut=lambda level, n, value: value):
    """The largest of unsigned values, by a balanced tree of comparators; ``cut`` may register value ``n`` of a level."""
    values = list(values)
    level = 0
    while len(values) > 1:
        level += 1
        pairs = [_named(m, "larger", Mux(a > b, a, b)) for a, b in zip(values[::2], values[1::2], strict=False)]
        values = [cut(level, n, value) for n, value in enumerate(pairs + values[len(values) & ~1:])]
    return values[0]


def exchange(m, values, index):
    """The values in another order: at place ``k`` that of place ``k ^ index``. They are a power of two; twice gives them back."""
    for n, bit in enumerate(index):
        values = [_named(m, "exchanged", Mux(bit, values[k ^ (1 << n)], value)) for k, value in enumerate(values)]
    return values


def any_bit(value):
    """1 if any bit is set; 0 for a value without bits."""
    return value.any() if len(value) else Const(0, 1)


def shift_left(value, amount, width):
    """``value << amount`` cut to ``width`` bits."""
    return (value << amount)[:width]


def shift_right_sticky(m, value, amount):
    """``(value >> amount, lost)``: ``lost`` is 1 if any bit shifted out was set. The amount may exceed the width."""
    lost = []
    for k in range(len(amount)):
        step = min(1 << k, len(value))
        lost.append(amount[k] & any_bit(value[:step]))
        value = _named(m, "shifted", Mux(amount[k], Cat(value[step:], C(0, step)), value))
    return value, any_bit(Cat(*lost))


def normalize(m, value, stages=None):
    """``(value << zeros, zeros)`` with ``zeros`` the leading zeros, so that the top bit is set unless the value is 0.

    Leading-zero count and shift share their stages: each tests the top part of what the one before left. Stage k shifts by
    ``1 << k``; ``stages`` is a range of them where not all are wanted, and ``zeros`` has a bit for each.
    """
    width = len(value)
    count = []
    for k in reversed(range((width - 1).bit_length()) if stages is None else stages):
        step = 1 << k
        empty = _named(m, "empty", ~any_bit(value[width - step:]))
        value = _named(m, "normalized", Mux(empty, Cat(C(0, step), value[:width - step]), value))
        count.insert(0, empty)
    return value, Cat(*count)


def count_leading_zeros(m, value):
    """Leading zeros of an unsigned value, 0 to its width."""
    width = len(value)
    zeros = normalize(m, value)[1]
    return Mux(value == 0, width, zeros)


def select(m, values, index):
    """Item ``index`` of ``values``, by a tree of multiplexers; beyond the end, the last."""
    values = list(values)
    values += values[-1:] * ((1 << len(index)) - len(values))
    for bit in index:
        values = [a if a is b else _named(m, "selected", Mux(bit, b, a)) for a, b in zip(values[::2], values[1::2], strict=True)]
    return values[0]


def thermometer(m, amount):
    """As many ones as an unsigned ``amount`` says, from the lowest bit up: an all-ones amount fills the result."""
    ones, *bits = amount
    for bit in bits:
        below = bit.replicate(len(ones))
        ones = _named(m, "ones", Cat(ones | below, bit, ones & below))
    return ones
