# amaranth: UnusedElaboratable=no
"""Comparing and casting at once, proven equal to the units that do one after the other."""
import itertools

import pytest
from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from yosys_run import is_never_wrong

from mxforge.block_amax import BlockAmax
from mxforge.block_cast import TreeCaster
from mxforge.element_cast import ElementCast
from mxforge.formats import ELEMENTS, WIDES
from mxforge.pipeline import Cuts
from mxforge.quantizer import Quantizer, rule_and_caster
from mxforge.scale_select import SCALE_RULES, ScaleSelect

SERVED = [
    (source, element, rule) for source, element, rule in itertools.product(WIDES, ELEMENTS, SCALE_RULES)
    if Quantizer.Parameters(source=source, element=element, scale_rule=rule, block_size=2, lanes=2).block_caster]


class Against(wiring.Component):
    """``is_wrong`` where a quantizer differs from :class:`BlockAmax`, :class:`ScaleSelect` and :class:`ElementCast`.

    Of two lanes. One sees of the others nothing but the largest key, which is any that the other lane may have. ``compares`` by
    ``bits`` or by a ``tree``.
    """
    def __init__(self, source, element, rule, compares, naive_rule=None):
        parameters = Quantizer.Parameters(source=source, element=element, scale_rule=rule, block_size=2, lanes=2)
        # By a tree a quantizer of two lanes does not.
        self._caster = parameters.block_caster if compares == "bits" else TreeCaster(
            WIDES[source], ELEMENTS[element], rule_and_caster(parameters)[0], 2)
        self._amax = BlockAmax(source=source, block_size=2, lanes=2)
        self._select = ScaleSelect(source=source, element=element, scale_rule=naive_rule or rule)
        self._cast = ElementCast(source=source, element=element, lanes=2)
        super().__init__({"values": In(data.ArrayLayout(WIDES[source].width, 2)), "is_wrong": Out(1)})

    def elaborate(self, platform):
        m = Module()

        scale, codes = self._caster.result(m, Cuts(m, self._caster.cuts, 0), list(self.values))
        m.submodules.amax = amax = self._amax
        m.submodules.select = select = self._select
        m.submodules.cast = cast = self._cast
        m.d.comb += [
            amax.i.eq(self.values),
            select.i.eq(amax.o),
            cast.i.values.eq(self.values),
            cast.i.scale.eq(select.o),
            self.is_wrong.eq((scale != select.o.as_value()) | (Cat(codes) != cast.o.as_value())),
        ]

        return m


def is_proven(folder, *args):
    return is_never_wrong(Against(*args), folder)


@pytest.mark.parametrize(("source", "element", "rule"), [
    ("bf16", "e4m3", "rceil"), ("bf16", "e5m2", "ceil"), ("fp32", "e4m3", "floor_plus_1"), ("fp32", "e2m1", "unit"),
    ("bf16", "e3m2", "rceil"), ("bf16", "e2m3", "unit")])
def test_proven(source, element, rule, tmp_path):
    assert is_proven(tmp_path, source, element, rule, "bits")


@pytest.mark.parametrize(("source", "element", "rule"), [
    ("bf16", "e4m3", "rceil"), ("bf16", "e4m3", "unit"), ("fp32", "e5m2", "unit"), ("bf16", "e2m1", "floor_plus_1")])
def test_tree_proven(source, element, rule, tmp_path):
    assert is_proven(tmp_path, source, element, rule, "tree")


@pytest.mark.slow
@pytest.mark.parametrize("compares", ["bits", "tree"])
@pytest.mark.parametrize(("source", "element", "rule"), SERVED)
def test_proven_of_all(source, element, rule, compares, tmp_path):
    assert is_proven(tmp_path, source, element, rule, compares)


@pytest.mark.parametrize("compares", ["bits", "tree"])
def test_what_is_wrong_is_not_proven(compares, tmp_path):
    assert not is_proven(tmp_path, "bf16", "e4m3", "rceil", compares, "ceil")
