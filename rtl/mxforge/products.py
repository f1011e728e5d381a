"""Products of two blocks' elements and their exact sum: the front end that the dot product units share."""
from dataclasses import dataclass
from itertools import pairwise

from amaranth import *
from amaranth.lib import data
from amaranth.utils import bits_for

from .arith import any_bit, plus_rippling
from .formats import E8M0, IntegerFormat
from .pipeline import through
from .raw import decode, raw_layout

__all__ = ["Operand", "Pair", "add_with_carry", "aligned", "any_over", "block_sum", "block_sum_layout", "complemented",
           "element_layout", "front_cuts", "number_layout", "over_beats", "product", "product_layout", "specials",
           "specials_layout", "specials_over_beats", "term_layout", "term_tree", "tree_cuts"]


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
    def max_significand(self):
        return _magnitude(self.a)[0] * _magnitude(self.b)[0]

    @property
    def significand_width(self):
        return bits_for(self.max_significand)

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


def any_over(cut, name, bits, label, size):
    """``any_bit(bits)`` on the far side of a cut, before which groups of ``size`` bits are gathered, and these behind it."""
    if not len(bits):
        return any_bit(bits)
    groups = Cat(any_bit(bits[n:n + size]) for n in range(0, len(bits), size))
    over = cut(name, groups, label)
    return any_bit(bits if over is groups else over)


def element_layout(fmt):
    """A decoded element but for ``is_nan``: what its products need."""
    return data.StructLayout({name: shape for name, shape in raw_layout(fmt).members.items() if name != "is_nan"})


@dataclass(frozen=True)
class Operand:
    """A beat of a block, decoded: its E8M0 code ``scale`` and whether that is NaN; whether any element ``is_nan``; and the
    ``elements``, each an :func:`element_layout`.
    """
    scale: Value
    scale_is_nan: Value
    is_nan: Value
    elements: tuple

    @classmethod
    def decoded(cls, m, cut, fmt, scale, codes, name):
        """From a block's scale and an array of element codes, behind the cut ``decoded``."""
        # Named, since an expression is written out by each that reads it, and a payload may be wide.
        named = Signal(codes.shape(), name=f"{name}_codes")
        m.d.comb += named.eq(codes)
        raws = [decode(m, code, fmt, f"{name}_raw{lane}") for lane, code in enumerate(named)]
        elements = tuple(Signal(element_layout(fmt), name=f"{name}_{lane}") for lane in range(len(raws)))
        for element, raw in zip(elements, raws, strict=True):
            m.d.comb += [element[field].eq(raw[field]) for field in element_layout(fmt).members]
        is_nan = any_over(cut, "decoded", Cat(raw.is_nan for raw in raws), f"{name}_is_nan", 2)
        return cls(
            cut("decoded", scale, f"{name}_scale"), cut("decoded", scale == E8M0.nan_code, f"{name}_scale_is_nan"), is_nan,
            tuple(cut("decoded", element, f"{name}_{lane}") for lane, element in enumerate(elements)))


def number_layout(pair):
    """A product that is a number: ``(-1)**sign * significand * 2**(exponent_code - 2 + lsb_exponent)``."""
    return data.StructLayout({
        "significand": unsigned(pair.significand_width),
        "exponent_code": unsigned(pair.exponent_width),
        "sign": unsigned(1),
    })


def product_layout(pair):
    """A product: a :func:`number_layout` and, above it, flags. NaN and Inf leave the number undefined; ``is_nan`` goes before
    ``is_inf``.
    """
    return data.StructLayout(number_layout(pair).members | {
        "is_zero": unsigned(1),
        "is_nan": unsigned(1),
        "is_inf": unsigned(1),
    })


def _times_two_bits(m, a, b, name):
    """``a * b`` with ``b`` of one bit or two."""
    rows = [Signal(len(a), name=f"{name}_row{n}") for n in range(len(b))]
    m.d.comb += [row.eq(a & bit.replicate(len(a))) for row, bit in zip(rows, b, strict=True)]
    if len(b) == 1:
        return rows[0]
    return Cat(rows[0][0], plus_rippling(m, rows[0][1:], rows[1], name))


def _multiply(m, cut, a, b, name):
    """``a * b`` of two significands, behind the cut ``partials``, before which there are products of two parts of one.

    If they have four bits at most, one is taken two bits at a time: short sums in plain logic and one adder are smaller than
    what tools make of the operator, with carry cells and in gates.
    """
    if len(b) > len(a):
        a, b = b, a
    if len(a) <= 4:
        parts = [_times_two_bits(m, a, b[n:n + 2], f"{name}_part{n}") for n in range(0, len(b), 2)]
        width = 2
    elif cut.count("partials"):
        width = len(b) // 2
        parts = [a * b[:width], a * b[width:]]
    else:
        return a * b
    low, *high = (cut("partials", part, f"{name}_part{n}") for n, part in enumerate(parts))
    return Cat(low[:width], (low[width:] + high[0])[:len(a) + len(b) - width]) if high else low


def product(m, cut, a, b, pair, name):
    """The :func:`product_layout` of two decoded elements, behind the cut ``partials``. Subnormals are not normalised: their
    exponent code is 1.

    NaN elements make no NaN here: :class:`Operand` tells of them, once for all of its products.
    """
    result = Signal(product_layout(pair), name=name)
    facts = {
        "exponent_code": plus_rippling(m, a.exponent_code, b.exponent_code, f"{name}_codes"),
        "sign": a.sign ^ b.sign,
        "is_zero": a.is_zero | b.is_zero,
        "is_nan": (a.is_inf & b.is_zero) | (a.is_zero & b.is_inf),
        "is_inf": a.is_inf | b.is_inf,
    }
    m.d.comb += [
        result.significand.eq(_multiply(m, cut, a.significand, b.significand, name)),
        *(result[field].eq(cut("partials", fact, f"{name}_{field}")) for field, fact in facts.items()),
    ]
    return result


def specials_layout():
    """What NaN and Inf make of a sum: NaN if ``is_nan`` or infinities of both signs, Inf of one sign, or a number."""
    return data.StructLayout({"is_nan": 1, "is_plus_inf": 1, "is_minus_inf": 1})


def specials(m, products, is_nan, name):
    """The :func:`specials_layout` of products, or NaN if an operand ``is_nan``."""
    result = Signal(specials_layout(), name=name)
    m.d.comb += [
        result.is_nan.eq(any_bit(Cat(is_nan, *(p.is_nan for p in products)))),
        result.is_plus_inf.eq(any_bit(Cat(p.is_inf & ~p.sign for p in products))),
        result.is_minus_inf.eq(any_bit(Cat(p.is_inf & p.sign for p in products))),
    ]
    return result


def specials_over_beats(m, special, is_first, beats, valid, name):
    """The :func:`specials_layout` of a block up to this beat."""
    if beats == 1:
        return special
    held = Signal(specials_layout(), name=f"{name}_held_specials", reset_less=True)
    result = Signal(specials_layout(), name=f"{name}_block_specials")
    m.d.comb += result.eq(Mux(is_first, 0, held.as_value()) | special.as_value())
    with m.If(valid):
        m.d.sync += held.eq(result)
    return result


def term_layout(largest, count=1):
    """The sum of ``count`` integers of magnitudes up to ``largest``: worth ``digits + carry``."""
    return data.StructLayout({"digits": signed(bits_for(count * largest) + 1), "carry": unsigned(1)})


def complemented(m, magnitude, sign, largest, name):
    """The :func:`term_layout` of a magnitude and a sign: one's complement where it is negative, and the carry due for that."""
    result = Signal(term_layout(largest), name=name)
    width = len(result.digits)
    padded = Cat(magnitude, C(0, max(0, width - len(magnitude))))[:width]
    m.d.comb += [result.digits.eq(padded ^ sign.replicate(width)), result.carry.eq(sign)]
    return result


def aligned(m, cut, product, pair, name):
    """The :func:`term_layout` of a product that is a number, in units of ``2**lsb_exponent``: :func:`complemented`.

    The complement is taken first, where it is narrow; copies of the sign enter then. It moves left by the exponent code's low
    bits, a step each, then, behind the cut ``aligning``, by spans so wide that each place has two that it can come from.
    """
    code, sign = product.exponent_code, product.sign
    value = product.significand ^ sign.replicate(pair.significand_width)
    fine = min((pair.significand_width - 2).bit_length(), len(code))
    for k in range(fine):
        ends = sign.replicate(1 << k)
        moved = Signal(len(value) + (1 << k), name=f"{name}_moved{1 << k}")
        m.d.comb += moved.eq(Mux(code[k], Cat(ends, value), Cat(value, ends)))
        value = moved
    value, spans, sign = (cut("aligning", part, f"{name}_{label}") for label, part in (
        ("moved", value), ("spans", code[fine:]), ("sign", sign)))
    if len(spans):
        value = _by_spans(m, value, spans, (pair.max_exponent_code >> fine) + 1, 1 << fine, sign, name)
    result = Signal(term_layout(pair.max_product), name=name)
    # Exponent codes start at 1 each: the two places too many cost no gates, a subtraction would.
    m.d.comb += [result.digits.eq(Cat(value, sign.replicate(len(result.digits) + 2))[2:]), result.carry.eq(sign)]
    return result


def _by_spans(m, value, index, count, span, fill, name):
    """``value``, of two spans at most, moved left by ``index`` (below ``count``) of them, with ``fill`` below and above."""
    value = Cat(value, fill.replicate(2 * span))[:2 * span]
    low, high, fills = value[:span], value[span:], fill.replicate(span)
    selects = [Signal(name=f"{name}_span{n}") for n in range(count)]
    m.d.comb += [select.eq(index == n) for n, select in enumerate(selects)]
    places = [Mux(selects[0], low, fills)]
    for n, (from_high, from_low) in enumerate(pairwise(selects), 1):
        # Where no data come the choice is the fill.
        has_data, choice = Signal(name=f"{name}_has_data{n}"), Signal(name=f"{name}_choice{n}")
        m.d.comb += [has_data.eq(from_high | from_low), choice.eq(from_high | (~from_low & fill))]
        of_high = choice.replicate(span) & (high | (~has_data).replicate(span))
        places.append(of_high | ((~choice & has_data).replicate(span) & low))
    return Cat(*places, Mux(selects[-1], high, fills))


def add_with_carry(a, b, carry, width):
    """``a + b + carry``, signed, as ``width`` bits: one adder, whose carry comes from a place below the last."""
    return (Cat(C(1, 1), a).as_signed() + Cat(carry, b).as_signed())[1:width + 1].as_signed()


def tree_cuts(lanes, name="tree"):
    """A cut point for each level of a balanced tree."""
    return tuple(f"{name}{n + 1}" for n in range((lanes - 1).bit_length()))


def term_tree(m, cut, terms, largest, name):
    """The sum of a power of two of terms by a balanced tree, behind its :func:`tree_cuts`.

    Each adder takes the carry of one of its operands; an adder per term but one leaves a single carry over.
    """
    for level, tree_cut in enumerate(tree_cuts(len(terms)), 1):
        nodes = []
        for n, (a, b) in enumerate(zip(terms[::2], terms[1::2], strict=True)):
            node = Signal(term_layout(largest, 1 << level), name=f"{name}_tree{level}_{n}")
            m.d.comb += [
                node.digits.eq(add_with_carry(a.digits, b.digits, a.carry, len(node.digits))),
                node.carry.eq(b.carry),
            ]
            nodes.append(cut(tree_cut, node, f"{name}_{n}"))
        terms = nodes
    total, = terms
    return total


def over_beats(m, term, largest, count, beats, valid, name):
    """``(total, is_first, is_last)``: the :func:`term_layout` of a block's ``count`` integers, whose sums come in ``beats``.

    A register holds the sum of the beats before; its adder takes the carry too. Blocks are counted from reset.
    """
    total = Signal(term_layout(largest, count), name=f"{name}_block")
    if beats == 1:
        m.d.comb += total.eq(term)
        return total, Const(1, 1), Const(1, 1)
    beat = Signal(range(beats), name=f"{name}_beat")
    held = Signal.like(total.digits, name=f"{name}_held", reset_less=True)
    is_first, is_last = beat == 0, beat == beats - 1
    m.d.comb += total.digits.eq(add_with_carry(term.digits, Mux(is_first, 0, held), term.carry, len(held)))
    with m.If(valid):
        # A power of two of beats, so the counter wraps.
        m.d.sync += [held.eq(total.digits), beat.eq(beat + 1)]
    return total, is_first, is_last


def front_cuts(lanes):
    """Cut points of :func:`block_sum`, in the order in which data crosses them."""
    return "partials", "products", "aligning", "aligned", *tree_cuts(lanes)


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


def block_sum(m, cut, pair, block_size, a, b, valid, name="sum"):
    """The :func:`block_sum_layout` of a block pair that comes in beats, ``a`` and ``b`` (:class:`Operand`), where ``valid``.

    Products stand as integers on the last place of the smallest, so the sum is exact whatever its order. Negative ones
    enter the tree in one's complement, and what they lack rides in its carries. With several beats a block, the last
    beat's sum is the block's; blocks are counted from reset.

    It crosses :func:`front_cuts` of the lanes; what goes with the beat must pass :func:`through` them.
    """
    lanes = len(a.elements)
    cuts = front_cuts(lanes)
    terms, flags = [], []
    for lane in range(lanes):
        p = product(m, cut, a.elements[lane], b.elements[lane], pair, f"{name}_product{lane}")
        p = cut("products", p, f"{name}_{lane}")
        flags.append(p)
        term = aligned(m, cut, p, pair, f"{name}_aligned{lane}")
        terms.append(cut("aligned", term, f"{name}_{lane}"))
    total = term_tree(m, cut, terms, pair.max_product, name)
    is_nan = cut("partials", a.is_nan, f"{name}_a_is_nan") | cut("partials", b.is_nan, f"{name}_b_is_nan")
    is_nan = cut("products", is_nan, f"{name}_is_nan")
    special = through(cut, cuts[2:], specials(m, flags, is_nan, f"{name}_specials"), f"{name}_specials")
    valid = through(cut, cuts, valid, f"{name}_valid", reset_less=False)

    beats = block_size // lanes
    total, is_first, is_last = over_beats(m, total, pair.max_product, block_size, beats, valid, name)
    result = Signal(block_sum_layout(pair, block_size), name=name)
    m.d.comb += [
        result.total.eq(total.digits),
        result.carry.eq(total.carry),
        result.specials.eq(specials_over_beats(m, special, is_first, beats, valid, name)),
        result.is_done.eq(valid & is_last),
    ]
    return result
