"""What a board answers, for tests that take its place."""
from cobs import cobs

from mxforge.fpga import protocol
from mxforge.fpga.protocol import Status

__all__ = ["answer"]


def answer(command, tag, body=b"", status=Status.OK, version=protocol.VERSION):
    """A frame, with its end."""
    packet = protocol.RESPONSE.pack(version, command | 0x80, tag, status) + body
    return cobs.encode(packet + protocol.CHECKSUM.pack(protocol.zlib.crc32(packet))) + b"\0"
