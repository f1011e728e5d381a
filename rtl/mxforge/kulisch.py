"""A Kulisch accumulator: one fixed-point number as wide as its window, in segments that save their carries."""
from dataclasses import dataclass

from amaranth import *
from amaranth.lib import data
from amaranth.utils import ceil_log2

from .arith import any_bit, shift_left
from .formats import FP32
from .pipeline import across, through
from .products import Pair
from .round import split

__all__ = ["RESULT_CUTS", "SEGMENT_WIDTH", "Segments", "Window", "accumulate", "place", "resolve", "rounded", "spread"]

# The longest adder. 562 bits in one reach 45 MHz on ECP5.
SEGMENT_WIDTH = 64
# Cut points of rounded(), in the order in which data crosses them.
RESULT_CUTS = "leading", "coarse", "fine", "normalized"


@dataclass(frozen=True)
class Window:
    """The places of the accumulator: where its last bit stands, and how many bits it takes.

    ``radius``: a block's scales together are ``2**-radius`` to ``2**radius``. The sum of ``max_blocks`` blocks then needs
    ``width`` bits, sign included (E4M3, radius 254, 4096 blocks: 562), the last of them worth ``2**lsb_exponent``.
    """
    pair: Pair
    block_size: int
    radius: int
    max_blocks: int

    @property
    def lsb_exponent(self):
        return self.pair.lsb_exponent - self.radius

    @property
    def width(self):
        return self.pair.sum_width(self.block_size) + 2 * self.radius + ceil_log2(self.max_blocks)

    def width_with(self, addend):
        """Bits that also hold an ``addend`` of less than ``2**(width - 1)`` last places: one more, where the sum is large
        too, so that a sum in the window never wraps.
        """
        if not addend:
            return self.width
        largest = self.max_blocks * self.block_size * self.pair.max_product << 2 * self.radius
        places = FP32.emax + 1 - self.lsb_exponent
        largest += min(1 << (self.width - 1), 1 << places) - 1
        return max(self.width, largest.bit_length() + 1)


@dataclass(frozen=True)
class Segments:
    """A two's complement number of ``width`` bits, cut into segments from its low end.

    Each segment adds by itself, and the carry out of it waits in a register for the segment above's next addition, so that
    no path is longer than a segment and a term is added every cycle. Invariant: the number is the digits plus each waiting
    carry at its segment's last place, modulo ``2**width``. A segment adds two unsigned numbers of its width and a carry of 1
    at most, so its own carry is 1 at most, and no segment can overflow. Negative terms come sign-extended over all segments
    (a waiting -1 in place of that would need an adder of three operands).
    """
    width: int

    @property
    def starts(self):
        return range(0, self.width, SEGMENT_WIDTH)

    def of(self, value):
        """``value`` in segments, lowest first."""
        return [value[start:min(start + SEGMENT_WIDTH, self.width)] for start in self.starts]

    @property
    def layout(self):
        # Bit n of carries waits for segment n; that of the lowest is only ever set by a new number.
        return data.StructLayout({"digits": unsigned(self.width), "carries": unsigned(len(self.starts))})


def _named(m, value, name):
    """A signal for what is read many times: written out at each reader, expressions grow with every level."""
    signal = Signal(value.shape(), name=name)
    m.d.comb += signal.eq(value)
    return signal


def place(m, term, position, name):
    """``(term << fine, coarse)`` with ``position`` as coarse segments and fine places. ``term`` is signed."""
    bits = SEGMENT_WIDTH.bit_length() - 1
    # The coarse part has a bit even where the window is a single segment.
    position = Cat(position, C(0, max(0, bits + 1 - len(position))))
    width = len(term) + SEGMENT_WIDTH - 1
    wide = Cat(term, term[-1].replicate(SEGMENT_WIDTH - 1))
    return _named(m, shift_left(wide, position[:bits], width).as_signed(), name), position[bits:]


def spread(m, segments, term, coarse, enable, name, *, skip=0, below=0):
    """The digits of ``term`` moved up by ``coarse - skip`` segments; all 0 without ``enable``.

    Segments above it repeat its sign, those below it are ``below`` throughout. Each segment reads one word of the term, or
    is all 0 or all 1: a multiplexer of as many inputs as the term has words and two more.
    """
    sign = term[-1]
    count = -(-len(term) // SEGMENT_WIDTH)
    wide = Cat(term, sign.replicate(count * SEGMENT_WIDTH - len(term)))
    words = [wide[n * SEGMENT_WIDTH:(n + 1) * SEGMENT_WIDTH] for n in range(count)]
    ones = count + 1
    digits = Signal(segments.width, name=name)
    for n, segment in enumerate(segments.of(digits)):
        # 0: zeros; 1 and up: the words; last: ones.
        choice = Signal(range(ones + 1), name=f"{name}_choice{n}")
        at = n + skip
        chosen = Mux(sign, ones, 0)
        for word in range(min(count, at + 1)):
            if at - word < 1 << len(coarse):
                chosen = Mux(coarse == at - word, word + 1, chosen)
        if at + 1 < 1 << len(coarse):
            chosen = Mux(coarse > at, Mux(below, ones, 0), chosen)
        m.d.comb += choice.eq(Mux(enable, chosen, 0))
        options = [C(0, 1), *words, C(-1, signed(1))]
        options += options[-1:] * ((1 << len(choice)) - len(options))
        for bit in choice:
            options = [Mux(bit, high, low) for low, high in zip(options[::2], options[1::2], strict=True)]
        m.d.comb += segment.eq(options[0])
    return digits


def accumulate(m, segments, state, digits, name):
    """The state after one addition of ``digits``: each segment's sum with the carry that waited for it."""
    result = Signal(segments.layout, name=name)
    carry = C(0, 1)
    carries = []
    for n, (held, term, out) in enumerate(
            zip(segments.of(state.digits), segments.of(digits), segments.of(result.digits), strict=True)):
        # The carry enters from a place below the last, so that one adder does.
        total = Cat(C(1, 1), held) + Cat(state.carries[n], term)
        total = _named(m, total, f"{name}_total{n}")
        m.d.comb += out.eq(total[1:])
        carries.append(carry)
        carry = total[len(held) + 1]
    m.d.comb += result.carries.eq(Cat(*carries))
    return result


def resolve(m, cut, segments, state, name):
    """The number that ``state`` stands for, as ``segments.width`` bits, two's complement.

    A segment passes a carry on if it is all ones with the waiting carry or without; it makes one if it is all ones and a
    carry waits. So the carries between segments come from two bits a segment, not from the sums. They cross the cut
    ``"carries"`` beside the state; the sums cross ``"resolved"``.
    """
    ripple = C(0, 1)
    ripples = []
    for n, held in enumerate(segments.of(state.digits)):
        ripple = _named(m, ripple, f"{name}_ripple{n}")
        ripples.append(ripple)
        waiting = state.carries[n]
        full = held.all()
        makes = full & waiting
        passes = full | (waiting & (~held[0] if len(held) == 1 else held[1:].all()))
        ripple = makes | (passes & ripple)
    state = cut("carries", state, name)
    ripples = cut("carries", Cat(*ripples), f"{name}_ripples")
    sums = []
    for n, held in enumerate(segments.of(state.digits)):
        total = Cat(C(1, 1), held) + Cat(ripples[n], state.carries[n], C(0, len(held) - 1))
        sums.append(total[1:len(held) + 1])
    return cut("resolved", _named(m, Cat(*sums), f"{name}_resolved"), name)


def rounded(m, cut, number, lsb_exponent, target, beside, name):
    """``number * 2**lsb_exponent`` rounded to ``target`` (RNE) and ``beside``, both on the far side of :data:`RESULT_CUTS`.

    Overflow gives Inf, zero +0, a negative number that rounds to zero -0. ``number`` is two's complement, and wide enough to
    hold the target's smallest normal number.

    A negative number is complemented and lacks 1 in its last place from there on; the places below it, were they there, would be
    ones. If what is below the guard bit is all ones, the missing 1 runs through it into the guard, else it stays below;
    the first case is the one where those bits of ``number`` itself are all 0, so one sticky bit serves both signs. The leading
    one is looked for between the target's largest exponent and its smallest: below, the result is subnormal, and the
    significand stands where the smallest normal's does. The hidden bit is added to an exponent field that is one too
    small, so that neither subnormals nor the rounding carry are cases of their own.
    """
    width = len(number)
    sign = number[-1]
    smallest = 1 - target.bias - lsb_exponent
    top = min(width - 2, target.emax - lsb_exponent)
    # Of -1 the complement is 0, and its leading one is the first below the last place.
    bottom = max(smallest, -1)
    keep = target.mantissa_width + 2
    lowest = bottom - keep + 1

    magnitude = number[max(lowest, 0):top + 1] ^ sign.replicate(top + 1 - max(lowest, 0))
    magnitude = _named(m, Cat(sign.replicate(max(-lowest, 0)), magnitude), f"{name}_magnitude")
    is_over = any_bit(number[top + 1:width - 1] ^ sign.replicate(width - 2 - top))
    sticky = any_bit(number[:max(lowest, 0)])
    exponent = C(top - smallest, range(top - smallest + 1))

    # The first step leaves one less than a power of two, so that no step overshoots the bottom.
    span = top - bottom
    powers = [1 << k for k in reversed(range((span + 1).bit_length() - 1))]
    stages = [span - sum(powers)], powers[:3], powers[3:]
    shift = C(0, 0)
    for at, stage in zip(RESULT_CUTS[:3], stages, strict=True):
        for step in filter(None, stage):
            is_empty = _named(m, ~any_bit(magnitude[len(magnitude) - step:]), f"{name}_is_empty{step}")
            sticky = sticky | (~is_empty & any_bit(magnitude[:step] ^ sign.replicate(step)))
            magnitude = Mux(is_empty, magnitude[:len(magnitude) - step], magnitude[step:])
            magnitude = _named(m, magnitude, f"{name}_below{step}")
            if stage is stages[0]:
                exponent = exponent - Mux(is_empty, step, 0)
            else:
                shift = Cat(is_empty, shift)
        magnitude, sticky, sign, is_over, exponent = across(
            cut, at, f"{name}_{{}}", magnitude=magnitude, sticky=sticky, sign=sign, is_over=is_over, exponent=exponent).values()
        if len(shift):
            shift = cut(at, shift, f"{name}_shift")
    m.d.comb += (field := Signal(target.exponent_width, name=f"{name}_exponent_code")).eq(
        # Without a leading one the number is 0 or subnormal.
        Mux(magnitude[-1], exponent - shift, 0))
    sticky = _named(m, sticky, f"{name}_sticky")
    kept, guard, _ = split(magnitude, 1)
    # Ties to even; what the missing 1 adds is in it.
    up = Mux(sticky, guard, Mux(sign, guard | kept[0], guard & kept[0]))
    kept, up, field, sign, is_over = across(
        cut, "normalized", f"{name}_{{}}", kept=kept, up=up, exponent_code=field, sign=sign, is_over=is_over).values()
    code = Cat(C(0, target.mantissa_width), field) + kept + up
    code = Mux(is_over, target.inf_code, code[:target.width - 1])
    return Cat(code, sign), through(cut, RESULT_CUTS, beside, f"{name}_beside")
