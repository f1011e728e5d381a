# amaranth: UnusedElaboratable=no
"""Real weights through the emitted Verilog: every bit compared with golden, and what is lost of them."""
import math
import os
import time
from collections import defaultdict, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import mxgolden
from mxbench import verilator

from ..dequantizer import Dequantizer
from ..dual_quantizer import DualQuantizer
from ..formats import ELEMENTS
from ..matmul_tile import MatmulTile
from ..quantizer import Quantizer
from ..scaled_dot import ScaledDot
from . import matmul, minilm, report, weights
from .checked import TOLD, Checked, Comparison, built
from .files import check_folder
from .jobs import Workers

__all__ = ["BLOCK_SIZE", "OUTLIER", "SENTENCE", "BlockErrors", "Comparison", "Copies", "Example", "Loss", "ProjectionResult",
           "Results", "TensorResult", "block_count", "multiplied", "operands", "product", "product_count", "run", "send", "table"]

BLOCK_SIZE = 32
# Values in work at a time: tensors are read and played in pieces of this many.
PIECE = 1 << 20
# Rows of each matrix that are multiplied.
ROWS = 64
# Tiles of each matrix that are quantized both along rows and along columns.
TILES = 128
# A picture of fewer blocks says little.
PICTURED = 64
# Octaves below a tensor's largest magnitude that are told apart; the last takes the rest.
OCTAVES = 32
# Elements that the outlier is shown with, and the two copies of a tile.
EXAMPLES = "e4m3", "mxint8"
# What the model reads; its activations are multiplied.
SENTENCE = "Block scales let eight bits carry what used to take thirty-two."
OUTLIER = (0.5, -1.2, 0.8, 250.0, -0.9, 1.5, -0.2, 0.6)


@dataclass(kw_only=True)
class Loss:
    """What one scheme loses of a tensor: ``noise``, the energy of the error; ``flushed``, nonzero values that became zero;
    ``block_error``, the mean over blocks of the error relative to the block (both root mean square); and the ``bytes`` it takes.
    """
    noise: float = 0.0
    flushed: int = 0
    block_error: float = math.nan
    bytes: int = 0


@dataclass(kw_only=True)
class Copies:
    """The column-wise copy of ``tiles`` of a matrix, quantized from the values (``direct``) and from the dequantized
    row-wise copy (``requantized``): the energy of their errors beside the ``signal``'s.

    Of ``values`` codes, ``same`` are alike in both, and ``transposed`` in the first and the transposed row-wise copy.
    """
    tiles: int
    values: int
    signal: float
    direct: float
    requantized: float
    same: int
    transposed: int

    @property
    def sqnr_direct(self):
        return decibels(self.signal, self.direct)

    @property
    def sqnr_requantized(self):
        return decibels(self.signal, self.requantized)


@dataclass(kw_only=True)
class TensorResult:
    """Figures of a tensor: MXFP8 (``mx``) beside conventional FP8 with one FP32 scale for the tensor (``fp8``).

    ``padding`` counts the zeros that filled its rows up to whole blocks; ``products``, the block pairs multiplied; ``copies``
    is by elements.
    ``not_finite`` counts NaN and Inf, ``lost`` the finite values that came back as neither; the losses are of the rest.
    """
    name: str
    dtype: str
    shape: tuple
    values: int
    bytes: int
    blocks: int = 0
    padding: int = 0
    not_finite: int = 0
    lost: int = 0
    signal: float = 0.0
    mx: Loss = field(default_factory=Loss)
    fp8: Loss = field(default_factory=Loss)
    products: int = 0
    product_sqnr: float = math.nan
    copies: dict = field(default_factory=dict)
    check: Comparison = field(default_factory=Comparison)

    @property
    def sqnr_mx(self):
        return decibels(self.signal, self.mx.noise)

    @property
    def sqnr_fp8(self):
        return decibels(self.signal, self.fp8.noise)


@dataclass(kw_only=True)
class BlockErrors:
    """Of each block of a tensor: its largest magnitude, and the error relative to the block under both schemes."""
    name: str
    amax: np.ndarray
    mx: np.ndarray
    fp8: np.ndarray


@dataclass(kw_only=True)
class Example:
    """`OUTLIER` as ``element`` in blocks of ``block_size``: E8M0 codes, and what the values become."""
    element: str
    block_size: int
    scales: list
    values: list


@dataclass(kw_only=True)
class ProjectionResult:
    """A linear layer of the model on the activations of ``sentence``, by a tile of ``tile`` rows and columns: (``tokens``, ``k``)
    by (``k``, ``columns``), ``pairs`` of blocks in ``beats`` of the tile. ``sqnr`` in dB, against float64.
    """
    name: str
    sentence: str
    tokens: int
    k: int
    columns: int
    tile: tuple
    pairs: int
    beats: int
    sqnr: float
    seconds: float
    check: Comparison


@dataclass(kw_only=True)
class Results:
    """All figures of a run, with MX of ``element``. ``check`` is of the examples and facts, which belong to no tensor.

    ``scales`` counts the blocks of each E8M0 code. ``sizes`` is by octaves below the tensor's largest magnitude: how many
    values (``count``), and the sum of their squared relative errors (``mx``, ``fp8``).
    """
    source: str
    element: str = "e4m3"
    tensors: list = field(default_factory=list)
    skipped: list = field(default_factory=list)
    scales: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    sizes: dict = field(default_factory=lambda: {name: np.zeros(OCTAVES) for name in ("count", "mx", "fp8")})
    blocks: BlockErrors | None = None
    examples: list = field(default_factory=list)
    projection: ProjectionResult | None = None
    facts: dict = field(default_factory=dict)
    check: Comparison = field(default_factory=Comparison)
    seconds: dict = field(default_factory=dict)

    def total(self, name):
        """Sum over the tensors of an attribute, such as ``blocks`` or ``mx.flushed``."""
        first, _, second = name.partition(".")
        values = (getattr(tensor, first) for tensor in self.tensors)
        return sum(getattr(value, second) if second else value for value in values)

    @property
    def _checks(self):
        return [part.check for part in (*self.tensors, self, self.projection) if part is not None]

    @property
    def compared(self):
        return sum(check.compared for check in self._checks)

    @property
    def mismatches(self):
        return sum(check.mismatches for check in self._checks)

    @property
    def told(self):
        """The first mismatches in words."""
        return [line for check in self._checks for line in check.told][:TOLD]

    @property
    def notes(self):
        """What was skipped, filled up or lost, a line each."""
        lines = [f"Skipped: {line}." for line in self.skipped]
        for tensor in self.tensors:
            if tensor.padding:
                lines.append(f"{tensor.name}: each row of {tensor.shape[-1] if tensor.shape else 1} filled up to whole blocks, "
                             f"{tensor.padding:,} zeros in all.")
            if tensor.not_finite or tensor.lost:
                lines.append(f"{tensor.name}: {tensor.not_finite:,} NaN or Inf, {tensor.lost:,} other values lost with them; "
                             "the figures are of the rest.")
        return lines


def decibels(signal, noise):
    """Signal to noise: inf where there is no noise, NaN where there is no signal."""
    if not signal:
        return math.nan
    return 10 * math.log10(signal / noise) if noise else math.inf


def _build(build_dir, jobs, with_tile):
    """The units of the demo, by name."""
    components = {"quantizer": Quantizer(), "scaled_dot": ScaledDot()}
    if with_tile:
        components["matmul_tile"] = MatmulTile()
    for element in EXAMPLES:
        components[f"dequantizer_{element}"] = Dequantizer(element=element)
        components[f"dual_quantizer_{element}"] = DualQuantizer(element=element)
        for block_size in 8, 4:
            components[f"quantizer_{element}_{block_size}"] = Quantizer(element=element, block_size=block_size, lanes=4)
    # Emitted one after the other: Amaranth numbers its signals without regard to threads.
    units = (Checked.emitted(component, name, build_dir) for name, component in components.items())
    return dict(zip(components, built(units, jobs), strict=True))


def _blocks(values):
    """Rows, each filled up with zeros to whole blocks, as FP32 bits, a row a block."""
    return np.pad(values, ((0, 0), (0, -values.shape[1] % BLOCK_SIZE))).reshape(-1, BLOCK_SIZE).view(np.uint32)


@dataclass(kw_only=True)
class _Piece:
    """What `_examine` finds out about a piece of a tensor; the arrays have an item a block."""
    tensor: weights.Tensor
    not_finite: int
    lost: int
    check: Comparison
    scales: np.ndarray
    amax: np.ndarray
    signal: np.ndarray
    noise: dict
    flushed: dict
    sizes: dict


def _pieces(tensor):
    """Slices of rows and columns, each of whole blocks and of `PIECE` values at most once padded."""
    rows = max(1, PIECE // (tensor.width + -tensor.width % BLOCK_SIZE))
    for row in range(0, tensor.rows, rows):
        for column in range(0, tensor.width, PIECE):
            yield slice(row, row + rows), slice(column, column + PIECE)


def _tensor_amax(tensor):
    """The largest finite magnitude, which decides the FP32 scale of conventional FP8."""
    amax = np.float32(0)
    for piece in _pieces(tensor):
        values = np.abs(tensor.fp32(*piece))
        amax = max(amax, values.max(initial=0, where=np.isfinite(values)))
    return amax


def _conventional(values, amax):
    """``values`` of a tensor after conventional FP8 (E4M3) under one FP32 scale and back."""
    scale, codes = mxgolden.quantize_tensor(values, amax=amax)
    return mxgolden.dequantize_tensor(codes, scale).view(np.float32)


def _examine(quantizer, dequantizer, tensor, rows, columns, amax):
    """Send a piece of ``tensor`` through quantizer and dequantizer."""
    values = tensor.fp32(rows, columns)
    height, width = values.shape
    bits = _blocks(values)
    blocks = bits.view(np.float32)
    per_row = len(blocks) // height

    def where(block, lane=None):
        row, first = rows.start + block // per_row, columns.start + block % per_row * BLOCK_SIZE
        last = min(first + BLOCK_SIZE, tensor.width) - 1
        return f"{tensor.name} row {row}, " + (f"values {first} to {last}" if lane is None else f"value {first + lane}")

    quantized, check = quantizer.play({"values": bits}, where)
    dequantized, second = dequantizer.play(quantized, where)
    check.add(second)

    schemes = {"mx": dequantized["values"].view(np.float32), "fp8": _conventional(blocks, amax)}
    finite = np.isfinite(blocks)
    counted = finite & np.isfinite(schemes["mx"]) & np.isfinite(schemes["fp8"])
    real = np.where(counted, blocks, 0).astype(np.float64)
    piece = _Piece(
        tensor=tensor, check=check, scales=quantized["scale"], amax=np.abs(real).max(axis=1).astype(np.float32),
        not_finite=finite.size - np.count_nonzero(finite),
        lost=np.count_nonzero((finite & ~counted).reshape(height, -1)[:, :width]),
        signal=np.einsum("ij,ij->i", real, real), noise={}, flushed={}, sizes={})
    some = real != 0
    below = np.frexp(amax)[1] - np.frexp(real[some])[1]
    octaves = np.clip(below, 0, OCTAVES - 1)
    piece.sizes["count"] = np.bincount(octaves, minlength=OCTAVES)
    for scheme, became in schemes.items():
        error = real - np.where(counted, became, 0)
        piece.noise[scheme] = np.einsum("ij,ij->i", error, error)
        piece.flushed[scheme] = np.count_nonzero((became == 0) & some)
        piece.sizes[scheme] = np.bincount(octaves, (error[some] / real[some]) ** 2, OCTAVES)
    return piece


def _in_order(calls, jobs):
    """Results of ``calls`` in their order, ``jobs`` at once and few more of them under way."""
    if jobs == 1:
        # In this thread, which an interrupt ends at once.
        for function, *arguments in calls:
            yield function(*arguments)
        return
    waiting = deque()
    with ThreadPoolExecutor(jobs) as pool:
        for call in calls:
            waiting.append(pool.submit(*call))
            if len(waiting) > 2 * jobs:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def block_count(tensor):
    return tensor.rows * -(-tensor.width // BLOCK_SIZE)


def _summed(tensor, pieces, element):
    """`TensorResult` and `BlockErrors` of a tensor in MX of ``element``."""
    blocks = block_count(tensor)
    size = blocks * BLOCK_SIZE
    result = TensorResult(name=tensor.name, dtype=tensor.dtype, shape=tensor.shape, values=tensor.size, bytes=tensor.bytes,
                          blocks=blocks, padding=size - tensor.size)
    for piece in pieces:
        result.not_finite += piece.not_finite
        result.lost += piece.lost
        result.check.add(piece.check)
    signal = np.concatenate([piece.signal for piece in pieces])
    result.signal = float(signal.sum())
    some = signal > 0
    errors = {}
    # A block is its elements and a scale of one byte; a tensor of conventional FP8 has one scale of four.
    sizes = size * ELEMENTS[element].width // 8 + blocks, tensor.size + 4
    for scheme, loss, total in zip(("mx", "fp8"), (result.mx, result.fp8), sizes, strict=True):
        noise = np.concatenate([piece.noise[scheme] for piece in pieces])
        errors[scheme] = np.sqrt(noise[some] / signal[some])
        loss.noise = float(noise.sum())
        loss.flushed = sum(piece.flushed[scheme] for piece in pieces)
        loss.block_error = float(errors[scheme].mean()) if some.any() else math.nan
        loss.bytes = total
    amax = np.concatenate([piece.amax for piece in pieces])[some]
    return result, BlockErrors(name=tensor.name, amax=amax, **errors)


def send(results, quantizer, dequantizer, tensors, jobs, advance=lambda blocks: None):
    """All ``tensors`` through quantizer and dequantizer, units that are played as a `Checked` is."""
    def calls():
        for tensor in tensors:
            amax = _tensor_amax(tensor)
            for rows, columns in _pieces(tensor):
                yield _examine, quantizer, dequantizer, tensor, rows, columns, amax

    waiting = defaultdict(list)
    remaining = {tensor.name: sum(1 for _ in _pieces(tensor)) for tensor in tensors}
    pictured = None
    for piece in _in_order(calls(), jobs):
        name = piece.tensor.name
        waiting[name].append(piece)
        results.scales += np.bincount(piece.scales, minlength=256)
        for which, numbers in piece.sizes.items():
            results.sizes[which] += numbers
        advance(len(piece.scales))
        if len(waiting[name]) < remaining[name]:
            continue
        result, blocks = _summed(piece.tensor, waiting.pop(name), results.element)
        results.tensors.append(result)
        # The picture is of the tensor whose blocks lie furthest apart, where one scale for all should be at its worst.
        if len(blocks.amax):
            rank = result.blocks >= PICTURED, blocks.amax.max() / blocks.amax.min()
            if pictured is None or rank > pictured:
                pictured, results.blocks = rank, blocks


def multiplied(tensors):
    """Those of ``tensors`` whose rows are multiplied: matrices, whose rows are read whole."""
    return [tensor for tensor in tensors if len(tensor.shape) > 1 and tensor.width <= PIECE]


def product_count(tensor):
    """Block pairs of `product`."""
    return min(ROWS, tensor.rows) * block_count(tensor) // tensor.rows


def operands(quantizer, tensor, vectors):
    """Some rows of ``tensor``, and so many ``vectors`` of random activations: which rows, all their values, scales (N, blocks) and
    elements (N, blocks, 32) of those, and their `Comparison`.
    """
    rows = np.unique(np.linspace(0, tensor.rows - 1, ROWS).astype(int))
    activations = np.random.default_rng(0).standard_normal((vectors, tensor.width)).astype(np.float32)
    values = np.vstack([tensor.fp32(rows), activations])
    quantized, check = quantizer.play(
        {"values": _blocks(values)}, lambda block, lane=0: f"{tensor.name} and activations, block {block}, value {lane}")
    scales = quantized["scale"].reshape(len(values), -1)
    return rows, values, scales, quantized["elements"].reshape(*scales.shape, BLOCK_SIZE), check


def product(quantizer, dot, tensor):
    """Some rows of ``tensor`` times random activations, block pair by block pair, each sum the addend of the next.
    `Comparison`, how many block pairs, and the SQNR of the products in dB.
    """
    rows, values, scales, elements, check = operands(quantizer, tensor, 1)
    sums = np.zeros(len(rows), np.uint32)
    for block in range(scales.shape[1]):
        outputs, step = dot.play({
            "a_scale": scales[:-1, block], "a_elements": elements[:-1, block],
            "b_scale": np.repeat(scales[-1:, block], len(rows)), "b_elements": np.repeat(elements[-1:, block], len(rows), axis=0),
            "c": sums}, lambda index, block=block: f"{tensor.name} row {rows[index]}, product of block {block}")
        sums = outputs["result"]
        check.add(step)
    exact = values[:-1].astype(np.float64) @ values[-1].astype(np.float64)
    became = sums.view(np.float32)
    counted = np.isfinite(exact) & np.isfinite(became)
    exact, became = exact[counted], became[counted]
    return check, scales[:-1].size, decibels(np.square(exact).sum(), np.square(exact - became).sum())


def _multiply(results, units, tensors, jobs, advance):
    """Rows of the matrices among ``tensors`` times activations."""
    by_name = {result.name: result for result in results.tensors}
    matrices = multiplied(tensors)
    products = _in_order(((product, units["quantizer"], units["scaled_dot"], tensor) for tensor in matrices), jobs)
    for tensor, (check, count, sqnr) in zip(matrices, products, strict=True):
        result = by_name[tensor.name]
        result.check.add(check)
        result.products, result.product_sqnr = count, sqnr
        advance(count)


def _is_tiled(tensor):
    """Whether ``tensor`` is a matrix with a whole tile."""
    return len(tensor.shape) > 1 and min(tensor.rows, tensor.width) >= BLOCK_SIZE


def _tile_places(tensor):
    """First rows and columns of up to `TILES` tiles that are spread over ``tensor``."""
    down, across = (-(-length // BLOCK_SIZE) for length in (tensor.rows, tensor.width))
    chosen = np.unique(np.linspace(0, down * across - 1, TILES).astype(int))
    rows, columns = np.divmod(chosen, across)
    # Each row of tiles begins a column further on, or steps of whole rows would meet the same column always.
    return BLOCK_SIZE * np.stack([rows, (columns + rows) % across], axis=1)


def _tiles(tensor):
    """`_tile_places` of ``tensor``; the tiles' values, with zeros beyond the edges; which values are the tensor's."""
    places = _tile_places(tensor)
    values = np.zeros((len(places), BLOCK_SIZE, BLOCK_SIZE), np.float32)
    is_own = np.zeros(values.shape, bool)
    for tile, (row, column) in enumerate(places.tolist()):
        part = tensor.fp32(slice(row, row + BLOCK_SIZE), slice(column, column + BLOCK_SIZE))
        within = tile, slice(part.shape[0]), slice(part.shape[1])
        values[within], is_own[within] = part, True
    return places, values, is_own


def _two_copies(units, tensor, element):
    """`Comparison` and `Copies` of ``tensor``: tiles through the dual quantizer, and once more from the row-wise copy."""
    places, values, is_own = _tiles(tensor)
    check = Comparison()

    def where(tile, item=0):
        row, column = places[tile]
        return f"{tensor.name}, {element} tile at row {row}, column {column}, item {item}"

    def play(unit, inputs, where):
        outputs, step = units[f"{unit}_{element}"].play(inputs, where)
        check.add(step)
        return outputs

    def quantized(values):
        return play("dual_quantizer", {"values": values.view(np.uint32).reshape(len(places), -1)}, where)

    def dequantized(copies, side):
        outputs = play(
            "dequantizer", {"scale": copies[f"{side}_scales"].ravel(),
                            "elements": copies[f"{side}_elements"].reshape(-1, BLOCK_SIZE)},
            lambda block, lane=0: f"{where(block // BLOCK_SIZE, lane)} of {side} {block % BLOCK_SIZE}")
        return outputs["values"].view(np.float32).reshape(values.shape)

    copies = quantized(values)
    again = quantized(dequantized(copies, "row"))
    became = {"direct": dequantized(copies, "column"), "requantized": dequantized(again, "column")}

    values, is_own = values.swapaxes(1, 2), is_own.swapaxes(1, 2)
    counted = is_own & np.isfinite(values) & np.isfinite(became["direct"]) & np.isfinite(became["requantized"])
    real = np.where(counted, values, 0).astype(np.float64)
    noises = {name: float(np.square(real - np.where(counted, copy, 0)).sum()) for name, copy in became.items()}
    codes = copies["column_elements"].reshape(values.shape)
    others = {"same": again["column_elements"].reshape(values.shape),
              "transposed": copies["row_elements"].reshape(values.shape).swapaxes(1, 2)}
    return check, Copies(
        tiles=len(places), values=np.count_nonzero(is_own), signal=float(np.square(real).sum()), **noises,
        **{name: np.count_nonzero((codes == other) & is_own) for name, other in others.items()})


def _copy(results, units, tensors, jobs, advance):
    """Tiles of the matrices among ``tensors``, along rows and along columns."""
    by_name = {result.name: result for result in results.tensors}
    calls = [(_two_copies, units, tensor, element) for tensor in tensors if _is_tiled(tensor) for element in EXAMPLES]
    for (_, _, tensor, element), (check, copies) in zip(calls, _in_order(calls, jobs), strict=True):
        result = by_name[tensor.name]
        result.check.add(check)
        result.copies[element] = copies
        advance(copies.tiles)


def _project(results, units, model, jobs, advance):
    """A linear layer of the fetched ``model``, on the activations of `SENTENCE`, through the tile."""
    ids = minilm.tokens(SENTENCE, minilm.vocabulary_of(weights.vocabulary_beside(model)))
    layer = minilm.first_projection(weights.tensors_of(model), ids)
    tile = MatmulTile.Parameters()
    hardware = matmul.Hardware(parameters=tile, quantizers=(units["quantizer"],) * 2, tile=units["matmul_tile"])
    addend = np.tile(layer.bias, (len(ids), 1))
    (tokens, k), columns = layer.inputs.shape, len(layer.weight)
    advance(0, total=matmul.work(tile, tokens, columns, k)["Tiles"])
    with Workers(jobs, threads=True) as workers:
        product = matmul.multiply(hardware, layer.inputs, layer.weight, addend, workers,
                                  lambda what, count: advance(count) if what == "Tiles" else None)
    product.check.told = [f"{layer.name}, {line}" for line in product.check.told]
    results.projection = ProjectionResult(
        name=layer.name, sentence=SENTENCE, tokens=tokens, k=k, columns=columns, tile=(tile.rows, tile.columns),
        pairs=product.pairs, beats=product.beats, sqnr=product.sqnr, seconds=product.seconds, check=product.check)


def _show_outlier(results, units):
    """`OUTLIER` in blocks of 8 and of 4."""
    for element in EXAMPLES:
        for block_size in 8, 4:
            def where(row, lane=0, words=f"the outlier as {element} in blocks of {block_size}"):
                return f"{words}, row {row}, lane {lane}"
            quantized, check = units[f"quantizer_{element}_{block_size}"].play(
                {"values": np.array(OUTLIER, np.float32).view(np.uint32).reshape(-1, block_size)}, where)
            scales = quantized["scale"]
            outputs, second = units[f"dequantizer_{element}"].play(
                {"scale": scales, "elements": np.pad(quantized["elements"], ((0, 0), (0, BLOCK_SIZE - block_size)))}, where)
            results.check.add(check)
            results.check.add(second)
            results.examples.append(Example(
                element=element, block_size=block_size, scales=scales.tolist(),
                values=outputs["values"].view(np.float32)[:, :block_size].ravel().tolist()))


def _check_facts(results, units):
    """How many bits 64 values take, and how many scales a million weights."""
    def blocks_of(count):
        values = np.random.default_rng(0).standard_normal((1, count)).astype(np.float32)
        quantized, check = units["quantizer"].play(
            {"values": _blocks(values)}, lambda block, lane=0: f"random values, block {block}, lane {lane}")
        results.check.add(check)
        return len(quantized["scale"])

    few, many = blocks_of(64), blocks_of(1_000_000)
    bits = few * units["quantizer"].output_width
    results.facts = {
        "bits": {"before": 64 * 32, "after": bits,
                 "words": f"64 FP32 values, {64 * 32:,} bits, leave the quantizer as {bits:,} bits: {few} blocks, each of 32 codes "
                          "and a scale of 8 bits."},
        "scales": {"weights": 1_000_000, "scales": many,
                   "words": f"1,000,000 weights have {many:,} scales, {report.size(many)}; as FP32 numbers they would take "
                            f"{report.size(4 * many)}."},
    }


def table(results):
    """The matrices, or where there are none all tensors, and the totals."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_footer=True, caption_justify="left", caption=(
        f"SQNR in dB; zeroed: % of values flushed to zero. MX: {results.element.upper()}, a scale for 32 values; "
        "FP8: an FP32 scale for the tensor."))
    table.add_column("Tensor", overflow="fold", footer="Total")
    shares = [report.percent(results.total(f"{scheme}.flushed"), results.total("values")) for scheme in ("mx", "fp8")]
    for header, footer in (
            ("Blocks", f"{results.total('blocks'):,}"), ("Mismatches", f"{results.total('check.mismatches'):,}"),
            ("SQNR\nMX", ""), ("\nFP8", ""), ("Zeroed\nMX", shares[0]), ("\nFP8", shares[1]),
            ("KiB\nbefore", f"{results.total('bytes') / 1024:,.0f}"), ("\nafter", f"{results.total('mx.bytes') / 1024:,.0f}")):
        table.add_column(header, footer=footer, justify="right")
    for tensor in [tensor for tensor in results.tensors if len(tensor.shape) > 1] or results.tensors:
        table.add_row(
            escape(tensor.name), f"{tensor.blocks:,}", f"{tensor.check.mismatches:,}",
            report.decibels(tensor.sqnr_mx), report.decibels(tensor.sqnr_fp8),
            report.percent(tensor.mx.flushed, tensor.values), report.percent(tensor.fp8.flushed, tensor.values),
            f"{tensor.bytes / 1024:,.0f}", f"{tensor.mx.bytes / 1024:,.0f}")
    return table


def _progress(console):
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console)


def run(file=None, names=(), build_dir="sim_build", report_dir=None, jobs=None, console=None):
    """Run the demo on the tensors ``names`` (all floats without) of ``file`` (without: the model that `weights.fetch_model`
    fetches), write the report, and return the exit status: 1 if any bit differs from golden.
    """
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 130)
    jobs = jobs or os.cpu_count() or 1
    report_dir = Path(report_dir or Path(build_dir) / "report")
    # Before anything is fetched or built.
    check_folder(report_dir)
    verilator.find()
    verilator.require_compiler()
    source = weights.MODEL_NAME if file is None else Path(file).name
    model = weights.fetch_model(build_dir, console.print) if file is None else file
    tensors, skipped = weights.choose(weights.tensors_of(model), names)
    results = Results(source=source, skipped=[f"{tensor.name} {tensor.obstacle}" for tensor in skipped])

    started = time.perf_counter()
    with console.status("Building the units' Verilog in Verilator"):
        units = _build(build_dir, jobs, file is None)
    results.seconds["build"] = time.perf_counter() - started

    with _progress(console) as progress:
        blocks = progress.add_task("Blocks quantized and back", total=sum(map(block_count, tensors)))
        total = sum(map(product_count, multiplied(tensors)))
        products = progress.add_task("Block products", total=total, visible=total > 0)
        total = sum(len(_tile_places(tensor)) for tensor in tensors if _is_tiled(tensor)) * len(EXAMPLES)
        tiles = progress.add_task("Tiles by row and column", total=total, visible=total > 0)
        started = time.perf_counter()
        send(results, units["quantizer"], units["dequantizer_e4m3"], tensors, jobs, lambda count: progress.advance(blocks, count))
        results.seconds["blocks"] = time.perf_counter() - started
        _multiply(results, units, tensors, jobs, lambda count: progress.advance(products, count))
        _copy(results, units, tensors, jobs, lambda count: progress.advance(tiles, count))
        if file is None:
            tiles = progress.add_task("Tiles of a projection")
            _project(results, units, model, jobs, lambda count, **facts: progress.update(tiles, advance=count, **facts))
        _show_outlier(results, units)
        _check_facts(results, units)

    page = report.write(results, report_dir, OUTLIER)
    console.print(table(results))
    for line in results.notes:
        console.print(line, markup=False)
    console.print(f"{results.compared:,} bit patterns compared with golden, {results.mismatches:,} mismatches; "
                  f"{results.total('blocks') / results.seconds['blocks']:,.0f} blocks/s")
    for line in report.copies(results):
        console.print(line)
    if results.projection is not None:
        console.print(report.projection(results.projection))
    for line in results.told:
        console.print(f"Mismatch: {line}", markup=False)
    console.print(f"Report: {page}")
    return 1 if results.mismatches else 0
