"""Number formats as tables of values, from the literals of the specifications.

Sources: OCP 8-bit Floating Point (OFP8) v1.0 for E4M3 and E5M2, OCP Microscaling Formats (MX) v1.0 for the other
elements and E8M0, IEEE 754 for FP32 and FP16. No code is taken apart into fields here: the magnitudes of a floating
format are a ladder, whose step doubles each time a power of two is reached; a code's magnitude is its place on the
ladder.
"""

from dataclasses import dataclass, field

import numpy as np

__all__ = ["ELEMENTS", "SCALE_NAN", "WIDE", "Element", "Wide", "element_format", "wide_format"]

# E8M0: byte b is 2^(b - 127), but for this one. No zero, no sign, no infinity.
SCALE_NAN = 0xFF


def _ladder(smallest: float, codes_per_binade: int, largest: float) -> list[float]:
    values = [0.0]
    step = smallest
    while values[-1] < largest:
        values.append(values[-1] + step)
        if values[-1] == 2 * codes_per_binade * step:
            step *= 2
    return values


@dataclass(frozen=True, eq=False)
class Element:
    """Element format of at most 8 bits.

    `magnitudes[n]` is the value of the finite magnitude code n; `values` has all 2^width codes as float64, NaN and
    infinities included; `integers` the same in units of 2^lsb, 0 for what is not finite. `emax` is the exponent of the
    largest power of two, `mantissa_width` the stored fraction bits (MXINT8: 6), `rceil_mantissa` the 23-bit FP32
    mantissa of the largest value. `significands` and `exponents` are the operand of a multiplier that does not
    normalise: value = significand * 2^(exponent - mantissa_width).
    """

    name: str
    width: int
    magnitudes: tuple[float, ...]
    lsb: int
    emax: int
    mantissa_width: int
    rceil_mantissa: int
    inf_code: int | None = None
    nan_codes: tuple[int, ...] = ()
    nan_code: int | None = None
    is_integer: bool = False
    values: np.ndarray = field(init=False, repr=False)
    integers: np.ndarray = field(init=False, repr=False)
    significands: np.ndarray = field(init=False, repr=False)
    exponents: np.ndarray = field(init=False, repr=False)

    def __post_init__(self):
        values = np.zeros(1 << self.width)
        count = len(self.magnitudes)
        negative = 1 << (self.width - 1)
        if self.is_integer:
            values = np.arange(1 << self.width) * 2.0**self.lsb
            values[negative:] -= 2.0 ** (self.width + self.lsb)
        else:
            values[:count] = self.magnitudes
            values[negative : negative + count] = np.negative(self.magnitudes)
            if self.inf_code is not None:
                values[[self.inf_code, self.inf_code + negative]] = np.inf, -np.inf
            for code in self.nan_codes:
                values[[code, code + negative]] = np.nan
        finite = np.where(np.isfinite(values), values, 0.0)
        # The exponent of the smallest normal number, which subnormals share.
        lowest = 0 if self.is_integer else self.lsb + self.mantissa_width
        exponents = np.maximum(np.frexp(finite)[1] - 1, lowest) if not self.is_integer else np.zeros(len(values))
        exponents = np.where(finite == 0, lowest, exponents).astype(np.int64)
        tables = {
            "values": values,
            "integers": np.ldexp(finite, -self.lsb).astype(np.int64),
            "exponents": exponents,
            "significands": np.ldexp(finite, self.mantissa_width - exponents).astype(np.int64),
        }
        for name, table in tables.items():
            table.flags.writeable = False
            object.__setattr__(self, name, table)

    @property
    def max_code(self) -> int:
        """Code of the largest finite value."""
        return len(self.magnitudes) - 1

    @property
    def max_finite(self) -> float:
        return self.magnitudes[-1]

    @property
    def has_nan(self) -> bool:
        return self.nan_code is not None


@dataclass(frozen=True)
class Wide:
    """Floating format of values before quantizing and after dequantizing; 2^lsb is its smallest subnormal."""

    name: str
    width: int
    mantissa_width: int
    lsb: int
    max_code: int
    inf_code: int
    nan_code: int

    @property
    def dtype(self) -> type:
        return np.uint32 if self.width == 32 else np.uint16

    @property
    def sign_code(self) -> int:
        return 1 << (self.width - 1)


ELEMENTS = {
    element.name: element
    for element in (
        # OFP8: no infinity; of exponent field 15 only mantissa 7 is NaN. 448 = 1.75 * 2^8.
        Element("e4m3", 8, tuple(_ladder(2.0**-9, 8, 448.0)), -9, 8, 3, 0x600000, None, (0x7F,), 0x7F),
        # OFP8: IEEE-like. 57344 = 1.75 * 2^15.
        Element("e5m2", 8, tuple(_ladder(2.0**-16, 4, 57344.0)), -16, 15, 2, 0x600000, 0x7C, (0x7D, 0x7E, 0x7F), 0x7F),
        # MX: neither infinity nor NaN. 28 = 1.75 * 2^4, 7.5 = 1.875 * 2^2, 6 = 1.5 * 2^2.
        Element("e3m2", 6, tuple(_ladder(2.0**-4, 4, 28.0)), -4, 4, 2, 0x600000),
        Element("e2m3", 6, tuple(_ladder(2.0**-3, 8, 7.5)), -3, 2, 3, 0x700000),
        Element("e2m1", 4, (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0), -1, 2, 1, 0x400000),
        # MX: two's complement, value i / 64; -128 (-2.0) is decoded but never written. 127/64 = 1.984375.
        Element("mxint8", 8, tuple(i / 64 for i in range(128)), -6, 0, 6, 0x7E0000, is_integer=True),
    )
}

WIDE = {
    wide.name: wide
    for wide in (
        Wide("fp32", 32, 23, -149, 0x7F7FFFFF, 0x7F800000, 0x7FFFFFFF),
        Wide("bf16", 16, 7, -133, 0x7F7F, 0x7F80, 0x7FFF),
        Wide("fp16", 16, 10, -24, 0x7BFF, 0x7C00, 0x7FFF),
    )
}


def _look_up(table, name, what):
    try:
        return table[name]
    except (KeyError, TypeError):
        raise ValueError(f"wanted {what} of {', '.join(table)}; got {name!r}") from None


def element_format(name: str) -> Element:
    return _look_up(ELEMENTS, name, "an element format")


def wide_format(name: str) -> Wide:
    return _look_up(WIDE, name, "a wide format")
