"""What the measured figures say: tables and sentences for README, docs and the report, all from the one file of them."""
import json
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path

import numpy as np

__all__ = ["SCALES", "SERIES", "TABLES", "WORDS", "document", "fit", "series"]

# What stands beside the catalogue's entries, (LUT4, NAND2) each: others' designs; what verified sketches reached, LUT4 and NAND2 by
# different ones; what is aimed at; where the floor seems to be. Others' figures, here and in `_PEERS`, are cited: they were taken
# once of their sources, with Yosys 0.70 in the same flow, and nothing here measures them again.
_BESIDE = {
    "dot32_e4m3": {"peer": "MX-for-FPGA", "others": (7938, 23300), "sketch": (6191, 25200), "target": (6000, 24000),
                   "bound": (5650, 21000)},
    "dot8_e4m3_c": {"peer": "MXDOTP's algorithm", "others": (4572, 12300), "sketch": (None, None), "target": (2800, 10000),
                    "bound": (None, None)},
    "quantize32_bf16": {"peer": "MX-for-FPGA", "others": (6848, 18800), "sketch": (3082, 7800), "target": (3000, 7600),
                        "bound": (2850, 7300)},
    "dequantize32_fp32": {"peer": "RedMulE-MX, to FP16", "others": (2128, 3900), "sketch": (2136, 5800), "target": (2050, 5600),
                          "bound": (1900, None)},
    "dequantize1_fp32": {"peer": "", "others": (None, None), "sketch": (84, 230), "target": (80, None), "bound": (None, None)},
    "fp32_multiplier": {"peer": "a plain one", "others": (1699, 6100), "sketch": (None, None), "target": (None, None),
                        "bound": (None, None)},
}
# How many times `dequantize1_fp32` the multiplier is aimed at being, at least.
_TIMES = 25
# Others that are pipelined: by the unit that they are like, what it is, MHz, and the LUT4 that it is taken to have, as above.
_PEERS = {"quantizer": ("a quantizer of 5 stages", 63.5, _BESIDE["quantize32_bf16"]["others"][0]),
          "scaled_dot": ("a dot product", 34.7, _BESIDE["dot32_e4m3"]["others"][0])}
# What entries that are pipelined throughout aim at, MHz at least: by their ports, or those with the unit; and how many times the
# blocks/s per LUT4 of others.
_AIMED = {"streams": 200, "bare": 220, "bare scaled_dot": 200}
_AIMED_TIMES = 4
# The dequantizers in pairs of lanes, and the multiplier of what comes.
_CONTRAST = {"dequantize1_fp32": "E8M0, 1 lane", "tensor_dequantizer_1": "FP32, 1 lane",
             "fp32_multiplier": "any FP32 by any, 1 lane", "dequantize32_fp32": "E8M0, 32 lanes",
             "tensor_dequantizer_32": "FP32, 32 lanes"}
_GIVEN = {"e8m0": "E8M0 for each block", "fp32": "FP32 for each block", "tensor": "FP32 for each tensor"}
# Ways to keep scales: by key of the figures, words, values a scale, bytes a scale.
SCALES = {"e8m0_32": ("E8M0, a byte for 32 values", 32, 1), "fp32_32": ("FP32, for 32 values", 32, 4),
          "fp32_128": ("FP32, for 128 values", 128, 4), "fp32_tensor": ("FP32, for a tensor", None, 4)}
# What is scaled: words, by what, as how many blocks each of a unit's is counted (of other sizes as parts of 32 values), and the
# beats a block that points of the line have at least: a quantizer of whole blocks is another circuit, and a dot product of these
# adds nothing over beats.
SERIES = {
    "dequantizer_lanes": ("`dequantizer`, lanes", "lanes", lambda lanes: lanes / 32, 1),
    "quantizer_lanes": ("`quantizer`, BF16, blocks of 32, lanes", "lanes", lambda _: 1, 2),
    "scaled_dot_lanes": ("`scaled_dot`, blocks of 32, no addend, lanes", "lanes", lambda _: 1, 1),
    "quantizer_block": ("`quantizer`, BF16, 8 lanes, block size", "block size", lambda size: size / 32, 2),
    "scaled_dot_block": ("`scaled_dot`, 8 lanes, no addend, block size", "block size", lambda size: size / 32, 2),
    "matmul_tile_units": ("`matmul_tile`, blocks of 8, 8 lanes, dot units", "dot units", lambda units: units, 1),
}
# Points this near to the line are said to lie on it, in per cent.
_NEAR = 5


def document():
    """The figures that this mxforge came with; none where they are missing."""
    # A wheel has a copy within; a clone keeps it with the docs.
    for path in resources.files(__package__).joinpath("measured.json"), Path(__file__).parents[3] / "docs" / "measured.json":
        if path.is_file():
            return json.loads(path.read_text())
    return {}


def _value(figures, name, *path):
    """A value of a figure, or None where it wasn't measured."""
    found = figures.get(name, {}).get("values")
    for key in path:
        found = None if found is None else found.get(key)
    return found


def _areas(figures, name):
    """LUT4 and NAND2."""
    return [_value(figures, f"area/{name}", *path) for path in (("ecp5", "lut4_equivalents"), ("gates", "nand2"))]


def _shown(value, digits=0):
    return "-" if value is None else f"{value:,.{digits}f}"


def _percent(share):
    """Of what is told in per cent, two figures or more."""
    return f"{share:,.1f}" if share >= 10 else f"{share:.2g}"


def _ratio(larger, smaller):
    return "-" if None in (larger, smaller) else f"{larger / smaller:.1f}"


def _pair(pair):
    return " / ".join(_shown(value) for value in pair) if any(pair) else "-"


def _per_second(figures, subject):
    """Blocks a second at the median Fmax (of a unit without blocks: beats)."""
    megahertz = _value(figures, f"fmax/{subject}", "median")
    record = figures.get(f"fmax/{subject}")
    return None if megahertz is None else 1e6 * megahertz / record["beats"]["i"]


def _speed(figures, name):
    values = figures.get(name, {}).get("values")
    return "-" if values is None else f"{values['median']:.1f} ({values['min']:.1f} to {values['max']:.1f})"


def named(figures):
    """The entries that can be compared, beside others."""
    rows = []
    for name, beside in _BESIDE.items():
        depth = _value(figures, f"area/{name}", "ecp5", "depth"), _value(figures, f"area/{name}", "gates", "depth")
        rows.append([f"`{name}`", _pair(_areas(figures, name)), _pair(depth), f"{beside['peer']} {_pair(beside['others'])}".strip(),
                     *(_pair(beside[what]) for what in ("sketch", "target", "bound"))])
    return ["Entry", "LUT4 / NAND2", "Depth, cells", "Others' best", "Sketch", "Target", "Bound"], rows


def _aim(record):
    """The Fmax that an entry aims at."""
    return _AIMED.get(f"{record['ports']} {record['unit']}", _AIMED.get(record["ports"]))


def _fast(figures):
    """The entries that are pipelined throughout: names, with their records of area."""
    return {name.partition("/")[2]: record for name, record in figures.items() if fnmatchcase(name, "area/*_fast")}


def fast(figures):
    """The entries that are pipelined throughout."""
    rows = []
    for name, record in _fast(figures).items():
        luts = _value(figures, f"area/{name}", "ecp5", "lut4_equivalents")
        rate = _per_second(figures, name)
        rows.append([f"`{name}`", record["ports"], str(record["latency"]), _shown(luts),
                     _shown(_value(figures, f"area/{name}", "ecp5", "ffs")), _speed(figures, f"fmax/{name}"),
                     _shown(_aim(record)), "-" if rate is None else _shown(rate / luts)])
    return ["Entry", "Ports", "Latency", "LUT4", "FFs", "Fmax, MHz (of seeds)", "Target", "Blocks/s per LUT4"], rows


def peers(figures):
    """Others that are pipelined, and what is aimed at beside them."""
    rows = []
    for unit, (words, megahertz, luts) in _PEERS.items():
        rate = 1e6 * megahertz / luts
        rows.append([words, _shown(megahertz, 1), _shown(luts), _shown(rate), f"`{unit}`: {_shown(_AIMED_TIMES * rate)}"])
    return ["Others", "Fmax, MHz", "LUT4", "Blocks/s per LUT4", "Target"], rows


def contrast(figures):
    """What dequantizes by adding exponents beside what does by multiplying."""
    rows = []
    for name, words in _CONTRAST.items():
        with_dsps = _value(figures, f"dsp/{name}", "ecp5")
        rows.append([
            f"{words}: `{name}`" if name in _BESIDE else f"{words}: `tensor_dequantizer`",
            _shown(_value(figures, f"area/{name}", "ecp5", "lut4_equivalents")),
            "-" if with_dsps is None else f"{with_dsps['lut4_equivalents']:,} + {with_dsps['dsps']}",
            _shown(_value(figures, f"area/{name}", "gates", "nand2")),
            _pair((_value(figures, f"area/{name}", "ecp5", "depth"), _value(figures, f"area/{name}", "gates", "depth"))),
            _speed(figures, f"fmax/{name}"), _speed(figures, f"fmax/{name}_pipelined"),
            str(figures.get(f"fmax/{name}_pipelined", {}).get("latency", "-"))])
    return ["Scale, lanes: entry or unit", "LUT4, no DSPs", "LUT4 + DSPs", "NAND2", "Depth: cells / gates", "Fmax, combinational",
            "Fmax, pipelined", "its latency"], rows


def _toggles(figures, name, scale, what="toggles"):
    """A value."""
    found = _value(figures, f"activity/{name}", scale)
    return found and found[what] / (found["vectors"] * found["lanes"])


def activity(figures):
    """What switches when weights go through."""
    rows = []
    for name, words in _CONTRAST.items():
        for scale, given in _GIVEN.items():
            found = _value(figures, f"activity/{name}", scale)
            if found:
                rows.append([words, given, _shown(found["gates"]), f"{_toggles(figures, name, scale):.1f}",
                             f"{_toggles(figures, name, scale, 'driven'):.1f}"])
    return ["Scale, lanes", "Scales given", "Gates", "Toggles a value", "Toggles of pins a value"], rows


def scales(figures):
    """What scales take to be kept and moved."""
    values, taken = _value(figures, "accuracy/weights", "values"), _value(figures, "accuracy/weights", "scale_bytes")
    rows = []
    for key, (words, count, size) in SCALES.items():
        rows.append([words, "-" if taken is None else f"{taken[key]:,}", "-" if taken is None else f"{8 * taken[key] / values:.5f}",
                     "0" if count is None else f"{100 * size / count:.2f} %"])
    return ["Scales", "Bytes for the model", "Bits a value", "Beside the elements' bytes"], rows


def outliers(figures):
    """What is kept of the other values when one is raised."""
    rows = []
    for row in _value(figures, "accuracy/outliers", "rows") or []:
        rows.append([f"2^{row['octaves']}" if row["octaves"] else "1 (as it is)",
                     *(f"{row[scheme]['sqnr']:.2f}" for scheme in ("mx", "fp8")),
                     *(_percent(row[scheme]["zeroed"]) for scheme in ("mx", "fp8"))])
    return ["Largest value times", "SQNR, MXFP8", "SQNR, FP8", "To zero, MXFP8, %", "To zero, FP8, %"], rows


def summary(figures):
    """The claims in short: 32 lanes, E8M0 beside FP32."""
    mine, other, by_rows = "dequantize32_fp32", "tensor_dequantizer_32", "tensor_dequantizer_32_rows"

    def row(words, values, digits=0):
        return [words, *(_shown(value, digits) for value in values), _ratio(values[1], values[0])]

    rows = [row(words, [_value(figures, f"area/{name}", *path) for name in (mine, beside)]) for words, beside, path in (
        ("LUT4 (ECP5, no DSPs)", other, ("ecp5", "lut4_equivalents")),
        ("LUT4 (FP32: its smallest form, products as sums of rows)", by_rows, ("ecp5", "lut4_equivalents")),
        ("NAND2 equivalents", other, ("gates", "nand2")), ("NAND2 equivalents (likewise)", by_rows, ("gates", "nand2")),
        ("LUTs and carry cells on the longest path", other, ("ecp5", "depth")))]
    dsps = [_value(figures, f"dsp/{name}", "ecp5", "dsps") for name in (mine, other)]
    rows.append(["DSPs, where they may be used", *map(_shown, dsps), ""])
    for words, again, pair in (
            ("Fmax with all pipeline cuts, MHz (FP32: with DSPs)", "Latency then, cycles",
             (f"{mine}_pipelined", f"{other}_pipelined")),
            ("Fmax between streams, MHz (FP32: rows, no DSPs)", "Latency there, cycles",
             ("dequantizer_fast", "tensor_dequantizer_fast"))):
        speeds = [_value(figures, f"fmax/{name}", "median") for name in pair]
        rows.append([words, *(_shown(speed, 1) for speed in speeds), _ratio(*speeds[::-1])])
        rows.append(row(again, [figures.get(f"fmax/{name}", {}).get("latency") for name in pair]))
    rows.append(row("Gate outputs that toggle, a value",
                    [_toggles(figures, mine, "e8m0"), _toggles(figures, other, "fp32")], 1))
    rows.append(row("Bytes of scales for 32 values", [1, 4]))
    kept = [_value(figures, "accuracy/weights", scheme) for scheme in ("mx", "fp8")]
    if all(kept):
        nonzero = _value(figures, "accuracy/weights", "nonzero")
        rows.append(["SQNR of weights, dB (FP32: a scale a tensor)", *(f"{one['sqnr']:.2f}" for one in kept), ""])
        rows.append(["Of them flushed to zero, % (likewise)", *(_percent(100 * one["zeroed"] / nonzero) for one in kept),
                     _ratio(kept[1]["zeroed"], kept[0]["zeroed"])])
    return ["Scales of 32 lanes", "E8M0: exponents added", "FP32: a multiplier a lane", "times"], rows


def played(figures):
    """How fast the Verilog is simulated."""
    rows = [[f"`{name.partition('/')[2]}`", f"{record['values']['blocks_per_second']:,}"]
            for name, record in figures.items() if name.startswith("played/")]
    return ["Unit, 32 lanes", "Blocks a second"], rows


def series(figures, key):
    """Points of a series that were measured, by what is varied: ``[{x, luts, lut_rams, ffs, latency, fmax, rate, is_on_line}]``."""
    points, (_, _, blocks, least) = [], SERIES[key]
    for name, record in figures.items():
        subject = name.partition("/")[2]
        if name.startswith("area/") and subject.rpartition("_")[0] == key:
            x, rate, area = int(subject.rpartition("_")[2]), _per_second(figures, subject), record["values"]["ecp5"]
            points.append({"x": x, "luts": area["lut4_equivalents"], "lut_rams": area["lut_rams"], "ffs": area["ffs"],
                           "latency": record["latency"], "fmax": _value(figures, f"fmax/{subject}", "median"),
                           "rate": rate and rate * blocks(x), "is_on_line": record["beats"]["i"] >= least})
    return sorted(points, key=lambda point: point["x"])


def fit(points):
    """The straight line through the areas of those ``points`` that are of one circuit (``is_on_line``) by least squares:
    ``(at 0, a step, how far each is from it)``, the last as shares by ``x``. None if those are two or less.
    """
    points = [point for point in points if point["is_on_line"]]
    if len(points) < 3:
        return None
    x, luts = np.array([(point["x"], point["luts"]) for point in points], float).T
    slope, start = np.polyfit(x, luts, 1)
    off = (luts - (start + slope * x)) / luts
    return float(start), float(slope), {point["x"]: float(share) for point, share in zip(points, off, strict=True)}


def _scaled(key):
    by = SERIES[key][1]

    def table(figures):
        points = series(figures, key)
        line = fit(points)
        rows = []
        for point in points if line else ():
            luts, rate, share = point["luts"], point["rate"], line[2].get(point["x"])
            counts = (_shown(point[what]) for what in ("luts", "lut_rams", "ffs"))
            rows.append([str(point["x"]), str(point["latency"]), *counts,
                         "another circuit" if share is None else f"{round(100 * share, 1) + 0:+.1f} %",
                         _shown(luts / point["x"], 1), _shown(point["fmax"], 1), _shown(rate and rate / 1e6, 1),
                         _shown(rate and rate / luts)])
        return [by, "latency", "LUT4", "LUT RAMs", "FFs", "off the line", f"LUT4 / {by}", "Fmax, MHz", "M blocks/s",
                "blocks/s per LUT4"], rows
    table.__doc__ = f"Area, Fmax and throughput: {SERIES[key][0]}."
    return table


def fits(figures):
    """The lines."""
    rows = []
    for key, (words, by, *_) in SERIES.items():
        if line := fit(series(figures, key)):
            start, slope, off = line
            near = [str(x) for x, share in off.items() if abs(share) <= _NEAR / 100]
            rows.append([words, f"{start:,.0f} + {slope:,.1f} x {by}", ", ".join(map(str, off)),
                         f"{100 * max(map(abs, off.values())):.0f} %", ", ".join(near) or "none"])
    return ["Series", "LUT4", "fitted through", "furthest point off", f"points within {_NEAR} %"], rows


# Kinds of cells of each family, as nextpnr calls them.
_CELLS = {"ecp5": ("TRELLIS_COMB", "DP16KD", "MULT18X18D"), "ice40": ("ICESTORM_LC", "ICESTORM_RAM", "ICESTORM_DSP"),
          "gowin": ("LUT4", "BSRAM", "MULT18X18")}


def boards(figures):
    """What an accelerator takes of each board."""
    rows = []
    for name, record in figures.items():
        if not name.startswith("board/"):
            continue
        found = record["values"]
        units = "; ".join(" ".join([word, *(f"{option}={value}" for option, value in options.items())])
                          for word, options in found["units"].items())
        cells = []
        for kind in _CELLS[found["family"]]:
            used, there = found["utilization"].get(kind, (0, 0))
            cells.append(f"{used:,} ({100 * used / there:.0f} %)" if used else "0")
        rows.append([f"`{name.partition('/')[2]}`", found["device"], units, *cells, f"{found['clock_mhz']:.2f}",
                     f"{found['reached_mhz']:.1f}", f"{found['baud']:,}"])
    return ["Board", "Device", "Units", "LUTs", "Block RAMs", "DSPs", "Clock, MHz", "reached", "Link, baud"], rows


def board_words(figures):
    """The slowest path of each."""
    for name, record in figures.items():
        if name.startswith("board/"):
            yield f"{name.partition('/')[2]}: slowest {record['values']['critical_path']}"


TABLES = {"boards": boards, "named": named, "fast": fast, "peers": peers, "contrast": contrast, "activity": activity,
          "scales": scales, "outliers": outliers, "claims": summary, "fits": fits, "played": played,
          **{key: _scaled(key) for key in SERIES}}


def _held_to(value, target, what, is_least=False):
    """Whether ``value`` reaches its ``target``, the most or the least that it may be, and how far off it is."""
    off = _percent(100 * abs(value - target) / target)
    is_reached = value >= target if is_least else value <= target
    held = f"reached with {off} % to spare" if is_reached else f"missed by {off} %"
    return f"{_shown(value, 1 if is_least else 0)} {what}, the target of {_shown(target)} is {held}"


def named_words(figures):
    """Which targets the entries reach, and which they miss."""
    for name, beside in _BESIDE.items():
        said = [_held_to(value, target, unit) for value, target, unit in
                zip(_areas(figures, name), beside["target"], ("LUT4", "NAND2"), strict=True) if value and target]
        if said:
            yield f"`{name}`: {'; '.join(said)}."
    one = _areas(figures, "dequantize1_fp32")
    for name, words in (("fp32_multiplier", "`fp32_multiplier` beside `dequantize1_fp32`"),
                        ("fp32_multiplier_rows", "The same with `product` of `rows`, {}")):
        other = _areas(figures, name)
        if all(one + other):
            said = [_held_to(larger / smaller, _TIMES, f"times in {unit}", True)
                    for larger, smaller, unit in zip(other, one, ("LUT4", "NAND2"), strict=True)]
            yield f"{words.format(_pair(other))}: {'; '.join(said)}."


def fast_words(figures):
    """Which targets the entries that are pipelined throughout reach, and which they miss."""
    for name, record in _fast(figures).items():
        speed, target = _value(figures, f"fmax/{name}", "median"), _aim(record)
        if speed is None or target is None:
            continue
        said = [_held_to(speed, target, "MHz", True)]
        if record["unit"] in _PEERS:
            _, megahertz, luts = _PEERS[record["unit"]]
            times = _per_second(figures, name) / _areas(figures, name)[0] / (1e6 * megahertz / luts)
            said.append(_held_to(times, _AIMED_TIMES, "times others' blocks/s per LUT4", True))
        yield f"`{name}`: {'; '.join(said)}."
    left = [f"`{name}`" for name in _fast(figures) if f"fmax/{name}" not in figures]
    if left:
        yield f"Not placed and routed as they are now: {', '.join(left)}."


def scaling_words(figures):
    """What the lines have at 0, and what was measured of Fmax."""
    missing = []
    for key, (words, by, *_) in SERIES.items():
        points = series(figures, key)
        if line := fit(points):
            first, *_, last = (point for point in points if point["is_on_line"])
            if by == "block size":
                # Blocks of no size share nothing.
                yield (f"{words}: from {first['x']} to {last['x']} LUT4 go from {first['luts']:,} to {last['luts']:,} "
                       f"({100 * last['luts'] / first['luts'] - 100:+.0f} %).")
            else:
                yield f"{words}: at 0 the line has {100 * line[0] / first['luts']:.0f} % of the LUT4 at {first['x']}."
        placed = [point for point in points if point["fmax"]]
        if len(placed) > 1:
            first, last = placed[0], placed[-1]
            fmax, rate = (last["fmax"] / first["fmax"], last["rate"] / last["luts"] / (first["rate"] / first["luts"]))
            yield (f"{words}: from {first['x']} to {last['x']} Fmax goes from {first['fmax']:.1f} to {last['fmax']:.1f} MHz "
                   f"({100 * fmax - 100:+.0f} %), and blocks/s per LUT4 become {rate:.1f} times as many.")
        if unplaced := [str(point["x"]) for point in points if not point["fmax"]]:
            missing.append(f"{words} {', '.join(unplaced)}")
    if missing:
        yield f"Not measured is Fmax of {'; '.join(missing)}."


def contrast_words(figures):
    """How many times larger the multipliers are."""
    for mine, other, words in (
            ("dequantize1_fp32", "fp32_multiplier", "An FP32 multiplier is"),
            ("dequantize1_fp32", "fp32_multiplier_rows", "With its product as a sum of rows, the smallest without DSPs, it is"),
            ("dequantize1_fp32", "tensor_dequantizer_1", "A lane that multiplies elements by an FP32 scale is"),
            ("dequantize32_fp32", "tensor_dequantizer_32", "With 32 lanes, which share what is decoded of the scale, it is"),
            ("dequantize32_fp32", "tensor_dequantizer_32_rows",
             "With 32 lanes in its smallest form, sums of rows for the four bits of an element, it is")):
        ratios = [_ratio(larger, smaller) for larger, smaller in zip(_areas(figures, other), _areas(figures, mine), strict=True)]
        yield f"{words} {ratios[0]} times a lane that adds exponents in LUT4, {ratios[1]} times in NAND2."


def accuracy_words(figures):
    """What MXFP8 keeps of the weights, favourable or not."""
    found = _value(figures, "accuracy/weights")
    if found is None:
        return
    mx, fp8, better = found["mx"], found["fp8"], found["better"]
    yield (f"Weights: {found['source']}, {found['values']:,} values in {found['tensors']} tensors. The median of "
           f"{found['matrices']} matrices has an SQNR of {mx['sqnr']:.2f} dB with MXFP8 and {fp8['sqnr']:.2f} dB with one FP32 "
           f"scale a tensor; MXFP8 is better by more than {found['equal']} dB in {better['mx']}, worse in {better['fp8']}.")
    if better["mx"] <= better["fp8"]:
        yield "So MXFP8 is not the more precise of the two here: three mantissa bits decide the SQNR, and both have three."
    shares = [_percent(100 * one["zeroed"] / found["nonzero"]) for one in (mx, fp8)]
    yield (f"Flushed to zero: {shares[0]} % of the nonzero values with MXFP8 ({mx['zeroed']:,}), {shares[1]} % with one "
           f"scale a tensor ({fp8['zeroed']:,}).")


def outlier_words(figures):
    """Where one scale for a tensor breaks."""
    found = _value(figures, "accuracy/outliers")
    if found is None:
        return
    rows = found["rows"]
    broken = next((n for n, row in enumerate(rows) if n and row["fp8"]["sqnr"] < row["mx"]["sqnr"] - 3), None)
    yield (f"One value of {found['matrix']} ({found['source']}), its largest, is raised by powers of two; the table has what is "
           "kept of all others.")
    if broken is not None:
        mx, fp8 = rows[broken]["mx"], rows[broken]["fp8"]
        yield (f"Up to 2^{rows[broken - 1]['octaves']} E4M3's own exponents take it. At 2^{rows[broken]['octaves']} one scale for "
               f"the tensor leaves {fp8['sqnr']:.1f} dB and makes {_percent(fp8['zeroed'])} % zero; with MXFP8 only the block of "
               f"that value suffers, {mx['sqnr']:.1f} dB and {_percent(mx['zeroed'])} % in all.")
    ran = found["activations"]
    if ran:
        mx, fp8 = ran["mx"], ran["fp8"]
        yield (f"Activations of a sentence before the first feed-forward layer, the largest {ran['spread']:.0f} times their root "
               f"mean square: {mx['sqnr']:.2f} dB with MXFP8, {fp8['sqnr']:.2f} dB with one scale for all; "
               f"{_percent(mx['zeroed'])} % and {_percent(fp8['zeroed'])} % to zero.")


def _origins(*patterns):
    """How figures whose names match were made: commands, Verilog, tools."""
    def words(figures):
        for name, record in figures.items():
            if any(fnmatchcase(name, pattern) for pattern in patterns):
                verilog = f", Verilog {record['verilog_sha256'][:12]}" if "verilog_sha256" in record else ""
                tools = ", ".join(f"{tool} {version}" for tool, version in record["tools"].items())
                seeds = f", seeds {' '.join(map(str, record['seeds']))}" if "seeds" in record else ""
                yield f"{name}: `{record['command']}`{verilog}; {tools}{seeds}"
    return words


WORDS = {
    "board_words": board_words, "board_origins": _origins("board/*"),
    "named_words": named_words, "fast_words": fast_words, "scaling_words": scaling_words,
    "contrast_words": contrast_words, "accuracy_words": accuracy_words, "outlier_words": outlier_words,
    "cost_origins": _origins(*(f"area/{name}" for name in _BESIDE), "area/fp32_multiplier_rows", "area/*_fast", "fmax/*_fast"),
    "claims_origins": _origins("activity/*", "accuracy/*", "area/*_rows", *(
        made.format(name) for name in _CONTRAST for made in ("area/{}", "dsp/{}", "fmax/{}", "fmax/{}_pipelined"))),
    "scaling_origins": _origins(*(f"{kind}/{key}_*" for key in SERIES for kind in ("area", "fmax"))),
    "played_origins": _origins("played/*"),
}
