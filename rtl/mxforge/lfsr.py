"""Random numbers for stochastic rounding."""
import functools
import operator
from dataclasses import dataclass

from amaranth import *
from amaranth.lib import data

from . import parameters
from .element_cast import RANDOM_WIDTH
from .unit import Unit

__all__ = ["Lfsr", "initial_states"]

_STATE_WIDTH = 32
# A bit of the sequence is the XOR of those so far ahead of the one that far back.
_TAPS = 0, 1, 2, 22
_MASK = (1 << 64) - 1


def initial_states(seed, lanes):
    """The state of each lane after reset, never zero: the upper halves of the outputs of splitmix64 from ``seed`` on."""
    states = []
    for lane in range(lanes):
        z = (seed + (lane + 1) * 0x9E3779B97F4A7C15) & _MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        states.append(((z ^ (z >> 31)) >> _STATE_WIDTH) or 1)
    return states


class Lfsr(Unit):
    """Random numbers: passes values on, each with a fresh 16-bit number of its lane.

    Each lane has a 32-bit Fibonacci register of the primitive polynomial x^32 + x^22 + x^2 + x + 1, whose bit 0 is the oldest
    of the sequence: a step shifts ``s[0] ^ s[1] ^ s[2] ^ s[22]`` in at the top. A beat delivers ``s[15:0]`` and takes 16
    steps, so that each bit of the sequence is used once, and the period is 2^32 - 1 beats. The first beat after
    reset delivers bits of the initial state, for which see :func:`initial_states`: lanes start at unrelated places.

    Design. Only the tap at 22 reaches into bits that are new in the same beat, from the tenth on, so that a new bit is an XOR
    of four or, there, of seven bits.

    Members
    -------
    i : ``values`` [lanes], of ``width`` bits.
    o : ``values`` [lanes]; ``random`` [lanes], 16 bits each.
    i_valid : a beat. o_valid : ``i_valid``.

    No latency; one beat a cycle.
    """
    is_stateful = True

    @dataclass(frozen=True, kw_only=True)
    class Parameters(parameters.Parameters):
        width: int = parameters.integer(32, 1, 64, "Bits of a value.")
        lanes: int = parameters.integer(32, 1, 1024, "Values a cycle.")
        seed: int = parameters.integer(0, 0, _MASK, "Where the sequences of the lanes start.")

        def __post_init__(self):
            super().__post_init__()
            self.check_stages()

    def __init__(self, **options):
        p = self.Parameters(**options)
        values = data.ArrayLayout(unsigned(p.width), p.lanes)
        super().__init__(
            p,
            i=data.StructLayout({"values": values}),
            o=data.StructLayout({"values": values, "random": data.ArrayLayout(unsigned(RANDOM_WIDTH), p.lanes)}))

    def elaborate(self, platform):
        m = Module()
        p = self.parameters

        m.d.comb += [self.o.values.eq(self.i.values), self.o_valid.eq(self.i_valid)]
        for lane, init in enumerate(initial_states(p.seed, p.lanes)):
            state = Signal(_STATE_WIDTH, init=init, name=f"state{lane}")
            # In two signals: one that read itself would pass for a loop.
            old = _STATE_WIDTH - max(_TAPS)
            low = Signal(old, name=f"low{lane}")
            high = Signal(RANDOM_WIDTH - old, name=f"high{lane}")
            bits = Cat(state, low)
            new = [functools.reduce(operator.xor, (bits[n + tap] for tap in _TAPS)) for n in range(RANDOM_WIDTH)]
            m.d.comb += [low.eq(Cat(new[:old])), high.eq(Cat(new[old:]))]
            m.d.comb += self.o.random[lane].eq(state)
            with m.If(self.i_valid):
                m.d.sync += state.eq(Cat(state[RANDOM_WIDTH:], low, high))

        return m
