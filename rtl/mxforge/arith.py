"""Combinational arithmetic of exact shapes."""
from amaranth import *

__all__ = ["any_bit", "count_leading_zeros", "normalize", "shift_left", "shift_right_sticky", "tree_max", "tree_sum"]


def _tree(values, combine):
    values = list(values)
    while len(values) > 1:
        pairs = [combine(a, b) for a, b in zip(values[::2], values[1::2], strict=False)]
        values = pairs + values[len(values) & ~1:]
    return values[0]


def tree_sum(values):
    """The exact sum, ceil(log2 n) bits wider than the widest operand at most; ``sum()`` grows by a bit an operand."""
    return _tree(values, lambda a, b: a + b)


def tree_max(values):
    """The largest of unsigned values, by a balanced tree of comparators."""
    return _tree(values, lambda a, b: Mux(a > b, a, b))


def any_bit(value):
    """1 if any bit is set; 0 for a value without bits."""
    return value.any() if len(value) else Const(0, 1)


def shift_left(value, amount, width):
    """``value << amount`` cut to ``width`` bits; unlike ``<<``, never wider on the way."""
    value = value[:width] if len(value) >= width else Cat(value, C(0, width - len(value)))
    for k in range(len(amount)):
        step = min(1 << k, width)
        value = Mux(amount[k], Cat(C(0, step), value[:width - step]), value)
    return value


def shift_right_sticky(value, amount):
    """``(value >> amount, lost)``: ``lost`` is 1 if any bit shifted out was set. The amount may exceed the width."""
    lost = Const(0, 1)
    for k in range(len(amount)):
        step = min(1 << k, len(value))
        lost = lost | (amount[k] & any_bit(value[:step]))
        value = Mux(amount[k], Cat(value[step:], C(0, step)), value)
    return value, lost


def normalize(value):
    """``(value << zeros, zeros)`` with ``zeros`` the leading zeros, so that the top bit is set unless the value is 0.

    Leading-zero count and shift share their stages: each tests the top part of what the one before left.
    """
    width = len(value)
    count = []
    for k in reversed(range((width - 1).bit_length())):
        step = 1 << k
        empty = ~any_bit(value[width - step:])
        value = Mux(empty, Cat(C(0, step), value[:width - step]), value)
        count.insert(0, empty)
    return value, Cat(*count)


def count_leading_zeros(value):
    """Leading zeros of an unsigned value, 0 to its width."""
    width = len(value)
    zeros = normalize(value)[1]
    return Mux(value == 0, width, zeros)
