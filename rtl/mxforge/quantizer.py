"""Blocks of wide values to MX: one scale, and element codes under it."""
from dataclasses import dataclass

from amaranth import *
from amaranth.lib import data, memory
from amaranth.utils import ceil_log2

from . import parameters
from .arith import tree_max
from .block_amax import level_cuts, magnitude_of, running_max
from .block_cast import BlockCaster, TreeCaster
from .element_cast import RANDOM_WIDTH, Caster
from .formats import E8M0, ELEMENTS, WIDES, IntegerFormat
from .pipeline import Cuts, burst, delay, through
from .scale_select import SCALE_RULES, ScaleRule
from .unit import Unit

__all__ = ["Quantizer", "decoded_lanes", "rule_and_caster"]


def rule_and_caster(p):
    """The :class:`ScaleRule` and the :class:`Caster` of a quantizer's parameters, without logic for what can't come."""
    source, element = WIDES[p.source], ELEMENTS[p.element]
    return (
        ScaleRule(source, element, p.scale_rule, p.nan_policy),
        Caster(source, element, p.rounding, p.overflow,
               has_specials=p.nan_policy == "element",
               can_overflow=p.scale_rule in ("floor", "even") or isinstance(element, IntegerFormat)))


def decoded_lanes(m, cut, i, p, rule, caster):
    """``(keys, decoded)`` of each value of the payload ``i``, behind the cut ``keys``, half of the normalising before it."""
    keys = []
    decoded = Signal(data.ArrayLayout(caster.decoded_layout, len(i.values)), name="decoded")
    for lane, value in enumerate(i.values):
        keys.append(cut("keys", rule.key(magnitude_of(m, value, WIDES[p.source], p.nan_policy)), f"{lane}"))
        random = i.random[lane] if p.rounding == "stochastic" else None
        m.d.comb += decoded[lane].eq(
            caster.decode(m, value, random, f"decoded{lane}", lambda value, label: cut("keys", value, label)))
    return keys, decoded


class Quantizer(Unit):
    """Block quantizer: amax, scale, and every value of the block cast under that scale (OCP MX v1.0, 6.3).

    Bit for bit what :class:`BlockAmax`, :class:`ScaleSelect` and :class:`ElementCast` give one after the other; their
    docstrings say which scale, which code, and what becomes of NaN, Inf, zeros and subnormals. Under the policy ``block`` a NaN
    or Inf makes the whole block NaN: scale 0xFF, every element 0x7F (0 in formats without NaN). Under ``element`` a NaN
    is its own element's and no other's, and an Inf makes the scale 0xFE and follows ``overflow``. A block of zeros has
    scale 0, and keeps their signs.

    Design. Comparing starts from each value's key (:class:`ScaleRule`), nine bits or less for FP32 and BF16, and not from
    31 or 15: the largest key gives the scale that the largest magnitude would. Decoding a value needs no scale, and runs beside
    the comparisons; what waits for the scale is a decoded value, which is never wider than its bits (FP32 to E4M3: 16 bits for
    32) but by the flags that the policy ``element`` needs.

    With the whole block in one beat, the tree of maxima and the waiting values are a plain pipeline. With several, the maximum
    so far is a register, and the decoded values go to a memory of at least a block, which is read as the largest key is known,
    while the next block is written behind it: beat n of the next block is never written before beat n of this one is read,
    but for what the cuts between add, and the memory has as many words more. The counters of beats, written and read, start
    together at reset.

    Where the rule and the policy leave no room for it, the cast has no logic for overflow, or for NaN and Inf: no
    finite value is above the largest element under ``rceil``, ``ceil``, ``floor_plus_1`` and ``unit`` (but in MXINT8, whose
    scale is clamped at the top), and under ``block`` no NaN or Inf comes without a NaN scale.

    A block of FP32 or BF16 in one beat, without such logic and rounded to nearest even to a float, is compared and cast at once:
    bit by bit of the key, without comparators (:class:`BlockCaster`); from 12 stages on by a tree of them (:class:`TreeCaster`).

    Cuts there: each bit of the key, or each level of the tree and each comparison in it; the keys; the scale; the base; five in
    a lane. Elsewhere: the scale; those of the cast; each level of the tree; the keys, with half of the normalising; the base,
    which is the scale's complement that the lanes add.

    Members
    -------
    i : ``values`` [lanes], bits of ``source``; with stochastic rounding ``random`` [lanes], 16 bits.
    o : ``scale`` 8 bits (E8M0), on each beat of its block; ``elements`` [lanes], codes of ``element``.
    i_valid, o_valid
        Only with several beats a block: ``o_valid`` is high for a block's output beats, the first of them ``latency`` cycles
        after its last input beat, the others right behind it.

    Latency is ``stages``, and 1 more with several beats a block; one beat a cycle.
    """
    @dataclass(frozen=True, kw_only=True)
    class Parameters(parameters.Parameters):
        source: str = parameters.choice("fp32", WIDES, "Format of the values.")
        element: str = parameters.choice("e4m3", ELEMENTS, "Element format.")
        block_size: int = parameters.integer(32, 2, 256, "Values under one scale.", power_of_two=True)
        lanes: int = parameters.integer(32, 1, 256, "Values a cycle.", power_of_two=True)
        scale_rule: str = parameters.choice("rceil", SCALE_RULES, "How the scale follows from the largest magnitude.")
        nan_policy: str = parameters.choice(
            "block", ("block", "element"), "A NaN or Inf makes its block NaN; or NaN stays alone, Inf takes the largest scale.")
        rounding: str = parameters.choice("rne", ("rne", "stochastic"), "To nearest even, or by random numbers.")
        overflow: str = parameters.choice("saturate", ("saturate", "ieee"), "What a value above the largest element becomes.")

        @property
        def beats(self):
            return self.block_size // self.lanes

        @property
        def block_caster(self):
            """What compares and casts at once, or None where it can't serve."""
            few, many = self._block_casters
            return many if self.stages >= TreeCaster.LEAST_STAGES else few

        @property
        def _block_casters(self):
            """Those for few stages, and for many; None twice where they can't serve."""
            rule, caster = rule_and_caster(self)
            if self.beats > 1 or not BlockCaster.serves(rule, caster):
                return None, None
            source, element = WIDES[self.source], ELEMENTS[self.element]
            few, many = BlockCaster(source, element, rule), TreeCaster(source, element, rule, self.lanes)
            return few, many if len(many.cuts) >= TreeCaster.LEAST_STAGES else few

        @property
        def latency(self):
            # With several beats the largest key is held, for as long as they take.
            return self.stages + (self.beats > 1)

        @property
        def cuts(self):
            few, many = self._block_casters
            if few:
                # With fewer stages than the tree's, as many as it has may still be asked for.
                least = TreeCaster.LEAST_STAGES
                if few is many or self.stages >= least:
                    return self.block_caster.cuts
                return few.cuts[:least - 1] + many.cuts[least - 1:]
            levels = level_cuts(self.lanes)
            return ("scale", "shifted", *levels[:1], "difference", "rounded", *levels[1:2], "keys", *levels[2:], "base", "result")

        def __post_init__(self):
            super().__post_init__()
            self.check_block()
            self.check_specials()
            self.check_stages()

    def __init__(self, **options):
        p = self.Parameters(**options)
        self.is_stateful = p.beats > 1
        self.cadence = "blocks" if p.beats > 1 else "each"
        fields = {"values": data.ArrayLayout(unsigned(WIDES[p.source].width), p.lanes)}
        if p.rounding == "stochastic":
            fields["random"] = data.ArrayLayout(unsigned(RANDOM_WIDTH), p.lanes)
        super().__init__(
            p,
            i=data.StructLayout(fields),
            o=data.StructLayout({
                "scale": E8M0.shape, "elements": data.ArrayLayout(unsigned(ELEMENTS[p.element].width), p.lanes)}))

    @property
    def beats(self):
        return self.parameters.beats, self.parameters.beats

    def elaborate(self, platform):
        m = Module()
        p = self.parameters
        if caster := p.block_caster:
            cut = Cuts(m, caster.cuts, p.stages)
            scale, codes = caster.result(m, cut, [self.i.values[lane] for lane in range(p.lanes)])
            m.d.comb += [self.o.scale.eq(scale), Cat(self.o.elements).eq(Cat(codes))]
            return m

        cut = Cuts(m, p.cuts, p.stages)
        levels = level_cuts(p.lanes)
        rule, caster = rule_and_caster(p)
        keys, waiting = decoded_lanes(m, cut, self.i, p, rule, caster)
        key = tree_max(m, keys, lambda level, n, value: cut(f"level_{level}", value, f"{n}"))

        if p.beats == 1:
            for name in (*levels, "scale", "base"):
                waiting = cut(name, waiting, "waiting")
        else:
            key, waiting = self._hold(m, cut, key, waiting)

        scale = cut("scale", rule.scale(m, key))
        shared = cut("base", caster.share(m, scale), "shared")
        scale = cut("base", scale, "scale")
        for lane in range(p.lanes):
            m.d.comb += self.o.elements[lane].eq(caster.encode(m, cut, shared, waiting[lane], f"element{lane}"))
        m.d.comb += self.o.scale.eq(through(cut, Caster.CUTS, scale, "scale"))

        return m

    def _hold(self, m, cut, key, waiting):
        """``(key, waiting)``: the largest key of a block for as long as it has beats, and its beats, in order."""
        beats = self.parameters.beats
        levels = level_cuts(self.parameters.lanes)

        written = delay(m, self.i_valid, cut.count("keys"), name="written", reset_less=False)
        compared = delay(m, written, cut.count(*levels), name="compared", reset_less=False)
        maximum, is_last = running_max(m, key, compared, beats)
        is_known = Signal()
        held = Signal.like(maximum)
        m.d.comb += is_known.eq(compared & is_last)
        with m.If(is_known):
            m.d.sync += held.eq(maximum)

        # From a block's last beat written to its first one read.
        between = cut.count(*levels, "scale", "base")
        start = delay(m, is_known, cut.count("scale", "base"), name="start", reset_less=False)
        read_en = burst(m, start, beats, name="remaining")
        valid = delay(m, read_en, 1 + cut.count(*Caster.CUTS), name="valid", reset_less=False)
        m.d.comb += self.o_valid.eq(valid)

        m.submodules.storage = storage = memory.Memory(
            shape=len(waiting.as_value()), depth=1 << ceil_log2(beats - 1 + max(1, between)), init=[])
        write = storage.write_port()
        read = storage.read_port()
        m.d.comb += [
            write.en.eq(written),
            write.data.eq(waiting),
            read.en.eq(read_en),
        ]
        m.d.sync += [
            write.addr.eq(write.addr + written),
            read.addr.eq(read.addr + read_en),
        ]
        return held, data.View(waiting.shape(), read.data)
