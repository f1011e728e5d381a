"""The buses of packed streams, and the pairs with elements that their tests have."""
from mxforge.formats import ELEMENTS

__all__ = ["BUSES", "check_cover", "cover"]

BUSES = 1, 2, 4, 8, 16, 32, 64


def cover(of_eight, of_six):
    """``[(bus, element)]``: each bus with each width of elements, those of 8 and of 6 bits in turn."""
    return [(bus, element) for n, bus in enumerate(BUSES) for element in (
        of_eight[n % len(of_eight)], of_six[n % len(of_six)], "e2m1")]


def check_cover(pairs):
    """Each bus with each width, and each element with some bus."""
    widths = {(bus, ELEMENTS[element].width) for bus, element in pairs}
    assert widths == {(bus, width) for bus in BUSES for width in (4, 6, 8)} and {element for _, element in pairs} == set(ELEMENTS)
