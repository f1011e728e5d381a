# amaranth: UnusedElaboratable=no
import itertools
from pathlib import Path

import numpy as np
import pytest
from depths import ends

from mxforge.formats import ELEMENTS
from mxforge.pipeline import Streamed
from mxforge.scaled_dot import ScaledDot

DATA = Path(__file__).parent / "data"
NAMES = "a_element", "b_element", "accumulation", "addend", "target", "block_size", "lanes", "stages"

# Each element with each accumulation, on each side; each accumulation with and without addend, in one beat and in several;
# exact with each target.
COVER = [
    ("e4m3", "e4m3", "exact", True, "fp32", 32, 32, 0),
    ("e5m2", "e5m2", "exact", True, "bf16", 32, 8, 12),
    ("e4m3", "e5m2", "exact", False, "fp32", 16, 16, 7),
    ("e3m2", "e4m3", "exact", True, "bf16", 8, 8, 3),
    ("e2m3", "e3m2", "exact", False, "bf16", 8, 1, 5),
    ("e2m1", "mxint8", "exact", True, "fp32", 4, 2, 9),
    ("mxint8", "e2m1", "exact", False, "fp32", 32, 32, 2),
    ("e5m2", "e2m3", "exact", True, "fp32", 1, 1, 14),
    ("e4m3", "e4m3", "blackwell", True, "fp32", 32, 32, 0),
    ("e5m2", "e5m2", "blackwell", True, "fp32", 32, 4, 9),
    ("e4m3", "e5m2", "blackwell", False, "fp32", 32, 8, 4),
    ("e5m2", "e3m2", "blackwell", True, "fp32", 8, 8, 12),
    ("e3m2", "e2m3", "blackwell", False, "fp32", 8, 8, 6),
    ("e2m3", "e2m1", "blackwell", True, "fp32", 16, 1, 1),
    ("e2m1", "mxint8", "blackwell", True, "fp32", 4, 4, 15),
    ("mxint8", "e4m3", "blackwell", False, "fp32", 2, 1, 3),
]


@pytest.mark.parametrize("options", [
    {"stages": 6},
    {"a_element": "e5m2", "block_size": 8, "lanes": 2, "target": "bf16", "stages": 3},
    {"b_element": "mxint8", "block_size": 4, "lanes": 4, "addend": False},
    {"accumulation": "blackwell", "b_element": "e5m2", "block_size": 8, "lanes": 8, "stages": 5},
    {"accumulation": "blackwell", "block_size": 8, "lanes": 2, "stages": 9},
])
def test_bench(simulate, options):
    simulate(Streamed(ScaledDot(**options)), "scaled_dot")


@pytest.mark.parametrize("values", COVER, ids=lambda values: "-".join(map(str, values)))
def test_volume(verify, values):
    hits = verify(ScaledDot(**dict(zip(NAMES, values, strict=True))), 100_000)
    assert all(hits.values()), hits


def test_cover_is_one():
    rows = [dict(zip(NAMES, values, strict=True)) for values in COVER]
    for row in rows:
        row["beats"] = min(2, row["block_size"] // row["lanes"])
    for side in "a_element", "b_element":
        missing = set(itertools.product(ELEMENTS, ("exact", "blackwell"))) - {(row[side], row["accumulation"]) for row in rows}
        assert not missing, f"{side}, accumulation: {missing}"
    choices = {"accumulation": ("exact", "blackwell"), "addend": (True, False), "beats": (1, 2)}
    for a, b in itertools.combinations(choices, 2):
        missing = set(itertools.product(choices[a], choices[b])) - {(row[a], row[b]) for row in rows}
        assert not missing, f"{a}, {b}: {missing}"
    exact = {(row["target"], row["addend"]) for row in rows if row["accumulation"] == "exact"}
    assert exact == set(itertools.product(("fp32", "bf16"), (True, False)))


def depths(**options):
    count = len(ScaledDot(**options).parameters.cuts)
    return [pytest.param(options | {"stages": n}, id="-".join(map(str, [*options.values(), n]))) for n in range(0, count + 1, 8)]


# In one beat and in several.
DEPTHS = [depths(block_size=4, lanes=4), depths(block_size=4, lanes=2, addend=False),
          depths(block_size=4, lanes=4, accumulation="blackwell"), depths(block_size=4, lanes=1, accumulation="blackwell")]


@pytest.mark.parametrize("options", [*itertools.chain(*DEPTHS)])
def test_every_depth(verify, options):
    """With idle and back-pressure, and at full speed."""
    verify(ScaledDot(**options), 5_000, stalls=options["stages"])
    verify(ScaledDot(**options), 5_000)


@pytest.mark.slow
@pytest.mark.parametrize("addend", [True, False])
@pytest.mark.parametrize("lanes", [2, 4])
def test_each_cut(verify_together, lanes, addend):
    """Every number of stages, in one model: each delayed to the latency of the deepest, so that none may miss its own."""
    options = {"block_size": 4, "lanes": lanes, "addend": addend}
    count = len(ScaledDot(**options).parameters.cuts)
    verify_together({f"stages{n}": ScaledDot(**options, stages=n) for n in range(count + 1)}, 30, stalls=lanes)


@pytest.mark.parametrize("options", [*itertools.chain(*map(ends, DEPTHS))])
def test_bare_core(verify, options):
    verify(ScaledDot(**options), 5_000, streamed=False)


@pytest.mark.slow
@pytest.mark.parametrize("lanes", [4, 2])
@pytest.mark.parametrize("accumulation", ["exact", "blackwell"])
@pytest.mark.parametrize(("a", "b"), list(itertools.product(ELEMENTS, ELEMENTS)))
def test_product(verify_together, a, b, accumulation, lanes):
    targets = ("fp32", "bf16") if accumulation == "exact" else ("fp32",)
    verify_together({
        f"{target}_{'c' if addend else 'no_c'}": ScaledDot(
            a_element=a, b_element=b, accumulation=accumulation, target=target, addend=addend, block_size=4, lanes=lanes, stages=3)
        for addend, target in itertools.product((True, False), targets)}, 20_000)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"stages": 6}, {"a_element": "e5m2", "stages": 3}, {"accumulation": "blackwell", "stages": 4}],
                         ids=["exact", "mixed", "blackwell"])
def test_ten_million_blocks(verify, options):
    verify(ScaledDot(**options), 1_000_000, mixed=9)


# NaN of the sample has another code than ours; what is NaN is the same.
def same(got, wanted):
    is_nan = wanted & 0x7FFFFFFF > 0x7F800000
    return np.where(is_nan, got == 0x7FFFFFFF, got == wanted)


@pytest.mark.parametrize(("a_element", "b_element", "accumulation", "addend", "result"), [
    ("e4m3", "e4m3", "exact", False, "exact_rne_noc_k32"),
    ("e5m2", "e5m2", "exact", True, "exact_rne_k32"),
    pytest.param("e4m3", "e5m2", "exact", True, "exact_rne_k32", marks=pytest.mark.slow),
    ("e4m3", "e4m3", "blackwell", True, "mmasim_k32"),
    ("e5m2", "e5m2", "blackwell", True, "mmasim_k32"),
    ("e4m3", "e5m2", "blackwell", True, "mmasim_k32"),
])
def test_published_sample(play, a_element, b_element, accumulation, addend, result):
    with np.load(DATA / "dot_sample.npz") as sample:
        names = "a", "sa", "b", "sb", "c", result, "mmasim_zero_artifact"
        rows = {name: sample[f"{a_element}_{b_element}_{name}"] for name in names}
    inputs = {"a_elements": rows["a"][:, 0], "a_scale": rows["sa"][:, 0],
              "b_elements": rows["b"][:, 0], "b_scale": rows["sb"][:, 0]}
    if addend:
        inputs["c"] = rows["c"]
    unit = Streamed(ScaledDot(a_element=a_element, b_element=b_element, accumulation=accumulation, addend=addend))
    got = play(unit, "scaled_dot", inputs)["result"]
    # The published model lets zeros take part in the choice of the largest exponent; we do not.
    artifact = rows["mmasim_zero_artifact"][:, 0] & (accumulation == "blackwell")
    assert artifact.mean() < 0.5
    wrong = np.flatnonzero(~same(got, rows[result]) & ~artifact)
    assert not len(wrong), f"row {wrong[0]} is {got[wrong[0]]:#x}, expected {rows[result][wrong[0]]:#x}"


@pytest.mark.parametrize(("parameters", "message"), [
    ({"lanes": 64}, "lanes must divide block_size"),
    ({"lanes": 3}, "power of two"),
    ({"a_element": "fp32"}, "a_element must be one of"),
    ({"target": "fp16"}, "target must be one of fp32, bf16"),
    ({"stages": 34}, "stages must be 0 to 33"),
])
def test_refusals(parameters, message):
    with pytest.raises(ValueError, match=message):
        ScaledDot(**parameters)


def test_addend_must_be_boolean():
    with pytest.raises(TypeError, match="addend"):
        ScaledDot(addend=1)
