"""Blocks to a contiguous byte stream."""
from dataclasses import dataclass

from amaranth import *
from amaranth.lib import data

from .arith import select, thermometer
from .formats import E8M0
from .packing import Packing, Repacker, block_fields, bus_layout

__all__ = ["Packer"]


class Packer(Repacker):
    """Blocks to the interleaved byte stream, ``[scale, elements][scale, elements]...`` without gaps, over a bus.

    A block is its scale's byte and its elements packed densely, element k of w bits at bits [k*w +: w] behind it, the lowest
    first: of FP8 and MXINT8 33 bytes, FP6 25, FP4 17, with 32 elements. Blocks straddle beats. Each packet (blocks up to one with
    ``last``) starts a beat; its last beat is filled with zeros, which ``keep`` leaves out.

    With several ``blocks`` a transfer, ``count`` says how many are there on a packet's last; it is not read on others, and more
    than ``blocks`` means all. None of them ends the packet behind the blocks before: with the bytes that wait, or, if
    there are none, with a beat of no bytes.

    A transfer takes as many cycles as it completes beats, and at least one. Where it is no narrower than the bus, the bus
    has a beat every cycle and a packet's end costs nothing. Where it is narrower, there is a transfer every cycle, but for
    a packet's last one that completes a beat and begins another: that takes two.

    Design: :class:`.packing.Gearbox`. The output comes from registers; ``o.ready`` reaches them and counters, and no input.

    Cuts: the beat; what goes into the shifter, where a transfer may give several beats; the middle of the shifter.

    Members
    -------
    i : ``scale`` 8 bits (E8M0), with several ``blocks`` [blocks]; ``elements`` [blocks * block_size], codes of ``element``;
        ``count``, with several ``blocks`` only; ``last``, of a packet.
    o : ``data`` [bus_bytes], 8 bits each, byte 0 first in memory; ``keep``, a bit a byte that counts, all ones but on a packet's
        last beat; ``last``.

    Latency is ``stages`` + 3 from a transfer to the first beat that it completes; the others follow, a beat a cycle.
    """
    @dataclass(frozen=True, kw_only=True)
    class Parameters(Packing):
        @property
        def sizes(self):
            return self.transfer_bytes, self.bus_bytes

    @property
    def notes(self):
        several = ("count is read with last alone: so many blocks are there, all of them if it is larger; 0 ends the packet behind "
                   "the blocks before, with a beat of no bytes if none of theirs waits.",) if self.parameters.blocks > 1 else ()
        return "Each packet starts a beat; its last beat is filled with zeros, which keep leaves out.", *several

    def __init__(self, **options):
        p = self.Parameters(**options)
        self.least_bytes = p.block_bytes if p.blocks == 1 else 0
        super().__init__(p, i=data.StructLayout(block_fields(p)), o=bus_layout(p))

    def _to_bytes(self, m, payload, to):
        p = self.parameters
        m.d.comb += to.last.eq(payload.last)
        if p.blocks == 1:
            m.d.comb += [to.data.eq(Cat(payload.scale, payload.elements)), to.amount.eq(p.block_bytes)]
            return
        elements = payload.elements.as_value()
        width = 8 * p.block_bytes - E8M0.width
        blocks = []
        for n in range(p.blocks):
            block = Cat(payload.scale[n], elements[n * width:(n + 1) * width])
            is_there = Signal(name=f"is_there{n}")
            m.d.comb += is_there.eq(~payload.last | (payload.count > n))
            blocks.append(block & is_there.replicate(len(block)))
        amounts = (C(n * p.block_bytes, to.amount.shape()) for n in range(p.blocks + 1))
        m.d.comb += [to.data.eq(Cat(*blocks)), to.amount.eq(select(m, amounts, payload.count))]

    def _from_bytes(self, m, of, payload):
        m.d.comb += [
            payload.data.eq(of.data),
            payload.keep.eq(thermometer(m, of.amount)),
            payload.last.eq(of.last),
        ]
