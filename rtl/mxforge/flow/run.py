"""A user's vectors through a unit's Verilog."""
import importlib
import itertools
import time
from dataclasses import dataclass

import numpy as np

from mxbench import verilator
from mxbench.manifest import has_marks, marks

from ..emit import emit, manifest_of, unit_of
from ..errors import MxforgeError
from . import player
from .files import check_output, load_arrays, save_arrays
from .jobs import Job, Workers, needed, own_build_dir, shown

__all__ = ["Result", "run"]

# Input that a job carries, at most.
PIECE_BYTES = 1 << 24


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


def _expected(manifest, inputs):
    golden = importlib.import_module(f"mxgolden.{manifest['unit']}")
    fields = {name: values for name, values in inputs.items() if name != "tlast"}
    expected = golden.expected(manifest["parameters"], fields)
    if manifest["axi"] and has_marks(manifest, "o"):
        expected["tlast"] = marks(manifest, inputs, len(next(iter(expected.values()))))
    return expected


def _is_cuttable(component, manifest):
    """Whether the outputs of a row depend on that row alone."""
    if manifest["cadence"] == "each":
        return not unit_of(component).is_stateful
    fields = [field["name"] for port in manifest["ports"].values() for field in port.get("fields", ())]
    return manifest["cadence"] in ("some", "blocks") and "first" not in fields


def _pieces(inputs, count):
    """Spans of rows: some for each of ``count`` workers, and none too large to travel."""
    rows = len(next(iter(inputs.values())))
    each = min(-(-rows // (4 * count)), PIECE_BYTES * rows // max(1, sum(array.nbytes for array in inputs.values())))
    return list(itertools.pairwise([0, *range(max(1, each), rows, max(1, each)), rows]))


def _played(text, manifest, build_dir, inputs, stalls, check):
    """A job: the outputs of a piece, its clock cycles, and whether it is golden's, if that is asked."""
    machine = player.build(text, manifest, own_build_dir(build_dir))
    got = machine.play(inputs, stalls=stalls)
    return got, machine.last.cycles, not check or _difference(got, _expected(manifest, inputs)) is None


def _spread(workers, progress, inputs, spans, **arguments):
    """The outputs of the pieces ``spans`` of ``inputs``, the sum of their clock cycles, and whether all are golden's."""
    work = [Job(name=f"rows {start} to {stop - 1}", function=_played, arguments=arguments | {
        "inputs": {name: array[start:stop] for name, array in inputs.items()}}) for start, stop in spans]
    task = progress.add_task("", total=spans[-1][1])
    came = {}
    for job, outcome in workers.run(work):
        came[job.name] = needed(job, outcome)
        progress.advance(task, len(next(iter(job.arguments["inputs"].values()))))
    pieces, cycles, is_right = zip(*(came[job.name] for job in work), strict=True)
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}, sum(cycles), all(is_right)


def run(entry, vectors, output, build_dir, *, check=False, waves=None, stalls=None, jobs=None, scheduler=None, progress=None):
    """Play the arrays of the file ``vectors`` through a catalogue entry's Verilog and save what comes out to ``output``.

    An AXI4-Stream top may have ``tlast`` beside the arrays of its fields, and gives it back; without it no packet ends.
    ``check`` compares it with golden. ``waves``: a file for them; ``stalls``: a seed for idle inputs and back-pressure.
    With several ``jobs`` (without: one), or on the workers of a dask ``scheduler``, the rows of a unit that keeps nothing from one
    to the next are played in pieces, each from reset; the rest in one. ``progress``: a :class:`rich.progress.Progress`;
    without, nothing is shown. ``MxforgeError`` for what the user can mend.
    """
    for path in (output, waves):
        if path is not None:
            check_output(path)
    if vectors.exists() and output.exists() and vectors.samefile(output):
        raise MxforgeError(f"the results would replace the vectors, {vectors}; -o must be another file")
    if waves is not None and waves.resolve() in (output.resolve(), vectors.resolve()):
        raise MxforgeError(f"the waves would replace {waves}; --waves must be another file")
    workers = Workers(jobs, scheduler)
    is_here = scheduler is None and jobs in (None, 1)
    if waves is not None and not is_here:
        raise MxforgeError("waves are of a run in one piece, here; leave out --jobs and --scheduler")
    component = entry.component()
    manifest = manifest_of(component, entry.name)
    inputs = load_arrays(vectors)
    if entry.axi:
        _add_marks(manifest, inputs)
    golden = importlib.import_module(f"mxgolden.{entry.unit}")
    is_here |= scheduler is None and not _is_cuttable(component, manifest)
    try:
        inputs = player.check(manifest, inputs)
        if hasattr(golden, "check_inputs"):
            golden.check_inputs(manifest["parameters"], inputs)
        expected = _expected(manifest, inputs) if check and is_here else None
        if waves is not None:
            player.check_waves(waves)
    except ValueError as error:
        raise MxforgeError(str(error)) from error
    text, manifest = emit(entry.component(), entry.name)
    if scheduler is None:
        verilator.require_compiler()
        machine = player.build(text, manifest, build_dir)
        if waves is not None:
            machine.build_waves(waves)

    rows = len(next(iter(inputs.values())))
    if is_here:
        start = time.perf_counter()
        with shown(progress) as progress:
            task = progress.add_task("", total=None)
            got = machine.play(inputs, stalls=stalls, waves=waves,
                               progress=lambda done, total: progress.update(task, completed=done, total=total))
        cycles, pieces = machine.last.cycles, ""
    else:
        with workers, shown(progress) as progress:
            spans = _pieces(inputs, workers.count) if _is_cuttable(component, manifest) else [(0, rows)]
            start = time.perf_counter()
            got, cycles, is_right = _spread(workers, progress, inputs, spans, text=text, manifest=manifest, stalls=stalls,
                                            check=check, build_dir=workers.build_dir(build_dir))
        pieces = f" in {len(spans)} pieces" if len(spans) > 1 else ""
        # Told as of the whole.
        expected = got if is_right else _expected(manifest, inputs)
    seconds = time.perf_counter() - start
    save_arrays(output, got)
    results = len(next(iter(got.values())))
    summary = (f"{output}: {results:,} rows from {rows:,} in {seconds:.2f} s, {rows / seconds:,.0f} a second; "
               f"{cycles:,} clock cycles{pieces}")
    if not check:
        return Result(summary=summary)
    difference = _difference(got, expected)
    return Result(summary=summary if difference else f"{summary}; 0 bits differ from golden", difference=difference)
