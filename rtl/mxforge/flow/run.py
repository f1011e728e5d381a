"""A user's vectors through a unit's Verilog."""
import importlib
import time
from dataclasses import dataclass

import numpy as np

from mxbench import verilator
from mxbench.manifest import has_marks, marks

from ..emit import emit, manifest_of
from ..errors import MxforgeError
from . import player
from .files import check_output, load_arrays, save_arrays

__all__ = ["Result", "run"]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a run did: a line for people, and where hardware and golden first differ, if they were compared and do."""
    summary: str
    difference: str | None = None


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


def _add_marks(manifest, inputs):
    if inputs and has_marks(manifest, "i") and "tlast" not in inputs:
        first = next(iter(inputs.values()))
        inputs["tlast"] = np.zeros((len(first) if first.ndim else 0, manifest["beats"]["i"]), np.uint8)


def _expected(golden, manifest, inputs):
    fields = {name: values for name, values in inputs.items() if name != "tlast"}
    expected = golden.expected(manifest["parameters"], fields)
    if manifest["axi"] and has_marks(manifest, "o"):
        expected["tlast"] = marks(manifest, inputs, len(next(iter(expected.values()))))
    return expected


def run(entry, vectors, output, build_dir, *, check=False, waves=None, stalls=None, progress=None):
    """Play the arrays of the file ``vectors`` through a catalogue entry's Verilog and save what comes out to ``output``.

    An AXI4-Stream top may have ``tlast`` beside the arrays of its fields, and gives it back; without it no packet ends.
    ``check`` compares it with golden. ``waves``: a file for them; ``stalls``: a seed for idle inputs and back-pressure.
    ``progress``: a :class:`rich.progress.Progress`. ``MxforgeError`` for what the user can mend.
    """
    for path in (output, waves):
        if path is not None:
            check_output(path)
    if vectors.exists() and output.exists() and vectors.samefile(output):
        raise MxforgeError(f"the results would replace the vectors, {vectors}; -o must be another file")
    if waves is not None and waves.resolve() in (output.resolve(), vectors.resolve()):
        raise MxforgeError(f"the waves would replace {waves}; --waves must be another file")
    manifest = manifest_of(entry.component(), entry.name)
    inputs = load_arrays(vectors)
    if entry.axi:
        _add_marks(manifest, inputs)
    golden = importlib.import_module(f"mxgolden.{entry.unit}")
    try:
        inputs = player.check(manifest, inputs)
        if hasattr(golden, "check_inputs"):
            golden.check_inputs(manifest["parameters"], inputs)
        expected = _expected(golden, manifest, inputs) if check else None
        if waves is not None:
            player.check_waves(waves)
    except ValueError as error:
        raise MxforgeError(str(error)) from error
    verilator.require_compiler()
    machine = player.build(*emit(entry.component(), entry.name), build_dir)
    if waves is not None:
        machine.build_waves(waves)

    start = time.perf_counter()
    with progress:
        task = progress.add_task("", total=None)
        got = machine.play(inputs, stalls=stalls, waves=waves,
                           progress=lambda done, total: progress.update(task, completed=done, total=total))
    seconds = time.perf_counter() - start
    save_arrays(output, got)
    rows = len(next(iter(inputs.values())))
    results = len(next(iter(got.values())))
    summary = (f"{output}: {results:,} rows from {rows:,} in {seconds:.2f} s, {rows / seconds:,.0f} a second; "
               f"{machine.last.cycles:,} clock cycles")
    if not check:
        return Result(summary=summary)
    difference = _difference(got, expected)
    return Result(summary=summary if difference else f"{summary}; 0 bits differ from golden", difference=difference)
