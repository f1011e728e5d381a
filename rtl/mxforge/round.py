"""Rounding steps; what is kept, and when it moves up by one."""
from .arith import any_bit

__all__ = ["round_up_to_nearest_even", "split"]


def split(value, places):
    """``(kept, guard, sticky)`` of ``value`` when its ``places`` low bits go; ``places`` of 0 loses nothing."""
    if places == 0:
        return value, value[:0].any(), value[:0].any()
    return value[places:], value[places - 1], any_bit(value[:places - 1])


def round_up_to_nearest_even(lsb, guard, sticky):
    """1 if roundTiesToEven (IEEE 754-2019, 4.3.1) goes up: above half, or half with an odd ``lsb``."""
    return guard & (sticky | lsb)
