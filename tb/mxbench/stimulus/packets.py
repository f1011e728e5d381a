"""Packets of transfers."""
import numpy as np

__all__ = ["ends", "lengths"]


def lengths(last):
    """Transfers of each packet that ends."""
    ends = np.flatnonzero(last)
    return np.diff(ends, prepend=-1)


def ends(count, rng):
    """``last`` of ``count`` transfers, the final one's set: runs of single ones, of short packets, of long ones, any."""
    last = np.zeros(count, np.uint8)
    at = 0
    while at < count:
        longest = int(rng.choice([1, 2, 4, 12, 100]))
        for length in rng.integers(1, longest + 1, int(rng.integers(1, 9))):
            at += int(length)
            if at <= count:
                last[at - 1] = 1
    last[-1:] = 1
    return last
