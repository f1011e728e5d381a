"""A block's scale and its element codes together, where a beat is a block."""
from amaranth import *
from amaranth.lib import data
from amaranth.utils import ceil_log2

from .arith import any_bit, normalize
from .block_amax import crossed_key, largest_key
from .formats import E8M0
from .pipeline import across, through, wait

__all__ = ["BlockCaster", "TreeCaster"]


class BlockCaster:
    """The scale of a block and the codes of its values under it, all at once.

    Bit for bit what :class:`ScaleRule` and :class:`Caster` give, for what it :meth:`serves`: rounding to nearest even, sources
    of E8M0's bias, and rules and policies that leave no room for overflow or for a NaN of a value's own. It is smaller than
    these two, as comparing tells what casting needs:

    * The largest key is found from its top bit down. A value is a leader while its bits so far are those of the largest key,
      the next bit of which is one if any leader has it: for each bit an OR over the lanes, and a gate a lane.
    * The low ``exponent_width + 1`` bits of an exponent code are a window wide enough for all that the element can hold. Only
      where the bits above it are the largest key's (the leaders when these are done), or one less (the seconds), is a value
      anything but zero; so the sum that tells a value's place is one bit wider than the window.
    * A subnormal of the source has nothing in the window, so that what normalising takes from its exponent is written there. It
      counts only if the largest key has nothing above the window.

    The sum, ``place``, is the target's exponent code less 1. From 0 on it is the code's exponent field but for the hidden bit,
    which is added with the rounding bit; at -1 to -4 the significand moves right by 1 to 4. Of three mantissa bits the last of
    these leaves only what rounds: the code is 1, but for half of the least element.
    """
    LANE_CUTS = "difference", "places", "shifted", "rounded", "result"

    def __init__(self, source, element, rule):
        self._source = source
        self._element = element
        self._rule = rule
        self._width = element.exponent_width + 1
        # Normalising a subnormal further than this leaves it subnormal in the element under any scale.
        self._stages = range(min(element.bias, source.mantissa_width).bit_length())
        # Only a zero is then without a leading one.
        self._is_complete = 1 << len(self._stages) > source.mantissa_width

    @staticmethod
    def serves(rule, caster):
        return rule.is_reduced and not (caster.has_specials or caster.can_overflow or caster.is_stochastic)

    @property
    def cuts(self):
        """Names of the cuts, most useful first."""
        names = ("level_7", "base", "level_3", "level_5", "level_1", "level_9", "places", "level_2", "level_4", "level_6",
                 "level_8", "scale", "difference", "shifted", "rounded", "keys", "result")
        return tuple(name for name in names if self._rule.key_width == 9 or not name.endswith("_9"))

    def result(self, m, cut, values):
        """``(scale, codes)`` of a block of bits of the source."""
        largest, held = self._compare(m, cut, values)
        held["upper"] = largest[self._rule.key_width - self._source.exponent_width + self._width]
        held["scale"] = self._rule.scale(m, largest)
        held = across(cut, "scale", **held)

        # The scale's complement, counted from where the largest key's window starts.
        base = Signal(self._width + 1, name="base")
        m.d.comb += base.eq((self._element.bias - 1 - held["scale"]) ^ Cat(C(0, self._width), held.pop("upper")))
        # A base as low as this has no second in reach, and its sums with them don't fit.
        is_near = ~base[-1] | base[-2]
        held["seconds"] &= is_near.replicate(len(values))
        held = across(cut, "base", **held, base=base, is_nan=held["scale"] == E8M0.nan_code)

        codes = [self._code(m, cut, held, lane) for lane in range(len(values))]
        scale = held["scale"]
        return through(cut, self.LANE_CUTS, scale, "scale"), codes

    def _compare(self, m, cut, values):
        """``(largest, held)``: the largest key, and by names what else there is then.

        That is ``leaders`` and ``seconds``, a bit for each value, and of each value its ``exponent`` in the window, the top of
        its ``significand``, ``sticky`` for the rest, and ``sign``.
        """
        mantissa_width = self._source.mantissa_width
        count, key_width = len(values), self._rule.key_width
        # Levels that compare what is above the window.
        shared = self._source.exponent_width - self._width

        keys = []
        for lane, value in enumerate(values):
            key = Signal(key_width, name=f"key{lane}")
            m.d.comb += key.eq(self._rule.key(value[:-1]))
            keys.append(key)
        held = {f"keys{n}": Cat(key[n] for key in keys) for n in range(key_width)}
        held |= {f"value{lane}": Cat(value[:mantissa_width], value[-1]) for lane, value in enumerate(values)}
        held = across(cut, "keys", **held)
        held |= {"alive": Const(-1, count), "seconds": Const(0, count)}
        for level in range(1, key_width + 1):
            n = key_width - level
            best = Signal(name=f"best{n}")
            m.d.comb += best.eq((held["alive"] & held[f"keys{n}"]).any())
            held |= {f"best{n}": best}
            if level == shared + 1:
                self._start_normalizing(m, held, count)
            elif level == shared + 2:
                self._put_exponents(m, held, count)
                del held[f"keys{n + 1}"]

            bits, bests = held[f"keys{n}"], held[f"best{n}"].replicate(count)
            alive = Signal(count, name=f"alive{level}")
            m.d.comb += alive.eq(held["alive"] & (bits | ~bests))
            if level <= shared:
                # One less so far: a zero where the largest has its first one more, then ones where it has zeros.
                seconds = Signal(count, name=f"seconds{level}")
                m.d.comb += seconds.eq((held["alive"] & ~bits & bests) | (held["seconds"] & bits & ~bests))
                held["seconds"] = seconds
            held["alive"] = alive
            if level != shared + 1:
                del held[f"keys{n}"]
            held = across(cut, f"level_{level}", **held)
            if level == shared:
                held["leaders"] = held["alive"]
                self._find_subnormals(m, held, count)
            elif level == shared + 1:
                self._normalize(m, held, count)
        del held["alive"]
        return Cat(held.pop(f"best{n}") for n in range(key_width)), held

    def _window_bits(self, held, lane):
        """The bits of an exponent code that are in the window."""
        lowest = self._rule.key_width - self._source.exponent_width
        return [held[f"keys{lowest + n}"][lane] for n in range(self._width)]

    def _find_subnormals(self, m, held, count):
        """Of each value ``is_subnormal``, where that counts."""
        key_width = self._rule.key_width
        is_low = ~any_bit(Cat(held[f"best{n}"] for n in range(key_width - self._source.exponent_width + self._width, key_width)))
        for lane in range(count):
            is_subnormal = Signal(name=f"is_subnormal{lane}")
            m.d.comb += is_subnormal.eq(held["leaders"][lane] & is_low & ~Cat(self._window_bits(held, lane)).any())
            held[f"is_subnormal{lane}"] = is_subnormal

    def _start_normalizing(self, m, held, count):
        """In place of each ``value``: its sign, and its significand, normalized by large steps."""
        coarse = self._stages[(len(self._stages) + 1) // 2:]
        for lane in range(count):
            value = held.pop(f"value{lane}")
            significand, zeros = normalize(m, Cat(value[:-1], ~held[f"is_subnormal{lane}"]), coarse)
            held |= {f"sign{lane}": value[-1], f"significand{lane}": significand}
            if coarse:
                held[f"zeros{lane}"] = zeros

    def _normalize(self, m, held, count):
        """Each significand normalized, its ``zeros``, and ``sticky`` for what is below its top."""
        for lane in range(count):
            significand, zeros = normalize(m, held[f"significand{lane}"], self._stages[:(len(self._stages) + 1) // 2])
            coarse = held.get(f"zeros{lane}")
            below = len(significand) - self._element.mantissa_width - 2
            kept = Signal(self._element.mantissa_width + 2, name=f"kept{lane}")
            m.d.comb += kept.eq(significand[below:])
            held |= {f"significand{lane}": kept, f"sticky{lane}": any_bit(significand[:below]),
                     f"zeros{lane}": zeros if coarse is None else Cat(zeros, coarse)}

    def _put_exponents(self, m, held, count):
        """In place of the zeros, each value's ``exponent``."""
        for lane in range(count):
            self._put_exponent(m, held, lane, self._window_bits(held, lane), self._width + 1)

    def _put_exponent(self, m, held, lane, code, width):
        """In place of the zeros of one value its ``exponent``, signed, of ``width`` bits: its ``code``, if it isn't subnormal."""
        zeros = held.pop(f"zeros{lane}")
        # 1 - zeros, bit by bit; the code of a subnormal is 0.
        less = [held.pop(f"is_subnormal{lane}") & ~zeros[0]]
        is_negative = Const(0, 1)
        for bit in zeros[1:]:
            less.append(bit ^ is_negative)
            is_negative = is_negative | bit
        less += [is_negative] * (width - len(less))
        if self._is_complete:
            # Further below than under any scale a number is: a zero needs no other care.
            less[self._width - 2] = is_negative & held[f"significand{lane}"][-1]
        exponent = Signal(width, name=f"exponent{lane}")
        m.d.comb += exponent.eq(Cat(less) | Cat(code))
        held[f"exponent{lane}"] = exponent

    def _code(self, m, cut, held, lane):
        """The element code of a value, from what :meth:`_compare` holds of it, the scale's ``base`` and ``is_nan``."""
        place = Signal(len(held["base"]), name=f"place{lane}")
        m.d.comb += place.eq(held[f"exponent{lane}"] + held["base"])
        value = {"place": place} | self._reach(held, lane)
        value |= {name: held[f"{name}{lane}"] for name in ("significand", "sticky", "sign")}
        value["is_nan"] = held["is_nan"]
        for step, name in (self._locate, "difference"), (self._move, "places"), (self._round, "shifted"), (self._carry, "rounded"):
            value = step(m, {label: cut(name, part, f"{label}{lane}") for label, part in value.items()}, lane)
        return cut("result", value, f"{lane}")

    def _reach(self, held, lane):
        """What tells, besides the sum, where a value's place is."""
        return {"is_leader": held["leaders"][lane], "is_second": held["seconds"][lane]}

    def _sides(self, m, place, value, lane):
        """``is_above`` of a place from 0 on, ``is_below`` of one from -4 to -1; neither is set further below."""
        # A leader's place is the sum, a second's is one window less: in reach if its sign agrees, or disagrees.
        is_split = place[-1] ^ place[-2]
        is_valid = Signal(name=f"is_valid{lane}")
        m.d.comb += is_valid.eq((value.pop("is_leader") & ~is_split) | (value.pop("is_second") & is_split))
        return Cat(is_valid & ~place[-2], is_valid & place[2:-1].all())

    def _locate(self, m, value, lane):
        """How far the significand moves: ``is_normal``, or ``by_1`` and ``by_2``, and ``is_last`` for more than 3."""
        is_leading = Const(1) if self._is_complete else value["significand"][-1]
        parts = {name: Signal(name=f"{name}_{lane}") for name in ("is_normal", "is_below", "by_1", "by_2", "is_last")}
        is_above, is_below = Signal(name=f"is_above{lane}"), parts["is_below"]
        place = value.pop("place")
        m.d.comb += [
            Cat(is_above, is_below).eq(self._sides(m, place, value, lane)),
            parts["is_normal"].eq(is_above & is_leading),
            parts["by_1"].eq(~is_above & ~(is_below & place[1] & ~place[0])),
            parts["by_2"].eq(~is_above & ~(is_below & place[1] & place[0])),
            parts["is_last"].eq(~is_above & ~(is_below & (place[1] | place[0]))),
        ]
        return value | parts | {"field": place[:self._element.exponent_width]}

    def _move(self, m, value, lane):
        """The significand moved: ``kept``, ``guard`` and ``sticky``; ``is_kept`` is 0 where even the last bit goes."""
        window, sticky = value.pop("significand"), value.pop("sticky")
        if self._is_complete:
            window = Cat(window[:-1], C(1, 1))
        for step in 2, 1:
            is_moved = value.pop(f"by_{step}")
            moved = Signal(len(window), name=f"moved_by_{step}_{lane}")
            lost = Signal(name=f"lost_by_{step}_{lane}")
            m.d.comb += [
                moved.eq(Mux(is_moved, window[step:], window)),
                lost.eq(sticky | (is_moved & window[:step].any())),
            ]
            window, sticky = moved, lost
        is_last, is_below = value.pop("is_last"), value.pop("is_below")
        guard, kept = window[0], window[1:-1]
        value |= {"kept": kept, "guard": guard & ~is_last, "sticky": sticky}
        if self._element.mantissa_width == 3:
            is_leading = Const(1) if self._is_complete else kept[0]
            value["is_kept"] = ~is_last | (is_below & is_leading & (guard | sticky))
        return value

    def _round(self, m, value, lane):
        """The mantissa rounded, and the ``carry`` out of it."""
        kept, guard = value.pop("kept"), value.pop("guard")
        low = kept[0] ^ (guard & (value.pop("sticky") | kept[0]))
        mantissa = [low & value.pop("is_kept", 1)]
        # An odd one goes up with the guard bit alone.
        carry = Signal(name=f"carry0_{lane}")
        m.d.comb += carry.eq(kept[0] & guard)
        for n, bit in enumerate(kept[1:], 1):
            mantissa.append(bit ^ carry)
            carry_in, carry = carry, Signal(name=f"carry{n}_{lane}")
            m.d.comb += carry.eq(bit & carry_in)
        return value | {"mantissa": Cat(mantissa), "carry": carry}

    def _carry(self, m, value, lane):
        """The element code."""
        field, carry, is_normal, is_nan = (value[name] for name in ("field", "carry", "is_normal", "is_nan"))
        # The hidden bit and the carry make 1 or 2, so that the second bit gets one of the two or the lowest's.
        exponent_code = [Mux(is_normal, ~(field[0] ^ carry), carry)]
        carry_out = Signal(name=f"carried0_{lane}")
        m.d.comb += carry_out.eq(is_normal & (field[0] | carry))
        for n, bit in enumerate(field[1:], 1):
            exponent_code.append(Mux(carry_out, ~bit, bit & is_normal))
            carry_in, carry_out = carry_out, Signal(name=f"carried{n}_{lane}")
            m.d.comb += carry_out.eq(bit & carry_in)
        magnitude = Cat(value["mantissa"], *exponent_code)
        nans = is_nan.replicate(len(magnitude))
        return Cat(magnitude | nans if self._element.has_nan else magnitude & ~nans, value["sign"] & ~is_nan)


class TreeCaster(BlockCaster):
    """The same, by a tree of comparators: what a pipeline cut throughout is made of.

    Comparing bit by bit takes two nets over all lanes for each bit, and values that wait all that time in registers. A tree has
    nets between neighbours only, and one over all lanes, the base; meanwhile the values wait in memory. A value's place is here
    the sum of its whole exponent and the base, wide enough for all of them, so that it takes no leaders.
    """
    # With fewer cuts than this, comparing bit by bit is smaller.
    LEAST_STAGES = 12

    def __init__(self, source, element, rule, lanes):
        super().__init__(source, element, rule)
        self._lanes = lanes
        # Of the lowest place that a finite value has.
        zeros = (1 << len(self._stages)) - 1
        lowest = 1 - zeros - (self._is_complete << (self._width - 2)) + self._base(rule.max_code)
        self._place_width = 1 + (-lowest - 1).bit_length()

    @property
    def cuts(self):
        levels = range(1, ceil_log2(self._lanes) + 1)
        return ("keys", *(f"level_{n}" for n in levels), "scale", "base", *self.LANE_CUTS,
                *(f"compared_{n}" for n in levels))

    def _base(self, scale):
        return self._element.bias - 1 - scale

    def result(self, m, cut, values):
        mantissa_width = self._source.mantissa_width
        count = len(values)
        keys, held = [], {}
        for lane, value in enumerate(values):
            exponent_code = value[mantissa_width:-1]
            keys.append(crossed_key(cut, ("keys",), self._rule.key(value[:-1]), lane))
            held |= {f"value{lane}": Cat(value[:mantissa_width], value[-1]), f"code{lane}": exponent_code,
                     f"is_subnormal{lane}": ~exponent_code.any()}
        levels = ceil_log2(count)
        waits = [name for level in range(1, levels + 1) for name in (f"compared_{level}", f"level_{level}")]
        held = across(cut, "keys", **held)
        self._start_normalizing(m, held, count)
        held = across(cut, waits[0], **held)
        self._normalize(m, held, count)
        held = across(cut, waits[1], **held)
        for lane in range(count):
            self._put_exponent(m, held, lane, held.pop(f"code{lane}"), self._place_width)

        layout = data.StructLayout({name: len(part) for name, part in held.items()})
        waiting = Signal(layout, name="waiting")
        m.d.comb += waiting.eq(Cat(held.values()))
        waited = data.View(layout, wait(m, waiting.as_value(), cut.count(*waits[2:], "scale", "base"), name="waited"))
        held = {name: waited[name] for name in held}

        largest = largest_key(m, cut, keys, lambda level: (f"compared_{level}",), lambda level: (f"level_{level}",))
        scale = cut("scale", self._rule.scale(m, largest))
        base = Signal(self._place_width, name="base")
        m.d.comb += base.eq(self._base(scale))
        held |= {"base": cut("base", base), "is_nan": cut("base", scale == E8M0.nan_code, "is_nan")}
        codes = [self._code(m, cut, held, lane) for lane in range(count)]
        return through(cut, ("base", *self.LANE_CUTS), scale, "scale"), codes

    def _reach(self, held, lane):
        return {}

    def _sides(self, m, place, value, lane):
        return Cat(~place[-1], place[2:].all())
