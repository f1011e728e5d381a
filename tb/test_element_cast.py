# amaranth: UnusedElaboratable=no
import itertools
from dataclasses import asdict

import numpy as np
import pytest
from depths import ends
from side_by_side import SideBySide

import mxgolden.element_cast
from mxbench.bench import compare
from mxbench.stimulus import element_cast as stimulus
from mxforge.element_cast import ElementCast
from mxforge.formats import ELEMENTS, WIDES
from mxforge.pipeline import Streamed


@pytest.mark.parametrize("options", [
    {"source": "bf16", "element": "e4m3", "lanes": 32, "stages": 2},
    {"source": "fp32", "element": "e5m2", "overflow": "ieee", "lanes": 4, "stages": 6},
    {"source": "fp16", "element": "mxint8", "rounding": "stochastic", "lanes": 3, "stages": 4},
    {"source": "fp32", "element": "e2m1", "lanes": 1},
])
def test_bench(simulate, options):
    simulate(Streamed(ElementCast(**options)), "element_cast")


def every_cast(source, rounding, **options):
    """Each element, with each thing to do about overflow that it has."""
    for element, overflow in itertools.product(ELEMENTS, ("saturate", "ieee")):
        if overflow == "saturate" or ELEMENTS[element].has_nan:
            yield f"{element}_{overflow}", ElementCast(
                source=source, element=element, rounding=rounding, overflow=overflow, **options)


def expectations(units, inputs):
    return {name: mxgolden.element_cast.expected(asdict(unit.parameters), inputs)["elements"] for name, unit in units.items()}


@pytest.mark.parametrize("source", ["bf16", "fp16"])
def test_every_value(play, verified, source):
    """All codes of the source, each under scales where its subnormals count, in the middle, and at the ends."""
    lanes = 4
    units = dict(every_cast(source, "rne", lanes=lanes))
    scales = [0, 1, 7, 10, 11, 17, 18, 127, 247, 254, 255] if source == "bf16" else [0, 88, 95, 103, 112, 127, 134, 142, 254, 255]
    values = np.arange(1 << 16, dtype=np.uint16).reshape(-1, lanes)
    inputs = {"scale": np.repeat(np.array(scales, np.uint8), len(values)), "values": np.tile(values, (len(scales), 1))}
    compare(play(SideBySide(units), "element_cast", inputs), expectations(units, inputs), inputs)
    verified("element_cast", exhausted=f"{source}: all 65,536 values under {len(scales)} scales, {len(units)} casts",
             values=len(units) * inputs["values"].size)


@pytest.mark.parametrize(("source", "rounding", "stages"), [
    ("fp32", "rne", 6), ("fp32", "stochastic", 3), ("bf16", "stochastic", 5),
    *(pytest.param("fp16", *both, marks=pytest.mark.slow) for both in (("rne", 1), ("stochastic", 0))),
])
def test_volume(play, verified, source, rounding, stages):
    units = dict(every_cast(source, rounding, lanes=4, stages=stages))
    for unit in units.values():
        parameters = asdict(unit.parameters)
        inputs = stimulus.blocks(parameters, 25_000, np.random.default_rng(stages))
        expected = expectations(units, inputs)
        compare(play(SideBySide(units), "element_cast", inputs), expected, inputs)
        name = f"{parameters['element']}_{parameters['overflow']}"
        hits = stimulus.classes(parameters, inputs, {"elements": expected[name]})
        assert all(hits.values()), (name, hits)
        verified("element_cast", configuration=repr(unit.parameters), blocks=len(inputs["scale"]),
                 values=sum(array.size for array in expected.values()), classes=hits)


DEPTHS = range(len(ElementCast.CUTS) + 1)


@pytest.mark.parametrize("stages", DEPTHS)
def test_every_depth(verify, stages):
    unit = ElementCast(source="bf16", element="e4m3", overflow="ieee", lanes=2, stages=stages)
    verify(unit, 20_000, stalls=stages)
    verify(unit, 20_000)


@pytest.mark.parametrize("stages", ends(DEPTHS))
def test_bare_core(verify, stages):
    verify(ElementCast(source="bf16", element="e4m3", overflow="ieee", lanes=2, stages=stages), 20_000, streamed=False)


def test_random_bits_are_asked_for_only_by_stochastic_rounding():
    for source in WIDES:
        assert "random" not in dict(ElementCast(source=source).i.shape())
        assert "random" in dict(ElementCast(source=source, rounding="stochastic").i.shape())


@pytest.mark.parametrize(("values", "error", "message"), [
    ({"rounding": "up"}, ValueError, "rounding must be one of rne, stochastic, not 'up'"),
    ({"element": "mxint8", "overflow": "ieee"}, ValueError, "overflow must be saturate for mxint8, which has no NaN, not 'ieee'"),
    ({"stages": 7}, ValueError, "stages must be 0 to 6 .*, not 7"),
    ({"lanes": "32"}, TypeError, "lanes must be an integer, not '32'"),
])
def test_refuses(values, error, message):
    with pytest.raises(error, match=message):
        ElementCast(**values)
