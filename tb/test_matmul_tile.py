# amaranth: UnusedElaboratable=no
import numpy as np
import pytest

import mxgolden
import mxgolden.matmul_tile
from mxbench.stimulus import matmul_tile as stimulus
from mxforge.dot_accumulator import DotAccumulator
from mxforge.emit import emit
from mxforge.matmul_tile import MatmulTile
from mxforge.pipeline import Streamed


@pytest.mark.parametrize("parameters", [
    {"rows": 2, "columns": 3, "block_size": 4, "lanes": 4},
    {"rows": 1, "columns": 2, "block_size": 8, "lanes": 2, "accumulation": "exact", "window": 24, "stages": 5, "slots": 2},
    {"rows": 2, "columns": 1, "block_size": 4, "lanes": 4, "accumulation": "blackwell", "slots": 3, "stages": 11},
])
def test_matmul_tile(simulate, parameters):
    simulate(Streamed(MatmulTile(**parameters)), "matmul_tile")


def cuts(**parameters):
    return len(MatmulTile(**parameters).parameters.cuts)


SMALL = {"block_size": 4, "lanes": 4}
# Each accumulation without and with all of its cuts, and each pair of other choices.
VOLUME = [
    {"rows": 3, "columns": 2, **SMALL},
    {"rows": 2, "columns": 2, "a_element": "e5m2", "b_element": "e2m1", "slots": 13,
     "stages": cuts(a_element="e5m2", b_element="e2m1", **SMALL), **SMALL},
    {"rows": 1, "columns": 4, "block_size": 8, "lanes": 2, "addend": False, "target": "bf16", "stages": 3},
    {"rows": 2, "columns": 2, "accumulation": "fp32_chain", "b_element": "e5m2", "stages": 4, **SMALL},
    {"rows": 2, "columns": 1, "accumulation": "fp32_chain", "block_size": 8, "lanes": 4, "slots": 3,
     "stages": cuts(accumulation="fp32_chain", block_size=8, lanes=4)},
    {"rows": 2, "columns": 2, "accumulation": "exact", "a_element": "e5m2", "max_blocks": 50, **SMALL},
    {"rows": 2, "columns": 2, "accumulation": "exact", "block_size": 8, "lanes": 4, "window": 40, "slots": 2, "target": "bf16",
     "stages": cuts(accumulation="exact", block_size=8, lanes=4)},
    {"rows": 2, "columns": 2, "accumulation": "blackwell", "a_element": "mxint8", "b_element": "e2m3", "addend": False, **SMALL},
    {"rows": 1, "columns": 2, "accumulation": "blackwell", "slots": 4, "stages": cuts(accumulation="blackwell", **SMALL), **SMALL},
]


@pytest.mark.parametrize("parameters", VOLUME)
def test_in_volume(verify, parameters):
    counts = verify(MatmulTile(**parameters), 25_000)
    p = MatmulTile(**parameters).parameters
    # A narrow window's numbers are neither so small nor so large; what rounds each step to FP32 may never see a -0.
    unlikely = ({"-0"} if p.accumulation != "exact" else set()) | ({"Inf", "-0"} if p.window < 200 else set())
    assert all(hits for name, hits in counts.items() if name not in unlikely), counts


def test_under_stalls(verify):
    verify(MatmulTile(rows=2, columns=2, stages=6, **SMALL), 4_000, stalls=5)
    verify(MatmulTile(rows=2, columns=2, accumulation="exact", stages=6, **SMALL), 4_000, streamed=False, stalls=6)


@pytest.mark.parametrize("accumulation", ["fp32_fused", "exact"])
def test_the_cut_at_the_edge(verify, accumulation):
    """The other cuts are tested with the dot accumulator; this one the tile makes."""
    p = MatmulTile(accumulation=accumulation, block_size=2, lanes=2).parameters
    for stages in p.cuts.index("decoded"), p.cuts.index("decoded") + 1:
        verify(MatmulTile(rows=2, columns=1, accumulation=accumulation, block_size=2, lanes=2, stages=stages), 5_000)


@pytest.mark.slow
@pytest.mark.parametrize("accumulation", ["fp32_fused", "fp32_chain", "exact", "blackwell"])
def test_a_million_blocks(verify, accumulation):
    for part in range(4):
        verify(MatmulTile(rows=4, columns=4, accumulation=accumulation, stages=8), 250_000 + part)


def test_a_whole_product(play):
    """Tiles as a user lays them out, against the product of the matrices."""
    rng = np.random.default_rng(3)
    tile = MatmulTile(rows=2, columns=3, block_size=8, lanes=8)
    a, b = rng.standard_normal((4, 40)).astype(np.float32), rng.standard_normal((6, 40)).astype(np.float32)
    c = rng.standard_normal((4, 6)).astype(np.float32)
    (a_scales, a_codes), (b_scales, b_codes) = (mxgolden.quantize(x, block_size=8) for x in (a, b))
    rows = []
    for top in 0, 2:
        for left in 0, 3:
            for block in range(5):
                rows.append({
                    "first": block == 0, "last": block == 4, "a_scales": a_scales[top:top + 2, block],
                    "a_elements": a_codes[top:top + 2, 8 * block:8 * block + 8].ravel(), "b_scales": b_scales[left:left + 3, block],
                    "b_elements": b_codes[left:left + 3, 8 * block:8 * block + 8].ravel(),
                    "c": c[top:top + 2, left:left + 3].ravel().view(np.uint32)})
    got = play(Streamed(tile), "matmul_tile", {name: np.stack([row[name] for row in rows]) for name in rows[0]})["results"]
    got = got.reshape(2, 2, 2, 3).swapaxes(1, 2).reshape(4, 6)
    wanted = mxgolden.dot(a_codes[:, None], a_scales[:, None], b_codes, b_scales, c, accumulation="fp32_fused", block_size=8)
    np.testing.assert_array_equal(got, wanted)
    np.testing.assert_allclose(got.view(np.float32), a.astype(np.float64) @ b.T + c, atol=0.5)


@pytest.mark.parametrize("lanes", [8, 2])
def test_golden_is_a_dot_accumulator_for_each_pair(lanes):
    from mxgolden import dot_accumulator
    p = {**vars(MatmulTile(rows=2, columns=3, block_size=8, lanes=lanes, slots=2).parameters)}
    inputs = stimulus.blocks(p, 500, np.random.default_rng(1))
    results = mxgolden.matmul_tile.expected(p, inputs)["results"].reshape(-1, 2, 3)
    beats = 8 // lanes
    for row in range(2):
        for column in range(3):
            def of(name, count, at):
                return inputs[name].reshape(500, beats, count, -1)[:, :, at]
            one = {"first": inputs["first"], "last": inputs["last"],
                   "a_elements": of("a_elements", 2, row).reshape(500, 8),
                   "b_elements": of("b_elements", 3, column).reshape(500, 8),
                   "a_scale": of("a_scales", 2, row)[:, -1, 0], "b_scale": of("b_scales", 3, column)[:, -1, 0],
                   "c": of("c", 6, 3 * row + column)[:, -1, 0]}
            np.testing.assert_array_equal(results[:, row, column], dot_accumulator.expected(p, one)["result"])


def test_interval_and_latency_are_the_dot_units():
    for stages in range(0, cuts(), 3):
        tile = MatmulTile(stages=stages)
        dot = DotAccumulator(accumulation="fp32_fused", stages=stages)
        assert (tile.latency, tile.interval) == (stages, dot.interval)


def test_verilog_has_each_module_once():
    text = emit(Streamed(MatmulTile(rows=3, columns=3, block_size=2, lanes=2)), "matmul_tile")[0]
    # The first dot unit says when results are there; the others are alike.
    assert sum(line.startswith("module matmul_tile__core__dot") for line in text.splitlines()) == 2
    assert text.count("  matmul_tile__core__dot_0_1 ") == 8


@pytest.mark.parametrize(("parameters", "message"), [
    ({"rows": 0}, "rows must be 1 to 64, not 0"),
    ({"columns": 65}, "columns must be 1 to 64, not 65"),
    ({"lanes": 64}, "lanes must divide block_size"),
    ({"window": 24}, "window must be 254 but for accumulation exact"),
    ({"accumulation": "blackwell", "lanes": 8}, "lanes must be block_size"),
    ({"stages": 34}, r"stages must be 0 to 33 \(sum, aligned, .*, products, decoded, "),
])
def test_refusals(parameters, message):
    with pytest.raises(ValueError, match=message):
        MatmulTile(**parameters)
