"""Jobs for the tests of ``flow/jobs.py``, in a module that workers can import."""
import os
import time
from pathlib import Path

__all__ = ["dies", "fails", "pid", "square", "waits"]


def square(number):
    return number * number


def _first_time(mark):
    """Whether nobody has asked this before; the file ``mark`` remembers."""
    try:
        Path(mark).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def fails(mark=None):
    """Raises: always, or once."""
    if mark is None or _first_time(mark):
        raise ValueError("the tool said no")
    return "done"


def dies(mark=None):
    """Ends its process: always, or once."""
    if mark is None or _first_time(mark):
        os._exit(1)
    return "done"


def pid():
    return os.getpid()


def waits(mark, seconds):
    """Takes its time the first time only, and leaves its process' number in the file ``mark``."""
    if _first_time(mark):
        Path(mark).write_text(str(os.getpid()))
        time.sleep(seconds)
    return "done"
