"""Errors that a user can mend."""

__all__ = ["MxforgeError", "install", "nearest"]


class MxforgeError(Exception):
    """One line that says what was wrong and what would be right; the command line prints it and exits with 2."""


def nearest(name, known, otherwise, n=1, cutoff=0.6):
    """What to say of an unknown name: the ``n`` nearest of the ``known`` ones, or what else to do."""
    import difflib

    near = difflib.get_close_matches(name, known, n=n, cutoff=cutoff)
    return f"did you mean {' or '.join(near)}?" if near else otherwise


def install(extra):
    """What to type for an ``extra`` of mxforge that is missing."""
    return f"pip install 'mxforge[{extra}]', in a clone '.[{extra}]'"
