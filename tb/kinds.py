"""Which entries of the catalogue each run of the tests takes."""
import pytest

from mxforge import catalog

__all__ = ["marks"]


def _firsts():
    """Names of the first entry of each unit, ports and accumulation."""
    first = {}
    for entry in catalog.ENTRIES.values():
        first.setdefault((entry.unit, entry.ports, entry.parameters.get("accumulation")), entry.name)
    return set(first.values())


_FIRSTS = _firsts()


def marks(name):
    """For what differs between entries of a kind in sizes alone: slow but for the first of them."""
    return () if name in _FIRSTS else pytest.mark.slow
