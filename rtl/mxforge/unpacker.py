"""A contiguous byte stream to blocks."""
from dataclasses import dataclass

from amaranth import *
from amaranth.lib import data

from .arith import count_leading_zeros, thermometer, tree_sum
from .formats import E8M0
from .packing import Packing, Repacker, block_fields, bus_layout

__all__ = ["Unpacker"]


class Unpacker(Repacker):
    """Blocks out of the interleaved byte stream that :class:`.packer.Packer` makes.

    Each packet starts a block. On a packet's last beat the bytes count up to the first whose bit of ``keep`` is 0: all, some or
    none; ``keep`` is not read on other beats, whose bytes all count.

    Each packet gives one transfer with ``last``. It has ``is_truncated`` if its last block is not whole: the packet ended inside
    it, and the bytes that are missing are zero; or the packet ended with a beat of no bytes just behind a block that was
    delivered (or is nothing but that beat), and the transfer is all zeros. The next packet starts with its first beat,
    clean, whatever became of this one. With several ``blocks`` a transfer, ``count`` says how many are there, a block that
    is not whole included: ``blocks`` but on a packet's last.

    A beat takes as many cycles as it completes transfers, and at least one. Where the bus is no wider than a transfer, there is a
    beat every cycle, but for a packet's last that completes a transfer and begins another: that takes two, and comes only
    with several ``blocks`` or where the packet is truncated. Where the bus is wider, there is a transfer every cycle. A packet's
    end costs nothing else.

    Design: :class:`.packing.Gearbox`. The output comes from registers; ``o.ready`` reaches them and counters, and no input.

    Cuts: the transfer; what goes into the shifter, where a beat may give several transfers; the middle of the shifter.

    Members
    -------
    i : ``data`` [bus_bytes], 8 bits each; ``keep``, a bit a byte; ``last``, of a packet.
    o : ``scale`` 8 bits (E8M0), with several ``blocks`` [blocks]; ``elements`` [blocks * block_size], codes of ``element``;
        ``count``, with several ``blocks`` only; ``last``; ``is_truncated``.

    Latency is ``stages`` + 3 from a beat to the first transfer that it completes; the others follow, one a cycle.
    """
    @dataclass(frozen=True, kw_only=True)
    class Parameters(Packing):
        @property
        def sizes(self):
            return self.bus_bytes, self.transfer_bytes

    notes = (
        "keep is read with last alone; the bytes up to its first 0 count: all, some or none. On other beats all do.",
        "Each packet gives one transfer with last. A packet that ends with a beat of no bytes behind a whole block, or is nothing "
        "else, gives one more, all zeros, with is_truncated.",
        "The next packet starts clean with its first beat, whatever became of this one.")

    def __init__(self, **options):
        p = self.Parameters(**options)
        super().__init__(p, i=bus_layout(p), o=data.StructLayout(block_fields(p) | {"is_truncated": 1}))

    def _to_bytes(self, m, payload, to):
        width = self.parameters.bus_bytes
        missing = Signal(width)
        amount = Signal(range(width + 1))
        kept = Signal(width)
        m.d.comb += [
            missing.eq(~payload.keep[::-1]),
            amount.eq(count_leading_zeros(m, missing)),
            kept.eq(thermometer(m, amount) | (~payload.last).replicate(width)),
            to.amount.eq(amount),
            to.last.eq(payload.last),
        ]
        for n, byte in enumerate(payload.data):
            m.d.comb += to.data[8 * n:8 * (n + 1)].eq(byte & kept[n].replicate(8))

    def _from_bytes(self, m, of, payload):
        p = self.parameters
        width = 8 * p.block_bytes
        blocks = [of.data[n * width:(n + 1) * width] for n in range(p.blocks)]
        ends = [of.amount == (n + 1) * p.block_bytes for n in range(p.blocks)]
        m.d.comb += [
            payload.scale.eq(Cat(block[:E8M0.width] for block in blocks)),
            payload.elements.eq(Cat(block[E8M0.width:] for block in blocks)),
            payload.last.eq(of.last),
            payload.is_truncated.eq(~Cat(*ends).any()),
        ]
        if p.blocks > 1:
            m.d.comb += payload.count.eq(tree_sum(of.amount > n * p.block_bytes for n in range(p.blocks)))
