# amaranth: UnusedElaboratable=no
import itertools

import numpy as np
import pytest
from depths import depths

from mxforge.dual_quantizer import DualQuantizer
from mxforge.formats import ELEMENTS, WIDES
from mxforge.pipeline import Streamed
from mxforge.scale_select import SCALE_RULES

NAMES = "source", "element", "scale_rule", "nan_policy", "rounding", "overflow", "block_size", "stages"

# Each source with each element, rule and rounding; each element with both roundings, each size, both policies, both overflows.
COVER = [
    ("bf16", "e4m3", "rceil", "block", "rne", "saturate", 32, 11),
    ("fp32", "e4m3", "rceil", "element", "stochastic", "ieee", 8, 9),
    ("fp16", "e4m3", "even", "block", "rne", "saturate", 16, 3),
    ("bf16", "e5m2", "ceil", "element", "rne", "saturate", 4, 0),
    ("fp32", "e5m2", "floor", "block", "stochastic", "saturate", 8, 4),
    ("fp16", "e5m2", "floor_plus_1", "element", "rne", "ieee", 2, 6),
    ("bf16", "e3m2", "floor", "block", "stochastic", "saturate", 8, 2),
    ("fp32", "e3m2", "even", "block", "rne", "saturate", 4, 8),
    ("fp16", "e3m2", "rceil", "block", "rne", "saturate", 16, 10),
    ("bf16", "e2m3", "unit", "block", "rne", "saturate", 4, 5),
    ("fp32", "e2m3", "ceil", "block", "rne", "saturate", 2, 1),
    ("fp16", "e2m3", "floor", "block", "stochastic", "saturate", 8, 7),
    ("bf16", "e2m1", "floor_plus_1", "block", "rne", "saturate", 32, 1),
    ("fp32", "e2m1", "unit", "block", "stochastic", "saturate", 4, 3),
    ("fp16", "e2m1", "ceil", "block", "rne", "saturate", 8, 0),
    ("bf16", "mxint8", "even", "block", "rne", "saturate", 8, 6),
    ("fp32", "mxint8", "floor_plus_1", "block", "stochastic", "saturate", 2, 2),
    ("fp16", "mxint8", "unit", "block", "rne", "saturate", 4, 8),
    ("fp32", "e4m3", "floor", "element", "rne", "saturate", 64, 12),
]


def check(verify, options, tiles, **options_of_play):
    hits = verify(DualQuantizer(**options), tiles, **options_of_play)
    assert all(hits.values()), hits


@pytest.mark.parametrize("options", [
    {"source": "bf16", "block_size": 8, "stages": 6},
    {"source": "fp32", "element": "e5m2", "nan_policy": "element", "overflow": "ieee", "block_size": 4, "stages": 8},
    {"source": "fp16", "element": "e2m1", "scale_rule": "floor", "block_size": 2},
    {"source": "bf16", "element": "mxint8", "rounding": "stochastic", "block_size": 4, "stages": 2},
])
def test_bench(simulate, options):
    simulate(Streamed(DualQuantizer(**options)), "dual_quantizer", blocks=300)


@pytest.mark.parametrize("values", [pytest.param(values, marks=pytest.mark.slow if values[6] > 32 else (),
                                                 id="-".join(map(str, values))) for values in COVER])
def test_volume(verify, values):
    options = dict(zip(NAMES, values, strict=True))
    # As many values in large tiles as in small ones, as far as each needs some tiles of a kind.
    check(verify, options, max(2_000, 1_000_000 // options["block_size"] ** 2))


def test_cover_is_one():
    choices = {"source": WIDES, "element": ELEMENTS, "scale_rule": SCALE_RULES, "block_size": (2, 4, 8, 16, 32, 64),
               "nan_policy": ("block", "element"), "overflow": ("saturate", "ieee"), "rounding": ("rne", "stochastic")}
    rows = [dict(zip(NAMES, values, strict=True)) for values in COVER]
    for name, wanted in choices.items():
        assert {row[name] for row in rows} == set(wanted)
    for a, b in ("source", "element"), ("source", "scale_rule"), ("source", "rounding"), ("element", "rounding"):
        missing = set(itertools.product(choices[a], choices[b])) - {(row[a], row[b]) for row in rows}
        assert not missing, f"{a}, {b}: {missing}"


@pytest.mark.parametrize("stages", depths(9))
def test_every_depth(verify, stages):
    """With idle and back-pressure: tiles that wait for each other, and that come without a gap."""
    check(verify, {"source": "bf16", "block_size": 8, "stages": stages}, 8_000, stalls=stages)


@pytest.mark.parametrize(("block_size", "stages"), [(4, 0), (4, 3), (4, 8), (2, 0), (2, 1), (2, 6)])
def test_depths_of_small_tiles(verify, block_size, stages):
    check(verify, {"source": "bf16", "block_size": block_size, "stages": stages}, 8_000, stalls=stages)


@pytest.mark.parametrize(("block_size", "stages"), [(8, 9), (4, 4), (2, 0)])
def test_bare_core(verify, block_size, stages):
    verify(DualQuantizer(source="bf16", block_size=block_size, stages=stages), 8_000, streamed=False)


def test_copies_are_no_transposes_of_each_other(play):
    """One large value spoils the small ones in its row for one copy, in its column for the other."""
    # 1.0625 times E4M3's smallest subnormal, should the scale be that of 448.
    tile = np.full((4, 4), 1.0625 * 2 ** -9, np.float32)
    tile[1, 2] = 448
    outputs = play(Streamed(DualQuantizer(block_size=4)), "dual_quantizer", {"values": tile.view(np.uint32).reshape(1, 16)})
    rows = outputs["row_elements"].reshape(4, 4)
    columns = outputs["column_elements"].reshape(4, 4)
    assert outputs["row_scales"].tolist() == [[110, 127, 110, 110]]
    assert outputs["column_scales"].tolist() == [[110, 110, 127, 110]]
    assert rows[1].tolist() == [1, 1, 0x7E, 1] and columns[2].tolist() == [1, 0x7E, 1, 1]
    # Elsewhere it is 272, a tie between 256 and 288.
    assert set(np.delete(rows, 1, axis=0).ravel()) == set(np.delete(columns, 2, axis=0).ravel()) == {0x78}
    assert (rows != columns.T).sum() == 6


@pytest.mark.slow
@pytest.mark.parametrize(("source", "element", "rule"), list(itertools.product(WIDES, ELEMENTS, SCALE_RULES)))
def test_product(verify, source, element, rule):
    has_nan = ELEMENTS[element].has_nan
    specials = [("block", "saturate"), ("element", "ieee"), ("element", "saturate")] if has_nan else [("block", "saturate")]
    for (policy, overflow), rounding in itertools.product(specials, ("rne", "stochastic")):
        check(verify, {"source": source, "element": element, "scale_rule": rule, "nan_policy": policy, "overflow": overflow,
                       "rounding": rounding, "block_size": 8, "stages": 3}, 30_000)


@pytest.mark.slow
@pytest.mark.parametrize("source", WIDES)
def test_million_rows(verify, source):
    check(verify, {"source": source, "stages": 5}, 1_000_000 // 32)


@pytest.mark.parametrize(("values", "error", "message"), [
    ({"block_size": 48}, ValueError, "block_size must be a power of two, not 48"),
    ({"block_size": 128}, ValueError, "block_size must be 2 to 64, not 128"),
    ({"element": "e3m2", "nan_policy": "element"}, ValueError,
     "nan_policy must be block for e3m2, which has no NaN, not 'element'"),
    ({"element": "e2m1", "overflow": "ieee"}, ValueError, "overflow must be saturate for e2m1, which has no NaN, not 'ieee'"),
    ({"scale_rule": "ocp"}, ValueError, "scale_rule must be one of rceil, floor, ceil, even, floor_plus_1, unit, not 'ocp'"),
    ({"rounding": "up"}, ValueError, "rounding must be one of rne, stochastic, not 'up'"),
    ({"stages": 12}, ValueError, r"stages must be 0 to 11 \(scale, shifted, level_2, keys, .*\), not 12"),
    ({"block_size": 2, "stages": 7}, ValueError, r"stages must be 0 to 6 \(scale, shifted, keys, .*\), not 7"),
    ({"source": 32}, TypeError, "source must be a name, not 32"),
])
def test_refuses(values, error, message):
    with pytest.raises(error, match=message):
        DualQuantizer(**values)
