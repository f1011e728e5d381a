# amaranth: UnusedElaboratable=no
"""Fixtures that put a unit through Verilator, and a summary of what was verified."""
import importlib
import inspect
import json
import signal
from collections import Counter, defaultdict
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
SIM_BUILD = ROOT / "sim_build"
# Where the whole summary goes; the terminal gets a line a unit.
SUMMARY = SIM_BUILD / "verified.txt"


def pytest_configure():
    # Run in the background by a shell without job control, the tests would ignore it, and so would each process that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def verified(request):
    """``verified(unit, **counts)``: what this test verified of a unit, for the summary, if it passes."""
    def record(unit, **counts):
        request.node.user_properties.append(("verified", {"unit": unit} | counts))
    return record


@pytest.fixture
def simulate(request, verified):
    """``simulate(component, name)``: emit, build once, and run the benches of ``mxbench.bench`` (of ``mxbench.axi_stream``, if
    it is one) and the cocotb tests of the calling test's own module.
    """
    from emitted import emitted

    from mxbench.runner import run as run_benches

    own = [request.module.__name__] if "@cocotb." in inspect.getsource(request.module) else []

    def run(component, name, *, blocks=None, **style):
        text, manifest = emitted(component, name, **style)
        modules = ["mxbench.axi_stream" if manifest["axi"] else "mxbench.bench", *own]
        run_dir = SIM_BUILD / "runs" / f"{request.module.__name__}-{request.node.name}"
        run_dir.mkdir(parents=True, exist_ok=True)
        verilog, contract, log = run_dir / f"{name}.v", run_dir / "manifest.json", run_dir / "sim.log"
        verilog.write_text(text)
        contract.write_text(json.dumps(manifest, indent=2))
        count, failed = run_benches(verilog, contract, modules, SIM_BUILD, log_file=log,
                                    extra_env={"MXFORGE_BLOCKS": str(blocks)} if blocks else None)
        assert failed == 0, f"{failed} of {count} cocotb tests failed, see {log}"
        verified(manifest["unit"], benches=count, latencies=1)

    return run


@pytest.fixture(scope="session")
def sim_build():
    """The folder of everything that is built."""
    return SIM_BUILD


@pytest.fixture
def mxforge(tmp_path, monkeypatch, capfd, sim_build):
    """``mxforge(*arguments)``: status, standard output and error, in an empty directory."""
    from mxforge import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MXFORGE_BUILD_DIR", str(sim_build))

    def run(*arguments):
        status = cli.main([str(argument) for argument in arguments])
        return status, *capfd.readouterr()
    return run


@pytest.fixture
def refused(mxforge, tmp_path):
    """``refused(*arguments, answer=...)``: the command line says one line that starts so, with status 2, and changes no file."""
    def state():
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    def run(*arguments, answer):
        before = state()
        status, out, error = mxforge(*arguments)
        assert (status, out) == (2, "")
        assert error.startswith(f"mxforge: {answer}") and error.count("\n") == 1, error
        assert state() == before
    return run


@pytest.fixture
def play(sim_build):
    """``play(component, name, inputs)``: the outputs of the emitted Verilog for whole arrays, by the C++ player."""
    from emitted import emitted

    from mxforge.flow import player

    def run(component, name, inputs, **options):
        return player.build(*emitted(component, name), sim_build).play(inputs, **options)

    return run


def _unit_of(core):
    return type(core).__module__.rpartition(".")[2]


@pytest.fixture
def verify(sim_build, verified):
    """``verify(core, blocks)``: so many blocks of the unit's stimulus through its Verilog by the C++ player, between streams,
    with ``axi`` those of AXI, or, without ``streamed``, bare; compares with golden, and returns how often each class of the
    stimulus was hit.

    At full speed latency and interval must be the declared ones; ``stalls`` is a seed for idle inputs and back-pressure.
    ``mixed`` times more blocks are made of the stimulus by dealing each item's values anew among the rows (but for marks,
    whose order has a meaning).
    """
    from emitted import emitted

    from mxbench.bench import compare
    from mxbench.manifest import bounds, with_marks
    from mxforge.axi_stream import AxiStream
    from mxforge.flow import player
    from mxforge.pipeline import streamed as between_streams

    def run(core, blocks, *, streamed=True, axi=False, stalls=None, mixed=0):
        unit = _unit_of(core)
        stimulus = importlib.import_module(f"mxbench.stimulus.{unit}")
        golden = importlib.import_module(f"mxgolden.{unit}")
        parameters = asdict(core.parameters)
        rng = np.random.default_rng(blocks)
        first = stimulus.blocks(parameters, blocks, rng)
        text, manifest = emitted(AxiStream(core) if axi else between_streams(core) if streamed else core, unit)
        machine = player.build(text, manifest, sim_build)
        hits = Counter()
        for n in range(1 + mixed):
            inputs = first if n == 0 else {
                name: array if name in ("first", "last") else rng.permuted(array, axis=0) for name, array in first.items()}
            expected = golden.expected(parameters, inputs)
            if n == 0:
                hits = stimulus.classes(parameters, inputs, expected)
            if axi:
                inputs, expected = with_marks(manifest, inputs, expected, rng)
            got = machine.play(inputs, stalls=stalls)
            compare(got, expected, inputs)
            # Where an input doesn't always give an output, it is the last one's that is measured.
            is_measured = stalls is None and ("last" not in inputs or bool(inputs["last"][-1]))
            if is_measured:
                least, most = bounds(manifest["latency"])
                assert least <= machine.last.latency <= most
                least, most = bounds(manifest["interval"])
                assert least <= machine.last.interval <= most
            verified(unit, configuration=repr(core.parameters), blocks=blocks, values=sum(array.size for array in got.values()),
                     latencies=int(n == 0 and is_measured), classes=hits if n == 0 else {},
                     rate=("full" if stalls is None else "stalled", machine.last.input_rate))
        return hits

    return run


@pytest.fixture
def verify_together(play, verified):
    """``verify_together(units, blocks)``: bare cores, by name, which take the same input, in one model; each one's stimulus in
    turn, ``blocks`` of it, through all of them. ``stalls`` is a seed for idle inputs.
    """
    from side_by_side import SideBySide

    from mxbench.bench import compare

    def run(units, blocks, stalls=None):
        unit = _unit_of(next(iter(units.values())))
        stimulus = importlib.import_module(f"mxbench.stimulus.{unit}")
        golden = importlib.import_module(f"mxgolden.{unit}")
        pieces = [stimulus.blocks(asdict(core.parameters), blocks, np.random.default_rng(n))
                  for n, core in enumerate(units.values())]
        widest = max(pieces, key=len)
        inputs = {name: np.concatenate([piece.get(name, widest[name]) for piece in pieces]) for name in widest}
        expected = {}
        for name, core in units.items():
            fields = [field for field, _ in core.signature.members["i"].shape]
            parameters = asdict(core.parameters)
            outputs = golden.expected(parameters, {field: inputs[field] for field in fields})
            expected |= {SideBySide.key(name, field, core): array for field, array in outputs.items()}
            verified(unit, configuration=repr(core.parameters), blocks=len(inputs[fields[0]]),
                     values=sum(array.size for array in outputs.values()),
                     classes=stimulus.classes(parameters, {field: inputs[field] for field in fields}, outputs))
        compare(play(SideBySide(units), unit, inputs, stalls=stalls), expected, inputs)

    return run


def _facts(reports):
    """By unit: sums of what `verified` recorded, of passed tests."""
    units = defaultdict(lambda: {"counts": Counter(), "classes": Counter(), "configurations": set(), "exhausted": [],
                                 "measured": [], "full": [], "stalled": []})
    for report in reports:
        for name, fact in getattr(report, "user_properties", ()):
            if name != "verified":
                continue
            unit = units[fact["unit"]]
            for count in "benches", "latencies", "blocks", "values":
                unit["counts"][count] += fact.get(count, 0)
            unit["classes"].update(fact.get("classes", {}))
            if "configuration" in fact:
                unit["configurations"].add(fact["configuration"])
            if "exhausted" in fact:
                unit["exhausted"].append((fact["exhausted"], fact["values"]))
            if "measured" in fact:
                unit["measured"].append(fact["measured"])
            if "rate" in fact:
                kind, rate = fact["rate"]
                unit[kind].append(rate)
    return dict(sorted(units.items()))


def _range(rates):
    low, high = (f"{end(rates, default=0):.2f}" for end in (min, max))
    return high if low == high else f"{low}-{high}"


def pytest_terminal_summary(terminalreporter):
    """What was verified: a line a unit, and in a file each boundary class and how often it was hit."""
    units = _facts(terminalreporter.stats.get("passed", ()))
    if not units:
        return
    say = terminalreporter.write_line
    terminalreporter.section("verified against golden, 0 bits differ")
    say("Beats a cycle, at full speed and under stalls on both sides, are of the input.")
    say(f"{'unit':18}{'configurations':>15}{'blocks':>13}{'values':>15}{'latency measured':>18}{'cocotb tests':>14}{'classes':>9}"
        f"{'beats a cycle':>15}{'stalled':>11}")
    lines = []
    for name, facts in units.items():
        counts = facts["counts"]
        full, stalled = _range(facts["full"]), _range(facts["stalled"])
        say(f"{name:18}{len(facts['configurations']):15,}{counts['blocks']:13,}{counts['values']:15,}{counts['latencies']:18,}"
            f"{counts['benches']:14,}{len(facts['classes']):9}{full:>15}{stalled:>11}")
        lines += [f"{name}: {counts['blocks']:,} blocks of {len(facts['configurations'])} configurations, {counts['values']:,} "
                  f"values compared, 0 differ; latency measured as declared in {counts['latencies']} plays and benches; input "
                  f"beats a cycle {full} at full speed, {stalled} with stalls"]
        lines += [f"    exhausted: {what}, {values:,} values" for what, values in sorted(facts["exhausted"])]
        lines += [f"    measured: {what}" for what in sorted(facts["measured"])]
        lines += [f"{hits:12,} x {what}" for what, hits in facts["classes"].items()]
    SUMMARY.parent.mkdir(exist_ok=True)
    SUMMARY.write_text("\n".join(lines) + "\n")
    say(f"Each boundary class and how often it was hit: {SUMMARY.relative_to(ROOT)}")
