"""The sum of a tensor core: terms aligned to the largest, each truncated, summed, truncated again."""
from amaranth import *
from amaranth.lib import data
from amaranth.utils import bits_for

from .arith import tree_max
from .formats import E8M0, FP32
from .pipeline import through
from .products import add_with_carry, complemented, over_beats, term_layout, term_tree, tree_cuts
from .scaled_add import round_cuts, round_sum

__all__ = ["TruncatedSum"]


class TruncatedSum:
    """One step of the published bit-accurate model of Blackwell's block-scaled matrix units (MMA-Sim's, FP8, K = 32).

    Products are not normalised: a significand below 4 (of two subnormals: below 1) times two to the sum of the exponents.
    M is the largest exponent of the nonzero products and the nonzero addend. Each term is aligned to M and truncated toward
    zero to 25 fraction bits below ``2**M``, in sign and magnitude; the sum of all is exact, and is truncated toward zero to
    FP32. Subnormals are kept; what is truncated to zero is +0; overflow gives Inf. Unlike the model, a zero takes no part in
    the choice of M.

    The steps are methods, so that an accumulator can place its feedback among them. The scales shift all products alike:
    among themselves these compare and align by small exponent codes, and only the addend's exponent is brought to
    theirs. ``place`` needs nothing wider than an adder of 11 bits.

    Widths: terms of blocks of 32 in FP8, and C, are below 130, 8 integer bits, and with fraction and sign 34. Below the
    exponents of FP32's normal numbers the sum moves right, by 24 places at most: from there on it is zero. That comes of
    zeros above it in the window of :func:`.scaled_add.round_sum`. A nonzero C keeps M above all that.
    """
    FRACTION = 25

    def __init__(self, pair, block_size, addend):
        self._pair = pair
        self._block_size = block_size
        self._addend = addend

    @property
    def _left(self):
        """Zeros below a product's fraction."""
        return self.FRACTION - self._pair.a.mantissa_width - self._pair.b.mantissa_width

    @property
    def largest_term(self):
        return self._pair.max_significand << self._left

    @property
    def _largest_sum(self):
        return self._block_size * self.largest_term + self._addend * (1 << (self.FRACTION + 1))

    @property
    def _window(self):
        return bits_for(self._largest_sum) + FP32.significand_width

    @property
    def main_cuts(self):
        """Those of :meth:`result`, main and fine ones as of :func:`.scaled_add.round_cuts`."""
        return round_cuts(self._window)[0]

    @property
    def fine_cuts(self):
        return round_cuts(self._window)[1]

    @property
    def cuts(self):
        return *self.main_cuts, *self.fine_cuts

    @property
    def _bias(self):
        return self._pair.a.bias + self._pair.b.bias

    def largest(self, m, cut, products):
        """The largest exponent code of nonzero products, 0 if there are none; behind a cut ``max...`` a level."""
        codes = [Mux(p.is_zero, 0, p.exponent_code) for p in products]
        cuts = tree_cuts(len(products), "max")
        return tree_max(m, codes, lambda level, n, value: cut(cuts[level - 1], value, f"{n}"))

    def place_layout(self):
        """``code`` to align products to, how far C moves right (``c_places``), and the ``limit`` of ``round_sum``."""
        return data.StructLayout({
            # From ``farthest`` on all products are truncated to nothing.
            "code": bits_for(self._farthest), "c_places": bits_for(self.FRACTION + 1), "limit": 10})

    @property
    def _farthest(self):
        return self._pair.max_exponent_code + bits_for(self.largest_term)

    def place(self, m, largest, scales, c, name="place"):
        """The :func:`place_layout` for the products' largest code, the sum of scales, and C (or None)."""
        result = Signal(self.place_layout(), name=name)
        top_field = Signal(signed(12), name=f"{name}_top_field")
        # The exponent field of products aligned to ``largest``, minus one, with the leading one at the window's top.
        above = self._window - 1 - self.FRACTION
        field_offset = FP32.bias - 2 * E8M0.bias - self._bias
        products_field = largest + scales.code + field_offset
        if c is None:
            m.d.comb += [result.code.eq(largest), top_field.eq(products_field + above - 1)]
        else:
            c_code = Signal(signed(12), name=f"{name}_c_code")
            c_wins = Signal(name=f"{name}_c_wins")
            c_distance = Signal(signed(12), name=f"{name}_c_distance")
            m.d.comb += [
                c_code.eq(c.exponent_code - scales.code - field_offset),
                c_wins.eq(~c.is_zero & ((c_code > largest) | (largest == 0))),
                c_distance.eq(largest - c_code),
                result.code.eq(Mux(~c_wins, largest, Mux(c_code > self._farthest, self._farthest, c_code))),
                result.c_places.eq(Mux(c_wins, 0, Mux(c_distance > self.FRACTION + 1, self.FRACTION + 1, c_distance))),
                top_field.eq(Mux(c_wins, c.exponent_code, products_field) + (above - 1)),
            ]
        m.d.comb += result.limit.eq(Mux(top_field < 0, 0, top_field))
        return result

    def term(self, m, product, place, name):
        """A product aligned to ``place.code``, truncated."""
        places = Signal(len(place.code), name=f"{name}_places")
        magnitude = Signal(bits_for(self.largest_term), name=f"{name}_magnitude")
        m.d.comb += [
            places.eq(place.code - product.exponent_code),
            magnitude.eq(Cat(C(0, self._left), product.significand) >> places),
        ]
        return complemented(m, magnitude, product.sign, self.largest_term, name)

    def addend(self, m, c, place, name="addend"):
        """C aligned to ``place.code``, truncated."""
        left = self.FRACTION - FP32.mantissa_width
        magnitude = Signal(left + FP32.significand_width, name=f"{name}_magnitude")
        m.d.comb += magnitude.eq(Cat(C(0, left), c.significand) >> place.c_places)
        return complemented(m, magnitude, c.sign, (1 << (self.FRACTION + 1)) - 1, name)

    def sum(self, m, cut, terms, beats, valid, name="truncated"):
        """The block's sum of terms, ``digits + carry``, and whether it is whole; crosses the :func:`.products.tree_cuts`."""
        total = term_tree(m, cut, terms, self.largest_term, name)
        valid = through(cut, tree_cuts(len(terms)), valid, f"{name}_valid", reset_less=False)
        total, _, is_last = over_beats(m, total, self.largest_term, self._block_size, beats, valid, name)
        return total, valid & is_last

    def with_addend(self, m, total, addend, name="with_addend"):
        """The sum of both; the addend's carry is left over."""
        result = Signal(term_layout(self._largest_sum), name=name)
        m.d.comb += [
            result.digits.eq(add_with_carry(total.digits, addend.digits, total.carry, len(result.digits))),
            result.carry.eq(addend.carry),
        ]
        return result

    def result(self, m, cut, total, limit, flags, name="result"):
        """FP32 bits of the sum, behind :attr:`cuts`."""
        return round_sum(m, cut, FP32, self._window, total.digits, total.carry, Const(0, 1), limit, flags, name, truncate=True)
