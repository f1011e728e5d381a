# amaranth: UnusedElaboratable=no
import itertools

import pytest

from mxforge.formats import ELEMENTS, WIDES
from mxforge.pipeline import Streamed
from mxforge.quantizer import Quantizer
from mxforge.scale_select import SCALE_RULES

NAMES = "source", "element", "scale_rule", "nan_policy", "rounding", "overflow", "block_size", "lanes", "stages"

# Each source with each rule, each element, each policy, rounding and overflow, whole blocks and beats; each element with
# each of these but the rules, which the test of scale_select exhausts for each element.
COVER = [
    ("bf16", "e4m3", "rceil", "block", "rne", "saturate", 32, 32, 0),
    ("fp32", "e4m3", "rceil", "element", "rne", "ieee", 32, 32, 7),
    ("fp32", "e5m2", "rceil", "block", "stochastic", "saturate", 32, 8, 3),
    ("fp16", "e4m3", "even", "block", "rne", "saturate", 16, 16, 11),
    ("bf16", "e5m2", "even", "element", "rne", "ieee", 32, 4, 0),
    ("fp32", "e3m2", "floor", "block", "rne", "saturate", 32, 32, 2),
    ("fp16", "e2m3", "floor", "block", "stochastic", "saturate", 8, 2, 5),
    ("bf16", "e2m1", "floor_plus_1", "block", "rne", "saturate", 32, 1, 7),
    ("fp16", "mxint8", "unit", "block", "rne", "saturate", 64, 16, 1),
    ("fp32", "mxint8", "floor_plus_1", "block", "rne", "saturate", 32, 16, 0),
    ("bf16", "mxint8", "rceil", "block", "stochastic", "saturate", 4, 4, 9),
    ("fp32", "e2m1", "unit", "block", "stochastic", "saturate", 16, 16, 4),
    ("bf16", "e3m2", "ceil", "block", "stochastic", "saturate", 256, 32, 6),
    ("fp16", "e5m2", "ceil", "element", "rne", "saturate", 32, 32, 3),
    ("bf16", "e4m3", "unit", "element", "stochastic", "ieee", 4, 1, 2),
    ("fp32", "e2m3", "even", "block", "stochastic", "saturate", 128, 4, 1),
    ("fp16", "e4m3", "floor", "element", "stochastic", "ieee", 32, 8, 10),
    ("bf16", "e5m2", "floor", "block", "rne", "ieee", 2, 2, 4),
    ("fp16", "e3m2", "rceil", "block", "rne", "saturate", 32, 4, 0),
    ("bf16", "e2m3", "ceil", "block", "rne", "saturate", 16, 16, 2),
    ("fp16", "e2m1", "floor_plus_1", "block", "stochastic", "saturate", 8, 8, 3),
    ("fp32", "e4m3", "ceil", "block", "stochastic", "saturate", 32, 4, 2),
    # Compared and cast at once, bit by bit and by a tree, each with all cuts; one level less without a threshold.
    ("fp32", "e5m2", "rceil", "block", "rne", "saturate", 32, 32, 11),
    ("bf16", "e2m1", "floor_plus_1", "block", "rne", "saturate", 16, 16, 11),
    ("bf16", "e4m3", "rceil", "block", "rne", "saturate", 32, 32, 18),
    ("bf16", "e4m3", "unit", "block", "rne", "saturate", 32, 32, 18),
    ("fp32", "e5m2", "unit", "block", "rne", "saturate", 8, 8, 12),
    ("bf16", "e5m2", "ceil", "block", "rne", "saturate", 256, 256, 24),
    ("fp32", "e2m1", "floor_plus_1", "block", "rne", "saturate", 4, 4, 12),
    ("bf16", "e3m2", "rceil", "block", "rne", "saturate", 8, 8, 13),
    ("fp32", "e2m3", "rceil", "block", "rne", "saturate", 8, 8, 14),
]


def check(verify, options, blocks, **options_of_play):
    hits = verify(Quantizer(**options), blocks, **options_of_play)
    assert all(hits.values()), hits


@pytest.mark.parametrize("options", [
    {"source": "bf16", "stages": 4},
    {"source": "fp32", "element": "e5m2", "nan_policy": "element", "overflow": "ieee", "block_size": 16, "lanes": 4, "stages": 9},
    {"source": "fp16", "element": "e2m1", "scale_rule": "floor", "block_size": 8, "lanes": 1},
    {"source": "bf16", "element": "mxint8", "rounding": "stochastic", "block_size": 4, "lanes": 2, "stages": 2},
])
def test_bench(simulate, options):
    simulate(Streamed(Quantizer(**options)), "quantizer")


@pytest.mark.parametrize("values", [pytest.param(values, marks=pytest.mark.slow if values[6] > 100 else (),
                                                 id="-".join(map(str, values))) for values in COVER])
def test_volume(verify, values):
    options = dict(zip(NAMES, values, strict=True))
    # As many values in large blocks as in small ones.
    check(verify, options, 100_000 * 32 // max(32, options["block_size"]))


def test_cover_is_one():
    """Pairs of choices that the volume test has: all but rules with elements, and what a format refuses."""
    choices = {"source": WIDES, "element": ELEMENTS, "scale_rule": SCALE_RULES}
    rows = [dict(zip(NAMES, values, strict=True)) for values in COVER]
    for a, b in (("source", "element"), ("source", "scale_rule")):
        missing = set(itertools.product(choices[a], choices[b])) - {(row[a], row[b]) for row in rows}
        assert not missing, f"{a}, {b}: {missing}"
    for a in choices:
        for b, values in ("rounding", ("rne", "stochastic")), ("beats", (1, 2)):
            pairs = {(row[a], row[b] if b in row else min(2, row["block_size"] // row["lanes"])) for row in rows}
            missing = set(itertools.product(choices[a], values)) - pairs
            assert not missing, f"{a}, {b}: {missing}"


MOST = {lanes: len(Quantizer(source="bf16", block_size=8, lanes=lanes).parameters.cuts) for lanes in (8, 2, 1)}
FEW = {8: (1, 5, 9, 12, MOST[8]), 2: (1, 3, 4, 8), 1: (0, 7)}


@pytest.mark.parametrize(("lanes", "stages"), [
    pytest.param(lanes, n, marks=() if n in FEW[lanes] else pytest.mark.slow)
    for lanes, most in MOST.items() for n in range(most + 1)])
def test_every_depth(verify, lanes, stages):
    """Blocks of 8, in one beat and in several, with idle and back-pressure."""
    check(verify, {"source": "bf16", "block_size": 8, "lanes": lanes, "stages": stages}, 10_000, stalls=stages)


@pytest.mark.parametrize(("lanes", "stages"), [(8, 11), (8, MOST[8]), (2, 5), (1, 0)])
def test_bare_core(verify, lanes, stages):
    verify(Quantizer(source="bf16", block_size=8, lanes=lanes, stages=stages), 10_000, streamed=False)


@pytest.mark.slow
@pytest.mark.parametrize("lanes", [8, 2])
@pytest.mark.parametrize(("source", "element"), list(itertools.product(WIDES, ELEMENTS)))
def test_product(verify_together, source, element, lanes):
    """All choices together, but for the sizes: up to 48 quantizers of one source and element in one model."""
    specials = [("block", "saturate")]
    if ELEMENTS[element].has_nan:
        specials += [("block", "ieee"), ("element", "ieee"), ("element", "saturate")]
    # The first one's input has the random numbers that all the stochastic ones take.
    verify_together({
        f"{rule}_{policy}_{overflow}_{rounding}": Quantizer(
            source=source, element=element, scale_rule=rule, nan_policy=policy, overflow=overflow, rounding=rounding,
            block_size=8, lanes=lanes, stages=3)
        for rounding, rule, (policy, overflow) in itertools.product(("stochastic", "rne"), SCALE_RULES, specials)}, 2_500)


@pytest.mark.slow
@pytest.mark.parametrize("element", ["e4m3", "e5m2"])
@pytest.mark.parametrize("source", WIDES)
def test_ten_million_blocks(verify, source, element):
    verify(Quantizer(source=source, element=element, stages=3), 1_000_000, mixed=9)


@pytest.mark.parametrize(("values", "error", "message"), [
    ({"block_size": 16}, ValueError, r"lanes must divide block_size \(16\), not 32"),
    ({"block_size": 48}, ValueError, "block_size must be a power of two, not 48"),
    ({"element": "e3m2", "nan_policy": "element"}, ValueError,
     "nan_policy must be block for e3m2, which has no NaN, not 'element'"),
    ({"element": "e2m1", "overflow": "ieee"}, ValueError, "overflow must be saturate for e2m1, which has no NaN, not 'ieee'"),
    ({"scale_rule": "ocp"}, ValueError, "scale_rule must be one of rceil, floor, ceil, even, floor_plus_1, unit, not 'ocp'"),
    ({"stages": 19}, ValueError, r"stages must be 0 to 18 \(keys, level_1, level_2, .*\), not 19"),
    ({"scale_rule": "floor_plus_1", "stages": 19}, ValueError, r"stages must be 0 to 18 \(keys, level_1, .*\), not 19"),
    ({"scale_rule": "floor", "stages": 13}, ValueError, r"stages must be 0 to 12 \(scale, shifted, level_2, .*\), not 13"),
    ({"stages": 1.0}, TypeError, "stages must be an integer, not 1.0"),
])
def test_refuses(values, error, message):
    with pytest.raises(error, match=message):
        Quantizer(**values)
