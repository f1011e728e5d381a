"""Units composed in Amaranth: two streams of BF16 values, quantized to MXFP8, joined, multiplied."""
import argparse
import random
import sys
from pathlib import Path

import numpy as np
from amaranth import *
from amaranth.back import verilog
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

import mxgolden
from mxforge.pipeline import Streamed, chain
from mxforge.quantizer import Quantizer
from mxforge.scaled_dot import ScaledDot


class StreamDot(wiring.Component):
    """Dot products of the blocks of two streams, each quantized on the way in.

    Members
    -------
    a, b : :py:`In(stream.Signature)`
        ``values`` [32], BF16 bits: a block each.
    o : :py:`Out(stream.Signature)`
        ``result``, FP32 bits: the dot product of a block of ``a`` and the block of ``b`` that came as the same in number.
    """
    def __init__(self):
        self._a = Streamed(Quantizer(source="bf16", element="e4m3", stages=4))
        self._b = Streamed(Quantizer(source="bf16", element="e5m2", stages=4))
        self._dot = Streamed(ScaledDot(a_element="e4m3", b_element="e5m2", addend=False, stages=4))
        super().__init__({
            "a": In(stream.Signature(self._a.i.payload.shape())),
            "b": In(stream.Signature(self._b.i.payload.shape())),
            "o": Out(stream.Signature(self._dot.o.payload.shape())),
        })

    @property
    def latency(self):
        """Cycles from the edge that transfers the later block of a pair to that at which the result is first seen."""
        return max(self._a.latency, self._b.latency) + self._dot.latency

    def elaborate(self, platform):
        m = Module()

        m.submodules.a_quantizer = self._a
        m.submodules.b_quantizer = self._b
        m.submodules.dot = self._dot

        # `chain` refuses streams whose payloads differ in layout, where Amaranth's own `connect` minds only the width.
        a = chain(m, wiring.flipped(self.a), self._a)
        b = chain(m, wiring.flipped(self.b), self._b)

        # A join: a pair is there when both blocks are, and they go together.
        pairs = stream.Signature(self._dot.i.payload.shape()).create()
        m.d.comb += [
            pairs.payload.a_scale.eq(a.payload.scale),
            pairs.payload.a_elements.eq(a.payload.elements),
            pairs.payload.b_scale.eq(b.payload.scale),
            pairs.payload.b_elements.eq(b.payload.elements),
            pairs.valid.eq(a.valid & b.valid),
            a.ready.eq(pairs.ready & b.valid),
            b.ready.eq(pairs.ready & a.valid),
        ]
        wiring.connect(m, chain(m, pairs, self._dot), wiring.flipped(self.o))

        return m


def simulate(design, a_blocks, b_blocks, idle):
    """``(results, latency, cycles)`` of ``design``: bits, and what they took; ``idle`` is how often a port pauses."""
    simulator = Simulator(design)
    simulator.add_clock(1e-8)
    cycle = 0
    taken, results, seen = [], [], []

    async def count(ctx):
        nonlocal cycle
        async for _ in ctx.tick():
            cycle += 1

    def put(port, blocks, seed):
        rng = random.Random(seed)

        async def run(ctx):
            for n, block in enumerate(blocks):
                while rng.random() < idle:
                    await ctx.tick()
                ctx.set(port.payload, {"values": block.tolist()})
                ctx.set(port.valid, 1)
                await ctx.tick().until(port.ready)
                ctx.set(port.valid, 0)
                if n == 0:
                    taken.append(cycle)
        return run

    async def get(ctx):
        rng = random.Random(3)
        o = design.o
        while len(results) < len(a_blocks):
            ctx.set(o.ready, int(rng.random() >= idle))
            _, _, valid, ready, result = await ctx.tick().sample(o.valid, o.ready, o.payload.result)
            if valid and ready:
                results.append(result)
                seen.append(cycle)

    simulator.add_process(count)
    simulator.add_testbench(put(design.a, a_blocks, 1))
    simulator.add_testbench(put(design.b, b_blocks, 2))
    simulator.add_testbench(get)
    simulator.run()
    return np.array(results, np.uint32), seen[0] - max(taken), seen[-1] - seen[0] + 1


def blocks(count, seed):
    """BF16 bits (count, 32): normally distributed, with an outlier each, zeros, an infinity and a NaN."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((count, 32), dtype=np.float32)
    values[:, 5] *= 100
    # BF16 bits are the upper half of FP32's.
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    bits[seed + 1] = 0
    bits[seed + 3, 7] = 0x7F80
    bits[seed + 5, 9] = 0x7FC0
    return bits


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=150, help="Pairs of blocks, at full speed and again with pauses.")
    parser.add_argument("--verilog", metavar="FILE", type=Path, help="Where to write the design.")
    args = parser.parse_args()

    a, b = blocks(args.pairs, 1), blocks(args.pairs, 2)
    a_scales, a_codes = mxgolden.quantize(a, "bf16", "e4m3")
    b_scales, b_codes = mxgolden.quantize(b, "bf16", "e5m2")
    expected = mxgolden.dot(a_codes, a_scales, b_codes, b_scales, a_element="e4m3", b_element="e5m2")

    mismatches = 0
    for idle in 0, 0.3:
        design = StreamDot()
        results, latency, cycles = simulate(design, a, b, idle)
        mismatches += int((results != expected).sum())
        print(f"pauses {idle:.0%}: {len(results)} results in {cycles} cycles"
              + ("" if idle else f", latency {latency}, declared {design.latency}"))
        if not idle and (latency, cycles) != (design.latency, len(results)):
            sys.exit("FAIL: not the latency that is declared, or not a result each cycle")
    print(f"{'FAIL' if mismatches else 'PASS'}: {2 * args.pairs} pairs of blocks, {mismatches} mismatches")

    if args.verilog:
        args.verilog.parent.mkdir(parents=True, exist_ok=True)
        args.verilog.write_text(verilog.convert(StreamDot(), name="stream_dot", emit_src=False))
        print(f"{args.verilog}: module stream_dot")
    return int(mismatches > 0)


if __name__ == "__main__":
    sys.exit(main())
