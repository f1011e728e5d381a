"""A tile of a matrix product: rows of A times columns of B, one dot unit for each pair."""
from dataclasses import dataclass
from itertools import product

from amaranth import *
from amaranth.lib import data

from . import parameters
from .dot_accumulator import ACCUMULATIONS, TARGETS, AccumulatingUnit, DecodedDot, DotAccumulator, marks_layout
from .formats import E8M0, FP32
from .pipeline import Cuts
from .products import Operand

__all__ = ["MatmulTile"]


class MatmulTile(AccumulatingUnit):
    """``D = A B + C`` of ``rows`` by ``columns`` results: an array of dot units, fed with MX blocks of A's rows and B's columns.

    A beat carries the next piece along K of each row and of each column, and each dot unit multiplies those of its row and
    its column. Products are runs of blocks, of any length: the block with ``first`` starts one, from C (+0 without addend),
    the one with ``last`` delivers the results so far, itself included. Accumulation, slots, NaN, Inf and zeros are
    :class:`.DotAccumulator`'s, each dot unit being one: with ``slots`` of S, block k belongs to product k mod S. Marks, scales and
    C are read on a block's last beat.

    Bandwidth. With ``lanes`` of ``block_size`` each dot unit takes a block pair in every cycle. That asks for
    ``(rows + columns) * (8 + lanes * width)`` bits a cycle, for ``rows * columns * lanes`` multiplications: with E4M3 in blocks of
    32, 16.5 bits a multiplication for a single dot unit, 4.1 for 4 by 4, 1.03 for 16 by 16. C comes in and the results go out
    once a product, ``rows * columns * 32`` bits each, every K / ``block_size`` cycles: C shares the beat of its product's first
    block, and the port is as wide in every beat.

    Design. What is decoded of a row or a column is decoded once, at the array's edge: significands, exponent codes and flags
    of elements, and whether the block is NaN (:class:`.products.Operand`). Products, sums and running sums are the dot
    units' own (:class:`.dot_accumulator.DecodedDot`). So are their copies of marks and slot counters, which are alike; a
    synthesis that flattens keeps as many as it finds good for the fan-out.

    Cuts: those of the dot accumulator; ``decoded`` is after the edge.

    Members
    -------
    i : ``first``, ``last``; ``a_scales`` [rows], ``b_scales`` [columns], 8 bits (E8M0); ``a_elements`` [rows * lanes],
        ``b_elements`` [columns * lanes], codes, row after row and column after column; ``c`` [rows * columns] 32 bits (FP32),
        row after row, with ``addend`` only.
    o : ``results`` [rows * columns], bits of ``target``, row after row; ``is_out_of_window`` [rows * columns], with ``exact`` only.

    Latency is ``stages`` + 1 in exact, else ``stages``. Interval as the dot accumulator's.
    """
    @dataclass(frozen=True, kw_only=True)
    class Parameters(DotAccumulator.Parameters):
        accumulation: str = parameters.choice("fp32_fused", ACCUMULATIONS, "How blocks are summed.")
        rows: int = parameters.integer(2, 1, 64, "Rows of A, and of the results.")
        columns: int = parameters.integer(2, 1, 64, "Columns of B, and of the results.")

        # Products whose results leave together.
        products = 1

    def __init__(self, **options):
        p = self.Parameters(**options)
        results = p.rows * p.columns
        outputs = {"results": data.ArrayLayout(unsigned(TARGETS[p.target].width), results)}
        if p.accumulation == "exact":
            outputs["is_out_of_window"] = data.ArrayLayout(unsigned(1), results)
        super().__init__(
            p,
            i=data.StructLayout({
                "first": 1,
                "last": 1,
                "a_scales": data.ArrayLayout(E8M0.shape, p.rows),
                "a_elements": data.ArrayLayout(unsigned(p.pair.a.width), p.rows * p.lanes),
                "b_scales": data.ArrayLayout(E8M0.shape, p.columns),
                "b_elements": data.ArrayLayout(unsigned(p.pair.b.width), p.columns * p.lanes),
            } | ({"c": data.ArrayLayout(unsigned(FP32.width), results)} if p.addend else {})),
            o=data.StructLayout(outputs))

    def elaborate(self, platform):
        m = Module()
        p = self.parameters
        cut = Cuts(m, p.cuts, p.stages)

        def decoded(side, fmt, scales, elements):
            """The blocks of a side, decoded."""
            layout = data.ArrayLayout(unsigned(fmt.width), p.lanes)
            for n, scale in enumerate(scales):
                codes = data.View(layout, elements.as_value()[n * layout.size:(n + 1) * layout.size])
                yield Operand.decoded(m, cut, fmt, scale, codes, f"{side}{n}")

        a = list(decoded("a", p.pair.a, self.i.a_scales, self.i.a_elements))
        b = list(decoded("b", p.pair.b, self.i.b_scales, self.i.b_elements))
        marks = Signal(marks_layout())
        m.d.comb += [marks.first.eq(self.i.first), marks.last.eq(self.i.last)]
        marks = cut("decoded", marks, "marks")
        valid = cut("decoded", self.i_valid, "valid", reset_less=False)

        for n, (row, column) in enumerate(product(range(p.rows), range(p.columns))):
            dot = DecodedDot(p)
            m.submodules[f"dot_{row}_{column}"] = dot
            m.d.comb += [
                *dot.given(a[row], b[column]),
                dot.marks.eq(marks),
                dot.i_valid.eq(valid),
                self.o.results[n].eq(dot.o.result),
            ]
            if p.addend:
                m.d.comb += dot.c.eq(cut("decoded", self.i.c[n], f"c{n}"))
            if p.accumulation == "exact":
                m.d.comb += self.o.is_out_of_window[n].eq(dot.o.is_out_of_window)
            if n == 0:
                m.d.comb += self.o_valid.eq(dot.o_valid)

        return m
