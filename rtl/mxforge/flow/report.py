"""The demo's results as one HTML page that needs nothing beside it, and as JSON."""
import io
import json
import math
import re
import statistics
from dataclasses import asdict
from importlib import resources
from pathlib import Path

import jinja2
import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from .. import __version__
from . import figures
from .files import replacing

__all__ = ["copies", "decibels", "findings", "percent", "projection", "write"]

# Drawn in colours that stand for the page's own, so that pictures follow light and dark.
_COLOURS = {"ink": "#010101", "muted": "#020202", "line": "#030303", "mx": "#040404", "fp8": "#050505", "page": "#060606"}
_STYLE = {
    "svg.fonttype": "none", "font.size": 9.5, "text.parse_math": False,
    "text.color": _COLOURS["ink"], "axes.labelcolor": _COLOURS["ink"], "axes.edgecolor": _COLOURS["muted"],
    "xtick.color": _COLOURS["muted"], "ytick.color": _COLOURS["muted"],
    "xtick.labelcolor": _COLOURS["ink"], "ytick.labelcolor": _COLOURS["ink"],
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8, "axes.axisbelow": True,
    "grid.color": _COLOURS["line"], "grid.linewidth": 0.8, "legend.frameon": False, "axes.titlesize": 10.5,
    "axes.titlelocation": "left", "figure.constrained_layout.use": True,
}
# Tensors in the picture of SQNR; the table has all.
_SHOWN = 48
# Differences below this many dB are called equal: the choice of the scale's binade alone moves SQNR by more.
_EQUAL = 0.1
_MX = {"color": _COLOURS["mx"], "marker": "o", "label": "MXFP8, a scale for 32 values"}
_FP8 = {"color": _COLOURS["fp8"], "marker": "s", "markerfacecolor": _COLOURS["page"], "label": "FP8, a scale for the tensor"}


def decibels(value):
    return "-" if math.isnan(value) else "exact" if math.isinf(value) else f"{value:.2f}"


def percent(part, whole):
    """A share in per cent, to two figures; none at all is a plain 0."""
    share = 100 * part / whole if whole else math.nan
    if math.isnan(share):
        return "-"
    digits = max(0, 1 - math.floor(math.log10(share))) if share else 0
    return f"{share:.{digits}f}"


def size(count):
    """Bytes in kB or MB."""
    return f"{count / 1e6:,.2f} MB" if count >= 1e6 else f"{count / 1e3:,.2f} kB" if count >= 1e3 else f"{count} bytes"


def count(number, noun):
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def breakable(name):
    """A dotted name that may be broken after its dots."""
    return Markup(".<wbr>").join(name.split("."))


def power(exponent):
    """A power of two in words."""
    return "2" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _matrices(results):
    """The tensors of two axes or more; where there are none, all."""
    return [tensor for tensor in results.tensors if len(tensor.shape) > 1] or results.tensors


def _comparable(tensors):
    return [tensor for tensor in tensors if math.isfinite(tensor.sqnr_mx) and math.isfinite(tensor.sqnr_fp8)]


def _copied(results, element):
    """The tensors with comparable `Copies` in ``element``."""
    return [tensor for tensor in results.tensors if element in tensor.copies and all(
        math.isfinite(sqnr) for sqnr in (tensor.copies[element].sqnr_direct, tensor.copies[element].sqnr_requantized))]


def _copied_elements(results):
    return [element for element in dict.fromkeys(element for tensor in results.tensors for element in tensor.copies)
            if _copied(results, element)]


def _median_copies(results, element):
    """SQNR of the column-wise copy in the median matrix, made from the values and re-quantized."""
    of = [tensor.copies[element] for tensor in _copied(results, element)]
    return statistics.median(copy.sqnr_direct for copy in of), statistics.median(copy.sqnr_requantized for copy in of)


def copies(results):
    """What was measured of column-wise copies in each element, a line each; medians are over matrices."""
    for element in _copied_elements(results):
        of = [tensor.copies[element] for tensor in _copied(results, element)]
        direct, requantized = _median_copies(results, element)
        values = sum(copy.values for copy in of)
        yield (f"Column-wise copies in {element.upper()}, {count(sum(copy.tiles for copy in of), 'tile')}: median {direct:.2f} dB "
               f"from the values, {requantized:.2f} dB from row-wise copies; "
               f"{percent(sum(copy.same for copy in of), values)} % of codes alike.")


def projection(one):
    """What went through the tile, in a sentence."""
    rows, columns = one.tile
    return (f"{one.name} on the {one.tokens} tokens of a sentence, {one.k:,} to {one.columns:,}: {one.pairs:,} block pairs "
            f"through a tile of {rows} by {columns} dot units; {one.check.mismatches:,} of {one.check.compared:,} bit patterns "
            f"differ from golden, SQNR against float64 {decibels(one.sqnr)} dB.")


def findings(results):
    """What the figures say, in sentences, favourable or not."""
    said = []
    tensors = _comparable(results.tensors)
    if tensors:
        gains = [tensor.sqnr_mx - tensor.sqnr_fp8 for tensor in tensors]
        better, worse = sum(gain > _EQUAL for gain in gains), sum(gain < -_EQUAL for gain in gains)
        said.append(
            f"SQNR: of {count(len(tensors), 'tensor')} MXFP8 is better in {better}, worse in {worse} and within {_EQUAL} dB in "
            f"{len(tensors) - better - worse}. The median tensor has {statistics.median(t.sqnr_mx for t in tensors):.2f} dB with "
            f"MXFP8 and {statistics.median(t.sqnr_fp8 for t in tensors):.2f} dB with one scale for the tensor.")
        if better <= worse:
            said.append(
                "So MXFP8 is not the more precise of the two here. Both keep E4M3's three mantissa bits, which decide the SQNR of "
                "values within E4M3's reach, and one scale for the tensor suffices to bring them there unless they lie far apart. "
                "An FP32 scale also puts the largest value exactly on a code, as a power of two does not; that shows in short "
                "tensors which one large value dominates.")
    flushed = [results.total(f"{scheme}.flushed") for scheme in ("mx", "fp8")]
    shares = [percent(number, results.total("values")) for number in flushed]
    said.append(f"Flushed to zero: {shares[0]} % of the values with MXFP8 ({flushed[0]:,}), {shares[1]} % with one scale for "
                f"the tensor ({flushed[1]:,})" + (f", {flushed[1] / flushed[0]:.1f} times as many." if all(flushed) else "."))
    if results.blocks is not None:
        blocks = results.blocks
        spread = float(blocks.amax.max()) / float(blocks.amax.min())
        mx, fp8 = (np.percentile(100 * errors, [50, 100]) for errors in (blocks.mx, blocks.fp8))
        said.append(
            f"Blocks: in {blocks.name}, whose blocks lie furthest apart ({spread:,.0f} to 1), the median block has an error of "
            f"{mx[0]:.2f} % with MXFP8 and {fp8[0]:.2f} % with one scale for the tensor, the worst block {mx[1]:.1f} % and "
            f"{fp8[1]:.1f} %.")
    products = [tensor.product_sqnr for tensor in results.tensors if math.isfinite(tensor.product_sqnr)]
    if products:
        said.append(
            f"Products: {results.total('products'):,} block pairs went through the dot unit, rows of the matrices times random "
            "activations, these in MXFP8 too. Against the products of the numbers before quantization the median matrix has "
            f"{statistics.median(products):.1f} dB.")
    said += copies(results)
    elements = _copied_elements(results)
    losses = {element: np.subtract(*_median_copies(results, element)) for element in elements}
    if abs(losses.get("e4m3", math.inf)) < _EQUAL < losses.get("mxint8", -math.inf):
        said.append(
            "So it is not E4M3 that asks for both copies to be made from the values: its elements have exponents, and three "
            "mantissa bits that have been rounded once are exact under any other power of two, but at the ends of the range. "
            "MXINT8's elements have none: under another scale they are rounded again.")
    if elements:
        of = [tensor.copies[element] for element in elements for tensor in _copied(results, element)]
        said.append(
            "The row-wise copy with its codes transposed is no column-wise copy: "
            f"{percent(sum(copy.transposed for copy in of), sum(copy.values for copy in of))} % of the codes agree, zeros and "
            "those whose row and column happen to have the same scale.")
    said.append(f"Size: {size(results.total('bytes'))} in the file, {size(results.total('mx.bytes'))} as MXFP8 "
                f"({8 * results.total('mx.bytes') / results.total('values'):.2f} bits a value, scales and padding included).")
    return said


def _svg(figure, title, salt):
    """``figure`` as an inline element in the page's colours; ``title`` is what a screen reader says."""
    with matplotlib.rc_context({"svg.hashsalt": salt}):
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg"):]
    for name, colour in _COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"(font: [^;\"]*?px) [^;\"]*", r"\1 var(--font)", svg)
    # Without namespaces, which an inline element has anyway, the page holds no address at all.
    box = re.search(r'viewBox="[^"]*"', svg)[0]
    svg = re.sub(r"<svg [^>]*>", lambda _: f'<svg role="img" aria-label="{Markup.escape(title)}" {box}>', svg, count=1)
    return Markup(svg.replace("xlink:href", "href"))


def _axes(width, height, **options):
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots(**options)


def _legend(axes):
    """Above the axes, where it hides nothing."""
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=2, handletextpad=0.5, columnspacing=1.5, borderpad=0)


def _picture(figure, name, title, caption):
    return {"title": title, "svg": _svg(figure, f"{title}. {caption}", name), "caption": caption}


def _label(name):
    name = name.removesuffix(".weight")
    return name if len(name) <= 44 else f"{name[:20]}…{name[-23:]}"


def _sqnr_picture(results):
    tensors = _comparable(_matrices(results))
    if not tensors:
        return None
    shown = sorted(sorted(tensors, key=lambda tensor: -tensor.values)[:_SHOWN], key=tensors.index)
    figure, axes = _axes(7, 1.1 + 0.19 * len(shown))
    places = range(len(shown))
    mx, fp8 = [tensor.sqnr_mx for tensor in shown], [tensor.sqnr_fp8 for tensor in shown]
    axes.hlines(places, np.minimum(mx, fp8), np.maximum(mx, fp8), color=_COLOURS["muted"], linewidth=1)
    axes.plot(fp8, places, linestyle="", markersize=5.5, **_FP8)
    axes.plot(mx, places, linestyle="", markersize=4, **_MX)
    axes.set_yticks(places, [_label(tensor.name) for tensor in shown], fontsize=8.5)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    low, high = min(mx + fp8), max(mx + fp8)
    margin = max(0.5, 0.05 * (high - low))
    axes.set_xlim(low - margin, high + margin)
    axes.set_xlabel("SQNR in dB, to the right is better (the axis does not begin at 0)")
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    _legend(axes)
    which = "tensors of two or more axes" if any(len(tensor.shape) > 1 for tensor in results.tensors) else "tensors"
    some = f"the {len(shown)} largest of {len(tensors)} {which}" if len(shown) < len(tensors) else f"all {len(shown)} {which}"
    return _picture(figure, "sqnr", "Precision of each tensor",
                    f"Signal to quantization noise of {some}. Figures of every tensor are in the table below.")


def _copies_picture(results):
    elements = _copied_elements(results)
    if not elements:
        return None
    tensors = [tensor for tensor in results.tensors if any(tensor in _copied(results, element) for element in elements)]
    shown = sorted(sorted(tensors, key=lambda tensor: -tensor.values)[:_SHOWN], key=tensors.index)
    figure, panels = _axes(7, 1.3 + 0.19 * len(shown), ncols=len(elements), sharey=True, squeeze=False)
    for axes, element in zip(panels[0], elements, strict=True):
        at = [place for place, tensor in enumerate(shown) if tensor in _copied(results, element)]
        direct, again = (np.array([getattr(shown[place].copies[element], name) for place in at])
                         for name in ("sqnr_direct", "sqnr_requantized"))
        axes.hlines(at, np.minimum(direct, again), np.maximum(direct, again), color=_COLOURS["muted"], linewidth=1)
        axes.plot(again, at, linestyle="", markersize=5.5, **_FP8 | {"label": "re-quantized from the row-wise copy"})
        axes.plot(direct, at, linestyle="", markersize=4, **_MX | {"label": "quantized from the values"})
        axes.set_title(element.upper())
        low, high = min(*direct, *again), max(*direct, *again)
        margin = max(0.5, 0.05 * (high - low))
        axes.set_xlim(low - margin, high + margin)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
    panels[0, 0].set_yticks(range(len(shown)), [_label(tensor.name) for tensor in shown], fontsize=8.5)
    panels[0, 0].set_ylim(len(shown) - 0.4, -0.6)
    figure.supxlabel("SQNR of the column-wise copy in dB, to the right is better (the axes do not begin at 0)", fontsize=9.5)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    which = f"The {len(shown)} largest of {len(tensors)} matrices" if len(shown) < len(tensors) else "All matrices"
    return _picture(
        figure, "copies", "A copy for each direction",
        "A matrix product sums along one axis, and blocks must lie along it: a matrix that is also used transposed, as in "
        "training, needs a row-wise and a column-wise copy. The dual quantizer makes both from the values. Here its column-wise "
        f"copy is beside one that it made from the dequantized row-wise copy. {which} of a tile or more, up to "
        f"{max(copy.tiles for tensor in tensors for copy in tensor.copies.values())} tiles of each, spread evenly; the table has "
        "all figures.")


def code(text):
    """Plain text whose parts between backticks are code."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(Markup.escape(text))))


def _scaling_picture(measured):
    """Area with the lines that were fitted, Fmax and throughput, over lanes and dot units."""
    shown = {key: points for key in ("dequantizer_lanes", "quantizer_lanes", "scaled_dot_lanes", "matmul_tile_units")
             if figures.fit(points := figures.series(measured, key))}
    if not shown:
        return None
    figure, panels = _axes(7, 1.2 + 1.9 * len(shown), nrows=len(shown), ncols=3, squeeze=False)
    for row, (key, points) in zip(panels, shown.items(), strict=True):
        start, slope, off = figures.fit(points)
        x = [point["x"] for point in points]
        row[0].plot([*off], [start + slope * one for one in off], color=_COLOURS["muted"], linewidth=1)
        for point in points:
            row[0].plot(point["x"], point["luts"], marker="o", markersize=4, color=_COLOURS["mx"], clip_on=False,
                        markerfacecolor=_COLOURS["mx" if point["is_on_line"] else "page"])
        row[0].set_title(figures.SERIES[key][0].replace("`", "").rpartition(",")[0])
        placed = [point for point in points if point["fmax"] is not None]
        rates = [point["rate"] / point["luts"] for point in placed]
        for axes, values in (row[1], [point["fmax"] for point in placed]), (row[2], rates):
            axes.plot([point["x"] for point in placed], values, linewidth=1.2, marker="o", markersize=4, color=_COLOURS["mx"],
                      clip_on=False)
            axes.set_visible(bool(placed))
        for axes, words in zip(row, ("LUT4", "Fmax, MHz", "blocks/s per LUT4"), strict=True):
            axes.set_ylim(0)
            axes.set_ylabel(words)
            axes.set_xlabel(figures.SERIES[key][1])
            axes.set_xticks(x[-3:])
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            axes.grid(axis="y")
    return _picture(
        figure, "scaling", "How units scale",
        "LUT4, Fmax and blocks/s per LUT4 on ECP5 of bare cores with all their pipeline cuts; the lines are least squares, "
        "hollow points are other circuits, which they leave out. Fmax is the median of place and route with several seeds.")


def _measured(measured):
    """What was measured of the claims, for the template."""
    tables = {name: figures.TABLES[name](measured) for name in ("contrast", "activity", "scales", "outliers", "named", "fits")}
    words = {name: list(figures.WORDS[name](measured)) for name in ("contrast_words", "accuracy_words", "outlier_words",
                                                                    "claims_origins")}
    return {"tables": tables, "words": words, "picture": _scaling_picture(measured)}


def _octave_axis(axis):
    """Marks of an axis in octaves."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: power(round(value)) if value else "1"))
    axis.set_major_locator(MaxNLocator(8, integer=True))


def _size_picture(results):
    """Errors of values against their size, by octaves."""
    used = np.flatnonzero(results.sizes["count"][:-1])
    if not len(used):
        return None
    figure, axes = _axes(7, 3.6)
    errors = {}
    for scheme, look in ("fp8", _FP8), ("mx", _MX):
        errors[scheme] = 100 * np.sqrt(results.sizes[scheme][used] / results.sizes["count"][used])
        # A value is somewhere in its octave.
        axes.plot(-used - 0.5, errors[scheme], linewidth=1.6, markersize=5, **look)
    # A logarithmic axis has no place for values that are all exact.
    axes.set_yscale("log" if any(error.any() for error in errors.values()) else "symlog")
    axes.yaxis.set_major_locator(FixedLocator([0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylim(min(1, *(1.2 * error[error > 0].min(initial=100) for error in errors.values())), 130)
    _octave_axis(axes.xaxis)
    axes.set_xlabel("magnitude of the value, by its tensor's largest")
    axes.set_ylabel("relative error, % (logarithmic)")
    axes.grid(axis="y")
    _legend(axes)
    counts = results.sizes["count"][used]
    poor = {scheme: percent(int(counts[errors[scheme] > 10].sum()), int(counts.sum())) for scheme in errors}
    return _picture(
        figure, "size", "Error by size of value",
        "All tensors; root mean square of the relative error in each octave. E4M3 has 15 octaves of full precision below its "
        "largest code; then its steps stay as they are while the values shrink, until they become zero (100 %). A scale for 32 "
        "values moves that end to smaller values. Octaves with an error above 10 % hold "
        f"{poor['mx']} % of the values with MXFP8 and {poor['fp8']} % with one scale for the tensor.")


def _error_picture(results):
    """Errors of blocks against their largest value: medians and middle 80 % by half octaves."""
    blocks = results.blocks
    if blocks is None:
        return None
    octaves = np.log2(blocks.amax.astype(np.float64))
    octaves -= octaves.max()
    bins = np.floor(2 * octaves).astype(int)
    figure, axes = _axes(7, 3.6)
    used, numbers = np.unique(bins, return_counts=True)
    used = used[numbers >= min(8, numbers.max())]
    middles = (used + 0.5) / 2
    for scheme, look in ("fp8", _FP8), ("mx", _MX):
        errors = 100 * getattr(blocks, scheme)
        low, middle, high = np.array([np.percentile(errors[bins == n], [10, 50, 90]) for n in used]).T
        axes.fill_between(middles, low, high, color=look["color"], alpha=0.18, linewidth=0)
        axes.plot(middles, middle, linewidth=1.6, markersize=5, **look)
    axes.set_ylim(0)
    _octave_axis(axes.xaxis)
    axes.set_xlabel("largest magnitude of the block, by the tensor's")
    axes.set_ylabel("error of the block, %")
    axes.grid(axis="y")
    _legend(axes)
    mx, fp8 = (100 * np.median(errors[bins == used[0]]) for errors in (blocks.mx, blocks.fp8))
    return _picture(
        figure, "error", "Error by block",
        f"{count(len(blocks.amax), 'block')} of {blocks.name}, the tensor whose blocks lie furthest apart: root mean square of "
        "the error over that of the block. Line: median; band: the middle 80 %. Among the blocks of the smallest values drawn the "
        f"median error is {mx:.2f} % with MXFP8 and {fp8:.2f} % with one scale for the tensor.")


def _scales_picture(results):
    codes = np.flatnonzero(results.scales[1:255]) + 1
    if not len(codes):
        return None
    figure, axes = _axes(7, 3.0)
    shown = np.arange(codes[0], codes[-1] + 1)
    axes.bar(shown - 127, results.scales[shown], width=0.8, color=_COLOURS["mx"])
    axes.set_yscale("log")
    axes.set_ylim(0.7)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    axes.set_xlabel("exponent of the scale (E8M0 code less 127)")
    axes.set_ylabel("blocks (logarithmic)")
    axes.grid(axis="y")
    common = int(results.scales[1:255].argmax()) + 1
    share = percent(int(results.scales[common]), int(results.scales.sum()))
    caption = (f"{len(codes)} powers of two are in use, from {power(codes[0] - 127)} to {power(codes[-1] - 127)}; the commonest is "
               f"{power(common - 127)}, with {share} % of the blocks.")
    for code, what in (0, f"lowest scale, {power(-127)}, that of zeros"), (255, "NaN scale, 0xFF"):
        if results.scales[code]:
            caption += f" Not drawn: {count(int(results.scales[code]), 'block')} with the {what}."
    return _picture(figure, "scales", "Scales of the model", caption)


def _relative(values, became):
    return [100 * abs(after - before) / abs(before) for before, after in zip(values, became, strict=True)]


def _example_picture(results, outlier):
    if not results.examples:
        return None
    elements = list(dict.fromkeys(example.element for example in results.examples))
    figure, panels = _axes(7, 2.1 * len(elements) + 0.5, nrows=len(elements), sharex=True, squeeze=False)
    places = np.arange(len(outlier))
    for axes, element in zip(panels[:, 0], elements, strict=True):
        of = {example.block_size: example for example in results.examples if example.element == element}
        one, four = (_relative(outlier, of[block_size].values) for block_size in (8, 4))
        axes.bar(places - 0.2, one, 0.36, color=_COLOURS["fp8"], label="one scale for all eight")
        axes.bar(places + 0.2, four, 0.36, color=_COLOURS["mx"], label="a scale for each four")
        axes.axvline(3.5, color=_COLOURS["muted"], linewidth=0.8, linestyle=(0, (3, 3)))
        axes.set_ylim(0, 105)
        axes.set_ylabel("error, %")
        axes.set_title(element.upper())
        axes.grid(axis="y")
    panels[-1, 0].set_xticks(places, [f"{value:g}" for value in outlier])
    panels[-1, 0].set_xlabel("value; the dashed line is where the second block of four begins")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2)
    return _picture(
        figure, "example", "An outlier",
        "250 forces a large scale upon its block. MXINT8, whose elements have no exponents of their own, loses every small value "
        "under one scale for all eight; in blocks of four the second block keeps its precision, and the first is alone in its "
        "loss. E4M3 elements have exponents, and ride out an outlier of this size under one scale as well: their values are the "
        "same both ways.")


def _examples(results, outlier):
    """Rows of the example's table: a value, and what it becomes each way."""
    return {
        "heads": [f"{example.element.upper()}, blocks of {example.block_size}" for example in results.examples],
        "scales": [", ".join(power(code - 127) for code in example.scales) for example in results.examples],
        "rows": [[value, *(example.values[n] for example in results.examples)] for n, value in enumerate(outlier)],
    }


def _finite(value):
    """``value`` as JSON can say it: NaN and Inf have no number there."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _finite(value.tolist())
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)


def _json(results):
    apart = "tensors", "examples", "blocks", "check", "projection"
    figures = {name: value for name, value in vars(results).items() if name not in apart}
    return json.dumps(_finite({
        "mxforge": __version__, "compared": results.compared, "mismatches": results.mismatches, **figures,
        "totals": {name: results.total(name) for name in (
            "values", "blocks", "bytes", "products", "mx.bytes", "mx.flushed", "fp8.bytes", "fp8.flushed")},
        "findings": findings(results), "check": asdict(results.check),
        "projection": results.projection and asdict(results.projection),
        "examples": [asdict(example) for example in results.examples],
        "tensors": [asdict(tensor) | {"sqnr_mx": tensor.sqnr_mx, "sqnr_fp8": tensor.sqnr_fp8, "copies": {
            element: asdict(copy) | {"sqnr_direct": copy.sqnr_direct, "sqnr_requantized": copy.sqnr_requantized}
            for element, copy in tensor.copies.items()}} for tensor in results.tensors],
    }), indent=1, allow_nan=False)


def _page(results, outlier):
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: resources.files(__package__).joinpath("templates", name).read_text()),
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"decibels": decibels, "size": size, "count": count, "breakable": breakable, "code": code}
    environment.globals |= {"percent": percent, "nan": math.isnan, "projection": projection}
    with matplotlib.rc_context(_STYLE):
        pictures = [draw(results) for draw in (_sqnr_picture, _size_picture, _error_picture, _scales_picture)]
        example = _example_picture(results, outlier)
        two_copies = _copies_picture(results)
        costs = _measured(measured) if (measured := figures.document()) else None
    return environment.get_template("report.html.j2").render(
        results=results, version=__version__, findings=findings(results), pictures=[picture for picture in pictures if picture],
        example=example, examples=_examples(results, outlier), copies=two_copies, copied=_copied_elements(results),
        costs=costs)


def write(results, folder, outlier):
    """Write ``index.html`` and ``results.json`` into ``folder``, and return the page's path."""
    folder = Path(folder)
    page, figures = _page(results, outlier), _json(results)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in ("results.json", figures), ("index.html", page):
        with replacing(folder / name) as file:
            file.write(text.encode())
    return folder / "index.html"
