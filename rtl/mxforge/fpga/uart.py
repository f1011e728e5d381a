"""Bytes over a serial line: 8 data bits, no parity, one stop bit."""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

__all__ = ["UartReceiver", "UartTransmitter"]


def _check(divisor):
    if divisor < 4:
        raise ValueError(f"divisor must be 4 or more, not {divisor}: a bit is read in its middle")


class UartReceiver(wiring.Component):
    """A byte from the line: a start bit (low), eight bits, the least significant first, a stop bit (high), of ``divisor`` clocks
    each.

    Each bit is read in its middle, as nearly as there are clocks for it. From the middle of the stop bit on the next start bit may
    come, so that nothing is lost of a sender whose clock is somewhat faster: 2.5 % with a ``divisor`` of 4, 3.4 % or more from 5
    on, 5 % with many clocks a bit. One may be 4 % slower. A start bit that is high again in its middle was a glitch. After
    a stop bit that is low (``o_error``) the line must be high before the next byte.

    Members
    -------
    rx : :py:`In(1)`
        Any clock's; synchronised here.
    o : :py:`Out(8)`, o_valid : :py:`Out(1)`, o_error : :py:`Out(1)`
        For a cycle each: a byte, or one that was none.
    """
    def __init__(self, divisor):
        _check(divisor)
        self._divisor = divisor
        super().__init__({"rx": In(1, init=1), "o": Out(8), "o_valid": Out(1), "o_error": Out(1)})

    def elaborate(self, platform):
        m = Module()

        line = Signal(init=1)
        m.submodules.synchronizer = FFSynchronizer(self.rx, line, init=1)

        left = Signal(range(self._divisor))
        bits = Signal(range(8))
        is_middle = left == 0
        m.d.sync += left.eq(Mux(is_middle, self._divisor - 1, left - 1))
        with m.FSM():
            with m.State("idle"):
                m.d.sync += left.eq(self._divisor // 2 - 1)
                with m.If(~line):
                    m.next = "start"
            with m.State("start"), m.If(is_middle):
                m.next = "bits"
                with m.If(line):
                    m.next = "idle"
            with m.State("bits"), m.If(is_middle):
                m.d.sync += [self.o.eq(Cat(self.o[1:], line)), bits.eq(bits + 1)]
                with m.If(bits == 7):
                    m.next = "stop"
            with m.State("stop"), m.If(is_middle):
                m.d.comb += [self.o_valid.eq(line), self.o_error.eq(~line)]
                m.next = "idle"
                with m.If(~line):
                    m.next = "break"
            with m.State("break"), m.If(line):
                m.next = "idle"

        return m


class UartTransmitter(wiring.Component):
    """Bytes to the line, as :class:`UartReceiver` takes them.

    A byte takes ``10 * divisor`` cycles, and the next one, if it is there, follows without a pause: a transmitter that took a
    clock more would fall behind a host that sends at full rate.

    Members
    -------
    i : :py:`In(stream.Signature(8))`
    tx : :py:`Out(1)`
        From a register.
    """
    def __init__(self, divisor):
        _check(divisor)
        self._divisor = divisor
        super().__init__({"i": In(stream.Signature(8)), "tx": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()

        left = Signal(range(self._divisor))
        bits = Signal(range(11))
        shifted = Signal(9, init=~0)
        is_end = left == 0
        m.d.sync += left.eq(Mux(is_end, self._divisor - 1, left - 1))
        m.d.comb += self.i.ready.eq((bits == 0) | ((bits == 1) & is_end))
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [self.tx.eq(0), shifted.eq(Cat(self.i.payload, 1)), bits.eq(10), left.eq(self._divisor - 1)]
        with m.Elif(is_end):
            m.d.sync += [self.tx.eq(shifted[0]), shifted.eq(Cat(shifted[1:], 1)), bits.eq(bits - (bits != 0))]

        return m
