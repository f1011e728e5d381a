"""Jobs for the tests of ``flow/jobs.py``, in a module that workers can import."""
import os
import subprocess
import time
from pathlib import Path

from mxbench.verilator import run_tool

__all__ = ["dies", "dies_after", "fails", "fails_in_a_tool", "pid", "runs_a_tool", "square", "unsendable", "waits"]


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


def unsendable():
    """Gives what no process can send to another."""
    return lambda: 1


def fails_in_a_tool(number):
    run_tool(["sh", "-c", "echo no room for 7 LUTs; exit 3"])


def dies(mark=None):
    """Ends its process: always, or once."""
    if mark is None or _first_time(mark):
        os._exit(1)
    return "done"


def dies_after(mark):
    """Ends its process, once something is in the file ``mark``."""
    while not (Path(mark).exists() and Path(mark).read_text()):
        time.sleep(0.02)
    os._exit(1)


def pid():
    return os.getpid()


def waits(mark, seconds):
    """Takes its time the first time only, and leaves its process' number in the file ``mark``."""
    if _first_time(mark):
        Path(mark).write_text(str(os.getpid()))
        time.sleep(seconds)
    return "done"


def runs_a_tool(seconds):
    """What most jobs do: waits for a program."""
    subprocess.run(["sleep", str(seconds)], check=True)
