# amaranth: UnusedElaboratable=no
"""Leaf arithmetic, exhaustive at small widths."""
import itertools

import pytest
from amaranth.hdl import Const, Module, Signal, signed
from amaranth.sim import Simulator

from mxforge.arith import (
    count_leading_zeros,
    exchange,
    is_among,
    normalize,
    plus,
    select,
    shift_left,
    shift_right_sticky,
    thermometer,
    tree_max,
    tree_sum,
)
from mxforge.round import round_up_to_nearest_even, split


def evaluate(widths, function):
    """``function(m, *inputs)``'s values for all inputs of ``widths`` bits each, as ``[(inputs, values)]``."""
    inputs = [Signal(width, name=f"i{n}") for n, width in enumerate(widths)]
    m = Module()
    results = function(m, *inputs)
    results = results if isinstance(results, tuple) else (results,)
    outputs = [Signal(r.shape(), name=f"o{n}") for n, r in enumerate(results)]
    m.d.comb += [o.eq(r) for o, r in zip(outputs, results, strict=True)]
    table = []

    async def bench(ctx):
        for values in itertools.product(*(range(1 << width) for width in widths)):
            for port, value in zip(inputs, values, strict=True):
                ctx.set(port, value)
            table.append((values, tuple(ctx.get(o) for o in outputs)))

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
    return table


@pytest.mark.parametrize("width", [1, 2, 3, 5, 8])
def test_normalize(width):
    for (value,), (shifted, zeros) in evaluate([width], normalize):
        if value:
            assert zeros == width - value.bit_length()
            assert shifted == value << zeros
        else:
            assert shifted == 0


@pytest.mark.parametrize("width", [1, 3, 6])
@pytest.mark.parametrize("constant", [0, 1, 5, 22, -1, -6])
def test_plus(width, constant):
    for (value,), (total,) in evaluate([4], lambda m, value: plus(m, value, constant, width)):
        assert total == (value + constant) % (1 << width)


def test_is_among():
    """Each set of 3-bit numbers among each that has it; nothing is said of other numbers."""
    for possible in itertools.chain.from_iterable(itertools.combinations(range(8), n) for n in (1, 2, 4, 7, 8)):
        chosen = [[number for n, number in enumerate(possible) if subset >> n & 1] for subset in range(1 << len(possible))]
        for (value,), found in evaluate([3], lambda m, value, c=chosen, p=possible: tuple(is_among(m, value, one, p) for one in c)):
            if value in possible:
                assert list(found) == [value in one for one in chosen]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 8])
def test_select(count):
    """Beyond the end, the last."""
    for (index,), (value,) in evaluate([3], lambda m, i: select(m, (Const(10 + n, 8) for n in range(count)), i)):
        assert value == 10 + min(index, count - 1)


@pytest.mark.parametrize("width", [1, 2, 3, 5])
def test_thermometer(width):
    for (amount,), (ones,) in evaluate([width], thermometer):
        assert ones == (1 << amount) - 1


@pytest.mark.parametrize("width", [1, 2, 3, 5, 8])
def test_count_leading_zeros(width):
    for (value,), (zeros,) in evaluate([width], count_leading_zeros):
        assert zeros == width - value.bit_length()


@pytest.mark.parametrize(("width", "amount_width"), [(1, 1), (4, 2), (5, 3), (6, 4)])
def test_shift_right_sticky(width, amount_width):
    for (value, amount), (shifted, lost) in evaluate([width, amount_width], shift_right_sticky):
        assert shifted == value >> amount
        assert lost == (shifted << amount != value)


@pytest.mark.parametrize(("width", "amount_width", "result_width"), [(4, 3, 6), (4, 2, 4), (5, 3, 3)])
def test_shift_left(width, amount_width, result_width):
    for (value, amount), (shifted,) in evaluate([width, amount_width], lambda m, v, a: shift_left(v, a, result_width)):
        assert shifted == (value << amount) % (1 << result_width)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_trees(count):
    for values, (total, most) in evaluate([2] * count, lambda m, *v: (tree_sum(v), tree_max(m, v))):
        assert total == sum(values)
        assert most == max(values)


@pytest.mark.parametrize(("count", "shape", "width"), [(32, 8, 13), (33, 8, 14), (32, signed(37), 42)])
def test_tree_sum_is_no_wider_than_exact(count, shape, width):
    assert len(tree_sum([Signal(shape) for _ in range(count)])) == width


@pytest.mark.parametrize("count", [2, 4, 8])
def test_exchange(count):
    index_width = (count - 1).bit_length()
    for (*values, index), places in evaluate([1] * count + [index_width], lambda m, *v: tuple(exchange(m, v[:-1], v[-1]))):
        assert list(places) == [values[k ^ index] for k in range(count)]


@pytest.mark.parametrize("places", [0, 1, 2, 4])
def test_rounds_to_nearest_even(places):
    def rounded(m, value):
        kept, guard, sticky = split(value, places)
        return kept + round_up_to_nearest_even(kept[0], guard, sticky)

    for (value,), (result,) in evaluate([7], rounded):
        assert result == round(value / (1 << places))   # Python rounds ties to even


def test_constant_operands():
    assert len(shift_left(Const(1, 1), Signal(2), 4)) == 4
