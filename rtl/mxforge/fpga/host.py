"""The host's side: NumPy arrays in and out, by an accelerator on a board or a virtual one."""
import contextlib
import re
import struct
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from .. import __version__
from ..errors import MxforgeError
from ..flow.player import Beats
from ..formats import WIDES
from . import protocol
from .accelerator import COUNTERS
from .design import Identity
from .link import PATIENCE, Link, SilenceError
from .protocol import BAUDS, Command
from .virtual import VirtualBoard

__all__ = ["Board", "Port", "can_sum"]


class Board:
    """An accelerator: a board at a serial port, or with ``port`` of ``virtual`` its simulation.

    Arrays in and out are NumPy's. Values are numbers, whatever their type; but bit patterns where they are unsigned and as wide as
    the format that they go in as (uint32 for FP32, uint16 for BF16 and FP16). Scales and codes are integers.

    ``port`` may be an open :class:`serial.Serial`; ``baud`` is found by trying where it isn't given. ``patience``: seconds without
    an answer, after which a request is sent again. ``progress`` of methods is called with how many blocks are done more. Threads
    may share a board; one waits while another asks.

    ``MxforgeError`` where the port can't be used or goes away, where nobody answers there (:class:`.SilenceError`), where the
    board refuses something or has other units than this mxforge would build of its parameters, and where arrays don't fit.
    """
    def __init__(self, port="virtual", *, baud=None, build_dir="sim_build", patience=PATIENCE):
        with contextlib.ExitStack() as stack:
            if port == "virtual":
                port = stack.enter_context(VirtualBoard(build_dir)).port
                # Any will do.
                baud = baud or BAUDS[-1]
            self.link, self.identity = self._found(port, baud, patience)
            stack.enter_context(self.link)
            self.design = replace(self.identity.design, mxforge=__version__)
            self._check()
            self.ports = {command: Port(service, self.design) for command, service in self.design.services.items()}
            self._stack = stack.pop_all()

    @classmethod
    def _found(cls, port, baud, patience):
        """The line to the board, and its `Identity`."""
        is_open = not isinstance(port, str)
        bauds = (port.baudrate,) if is_open else (baud,) if baud else BAUDS
        for one in bauds:
            with contextlib.ExitStack() as stack, contextlib.suppress(SilenceError):
                try:
                    link = stack.enter_context(Link(port, one, patience=min(patience, 0.3), tries=3 if len(bauds) > 1 else 20))
                except MxforgeError:
                    # Not every port can have every rate.
                    if one == bauds[-1]:
                        raise
                    continue
                try:
                    identity = Identity.parse(_one(link, Command.IDENTIFY))
                except ValueError as error:
                    raise MxforgeError(f"what answers at {link.port} is no board of mxforge: {error}") from error
                link.set_patience(patience)
                stack.pop_all()
                return link, identity
        raise SilenceError(f"no board of mxforge answers at {link.port} (at {', '.join(f'{one:,}' for one in bauds)} baud); is it "
                           "programmed, and no other program at the port?")

    def close(self):
        self._stack.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _check(self):
        said = self.identity
        try:
            if said.digest == self.design.digest:
                return
        except MxforgeError:
            # Units that this host doesn't know.
            pass
        theirs, ours, of = _order(said.design.mxforge), _order(__version__), ""
        if theirs == ours:
            # Of one version they differ in sources.
            theirs, ours = said.built, max(path.stat().st_mtime for path in Path(__file__).parents[1].rglob("*.py"))
            of = f" (the board was built {_date(theirs)}, the host's files are of {_date(ours)})"
        older, what = ("board", "build and program it anew") if theirs < ours else (
            "host", "install the mxforge that it was built with")
        verdict = f"the {older} {'seems' if of else 'is'} older{of}: {what}"
        if of and not said.built:
            verdict = "which is older isn't known, as the board doesn't say when it was built: build and program it anew"
        raise MxforgeError(f"the board at {self.link.port} ({said.design.board}, mxforge {said.design.mxforge}) has another "
                           f"manifest than this host (mxforge {__version__}); {verdict}")

    def counters(self):
        """Frames by how they ended, as the board counts them (modulo 65,536) since its start or `reset`."""
        return dict(zip(COUNTERS, struct.unpack(f"<{len(COUNTERS)}H", _one(self.link, Command.COUNTERS)), strict=True))

    def reset(self):
        """Units to their start, counters to 0."""
        _one(self.link, Command.RESET)

    def quantize(self, values, progress=None, *, random=None):
        """``values`` (N, block_size), numbers that are cast to the unit's source -> scales (N,), element codes (N, block_size).

        ``random``: for a quantizer that rounds stochastically, integers of 16 bits in the shape of ``values``; else it gets some.
        """
        p = self._parameters(Command.QUANTIZE)
        inputs = {"values": _bits("values", values, p.source)}
        if p.rounding == "stochastic":
            if random is None:
                random = np.random.default_rng().integers(0, 1 << 16, inputs["values"].shape, np.uint16)
            inputs["random"] = _integers("random", random, 16)
        elif random is not None:
            raise MxforgeError(f"the quantizer of the board {self.design.board} rounds to nearest even, without random numbers")
        got = self.play(Command.QUANTIZE, inputs, progress)
        return got["scale"], got["elements"]

    def dequantize(self, scales, codes, progress=None):
        """``scales`` (N,), ``codes`` (N, block_size) -> values (N, block_size): float32, of BF16 and FP16 bit patterns."""
        p = self._parameters(Command.DEQUANTIZE)
        scales, codes = _integers("scales", scales), _integers("codes", codes)
        if codes.ndim != 2 or scales.shape != codes.shape[:1]:
            raise MxforgeError(f"scales and codes must be (N,) and (N, block_size), not {scales.shape} and {codes.shape}")
        blocks, size = codes.shape
        if size % p.lanes:
            raise MxforgeError(f"blocks to dequantize must be of a multiple of {p.lanes} codes, not {size}")
        rows = {"scale": np.repeat(scales, size // p.lanes), "elements": codes.reshape(-1, p.lanes)}
        bits = self.play(Command.DEQUANTIZE, rows, progress)["values"].reshape(blocks, size)
        return bits.view(np.float32) if p.target == "fp32" else bits

    def dot(self, a_scales, a_codes, b_scales, b_codes, c=None, progress=None):
        """Dot products of blocks, (N,) and (N, block_size) of each side, plus ``c`` (N,), else 0: (N,), float32, of BF16 and FP16
        bit patterns.
        """
        p = self._parameters(Command.DOT)
        inputs = {"a_scale": a_scales, "a_elements": a_codes, "b_scale": b_scales, "b_elements": b_codes}
        inputs = {name: _integers(name.replace("elements", "codes"), array) for name, array in inputs.items()}
        if p.addend:
            inputs["c"] = np.zeros(len(inputs["a_scale"]), np.uint32) if c is None else _bits("c", c, "fp32")
        elif c is not None:
            raise MxforgeError(f"the dot product of the board {self.design.board} has no addend")
        bits = self.play(Command.DOT, inputs, progress)["result"]
        return bits.view(np.float32) if p.target == "fp32" else bits

    def matmul(self, a, b, c=None, progress=None):
        """``a`` (M, K) times ``b`` (K, N), numbers, quantized on the board in blocks along K, plus ``c`` (M, N): float32 (M, N)."""
        a, b = np.asarray(a), np.asarray(b).T
        if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
            raise MxforgeError(f"a and b must be (M, K) and (K, N), not {a.shape} and {b.T.shape}")
        if not a.size or not b.size:
            raise MxforgeError(f"a and b must not be empty, as {a.shape} and {b.T.shape} are")
        quantizer, tile = (self._parameters(command) for command in (Command.QUANTIZE, Command.MATMUL))
        block_size = tile.block_size
        made = {(quantizer.element, quantizer.block_size)}
        taken = {(element, block_size) for element in (tile.a_element, tile.b_element)}
        if made != taken:
            raise MxforgeError(f"the board {self.design.board} quantizes to {_blocks(made)}, but multiplies {_blocks(taken)}; "
                               "multiply takes blocks that were quantized elsewhere")
        sides = []
        for side in a, b:
            padded = np.pad(side, ((0, 0), (0, -side.shape[1] % block_size)))
            scales, codes = self.quantize(padded.reshape(-1, block_size), progress)
            sides += [scales.reshape(len(side), -1), codes.reshape(len(side), -1, block_size)]
        return self.multiply(*sides, c, progress)

    def multiply(self, a_scales, a_codes, b_scales, b_codes, c=None, progress=None):
        """Blocks along K of A's rows, (M, blocks) and (M, blocks, block_size), and of B's columns likewise: float32 (M, N).

        A frame takes as many blocks as it holds; where K takes several, the sum goes on from what came of those before, as
        the tile's own does.
        """
        p = self._parameters(Command.MATMUL)
        port = self.ports[Command.MATMUL]
        a_scales, a_codes, b_scales, b_codes = (_integers(name, array) for name, array in (
            ("a_scales", a_scales), ("a_codes", a_codes), ("b_scales", b_scales), ("b_codes", b_codes)))
        for name, scales, codes in ("a", a_scales, a_codes), ("b", b_scales, b_codes):
            if scales.ndim != 2 or not scales.size or codes.shape != (*scales.shape, p.block_size):
                raise MxforgeError(f"{name}_scales and {name}_codes must be (rows, blocks) and (rows, blocks, {p.block_size}), one "
                                   f"or more of each, not {scales.shape} and {codes.shape}")
        if a_scales.shape[1] != b_scales.shape[1]:
            raise MxforgeError(f"a and b must have as many blocks along K, not {a_scales.shape[1]} and {b_scales.shape[1]}")
        if not can_sum(p):
            raise MxforgeError(f"the tile of the board {self.design.board} ({p.accumulation}, {p.target}"
                               f"{'' if p.addend else ', no addend'}) can't go on with a sum; matmul needs fp32_fused or "
                               "fp32_chain, fp32 and an addend")
        (m, blocks), n = a_scales.shape, len(b_scales)
        a, b = (port.panels(p, *side) for side in ((a_scales, a_codes, p.rows), (b_scales, b_codes, p.columns)))
        results = np.zeros((len(a) * p.rows, len(b) * p.columns), np.float32)
        if c is not None:
            if np.shape(c) != (m, n):
                raise MxforgeError(f"c must be of shape ({m}, {n}), not {np.shape(c)}")
            results[:m, :n] = _bits("c", c, "fp32").view(np.float32)
        together, rows, columns = port.cut(blocks, len(a), len(b))
        for first in range(0, blocks, together):
            part = slice(first, first + together)
            places = [(slice(i, i + rows), slice(j, j + columns))
                      for i in range(0, len(a), rows) for j in range(0, len(b), columns)]
            requests = (port.product(a[down, part], b[across, part], _tiles(results, p, down, across)) for down, across in places)
            with contextlib.closing(self.link.ask(requests)) as answers:
                for (down, across), body in zip(places, answers, strict=True):
                    tiles = _tiles(results, p, down, across)
                    port.check(self.link, body, tiles.nbytes)
                    tiles[:] = np.frombuffer(body, np.float32).reshape(tiles.shape)
                    if progress is not None:
                        progress(tiles.shape[0] * tiles.shape[1] * len(range(*part.indices(blocks))))
        return results[:m, :n]

    def _parameters(self, command):
        if command not in self.ports:
            raise MxforgeError(f"the board {self.design.board} has no {command.name.lower()}")
        return self.design.services[command].core.parameters

    def play(self, command, inputs, progress=None):
        """A unit's outputs for ``inputs``, both by payload fields: arrays of bit patterns, a row a block.

        ``progress(blocks)`` is told of blocks that are done.
        """
        self._parameters(command)
        return self.ports[command].play(self.link, inputs, progress)


def can_sum(p):
    """Whether a tile with the parameters ``p`` can go on with a sum, as `Board.multiply` needs it."""
    return p.addend and p.target == "fp32" and p.accumulation in ("fp32_fused", "fp32_chain")


def _one(link, command):
    body, = link.ask([(command, b"")])
    return body


def _order(version):
    return [int(part) for part in re.findall(r"\d+", version)]


def _date(seconds):
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _blocks(kinds):
    return " and ".join(f"{element} in blocks of {size}" for element, size in sorted(kinds))


def _bits(name, values, wide):
    """Bit patterns of numbers in the format ``wide``; unsigned integers of its width are such. NumPy has no numbers of BF16."""
    values = np.asarray(values)
    if values.dtype.kind == "u" and values.dtype.itemsize * 8 == WIDES[wide].width:
        return values
    if wide == "bf16":
        raise MxforgeError(f"this board takes {name} of BF16: give it bit patterns, numpy.uint16, not {values.dtype}")
    if values.dtype.kind not in "fiub":
        raise MxforgeError(f"{name} must be real numbers, not {values.dtype}")
    kind = {"fp32": np.float32, "fp16": np.float16}[wide]
    return np.ascontiguousarray(values, kind).view(np.dtype(f"u{np.dtype(kind).itemsize}"))


def _integers(name, values, width=8):
    """``values`` as unsigned integers of ``width`` bits; ``MxforgeError`` if they aren't."""
    values = np.asarray(values)
    if values.dtype.kind not in "iu" and values.size:
        raise MxforgeError(f"{name} must be integers, not {values.dtype}")
    if values.size and not 0 <= values.min() <= values.max() < 1 << width:
        raise MxforgeError(f"{name} must be from 0 to {(1 << width) - 1}, not {values.min()} to {values.max()}")
    return values.astype(f"u{width // 8}", copy=False)


def _tiles(results, p, down, across):
    """A view of ``results``: (panels of A, panels of B, rows, columns)."""
    whole = results.reshape(len(results) // p.rows, p.rows, -1, p.columns).swapaxes(1, 2)
    return whole[down, across]


class Port:
    """Rows of the payload fields of a `Design`'s `Service` as requests, and answers as rows."""
    def __init__(self, service, design):
        manifest = design.manifest["units"][service.command.name.lower()]
        self.command = service.command
        self.service = service
        self.inputs = Beats(manifest["ports"]["i__payload"], manifest["beats"]["i"])
        self.outputs = Beats(manifest["ports"]["o__payload"], manifest["beats"]["o"])
        self.input_bytes = service.input_bytes[0]
        self.output_bytes = service.output_bytes
        self.answered = self.output_bytes * self.outputs.beats
        self.limit = design.limit
        self.fixed = protocol.ASKED + protocol.COUNTS.size
        # Blocks of a frame: the answer's must fit too, and be no longer than the request.
        self.blocks = min((design.limit - self.fixed) // (self.input_bytes * self.inputs.beats),
                          (design.limit * 32 // 33 - 32) // self.answered, 0xFFFF)

    def request(self, rows):
        """For rows of inputs, as :meth:`.Beats.check` gives them; no more than `blocks`."""
        payloads = self.inputs.pack(rows)
        count = len(payloads) // self.inputs.beats
        body = protocol.COUNTS.pack(count, 1, 1) + payloads[:, :self.input_bytes].tobytes()
        return self.command, self.filled(body, count * self.answered)

    def rows(self, body):
        """Rows of outputs, of an answer's body."""
        payloads = np.zeros((len(body) // self.output_bytes, self.outputs.size), np.uint8)
        payloads[:, :self.output_bytes] = np.frombuffer(body, np.uint8).reshape(len(payloads), -1)
        rows = self.outputs.empty(len(payloads) // self.outputs.beats)
        self.outputs.unpack(payloads, rows)
        return rows

    def check(self, link, body, wanted):
        """``MxforgeError`` unless the body of an answer has as many bytes as are ``wanted``."""
        if len(body) != wanted:
            raise MxforgeError(f"the board at {link.port} answered {len(body)} bytes to {self.command.name.lower()}, not {wanted}")

    @staticmethod
    def filled(body, answered):
        """The body of a request, as long as one must be whose answer's body has ``answered`` bytes."""
        return body.ljust(protocol.least_request(answered + protocol.ANSWERED) - protocol.ASKED, b"\0")

    def play(self, link, inputs, progress=None):
        """Outputs for inputs, arrays by payload fields; see `Board.play`."""
        try:
            rows, total = self.inputs.check(inputs)
        except ValueError as error:
            raise MxforgeError(f"{self.command.name.lower()}: {error}") from None
        outputs = self.outputs.empty(total)
        starts = range(0, total, self.blocks)
        requests = (self.request({name: array[start:start + self.blocks] for name, array in rows.items()}) for start in starts)
        # However it ends, others may ask then.
        with contextlib.closing(link.ask(requests)) as answers:
            for start, body in zip(starts, answers, strict=True):
                count = min(self.blocks, total - start)
                self.check(link, body, count * self.answered)
                for name, array in self.rows(body).items():
                    outputs[name][start:start + count] = array
                if progress is not None:
                    progress(count)
        return outputs

    def panels(self, p, scales, codes, lines):
        """Panels of ``lines`` rows each, those that are missing 0: bytes of beats (panels, blocks, beats, bytes), of uint8."""
        blocks, beats = scales.shape[1], self.inputs.beats
        filling = -len(scales) % lines
        scales = np.pad(scales, ((0, filling), (0, 0))).reshape(-1, lines, blocks)
        codes = np.pad(codes, ((0, filling), (0, 0), (0, 0))).reshape(-1, lines, blocks, beats, p.lanes)
        # Of a beat the scales of all rows, then their elements.
        scales = np.broadcast_to(scales.transpose(0, 2, 1)[:, :, None], (len(scales), blocks, beats, lines))
        return np.concatenate([scales, codes.transpose(0, 2, 3, 1, 4).reshape(len(scales), blocks, beats, -1)], axis=3)

    def cut(self, blocks, rows, columns):
        """Of a product of so many blocks, panels of A and of B: how many of each a frame takes, for the fewest bytes in all."""
        a, b, c = self.service.input_bytes
        best = None
        for i in range(1, min(rows, 255) + 1):
            for j in range(1, min(columns, 255) + 1):
                if (i * j * c) * 33 // 32 + 32 > self.limit:
                    break
                k = min(blocks, (self.limit - self.fixed - i * j * c) // ((i * a + j * b) * self.inputs.beats))
                if k < 1:
                    break
                frames = -(-blocks // k) * -(-rows // i) * -(-columns // j)
                size = frames * (self.fixed + i * j * c + k * (i * a + j * b) * self.inputs.beats)
                if best is None or size < best[0]:
                    best = size, k, i, j
        return best[1:]

    def product(self, a, b, tiles):
        """For a product of panels, added to ``tiles`` (panels of A, panels of B, rows, columns)."""
        body = protocol.COUNTS.pack(a.shape[1], len(a), len(b)) + a.tobytes() + b.tobytes() + tiles.tobytes()
        return self.command, self.filled(body, tiles.nbytes)
