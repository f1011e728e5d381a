"""Requests over a port that behaves as a test wants it to."""
import itertools
import queue
import struct
import time

import pytest
import serial
from answers import answer
from cobs import cobs

from mxforge.errors import MxforgeError
from mxforge.fpga import protocol
from mxforge.fpga.link import Link, SilenceError, Traffic, _Clock
from mxforge.fpga.protocol import Command, Status


class Port:
    """``answer(command, tag, body)`` gives the packets, or bytes, that a request is answered with."""
    port, baudrate = "/dev/somewhere", 1_000_000

    def __init__(self, answer):
        self._answer = answer
        self._bytes = queue.SimpleQueue()
        self.requests = []
        self.is_closed = False

    @property
    def in_waiting(self):
        return 0

    def read(self, size):
        try:
            got = self._bytes.get(timeout=0.01)
        except queue.Empty:
            return b""
        if isinstance(got, Exception):
            raise got
        return got

    def write(self, data):
        for frame in data.split(b"\0")[:-1]:
            if not frame:
                continue
            packet = cobs.decode(frame)
            _, command, tag = protocol.REQUEST.unpack(packet[:4])
            body = packet[4:-4]
            assert protocol.request(command, tag, body) == packet
            self.requests.append((Command(command), tag, body))
            for one in self._answer(command, tag, body) or ():
                self._bytes.put(one)

    def close(self):
        self.is_closed = True


COMPLAINT = answer(0, protocol.UNKNOWN_TAG, status=Status.CORRUPT)


def echo(command, tag, body):
    return [answer(command, tag, body[::-1])]


def asked(how, bodies, **options):
    """What is answered to requests of these bodies, and the link."""
    with Link(Port(how), patience=0.05, **options) as link:
        assert link.port == "/dev/somewhere"
        answers = list(link.ask((Command.DOT, body) for body in bodies))
    assert link._serial.is_closed
    return answers, link


BODIES = [struct.pack("<I", n) * (n % 50 + 1) for n in range(300)]


def test_answers_in_order():
    answers, link = asked(echo, BODIES)
    assert answers == [body[::-1] for body in BODIES]
    traffic = link.traffic
    assert (traffic.requests, traffic.again, traffic.stray, traffic.complaints, traffic.damaged) == (300, 0, 0, 0, 0)
    tags = [tag for _, tag, _ in link._serial.requests]
    assert all(later == (earlier + 1) % 0xFFFF for earlier, later in itertools.pairwise(tags))


class Unreliable:
    """Every ``one_of`` times something else than an answer."""
    def __init__(self, one_of, instead):
        self._one_of, self._instead = one_of, instead
        self.count = 0

    def __call__(self, command, tag, body):
        self.count += 1
        return echo(command, tag, body) if self.count % self._one_of else self._instead(command, tag, body)


@pytest.mark.parametrize(("instead", "noticed"), [
    (lambda *request: [], "again"),
    (lambda *request: [COMPLAINT], "complaints"),
    (lambda *request: [b"\1\2\3\4\0"], "damaged"),
    (lambda *request: [echo(*request)[0][:-3] + b"\0"], "damaged"),
    (lambda *request: echo(*request) * 2, "stray"),
    (lambda command, tag, body: [answer(command, (tag - 1) % 0xFFFF, b"old"), *echo(command, tag, body)], "stray"),
    (lambda command, tag, body: [answer(command - 1, tag, b"another"), *echo(command, tag, body)], "stray"),
    (lambda *request: [part.to_bytes() for part in echo(*request)[0]], "requests"),
])
@pytest.mark.parametrize("one_of", [2, 7])
def test_what_is_lost_damaged_or_strange(instead, noticed, one_of):
    answers, link = asked(Unreliable(one_of, instead), BODIES)
    assert answers == [body[::-1] for body in BODIES]
    # The last may come when nobody waits any more.
    assert getattr(link.traffic, noticed) >= 300 // one_of - 1


def test_frames_that_run_together():
    answers, link = asked(Unreliable(5, lambda *request: [echo(*request)[0][:-1]]), BODIES)
    assert answers == [body[::-1] for body in BODIES]
    assert link.traffic.damaged >= 60 - 1 and link.traffic.again >= 120 - 2


def test_what_an_earlier_host_left():
    def after_another(command, tag, body):
        return [answer(command, (tag + n) % 0xFFFF, b"not yours") for n in (5, 6, 7)] + echo(command, tag, body)

    answers, _ = asked(after_another, BODIES[:1])
    assert answers == [BODIES[0][::-1]]


def test_how_long_is_waited():
    traffic = Traffic()
    clock = _Clock(traffic)
    # Of what came before it isn't waited for the rest.
    traffic.received = 5
    clock.start(0.0)
    assert clock.left() == 0 and clock.is_over()
    clock.start(100.0)
    assert 0 < clock.left() <= 100
    traffic.received = 7
    clock.hurry()
    assert 0 < clock.left() <= 0.25
    # Nothing came since the complaint.
    assert clock.is_over()
    for _ in range(2):
        traffic.received += 1
        assert not clock.is_over()
    traffic.received += 1
    assert clock.is_over()


def test_only_the_line_is_timed():
    link = Link(Port(echo), patience=0.05)
    with link:
        started = time.perf_counter()
        for _ in link.ask([(Command.DOT, b"a")] * 3):
            time.sleep(0.2)
    assert 0 < link.traffic.seconds <= time.perf_counter() - started - 3 * 0.2


def test_a_port_that_is_gone_at_once():
    class Gone(Port):
        def write(self, data):
            raise OSError(5, "Input/output error")

    port = Gone(echo)
    with pytest.raises(MxforgeError, match="the port /dev/somewhere is gone: Input/output error"):
        Link(port)
    assert port.is_closed


def test_silence():
    with pytest.raises(SilenceError, match="the board at /dev/somewhere doesn't answer: dot was sent 3 times"):
        asked(lambda *request: None, BODIES[:1], tries=3)


def test_refusals():
    with pytest.raises(MxforgeError, match="the board at /dev/somewhere refuses dot: the frame is shorter than what it announces"):
        asked(lambda command, tag, body: [answer(command, tag, status=Status.BAD_LENGTH)], BODIES)


def test_another_version():
    with pytest.raises(MxforgeError, match="speaks version 2 of the protocol, this host version 1"):
        asked(lambda command, tag, body: [answer(command, tag, status=Status.UNKNOWN_VERSION, version=2)], BODIES)


@pytest.mark.parametrize("error", [serial.SerialException("device disconnected"), OSError(5, "Input/output error"), TypeError("x")])
def test_a_port_that_goes_away(error):
    with pytest.raises(MxforgeError, match="the port /dev/somewhere is gone: "):
        asked(Unreliable(5, lambda *request: [error]), BODIES)


def test_ports_that_cant_be_opened(tmp_path):
    with pytest.raises(MxforgeError, match="the port /dev/no_such can't be opened: there is no such device"):
        Link("/dev/no_such")
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(MxforgeError, match=f"the port {file} can't be opened: "):
        Link(str(file))
