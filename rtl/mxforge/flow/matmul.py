# amaranth: UnusedElaboratable=no
"""Matrix products through the simulated hardware: quantized, tiled, and compared with golden bit for bit."""
import itertools
import re
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

import mxgolden
from mxbench import verilator

from ..errors import MxforgeError
from ..matmul_layer import MatmulLayer
from ..matmul_tile import MatmulTile
from ..quantizer import Quantizer
from . import player, weights
from .checked import Checked, Comparison, built
from .files import check_output, replacing
from .jobs import Job, Workers, needed, own_build_dir, shown
from .run import Result

__all__ = ["Hardware", "Product", "multiply", "run", "work"]

BLOCK_SIZE = 32
# Values that are quantized, and beats that the tile is given, at a time.
QUANTIZED = 1 << 18
BEATS = 1 << 13
# Beats of the tile below which threads are done before processes would be.
SMALL = 1 << 20
# Rows of tiles that are a job, at most.
TOGETHER = 8


def _padded(values, rows, columns):
    """``values`` with zeros up to multiples of ``rows`` and ``columns``."""
    return np.pad(values, ((0, -values.shape[0] % rows), (0, -values.shape[1] % columns)))


def _is_layer(parameters):
    return isinstance(parameters, MatmulLayer.Parameters)


def _step(parameters):
    """Columns of D that come out together: a tile's, or those of whole blocks."""
    return parameters.columns * parameters.products


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """The Verilog that multiplies matrices: a quantizer for A and one for B, and a `MatmulTile` of ``parameters``, or a
    `MatmulLayer`, if they are one's.
    """
    parameters: MatmulTile.Parameters
    quantizers: tuple
    tile: Checked

    @classmethod
    def emitted(cls, parameters, scale_rule, build_dir, jobs=None):
        """Built below ``build_dir``, ``jobs`` at once; without ``jobs`` for machines that build it themselves."""
        p = parameters
        elements = dict.fromkeys((p.a_element, p.b_element))
        unit = MatmulLayer if _is_layer(p) else MatmulTile
        components = [*((Quantizer(element=element, scale_rule=scale_rule), "quantizer") for element in elements),
                      (unit(**asdict(p)), unit.__module__.rpartition(".")[2])]
        units = (Checked.emitted(component, name, build_dir) for component, name in components)
        *quantizers, tile = built(units, jobs) if jobs else units
        of = dict(zip(elements, quantizers, strict=True))
        return cls(parameters=p, quantizers=(of[p.a_element], of[p.b_element]), tile=tile)


@dataclass(frozen=True, kw_only=True)
class _Operand:
    """Rows of MX blocks along K: ``scales`` (rows, blocks), ``codes`` (rows, blocks, BLOCK_SIZE)."""
    scales: np.ndarray
    codes: np.ndarray

    def part(self, rows):
        return _Operand(scales=self.scales[rows], codes=self.codes[rows])

    def beats(self, lines):
        """``(scales, elements)`` of the beats of tiles of ``lines`` rows: (tiles, blocks, items)."""
        tiles, blocks = len(self.scales) // lines, self.scales.shape[1]
        scales = self.scales.reshape(tiles, lines, blocks).swapaxes(1, 2)
        codes = self.codes.reshape(tiles, lines, blocks, BLOCK_SIZE).swapaxes(1, 2)
        return scales, codes.reshape(tiles, blocks, -1)


@dataclass(kw_only=True)
class Product:
    """``d``, FP32, and how it came about: its `Comparison` with golden, quantization included; SQNR in dB against ``exact``, the
    product of the unquantized matrices in float64; block ``pairs`` multiplied, in ``beats`` of the tile.

    Of a `MatmulLayer` ``d`` is what ``mx`` stands for: ``scales`` (M, blocks) and ``codes`` (M, blocks * BLOCK_SIZE).
    """
    d: np.ndarray
    exact: np.ndarray
    mx: dict | None = None
    check: Comparison = field(default_factory=Comparison)
    pairs: int = 0
    beats: int = 0
    seconds: float = 0.0

    @property
    def sqnr(self):
        counted = np.isfinite(self.d) & np.isfinite(self.exact)
        return float(mxgolden.sqnr(self.exact[counted], self.d[counted].astype(np.float64)))


def _quantized(text, manifest, build_dir, values, name, start):
    """A job: scales and codes of ``values``, rows of whole blocks, the first of them ``name`` ``start``; and their `Comparison`."""
    blocks = values.shape[1] // BLOCK_SIZE
    unit = Checked(text, manifest, own_build_dir(build_dir))
    outputs, check = unit.play({"values": values.view(np.uint32).reshape(-1, BLOCK_SIZE)}, lambda block, lane=0: (
        f"{name} {start + block // blocks}, value {block % blocks * BLOCK_SIZE + lane} of its K"))
    return outputs["scale"].reshape(-1, blocks), outputs["elements"].reshape(-1, blocks, BLOCK_SIZE), check


def _played(tile, p, a, b, c):
    """What the tile makes of ``p.rows`` rows of A and some columns of B, whole tiles: FP32 bits as ``results``, or ``scales`` and
    ``codes``.
    """
    (a_scales, a_elements), (b_scales, b_elements) = a.beats(p.rows), b.beats(p.columns)
    tiles, blocks = b_scales.shape[:2]
    marks = np.zeros((2, tiles, blocks), np.uint8)
    marks[0, :, 0] = marks[1, :, -1] = 1
    addends = np.zeros((tiles, blocks, p.rows * p.columns), np.uint32)
    addends[:, 0] = c.reshape(p.rows, tiles, p.columns).swapaxes(0, 1).reshape(tiles, -1)
    outputs = tile.play({
        "first": marks[0].ravel(), "last": marks[1].ravel(),
        "a_scales": np.tile(a_scales[0], (tiles, 1)), "a_elements": np.tile(a_elements[0], (tiles, 1)),
        "b_scales": b_scales.reshape(tiles * blocks, -1), "b_elements": b_elements.reshape(tiles * blocks, -1),
        "c": addends.reshape(tiles * blocks, -1)})
    if not _is_layer(p):
        return {"results": outputs["results"].reshape(tiles, p.rows, p.columns).swapaxes(0, 1).reshape(p.rows, -1)}
    # Each beat of a block tells its scales.
    scales = outputs["scales"].reshape(-1, p.products, p.rows, p.blocks)[:, 0]
    codes = outputs["elements"].reshape(-1, p.products, p.rows, p.columns)
    return {"scales": scales.swapaxes(0, 1).reshape(p.rows, -1), "codes": codes.transpose(2, 0, 1, 3).reshape(p.rows, -1)}


def _wanted(p, a, b, c):
    """What golden makes of the same: the dot products of the rows, which know of no tiles."""
    results = mxgolden.dot(a.codes.reshape(len(a.codes), 1, -1), a.scales[:, None], b.codes.reshape(len(b.codes), -1), b.scales, c,
                           p.a_element, p.b_element, p.accumulation)
    if not _is_layer(p):
        return {"results": results}
    scales, codes = mxgolden.quantize(results, element=p.d_element, block_size=BLOCK_SIZE, scale_rule=p.scale_rule)
    return {"scales": scales, "codes": codes}


def _place(name, column):
    """Where in D's array ``name`` that column of D lies."""
    return column // BLOCK_SIZE if name == "scales" else column


def _multiplied(text, manifest, build_dir, p, a, b, c, top, left, kept):
    """A job: D's arrays from row ``top`` and column ``left`` on, as far as whole tiles ``a``, ``b`` and ``c`` go, and their
    `Comparison`. ``kept``: the shape of each of D's arrays, outside of which is filling.
    """
    tile = player.build(text, manifest, own_build_dir(build_dir))
    pieces, check = [], Comparison()
    for first in range(0, len(a.codes), p.rows):
        part = slice(first, first + p.rows)
        got, wanted = _played(tile, p, a.part(part), b, c[part]), _wanted(p, a.part(part), b, c[part])
        for name, values in got.items():
            row, at = top + first, _place(name, left)
            part = slice(kept[name][0] - row), slice(kept[name][1] - at)
            values = got[name] = values[part]
            check.add(Comparison.of(values, wanted[name][part], lambda line, item, name=name, row=row, at=at: (
                f"D, row {row + line}, {'block' if name == 'scales' else 'column'} {at + item}: the {manifest['unit']} gives")))
        pieces.append(got)
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in kept}, check


def work(parameters, m, n, k):
    """How much `multiply` says that it advances, by what it calls that."""
    step = _step(parameters)
    rows, columns = -(-m // parameters.rows), -(-n // step) * step
    blocks = (rows * parameters.rows + columns) * -(-k // BLOCK_SIZE)
    return {"Blocks quantized": blocks, "Tiles": rows * columns // parameters.columns}


def multiply(hardware, a, b, c, workers, advance):
    """The `Product` of FP32 matrices ``a`` (M, K), ``b`` (N, K: its columns as rows) and the addend ``c`` (M, N), by `Workers`.

    K is filled up with zeros to whole blocks, M and N to whole tiles, N to whole blocks of D. Golden is the dot product of the
    quantized matrices, which knows of no tiles. ``advance(what, count)`` is called as `work` says.
    """
    started = time.perf_counter()
    p = hardware.parameters
    step = _step(p)
    (m, n), blocks = c.shape, -(-a.shape[1] // BLOCK_SIZE)
    with np.errstate(invalid="ignore", over="ignore"):
        exact = a.astype(np.float64) @ b.T.astype(np.float64) + c
    checks = {}

    def job(name, function, unit, /, **arguments):
        return Job(name=name, function=function, arguments={
            "text": unit.text, "manifest": unit.manifest, "build_dir": workers.build_dir(unit.build_dir), **arguments})

    def quantizing():
        for name, unit, values in zip(sides, hardware.quantizers, sides.values(), strict=True):
            rows = max(1, QUANTIZED // values.shape[1])
            for start in range(0, len(values), rows):
                yield job(f"{name} {start}", _quantized, unit, values=values[start:start + rows], name=name, start=start)

    sides = {"A, row": _padded(a, p.rows, BLOCK_SIZE), "B, column": _padded(b, step, BLOCK_SIZE)}
    operands = {name: _Operand(scales=np.empty((len(values), blocks), np.uint8),
                               codes=np.empty((len(values), blocks, BLOCK_SIZE), np.uint8)) for name, values in sides.items()}
    for done, outcome in workers.run(quantizing()):
        scales, codes, check = needed(done, outcome)
        name, start = done.arguments["name"], done.arguments["start"]
        part = operands[name].part(slice(start, start + len(scales)))
        part.scales[:], part.codes[:] = scales, codes
        checks[name, start] = check
        advance("Blocks quantized", scales.size)

    a, b = operands.values()
    c = _padded(c, p.rows, step).view(np.uint32)
    width = max(1, BEATS // (blocks * (step // p.columns))) * step
    kept = {"scales": (m, c.shape[1] // BLOCK_SIZE), "codes": (m, c.shape[1])} if _is_layer(p) else {"results": (m, n)}
    d = {name: np.empty(shape, np.uint32 if name == "results" else np.uint8) for name, shape in kept.items()}
    tops, lefts = range(0, m, p.rows), range(0, n, width)
    # Columns of B go with many rows of A, since they travel each time; but there is work for all up to the end.
    rows = p.rows * max(1, min(TOGETHER, len(tops) * len(lefts) // (4 * workers.count)))

    def multiplying():
        for top, left in itertools.product(range(0, m, rows), lefts):
            down, across = slice(top, top + rows), slice(left, left + width)
            yield job(f"D, row {top}, column {left}", _multiplied, hardware.tile, p=p, a=a.part(down), b=b.part(across),
                      c=c[down, across], top=top, left=left, kept=kept)

    tiles = 0
    for done, outcome in workers.run(multiplying()):
        got, check = needed(done, outcome)
        top, left = done.arguments["top"], done.arguments["left"]
        for name, values in got.items():
            at = _place(name, left)
            d[name][top:top + len(values), at:at + values.shape[1]] = values
        checks["D", top, left] = check
        count = done.arguments["c"].size // (p.rows * p.columns)
        tiles += count
        advance("Tiles", count)

    total = Comparison()
    for place in sorted(checks):
        total.add(checks[place])
    bits = mxgolden.dequantize(d["codes"], d["scales"], p.d_element)[:, :n] if _is_layer(p) else d["results"]
    return Product(d=bits.view(np.float32), mx=d if _is_layer(p) else None, exact=exact, check=total, pairs=m * n * blocks,
                   beats=tiles * blocks, seconds=time.perf_counter() - started)


def _parts(operand):
    """File and tensor that an operand names: FILE.npy, or FILE.safetensors:NAME."""
    found = re.fullmatch(r"(.*\.safetensors):(.+)", operand)
    return (Path(found[1]), found[2]) if found else (Path(operand), None)


def _tensor(operand, what):
    path, name = _parts(operand)
    try:
        tensors = weights.tensors_of(path)
        if name is None and path.suffix == ".safetensors":
            raise MxforgeError(f"{path} holds {len(tensors)} tensors; name one, as {path}:{tensors[0].name if tensors else 'NAME'}")
        return weights.choose(tensors, [name or tensors[0].name])[0][0]
    except MxforgeError as error:
        raise MxforgeError(f"{what}: {error}") from error


def _values(tensor, what):
    """A matrix' values, and in words what of them is not finite."""
    if len(tensor.shape) != 2:
        raise MxforgeError(f"{what}: {tensor.name} must be a matrix, not of shape {tensor.shape}")
    values = tensor.fp32()
    count = values.size - np.count_nonzero(np.isfinite(values))
    return values, f"{what} holds {count:,} NaN or Inf, whose blocks are NaN" if count else None


def _addend(operand, m, n):
    """The addend as (M, N), and in words what of it is not finite; zeros without one."""
    if operand is None:
        return np.zeros((m, n), np.float32), None
    tensor = _tensor(operand, "C")
    if tensor.shape not in ((n,), (1, n), (m, n)):
        raise MxforgeError(f"C: {tensor.name} must be of shape ({m}, {n}), or ({n},) for each row, not {tensor.shape}")
    c = np.ascontiguousarray(np.broadcast_to(tensor.fp32(), (m, n)))
    count = c.size - np.count_nonzero(np.isfinite(c))
    return c, f"C holds {count:,} NaN or Inf" if count else None


def run(a, b, output, build_dir, *, c=None, transpose_b=False, scale_rule="rceil", requantize=None, jobs=None, scheduler=None,
        progress=None, **options):
    """Multiply the matrices that ``a`` and ``b`` name, add ``c``, save D to the file ``output``, and return a `Result`.

    ``requantize``: the element format that D leaves the hardware in; the file is then an .npz. ``options``: parameters of
    `MatmulTile`. ``jobs``, ``scheduler``: where it is done, see `Workers`. ``progress``: a :class:`rich.progress.Progress`;
    without, nothing is shown. `MxforgeError` for what the user can mend.
    """
    check_output(output)
    if requantize is not None and output.suffix != ".npz":
        raise MxforgeError(f"-o must be an .npz file with --requantize, for scales and codes, not {output}")
    for name, operand in ("A", a), ("B", b), ("C", c):
        if operand is not None and output.exists() and _parts(operand)[0].exists() and output.samefile(_parts(operand)[0]):
            raise MxforgeError(f"the result would replace {name}, {output}; -o must be another file")
    (a, note_a), (b, note_b) = (_values(_tensor(operand, what), what) for operand, what in ((a, "A"), (b, "B")))
    # Columns of B as rows, since blocks lie along K.
    b = b if transpose_b else np.ascontiguousarray(b.T)
    (m, k), n = a.shape, len(b)
    if k != b.shape[1]:
        hint = "" if k != n else f"; {'leave out' if transpose_b else 'try'} --transpose-b"
        raise MxforgeError(f"A has {k} columns, B {b.shape[1]} rows; they must be as many{hint}")
    addend, note_c = _addend(c, m, n)
    if options.get("accumulation") == "exact":
        options["max_blocks"] = max(MatmulTile.Parameters.max_blocks, -(-k // BLOCK_SIZE))
    try:
        if requantize is None:
            p = MatmulTile.Parameters(**options)
        else:
            p = MatmulLayer.Parameters(d_element=requantize, scale_rule=scale_rule, **options)
        Quantizer.Parameters(element=p.a_element, scale_rule=scale_rule)
    except ValueError as error:
        raise MxforgeError(str(error)) from error

    if scheduler is None:
        verilator.find()
        verilator.require_compiler()
    steps = work(p, m, n, k)
    is_small = steps["Tiles"] * -(-k // BLOCK_SIZE) < SMALL
    with Workers(jobs, scheduler, threads=is_small) as workers, shown(progress) as progress:
        building = progress.add_task("Building the Verilog", total=None)
        hardware = Hardware.emitted(p, scale_rule, build_dir, workers.count if scheduler is None else None)
        progress.remove_task(building)
        tasks = {what: progress.add_task(what, total=total) for what, total in steps.items()}
        product = multiply(hardware, a, b, addend, workers, lambda what, count: progress.advance(tasks[what], count))
    with replacing(output) as file:
        if product.mx is None:
            np.save(file, product.d)
        else:
            np.savez(file, **product.mx)

    elements = p.a_element if p.a_element == p.b_element else f"{p.a_element} by {p.b_element}"
    to = "" if requantize is None else f", D as {requantize}"
    check = product.check
    summary = [
        f"{output}: {m} x {n}, K = {k}; {elements}, {p.accumulation}{to}; {product.pairs:,} block pairs in "
        f"{product.beats:,} beats of a {p.rows} x {p.columns} tile, {product.seconds:.2f} s",
        *(note for note in (note_a, note_b, note_c) if note),
        "Nothing is lost against float64" if np.isinf(product.sqnr) else f"SQNR against float64: {product.sqnr:.2f} dB",
        f"{check.compared:,} bit patterns compared with golden, {check.mismatches:,} mismatches"]
    difference = f"{check.mismatches:,} bit patterns differ from golden, first {check.told[0]}" if check.mismatches else None
    return Result(summary="\n".join(summary), difference=difference)
