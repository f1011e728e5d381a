"""The virtual board at its line, without the host's library."""
import re
import struct
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import serial
from cobs import cobs

from mxforge.errors import MxforgeError
from mxforge.fpga import protocol, virtual
from mxforge.fpga.design import Identity
from mxforge.fpga.protocol import Command, Status
from mxforge.fpga.virtual import DESIGN, VirtualBoard
from mxgolden import dequantizer


@pytest.fixture(scope="module")
def board(sim_build):
    with VirtualBoard(sim_build) as board:
        yield board


@pytest.fixture
def port(board):
    with serial.Serial(board.port, timeout=20) as port:
        port.write(b"\0")
        yield port


def frame(*request):
    return cobs.encode(protocol.request(*request)) + b"\0"


def heard(port):
    return protocol.answer_of(cobs.decode(port.read_until(b"\0")[:-1]))


def test_says_what_it_is(port):
    port.write(frame(Command.IDENTIFY, 1))
    identity = Identity.parse(heard(port).body)
    assert (identity.design, identity.digest) == (DESIGN, DESIGN.digest)


def test_hosts_come_and_go(board):
    for tag in range(5):
        with serial.Serial(board.port, timeout=20) as port:
            port.write(frame(Command.COUNTERS, tag))
            assert heard(port).tag == tag


def test_nothing_is_left_when_it_stands_still(port):
    """Each request alone, of many lengths, so that work ends anywhere in what is simulated at a time. Without a byte that is 0 an
    answer starts when it is whole, and by then the line may be quiet.
    """
    beats = DESIGN.services[Command.DOT].core.beats[0]
    addend = np.float32(1.2345678).tobytes()
    for blocks in range(1, 41):
        beat = bytes(DESIGN.services[Command.DOT].input_bytes[0] - 4) + addend
        body = struct.pack("<HBB", blocks, 1, 1) + beat * beats * blocks + bytes(blocks)
        port.write(frame(Command.DOT, blocks, body))
        answer = heard(port)
        assert (answer.tag, answer.body) == (blocks, addend * blocks)


def test_full_rate(port):
    """Answers as long as they may be, to requests without a pause between them: nothing is lost."""
    unit = DESIGN.services[Command.DEQUANTIZE]
    rng = np.random.default_rng(1)
    blocks = 60
    least = protocol.least_request(protocol.RESPONSE.size + blocks * unit.output_bytes + protocol.CHECKSUM.size)
    port.write(frame(Command.RESET, 0))
    heard(port)
    sent, wanted = b"", []
    for tag in range(150):
        scales, codes = rng.integers(0, 256, blocks, np.uint8), rng.integers(0, 256, (blocks, 4), np.uint8)
        body = struct.pack("<HBB", blocks, 1, 1) + np.column_stack([scales, codes]).tobytes()
        sent += frame(Command.DEQUANTIZE, tag, body.ljust(least - protocol.REQUEST.size - protocol.CHECKSUM.size, b"\0"))
        values = dequantizer.expected(asdict(unit.core.parameters), {"scale": scales, "elements": codes})["values"]
        wanted.append(values.tobytes())
    port.write_timeout = 0
    while sent or wanted:
        if sent:
            sent = sent[port.write(sent[:1000]) or 0:]
        if not sent or port.in_waiting:
            answer = heard(port)
            assert (answer.status, answer.body) == (Status.OK, wanted.pop(0))
    port.write(frame(Command.COUNTERS, 1))
    assert struct.unpack("<6H", heard(port).body) == (151, 0, 0, 0, 0, 0)


def test_a_host_that_vanishes(port):
    port.write(frame(Command.COUNTERS, 1)[:5])
    assert heard(port).status == Status.TIMEOUT
    port.write(frame(Command.COUNTERS, 2))
    assert heard(port).tag == 2


def test_a_frame_that_is_too_long(port):
    port.write(frame(Command.QUANTIZE, 1, bytes(DESIGN.limit)) + frame(Command.COUNTERS, 2))
    assert [heard(port).status, heard(port).status] == [Status.TOO_LONG, Status.OK]


def test_stands_still_when_there_is_nothing_to_do(board):
    def ticks():
        return sum(int(field) for field in Path(f"/proc/{board._process.pid}/stat").read_text().split()[13:15])

    # Of its own time, a hundredth of a second each.
    time.sleep(0.3)
    before = ticks()
    time.sleep(0.5)
    assert ticks() - before <= 5


def test_ends_with_its_owner(sim_build):
    with VirtualBoard(sim_build) as board:
        process = board._process
        assert process.poll() is None
    assert process.returncode == 0


def test_one_that_doesnt_start(sim_build, monkeypatch):
    monkeypatch.setattr(virtual, "build", lambda *_: "true")
    with pytest.raises(MxforgeError, match="the virtual board didn't start"):
        VirtualBoard(sim_build)


def test_what_the_page_shows_byte_by_byte(port):
    """docs/link.md: each frame, and what is said of the third."""
    page = (Path(__file__).parents[2] / "docs" / "link.md").read_text()
    lines = re.findall(r"^([<>]) ([0-9a-f ]+)$", page, re.M)
    assert len(lines) == 8
    for way, text in lines:
        if way == ">":
            port.write(bytes.fromhex(text))
        else:
            assert port.read_until(b"\0").hex(" ") == text
    packets = [cobs.decode(bytes.fromhex(text)[:-1]) for _, text in lines]
    assert packets[4] == protocol.request(Command.DEQUANTIZE, 0x1235, bytes.fromhex("01000000 8038b8007e") + bytes(24))
    assert protocol.answer_of(packets[5]).body == np.array([2, -2, 0, 896], np.float32).tobytes()
    said = re.search(r"The third, without the framing:(.*?)\n\n", page, re.S)[1]
    parts = [bytes.fromhex(part) for part in re.findall(r"`([0-9a-f ]+)`", said)]
    assert b"".join(parts[:5]) == packets[4][:13] and parts[5] == packets[4][-4:] and b"".join(parts[6:]) == packets[5]
