"""Errors that a user can mend."""

__all__ = ["MxforgeError"]


class MxforgeError(Exception):
    """One line that says what was wrong and what would be right; the command line prints it and exits with 2."""
