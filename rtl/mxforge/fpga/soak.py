"""A soak of the host link: many requests over a line that damages, loses and doubles bytes, and hosts that vanish."""
import contextlib
import time
from dataclasses import asdict, dataclass, field
from importlib import import_module

import numpy as np
from cobs import cobs

import mxgolden
from mxbench.stimulus.floats import codes

from ..errors import MxforgeError
from . import protocol
from .design import SERVICES
from .host import Board, Port, can_sum
from .link import SilenceError, opened
from .protocol import Command
from .virtual import VirtualBoard

__all__ = ["NoisyPort", "Outcome", "run", "summary"]

# Requests that are asked together, and after how many of such batches a host vanishes in the middle of a frame.
_BATCH, _BATCHES = 64, 4
# Blocks of a request, if it isn't as long as one can be, once in so often; and those that are made in advance.
_BLOCKS, _LONG, _POOL = 3, 1000, 4096
# Seconds, and tries of a request. What is lost is waited for often here, and a long frame often meets a fault.
_PATIENCE, _TRIES = 0.5, 100


class NoisyPort:
    """A serial port where each way, about once in ``every`` bytes, something goes wrong: a bit is flipped, a few bytes are lost,
    come twice, or are made up, a whole write is lost or comes twice.
    """
    KINDS = "flipped", "lost", "doubled", "made up", "write lost", "write doubled"

    def __init__(self, port, every, rng):
        self._port = port
        self._every = every
        # Reader and writer are threads of their own.
        self._rngs = dict(zip(("write", "read"), rng.spawn(2), strict=True))
        self.done = dict.fromkeys(self.KINDS, 0)

    def __getattr__(self, name):
        return getattr(self._port, name)

    def _damaged(self, data, kinds, rng):
        if rng.random() * self._every >= len(data):
            return data
        kind = str(rng.choice(kinds))
        self.done[kind] += 1
        at = int(rng.integers(len(data)))
        few = int(rng.integers(1, 4))
        match kind:
            case "flipped":
                return data[:at] + bytes([data[at] ^ 1 << int(rng.integers(8))]) + data[at + 1:]
            case "lost":
                return data[:at] + data[at + few:]
            case "doubled":
                return data[:at] + data[at:at + few] + data[at:]
            case "made up":
                return data[:at] + rng.bytes(few) + data[at:]
            case "write lost":
                return b""
            case "write doubled":
                return data + data

    def write(self, data):
        return self._port.write(self._damaged(bytes(data), self.KINDS, self._rngs["write"]))

    def read(self, size=1):
        return self._damaged(self._port.read(size), self.KINDS[:4], self._rngs["read"])


@dataclass(kw_only=True)
class Outcome:
    """``requests`` answered in ``seconds``, of them ``wrong``; hosts that ``vanished``; what the ports did to the line, and what
    the hosts and the board noticed of it. ``hang``: in words how the board stopped answering, if it did.
    """
    requests: int = 0
    seconds: float = 0.0
    wrong: int = 0
    vanished: int = 0
    hang: str | None = None
    noise: dict = field(default_factory=dict)
    noticed: dict = field(default_factory=dict)
    counters: dict = field(default_factory=dict)


def _add(counts, to):
    for name, count in counts.items():
        to[name] = to.get(name, 0) + count


class _Questions:
    """Random requests to a port of a board, and what golden says to them."""
    def __init__(self, port, rng):
        self.port = port
        self._rng = rng
        self._parameters = asdict(port.service.core.parameters)
        unit = SERVICES[port.command]
        self._is_tile = port.service.is_tile
        if not self._is_tile:
            self._rows, _ = port.inputs.check(import_module(f"mxbench.stimulus.{unit}").blocks(self._parameters, _POOL, rng))
            self._expected = import_module(f"mxgolden.{unit}").expected(self._parameters, self._rows)

    def __call__(self):
        """A request, and the bytes of the answer's body."""
        if self._is_tile:
            return self._product()
        count = int(self._rng.integers(1, min(_BLOCKS, self.port.blocks) + 1))
        if not self._rng.integers(_LONG):
            count = min(self.port.blocks, _POOL - 1)
        part = slice(start := int(self._rng.integers(_POOL - count)), start + count)
        expected = self.port.outputs.pack({name: array[part] for name, array in self._expected.items()})
        return (self.port.request({name: array[part] for name, array in self._rows.items()}),
                expected[:, :self.port.output_bytes].tobytes())

    def _product(self):
        p, rng = self.port.service.core.parameters, self._rng
        blocks, *panels = (int(count) for count in rng.integers(1, 4, 3))
        sides, tiles = [], []
        for element, lines, count in zip((p.a_element, p.b_element), (p.rows, p.columns), panels, strict=True):
            scales = rng.integers(118, 138, (count * lines, blocks), np.uint8)
            sides.append((scales, codes(element, (count * lines, blocks * p.block_size), rng)))
            tiles.append(self.port.panels(p, scales, sides[-1][1].reshape(len(scales), blocks, -1), lines))
        (a_scales, a), (b_scales, b) = sides
        c = rng.normal(size=(len(a), len(b))).astype(np.float32)
        wanted = mxgolden.dot(a[:, None], a_scales[:, None], b, b_scales, c.view(np.uint32), p.a_element, p.b_element,
                              p.accumulation)
        by_tiles = (array.reshape(panels[0], p.rows, panels[1], p.columns).swapaxes(1, 2) for array in (c, wanted))
        addends, expected = (np.ascontiguousarray(array) for array in by_tiles)
        return self.port.product(*tiles, addends), expected.tobytes()


def run(port, frames, *, baud=None, every=5000, seed=1, build_dir="sim_build", progress=None):
    """Ask ``frames`` requests of the board at ``port``, over a `NoisyPort` with a fault ``every`` so many bytes, and compare each
    answer with golden: an `Outcome`. ``progress(requests)`` is told of those that are done. ``baud`` as of a `Board`.
    ``MxforgeError`` if the board can't be used from the start, or if its port goes away.
    """
    rng = np.random.default_rng(seed)
    outcome = Outcome()
    with contextlib.ExitStack() as stack:
        if port == "virtual":
            port = stack.enter_context(VirtualBoard(build_dir)).port
        with Board(port, baud=baud) as board:
            baud = board.link.baud
            board.reset()
            # Of other tiles the answers aren't plain sums.
            asked = [one for one in board.ports.values() if not one.service.is_tile or can_sum(one.service.core.parameters)]
            if not asked:
                raise MxforgeError(f"the board {board.design.board} has no unit that a soak can ask")
            questions = [_Questions(one, rng) for one in asked]
            identity, = board.link.ask([(Command.IDENTIFY, b"")])
            who = Command.IDENTIFY, Port.filled(b"", len(identity))
            questions.append(lambda: (who, identity))
        started = time.perf_counter()
        try:
            while outcome.requests < frames:
                noisy = NoisyPort(opened(port, baud), every, rng)
                _visit(noisy, questions, frames, rng, outcome, progress)
            with Board(port, baud=baud) as board:
                outcome.counters = board.counters()
        except SilenceError as error:
            outcome.hang = str(error)
        outcome.seconds = time.perf_counter() - started
    return outcome


def _visit(noisy, questions, frames, rng, outcome, progress):
    """What one host asks, until it vanishes in the middle of a frame."""
    with Board(noisy, patience=_PATIENCE) as board:
        board.link.set_patience(_PATIENCE, _TRIES)
        try:
            for _ in range(_BATCHES):
                asked = [questions[int(rng.integers(len(questions)))]() for _ in range(min(_BATCH, frames - outcome.requests))]
                answers = board.link.ask(request for request, _ in asked)
                for (_, wanted), body in zip(asked, answers, strict=True):
                    outcome.wrong += body != wanted
                    outcome.requests += 1
                if progress is not None:
                    progress(len(asked))
            (command, body), _ = questions[0]()
            frame = cobs.encode(protocol.request(command, 0, body))
            noisy.write(frame[:int(rng.integers(len(frame)))])
            outcome.vanished += 1
        finally:
            _add(noisy.done, outcome.noise)
            _add(asdict(board.link.traffic), outcome.noticed)


def summary(outcome):
    """``(headings, rows)`` of a table of what was done to the line and what became of it."""
    here = {"requests sent again": "again", "answers that nobody waited for": "stray", "complaints of the board": "complaints",
            "answers that came damaged": "damaged"}
    rows = [("frames", "answered", outcome.requests), ("", "wrong", outcome.wrong),
            ("hosts", "vanished in the middle of a frame", outcome.vanished),
            *(("faults", kind, count) for kind, count in outcome.noise.items()),
            *(("noticed by the host", words, outcome.noticed.get(name, 0)) for words, name in here.items()),
            # Those that were good are too many for its counter.
            *(("noticed by the board", name.replace("_", " "), count) for name, count in outcome.counters.items() if name != "ok")]
    return ["", "", "count"], [[group if not n or group != rows[n - 1][0] else "", what, f"{count:,}"]
                               for n, (group, what, count) in enumerate(rows)]
