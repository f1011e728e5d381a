"""Products of two blocks' elements and their exact sum: the front end that the dot product units share."""
from dataclasses import dataclass

from amaranth import *
from amaranth.lib import data
from amaranth.utils import bits_for

from .arith import any_bit, shift_left
from .formats import IntegerFormat
from .raw import decode

__all__ = ["Pair", "add_with_carry", "block_sum", "block_sum_layout", "front_cuts", "product",
           "product_layout", "specials", "specials_layout", "through"]


def _magnitude(fmt):
    """The largest significand and the largest exponent code of finite elements."""
    if isinstance(fmt, IntegerFormat):
        # The most negative code decodes.
        return fmt.sign_code, 1
    return (1 << fmt.significand_width) - 1, fmt.emax + fmt.bias


@dataclass(frozen=True)
class Pair:
    """Two element formats that are multiplied, and the widths that follow.

    A product of finite elements is ``significand * 2**(exponent_code - 2) * 2**lsb_exponent``, with ``exponent_code`` the
    sum of both: an integer on the last place of the product of the two smallest subnormals. Block sums of 32 take
    42 bits, sign included (E4M3), 70 (E5M2), 56 (one of each).
    """
    a: object
    b: object

    @property
    def significand_width(self):
        return bits_for(_magnitude(self.a)[0] * _magnitude(self.b)[0])

    @property
    def max_exponent_code(self):
        return _magnitude(self.a)[1] + _magnitude(self.b)[1]

    @property
    def exponent_width(self):
        """Bits of the sum of two exponent codes, those of Inf and NaN included."""
        return bits_for(sum((1 << f.exponent_width) - 1 for f in (self.a, self.b)))

    @property
    def lsb_exponent(self):
        return self.a.lsb_exponent + self.b.lsb_exponent

    @property
    def max_product(self):
        """The largest product as an integer."""
        largest = [fmt.sign_code if isinstance(fmt, IntegerFormat) else fmt.max_significand << (fmt.emax + fmt.bias - 1)
                   for fmt in (self.a, self.b)]
        return largest[0] * largest[1]

    @property
    def product_width(self):
        """Bits of a product's magnitude."""
        return bits_for(self.max_product)

    def sum_width(self, count):
        """Bits of the signed sum of ``count`` products. A sum that still lacks a carry of 1 fits too."""
        return bits_for(count * self.max_product) + 1

    @property
    def has_inf(self):
        return self.a.has_inf or self.b.has_inf


def product_layout(pair):
    """A product: ``(-1)**sign * significand * 2**(exponent_code - 2 + lsb_exponent)`` unless NaN or Inf, which leave the
    numbers undefined; ``is_nan`` goes before ``is_inf``.
    """
    return data.StructLayout({
        "significand": unsigned(pair.significand_width),
        "exponent_code": unsigned(pair.exponent_width),
        "sign": unsigned(1),
        "is_nan": unsigned(1),
        "is_inf": unsigned(1),
    })


def product(m, a_code, b_code, pair, name):
    """The :func:`product_layout` of two element codes. Subnormals are not normalised: their exponent code is 1."""
    a = decode(m, a_code, pair.a, f"{name}_a")
    b = decode(m, b_code, pair.b, f"{name}_b")
    result = Signal(product_layout(pair), name=name)
    m.d.comb += [
        result.significand.eq(a.significand * b.significand),
        result.exponent_code.eq(a.exponent_code + b.exponent_code),
        result.sign.eq(a.sign ^ b.sign),
        result.is_nan.eq(a.is_nan | b.is_nan | (a.is_inf & b.is_zero) | (a.is_zero & b.is_inf)),
        result.is_inf.eq(a.is_inf | b.is_inf),
    ]
    return result


def specials_layout():
    """What NaN and Inf make of a sum: NaN if ``is_nan`` or infinities of both signs, Inf of one sign, or a number."""
    return data.StructLayout({"is_nan": 1, "is_plus_inf": 1, "is_minus_inf": 1})


def specials(m, products, name):
    """The :func:`specials_layout` of products."""
    result = Signal(specials_layout(), name=name)
    m.d.comb += [
        result.is_nan.eq(any_bit(Cat(p.is_nan for p in products))),
        result.is_plus_inf.eq(any_bit(Cat(p.is_inf & ~p.sign for p in products))),
        result.is_minus_inf.eq(any_bit(Cat(p.is_inf & p.sign for p in products))),
    ]
    return result


def _term_layout(pair, count):
    """The sum of ``count`` products as integers: worth ``digits + carry``."""
    return data.StructLayout({"digits": signed(pair.sum_width(count)), "carry": unsigned(1)})


def _aligned(m, term, pair, name):
    """The product ``term`` as an integer in one's complement, where it is negative."""
    result = Signal(_term_layout(pair, 1), name=name)
    # Exponent codes start at 1 each: the two places too many cost no gates, a subtraction would.
    magnitude = shift_left(term.significand, term.exponent_code, pair.product_width + 2)[2:]
    m.d.comb += [
        result.digits.eq(Cat(magnitude, C(0, 1)) ^ term.sign.replicate(pair.sum_width(1))),
        result.carry.eq(term.sign),
    ]
    return result


def add_with_carry(a, b, carry, width):
    """``a + b + carry``, signed, as ``width`` bits: one adder, whose carry comes from a place below the last."""
    return (Cat(C(1, 1), a).as_signed() + Cat(carry, b).as_signed())[1:width + 1].as_signed()


def front_cuts(lanes):
    """Cut points of :func:`block_sum`, in the order in which data crosses them."""
    return "products", "aligned", *(f"tree{n + 1}" for n in range((lanes - 1).bit_length()))


def through(cut, cuts, value, label, *, reset_less=True):
    """``value`` on the far side of ``cuts``, one after another."""
    for name in cuts:
        value = cut(name, value, label, reset_less=reset_less)
    return value


def block_sum_layout(pair, block_size):
    """An exact block sum: ``total + carry``, in units of ``2**lsb_exponent``, unless ``specials`` say otherwise.

    ``is_done``: this cycle's sum is a whole block's.
    """
    return data.StructLayout({
        "total": signed(pair.sum_width(block_size)),
        "carry": unsigned(1),
        "specials": specials_layout(),
        "is_done": unsigned(1),
    })


def block_sum(m, cut, pair, block_size, a_elements, b_elements, valid, name="sum"):
    """The :func:`block_sum_layout` of a block pair that comes in beats of ``len(a_elements)`` lanes, ``valid`` marking beats.

    Products stand as integers on the last place of the smallest, so the sum is exact whatever its order. A negative one
    enters the balanced tree in one's complement; its missing 1 is the carry-in of one of the adders. An adder per term but
    one leaves a single carry over, which is given beside the total. With several beats a block, a register holds the sum
    of those before, whose adder takes that carry too; blocks are counted from reset.

    It crosses :func:`front_cuts` of the lanes; what goes with the beat must pass :func:`through` them.
    """
    lanes = len(a_elements)
    cuts = front_cuts(lanes)
    terms, flags = [], []
    for lane in range(lanes):
        p = product(m, a_elements[lane], b_elements[lane], pair, f"{name}_product{lane}")
        p = cut("products", p, f"{name}_{lane}")
        flags.append(p)
        terms.append(cut("aligned", _aligned(m, p, pair, f"{name}_aligned{lane}"), f"{name}_{lane}"))
    special = through(cut, cuts[1:], specials(m, flags, f"{name}_specials"), f"{name}_specials")

    for level, tree_cut in enumerate(cuts[2:], 1):
        nodes = []
        for n, (a, b) in enumerate(zip(terms[::2], terms[1::2], strict=True)):
            node = Signal(_term_layout(pair, 1 << level), name=f"{name}_tree{level}_{n}")
            m.d.comb += [
                node.digits.eq(add_with_carry(a.digits, b.digits, a.carry, pair.sum_width(1 << level))),
                node.carry.eq(b.carry),
            ]
            nodes.append(cut(tree_cut, node, f"{name}_{n}"))
        terms = nodes
    total, = terms

    result = Signal(block_sum_layout(pair, block_size), name=name)
    valid = through(cut, cuts, valid, f"{name}_valid", reset_less=False)
    beats = block_size // lanes
    if beats == 1:
        m.d.comb += [
            result.total.eq(total.digits), result.carry.eq(total.carry), result.specials.eq(special), result.is_done.eq(valid)]
        return result

    beat = Signal(range(beats), name=f"{name}_beat")
    held = Signal(signed(pair.sum_width(block_size)), name=f"{name}_held", reset_less=True)
    held_specials = Signal(specials_layout(), name=f"{name}_held_specials", reset_less=True)
    is_first = beat == 0
    m.d.comb += [
        result.total.eq(add_with_carry(total.digits, Mux(is_first, 0, held), total.carry, len(held))),
        result.specials.eq(Mux(is_first, 0, held_specials.as_value()) | special.as_value()),
        result.is_done.eq(valid & (beat == beats - 1)),
    ]
    with m.If(valid):
        # Powers of two, so the counter wraps.
        m.d.sync += [held.eq(result.total), held_specials.eq(result.specials), beat.eq(beat + 1)]
    return result
