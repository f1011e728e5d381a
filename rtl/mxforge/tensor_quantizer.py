"""Conventional FP8: wide values to elements under one FP32 factor for a tensor, and the tensor's largest magnitude."""
import functools
from dataclasses import dataclass

from amaranth import *
from amaranth.lib import data
from amaranth.utils import ceil_log2

from . import parameters
from .block_amax import crossed_key, finite_magnitude_of, largest_key
from .element_cast import Caster
from .formats import E4M3, E5M2, E8M0, FP32, WIDES
from .multiply import Multiplier
from .pipeline import Cuts, delay, through
from .raw import decode, normalized
from .unit import Unit

__all__ = ["FP8", "TensorQuantizer"]

FP8 = {f.name: f for f in (E4M3, E5M2)}


class TensorQuantizer(Unit):
    """Per-tensor quantizer: ``value * scale`` by a full FP32 multiplier a lane, as FP8 elements; what MX does without.

    ``scale`` is the factor that values are multiplied by. Two roundings, both to nearest even, as in software that scales in FP32
    and then converts: the product to FP32 (:class:`.FP32Multiplier`), and that to the element. What is then above the
    largest element becomes the largest (``saturate``), or what the format has for it (``ieee``: E4M3 NaN, E5M2 Inf), and Inf as
    well. Subnormals are kept everywhere. Zeros, and what rounds to zero, have the sign of both factors. NaN becomes 0x7F.

    ``amax`` is the largest finite magnitude of the tensor so far, this beat included, from which the factor of the next tensor
    (delayed scaling), or of this one when it comes again, follows: the largest element over it. That division, one a tensor,
    is the host's. A beat with ``first`` starts a tensor, and so does the first after reset. NaN and Inf don't count.

    Design. Lanes share the factor, taken apart once. BF16 and FP16 values are multiplied as they are, 8 and 11 bits by 24, since
    the wider product would only have zeros more. The cast is that of :class:`.ElementCast` under a scale of 1, with no
    normalising. The tree of maxima runs beside the multipliers, over magnitude bits of the source; only the largest of a beat
    becomes FP32, and is compared with the tensor's.

    Cuts: those of :class:`.multiply.Multiplier`, and of the cast, by ``cast_``. The tree's comparisons and choices are spread over
    those that are taken, a step before each where there are enough.

    Members
    -------
    i : ``scale`` 32 bits (FP32); ``values`` [lanes], bits of ``source``; ``first``.
    o : ``elements`` [lanes], codes of ``element``; ``amax`` 31 bits: FP32 without the sign.
    i_valid : a beat. o_valid : ``i_valid``, ``latency`` cycles later.

    Latency is ``stages``; one beat a cycle.
    """
    is_stateful = True

    @dataclass(frozen=True, kw_only=True)
    class Parameters(parameters.Parameters):
        source: str = parameters.choice("fp32", WIDES, "Format of the values.")
        element: str = parameters.choice("e4m3", FP8, "Element format.")
        overflow: str = parameters.choice("saturate", ("saturate", "ieee"), "What a value above the largest element becomes.")
        product: str = parameters.choice("operator", Multiplier.PRODUCTS, "Left to synthesis and DSPs, or a sum of rows.")
        lanes: int = parameters.integer(32, 1, 1024, "Values a cycle.")

        @property
        def lane_multiplier(self):
            return Multiplier(WIDES[self.source], FP32, FP32, product=self.product)

        @property
        def path(self):
            """Names of the cuts in the order of the data."""
            casting = "decoded", "difference", "places", "shifted", "rounded", "result"
            return (*self.lane_multiplier.path, *(f"cast_{name}" for name in casting))

        @property
        def cuts(self):
            leading = ("product", "result", "shifted", "cast_shifted", "coarse", "partials", "rounded", "cast_difference", "fine",
                       "operands", "cast_rounded", "cast_result", "cast_places", "cast_decoded")
            return leading + tuple(name for name in self.lane_multiplier.cuts if name not in leading)

        def __post_init__(self):
            super().__post_init__()
            self.check_stages()

    def __init__(self, **options):
        p = self.Parameters(**options)
        self._source = WIDES[p.source]
        self._element = FP8[p.element]
        super().__init__(
            p,
            i=data.StructLayout({
                "scale": FP32.width, "values": data.ArrayLayout(unsigned(self._source.width), p.lanes), "first": 1}),
            o=data.StructLayout({
                "elements": data.ArrayLayout(unsigned(self._element.width), p.lanes), "amax": FP32.width - 1}))

    def elaborate(self, platform):
        m = Module()
        p = self.parameters
        cut = Cuts(m, p.cuts, p.stages)

        def cast_cut(name, value, label=""):
            return cut(f"cast_{name}", value, label)

        caster = Caster(FP32, self._element, "rne", p.overflow, is_scaled=False)
        multiplier = p.lane_multiplier
        scale = cut("operands", decode(m, self.i.scale, FP32, "scale"), "scale")
        neutral = caster.share(m, C(E8M0.bias, E8M0.width))
        for lane in range(p.lanes):
            value = cut("operands", decode(m, self.i.values[lane], self._source, f"value{lane}"), f"product{lane}_a")
            scaled = Signal(FP32.width, name=f"scaled{lane}")
            m.d.comb += scaled.eq(multiplier.result(m, cut, value, scale, f"product{lane}"))
            decoded = caster.decode(m, scaled, None, f"decoded{lane}")
            decoded = cast_cut("decoded", decoded, f"decoded{lane}")
            m.d.comb += self.o.elements[lane].eq(caster.encode(
                m, cast_cut, neutral, decoded, f"element{lane}", functools.partial(cast_cut, "places")))
        self._find_amax(m, cut)

        return m

    def _find_amax(self, m, cut):
        p = self.parameters
        levels = ceil_log2(p.lanes)
        # Steps: what is finite; of each level a comparison and a choice; where it isn't one of bits, the conversion.
        steps = 1 + 2 * levels + (self._source.bias != FP32.bias)
        taken = [name for name in p.path if cut.count(name)]

        def behind(step):
            """Cuts behind ``step``, from 1 on."""
            ends = (n if len(taken) >= steps else n * len(taken) // steps for n in (step - 1, step))
            return taken[slice(*ends)]

        keys = [crossed_key(cut, behind(1), finite_magnitude_of(m, self.i.values[lane], self._source), lane, "key")
                for lane in range(p.lanes)]
        largest = self._as_fp32(m, largest_key(
            m, cut, keys, lambda level: behind(2 * level), lambda level: behind(2 * level + 1), "key"))
        if steps > 2 * levels + 1:
            largest = through(cut, behind(steps), largest, "largest_fp32")

        before, rest = taken[:steps], taken[steps:]
        first = through(cut, before, self.i.first, "first")
        valid = delay(m, self.i_valid, len(before), name="compared", reset_less=False)
        amax = Signal(FP32.width - 1)
        running = Signal(FP32.width - 1)
        # Of what the next beat waits for, a carry chain and a choice.
        m.d.comb += amax.eq(Mux((running + ~largest)[-1] & ~first, running, largest))
        with m.If(valid):
            m.d.sync += running.eq(amax)
        m.d.comb += [
            self.o.amax.eq(through(cut, rest, amax, "amax")),
            self.o_valid.eq(delay(m, valid, len(rest), name="valid", reset_less=False)),
        ]

    def _as_fp32(self, m, magnitude):
        """Magnitude bits of the source in FP32."""
        source = self._source
        below = FP32.mantissa_width - source.mantissa_width
        if source.bias == FP32.bias:
            return Cat(C(0, below), magnitude)
        number = normalized(m, Cat(magnitude, C(0, 1)), source, "largest")
        exponent_code = Signal(FP32.exponent_width, name="largest_exponent_code")
        wide = Signal(FP32.width - 1, name="largest_fp32")
        m.d.comb += exponent_code.eq(number.exponent_code + (FP32.bias - source.bias))
        with m.If(~number.is_zero):
            m.d.comb += wide.eq(Cat(C(0, below), number.fraction, exponent_code))
        return wide
