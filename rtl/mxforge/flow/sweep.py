"""What a unit's parameters trade: area, speed, latency and error over their values, as a table, as files and as a picture."""
import csv
import io
import itertools
import json
import math
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

import mxgolden

from .. import __version__, catalog
from ..emit import extent
from ..errors import MxforgeError, nearest
from . import synth
from .files import check_folder, replacing

__all__ = ["Result", "draw", "points", "run", "sqnr", "values_of"]

_STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "mxforge", "font.size": 9.5, "axes.spines.top": False, "axes.spines.right": False,
    "axes.axisbelow": True, "axes.grid": True, "grid.color": "#dddddd", "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
# What is drawn upwards, for each target.
_AREAS = {"ecp5": "lut4_equivalents", "ice40": "luts", "xc7": "luts", "gates": "nand2"}
# A panel with more points names the ends of its lines only.
_NAMED = 24
# Values of the sample in a row, and rows: whole blocks of any size.
_SAMPLE = 64, 1024


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a sweep found: a table, lines for people, how many points could be measured."""
    headings: list
    rows: list
    notes: list
    worked: int


def values_of(text, unit):
    """``(parameter, values)`` of ``text``, PARAMETER=VALUES: values with commas between them, of integers also FIRST..LAST."""
    name, is_given, listed = text.partition("=")
    described = {field.name: field for field in fields(catalog.UNITS[unit].Parameters)}
    name = name.replace("-", "_")
    if name not in described:
        hint = nearest(name, described, f"it has {', '.join(described)}")
        raise MxforgeError(f"--vary must name a parameter of {unit}, not {name!r}; {hint}")
    kind = described[name].metadata["kind"]
    example = {int: "1,2,4 or 0..4", bool: "yes,no", str: ",".join(described[name].metadata.get("options", ()))}[kind]
    values = []
    for word in listed.split(","):
        bounds = re.fullmatch(r"(\d+)\.\.(\d+)", word)
        if kind is int and bounds and int(bounds[1]) <= int(bounds[2]):
            values += range(int(bounds[1]), int(bounds[2]) + 1)
        elif kind is int and re.fullmatch(r"\d+", word):
            values.append(int(word))
        elif kind is bool and word in ("yes", "no"):
            values.append(word == "yes")
        elif kind is str and word in described[name].metadata["options"]:
            values.append(word)
        else:
            raise MxforgeError(f"--vary {name}{is_given}{listed} has {word!r}; write values as {name}={example}")
    return name, list(dict.fromkeys(values))


def points(entry, varied):
    """``(points, left_out)``: the possible combinations of ``{parameter: values}`` put over an entry's parameters, as
    ``(combination, entry)``, and the impossible ones, as ``(combination, why)``.
    """
    possible, left_out = [], []
    for values in itertools.product(*varied.values()):
        combination = dict(zip(varied, values, strict=True))
        parameters = entry.parameters | combination
        try:
            catalog.UNITS[entry.unit].Parameters(**parameters)
        except (TypeError, ValueError) as error:
            left_out.append((combination, str(error)))
        else:
            possible.append((combination, replace(entry, parameters=parameters)))
    return possible, left_out


def sqnr(unit, parameters):
    """Signal to quantization noise in dB of what a unit makes of normal values, by golden; None of units that lose nothing.

    The same values each time. Of units of products it is that of the dot products, quantized by rceil.
    """
    p = catalog.UNITS[unit].Parameters(**parameters)
    rng = np.random.default_rng(0)
    values = rng.standard_normal(_SAMPLE, dtype=np.float32)
    if unit == "dequantizer":
        scales, codes = mxgolden.quantize(values, element=p.element)
        return _sqnr(values, mxgolden.dequantize(codes, scales, p.element, p.target, overflow=p.overflow), p.target)
    if unit in ("quantizer", "dual_quantizer"):
        facts = {name: getattr(p, name) for name in ("source", "element", "block_size", "scale_rule", "nan_policy", "rounding",
                                                     "overflow")}
        random_bits = rng.integers(0, 1 << 16, _SAMPLE, dtype=np.uint16) if p.rounding == "stochastic" else None
        source = values if p.source == "fp32" else mxgolden.encode(values.astype(np.float64), p.source)
        scales, codes = mxgolden.quantize(source, **facts, random_bits=random_bits)
        return _sqnr(values, mxgolden.dequantize(codes, scales, p.element, block_size=p.block_size), "fp32")
    if unit in ("scaled_dot", "dot_accumulator", "matmul_tile"):
        columns = p.block_size if unit == "scaled_dot" else _SAMPLE[1]
        pairs = values.reshape(2, -1, columns)
        (a_scales, a_codes), (b_scales, b_codes) = (
            mxgolden.quantize(side, element=element, block_size=p.block_size)
            for side, element in zip(pairs, (p.a_element, p.b_element), strict=True))
        dots = mxgolden.dot(a_codes, a_scales, b_codes, b_scales, a_element=p.a_element, b_element=p.b_element,
                            accumulation=p.accumulation, block_size=p.block_size, target=p.target)
        return _sqnr((pairs[0].astype(np.float64) * pairs[1]).sum(axis=-1), dots, p.target)
    return None


def _sqnr(exact, bits, wide):
    return float(mxgolden.sqnr(exact.astype(np.float64), mxgolden.decode(bits, wide)))


def run(entry, varied, output, targets, build_dir, *, luts_only=False, seeds=(), workers=None, progress=None):
    """Measure ``entry`` over all combinations of ``varied`` (texts, as `values_of` takes them) on ``targets``, and write
    ``results.json``, ``results.csv`` and ``sweep.svg`` into the folder ``output``; a `Result`.

    ``seeds``, ``luts_only``, ``workers``, ``progress``: as of `synth.measure`. ``MxforgeError`` for what the user can mend.
    """
    output = Path(output)
    check_folder(output)
    named = [values_of(text, entry.unit) for text in varied]
    varied = dict(named)
    if len(varied) < len(named):
        raise MxforgeError("--vary must name each parameter once")
    possible, left_out = points(entry, varied)
    if not possible:
        raise MxforgeError(f"no combination is possible: {left_out[0][1]}")
    reports = synth.measure([one for _, one in possible], targets, build_dir, luts_only=luts_only, seeds=seeds, workers=workers,
                            progress=progress)
    for (combination, one), report in zip(possible, reports, strict=True):
        report |= {"varied": combination, "sqnr": sqnr(one.unit, one.parameters)}
    facts = {"mxforge": __version__, "unit": entry.unit, "ports": entry.ports, "varied": varied, "targets": list(targets),
             "luts_only": luts_only, "seeds": list(seeds), "points": reports,
             "left_out": [{"varied": combination, "why": why} for combination, why in left_out]}
    output.mkdir(parents=True, exist_ok=True)
    for name, content in ("results.json", json.dumps(facts, indent=1)), ("results.csv", _csv(facts)), ("sweep.svg", draw(facts)):
        with replacing(output / name) as file:
            file.write(content.encode())

    headings, rows = synth.summary(reports)
    has_sqnr = any(report["sqnr"] is not None for report in reports)
    keys = [(report, target) for report in reports for target in report["targets"]]
    rows = [[*map(_word, report["varied"].values()), str(extent(report["latency"])), *row,
             *([f"{report['sqnr']:.2f}"] if has_sqnr else [])]
            for (report, _), row in zip(keys, rows, strict=True)]
    failed = [(report, target) for report, target in keys if report["targets"][target]["error"]]
    notes = [*(f"Left out: {_words(combination)}: {why}" for combination, why in left_out),
             *(f"Failed: {_words(report['varied'])}, {target}: {report['targets'][target]['error']}" for report, target in failed),
             f"{output}: results.json, results.csv, sweep.svg"]
    return Result(headings=[*varied, "latency", *headings, *(["SQNR, dB"] if has_sqnr else [])], rows=rows, notes=notes,
                  worked=sum(report["targets"][target]["area"] is not None for report, target in keys))


def _word(value):
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _words(combination):
    return ", ".join(f"{name} {_word(value)}" for name, value in combination.items())


def _csv(facts):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*facts["varied"], "mapped_to", "latency", "interval", *synth.COLUMNS, "fmax_median", "fmax_min", "fmax_max",
                     "sqnr", "verilog_sha256", "error"])
    for report in facts["points"]:
        for target, cost in report["targets"].items():
            area, speed = cost["area"] or {}, cost["fmax"] or {}
            writer.writerow([
                *map(_word, report["varied"].values()), target, extent(report["latency"]), extent(report["interval"]),
                *(area.get(name) for name in synth.COLUMNS), *(speed.get(name) for name in ("median", "min", "max")),
                report["sqnr"], report["verilog_sha256"], cost["error"]])
    return text.getvalue()


def _measures(facts, target, along):
    """What the area of a target is drawn against: ``{heading: values}``, one for each point, of what differs among them."""
    points = facts["points"]
    speeds = [point["targets"][target]["fmax"] for point in points]
    found = {along: [point["varied"][along] for point in points],
             "Fmax, MHz (median of seeds)": [speed and speed["median"] for speed in speeds],
             "latency, cycles": [np.max(point["latency"]) for point in points],
             "SQNR, dB": [point["sqnr"] for point in points]}
    return {heading: values for heading, values in found.items() if heading == along or len(set(values) - {None}) > 1}


def draw(facts):
    """The picture of a sweep's results, SVG: for each target its area against the first-named parameter of most values, Fmax,
    latency and SQNR, where they differ. Points that differ in that parameter alone are one line.
    """
    along = max(facts["varied"], key=lambda name: len(facts["varied"][name]))
    panels = {target: _measures(facts, target, along) for target in facts["targets"]}
    with matplotlib.rc_context(_STYLE):
        columns = max(map(len, panels.values()))
        figure = Figure(figsize=(3.6 * columns + 1.6, 3.2 * len(panels) + 0.5))
        grid = figure.subplots(len(panels), columns, squeeze=False, sharey="row")
        for row, (target, measures) in zip(grid, panels.items(), strict=True):
            for axes in row[len(measures):]:
                axes.set_visible(False)
            for axes, (heading, values) in zip(row, measures.items(), strict=False):
                _panel(axes, facts, target, along, heading, values)
            row[0].set_ylabel(f"{target}: {synth.COLUMNS[_AREAS[target]]}")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        if len(labels) > 1:
            figure.legend(handles, labels, loc="outside right upper")
        figure.suptitle(f"{facts['unit']}, {facts['ports']}: labels are {along}", x=0.01, ha="left", fontsize=10.5)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _panel(axes, facts, target, along, heading, values):
    lines = {}
    for report, x in zip(facts["points"], values, strict=True):
        area = report["targets"][target]["area"]
        if x is None or area is None:
            continue
        other = _words({name: value for name, value in report["varied"].items() if name != along})
        lines.setdefault(other, []).append((x if heading != along else _place(facts, along, x), area[_AREAS[target]],
                                            _word(report["varied"][along])))
    is_named = sum(map(len, lines.values())) <= _NAMED
    for other, line in lines.items():
        axes.plot([x for x, _, _ in line], [y for _, y, _ in line], marker="o", markersize=4, linewidth=1.2, label=other)
        for n, (x, y, word) in enumerate(line):
            if heading != along and (is_named or n in (0, len(line) - 1)):
                axes.annotate(word, (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8)
    axes.set_xlabel(heading)
    areas = [y for line in lines.values() for _, y, _ in line]
    if areas and max(areas) > 20 * max(1, min(areas)):
        axes.set_yscale("log")
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    if heading == along:
        _axis_of_parameter(axes, [value for value in facts["varied"][along] if value in values], facts["varied"][along])
    elif heading.startswith("latency"):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _is_number(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _place(facts, along, value):
    """Where a parameter's value is drawn: numbers at themselves, names one after the other."""
    return value if _is_number(value) else facts["varied"][along].index(value)


def _axis_of_parameter(axes, values, varied):
    if not all(map(_is_number, values)):
        axes.set_xticks([varied.index(value) for value in values], map(_word, values))
        return
    # Powers of two, as lanes are.
    if min(values) > 0 and max(values) >= 8 * min(values) and all(math.log2(value).is_integer() for value in values):
        axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(values), [str(value) for value in sorted(values)])
    axes.xaxis.set_minor_locator(NullLocator())
