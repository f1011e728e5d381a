"""Waves of a virtual board for a page: signals by their changes, and what the bytes on its line are."""
import io
from bisect import bisect_right

from vcd.reader import TokenKind, tokenize

from . import protocol
from .protocol import Command

__all__ = ["waves"]

_LINE = "rx", "tx", "is_busy", "is_active"
_STREAM = "i__valid", "i__ready", "i__payload", "o__valid", "o__ready", "o__payload"
# Of what comes before and after, clocks that are shown with a part of the waves.
_MARGIN = 12


def waves(vcd, ports, divisor):
    """What a `VirtualBoard` recorded (the bytes of its file), for the `Port`s of its host; a clock is a step of time.

    ``rows``: signals, ``changes`` being ``[clock, value]``, of payloads ``[clock, text]`` with the items of fields in hex, in their
    order. ``lines``: by ``rx`` and ``tx``, ``[clock, byte, what it is]``. ``parts``: ``[name, first, last]``.
    """
    changes, clocks = _changes(vcd)
    rows = [{"group": "line", "name": name, "changes": changes[f"TOP.{name}"]} for name in _LINE]
    for command, port in ports.items():
        unit = command.name.lower()
        for name in _STREAM:
            row = {"group": unit, "name": name.replace("__", "."), "changes": changes[f"TOP.board.requests.{unit}.{name}"]}
            if name.endswith("payload"):
                fields = (port.inputs if name.startswith("i") else port.outputs).fields
                row["changes"] = [[clock, _items(value, fields)] for clock, value in row["changes"]]
            rows.append(row)
    lines = {name: _labelled(list(_bytes(changes[f"TOP.{name}"], divisor, clocks)), ports) for name in ("rx", "tx")}
    return {"clocks": clocks, "divisor": divisor, "rows": rows, "lines": lines,
            "parts": list(_parts(lines, changes, ports, clocks, 10 * divisor))}


def _changes(vcd):
    """Changes of each variable by its dotted name, ``[clock, value]``, clocks from the first on; and how many clocks there are."""
    names, changes, scope, first, clock = {}, {}, [], None, 0
    for token in tokenize(io.BytesIO(vcd)):
        match token.kind:
            case TokenKind.SCOPE:
                scope.append(token.scope.ident)
            case TokenKind.UPSCOPE:
                scope.pop()
            case TokenKind.VAR:
                names[".".join([*scope, token.var.reference])] = token.var.id_code
            case TokenKind.CHANGE_TIME:
                first = token.time_change if first is None else first
                clock = token.time_change - first
            case TokenKind.CHANGE_SCALAR:
                changes.setdefault(token.scalar_change.id_code, []).append([clock, int(token.scalar_change.value)])
            case TokenKind.CHANGE_VECTOR:
                changes.setdefault(token.vector_change.id_code, []).append([clock, token.vector_change.value])
    return {name: changes.get(code, []) for name, code in names.items()}, clock + 1


def _items(value, fields):
    texts = []
    for field in fields:
        digits, mask = -(-field["width"] // 4), (1 << field["width"]) - 1
        items = (value >> field["offset"] + n * field["width"] & mask for n in range(field.get("count", 1)))
        texts.append(" ".join(f"{item:0{digits}x}" for item in items))
    return ", ".join(texts)


def _bytes(changes, divisor, clocks):
    """``(clock, byte)`` of what a line said, clocks of the start bits."""
    at = [clock for clock, _ in changes]
    free = 0
    for clock, level in changes:
        if level or clock < free or clock + 10 * divisor > clocks:
            continue
        samples = (clock + divisor // 2 + n * divisor for n in range(1, 9))
        yield clock, sum(changes[bisect_right(at, sample) - 1][1] << n for n, sample in enumerate(samples))
        # In the middle of the stop bit it is ready for the next.
        free = clock + 9 * divisor + divisor // 2


def _labelled(said, ports):
    labels, frame = [], []
    for _, byte in said:
        if byte:
            frame.append(byte)
        else:
            labels += [*_labels(frame, ports), "end of the frame"]
            frame = []
    labels += ["unfinished"] * len(frame)
    return [[clock, byte, label] for (clock, byte), label in zip(said, labels, strict=True)]


def _labels(encoded, ports):
    """What each byte of a frame is."""
    places, packet = _decoded(encoded)
    if not packet:
        return []
    names = _names(packet, ports)
    labels = []
    for byte, place in zip(encoded, places, strict=True):
        if place is None:
            labels.append("COBS")
        else:
            labels.append(names[place] + (", a 0 in COBS" if byte != packet[place] else ""))
    return labels


def _decoded(encoded):
    """Where in the packet each byte of its COBS frame is (None: nowhere), and the packet."""
    places, packet, at, is_zero = [], [], 0, False
    while at < len(encoded):
        places.append(len(packet) if is_zero else None)
        packet += [0] * is_zero
        group = encoded[at + 1:at + encoded[at]]
        places += range(len(packet), len(packet) + len(group))
        packet += group
        is_zero = encoded[at] != 0xFF
        at += encoded[at]
    return places, packet


def _names(packet, ports):
    """What each byte of a packet is."""
    is_answer = packet[1] & 0x80
    port = ports[Command(packet[1] & 0x7F)]
    if is_answer:
        head, beats, size = ["status"], port.outputs, port.output_bytes
    else:
        head, beats, size = ["blocks", "blocks", "not looked at", "not looked at"], port.inputs, port.input_bytes
    names = ["version", port.command.name.lower() + " done" * bool(is_answer), "tag", "tag", *head]
    left = len(packet) - len(names) - protocol.CHECKSUM.size
    asked = left if is_answer else size * beats.beats * int.from_bytes(bytes(packet[4:6]), "little")
    names += [_name(beats.fields, *divmod(n, size)) if n < asked else "filling" for n in range(left)]
    return names + ["checksum"] * protocol.CHECKSUM.size


def _name(fields, beat, byte):
    """The items of a payload's fields that have bits in a byte of it."""
    names = []
    for field in fields:
        count, width = field.get("count", 1), field["width"]
        for n in range(count):
            low = field["offset"] + n * width
            if low < 8 * byte + 8 and 8 * byte < low + width:
                names.append(f"{field['name']} {beat * count + n + 1}" if "count" in field else field["name"])
    return " and ".join(names) or "filling"


def _parts(lines, changes, ports, clocks, byte):
    """The stretches of the waves that are worth a look."""
    yield ["all", 0, clocks]
    frames = {name: list(_frames(line)) for name, line in lines.items()}
    for command, asked, answered in zip(ports, frames["rx"], frames["tx"], strict=False):
        unit = command.name.lower()
        yield [f"{unit}: request", asked[0] - _MARGIN, asked[1] + byte + _MARGIN]
        valids = [clock for side in "io" for clock, _ in changes[f"TOP.board.requests.{unit}.{side}__valid"]
                  if asked[1] <= clock <= answered[1] + byte]
        if valids:
            yield [f"{unit}: in the unit", min(valids) - _MARGIN, min(max(valids), min(valids) + 40 * _MARGIN)]
        yield [f"{unit}: answer", answered[0] - _MARGIN, answered[1] + byte + _MARGIN]


def _frames(line):
    """Clocks of the first and the last byte of each frame."""
    first = None
    for clock, byte, _ in line:
        first = clock if first is None and byte else first
        if not byte and first is not None:
            yield first, clock
            first = None
