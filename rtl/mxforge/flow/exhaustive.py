# amaranth: UnusedElaboratable=no
"""Every input there is, through the Verilog of the units, against the golden model."""
import functools
import hashlib
import importlib
import itertools
import json
import re
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

import mxgolden
from mxbench import verilator

from .. import catalog, emit
from ..errors import MxforgeError
from ..formats import ELEMENTS, WIDES
from . import player
from .files import replacing
from .jobs import Failure, Job, Workers, own_build_dir

__all__ = ["Counted", "Pairs", "Result", "run", "sweeps"]

# Values in a piece of work: some seconds, after which what was found is kept.
PIECE = 1 << 27
# `quick` takes every so manieth of the values of a long sweep; odd, so that it meets every bit pattern of the low bits.
QUICK_STEP = 4099
# The time of a beat is shared by the lanes, as long as their code fits the processor's cache.
LANES = {"dequantizer": 32, "element_cast": 8, "scale_select": 32}

CAST_SCALES = {"e4m3": (0, 1, 10, 11, 127, 247, 254), "e5m2": (0, 1, 17, 18, 127, 240, 247, 254)}
SCALE_RULES = "rceil", "floor", "ceil", "even", "floor_plus_1", "unit"


@dataclass(frozen=True, kw_only=True)
class _Sweep:
    unit: str
    parameters: dict

    @property
    def lanes(self):
        return self.parameters["lanes"]

    def component(self):
        return catalog.UNITS[self.unit](**self.parameters, stages=0)

    def __str__(self):
        facts = [value for name, value in self.parameters.items() if name != "lanes"]
        return " ".join([self.unit, *map(str, facts), *(f"{name}={value}" for name, value in self.fixed.items())])


@dataclass(frozen=True, kw_only=True)
class Counted(_Sweep):
    """All (or each ``step``-th) of the 2**``width`` values of array ``field``, dealt out to the lanes, with the scalar
    fields ``fixed``.
    """
    field: str
    width: int
    fixed: dict = field(default_factory=dict)
    step: int = 1

    @property
    def rows(self):
        return -(-(1 << self.width) // (self.lanes * self.step))

    def values(self, rows):
        """How many values ``rows`` rows hold."""
        return rows * self.lanes

    def inputs(self, start, stop):
        values = np.arange(start * self.lanes, stop * self.lanes, dtype=np.uint64) * np.uint64(self.step)
        values &= np.uint64((1 << self.width) - 1)
        dtype = np.uint32 if self.width > 16 else np.uint16
        fixed = {name: np.full(stop - start, value, np.uint8) for name, value in self.fixed.items()}
        return fixed | {self.field: values.astype(dtype).reshape(-1, self.lanes)}

    def play(self, unit, start, stop):
        return unit.ramp(self.inputs(0, 1), self.field, start * self.lanes * self.step, stop - start, self.step)


@dataclass(frozen=True, kw_only=True)
class Pairs(_Sweep):
    """All of the 2**``width`` codes of array ``field`` with all 256 scales; in every lane, if ``rotated``."""
    field: str
    width: int
    rotated: bool = False
    fixed = {"scale": "all"}      # noqa: RUF012 (in words, for all sweeps of the kind)

    @property
    def rows(self):
        return (256 << self.width) // (1 if self.rotated else self.lanes)

    def values(self, rows):
        return rows * self.lanes

    def inputs(self, start, stop):
        first = np.arange(start, stop) * (1 if self.rotated else self.lanes)
        scale, code = np.divmod(first, 1 << self.width)
        codes = (code[:, None] + np.arange(self.lanes)) % (1 << self.width)
        dtype = np.uint8 if self.width <= 8 else np.uint16
        return {"scale": scale.astype(np.uint8), self.field: codes.astype(dtype)}

    def play(self, unit, start, stop):
        edges = itertools.pairwise([*range(start, stop, 1 << 14), stop])
        return unit.stream(self.inputs(a, b) for a, b in edges)


def sweeps(quick=False):
    """All that is to be swept."""
    step = QUICK_STEP if quick else 1
    found = []
    for element, target, overflow in itertools.product(ELEMENTS, WIDES, ("inf", "saturate")):
        found.append(Pairs(unit="dequantizer", field="elements", width=ELEMENTS[element].width, rotated=True, parameters={
            "element": element, "target": target, "overflow": overflow, "lanes": LANES["dequantizer"]}))
    for source, element in itertools.product(("bf16", "fp16"), ELEMENTS):
        found.append(Pairs(unit="element_cast", field="values", width=16, parameters={
            "source": source, "element": element, "lanes": LANES["element_cast"]}))
    for element, scales in CAST_SCALES.items():
        for scale in scales:
            found.append(Counted(unit="element_cast", field="values", width=32, step=step, fixed={"scale": scale},
                                 parameters={"source": "fp32", "element": element, "lanes": LANES["element_cast"]}))
    for element, rule in itertools.product(CAST_SCALES, SCALE_RULES):
        found.append(Counted(unit="scale_select", field="amaxes", width=31, step=step, parameters={
            "source": "fp32", "element": element, "scale_rule": rule, "lanes": LANES["scale_select"]}))
    return found


@dataclass
class Result:
    """What came of a sweep: values compared, how many were wrong, the first of those in words, seconds of work."""
    values: int = 0
    mismatches: int = 0
    seconds: float = 0.0
    examples: list = field(default_factory=list)

    def add(self, other):
        self.values += other.values
        self.mismatches += other.mismatches
        self.seconds += other.seconds
        self.examples += other.examples


def run(build_dir, *, quick=False, only=(), jobs=None, scheduler=None, console=None):
    """Sweep everything, or what has one of ``only`` in its name: ``{sweep: Result}``; where, see `Workers`.

    Pieces that passed are remembered in ``build_dir``/exhaustive/done.json, by Verilog and golden model, and aren't done
    again. ``quick`` takes a sample of the long sweeps. ``MxforgeError`` if a build or a piece failed, when the others are done.
    """
    console = console or Console()
    if not console.is_terminal:
        # Files and pipes have no edge to wrap at.
        console.width = max(console.width, 100)
    if scheduler is None:
        verilator.runtime(build_dir)
    chosen = [sweep for sweep in sweeps(quick) if not only or any(word in str(sweep) for word in only)]
    if not chosen:
        raise MxforgeError(f"only must be part of a sweep's name, such as '{sweeps()[0]}' or 'scale_select', "
                           f"not {' or '.join(map(repr, only))}")

    ledger = Path(build_dir) / "exhaustive" / "done.json"
    ledger.parent.mkdir(parents=True, exist_ok=True)
    done = _read(ledger)
    results = {str(sweep): Result() for sweep in chosen}
    failures = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())
    with Workers(jobs, scheduler) as workers, Progress(*columns, console=console) as progress:
        there = workers.build_dir(build_dir)
        # Sweeps of one Verilog share its build.
        units = {_unit(sweep): sweep for sweep in chosen}
        work = [Job(name=unit, function=_build, arguments={"sweep": sweep, "build_dir": there}) for unit, sweep in units.items()]
        builds = {job.name: outcome for job, outcome in progress.track(workers.run(work), total=len(work), description="building")}
        left = []
        for sweep in chosen:
            if isinstance(build := builds[_unit(sweep)], Failure):
                failures.append(f"{sweep}: {build.log}")
                continue
            text, manifest = build
            for start, stop in _pieces(sweep):
                key = _key(text, sweep, start, stop)
                if key in done:
                    results[str(sweep)].add(Result(**done[key]))
                else:
                    left.append(Job(name=key, function=_compare, arguments={
                        "sweep": sweep, "text": text, "manifest": manifest, "build_dir": there, "start": start, "stop": stop}))
        if any(result.values for result in results.values()):
            console.print(f"{sum(result.values for result in results.values()):,} values were compared before")

        total = sum(job.arguments["sweep"].values(job.arguments["stop"] - job.arguments["start"]) for job in left)
        task = progress.add_task("playing (millions)", total=total // 1_000_000)
        played = 0
        for job, result in workers.run(left):
            sweep = str(job.arguments["sweep"])
            if isinstance(result, Failure):
                failures.append(f"{sweep}: {result.log}")
                continue
            results[sweep].add(result)
            played += result.values
            progress.update(task, completed=played // 1_000_000)
            if not result.mismatches:
                done[job.name] = asdict(result)
                with replacing(ledger) as file:
                    file.write(json.dumps(done).encode())
    _print(console, results, quick)
    if failures:
        raise MxforgeError(f"{len(failures)} builds or pieces failed, first {failures[0]}")
    return results


def _read(ledger):
    """What the ledger remembers."""
    if not ledger.exists():
        return {}
    try:
        done = json.loads(ledger.read_text())
        for facts in done.values():
            Result(**facts)
    except (ValueError, AttributeError, TypeError) as error:
        raise MxforgeError(f"{ledger} is damaged; without it, all is compared anew") from error
    return done


def _print(console, results, quick):
    table = Table(title="A sample of the inputs against golden" if quick else "All inputs against golden")
    table.add_column("sweep")
    for heading in ("values", "mismatches", "seconds"):
        table.add_column(heading, justify="right")
    total = Result()
    for name, result in results.items():
        table.add_row(name, f"{result.values:,}", f"{result.mismatches:,}", f"{result.seconds:.0f}",
                      style="red" if result.mismatches else None)
        total.add(result)
    table.add_section()
    table.add_row(f"{len(results)} sweeps", f"{total.values:,}", f"{total.mismatches:,}", f"{total.seconds:.0f}")
    console.print(table)
    for example in total.examples[:20]:
        console.print(example, style="red", soft_wrap=True, highlight=False)


def _pieces(sweep):
    rows = max(1, PIECE // sweep.lanes)
    return [(start, min(start + rows, sweep.rows)) for start in range(0, sweep.rows, rows)]


@functools.cache
def _golden(unit):
    """Source of a unit's golden model and of all that it imports."""
    sources = {}
    wanted = [unit]
    for name in wanted:
        if name not in sources:
            sources[name] = Path(mxgolden.__file__).with_name(f"{name}.py").read_text()
            wanted += re.findall(r"^from \.(\w+) import", sources[name], re.M)
    return "\0".join(sources.values())


def _key(text, sweep, start, stop):
    parts = text, _golden(sweep.unit), repr(sweep)
    return f"{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:16]} {start} {stop}"


def _unit(sweep):
    return repr((sweep.unit, sweep.parameters))


def _build(sweep, build_dir):
    """A job: Verilog and manifest of the sweep's unit, which it leaves built."""
    text, manifest = emit.emit(sweep.component(), sweep.unit)
    player.build(text, manifest, own_build_dir(build_dir))
    return text, manifest


def _compare(sweep, text, manifest, build_dir, start, stop):
    """A job: the `Result` of rows ``start`` to ``stop``."""
    began = time.perf_counter()
    unit = player.build(text, manifest, own_build_dir(build_dir))
    golden = importlib.import_module(f"mxgolden.{sweep.unit}")
    result = Result()
    row = start
    for got in sweep.play(unit, start, stop):
        count = len(next(iter(got.values())))
        inputs = sweep.inputs(row, row + count)
        for name, wanted in golden.expected(manifest["parameters"], inputs).items():
            result.values += wanted.size
            if np.array_equal(got[name], wanted):
                continue
            wrong = np.argwhere(got[name] != wanted)
            result.mismatches += len(wrong)
            for at in wrong[:3 - len(result.examples)]:
                result.examples.append(_words(sweep, inputs, name, got[name], wanted, tuple(at)))
        row += count
    if row != stop:
        raise player.ProtocolError(f"{row - start} of {stop - start} rows of {sweep} came")
    result.seconds = time.perf_counter() - began
    return result


def _words(sweep, inputs, name, got, wanted, at):
    fed = [f"{field} {int(array[at if array.ndim > 1 else at[0]]):#x}" for field, array in inputs.items()]
    return f"{sweep}: {', '.join(fed)} in lane {at[-1]} gave {name} {int(got[at]):#x}, golden says {int(wanted[at]):#x}"
