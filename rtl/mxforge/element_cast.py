"""Wide values to element codes, under a scale that is given."""
from dataclasses import dataclass

from amaranth import *
from amaranth.lib import data

from . import parameters
from .arith import any_bit, normalize, shift_right_sticky
from .formats import E8M0, ELEMENTS, WIDES, IntegerFormat
from .pipeline import Cuts
from .round import round_up_to_nearest_even
from .unit import Unit

__all__ = ["RANDOM_WIDTH", "Caster", "ElementCast"]

RANDOM_WIDTH = 16


class Caster:
    """``value * 2**(127 - scale)``, rounded once to an element code, in two steps: ``decode``, before the scale is known,
    and ``encode``. :class:`ElementCast` says what comes of each value, and how.

    ``has_specials`` is false where a NaN or Inf always comes with a NaN scale, ``can_overflow`` where no finite value is
    above the largest element, ``is_scaled`` where the scale is always 127, which is 1: then there is no logic for it.
    """
    CUTS = "difference", "shifted", "rounded", "result"

    def __init__(self, source, element, rounding, overflow, *, has_specials=True, can_overflow=True, is_scaled=True):
        self._source = source
        self._element = element
        self.is_stochastic = rounding == "stochastic"
        self._overflow = overflow
        self.has_specials = has_specials
        self.can_overflow = can_overflow
        # Bits that rounding looks at one by one, below those that stay.
        self._guard_width = RANDOM_WIDTH if self.is_stochastic else 1
        self._kept_width = element.mantissa_width + 1
        self._places_width = (self._kept_width + self._guard_width - 1).bit_length()
        # Normalising a subnormal further than this leaves it subnormal in the element under any scale.
        most = element.bias if source.bias == E8M0.bias else source.mantissa_width
        if not is_scaled and source.bias == E8M0.bias:
            # All of its subnormals are below half of the smallest element.
            most = 0
        self._stages = range(min(most, source.mantissa_width).bit_length())
        # Where exponents count as in FP32, the target's exponent code less 2 is the source's plus this, less the scale.
        self._offset = E8M0.bias - source.bias + element.bias - 2

    @property
    def _exponents(self):
        return range(2 - (1 << len(self._stages)), 1 << self._source.exponent_width)

    @property
    def _bases(self):
        # The first is a NaN scale's: every value is then far below the smallest element.
        nan_base = -(self._exponents.stop + (1 << self._places_width))
        return range(min(nan_base, self._offset - E8M0.max_code), self._offset + 1)

    @property
    def decoded_layout(self):
        """A value without its scale: the significand's ``window``, at whose top the leading one is, ``sticky`` for what is
        below (or the value's ``random`` number), and ``exponent``, biased as the source's.
        """
        width = min(self._source.significand_width, self._kept_width + self._guard_width)
        rest = {"random": RANDOM_WIDTH} if self.is_stochastic else {"sticky": 1}
        specials = {"is_nan": 1, "is_inf": 1} if self.has_specials else {}
        return data.StructLayout({"window": width, "exponent": self._exponents, "sign": 1} | rest | specials)

    def decode(self, m, value, random, name, middle=lambda value, label: value):
        """The :meth:`decoded_layout` of bits of the source, and of a random number (None but for stochastic rounding);
        ``middle`` may register what crosses half way.
        """
        source = self._source
        mantissa = value[:source.mantissa_width]
        exponent_code = value[source.mantissa_width:source.width - 1]
        is_normal = Signal(name=f"{name}_is_normal")
        m.d.comb += is_normal.eq(exponent_code.any())

        fine, coarse = self._stages[:(len(self._stages) + 1) // 2], self._stages[(len(self._stages) + 1) // 2:]
        significand, coarse_zeros = normalize(m, Cat(mantissa, is_normal), coarse)
        significand = middle(significand, f"{name}_significand")
        coarse_zeros = middle(coarse_zeros, f"{name}_zeros") if coarse else coarse_zeros
        is_normal = middle(is_normal, f"{name}_is_normal")
        exponent_code = middle(exponent_code, f"{name}_exponent_code")
        significand, zeros = normalize(m, significand, fine)
        zeros = Cat(zeros, coarse_zeros)

        decoded = Signal(self.decoded_layout, name=name)
        below = source.significand_width - len(decoded.window)
        m.d.comb += [
            decoded.window.eq(significand[below:]),
            decoded.exponent.eq(Mux(is_normal, exponent_code, 1 - zeros)),
            decoded.sign.eq(middle(value[-1], f"{name}_sign")),
        ]
        if self.is_stochastic:
            m.d.comb += decoded.random.eq(middle(random, f"{name}_random"))
        else:
            m.d.comb += decoded.sticky.eq(any_bit(significand[:below]))
        if self.has_specials:
            has_fraction = middle(mantissa.any(), f"{name}_has_fraction")
            is_top = exponent_code.all()
            m.d.comb += [decoded.is_nan.eq(is_top & has_fraction), decoded.is_inf.eq(is_top & ~has_fraction)]
        return decoded

    def share(self, m, scale):
        """What the lanes share: ``base``, to be added to their exponents, and ``is_nan``."""
        bases = self._bases
        shared = Signal(data.StructLayout({"base": bases, "is_nan": 1}), name="shared")
        is_nan = scale == E8M0.nan_code
        m.d.comb += [
            shared.is_nan.eq(is_nan),
            shared.base.eq(Mux(is_nan, bases.start, self._offset - scale)),
        ]
        return shared

    def encode(self, m, cut, shared, decoded, name, placed=lambda value, label: value):
        """The element code of a decoded value, with the cuts ``CUTS``; ``placed`` may register what crosses between the finding of
        its places and the shifter.
        """
        element = self._element
        guard_width, kept_width = self._guard_width, self._kept_width
        exponents, bases = self._exponents, self._bases
        is_integer = isinstance(element, IntegerFormat)

        # Not negative if the target is above its second binade; else its complement is the distance to the lowest binade.
        above = Signal(range(bases.start + exponents.start, bases.stop + exponents.stop - 1), name=f"{name}_above")
        m.d.comb += above.eq(decoded.exponent + shared.base)
        above = cut("difference", above, f"{name}_above")
        decoded = cut("difference", decoded, name)
        is_nan = cut("difference", shared.is_nan, f"{name}_is_nan")

        if self.has_specials:
            is_nan = is_nan | decoded.is_nan
        # A significand without its leading one is a zero, wherever normalising is complete; where it isn't, it is below.
        is_large = Signal(name=f"{name}_is_large")
        is_tiny = (~is_large & ~above[self._places_width:].all()) | is_nan
        places = Signal(self._places_width, name=f"{name}_places")
        m.d.comb += [
            is_large.eq(~above[-1] & decoded.window[-1] & ~is_nan),
            places.eq(Mux(is_large, 0, ~above[:self._places_width])),
        ]
        above, decoded, is_nan, is_large, is_tiny, places = (placed(value, f"{name}_{label}") for value, label in (
            (above, "above"), (decoded, "decoded"), (is_nan, "is_nan"), (is_large, "is_large"), (is_tiny, "is_tiny"),
            (places, "places")))
        width = kept_width + guard_width
        padding = width - len(decoded.window)
        moved, lost = shift_right_sticky(m, Cat(C(0, padding), decoded.window), places)
        rest = decoded.random if self.is_stochastic else decoded.sticky | lost
        top = 1 if is_integer else element.exponent_width
        shifted = Signal(data.StructLayout({
            "moved": width, "rest": len(rest), "above": top, "is_large": 1, "is_over": 1, "is_nan": 1, "sign": 1,
        }), name=f"{name}_shifted")
        is_over = Const(0, 1)
        if self.can_overflow:
            is_over = is_large & (Const(1) if is_integer else any_bit(above[top:-1]))
        if self.has_specials:
            is_over = is_over | decoded.is_inf
        m.d.comb += [
            shifted.moved.eq(Mux(is_tiny, 0, moved)),
            shifted.rest.eq(rest),
            shifted.above.eq(Mux(is_large, above[:top], 0)),
            shifted.is_large.eq(is_large),
            shifted.is_over.eq(is_over & ~is_nan),
            shifted.is_nan.eq(is_nan),
            shifted.sign.eq(decoded.sign & ~is_nan),
        ]
        shifted = cut("shifted", shifted, name)

        kept, guard = shifted.moved[guard_width:], shifted.moved[:guard_width]
        if self.is_stochastic:
            is_up = (guard + shifted.rest)[RANDOM_WIDTH]
        else:
            is_up = round_up_to_nearest_even(kept[0], guard, shifted.rest)
        code = self._integer_code if is_integer else self._float_code
        return cut("result", code(m, cut, shifted, kept, is_up, name), name)

    def _float_code(self, m, cut, shifted, kept, is_up, name):
        element = self._element
        mantissa_width = element.mantissa_width
        is_large, is_nan = shifted.is_large, shifted.is_nan

        # The hidden bit adds 1 to the exponent field, and 2 where it stands above the second binade. NaN has nothing else to
        # add to the free low bits.
        hidden = Cat(kept[mantissa_width] & ~is_large, is_large)
        base = Cat(is_up | is_nan, is_nan.replicate(mantissa_width - 1), shifted.above | is_nan.replicate(len(shifted.above)))
        if not element.has_nan:
            base = Cat(is_up, C(0, mantissa_width - 1), shifted.above)
        rounded = Signal(data.StructLayout({"code": element.width, "is_over": 1, "is_nan": 1, "sign": 1}), name=f"{name}_rounded")
        m.d.comb += [
            rounded.code.eq(base + Cat(kept[:mantissa_width], hidden)),
            rounded.is_over.eq(shifted.is_over),
            rounded.is_nan.eq(is_nan),
            rounded.sign.eq(shifted.sign),
        ]
        rounded = cut("rounded", rounded, name)

        magnitude = rounded.code[:-1]
        if not (self.can_overflow or self.has_specials):
            return Cat(magnitude, rounded.sign)
        is_over = Signal(name=f"{name}_is_over")
        # Above the largest there are what carried out of the exponent, and the codes of Inf and NaN, of ones: no comparator.
        is_beyond = rounded.code[-1]
        if element.has_nan:
            is_beyond = is_beyond | rounded.code[element.mantissa_width if element.has_inf else 0:-1].all()
        m.d.comb += is_over.eq(~rounded.is_nan & (rounded.is_over | is_beyond))
        beyond_code = element.inf_code if element.has_inf else element.nan_code
        over_code = element.max_code if self._overflow == "saturate" else beyond_code
        sign = rounded.sign
        if over_code == element.nan_code:
            sign = sign & ~is_over
        return Cat(Mux(is_over, over_code, magnitude)[:element.width - 1], sign)

    def _integer_code(self, m, cut, shifted, kept, is_up, name):
        # Nothing is added to the largest, so that it is the largest that comes of all above.
        magnitude = kept | shifted.is_over.replicate(len(kept))
        rounded = Signal(data.StructLayout({"magnitude": len(kept), "is_up": 1, "is_negative": 1}), name=f"{name}_rounded")
        m.d.comb += [
            rounded.magnitude.eq(magnitude),
            rounded.is_up.eq(is_up & ~magnitude.all()),
            rounded.is_negative.eq(shifted.sign),
        ]
        rounded = cut("rounded", rounded, name)
        # -(magnitude + up) is the complement of the magnitude plus the complement of up.
        is_negative = rounded.is_negative
        signs = is_negative.replicate(self._element.width)
        return ((Cat(rounded.magnitude, C(0, 1)) ^ signs) + (rounded.is_up ^ is_negative))[:self._element.width]


class ElementCast(Unit):
    """``value * 2**(127 - scale)`` as element codes, rounded once.

    Rounding is to nearest, ties to even; or stochastic, by a 16-bit random number for each value, which is added at the top
    of the bits that go. What is then above the largest element becomes the largest (``saturate``), or what the format has for
    it (``ieee``: E4M3 NaN, E5M2 Inf), and Inf as well. Subnormals are kept, of source and element. Zeros keep their sign,
    and so do values that round to zero (but in MXINT8, which has one zero, and whose range is -127 to 127). NaN becomes 0x7F,
    and all values do under a NaN scale (0xFF); formats without NaN have 0 in its place (OCP MX v1.0, 5.1, 6.3).

    Design. ``decode`` needs no scale. It normalises the significand, since a subnormal of FP32 or BF16 under a scale below
    E4M3's bias + 4 (E5M2: + 3) is a number like any other; but only by as many places as the element's bias: under scale 0 the
    target's exponent code is then 1, and a leading one that is still not found belongs to a subnormal of the element. (An FP16
    subnormal may be normal under many scales, and is normalised whole.) Of the significand the top ``mantissa_width + 1`` bits
    and the guard bits below (one; stochastic: 16) are looked at one by one, and the rest as one sticky bit.

    The lanes share the scale's complement plus the biases. A lane's one sum with it, ``above``, is the target's exponent code
    less 2: ten bits, signed, of a scale of 8 bits and an exponent from -14 to 255. Its complement is then the number
    of places to move right where it is negative, with 0 for the lowest normal binade, and no subtraction. From
    ``mantissa_width + 3`` places on everything is below half of the last place (stochastic: below the random number's last
    bit), so 2 or 3 bits of it (5) shift, and the others clear.

    The rounding adder adds the rounding bit, the mantissa and the hidden bit to the exponent field, so that carries run
    from one to the other, subnormals become normal and the largest overflows with no case of its own. The hidden bit is worth
    1 in the exponent field; above the second binade, where ``above`` is two short, it moves up a bit. NaN is all ones in the
    operand that is otherwise free (the value being cleared).

    Cuts: the sums, the shifted significands, the normalised values, the rounded codes, half of the normalising, the result.

    Members
    -------
    i : ``scale`` 8 bits (E8M0); ``values`` [lanes], bits of ``source``; with stochastic rounding ``random`` [lanes], 16 bits.
    o : ``elements`` [lanes], codes of ``element``.

    Latency is ``stages``; one beat a cycle.
    """
    CUTS = "difference", "shifted", "normalized", "rounded", "normalizing", "result"

    @dataclass(frozen=True, kw_only=True)
    class Parameters(parameters.Parameters):
        source: str = parameters.choice("fp32", WIDES, "Format of the values.")
        element: str = parameters.choice("e4m3", ELEMENTS, "Element format.")
        rounding: str = parameters.choice("rne", ("rne", "stochastic"), "To nearest even, or by random numbers.")
        overflow: str = parameters.choice("saturate", ("saturate", "ieee"), "What a value above the largest element becomes.")
        lanes: int = parameters.integer(32, 1, 1024, "Values a cycle.")

        @property
        def cuts(self):
            return ElementCast.CUTS

        def __post_init__(self):
            super().__post_init__()
            self.check_specials()
            self.check_stages()

    def __init__(self, **options):
        p = self.Parameters(**options)
        self._source = WIDES[p.source]
        self._element = ELEMENTS[p.element]
        fields = {"scale": E8M0.shape, "values": data.ArrayLayout(unsigned(self._source.width), p.lanes)}
        if p.rounding == "stochastic":
            fields["random"] = data.ArrayLayout(unsigned(RANDOM_WIDTH), p.lanes)
        super().__init__(
            p,
            i=data.StructLayout(fields),
            o=data.StructLayout({"elements": data.ArrayLayout(unsigned(self._element.width), p.lanes)}))

    def elaborate(self, platform):
        m = Module()
        p = self.parameters
        cut = Cuts(m, p.cuts, p.stages)

        caster = Caster(self._source, self._element, p.rounding, p.overflow)
        shared = cut("normalized", caster.share(m, cut("normalizing", self.i.scale, "scale")), "shared")
        for lane in range(p.lanes):
            random = self.i.random[lane] if p.rounding == "stochastic" else None
            decoded = caster.decode(
                m, self.i.values[lane], random, f"decoded{lane}", lambda value, label: cut("normalizing", value, label))
            decoded = cut("normalized", decoded, f"{lane}")
            m.d.comb += self.o.elements[lane].eq(caster.encode(m, cut, shared, decoded, f"element{lane}"))

        return m
