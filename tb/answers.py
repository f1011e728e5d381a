"""What a board answers, for tests that take its place."""
import contextlib
import os
import threading

from cobs import cobs

from mxforge.fpga import protocol
from mxforge.fpga.protocol import Status

__all__ = ["Imposter", "answer", "says"]


def answer(command, tag, body=b"", status=Status.OK, version=protocol.VERSION):
    """A frame, with its end."""
    packet = protocol.RESPONSE.pack(version, command | 0x80, tag, status) + body
    return cobs.encode(packet + protocol.CHECKSUM.pack(protocol.zlib.crc32(packet))) + b"\0"


class Imposter:
    """A pseudo-terminal where a test answers."""
    def __init__(self, answer):
        self._answer = answer
        self._master, slave = os.openpty()
        self.port = os.ttyname(slave)
        self._slave = slave
        os.set_blocking(self._master, False)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        import tty

        tty.setraw(self._slave)
        data = b""
        while not self._is_over.wait(0.005):
            with contextlib.suppress(BlockingIOError):
                data += os.read(self._master, 4096)
            *frames, data = data.split(b"\0")
            for frame in filter(None, frames):
                os.write(self._master, self._answer(frame))

    def __enter__(self):
        self._thread.start()
        return self.port

    def __exit__(self, *_):
        self._is_over.set()
        self._thread.join()
        os.close(self._master)
        os.close(self._slave)


def says(body, status=Status.OK):
    """What answers every request with that body."""
    def answered(frame):
        _, command, tag = protocol.REQUEST.unpack(cobs.decode(frame)[:4])
        return answer(command, tag, body, status)
    return answered
