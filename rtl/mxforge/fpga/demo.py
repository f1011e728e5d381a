"""The demo on a board: real weights through its units, every bit compared with golden."""
import time
from dataclasses import asdict, dataclass, field

import numpy as np

import mxgolden

from ..element_cast import RANDOM_WIDTH
from ..errors import MxforgeError
from ..flow import demo, weights
from ..flow.checked import Comparison, compared
from ..flow.demo import BLOCK_SIZE
from ..flow.jobs import shown
from .design import SERVICES
from .host import Board, can_sum
from .link import Traffic
from .protocol import Command

__all__ = ["Outcome", "run"]

# Vectors of activations that a tile multiplies rows with.
_VECTORS = 8


@dataclass(kw_only=True)
class Outcome:
    """The demo's `Results` of a ``board``, told in words: what of it was ``done``, what was ``left`` out and why, the ``seconds``
    that blocks took there and back, what went over the line (``traffic``), and what the board counted.
    """
    board: str
    results: demo.Results
    done: list = field(default_factory=list)
    left: list = field(default_factory=list)
    seconds: float = 0.0
    traffic: Traffic = field(default_factory=Traffic)
    counters: dict = field(default_factory=dict)

    @property
    def lines(self):
        """All that the table of tensors doesn't say."""
        results, traffic = self.results, self.traffic
        blocks, carried = results.total("blocks"), traffic.sent + traffic.received
        counted = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in self.counters.items() if name != "ok")
        return [
            *results.notes, *(f"Not on the board: {words}." for words in self.left), self.board,
            f"{results.compared:,} bit patterns compared with golden, {results.mismatches:,} mismatches: {', '.join(self.done)}",
            f"{blocks * BLOCK_SIZE / self.seconds:,.0f} values/s, {blocks / self.seconds:,.0f} blocks/s; "
            f"{carried / 1e6:,.2f} MB over the line, {carried / 1e3 / traffic.seconds:,.0f} kB/s",
            f"{traffic.requests:,} frames, {traffic.again:,} of them sent again; damaged {traffic.damaged:,} here, at the board "
            f"{counted}",
            *(f"Mismatch: {line}" for line in results.told)]


class _Unit:
    """A unit of a board beside golden, played as a :class:`.Checked` is. ``advance(rows)`` is told of those that are done."""
    def __init__(self, board, command, advance=None):
        self.parameters = board.design.services[command].core.parameters
        self._board = board
        self._command = command
        self._advance = advance

    def play(self, inputs, where):
        outputs = self._board.play(self._command, inputs, self._advance)
        return outputs, compared(SERVICES[self._command], asdict(self.parameters), inputs, outputs, where)


class _Quantizer(_Unit):
    """It takes FP32, which is rounded to the unit's source."""
    def __init__(self, board, advance=None):
        super().__init__(board, Command.QUANTIZE, advance)
        self._rng = np.random.default_rng(0)

    def play(self, inputs, where):
        p = self.parameters
        if p.source != "fp32":
            inputs = {"values": mxgolden.encode(inputs["values"].view(np.float32), p.source)}
        if p.rounding == "stochastic":
            inputs = inputs | {"random": self._rng.integers(1 << RANDOM_WIDTH, size=inputs["values"].shape, dtype=np.uint16)}
        return super().play(inputs, where)


class _Dequantizer(_Unit):
    """It takes blocks, which are cut into the unit's lanes, and gives FP32."""
    def __init__(self, board, advance):
        super().__init__(board, Command.DEQUANTIZE, lambda rows: advance(rows * self.parameters.lanes / BLOCK_SIZE))

    def play(self, inputs, where):
        lanes = self.parameters.lanes
        codes = np.pad(inputs["elements"], ((0, 0), (0, -BLOCK_SIZE % lanes)))
        size = codes.shape[1]
        outputs, check = super().play({"scale": np.repeat(inputs["scale"], size // lanes), "elements": codes.reshape(-1, lanes)},
                                      lambda row, lane: where(*divmod(row * lanes + lane, size)))
        values = outputs["values"].reshape(codes.shape)[:, :BLOCK_SIZE]
        return {"values": _as_fp32(values, self.parameters.target).view(np.uint32)}, check


class _GoldenDequantizer:
    """In the place of a board's."""
    def __init__(self, element):
        self._element = element

    def play(self, inputs, where):
        return {"values": mxgolden.dequantize(inputs["elements"], inputs["scale"][:, None], self._element)}, Comparison()


class _Dot(_Unit):
    """It gives sums with ``c`` as FP32; where the unit has no addend, they are added here."""
    def __init__(self, board, advance):
        super().__init__(board, Command.DOT, advance)

    def play(self, inputs, where):
        p = self.parameters
        outputs, check = super().play(inputs if p.addend else {name: inputs[name] for name in inputs if name != "c"}, where)
        sums = _as_fp32(outputs["result"], p.target)
        if not p.addend:
            # As in hardware, infinities of both signs make a NaN.
            with np.errstate(invalid="ignore", over="ignore"):
                sums = sums + inputs["c"].view(np.float32)
        return {"result": sums.view(np.uint32)}, check


def _as_fp32(bits, wide):
    """Values of codes of FP32, BF16 or FP16, exactly."""
    return np.ascontiguousarray(bits).view(np.float32) if wide == "fp32" else mxgolden.decode(bits, wide).astype(np.float32)


def _multiply(board, quantizer, tensor, advance):
    """Some rows of ``tensor`` times random activations by the board's tile: `Comparison`."""
    p = board.design.services[Command.MATMUL].core.parameters
    rows, _, scales, elements, check = demo.operands(quantizer, tensor, _VECTORS)
    (a_scales, b_scales), (a, b) = (np.split(array, [len(rows)]) for array in (scales, elements))
    got = board.multiply(a_scales, a, b_scales, b, progress=advance).view(np.uint32)
    for vector in range(_VECTORS):
        wanted = mxgolden.dot(a.reshape(len(a), -1), a_scales, b[vector].ravel(), b_scales[vector], np.zeros(len(a), np.uint32),
                              p.a_element, p.b_element, p.accumulation)
        check.add(Comparison.of(got[:, vector], wanted, lambda row, vector=vector: (
            f"{tensor.name} row {rows[row]}, product with vector {vector}: the matmul_tile gives")))
    return check


def _tiles(board, tensor):
    """What `_multiply` tells of a tensor in all."""
    p = board.design.services[Command.MATMUL].core.parameters
    rows = demo.product_count(tensor)
    blocks = demo.block_count(tensor) // tensor.rows
    return -(-(rows // blocks) // p.rows) * -(-_VECTORS // p.columns) * blocks


def _obstacle(board, command, element):
    """Why a unit of the board can't go on with blocks of ``element``, in words; None if it can."""
    p = board.design.services[command].core.parameters
    elements = {getattr(p, name) for name in ("element", "a_element", "b_element") if hasattr(p, name)}
    if elements != {element}:
        return f"its elements are {' and '.join(sorted(elements))}, those of quantize {element}"
    if getattr(p, "block_size", BLOCK_SIZE) != BLOCK_SIZE:
        return f"its blocks are of {p.block_size} elements"
    if command == Command.MATMUL and not can_sum(p):
        return "its tile can't go on with a sum"
    return None


def _quantized(board):
    """The element format of the board's blocks. ``MxforgeError`` unless it can do the demo."""
    if Command.QUANTIZE not in board.ports:
        raise MxforgeError(f"the board {board.design.board} has no quantize, which the demo needs; it has "
                           f"{', '.join(board.design.units) or 'no units'}")
    p = board.design.services[Command.QUANTIZE].core.parameters
    if p.block_size != BLOCK_SIZE:
        raise MxforgeError(f"the board {board.design.board} quantizes blocks of {p.block_size} values, not of {BLOCK_SIZE}")
    return p.element


def _words(board):
    design = board.design
    return (f"Board {design.board} at {board.link.port}: mxforge {design.mxforge}, {design.clock / 1e6:g} MHz, {design.baud:,} "
            f"baud; {', '.join(design.units)}")


def _able(board, element):
    """The commands of the board that can be compared on blocks of ``element``; and a line for each of the others."""
    obstacles = {command: _obstacle(board, command, element) for command in board.ports if command != Command.QUANTIZE}
    return ({command for command, obstacle in obstacles.items() if obstacle is None},
            [f"{command.name.lower()}, since {obstacle}" for command, obstacle in obstacles.items() if obstacle])


def _compare(board, tensors, outcome, task):
    """All that the board can do with ``tensors``. ``task(what, total)`` gives what is told how much more of it is done."""
    results = outcome.results
    able, outcome.left = _able(board, results.element)
    blocks = sum(map(demo.block_count, tensors))
    is_whole = Command.DEQUANTIZE in able
    what = "quantized and dequantized" if is_whole else "quantized"
    advance = task(f"Blocks {what}", blocks)
    if is_whole:
        def halfway(blocks):
            advance(blocks / 2)
        units = _Quantizer(board, halfway), _Dequantizer(board, halfway)
    else:
        units = _Quantizer(board, advance), _GoldenDequantizer(results.element)
    started = time.perf_counter()
    demo.send(results, *units, tensors, jobs=1)
    outcome.seconds = time.perf_counter() - started
    outcome.done.append(f"{blocks:,} blocks {what}")

    checks = {result.name: result.check for result in results.tensors}
    matrices = demo.multiplied(tensors)
    quantizer = _Quantizer(board)
    if Command.DOT in able and matrices:
        products = sum(map(demo.product_count, matrices))
        dot = _Dot(board, task("Block products", products))
        for tensor in matrices:
            checks[tensor.name].add(demo.product(quantizer, dot, tensor)[0])
        outcome.done.append(f"{products:,} block products")
    if Command.MATMUL in able and matrices:
        tiles = sum(_tiles(board, tensor) for tensor in matrices)
        advance = task("Tiles", tiles)
        for tensor in matrices:
            checks[tensor.name].add(_multiply(board, quantizer, tensor, advance))
        outcome.done.append(f"{tiles:,} tiles")


def run(file=None, names=(), *, port="virtual", baud=None, build_dir="sim_build", progress=None, say=print):
    """Run the demo's tensors through the board at ``port``: an `Outcome`. ``file`` and ``names`` are as of :func:`.flow.demo.run`,
    ``port`` and ``baud`` as of a `Board`; ``progress``: a :class:`rich.progress.Progress`; ``say(line)`` tells of what is fetched.

    Blocks are quantized and dequantized, and some rows of the matrices are multiplied with activations by the dot product and by
    the tile, as far as the board has these units. ``MxforgeError`` if it has no quantizer, or as of a `Board`.
    """
    # Before anything is built.
    chosen = None if file is None else weights.choose(weights.tensors_of(file), names)
    with shown(progress) as progress:
        def task(what, total):
            number = progress.add_task(what, total=total)
            return lambda count: progress.advance(number, count)

        opening = progress.add_task("Virtual board" if port == "virtual" else f"Board at {port}", total=None)
        with Board(port, baud=baud, build_dir=build_dir) as board:
            progress.remove_task(opening)
            element = _quantized(board)
            board.reset()
            tensors, skipped = chosen or weights.choose(weights.tensors_of(weights.fetch_model(build_dir, say)), names)
            outcome = Outcome(board=_words(board), results=demo.Results(
                source=str(file or weights.MODEL_NAME), element=element,
                skipped=[f"{tensor.name} {tensor.obstacle}" for tensor in skipped]))
            _compare(board, tensors, outcome, task)
            outcome.counters = board.counters()
            outcome.traffic = board.link.traffic
    return outcome
