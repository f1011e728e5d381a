# amaranth: UnusedElaboratable=no
import itertools

import numpy as np
import pytest
from depths import ends

import mxgolden.dequantizer
from mxbench.bench import compare
from mxforge.dequantizer import Dequantizer
from mxforge.formats import ELEMENTS, WIDES
from mxforge.pipeline import Streamed


@pytest.mark.parametrize(("element", "target", "lanes", "stages", "overflow"), [
    ("e4m3", "fp32", 32, 2, "inf"),
    ("e5m2", "fp16", 4, 9, "saturate"),
    ("mxint8", "bf16", 3, 1, "inf"),
    ("e2m1", "bf16", 1, 0, "saturate"),
])
def test_bench(simulate, element, target, lanes, stages, overflow):
    simulate(Streamed(Dequantizer(element=element, target=target, lanes=lanes, stages=stages, overflow=overflow)), "dequantizer")


def every_pair(element, lanes):
    """Beats that show each lane each code under each scale: all offsets of consecutive codes."""
    codes = 1 << ELEMENTS[element].width
    scale, offset = np.divmod(np.arange(256 * codes), codes)
    return {"scale": scale.astype(np.uint8), "elements": ((offset[:, None] + np.arange(lanes)) % codes).astype(np.uint8)}


@pytest.mark.parametrize("overflow", ["inf", "saturate"])
@pytest.mark.parametrize(("element", "target"), list(itertools.product(ELEMENTS, WIDES)))
def test_every_pair_in_every_lane(play, verified, element, target, overflow):
    lanes = 4 if overflow == "saturate" else 32 if element in ("e4m3", "e5m2") else 8
    unit = Dequantizer(element=element, target=target, overflow=overflow, lanes=lanes, stages=2)
    inputs = every_pair(element, unit.parameters.lanes)
    got = play(Streamed(unit), "dequantizer", inputs)
    compare(got, mxgolden.dequantizer.expected(vars(unit.parameters), inputs), inputs)
    pairs = 256 << ELEMENTS[element].width
    verified("dequantizer", values=got["values"].size,
             exhausted=f"{element} to {target}, overflow {overflow}: {pairs:,} pairs of code and scale in each of {lanes} lanes")


DEPTHS = range(len(Dequantizer.CUTS) + 1)
# Cuts of targets that nothing is rounded for.
EXACT = Dequantizer.Parameters(element="e4m3", target="fp32").cuts


@pytest.mark.parametrize("stages", DEPTHS)
def test_every_depth(verify, stages):
    unit = Dequantizer(element="e5m2", target="fp16", lanes=8, stages=stages)
    verify(unit, 20_000, stalls=stages)
    hits = verify(unit, 100_000)
    assert all(hits.values()), hits


@pytest.mark.parametrize(("target", "overflow", "stages"), [
    *(("fp32", "inf", stages) for stages in range(len(EXACT) + 1)), ("fp32", "saturate", len(EXACT)),
    ("bf16", "inf", len(Dequantizer.CUTS)), ("fp16", "saturate", len(Dequantizer.CUTS)),
])
def test_every_depth_of_e4m3(verify, target, overflow, stages):
    unit = Dequantizer(element="e4m3", target=target, overflow=overflow, lanes=2, stages=stages)
    assert unit.latency == stages
    verify(unit, 10_000, stalls=stages)
    verify(unit, 20_000)


def test_exact_targets_have_fewer_cuts():
    assert set(Dequantizer.CUTS) - set(EXACT) == {"shifted", "rounding"}
    assert Dequantizer.Parameters(element="e2m1", target="bf16").cuts == EXACT
    for element, target in itertools.product(("e4m3", "e5m2", "mxint8"), ("bf16", "fp16")):
        assert Dequantizer.Parameters(element=element, target=target).cuts == Dequantizer.CUTS


@pytest.mark.parametrize("stages", ends(DEPTHS))
def test_bare_core(verify, stages):
    verify(Dequantizer(element="e5m2", target="fp16", lanes=8, stages=stages), 20_000, streamed=False)


@pytest.mark.slow
@pytest.mark.parametrize("element", ["e4m3", "e5m2"])
@pytest.mark.parametrize("target", WIDES)
def test_ten_million_blocks(verify, element, target):
    verify(Dequantizer(element=element, target=target, stages=2), 1_000_000, mixed=9)


@pytest.mark.parametrize(("values", "error", "message"), [
    ({"element": "e4m4"}, ValueError, "element must be one of e4m3, e5m2, .*, not 'e4m4'"),
    ({"target": "fp64"}, ValueError, "target must be one of fp32, bf16, fp16, not 'fp64'"),
    ({"lanes": 0}, ValueError, "lanes must be 1 to 1024, not 0"),
    ({"stages": 8}, ValueError, r"stages must be 0 to 7 \(sums, result, elements, added, picked, fine, codes\), not 8"),
    ({"overflow": True}, TypeError, "overflow must be a name, not True"),
])
def test_refuses(values, error, message):
    with pytest.raises(error, match=message):
        Dequantizer(**values)
