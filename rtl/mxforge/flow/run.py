"""A user's vectors through a unit's Verilog."""
import contextlib
import importlib
import time
import zipfile
from dataclasses import dataclass

import numpy as np

from mxbench import verilator

from ..emit import emit, manifest_of
from ..errors import MxforgeError
from . import player

__all__ = ["Result", "check_output", "run", "save"]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a run did: a line for people, and where hardware and golden first differ, if they were compared and do."""
    summary: str
    difference: str | None = None


def _load(path):
    with contextlib.suppress(ValueError, EOFError, zipfile.BadZipFile):
        arrays = np.load(path, allow_pickle=False)
        if isinstance(arrays, np.lib.npyio.NpzFile):
            with arrays:
                return {name: arrays[name] for name in arrays.files}
    raise MxforgeError(f"{path} must be an .npz file of arrays, as numpy.savez writes it")


def check_output(path):
    """`MxforgeError` unless the file ``path`` can be written."""
    if not path.absolute().parent.is_dir():
        raise MxforgeError(f"{path} can't be written: there is no directory {path.parent}")


def save(path, write):
    """Make the file ``path`` by ``write(file)``, whole or not at all."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with open(unfinished, "wb") as file:
            write(file)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _difference(got, expected):
    """The first difference in words, and how many there are; None if there is none."""
    for name, wanted in expected.items():
        if got[name].shape != wanted.shape:
            return f"{name} has the shape {got[name].shape}, golden's {wanted.shape}"
        wrong = np.argwhere(got[name] != wanted)
        if len(wrong):
            at = tuple(map(int, wrong[0]))
            return (f"{len(wrong)} of {wanted.size} {name} differ from golden, first {name}{list(at)}: {got[name][at]:#x}, "
                    f"golden {wanted[at]:#x}")
    return None


def run(entry, vectors, output, build_dir, *, check=False, waves=None, stalls=None, progress=None):
    """Play the arrays of the file ``vectors`` through a catalogue entry's Verilog and save what comes out to ``output``.

    ``check`` compares it with golden. ``waves``: a file for them; ``stalls``: a seed for idle inputs and back-pressure.
    ``progress``: a :class:`rich.progress.Progress`. ``MxforgeError`` for what the user can mend.
    """
    for path in (output, waves):
        if path is not None:
            check_output(path)
    if vectors.exists() and output.exists() and vectors.samefile(output):
        raise MxforgeError(f"the results would replace the vectors, {vectors}; -o must be another file")
    manifest = manifest_of(entry.component(), entry.name)
    inputs = _load(vectors)
    golden = importlib.import_module(f"mxgolden.{entry.unit}")
    try:
        player.check(manifest, inputs)
        expected = golden.expected(manifest["parameters"], inputs) if check else None
        if waves is not None:
            player.check_waves(waves)
    except ValueError as error:
        raise MxforgeError(str(error)) from error
    verilator.require_compilers()
    machine = player.build(*emit(entry.component(), entry.name), build_dir)

    start = time.perf_counter()
    with progress:
        task = progress.add_task("", total=None)
        got = machine.play(inputs, stalls=stalls, waves=waves,
                           progress=lambda done, total: progress.update(task, completed=done, total=total))
    seconds = time.perf_counter() - start
    save(output, lambda file: np.savez(file, **got))
    rows = len(next(iter(inputs.values())))
    results = len(next(iter(got.values())))
    summary = (f"{output}: {results:,} rows from {rows:,} in {seconds:.2f} s, {rows / seconds:,.0f} a second; "
               f"{machine.last.cycles:,} clock cycles")
    if not check:
        return Result(summary=summary)
    difference = _difference(got, expected)
    return Result(summary=summary if difference else f"{summary}; 0 bits differ from golden", difference=difference)
