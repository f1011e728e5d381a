"""Blocks in a byte stream: what the packer and the unpacker have in common."""
from dataclasses import dataclass
from math import gcd

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from . import parameters
from .arith import select
from .formats import E8M0, ELEMENTS
from .pipeline import Cuts, ResultQueue, delay
from .unit import StreamUnit

__all__ = ["Gearbox", "Packing", "Repacker", "block_fields", "bus_layout"]


@dataclass(frozen=True, kw_only=True)
class Packing(parameters.Parameters):
    element: str = parameters.choice("e4m3", ELEMENTS, "Element format.")
    block_size: int = parameters.integer(32, 1, 256, "Elements under one scale; together whole bytes.")
    blocks: int = parameters.integer(1, 1, 64, "Blocks a transfer of the block side.")
    bus_bytes: int = parameters.integer(16, 1, 64, "Bytes a beat of the byte side.", power_of_two=True)

    @property
    def block_bytes(self):
        """A scale, and the elements packed densely."""
        return (E8M0.width + self.block_size * ELEMENTS[self.element].width) // 8

    @property
    def transfer_bytes(self):
        return self.blocks * self.block_bytes

    @property
    def sizes(self):
        """Bytes of a transfer, in and out."""
        raise NotImplementedError

    @property
    def cuts(self):
        return Gearbox.cuts(*self.sizes)

    def __post_init__(self):
        super().__post_init__()
        width = ELEMENTS[self.element].width
        if self.block_size * width % 8:
            raise ValueError(f"block_size must make whole bytes of {self.element}'s {width} bits, not {self.block_size!r}")
        self.check_stages()


def block_fields(p):
    """The fields of a transfer of blocks: of one block in the order of its bytes in memory."""
    element = unsigned(ELEMENTS[p.element].width)
    if p.blocks == 1:
        return {"scale": E8M0.shape, "elements": data.ArrayLayout(element, p.block_size), "last": 1}
    return {
        "scale": data.ArrayLayout(E8M0.shape, p.blocks),
        "elements": data.ArrayLayout(element, p.blocks * p.block_size),
        "count": range(p.blocks + 1),
        "last": 1,
    }


def bus_layout(p):
    return data.StructLayout({"data": data.ArrayLayout(8, p.bus_bytes), "keep": p.bus_bytes, "last": 1})


def _bytes_layout(size):
    return data.StructLayout({"data": 8 * size, "amount": range(size + 1), "last": 1})


def _divided(m, value, divisor, most, name):
    """``(value // divisor, value % divisor)`` of a value whose quotient is ``most`` at most."""
    if divisor & (divisor - 1) == 0:
        places = divisor.bit_length() - 1
        return value[places:], value[:places]
    quotient = Signal(range(most + 1), name=f"{name}_quotient")
    rest = Signal(range(divisor), name=f"{name}_rest")
    m.d.comb += rest.eq(value)
    for n in range(1, most + 1):
        with m.If(value >= n * divisor):
            m.d.comb += [quotient.eq(n), rest.eq(value - n * divisor)]
    return quotient, rest


class Gearbox(wiring.Component):
    """Packets of bytes, from transfers of ``n_in`` bytes to transfers of ``n_out``.

    A packet's bytes come out in order, ``n_out`` at a time, the rest with ``last``; every packet starts a transfer. On a ``last``
    input ``amount`` bytes count, and the others must be zero. A packet that ends just behind a whole output, with an input of
    no bytes, ends with an output of none. Bytes of an output beyond its ``amount`` are zero.

    An input completes floor or, with ``last``, ceil of ``(bytes that wait + its own) / n_out`` outputs, with ``last`` at
    least one. It takes as many cycles, and at least one. So there is an output each cycle where ``n_in >= n_out``; and an
    input each cycle where ``n_in < n_out``, but for a packet's last that completes an output and leaves bytes for another.

    Design. What waits is kept in front of the input, its end at the input's start: where it starts is all that varies, from the
    first input of an output on, and one shifter of log2 stages takes the output from there. Inputs are written to words,
    each to its own, as many as an output may need; or, where an input may give several outputs, these are taken from it in
    turn, before the shifter. Nothing waits but multiples of the sizes' common divisor, and the shifter knows no other steps.

    Words are written whenever the register ``ready`` allows it, valid or not: no wide enable depends on an input. Outputs
    are made when the register ``step`` allows it, for as many as there are credits: they are sure of a place in a
    queue (:class:`.pipeline.ResultQueue`) behind ``o``, which must have room for ``credits``.

    Members
    -------
    i : stream of ``data`` [n_in bytes], ``amount``, ``last``.
    o : ``data`` [n_out bytes], ``amount``, ``last``, when ``o_valid`` is high.
    o_taken : an output has left the queue.

    Latency is ``stages`` + 1 from an input to the first output that it completes.
    """
    def __init__(self, n_in, n_out, stages):
        self._n_in, self._n_out, self._stages = n_in, n_out, stages
        # A credit is away from an output's cycle until the one after it has left the queue.
        self.credits = stages + ResultQueue.latency + 1
        super().__init__({
            "i": In(stream.Signature(_bytes_layout(n_in))),
            "o": Out(_bytes_layout(n_out)), "o_valid": Out(1), "o_taken": In(1),
        })

    @staticmethod
    def _facts(n_in, n_out):
        """``(grain, words, residue, most)``: the sizes' common divisor, words that inputs are written to, most bytes that wait
        in front of them, most outputs of an input."""
        grain = gcd(n_in, n_out)
        return grain, -(-n_out // n_in), min(n_in, n_out) - grain, -(-(n_out - grain + n_in) // n_out)

    @classmethod
    def most_outputs(cls, n_in, n_out):
        return cls._facts(n_in, n_out)[3]

    @classmethod
    def cuts(cls, n_in, n_out):
        """Cut points, most useful first: the output, what goes into the shifter, the middle of the shifter."""
        grain, words, residue, most = cls._facts(n_in, n_out)
        return ("result", *["window"] * (words == 1 and most > 1), *["shifted"] * (residue // grain > 1))

    def elaborate(self, platform):
        m = Module()
        n_in, n_out = self._n_in, self._n_out
        grain, words, residue, most = self._facts(n_in, n_out)

        accepted = Signal()
        emitted = Signal()
        ready = Signal(init=1)
        step = Signal(init=1)
        # Outputs still to be made of what the words hold.
        left = Signal(range(most + 1))
        m.d.comb += [
            self.i.ready.eq(ready),
            accepted.eq(self.i.valid & ready),
            emitted.eq(step & (left != 0)),
        ]

        free = Signal(range(self.credits + 1), init=self.credits)
        free_next = Signal.like(free)
        left_next = Signal.like(left)
        outputs = Signal.like(left)
        m.d.comb += [
            free_next.eq(free - emitted + self.o_taken),
            left_next.eq(Mux(accepted, outputs, left - emitted)),
        ]
        m.d.sync += [
            free.eq(free_next),
            left.eq(left_next),
            step.eq(free_next != 0),
            ready.eq((free_next != 0) & (left_next <= 1 if most > 1 else 1)),
        ]

        # Bytes that wait, in grains; the outputs, and what is left over, of an input that is whole and of a packet's last.
        places = grain.bit_length() - 1
        waiting = Signal(range(n_out // grain)) if n_out > grain else C(0, 0)
        end = Signal(range(n_out - grain + n_in + 1))
        m.d.comb += end.eq((waiting << places) + self.i.payload.amount)
        floor, rest = _divided(m, waiting + n_in // grain, n_out // grain, most, "whole")
        end_floor, end_rest = _divided(m, end, n_out, most, "end")
        is_whole = (end_rest == 0) & (end_floor != 0)
        amount = Signal(range(n_out + 1))
        is_last = Signal()
        m.d.comb += outputs.eq(Mux(self.i.payload.last, end_floor + ~is_whole, floor))
        with m.If(accepted):
            m.d.sync += [is_last.eq(self.i.payload.last), amount.eq(Mux(is_whole, n_out, end_rest))]
            if len(waiting):
                m.d.sync += waiting.eq(Mux(self.i.payload.last, 0, rest))

        held, skip = self._held(m, accepted, ready, emitted, outputs, waiting, rest)
        if words == 1 and most > 1:
            turn = Signal(range(most))
            m.d.sync += turn.eq(Mux(accepted, 0, turn + emitted))
            window = select(m, (held[8 * n * n_out:8 * ((n + 1) * n_out + residue)] for n in range(most)), turn)
        else:
            window = held[:8 * (n_out + residue)]

        beside = Signal(data.StructLayout({"amount": range(n_out + 1), "last": 1} | ({"skip": skip.shape()} if residue else {})))
        ends = is_last & (left == 1)
        m.d.comb += [beside.last.eq(ends), beside.amount.eq(Mux(ends, amount, n_out))]
        if residue:
            m.d.comb += beside.skip.eq(skip)
        self._shift(m, window, beside, emitted)

        return m

    def _held(self, m, accepted, ready, emitted, outputs, waiting, rest):
        """``(held, skip)``: the bytes of the next output and what surrounds them, and how many grains before them; None where there
        are none."""
        n_in, n_out = self._n_in, self._n_out
        grain, words, residue, _ = self._facts(n_in, n_out)
        inputs = [Signal(8 * n_in, name=f"word{n}", reset_less=words == 1) for n in range(words)]

        if words == 1:
            starts = accepted
            newest = inputs[0]
            with m.If(ready):
                m.d.sync += inputs[0].eq(self.i.payload.data)
        else:
            # One-hot: the word that the next input goes to. Those that no input has reached are zero.
            at = Signal(words, init=1)
            starts = accepted & at[0]
            with m.If(accepted):
                m.d.sync += at.eq(Mux(outputs != 0, 1, at << 1))
            for word, here in zip(inputs, at, strict=True):
                with m.If(ready & here):
                    m.d.sync += word.eq(self.i.payload.data)
                with m.Elif(emitted):
                    m.d.sync += word.eq(0)
            # The word that the last input went to.
            is_longest = Signal()
            newest = Mux(is_longest, inputs[-1], inputs[-2])
            if residue:
                with m.If(accepted):
                    m.d.sync += is_longest.eq(at[-1])
        if not residue:
            return Cat(*inputs), None

        before = Signal(8 * residue, reset_less=True)
        with m.If(emitted):
            m.d.sync += before.eq(newest[8 * (n_in - residue):])
        skip = Signal(range(residue // grain + 1))
        with m.If(starts):
            m.d.sync += skip.eq(residue // grain - waiting)
        if words > 1:
            # What a packet's last input leaves over starts where that of a whole one would.
            over = Signal.like(rest)
            with m.If(accepted):
                m.d.sync += over.eq(rest)
            with m.If(emitted & ~starts):
                m.d.sync += skip.eq(residue // grain - over)
        held = Signal(8 * (residue + words * n_in))
        m.d.comb += held.eq(Cat(before, *inputs))
        return held, skip

    def _shift(self, m, window, beside, emitted):
        """Take the output from ``window``, ``beside.skip`` grains from its start, to ``o``."""
        n_in, n_out = self._n_in, self._n_out
        grain, _, residue, _ = self._facts(n_in, n_out)
        cut = Cuts(m, self.cuts(n_in, n_out), self._stages)

        def through(name, value, beside):
            return (cut(name, value, "data"), cut(name, beside, "beside")) if name in self.cuts(n_in, n_out) else (value, beside)

        value, beside = through("window", window, beside)
        levels = (residue // grain).bit_length()
        for k in reversed(range(levels)):
            if k == levels // 2 - 1:
                value, beside = through("shifted", value, beside)
            step = 8 * grain << k
            shifted = Signal(min(len(value), 8 * (n_out + ((1 << k) - 1) * grain)), name=f"shifted{k}")
            m.d.comb += shifted.eq(Mux(beside.skip[k], value[step:], value))
            value = shifted
        value, beside = through("result", value, beside)

        m.d.comb += [
            self.o.data.eq(value),
            self.o.amount.eq(beside.amount),
            self.o.last.eq(beside.last),
            self.o_valid.eq(delay(m, emitted, self._stages, name="valid", reset_less=False)),
        ]


class Repacker(StreamUnit):
    """A unit round a gearbox; a subclass says how its payloads are bytes."""
    # The fewest bytes of a packet's last input.
    least_bytes = 0

    @property
    def latency(self):
        least = self.parameters.stages + 1 + ResultQueue.latency
        return [least, least + Gearbox.most_outputs(*self.parameters.sizes) - 1]

    @property
    def interval(self):
        n_in, n_out = self.parameters.sizes
        return [max(1, min(n_in // n_out, -(-self.least_bytes // n_out))), Gearbox.most_outputs(n_in, n_out)]

    @property
    def throughput(self):
        n_in, n_out = self.parameters.sizes
        return {"i": min(1, n_out / n_in), "o": min(1, n_in / n_out)}

    def elaborate(self, platform):
        m = Module()

        m.submodules.gearbox = gearbox = Gearbox(*self.parameters.sizes, self.parameters.stages)
        m.submodules.results = results = ResultQueue(self.o.payload.shape(), gearbox.credits)
        wiring.connect(m, results.o, wiring.flipped(self.o))
        result = Signal(self.o.payload.shape())
        m.d.comb += [
            gearbox.i.valid.eq(self.i.valid),
            self.i.ready.eq(gearbox.i.ready),
            results.w_data.eq(result),
            results.w_en.eq(gearbox.o_valid),
            gearbox.o_taken.eq(self.o.valid & self.o.ready),
        ]
        self._to_bytes(m, self.i.payload, gearbox.i.payload)
        self._from_bytes(m, gearbox.o, result)

        return m
