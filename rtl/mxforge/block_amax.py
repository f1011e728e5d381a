"""The largest magnitude of a block, by comparing bits as integers."""
from dataclasses import dataclass

from amaranth import *
from amaranth.lib import data
from amaranth.utils import ceil_log2

from . import parameters
from .arith import tree_max
from .formats import WIDES
from .pipeline import Cuts, delay, through
from .unit import Unit

__all__ = ["BlockAmax", "crossed_key", "finite_magnitude_of", "largest_key", "level_cuts", "magnitude_of", "running_max"]


def magnitude_of(m, value, source, nan_policy):
    """The magnitude bits of ``value``; zero for a NaN under the policy ``element``, so that no maximum sees it."""
    magnitude = value[:source.width - 1]
    if nan_policy == "block":
        return magnitude
    is_nan = magnitude[source.mantissa_width:].all() & magnitude[:source.mantissa_width].any()
    ordered = Signal(len(magnitude), name="ordered")
    m.d.comb += ordered.eq(Mux(is_nan, 0, magnitude))
    return ordered


def finite_magnitude_of(m, value, source):
    """The magnitude bits of ``value``; zero for NaN and Inf."""
    magnitude = value[:source.width - 1]
    finite = Signal(len(magnitude), name="finite")
    m.d.comb += finite.eq(magnitude & (~magnitude[source.mantissa_width:].all()).replicate(len(magnitude)))
    return finite


def level_cuts(lanes):
    """Names of the cuts behind each level of a tree over ``lanes``, most useful first: every second level, then the rest."""
    levels = range(1, ceil_log2(lanes) + 1)
    return tuple(f"level_{n}" for n in sorted(levels, key=lambda n: (n % 2, n)))


def crossed_key(cut, cuts, key, n, label=""):
    """Key ``n`` of a level of :func:`largest_key` behind ``cuts``; every other one as the complement that a comparison adds."""
    label = f"{label}{n}"
    return ~through(cut, cuts, ~key, label) if n % 2 else through(cut, cuts, key, label)


def largest_key(m, cut, keys, compared, chosen, label=""):
    """The largest of keys from :func:`crossed_key`, by a balanced tree for a fast clock: of each level, from 1 on, the cuts
    ``compared(level)`` are behind the comparisons, ``chosen(level)`` behind what they choose.
    """
    level = 0
    while len(keys) > 1:
        level += 1
        larger = []
        for n, (a, b) in enumerate(zip(keys[::2], keys[1::2], strict=False)):
            # The carry out of the difference less 1: a carry chain and no more, which a comparison isn't to every mapper.
            is_first = through(cut, compared(level), (a + ~b)[-1], f"{label}{n}")
            a, b = (through(cut, compared(level), key, f"{label}{n}_{side}") for key, side in ((a, "a"), (b, "b")))
            key = Signal(len(a), name=f"larger_{level}_{n}")
            m.d.comb += key.eq(Mux(is_first, a, b))
            larger.append(crossed_key(cut, chosen(level), key, n, label))
        if len(keys) % 2:
            unpaired = through(cut, compared(level), keys[-1], f"{label}{len(larger)}")
            larger.append(crossed_key(cut, chosen(level), unpaired, len(larger), label))
        keys = larger
    return keys[0]


def running_max(m, value, valid, beats):
    """``(maximum, is_last)``: the largest ``value`` of a block so far, and whether this beat ends the block.

    Blocks are ``beats`` (a power of two) valid beats each, counted from reset.
    """
    beat = Signal(range(beats))
    # Zero, which no value is below, is where a block starts.
    running = Signal(len(value))
    maximum = Signal(len(value))
    is_last = beat == beats - 1
    m.d.comb += maximum.eq(tree_max(m, [running, value]))
    with m.If(valid):
        m.d.sync += [beat.eq(beat + 1), running.eq(Mux(is_last, 0, maximum))]
    return maximum, is_last


class BlockAmax(Unit):
    """The largest magnitude of a block, as magnitude bits of the source: IEEE 754 orders magnitudes as integers.

    NaN is above Inf, which is above all numbers, so that under the policy ``block`` the result tells whether either is in
    the block (a NaN's mantissa is that of the largest). Under ``element`` a NaN enters as zero. Subnormals are kept.

    Design. A balanced tree of comparators over the lanes, then, where a block takes several beats, the maximum so far.

    Cuts: behind each level of the tree; ``result``, behind the running maximum, where there is one.

    Members
    -------
    i : ``values`` [lanes], bits of ``source``.
    o : ``amax``, one bit narrower than a value.
    i_valid, o_valid
        Only with several beats a block: ``o_valid`` is high ``latency`` cycles after a block's last beat.

    Latency is ``stages``; one beat a cycle.
    """
    @dataclass(frozen=True, kw_only=True)
    class Parameters(parameters.Parameters):
        source: str = parameters.choice("fp32", WIDES, "Format of the values.")
        block_size: int = parameters.integer(32, 2, 256, "Values in a block.", power_of_two=True)
        lanes: int = parameters.integer(32, 1, 256, "Values a cycle.", power_of_two=True)
        nan_policy: str = parameters.choice("block", ("block", "element"), "Whether a NaN is above all numbers or ignored.")

        @property
        def beats(self):
            return self.block_size // self.lanes

        @property
        def cuts(self):
            return level_cuts(self.lanes) + (("result",) if self.beats > 1 else ())

        def __post_init__(self):
            super().__post_init__()
            self.check_block()
            self.check_stages()

    def __init__(self, **options):
        p = self.Parameters(**options)
        self._source = WIDES[p.source]
        self.is_stateful = p.beats > 1
        self.cadence = "some" if p.beats > 1 else "each"
        super().__init__(
            p,
            i=data.StructLayout({"values": data.ArrayLayout(unsigned(self._source.width), p.lanes)}),
            o=data.StructLayout({"amax": unsigned(self._source.width - 1)}))

    @property
    def beats(self):
        return self.parameters.beats, 1

    def elaborate(self, platform):
        m = Module()
        p = self.parameters
        cut = Cuts(m, p.cuts, p.stages)

        magnitudes = [magnitude_of(m, self.i.values[lane], self._source, p.nan_policy) for lane in range(p.lanes)]
        amax = tree_max(m, magnitudes, lambda level, n, value: cut(f"level_{level}", value, f"{n}"))
        if p.beats > 1:
            valid = delay(m, self.i_valid, cut.count(*level_cuts(p.lanes)), name="valid", reset_less=False)
            amax, is_last = running_max(m, amax, valid, p.beats)
            amax = cut("result", amax)
            m.d.comb += self.o_valid.eq(cut("result", valid & is_last, "valid", reset_less=False))
        m.d.comb += self.o.amax.eq(amax)

        return m
