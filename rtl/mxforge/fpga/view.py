"""A page on this machine that shows a block going through the hardware of a virtual board."""
import contextlib
import inspect
import itertools
import json
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from dataclasses import asdict, fields
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from socketserver import TCPServer

import numpy as np

from mxbench import verilator

from ..errors import MxforgeError, install
from ..formats import ELEMENTS
from ..quantizer import Quantizer
from .design import Design
from .host import Board
from .outcome import OUTCOMES, InputError, difference, outcome, shown, values_of
from .protocol import BAUDS, Command
from .virtual import VirtualBoard
from .waves import waves

__all__ = ["CHOICES", "PORT", "Hardware", "Server", "design_of", "parameters_of"]

# Few lanes, so that a block takes several beats to look at.
_LANES = 4
# What may be chosen: all that a quantizer of FP32 lets choose by name.
CHOICES = {f.name: f for f in fields(Quantizer.Parameters) if "options" in f.metadata and f.name != "source"}
# What each option means, to who meets it on the page.
_MEANINGS = {
    "element": {name: f"{fmt.width} bits, up to {shown(fmt.max_value)}" for name, fmt in ELEMENTS.items()},
    "scale_rule": {
        "rceil": "The smallest power of two under which the largest element is not exceeded, as NVIDIA's software has it.",
        "floor": "The rule of OCP MX v1.0: from the exponent of the largest magnitude alone; what is then too large saturates.",
        "ceil": "As floor, from the next power of two where the largest magnitude is none itself.",
        "even": "As floor, from the largest magnitude rounded to the bits of an element.",
        "floor_plus_1": "Twice that of floor: a binade of headroom.",
        "unit": "Brings all elements within -1 to 1, and wastes those above.",
    },
    "nan_policy": {
        "block": "A NaN or an infinity makes its whole block NaN, as in torchao.",
        "element": "A NaN is one element's. An infinity takes the largest scale, which leaves little of the others: Transformer "
                   "Engine's way.",
    },
    "rounding": {
        "rne": "To the nearest; of two as near, to the one with the even code.",
        "stochastic": "Up or down by chance, more likely to the nearer.",
    },
    "overflow": {
        "saturate": "Beyond the largest element: that one, also for an infinity.",
        "ieee": "Beyond the largest element: infinity, or NaN where the format has none (E4M3).",
    },
}
# Where the page is, if nobody says otherwise and it is free: its links last longer than the server.
PORT = 8032
# Boards that run at a time; runs whose waves may still be asked for.
_BOARDS, _RUNS = 4, 16
# Seconds after which nobody waits any more for a board whose build hasn't begun.
_PATIENCE = 5
# Builds at a time.
_BUILDS = threading.Semaphore(2)
_TROUBLES = MxforgeError, verilator.ToolError, OSError
# Bytes of what the page sends.
_LONGEST = 1 << 16
_PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
                               "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def parameters_of(chosen):
    """The quantizer's parameters with what is ``chosen``, by names; `InputError` names what can't be."""
    try:
        return Quantizer.Parameters(lanes=_LANES, **chosen)
    except (TypeError, ValueError) as error:
        named = next((name for name in CHOICES if str(error).startswith(f"{name} ")), "parameters")
        raise InputError(named, str(error).replace(named, _title(named), 1)) from None


def _title(name):
    """What the page calls a parameter."""
    return name.replace("_", " ").replace("nan", "NaN")


def design_of(p):
    """The board that serves a quantizer's parameters."""
    return Design(board="view", clock=12_000_000, divisor=4, units={
        "quantize": {"lanes": p.lanes} | {name: getattr(p, name) for name in CHOICES},
        "dequantize": {"lanes": p.lanes, "element": p.element}})


class _Machine:
    """A virtual board for a quantizer's parameters; builds and starts in the background."""
    def __init__(self, build_dir, parameters):
        self.parameters = parameters
        self.error = None
        self._build_dir = build_dir
        self._stack = contextlib.ExitStack()
        self._lock = threading.Lock()
        self._started = threading.Event()
        self._is_closed = False
        self._asked = time.monotonic()
        threading.Thread(target=self._start, daemon=True).start()

    def _start(self):
        try:
            with _BUILDS, contextlib.ExitStack() as stack:
                with self._lock:
                    self._is_closed |= time.monotonic() - self._asked > _PATIENCE
                    if self._is_closed:
                        return
                self._virtual = stack.enter_context(VirtualBoard(self._build_dir, design_of(self.parameters), waves=True))
                # Any rate will do.
                self._board = stack.enter_context(Board(self._virtual.port, baud=BAUDS[-1]))
                with self._lock:
                    if not self._is_closed:
                        self._stack = stack.pop_all()
        except Exception as error:
            # Whatever it is, who asks is told.
            self.error = error
        self._started.set()

    def is_started(self, seconds=0.0):
        """Whether it runs, or never will (``error``), within so many seconds."""
        return self._started.wait(seconds)

    def is_wanted(self):
        """Whether it may still be had; its build waits its turn only while this is asked."""
        self._asked = time.monotonic()
        return not self._is_closed

    def play(self, inputs):
        """``(scale, codes, values, vcd)`` of a block of payload fields, and what is needed to draw the last."""
        if self.error:
            raise self.error
        lanes = self.parameters.lanes
        with self._lock, tempfile.TemporaryDirectory(prefix="mxforge-view-") as folder:
            if self._is_closed:
                raise MxforgeError("the board has made room for another; run the block again")
            recorded = Path(folder) / "board.vcd"
            with self._virtual.record(recorded):
                block = self._board.play(Command.QUANTIZE, inputs)
                scale, codes = block["scale"], block["elements"]
                rows = {"scale": scale.repeat(codes.size // lanes), "elements": codes.reshape(-1, lanes)}
                values = self._board.play(Command.DEQUANTIZE, rows)["values"].reshape(codes.shape)
            return scale, codes, values, (recorded.read_bytes(), self._board.ports, self._board.design.divisor)

    def close(self):
        with self._lock:
            self._is_closed = True
            self._stack.close()


class Hardware:
    """Virtual boards for the parameters that were asked for last, and the waves of what they last did."""
    def __init__(self, build_dir):
        self._build_dir = build_dir
        self._lock = threading.Lock()
        self._machines = OrderedDict()
        self._recorded = OrderedDict()
        self._numbers = itertools.count(1)

    def machine(self, parameters):
        """Builds and starts in the background where it doesn't run yet."""
        with self._lock:
            machine = self._machines.pop(parameters, None)
            if machine is None or not machine.is_wanted():
                machine = _Machine(self._build_dir, parameters)
            self._machines[parameters] = machine
            # Who waits for a board would start it anew.
            running = [one for one in self._machines.values() if one.is_started()]
            old = [self._machines.pop(one.parameters) for one in running[:-_BOARDS]]
        for one in old:
            one.close()
        return machine

    def play(self, machine, inputs):
        """``(scale, codes, values, number)`` of a block, the last being for `waves`."""
        try:
            *block, recorded = machine.play(inputs)
        except _TROUBLES:
            # Another one may do better.
            with self._lock:
                if self._machines.get(machine.parameters) is machine:
                    del self._machines[machine.parameters]
            machine.close()
            raise
        with self._lock:
            number = next(self._numbers)
            self._recorded[number] = recorded
            if len(self._recorded) > _RUNS:
                self._recorded.popitem(last=False)
        return *block, number

    def waves(self, number):
        """As :func:`.waves.waves` of a run; `InputError` if that is no longer known."""
        with self._lock:
            if not _is_integer(number) or number not in self._recorded:
                raise InputError("run", f"the waves of run {number} are no longer kept; run the block again")
            recorded = self._recorded[number]
        return waves(*recorded)

    def close(self):
        with self._lock:
            machines = [*self._machines.values()]
            self._machines.clear()
        for machine in machines:
            machine.close()


class _Weights:
    """The demo's weights, if they were fetched."""
    def __init__(self, build_dir):
        self._build_dir = build_dir
        self._amaxes = {}

    def tensors(self, block_size):
        """``({name: tensor}, None)`` of those that are whole blocks, or ``({}, why)`` there are none."""
        try:
            from ..flow import weights
        except ModuleNotFoundError as error:
            return {}, f"The demo's weights need {error.name}: {install('demo')}."
        model = weights.fetched_model(self._build_dir)
        if model is None:
            return {}, f"The weights of {weights.MODEL_NAME} aren't here yet: run `mxforge demo` once, which fetches them (84 MB)."
        chosen, _ = weights.choose(weights.tensors_of(model))
        return {tensor.name: tensor for tensor in chosen if tensor.width % block_size == 0}, None

    def block(self, name, index, block_size):
        """Values of a block of the tensor ``name``, and the tensor's largest magnitude."""
        tensors, why = self.tensors(block_size)
        if not isinstance(name, str) or name not in tensors:
            raise InputError("tensor", why or f"there is no tensor {name!r}")
        tensor = tensors[name]
        blocks = tensor.size // block_size
        if not _is_integer(index) or not 0 <= index < blocks:
            raise InputError("index", f"the block must be a whole number from 0 to {blocks - 1}{_but(index)}")
        row, column = divmod(index * block_size, tensor.width)
        if name not in self._amaxes:
            self._amaxes[name] = np.abs(tensor.fp32()).max()
        return tensor.fp32([row], slice(column, column + block_size))[0], self._amaxes[name]


def _is_integer(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _but(value):
    """What was given, if it was."""
    return "" if value is None else f", not {value!r}"


def _presets(count):
    normal = np.random.default_rng(1).standard_normal(count).round(3)
    ramp = np.linspace(-1, 1, count).round(4)
    special = ["0", "-0", "nan", "inf", "-inf", "0x7fa00000", "1e-45", "-1e-40", "3.4028235e38", "0x1p-126", "448", "464"]
    outlier = normal.copy()
    outlier[count // 3] = 1000
    return {
        "Normal": [shown(x) for x in normal],
        "One outlier": [shown(x) for x in outlier],
        "Tiny": [shown(x * np.float32(2.0 ** -138)) for x in normal.astype(np.float32)],
        "Ramp": [shown(x) for x in ramp],
        "Powers of two": [shown(2.0 ** n) for n in range(8 - count, 8)],
        "Specials": [*special, *(shown(x) for x in normal[len(special):])],
    }


class _Answers:
    """What the page may ask for: each gives what is sent as JSON, with the status."""
    def __init__(self, build_dir):
        self.hardware = Hardware(build_dir)
        self.default = parameters_of({})
        self.hardware.machine(self.default)
        self._weights = _Weights(build_dir)

    def choices(self):
        size = self.default.block_size
        tensors, why = self._weights.tensors(size)
        return 200, {
            "choices": [{"name": name, "title": _title(name), "options": f.metadata["options"], "meanings": _MEANINGS[name],
                         "default": f.default} for name, f in CHOICES.items()],
            "block_size": size, "presets": _presets(size), "outcomes": OUTCOMES,
            "tensors": [{"name": name, "blocks": tensor.size // size} for name, tensor in tensors.items()], "no_tensors": why,
        }

    def block(self, tensor=None, index=None):
        values, amax = self._weights.block(tensor, index, self.default.block_size)
        return 200, {"values": [shown(x) for x in values], "amax": shown(amax)}

    def run(self, values=None, parameters=None, seed=0, elsewhere=""):
        if not isinstance(values, str):
            raise InputError("values", "values must be a text")
        if not isinstance(parameters, dict) or not set(parameters) <= set(CHOICES):
            raise InputError("parameters", f"parameters must be a choice of {', '.join(CHOICES)}, by name")
        p = parameters_of(parameters)
        if not _is_integer(seed) or not 0 <= seed < 1 << 32:
            raise InputError("seed", f"the seed must be a whole number from 0 to {(1 << 32) - 1}{_but(seed)}")
        bits, typed = values_of(values, p.block_size)
        rest = _magnitude(elsewhere)
        machine = self.hardware.machine(p)
        if not machine.is_started(0.3):
            return 202, {"state": "building"}

        inputs = {"values": bits[None]}
        if p.rounding == "stochastic":
            inputs["random"] = np.random.default_rng(seed).integers(0, 1 << 16, (1, p.block_size), np.uint16)
        scale, codes, wide, number = self.hardware.play(machine, inputs)
        answer = outcome(p, bits, scale[0], codes[0], wide[0], rest)
        for n, row in enumerate(answer["rows"]):
            row["typed"] = typed[n]
            if "random" in inputs:
                row["random"] = f"0x{inputs['random'][0, n]:04x}"
        return 200, answer | {"run": number, "parameters": asdict(p), "differences": difference(p, inputs, scale, codes, wide)}

    def waves(self, run=None):
        return 200, self.hardware.waves(run)


def _magnitude(text):
    """The largest magnitude of the rest of a tensor, 0 if nothing is said."""
    if not isinstance(text, str):
        raise InputError("elsewhere", "the magnitude must be a text")
    if not text.strip():
        return 0.0
    try:
        bits, _ = values_of(text, 1)
    except InputError:
        bits = np.full(1, np.nan, np.float32).view(np.uint32)
    number = float(bits.view(np.float32)[0])
    if not 0 <= number < np.inf:
        raise InputError("elsewhere", "the largest magnitude elsewhere must be a finite number, 0 or more, "
                                      f"not '{text.strip()[:24]}'")
    return number


class _Handler(BaseHTTPRequestHandler):
    # Seconds that a client may take to say what it wants.
    timeout = 30
    server_version = "mxforge"
    sys_version = ""

    def log_message(self, *_):
        pass

    def do_GET(self):
        if not self._is_from_here():
            return
        path = self.path.partition("?")[0]
        if path == "/choices":
            self._answer("choices", {})
        elif path in _PAGE:
            name, kind = _PAGE[path]
            self._send(200, resources.files(__package__).joinpath("page", name).read_bytes(), kind)
        else:
            self._refuse(404, "path", "there is no such page")

    def do_POST(self):
        if not self._is_from_here():
            return
        name = self.path.removeprefix("/")
        length = self.headers["Content-Length"] or ""
        if name not in ("run", "block", "waves"):
            self._refuse(404, "path", "there is no such page")
        elif self.headers.get_content_type() != "application/json":
            self._refuse(415, "body", "the body must be JSON, and say so")
        elif not length.isdecimal():
            self._refuse(411, "body", "the body's length must be given")
        # Python makes no numbers of thousands of digits.
        elif len(length) > 9 or int(length) > _LONGEST:
            self._refuse(413, "body", f"the body must be of {_LONGEST} bytes or less")
        else:
            try:
                asked = json.loads(self.rfile.read(int(length)))
            except (ValueError, RecursionError):
                asked = None
            if isinstance(asked, dict):
                self._answer(name, asked)
            else:
                self._refuse(400, "body", "the body must be a JSON object")

    def send_error(self, code, message=None, explain=None):
        """Of requests that never come to a method here."""
        self.close_connection = True
        self._refuse(code, "request", message or HTTPStatus(code).phrase)

    def _is_from_here(self):
        """Whether a page of this server asks: not one of another site whose name leads here, or that sends what it can't read."""
        port = self.server.server_port
        # That of HTTP isn't said.
        hosts = [name if port == 80 else f"{name}:{port}" for name in ("127.0.0.1", "localhost")]
        origin = self.headers["Origin"]
        if self.headers["Host"] in hosts and (origin is None or origin in [f"http://{host}" for host in hosts]):
            return True
        self._refuse(403, "host", f"this is {hosts[0]}, for this machine's own pages only")
        return False

    def _answer(self, name, asked):
        ask = getattr(self.server.answers, name)
        known = [*inspect.signature(ask).parameters]
        try:
            if not set(asked) <= set(known):
                raise InputError("body", f"{name} takes {', '.join(known)}")
            status, answer = ask(**asked)
        except InputError as error:
            self._refuse(400, error.field, str(error), error.span)
        except _TROUBLES as error:
            self._refuse(500, "hardware", str(error))
        else:
            self._send_json(status, answer)

    def _refuse(self, status, field, message, span=None):
        self._send_json(status, {"field": field, "message": message} | ({"span": span} if span else {}))

    def _send_json(self, status, value):
        self._send(status, json.dumps(value, allow_nan=False).encode(), "application/json")

    def _send(self, status, content, kind):
        # One that has gone needs no answer.
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            for name, value in (_HEADERS | {"Content-Type": kind, "Content-Length": len(content)}).items():
                self.send_header(name, str(value))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)


class Server(ThreadingHTTPServer):
    """The page's server, on the loopback only, at ``port`` (0: any that is free; None: `PORT` if that is); its boards end with
    `server_close`.

    ``MxforgeError`` if the port can't be used, :class:`mxbench.verilator.ToolError` if hardware can't be built here.
    """
    daemon_threads = True

    def __init__(self, build_dir, port=None):
        verilator.find()
        verilator.require_compiler()
        self.answers = None
        for tried in (PORT, 0) if port is None else (port,):
            try:
                super().__init__(("127.0.0.1", tried), _Handler)
                break
            except OSError as error:
                trouble = error
        else:
            raise MxforgeError(f"port {tried} can't be used: {trouble.strerror}; --port names another, 0 any that is "
                               "free") from trouble
        self.answers = _Answers(build_dir)

    def server_bind(self):
        # Without a question to a name server.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}/"

    def handle_error(self, request, client_address):
        # A browser drops connections that it made in advance.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def server_close(self):
        super().server_close()
        if self.answers:
            self.answers.hardware.close()
