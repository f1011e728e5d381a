"""Vectors through emitted Verilog: a generated C++ program round the Verilated unit, fed with whole arrays."""
import itertools
import json
import queue
import subprocess
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from mxbench import verilator
from mxbench.manifest import as_streams, dtype_of

__all__ = ["Beats", "Player", "ProtocolError", "Statistics", "build", "check", "check_waves"]

_TRACES = {".fst": "TRACE_FST", ".vcd": "TRACE_VCD"}
# Rows that are packed at a time: small enough for the cache, large enough that NumPy's calls don't count.
_PACKED_BYTES = 1 << 20
# Packing, simulation and unpacking go on side by side; more would exhaust what Linux grants the pipes of many players.
_PIPE_BYTES = 1 << 18


class ProtocolError(RuntimeError):
    """The unit broke a rule of its contract: the hardware is wrong, not the data."""


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What a play measured, in cycles; ``latency`` and ``interval`` as the manifest defines them, at full speed only.

    Where an input doesn't always give an output, ``latency`` is that of the last input, if that gave one. ``interval`` is
    None with less than two inputs, both are with stalls. ``input_rate`` and ``output_rate`` are transfers a cycle, from the
    first to the last.
    """
    cycles: int
    inputs: int
    outputs: int
    latency: int | None
    interval: float | None
    input_rate: float
    output_rate: float


class Beats:
    """One port's payload: its fields in rows, and its bytes as the Verilated port has them.

    A payload of up to 64 bits takes the next power of two of bytes, a wider one whole 32-bit words.
    """
    def __init__(self, port, beats):
        self.beats = beats
        self.fields = port["fields"]
        self.width = port["width"]
        for field in self.fields:
            if field["width"] > 64:
                raise ValueError(f"fields may have up to 64 bits, not {field['width']} ({field['name']})")
        size = (self.width + 7) // 8
        self.size = 1 << (size - 1).bit_length() if size <= 8 else (size + 3) // 4 * 4

    def _shape(self, field, rows):
        return (rows, field["count"] * self.beats) if "count" in field else (rows,)

    def describe(self):
        return ", ".join(
            f"{field['name']} ({'N, ' + str(field['count'] * self.beats) if 'count' in field else 'N'}) of "
            f"{field['width']} bit" + "s" * (field["width"] > 1) for field in self.fields)

    def check(self, rows):
        """``rows`` as arrays, and how many; ``ValueError`` unless they fit the fields."""
        if set(rows) != {field["name"] for field in self.fields}:
            raise ValueError(f"inputs must be {self.describe()}, not {', '.join(sorted(rows)) or 'nothing'}")
        rows = {field["name"]: np.asarray(rows[field["name"]]) for field in self.fields}
        counts = {name: len(array) if array.ndim else 0 for name, array in rows.items()}
        for field in self.fields:
            name, array = field["name"], rows[field["name"]]
            if array.dtype.kind not in "ub":
                hint = f"; x.view(numpy.{dtype_of(array.dtype.itemsize * 8)}) has a float's" if array.dtype.kind == "f" else ""
                raise ValueError(f"{name} must be unsigned integers (bit patterns, {dtype_of(field['width'])}), "
                                 f"not {array.dtype}{hint}")
            if array.shape != self._shape(field, counts[name]) or not array.ndim:
                wanted = f"N, {field['count'] * self.beats}" if "count" in field else "N"
                raise ValueError(f"{name} must have the shape ({wanted}), not {array.shape}")
            if array.dtype.itemsize * 8 > field["width"] and array.size and array.max() >> field["width"]:
                raise ValueError(f"{name} must be below 2**{field['width']}, not {array.max()}")
        if len(set(counts.values())) > 1:
            raise ValueError("inputs must have as many rows each, not "
                             + ", ".join(f"{name} {count}" for name, count in counts.items()))
        return rows, max(counts.values())

    def empty(self, rows):
        return {field["name"]: np.empty(self._shape(field, rows), dtype_of(field["width"])) for field in self.fields}

    def _pieces(self, field, lane):
        """Where an item lies, as (32-bit word, shift in the word, shift in the item, bits)."""
        position = field["offset"] + lane * field["width"]
        taken = 0
        while taken < field["width"]:
            word, shift = divmod(position + taken, 32)
            bits = min(32 - shift, field["width"] - taken)
            yield word, shift, taken, bits
            taken += bits

    @staticmethod
    def _whole_bytes(field):
        return field["offset"] % 8 == 0 and field["width"] % 8 == 0

    def pack(self, rows):
        """The payloads of ``rows``: uint8 (beats, size)."""
        count = len(next(iter(rows.values()))) * self.beats
        words = np.zeros((count, -(-self.size // 4)), np.uint32)
        payloads = words.view(np.uint8)
        for field in self.fields:
            array = rows[field["name"]].astype(dtype_of(field["width"]), copy=False)
            lanes = field.get("count")
            array = np.repeat(array, self.beats) if lanes is None else np.ascontiguousarray(array)
            array = array.reshape(count, lanes or 1)
            if self._whole_bytes(field):
                start, width = field["offset"] // 8, field["width"] // 8
                items = array.view(np.uint8).reshape(count, lanes or 1, array.itemsize)[:, :, :width]
                payloads[:, start:start + (lanes or 1) * width] = items.reshape(count, -1)
                continue
            for lane in range(lanes or 1):
                item = array[:, lane]
                for word, shift, taken, _ in self._pieces(field, lane):
                    words[:, word] |= (item >> item.dtype.type(taken)).astype(np.uint32) << np.uint32(shift)
        return payloads if payloads.shape[1] == self.size else np.ascontiguousarray(payloads[:, :self.size])

    def unpack(self, payloads, out):
        """Fill the arrays of ``out`` from ``payloads``, uint8 (beats, size)."""
        count = len(payloads)
        padded = -(-self.size // 4) * 4
        if padded != self.size:
            payloads = np.pad(payloads, ((0, 0), (0, padded - self.size)))
        words = payloads.view(np.uint32)
        for field in self.fields:
            dtype = dtype_of(field["width"])
            lanes = field.get("count")
            whole = out[field["name"]].reshape(count, lanes) if lanes is not None else np.empty((count, 1), dtype)
            if self._whole_bytes(field):
                start, width = field["offset"] // 8, field["width"] // 8
                items = whole.view(np.uint8).reshape(count, lanes or 1, dtype.itemsize)
                items[:, :, width:] = 0
                items[:, :, :width] = payloads[:, start:start + (lanes or 1) * width].reshape(count, lanes or 1, width)
            else:
                for lane in range(lanes or 1):
                    item = np.zeros(count, dtype)
                    for word, shift, taken, bits in self._pieces(field, lane):
                        piece = (words[:, word] >> np.uint32(shift)) & np.uint32((1 << bits) - 1)
                        item |= piece.astype(dtype) << dtype.type(taken)
                    whole[:, lane] = item
            if lanes is None:
                beats = whole.reshape(-1, self.beats)
                if (beats != beats[:, :1]).any():
                    raise ProtocolError(f"{field['name']} must be the same on every beat of a block")
                out[field["name"]][:] = beats[:, 0]


class Player:
    """A unit's Verilog, built to be played; `build` makes it."""
    def __init__(self, program, manifest, waves_program):
        self._program = program
        self._waves_program = waves_program
        self._counted = manifest["cadence"] not in ("some", "elastic")
        prefix = "__payload" if manifest["streamed"] else ""
        self._inputs = Beats(manifest["ports"][f"i{prefix}"], manifest["beats"]["i"])
        self._outputs = Beats(manifest["ports"][f"o{prefix}"], manifest["beats"]["o"])
        self._rows_per_chunk = max(1, _PACKED_BYTES // max(
            self._inputs.size * self._inputs.beats, self._outputs.size * self._outputs.beats))
        self.last = None

    def play(self, inputs, *, stalls=None, waves=None, progress=None):
        """The unit's outputs for ``inputs``: arrays of bit patterns named after the payload's fields.

        An array field has the shape (N, items of a block), whatever beats that takes; a scalar (N,). Starts from reset.
        ``stalls`` is a seed for random idle and back-pressure, with every stream rule watched; without it the unit
        runs at full speed. ``waves`` is a file for the waves: ``.fst``, or ``.vcd``. ``progress(done, total)`` is
        called with rows now and then. Measurements are in ``last`` afterwards.
        """
        rows, total = self._inputs.check(inputs)
        done = 0
        if self._counted:
            outputs = self._outputs.empty(total)
        else:
            pieces = []
        for piece in self._stream(self._chunks(rows, total), stalls, waves):
            count = len(next(iter(piece.values())))
            if self._counted:
                for name, array in piece.items():
                    outputs[name][done:done + count] = array
                done += count
            else:
                pieces.append(piece)
                done = min(done + self._rows_per_chunk, total)
            if progress is not None:
                progress(done, total)
        if not self._counted:
            outputs = {name: np.concatenate([self._outputs.empty(0)[name], *(piece[name] for piece in pieces)])
                       for name in self._outputs.empty(0)}
        if progress is not None:
            progress(total, total)
        return outputs

    def build_waves(self, waves):
        """Build, before anything is timed, what writes waves to the file ``waves``."""
        self._waves_program(Path(waves))

    def stream(self, chunks, *, stalls=None):
        """Play an iterable of inputs of any length; yields the outputs, of each chunk apart unless the unit decides
        itself how many there are. One play: the unit is reset only at the start.
        """
        return self._stream((self._inputs.check(chunk)[0] for chunk in chunks), stalls, None)

    def ramp(self, row, field, start, count, step=1):
        """Play ``count`` rows in which the items of array ``field`` count on from ``start`` in ``step``, through all
        rows; the other fields are those of ``row``, inputs of a single row. Yields outputs. For units of one beat a
        row.
        """
        row, _ = self._inputs.check(row)
        lanes = next(f for f in self._inputs.fields if f["name"] == field)
        arguments = [lanes["offset"], lanes["width"], lanes["count"], start, step, count]
        sizes = (min(self._rows_per_chunk, count - done) for done in range(0, count, self._rows_per_chunk))
        return self._run(["", "", *arguments], [row], sizes)

    def _chunks(self, rows, total):
        for start in range(0, total, self._rows_per_chunk):
            yield {name: array[start:start + self._rows_per_chunk] for name, array in rows.items()}

    def _stream(self, chunks, stalls, waves):
        arguments = ["" if stalls is None else stalls, *([] if waves is None else [waves])]
        return self._run(arguments, chunks, None, self._program if waves is None else self._waves_program(Path(waves)))

    def _run(self, arguments, chunks, sizes, program=None):
        """Outputs, ``sizes`` rows at a time, by default as many as each chunk has."""
        fed = queue.SimpleQueue()
        errors = []

        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen([program or self._program, *map(str, arguments)], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, stderr=said, bufsize=0, pipesize=_PIPE_BYTES)

            def feed():
                try:
                    with suppress(BrokenPipeError), process.stdin as pipe:
                        for chunk in chunks:
                            payloads = self._inputs.pack(chunk)
                            fed.put(len(payloads) // self._inputs.beats)
                            view = memoryview(payloads.reshape(-1))
                            while view:
                                view = view[pipe.write(view):]
                except BaseException as error:      # raised again where the outputs are asked for
                    errors.append(error)
                    process.kill()
                finally:
                    fed.put(None)

            feeder = threading.Thread(target=feed, daemon=True)
            feeder.start()
            try:
                if not self._counted:
                    sizes = itertools.repeat(self._rows_per_chunk)
                yield from self._results(process.stdout, sizes or iter(fed.get, None))
                feeder.join()
                status = process.wait()
            finally:
                process.kill()
                process.wait()
                process.stdout.close()
                feeder.join()
            if errors:
                raise errors[0]
            said.seek(0)
            message = said.read().decode(errors="replace").strip()
        if status:
            raise ProtocolError(message or f"the player ended with status {status}")
        self.last = self._statistics(json.loads(message.splitlines()[-1]), arguments[0] == "")

    def _results(self, pipe, sizes):
        beats, size = self._outputs.beats, self._outputs.size
        for rows in sizes:
            payloads = np.empty((rows * beats, size), np.uint8)
            got = _read(pipe, payloads)
            if self._counted and got < payloads.nbytes:
                return          # it failed: its status and message say why
            outputs = self._outputs.empty(got // (beats * size))
            self._outputs.unpack(payloads[:got // size], outputs)
            if got:
                yield outputs
            if got < payloads.nbytes:
                return

    def _statistics(self, counts, full_speed):
        first_complete, first_output = counts.pop("first_complete"), counts.pop("first_output")
        first_input, last_input, last_output = counts.pop("first_input"), counts.pop("last_input"), counts.pop("last_output")
        input_rate = counts["inputs"] / (last_input - first_input + 1)
        output_rate = counts["outputs"] / (last_output - first_output + 1)
        latency = interval = None
        if full_speed and counts["outputs"]:
            # A row's output beats come one after the other.
            first_of_last = last_output - (self._outputs.beats - 1)
            latency = first_output - first_complete if self._counted else first_of_last - last_input
        if full_speed and counts["inputs"] > 1:
            interval = (last_input - first_input) / (counts["inputs"] - 1)
        return Statistics(latency=latency, interval=interval, input_rate=input_rate, output_rate=output_rate, **counts)


def _read(pipe, array):
    """Fill ``array`` from ``pipe``; the bytes that came before its end."""
    view = memoryview(array.reshape(-1))
    got = 0
    while got < len(view) and (more := pipe.readinto(view[got:])):
        got += more
    return got


def check(manifest, inputs):
    """``inputs`` as arrays of the fields' own types; ``ValueError`` unless they are what the unit's `Player` could play.

    Needs no build.
    """
    manifest = as_streams(manifest)
    port = manifest["ports"]["i__payload" if manifest["streamed"] else "i"]
    rows, _ = Beats(port, manifest["beats"]["i"]).check(inputs)
    return {field["name"]: rows[field["name"]].astype(dtype_of(field["width"]), copy=False) for field in port["fields"]}


def check_waves(path):
    """``ValueError`` unless waves can be written in the file's format."""
    if path.suffix not in _TRACES:
        raise ValueError(f"waves must be a .fst or .vcd file, not {path.name}")


def build(text, manifest, build_dir):
    """The `Player` of Verilog ``text`` and its ``manifest``, built below ``build_dir`` once for each content.

    An AXI4-Stream top is played with ``tlast`` as a field of its payloads, see :func:`mxbench.manifest.as_streams`.
    """
    if manifest.get("axi"):
        text, manifest = _as_streams(text, manifest)
    source = _source(manifest)

    def program(trace=None):
        traced = ([f"--{trace.lower().replace('_', '-')}"], ("TRACE", trace)) if trace else ()
        return verilator.build_program("player", text, manifest["name"], source, build_dir, *traced)

    def waves_program(path):
        check_waves(path)
        return program(_TRACES[path.suffix])

    return Player(program(), manifest, waves_program)


def _as_streams(text, manifest):
    """Verilog and manifest of an AXI4-Stream top in a module with plain streams."""
    axi, name = manifest["ports"], f"{manifest['name']}_as_streams"
    manifest = as_streams(manifest) | {"name": name}
    connections = {"aclk": "clk", "aresetn": "~rst"}
    for side, stream in ("s_axis", "i"), ("m_axis", "o"):
        low = 0
        for part in "data", "keep", "last":
            port = f"{side}_t{part}"
            width = axi[port]["width"]
            if part == "keep" and "fields" not in axi[port]:
                connections[port] = f"{{{width}{{1'b1}}}}" if stream == "i" else ""
                continue
            connections[port] = f"{stream}__payload[{low + width - 1}:{low}]"
            low += width
        connections |= {f"{side}_tvalid": f"{stream}__valid", f"{side}_tready": f"{stream}__ready"}
    ports = ",\n".join(f"  {facts['dir']}put wire [{facts['width'] - 1}:0] {port}" for port, facts in manifest["ports"].items())
    connected = ",\n".join(f"    .{port}({signal})" for port, signal in connections.items())
    inner = name.removesuffix("_as_streams")
    return f"{text}\nmodule {name} (\n{ports}\n);\n  {inner} top (\n{connected}\n  );\nendmodule\n", manifest


def _source(manifest):
    ports = manifest["ports"]
    payload = "__payload" if manifest["streamed"] else ""
    mark = "__" if manifest["streamed"] else "_"

    def member(name):
        return name.replace("__", "___05F")       # as Verilator writes names in C++

    def port(name):
        return f"top.{member(name)}" if name in ports else "absent"

    is_elastic = manifest["cadence"] == "elastic"
    latency, interval = (manifest[fact][1] if is_elastic else manifest[fact] for fact in ("latency", "interval"))
    values = {
        "NAME": manifest["name"],
        "STREAMED": str(bool(manifest["streamed"])).lower(),
        "MARKED": str(f"o{mark}valid" in ports).lower(),
        "COUNTED": str(manifest["cadence"] not in ("some", "elastic")).lower(),
        "LATENCY": latency, "INTERVAL": interval, "MOST": interval if is_elastic else 1,
        "BEATS": manifest["beats"]["i"] if manifest["cadence"] == "blocks" else 1,
        "INPUT_WIDTH": ports[f"i{payload}"]["width"],
        "INPUT": member(f"i{payload}"), "OUTPUT": member(f"o{payload}"),
        "CLOCKED": str("clk" in ports).lower(),
        "CLK": port("clk"), "RST": port("rst"),
        "I_VALID": port(f"i{mark}valid"), "O_VALID": port(f"o{mark}valid"),
        "I_READY": port("i__ready"), "O_READY": port("o__ready"),
    }
    source = resources.files(__package__).joinpath("player.cpp.in").read_text()
    for name, value in values.items():
        source = source.replace(f"@{name}@", str(value))
    return source
