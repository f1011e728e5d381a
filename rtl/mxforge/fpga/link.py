"""Requests and answers over a serial port: what a host knows of the line."""
import errno
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

import numpy as np
import serial
from cobs import cobs

from ..errors import MxforgeError
from . import protocol
from .protocol import Status

__all__ = ["PATIENCE", "Link", "SilenceError", "Traffic", "opened"]

# Bytes of requests that are under way at a time: enough for the line never to wait for the host.
_WINDOW = 1 << 15
# Seconds in which nothing comes, after which what is under way is taken as lost; those after the board has complained.
PATIENCE, _HURRY = 2.0, 0.25
# Seconds after which a reader looks whether it is still wanted.
_TURN = 0.05
# So often it is waited for what may be an answer on its way: there are ports that talk by themselves.
_LATE = 2
# Seconds in which a port must take what a line carries in less.
_STUCK = 5.0


@dataclass
class Traffic:
    """What went over a line: bytes; requests, of them those sent again; answers that nobody waited for, complaints of the board
    about what it couldn't read, frames that came damaged; and the seconds in which answers were waited for.
    """
    sent: int = 0
    received: int = 0
    requests: int = 0
    again: int = 0
    stray: int = 0
    complaints: int = 0
    damaged: int = 0
    seconds: float = 0.0


class SilenceError(MxforgeError):
    """Nobody answers."""


class Link:
    """A board at the serial ``port``, or at an open :class:`serial.Serial`; several requests are under way at a time.

    The board answers in the order in which requests reach it, so an answer to a later one says that an earlier one is lost; it
    is sent again, under another tag, so that an answer that comes late is known as such. What an earlier host left on
    the line is known by coming before the answer to this one's first request, which therefore must be alone.

    ``patience`` in seconds, ``tries`` of each request. ``MxforgeError`` if the port can't be opened. Threads may share a link:
    one waits while another asks.
    """
    def __init__(self, port, baud=115_200, *, patience=PATIENCE, tries=20):
        self.port = port if isinstance(port, str) else port.port
        self.traffic = Traffic()
        self._patience = patience
        self._tries = tries
        if isinstance(port, str):
            self._serial = opened(port, baud)
        else:
            # What never returns can't be given up.
            self._serial, port.timeout, port.write_timeout = port, _TURN, _stuck(port.baudrate)
        self._turn, self._asking = threading.Lock(), None
        self._tag = int(np.random.default_rng().integers(protocol.UNKNOWN_TAG))
        self._answers = SimpleQueue()
        self._is_open = True
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            # Ends what an earlier host may have left unfinished.
            self._write(b"\0")
        except MxforgeError:
            self.close()
            raise

    @property
    def baud(self):
        return self._serial.baudrate

    def set_patience(self, patience, tries=20):
        self._patience, self._tries = patience, tries

    def close(self):
        self._is_open = False
        self._reader.join()
        self._serial.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _read(self):
        frame = bytearray()
        try:
            while self._is_open:
                got = self._serial.read(max(1, self._serial.in_waiting))
                self.traffic.received += len(got)
                *ends, rest = got.split(b"\0")
                for end in ends:
                    frame += end
                    if frame:
                        self._take(bytes(frame))
                    frame.clear()
                frame += rest
        # A port that goes away gives pyserial a TypeError, too.
        except (serial.SerialException, OSError, TypeError) as error:
            self._answers.put(error)

    def _take(self, frame):
        try:
            self._answers.put(protocol.answer_of(cobs.decode(frame)))
        except (cobs.DecodeError, ValueError):
            self.traffic.damaged += 1

    def _write(self, frame):
        try:
            self._serial.write(frame)
        except serial.SerialTimeoutException as error:
            raise SilenceError(f"the port {self.port} takes nothing more: what is behind it hangs") from error
        except (serial.SerialException, OSError) as error:
            raise MxforgeError(f"the port {self.port} is gone: {_reason(error)}") from error
        self.traffic.sent += len(frame)

    def ask(self, requests):
        """Bodies of the answers to ``requests``, ``(command, body)`` each, in their order.

        ``MxforgeError`` if the board refuses one or doesn't answer, if the port goes away, or if this thread asks already. It is
        over when the last answer was taken, or when the iterator is closed.
        """
        me = threading.get_ident()
        if self._asking == me:
            raise MxforgeError(f"the board at {self.port} is being asked already: take all answers, then ask again")
        with self._turn:
            self._asking = me
            try:
                yield from self._ask(enumerate(requests))
            finally:
                self._asking = None

    def _ask(self, requests):
        waiting, done, given, under_way, is_over = OrderedDict(), {}, 0, 0, False
        clock = _Clock(self.traffic)
        started = time.perf_counter()
        try:
            clock.start(self._patience)
            while True:
                while not is_over and under_way < _WINDOW:
                    following = next(requests, None)
                    is_over = following is None
                    if not is_over:
                        number, request = following
                        self._send(waiting, number, request, 1)
                        under_way += _size(request)
                while given in done:
                    self.traffic.seconds += time.perf_counter() - started
                    yield done.pop(given)
                    started = time.perf_counter()
                    given += 1
                if not waiting:
                    if is_over:
                        return
                    continue
                try:
                    answer = self._answers.get(timeout=clock.left())
                except Empty:
                    if clock.is_over():
                        self._send_again(waiting, list(waiting))
                        clock.start(self._patience)
                    continue
                if not self._is_awaited(answer, waiting):
                    if answer.command is None:
                        clock.hurry()
                    continue
                lost = list(waiting)[:list(waiting).index(answer.tag)]
                number, request, _ = waiting.pop(answer.tag)
                if answer.status != Status.OK:
                    raise MxforgeError(f"the board at {self.port} refuses {request[0].name.lower()}: {answer.status.words}")
                done[number] = answer.body
                under_way -= _size(request)
                self._send_again(waiting, lost)
                clock.start(self._patience)
        finally:
            self.traffic.seconds += time.perf_counter() - started

    def _is_awaited(self, answer, waiting):
        if isinstance(answer, Exception):
            raise MxforgeError(f"the port {self.port} is gone: {_reason(answer)}")
        if answer.version != protocol.VERSION:
            raise MxforgeError(f"the board at {self.port} speaks version {answer.version} of the protocol, this host "
                               f"version {protocol.VERSION}")
        if answer.tag in waiting and waiting[answer.tag][1][0] == answer.command:
            return True
        if answer.command is None:
            self.traffic.complaints += 1
        else:
            self.traffic.stray += 1
        return False

    def _send(self, waiting, number, request, tries):
        command, body = request
        if tries > self._tries:
            raise SilenceError(f"the board at {self.port} doesn't answer: {command.name.lower()} was sent {self._tries} times")
        self._tag = (self._tag + 1) % protocol.UNKNOWN_TAG
        waiting[self._tag] = number, request, tries
        self._write(cobs.encode(protocol.request(command, self._tag, body)) + b"\0")
        self.traffic.requests += 1
        self.traffic.again += tries > 1

    def _send_again(self, waiting, tags):
        for tag in tags:
            number, request, tries = waiting.pop(tag)
            self._send(waiting, number, request, tries + 1)


class _Clock:
    """How long is waited for an answer."""
    def __init__(self, traffic):
        self._traffic = traffic

    def start(self, seconds):
        self._end, self._span, self._late = time.monotonic() + seconds, seconds, 0
        self._heard = self._traffic.received

    def hurry(self):
        """After a complaint, which may have come behind the last answer."""
        if self.left() > _HURRY:
            self.start(_HURRY)

    def left(self):
        return max(0.0, self._end - time.monotonic())

    def is_over(self):
        """Whether nothing is left to wait for, or else as long again: a long answer may be on its way."""
        if self._heard == self._traffic.received or self._late == _LATE:
            return True
        self._end, self._heard = time.monotonic() + self._span, self._traffic.received
        self._late += 1
        return False


def _stuck(baud):
    """Seconds in which a port takes all that is under way, and more."""
    return _STUCK + 2 * 10 * _WINDOW / baud


def opened(port, baud):
    """The serial ``port``; ``MxforgeError`` if it can't be opened."""
    try:
        return serial.Serial(port, baud, timeout=_TURN, write_timeout=_stuck(baud), exclusive=True)
    except (serial.SerialException, ValueError, OSError) as error:
        why = _reason(error) if Path(port).exists() else "there is no such device"
        if getattr(error, "errno", None) == errno.EWOULDBLOCK:
            why = "another program has it"
        raise MxforgeError(f"the port {port} can't be opened: {why}") from error


def _size(request):
    return len(request[1]) + protocol.ASKED


def _reason(error):
    number = getattr(error, "errno", None)
    return " ".join((error.strerror or str(error)).split()) if number else " ".join(str(error).split()) or type(error).__name__
