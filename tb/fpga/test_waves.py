# amaranth: UnusedElaboratable=no
"""Waves that a virtual board recorded, beside what was asked of it."""
from itertools import pairwise

import numpy as np
import pytest
from cobs import cobs

from mxforge.errors import MxforgeError
from mxforge.fpga import protocol
from mxforge.fpga.host import Board
from mxforge.fpga.protocol import Command
from mxforge.fpga.view import design_of, parameters_of
from mxforge.fpga.virtual import VirtualBoard
from mxforge.fpga.waves import _decoded, waves


@pytest.fixture(scope="module")
def recorded(sim_build, tmp_path_factory):
    """Two records of a board, one after the other; of the second, what it was asked and answered."""
    path = tmp_path_factory.mktemp("waves") / "a file.vcd"
    values = np.random.default_rng(1).normal(size=(1, 32)).astype(np.float32)
    design = design_of(parameters_of({}))
    with VirtualBoard(sim_build, design, waves=True) as virtual, Board(virtual.port, baud=115_200) as board:
        with virtual.record(path):
            board.counters()
        counted = path.read_bytes()
        with virtual.record(path):
            scales, codes = board.quantize(values)
            wide = board.dequantize(scales, codes)
        vcd = path.read_bytes()
        board.counters()
        assert path.read_bytes() == vcd
        return counted, waves(vcd, board.ports, design.divisor), values, scales, codes, wide


def test_a_record_is_short(recorded):
    """The line and the units' streams, not all that is in the board."""
    counted, *_ = recorded
    assert 1000 < len(counted) < 100_000


def levels(shown, group, name):
    """A signal's value at each clock."""
    row, = (row for row in shown["rows"] if (row["group"], row["name"]) == (group, name))
    values = [0] * shown["clocks"]
    for (clock, value), end in zip(row["changes"], [*(clock for clock, _ in row["changes"][1:]), shown["clocks"]], strict=True):
        values[clock:end] = [value] * (end - clock)
    return values


def beats(shown, unit, side):
    """Payloads that were transferred."""
    valid, ready, payload, active = (levels(shown, *name) for name in (
        (unit, f"{side}.valid"), (unit, f"{side}.ready"), (unit, f"{side}.payload"), ("line", "is_active")))
    return [payload[n] for n in range(shown["clocks"]) if valid[n] and ready[n] and active[n]]


def test_streams(recorded):
    _, shown, values, scales, codes, wide = recorded
    fed = [" ".join(f"{bits:08x}" for bits in row) for row in values.view(np.uint32).reshape(8, 4)]
    coded = [f"{scales[0]:02x}, " + " ".join(f"{code:02x}" for code in row) for row in codes.reshape(8, 4)]
    assert beats(shown, "quantize", "i") == fed
    assert beats(shown, "quantize", "o") == coded == beats(shown, "dequantize", "i")
    back = [" ".join(f"{bits:08x}" for bits in row) for row in wide.view(np.uint32).reshape(8, 4)]
    assert beats(shown, "dequantize", "o") == back


def test_bytes_of_the_line(recorded):
    _, shown, values, scales, codes, _ = recorded
    asked, *_ = (frame for frame in bytes(byte for _, byte, _ in shown["lines"]["rx"]).split(b"\0") if frame)
    packet = cobs.decode(asked)
    assert packet[1] == Command.QUANTIZE and values.tobytes() in packet
    answered, *_ = bytes(byte for _, byte, _ in shown["lines"]["tx"]).split(b"\0")
    answer = protocol.answer_of(cobs.decode(answered))
    assert answer.body == b"".join(scales.tobytes() + row.tobytes() for row in codes.reshape(8, 4))
    starts = [clock for clock, _, _ in shown["lines"]["tx"]]
    assert all(later - earlier >= 40 for earlier, later in pairwise(starts))


def test_labels(recorded):
    _, shown, *_ = recorded
    rx, tx = ([label.removesuffix(", a 0 in COBS") for _, _, label in shown["lines"][name]] for name in ("rx", "tx"))
    assert rx[:9] == ["COBS", "version", "quantize", "tag", "tag", "blocks", "blocks", "not looked at", "not looked at"]
    assert rx[9:14] == [*["values 1"] * 4, "values 2"]
    end = rx.index("end of the frame")
    assert rx[end - 8:end] == [*["values 32"] * 4, *["checksum"] * 4]
    assert tx[:12] == ["COBS", "version", "quantize done", "tag", "tag", "status", "scale", *(f"elements {n}" for n in range(1, 5)),
                       "scale"]
    assert "filling" in rx[end:] and rx.count("end of the frame") == tx.count("end of the frame") == 2


def test_parts(recorded):
    _, shown, *_ = recorded
    names = [f"{unit}: {part}" for unit in ("quantize", "dequantize") for part in ("request", "in the unit", "answer")]
    assert [name for name, _, _ in shown["parts"]] == ["all", *names]
    assert all(first < last for _, first, last in shown["parts"])
    starts = [first for _, first, _ in shown["parts"][1:]]
    assert starts[:2] == sorted(starts[:2]) and starts[3] > starts[2]


@pytest.mark.parametrize("length", [1, 5, 253, 254, 255, 600])
def test_places_in_a_frame(length):
    """Where each byte of a frame stands for one of the packet, of any length and with any zeros."""
    rng = np.random.default_rng(length)
    for share in 0, 0.01, 0.3, 1:
        packet = bytes(np.where(rng.random(length) < share, 0, rng.integers(1, 256, length)).tolist())
        encoded = cobs.encode(packet)
        places, decoded = _decoded(encoded)
        assert bytes(decoded) == packet and len(places) == len(encoded)
        assert [place for place in places if place is not None] == list(range(length))


def test_a_board_that_ends(sim_build, tmp_path):
    with VirtualBoard(sim_build, design_of(parameters_of({})), waves=True) as virtual:
        virtual._process.kill()
        virtual._process.wait()
        with pytest.raises(MxforgeError, match="the virtual board has ended"), virtual.record(tmp_path / "a.vcd"):
            pass
