"""Frames of the host link in hardware: consistent overhead byte stuffing (COBS), checksums, buffers."""
from amaranth import *
from amaranth.lib import crc, data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from . import protocol
from .protocol import Status

__all__ = ["FrameReceiver", "FrameSender"]

_CRC32 = crc.catalog.CRC32_ISO_HDLC(data_width=8)
# Before each packet in the buffer, its length or what was wrong with it: 2 bytes.
_HEADER = 2


def _power_of_two(name, value, least):
    if value < least or value & (value - 1):
        raise ValueError(f"{name} must be a power of two, {least} or more, not {value}")


class FrameReceiver(wiring.Component):
    """Bytes of a line to packets in a ring of memory, each checked before it counts.

    In the ring a packet is its length (2 bytes, the least significant first), then its bytes, checksum included. A frame that
    can't be read leaves a length below the shortest packet's, its :class:`.protocol.Status`, and nothing else; if there is no room
    for that either, it is lost, and ``is_dropped`` says so. A frame of no bytes is nothing: a 0
    before a frame ends what noise began.

    A frame that stops for ``patience`` cycles is given up (``TIMEOUT``), so that what the next host sends isn't taken for its rest.

    Pointers have a bit more than an address, so that full and empty differ. Room for a length is always left, for the next frame;
    one whose bytes would take it ends as ``OVERRUN``.

    Members
    -------
    i : :py:`In(8)`, i_valid : :py:`In(1)`, i_error : :py:`In(1)`
        As :class:`.uart.UartReceiver`'s o. Three cycles apart or more.
    address : :py:`In(n)`, data : :py:`Out(8)`
        Reads the ring, a cycle later.
    end : :py:`Out(n + 1)`
        Where the last whole packet ends.
    free : :py:`In(n + 1)`
        Bytes before it are no longer needed.
    is_busy : :py:`Out(1)`
        From a frame's first byte until it is in the ring.
    status : :py:`Out(Status)`, is_done : :py:`Out(1)`, is_dropped : :py:`Out(1)`
        For a cycle, of each frame: how it ended, and whether it was lost.
    """
    def __init__(self, depth, limit, patience):
        _power_of_two("depth", depth, 64)
        if not protocol.ASKED <= limit <= depth // 2 - _HEADER:
            raise ValueError(f"limit must be {protocol.ASKED} to {depth // 2 - _HEADER}, half of the ring, not {limit}")
        self._depth = depth
        self._limit = limit
        self._patience = patience
        width = (depth - 1).bit_length()
        super().__init__({
            "i": In(8), "i_valid": In(1), "i_error": In(1), "address": In(width), "data": Out(8), "end": Out(width + 1),
            "free": In(width + 1), "is_busy": Out(1), "status": Out(Status), "is_done": Out(1), "is_dropped": Out(1)})

    def elaborate(self, platform):
        m = Module()

        m.submodules.ring = ring = memory.Memory(shape=8, depth=self._depth, init=[])
        write, read = ring.write_port(), ring.read_port()
        m.d.comb += [read.addr.eq(self.address), self.data.eq(read.data)]
        m.submodules.checksum = checksum = _CRC32.create()

        is_inside = Signal()
        fault = Signal(Status)
        ended = Signal(Status)
        length = Signal(range(self._limit + 1))
        # Where the next byte goes.
        at = Signal.like(self.end, init=_HEADER)
        has_room = Signal()
        m.d.comb += has_room.eq((at - self.free)[:len(at)] < self._depth - _HEADER)

        # COBS: bytes up to the next code, and whether a 0 stands in its place.
        left = Signal(8)
        is_run = Signal()
        is_byte = Signal()
        byte = Signal(8)
        m.d.comb += [checksum.data.eq(byte), checksum.valid.eq(is_byte), checksum.start.eq(~is_inside)]

        waited = Signal(range(self._patience + 1))
        m.d.sync += waited.eq(Mux(is_inside & ~self.i_valid, waited + 1, 0))
        with m.FSM() as fsm:
            m.d.comb += self.is_busy.eq(is_inside | ~fsm.ongoing("bytes"))
            with m.State("bytes"):
                m.d.comb += [write.addr.eq(at[:-1]), write.data.eq(byte)]
                with m.If(self.i_valid & (self.i == 0)):
                    m.d.sync += [is_inside.eq(0), left.eq(0), ended.eq(fault)]
                    with m.If((fault == Status.OK) & ((left != 0) | (length < protocol.ASKED) | ~checksum.match_detected)):
                        m.d.sync += ended.eq(Status.CORRUPT)
                    with m.If(is_inside):
                        m.next = "ended"
                with m.Elif(self.i_valid):
                    m.d.sync += is_inside.eq(1)
                    with m.If(left == 0):
                        m.d.sync += [left.eq(self.i - 1), is_run.eq(self.i.all())]
                        m.d.comb += is_byte.eq(is_inside & ~is_run)
                    with m.Else():
                        m.d.sync += left.eq(left - 1)
                        m.d.comb += [is_byte.eq(1), byte.eq(self.i)]
                with m.Elif(self.i_error):
                    m.d.sync += [is_inside.eq(1), fault.eq(Status.CORRUPT)]
                with m.Elif(waited == self._patience):
                    m.d.sync += [is_inside.eq(0), left.eq(0), ended.eq(Status.TIMEOUT)]
                    m.next = "ended"
                with m.If(is_byte & (fault == Status.OK)):
                    with m.If(length == self._limit):
                        m.d.sync += fault.eq(Status.TOO_LONG)
                    with m.Elif(~has_room):
                        m.d.sync += fault.eq(Status.OVERRUN)
                    with m.Else():
                        m.d.comb += write.en.eq(1)
                        m.d.sync += [at.eq(at + 1), length.eq(length + 1)]
            with m.State("ended"):
                m.d.sync += fault.eq(Status.OK)
                m.next = "low"
                with m.If(ended != Status.OK):
                    m.d.sync += [at.eq(self.end + _HEADER), length.eq(ended)]
            with m.State("low"):
                m.d.comb += [
                    self.status.eq(ended),
                    self.is_done.eq(1),
                    write.addr.eq(self.end[:-1]),
                    write.data.eq(length[:8]),
                ]
                m.next = "high"
                # A packet's own header had room.
                with m.If((ended != Status.OK) & ~has_room):
                    m.d.comb += self.is_dropped.eq(1)
                    m.d.sync += length.eq(0)
                    m.next = "bytes"
                with m.Else():
                    m.d.comb += write.en.eq(1)
            with m.State("high"):
                m.d.comb += [write.en.eq(1), write.addr.eq((self.end + 1)[:len(write.addr)]), write.data.eq(length[8:])]
                m.d.sync += [self.end.eq(at), at.eq(at + _HEADER), length.eq(0)]
                m.next = "bytes"

        return m


class FrameSender(wiring.Component):
    """Packets to frames, with their checksum, through a ring of memory.

    A code of COBS stands before the bytes that it tells of, up to 254; its place is left free, and what stands before it
    may go out. The ring needs to hold such a run only, not a frame: what takes the bytes may be slower.

    Members
    -------
    i : :py:`In(stream.Signature(...))`
        ``data``, 8 bits, and ``last``, with a packet's last byte.
    o : :py:`Out(stream.Signature(8))`
        Bytes for the line, frames between bytes that are 0.
    is_busy : :py:`Out(1)`
        From a packet's last byte until all of it is on the line.
    """
    def __init__(self, depth):
        _power_of_two("depth", depth, 512)
        self._depth = depth
        super().__init__({
            "i": In(stream.Signature(data.StructLayout({"data": 8, "last": 1}))),
            "o": Out(stream.Signature(8)),
            "is_busy": Out(1)})

    def elaborate(self, platform):
        m = Module()

        m.submodules.ring = ring = memory.Memory(shape=8, depth=self._depth, init=[])
        write, read = ring.write_port(), ring.read_port()
        m.submodules.checksum = checksum = _CRC32.create()

        width = (self._depth - 1).bit_length()
        # Where the code goes, the next byte, and what has been sent up to.
        code_at, at, sent = (Signal(width + 1, name=name, init=init) for name, init in (("code_at", 0), ("at", 1), ("sent", 0)))
        code = Signal(8, init=1)
        has_room = Signal()
        m.d.comb += has_room.eq((at - sent)[:width + 1] < self._depth - 2)

        # The packet, then its checksum.
        is_sum = Signal()
        number = Signal(range(protocol.CHECKSUM.size))
        byte, is_there, is_last, is_taken = Signal(8), Signal(), Signal(), Signal()
        m.d.comb += [
            checksum.data.eq(self.i.payload.data),
            checksum.valid.eq(self.i.valid & self.i.ready),
            byte.eq(Mux(is_sum, checksum.crc.word_select(number, 8), self.i.payload.data)),
            is_there.eq(is_sum | self.i.valid),
            is_last.eq(is_sum & number.all()),
            self.i.ready.eq(is_taken & ~is_sum),
        ]
        with m.If(is_there & is_taken):
            with m.If(is_sum):
                m.d.sync += [number.eq(number + 1), is_sum.eq(~is_last)]
                m.d.comb += checksum.start.eq(is_last)
            with m.Else():
                m.d.sync += is_sum.eq(self.i.payload.last)

        def close():
            """The code at its place, and a place for the next one."""
            m.d.comb += [write.en.eq(1), write.addr.eq(code_at[:-1]), write.data.eq(code)]
            m.d.sync += [code_at.eq(at), at.eq(at + 1), code.eq(1)]

        is_end = Signal()
        with m.FSM() as fsm:
            m.d.comb += self.is_busy.eq((sent != code_at) | is_sum | ~fsm.ongoing("bytes"))
            with m.State("bytes"):
                m.d.comb += is_taken.eq(has_room)
                with m.If(is_there & is_taken):
                    m.d.sync += is_end.eq(is_last)
                    with m.If(is_last):
                        m.next = "end"
                    with m.If(byte == 0):
                        close()
                    with m.Else():
                        m.d.comb += [write.en.eq(1), write.addr.eq(at[:-1]), write.data.eq(byte)]
                        m.d.sync += [at.eq(at + 1), code.eq(code + 1)]
                        with m.If(code == 254):
                            m.next = "run"
            with m.State("run"), m.If(has_room):
                close()
                m.next = "bytes"
                with m.If(is_end):
                    m.next = "end"
            with m.State("end"), m.If(has_room):
                close()
                m.next = "delimiter"
            # In the place that was left for a code; the next one's is behind it.
            with m.State("delimiter"), m.If(has_room):
                m.d.comb += [write.en.eq(1), write.addr.eq(code_at[:-1]), write.data.eq(0)]
                m.d.sync += [code_at.eq(at), at.eq(at + 1)]
                m.next = "bytes"

        is_read = Signal()
        m.d.comb += [read.addr.eq(sent[:-1]), self.o.payload.eq(read.data), self.o.valid.eq(is_read)]
        m.d.sync += is_read.eq((sent != code_at) & ~is_read)
        with m.If(self.o.valid & ~self.o.ready):
            m.d.sync += is_read.eq(1)
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += sent.eq(sent + 1)

        return m
