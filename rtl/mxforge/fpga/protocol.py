"""The link between host and board: frames, commands, answers. docs/link.md is its page for people.

A frame is a packet with a checksum, in COBS (Cheshire and Baker, 1997), between bytes that are 0. Numbers of several bytes have
the least significant first. A request is ``VERSION``, command, tag (2 bytes), body; an answer ``VERSION``, the command with its
top bit set, the tag, status, body. The checksum is CRC-32 (ISO-HDLC, that of zlib and Ethernet), 4 bytes.
"""
import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum

__all__ = ["ANSWERED", "ASKED", "BAUDS", "CHECKSUM", "COUNTS", "REQUEST", "RESPONSE", "UNKNOWN_TAG", "VERSION", "Answer", "Command",
           "Status", "answer_of", "least_request", "request"]

VERSION = 1
# Rates of the line that hosts try, fastest first.
BAUDS = 3_000_000, 2_000_000, 1_000_000, 115_200

REQUEST = struct.Struct("<BBH")
RESPONSE = struct.Struct("<BBHB")
CHECKSUM = struct.Struct("<I")
# Bytes of the packets of a request and of an answer that are no body.
ASKED, ANSWERED = REQUEST.size + CHECKSUM.size, RESPONSE.size + CHECKSUM.size
# What the body of a request to a unit starts with: blocks, panels of A and of B.
COUNTS = struct.Struct("<HBB")
# Of a frame that can't be read the board knows no tag.
UNKNOWN_TAG = 0xFFFF


class Command(IntEnum):
    """What a board may be asked; the top bit marks the answer."""
    IDENTIFY = 0
    COUNTERS = 1
    RESET = 2
    QUANTIZE = 16
    DEQUANTIZE = 17
    DOT = 18
    MATMUL = 19


class Status(IntEnum):
    """What became of a request."""
    OK = 0
    # Of frames that could not be read.
    CORRUPT = 1
    TOO_LONG = 2
    OVERRUN = 3
    TIMEOUT = 4
    # Of frames that could.
    UNKNOWN_VERSION = 5
    UNKNOWN_COMMAND = 6
    BAD_LENGTH = 7

    @property
    def words(self):
        return {
            "OK": "done", "CORRUPT": "the frame came damaged", "TOO_LONG": "the frame is longer than the board takes",
            "OVERRUN": "the board had no room for the frame", "TIMEOUT": "the frame stopped in its middle",
            "UNKNOWN_VERSION": "the board speaks another version of the protocol",
            "UNKNOWN_COMMAND": "the board has no such command",
            "BAD_LENGTH": "the frame is shorter than what it announces"}[self.name]


@dataclass(frozen=True)
class Answer:
    """A board's answer; ``command`` is None where it could not read the request."""
    command: int | None
    tag: int
    status: Status
    body: bytes
    version: int = VERSION


def request(command, tag, body=b""):
    """The packet of a request, with its checksum, without the framing."""
    packet = REQUEST.pack(VERSION, command, tag) + body
    return packet + CHECKSUM.pack(zlib.crc32(packet))


def answer_of(packet):
    """The `Answer` of a packet that a frame held; ``ValueError`` if that is none."""
    if len(packet) < ANSWERED:
        raise ValueError(f"an answer has {ANSWERED} bytes or more, not {len(packet)}")
    said, = CHECKSUM.unpack(packet[-CHECKSUM.size:])
    if zlib.crc32(packet[:-CHECKSUM.size]) != said:
        raise ValueError("the checksum is wrong")
    version, command, tag, status = RESPONSE.unpack(packet[:RESPONSE.size])
    if not command & 0x80 or status not in set(Status):
        raise ValueError("it is no answer")
    return Answer(None if tag == UNKNOWN_TAG else command & 0x7F, tag, Status(status),
                  packet[RESPONSE.size:-CHECKSUM.size], version)


def least_request(answered):
    """Bytes that the packet of a request has at least, filled up at its end, whose answer's packet has ``answered``.

    So answers never take longer than requests, and a board keeps up with a host that sends at full rate: the 32nd part
    more is for a host whose clock is faster.
    """
    return answered + answered // 32 + 16
