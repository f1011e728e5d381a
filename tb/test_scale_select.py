# amaranth: UnusedElaboratable=no
import itertools
from dataclasses import asdict

import numpy as np
import pytest
from side_by_side import SideBySide

import mxgolden.scale_select
from mxbench.bench import compare
from mxbench.stimulus import scale_select as stimulus
from mxbench.stimulus.quantizing import amaxes
from mxforge.formats import ELEMENTS
from mxforge.pipeline import Streamed
from mxforge.scale_select import SCALE_RULES, ScaleSelect


@pytest.mark.parametrize("options", [
    {"source": "fp32", "element": "e4m3", "scale_rule": "rceil", "lanes": 4, "stages": 1},
    {"source": "fp16", "element": "e5m2", "scale_rule": "even", "nan_policy": "element", "lanes": 1, "stages": 2},
    {"source": "bf16", "element": "mxint8", "scale_rule": "floor_plus_1", "lanes": 32},
])
def test_bench(simulate, options):
    simulate(Streamed(ScaleSelect(**options)), "scale_select")


def every_rule(source, lanes):
    """Each rule for each element under each NaN policy that it has."""
    for element, rule, policy in itertools.product(ELEMENTS, SCALE_RULES, ("block", "element")):
        if policy == "block" or ELEMENTS[element].has_nan:
            yield f"{element}_{rule}_{policy}", ScaleSelect(
                source=source, element=element, scale_rule=rule, nan_policy=policy, lanes=lanes)


def check_every_rule(play, source, magnitudes, lanes=4):
    units = dict(every_rule(source, lanes))
    inputs = {"amaxes": magnitudes.reshape(-1, lanes)}
    expected = {name: mxgolden.scale_select.expected(asdict(unit.parameters), inputs)["scales"] for name, unit in units.items()}
    compare(play(SideBySide(units), "scale_select", inputs), expected, inputs)
    return len(units) * magnitudes.size


@pytest.mark.parametrize("source", ["bf16", "fp16"])
def test_every_amax_under_every_rule(play, verified, source):
    values = check_every_rule(play, source, np.arange(1 << 15, dtype=np.uint16))
    verified("scale_select", exhausted=f"{source}: all 32,768 magnitudes under every rule, element and policy", values=values)


def test_fp32_thresholds_under_every_rule(play):
    # All exponents at the thresholds, and any.
    mantissas = amaxes("fp32") & 0x7FFFFF
    magnitudes = (np.arange(256)[:, None] << 23 | np.unique(mantissas)).ravel()
    drawn = np.random.default_rng(1).integers(0, 1 << 31, 100_000)
    magnitudes = np.concatenate([magnitudes, amaxes("fp32"), drawn]).astype(np.uint32)
    check_every_rule(play, "fp32", magnitudes[:len(magnitudes) // 4 * 4])


def test_classes():
    for _, unit in every_rule("fp32", 8):
        parameters = asdict(unit.parameters)
        inputs = stimulus.blocks(parameters, 600, np.random.default_rng(1))
        hits = stimulus.classes(parameters, inputs, mxgolden.scale_select.expected(parameters, inputs))
        assert all(hits.values()), (parameters, hits)


@pytest.mark.parametrize("options", [
    {"lanes": 4, "stages": 2},
    {"element": "e5m2", "scale_rule": "even", "nan_policy": "element", "lanes": 2, "stages": 1},
    {"source": "fp16", "element": "e2m1", "scale_rule": "floor", "lanes": 3},
    {"source": "bf16", "element": "mxint8", "scale_rule": "unit", "lanes": 1, "stages": 2},
])
def test_volume(verify, options):
    verify(ScaleSelect(**options), 20_000, stalls=1)
    hits = verify(ScaleSelect(**options), 100_000)
    assert all(hits.values()), hits


@pytest.mark.parametrize(("values", "error", "message"), [
    ({"scale_rule": "round"}, ValueError, "scale_rule must be one of rceil, floor, ceil, even, floor_plus_1, unit, not 'round'"),
    ({"element": "e2m1", "nan_policy": "element"}, ValueError,
     "nan_policy must be block for e2m1, which has no NaN, not 'element'"),
    ({"lanes": True}, TypeError, "lanes must be an integer, not True"),
    ({"stages": 3}, ValueError, r"stages must be 0 to 2 \(scales, keys\), not 3"),
])
def test_refuses(values, error, message):
    with pytest.raises(error, match=message):
        ScaleSelect(**values)
