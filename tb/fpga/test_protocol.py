"""Packets of the host link, beside literals."""
import pytest

from mxforge.fpga import protocol
from mxforge.fpga.protocol import Answer, Command, Status


def checked(text):
    import binascii

    packet = bytes.fromhex(text)
    return packet + binascii.crc32(packet).to_bytes(4, "little")


def test_a_request():
    assert protocol.request(Command.IDENTIFY, 0x1234) == checked("01003412")
    assert protocol.request(Command.MATMUL, 0xFFFE, b"\x00\xff") == checked("0113feff00ff")
    # The check value of CRC-32/ISO-HDLC, of the bytes 123456789.
    assert protocol.zlib.crc32(b"123456789") == 0xCBF43926


def test_answers():
    assert protocol.answer_of(checked("0190cdab00" + "0102")) == Answer(Command.QUANTIZE, 0xABCD, Status.OK, b"\1\2")
    assert protocol.answer_of(checked("0180ffff01")) == Answer(None, 0xFFFF, Status.CORRUPT, b"")
    assert protocol.answer_of(checked("0281000005")).version == 2


@pytest.mark.parametrize(("packet", "why"), [
    (b"", "has 9 bytes or more, not 0"),
    (checked("0190cdab"), "not 8"),
    (checked("0190cdab00")[:-1] + b"\0", "checksum is wrong"),
    (checked("0110cdab00"), "no answer"),
    (checked("0190cdab63"), "no answer"),
])
def test_what_is_no_answer(packet, why):
    with pytest.raises(ValueError, match=why):
        protocol.answer_of(packet)


def test_requests_are_longer_than_answers():
    for answered in range(9, 20_000, 7):
        least = protocol.least_request(answered)
        # What a frame adds: a byte for each 254, a code, a delimiter; and 2 % for a host with a faster clock.
        assert least > 1.02 * (answered + answered / 254 + 2)


def test_every_status_has_words():
    assert len({status.words for status in Status}) == len(Status)
