"""MX elements and their shared scale back to wide floats, by adding exponents."""
from dataclasses import dataclass

from amaranth import *
from amaranth.lib import data
from amaranth.utils import bits_for

from . import parameters
from .arith import any_bit, is_among, plus
from .formats import E8M0, ELEMENTS, WIDES
from .pipeline import Cuts, across
from .raw import normalized, normalized_exponents
from .round import round_up_to_nearest_even, split
from .unit import Unit

__all__ = ["Dequantizer"]

# Bits of the part of a shift that is done first.
FINE = 2


class _CarrySelect:
    """How a lane's sum splits: it adds ``width`` low bits, and its carry picks among facts of the bits above.

    The facts depend on the scale alone, so the lanes share them. They are tables over the scale's upper bits and the carry
    that the offset brings into those. What no scale and exponent bring about is left open.
    """
    def __init__(self, target, exponents, offset, most):
        self._most = most
        width = self.width = max(len(Signal(exponents)), bits_for(most - 1))
        # Exponent codes below 0 count from the least of so many bits, so that a lane adds no sign.
        self._is_signed = exponents.start < 0
        self._start = offset - (1 << width - 1 if self._is_signed else 0)
        top = (1 << target.exponent_width) - 1

        names = "is_negative", "is_near", "is_low", "is_high", "is_above"
        tables = {name: ([0] * self._size, [0] * self._size) for name in names}
        self._near = set()
        for scale in range(E8M0.nan_code):
            index, high = self._upper(scale)
            for exponent in exponents:
                total = scale + offset + exponent
                above, low = divmod(total, 1 << width)
                holds = {
                    "is_negative": above < 0, "is_near": above == -1, "is_low": total <= 0,
                    "is_high": total >= top, "is_above": above > top >> width,
                }
                for name, value in holds.items():
                    tables[name][above - high][index] |= value
                if above == -1:
                    self._near.add(low)
        self._facts = tables
        # Equal tables are one fact.
        self._tables = list(dict.fromkeys(tuple(table) for pair in tables.values() for table in pair))
        self._top = top >> width
        self._layout = data.StructLayout(
            {"low": width, "is_nan": 1, "facts": len(self._tables)}
            | (dict.fromkeys(("field", "changes"), self._top.bit_length()) if self._top else {}))

    @property
    def _size(self):
        return 2 << E8M0.width - self.width

    def _upper(self, scale):
        """The row of the tables, and the bits above ``width`` of the scale's share of the sum."""
        carry = (scale % (1 << self.width) + self._start % (1 << self.width)) >> self.width
        return carry | scale >> self.width << 1, scale + self._start >> self.width

    def share(self, m, scale):
        """What the lanes share of a scale."""
        width = self.width
        shared = Signal(self._layout, name="shared")
        low = plus(m, scale[:width], self._start % (1 << width), width + 1)
        m.d.comb += [shared.low.eq(low[:-1]), shared.is_nan.eq(scale.all())]
        row = Cat(low[-1], scale[width:])
        highs = [(n >> 1) + (n & 1) + (self._start >> width) for n in range(self._size)]
        columns = list(zip(shared.facts, self._tables, strict=True))
        if self._top:
            # The upper bits of the exponent field, and which of them a lane's carry changes.
            fields = [min(max(high, 0), self._top) for high in highs]
            changes = [field ^ min(max(high + 1, 0), self._top) for field, high in zip(fields, highs, strict=True)]
            for bits, numbers in (shared.field, fields), (shared.changes, changes):
                columns += [(bit, [number >> n & 1 for number in numbers]) for n, bit in enumerate(bits)]
        for bit, table in columns:
            m.d.comb += bit.eq(is_among(m, row, [n for n, value in enumerate(table) if value], range(self._size)))
        return shared

    def steps(self, exponent_code):
        """What a lane adds for an exponent code."""
        if self._is_signed:
            sign = exponent_code[-1]
            return Cat(exponent_code[:-1], sign.replicate(self.width - len(exponent_code)), ~sign)
        return exponent_code

    def pick(self, shared, fact, carry, given=None):
        """A fact of the sum's upper bits; where ``given``, another of them, doesn't hold, it may be anything."""
        tables = self._facts[fact]
        facts = []
        for number, table in enumerate(tables):
            seen = {value for n, value in enumerate(table) if given is None or self._facts[given][number][n]}
            facts.append(Const(1 in seen, 1) if len(seen) < 2 else shared.facts[self._tables.index(tuple(table))])
        without, with_carry = facts
        if tables[0] == tables[1] and given is None:
            return without
        return (without & ~carry) | (with_carry & carry)

    def is_in_group(self, m, low, group):
        """Whether a negative sum of these low bits, which ``is_near``, moves the significand by ``group << FINE`` places or up to
        3 more.
        """
        places = {number: 1 + (1 << self.width) - number for number in self._near}
        chosen = [number for number, count in places.items() if count >> FINE == group and count <= self._most]
        return is_among(m, low, chosen, places)


def _moved_down(bits, places):
    """``bits``, highest first, moved down by ``places``, and zeros in the rest.

    What masks both inputs of a multiplexer masks its output instead: synthesis doesn't find that by itself, and it is 8 % of a
    dequantizer.
    """
    masked = [(None, bit) for bit in bits]
    for k, moves in reversed(list(enumerate(places))):
        stays = ~moves
        above = [None] * (1 << k) + masked
        below = masked + [None] * (1 << k)
        masked = []
        for down, same in zip(above, below, strict=True):
            if down is None or same is None:
                mask, bit = same or down
                own = stays if down is None else moves
                masked.append((own, bit) if mask is None else (None, own & mask & bit))
            elif down[0] is same[0]:
                masked.append((down[0], Mux(moves, down[1], same[1])))
            else:
                masked.append((None, Mux(moves, _and(*down), _and(*same))))
    return [_and(mask, bit) for mask, bit in masked]


def _and(mask, bit):
    return bit if mask is None else mask & bit


class Dequantizer(Unit):
    """E8M0 exponent adder: ``element * 2**(scale - 127)`` as FP32, BF16 or FP16, without a multiplier.

    Exact wherever the target can hold the product; otherwise rounded once, RNE. Subnormals are kept on both sides. A NaN
    scale (0xFF) makes every value NaN, a NaN element its own (OCP MX v1.0, 5.1); NaN comes out as all ones but the sign.
    An E5M2 Inf stays Inf. A finite product beyond the target's range, which OCP MX leaves open, becomes Inf or the
    largest finite value (``overflow``), with its sign. Zeros keep their sign.

    Design. The lanes share ``scale`` plus the difference of the biases. A lane normalises its element, so that the
    target's exponent is one sum of the shared number and a small signed exponent. Where the sum is 1 or more it is the
    exponent field, and the fraction, never wider than the target's mantissa, stands at the top of the mantissa. Below 1
    the target is subnormal: the significand moves right by 1 minus the sum, at most ``mantissa_width + 2`` places, since
    from there on all of it is below half of the last place. Only subnormals lose bits, so the rounding carry ends at the
    smallest normal, and no overflow comes of it. FP32 holds every product exactly, and has no rounder.

    A lane adds as many low bits as its exponent has (5 for E4M3), or the longest shift, made positive by what the shared number
    lacks. Whether the sum is below 1 or beyond the top is one of two shared signals, by the lane's carry; its upper bits are
    shared, but for those that the carry changes. The shift goes by 0 to 3 places, then by groups of 4, one selected at most;
    zero and Inf, without a fraction, aren't moved. NaN selects all groups, so that where nothing is rounded its mantissa is
    the AND of two of them, if there are two.

    Cuts: what the sums say, the result, the normalised elements, the shifted significands; the sums alone, facts picked by
    their carries, the significands moved by 0 to 3 places, the codes as they come, the rounding. Where nothing is rounded there is
    no cut before the rounder nor in it. What the lanes share crosses the cut of the elements without logic, so that a net
    over all lanes has a cycle of its own.

    Members
    -------
    i : ``scale`` 8 bits (E8M0); ``elements`` [lanes], codes of ``element``.
    o : ``values`` [lanes], bits of ``target``.

    Latency is ``stages``; one beat a cycle.
    """
    CUTS = "sums", "result", "elements", "shifted", "added", "picked", "fine", "codes", "rounding"

    @dataclass(frozen=True, kw_only=True)
    class Parameters(parameters.Parameters):
        element: str = parameters.choice("e4m3", ELEMENTS, "Element format.")
        target: str = parameters.choice("fp32", WIDES, "Format of the values.")
        lanes: int = parameters.integer(32, 1, 1024, "Elements a cycle.")
        overflow: str = parameters.choice("inf", ("inf", "saturate"), "What a value too large for the target becomes.")

        @property
        def cuts(self):
            """Those of `CUTS` that cut something: where nothing is lost, no rounder comes behind the shifter."""
            return tuple(cut for cut in Dequantizer.CUTS if self.below or cut not in ("shifted", "rounding"))

        @property
        def offset(self):
            """The target's exponent field is the scale plus the element's exponent code plus this."""
            return WIDES[self.target].bias - E8M0.bias - ELEMENTS[self.element].bias

        @property
        def most(self):
            """The most places that a subnormal moves and still rounds to something."""
            return min(WIDES[self.target].mantissa_width + 2, 1 - self.offset - normalized_exponents(ELEMENTS[self.element]).start)

        @property
        def below(self):
            """Bits below the mantissa, as many as the longest shift needs, so that none is lost; none where nothing is rounded."""
            return max(0, ELEMENTS[self.element].significand_width - 1 + self.most - WIDES[self.target].mantissa_width)

        def __post_init__(self):
            super().__post_init__()
            self.check_stages()

    def __init__(self, **options):
        p = self.Parameters(**options)
        self._element = ELEMENTS[p.element]
        self._target = WIDES[p.target]
        super().__init__(
            p,
            i=data.StructLayout({"scale": E8M0.shape, "elements": data.ArrayLayout(unsigned(self._element.width), p.lanes)}),
            o=data.StructLayout({"values": data.ArrayLayout(unsigned(self._target.width), p.lanes)}))

    def elaborate(self, platform):
        m = Module()
        p = self.parameters
        cut = Cuts(m, p.cuts, p.stages)

        upper_bits = _CarrySelect(self._target, normalized_exponents(self._element), p.offset, p.most)
        shared = cut("elements", cut("codes", upper_bits.share(m, self.i.scale), "shared"), "shared")
        later = cut("added", shared, "shared")
        for lane in range(p.lanes):
            code = cut("codes", self.i.elements[lane], f"{lane}")
            element = normalized(m, code, self._element, f"element{lane}")
            element = cut("elements", element, f"element{lane}")
            m.d.comb += self.o.values[lane].eq(self._value(m, cut, upper_bits, shared.low, later, element, lane))

        return m

    def _value(self, m, cut, upper_bits, addend, shared, element, lane):
        target = self._target
        width = target.mantissa_width
        is_saturating = self.parameters.overflow == "saturate"

        def named(name, value):
            signal = Signal(len(value), name=f"{name}{lane}")
            m.d.comb += signal.eq(value)
            return signal

        total = named("total", upper_bits.steps(element.exponent_code) + addend)
        total = cut("added", total, f"total{lane}")
        element = cut("added", element, f"element{lane}")
        low, carry = total[:-1], total[-1]
        field = low[:target.exponent_width]
        beyond = any_bit(low[target.exponent_width:])

        def holds(fact, given=None):
            return upper_bits.pick(shared, fact, carry, given)

        is_nan = named("is_nan", element.is_nan | shared.is_nan)
        is_special = named("is_special", is_nan | element.is_inf)
        is_none = named("is_none", element.is_zero | element.is_inf)
        is_negative = named("is_negative", holds("is_negative"))
        is_near = named("is_near", holds("is_near"))
        is_up = named("is_up", is_special | holds("is_above") | (holds("is_high") & beyond))
        is_over = named("is_over", holds("is_high") & (holds("is_above", "is_high") | beyond | field.all()))
        is_subnormal = holds("is_low") & (holds("is_negative", "is_low") | ~any_bit(low[1:]))
        size = target.exponent_width - len(field)
        if size:
            upper = cut("picked", shared.field ^ (shared.changes & carry.replicate(size)), f"upper{lane}")

        is_nan, is_special, is_none, is_negative, is_near, is_up, is_over, is_subnormal, low, is_zero, fraction, sign = across(
            cut, "picked", f"{{}}{lane}", is_nan=is_nan, is_special=is_special, is_none=is_none, is_negative=is_negative,
            is_near=is_near, is_up=is_up, is_over=is_over, is_subnormal=is_subnormal, low=low, is_zero=element.is_zero,
            fraction=element.fraction, sign=element.sign).values()
        field = low[:target.exponent_width]

        numbers = data.StructLayout({
            "fraction": len(fraction), "field": target.exponent_width, "fine": FINE,
            "groups": (self.parameters.most >> FINE) + 1, "sign": 1, "is_nan": 1, "is_full": 1,
        })
        sums = Signal(numbers, name=f"sums{lane}")
        is_down = named("is_down", ~is_special & (is_zero | is_negative))
        field = (field | is_up.replicate(len(field))) & ~is_down.replicate(len(field))
        if size:
            field = Cat(field, (upper & ~is_zero.replicate(size)) | is_special.replicate(size))
        if is_saturating:
            field = Cat(field[0] & ~(is_over & ~is_special), field[1:])
        m.d.comb += [
            sums.fraction.eq(fraction),
            sums.field.eq(field),
            sums.fine.eq(Cat(~low[0] & ~is_none & is_subnormal, is_near & ~is_none & low[1])),
            sums.sign.eq(sign & ~is_nan),
            sums.is_nan.eq(is_nan),
            sums.is_full.eq(is_over & ~is_special & ~is_zero if is_saturating else 0),
        ]
        for group, selected in enumerate(sums.groups):
            is_in = named("is_in", is_near & upper_bits.is_in_group(m, low, group))
            if group:
                m.d.comb += selected.eq(is_nan | (~is_none & is_in))
            else:
                m.d.comb += selected.eq(is_nan | (~is_over & ~(is_negative & ~is_none & ~is_in)))
        sums = cut("sums", sums, f"{lane}")

        below = self.parameters.below
        down = _moved_down([Const(1, 1), *reversed(sums.fraction)], sums.fine)
        down = list(cut("fine", named("fine", Cat(down)), f"fine{lane}"))
        sums = cut("fine", sums, f"sums{lane}")
        groups = sums.groups
        # NaN selects every group, and any other value at most one. Where nothing is rounded, a NaN's bits are ones by that, if
        # there are two groups.
        pairs = [named(f"pair{n}_", groups[n] & groups[n + 1]) for n in range(0 if below else len(groups) - 1)]
        places = []
        for place in range(1, width + below + 1):
            near = {n: down[place - (n << FINE)] for n in range(len(groups)) if 0 <= place - (n << FINE) < len(down)}
            if pairs and len(near) == 1:
                [(n, bit)] = near.items()
                places.append(groups[n] & (bit | groups[n + 1 if n < len(pairs) else n - 1]))
                continue
            bits = [bit & groups[n] for n, bit in near.items()]
            if not below:
                bits.append(pairs[min(near)] if near and pairs else sums.is_nan)
            places.append(any_bit(Cat(bits)))
        moved = named("moved", Cat(reversed(places)))
        if below:
            moved, sums = cut("shifted", moved, f"moved{lane}"), cut("shifted", sums, f"sums{lane}")
        kept, guard, sticky = split(moved, below)
        magnitude = Cat(kept, sums.field)
        if below:
            goes_up = cut("rounding", round_up_to_nearest_even(kept[0], guard, sticky), f"goes_up{lane}")
            magnitude, sums = cut("rounding", magnitude, f"magnitude{lane}"), cut("rounding", sums, f"sums{lane}")
            # Only subnormals lose bits, so the carry reaches no further than the lowest exponent.
            rounded = (magnitude + goes_up)[:target.width - 1]
            magnitude = rounded | sums.is_nan.replicate(target.width - 1)
        if is_saturating:
            magnitude |= sums.is_full.replicate(width)
        return cut("result", Cat(magnitude, sums.sign), f"{lane}")
