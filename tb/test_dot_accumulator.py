# amaranth: UnusedElaboratable=no
import itertools
from pathlib import Path

import numpy as np
import pytest
from depths import ends

from mxforge.dot_accumulator import DotAccumulator
from mxforge.formats import ELEMENTS
from mxforge.pipeline import Streamed

DATA = Path(__file__).parent / "data"

@pytest.mark.parametrize("parameters", [
    {"block_size": 8, "lanes": 8, "stages": 14},
    {"block_size": 8, "lanes": 2, "window": 24, "slots": 3, "stages": 4},
    {"a_element": "e2m1", "b_element": "mxint8", "block_size": 4, "lanes": 4, "window": 0, "max_blocks": 5, "addend": False},
    {"block_size": 4, "lanes": 4, "accumulation": "fp32_fused", "stages": 12},
    {"block_size": 8, "lanes": 2, "accumulation": "fp32_chain", "slots": 3, "stages": 20},
    {"block_size": 4, "lanes": 4, "accumulation": "blackwell", "slots": 2, "stages": 10},
])
def test_dot_accumulator(simulate, parameters):
    simulate(Streamed(DotAccumulator(**parameters)), "dot_accumulator")


# Pairs of choices, for which see the test below; every format, both signs of each special value.
EXACT = [
    {"stages": 0},
    {"a_element": "e3m2", "b_element": "e2m3", "block_size": 4, "lanes": 2, "window": 30, "addend": False, "slots": 3, "stages": 3},
    {"a_element": "e5m2", "b_element": "e5m2", "target": "bf16", "slots": 2, "stages": 17},
    {"a_element": "e5m2", "lanes": 8, "slots": 4, "stages": 10, "window": 100, "max_blocks": 50},
    {"b_element": "e3m2", "block_size": 16, "lanes": 1, "window": 40, "target": "bf16", "slots": 2, "stages": 2},
    {"a_element": "e2m3", "b_element": "e2m1", "block_size": 64, "lanes": 64, "max_blocks": 3, "addend": False, "stages": 5},
    {"a_element": "mxint8", "b_element": "mxint8", "block_size": 1, "lanes": 1, "window": 3, "max_blocks": 1, "stages": 8},
    {"a_element": "mxint8", "b_element": "e5m2", "block_size": 8, "lanes": 4, "addend": False, "target": "bf16", "stages": 12},
]


# Wide ones with cuts are slow.
@pytest.mark.parametrize("parameters", [
    pytest.param(parameters, marks=pytest.mark.slow if parameters.get("lanes", 32) >= 32 and parameters["stages"] else ())
    for parameters in EXACT])
def test_exact_in_volume(verify, parameters):
    counts = verify(DotAccumulator(**parameters), 100_000)
    narrow = parameters.get("window", 254) < 200
    # A narrow window's numbers are neither so small nor so large; without c there is no NaN but of elements or scales.
    unlikely = {"Inf", "-0"} if narrow else set()
    assert all(hits for name, hits in counts.items() if name not in unlikely), counts


# Loops of one cycle and of many, with fewer slots, as many and more.
FP32 = [
    {"accumulation": "fp32_fused", "block_size": 8, "lanes": 8},
    {"accumulation": "fp32_fused", "a_element": "e5m2", "block_size": 8, "lanes": 8, "stages": 17, "slots": 11},
    {"accumulation": "fp32_fused", "a_element": "e5m2", "b_element": "e5m2", "block_size": 4, "lanes": 1, "stages": 14,
     "slots": 2, "addend": False},
    {"accumulation": "fp32_chain", "block_size": 8, "lanes": 8, "target": "bf16"},
    {"accumulation": "fp32_chain", "b_element": "e5m2", "block_size": 8, "lanes": 8, "stages": 22, "slots": 10},
    {"accumulation": "fp32_chain", "a_element": "e2m1", "b_element": "e2m3", "block_size": 2, "lanes": 2, "stages": 14,
     "slots": 3},
    {"accumulation": "blackwell", "block_size": 8, "lanes": 8},
    {"accumulation": "blackwell", "block_size": 8, "lanes": 8, "a_element": "e5m2", "stages": 18, "slots": 14},
    {"accumulation": "blackwell", "block_size": 4, "lanes": 4, "a_element": "mxint8", "b_element": "e2m1", "stages": 12,
     "slots": 3, "addend": False},
]


@pytest.mark.parametrize("parameters", FP32)
def test_fp32_in_volume(verify, parameters):
    counts = verify(DotAccumulator(**parameters), 100_000)
    # Without -0 to start from, a chain has none: +0 and -0 make +0. The tensor core has none at all.
    unlikely = set() if parameters["accumulation"] == "fp32_fused" else {"-0"}
    assert all(hits for name, hits in counts.items() if name not in unlikely), counts


def test_cover_is_one():
    """Pairs of choices that the volume tests have."""
    def beats(row):
        return min(2, row.block_size // row.lanes)

    exact = [DotAccumulator(**options).parameters for options in EXACT]
    facts = {"addend": lambda row: row.addend, "target": lambda row: row.target, "is_interleaved": lambda row: row.slots > 1,
             "is_narrow": lambda row: row.window < 254, "beats": beats}
    for (one, first), (other, second) in itertools.combinations(facts.items(), 2):
        assert len({(first(row), second(row)) for row in exact}) == 4, (one, other)
    rows = [*exact, *(DotAccumulator(**options).parameters for options in FP32)]
    for side in "a_element", "b_element":
        assert {getattr(row, side) for row in rows} == set(ELEMENTS)
    for accumulation in "fp32_fused", "fp32_chain", "blackwell":
        some = [row for row in rows if row.accumulation == accumulation]
        assert {row.slots > 1 for row in some} == {row.stages > 0 for row in some} == {True, False}


def depths(**options):
    cuts = DotAccumulator(**options).parameters.cuts
    name = "-".join(map(str, options.values()))
    return [pytest.param(options | {"stages": n}, id=f"{name}-{n}") for n in range(0, len(cuts) + 1, 10)]


DEPTHS = [depths(block_size=4, lanes=2, window=60, slots=2), depths(accumulation="fp32_fused", block_size=4, lanes=2),
          depths(accumulation="fp32_chain", block_size=4, lanes=4, slots=3),
          depths(accumulation="blackwell", block_size=4, lanes=4, slots=2)]


@pytest.mark.parametrize("parameters", [*itertools.chain(*DEPTHS)])
def test_every_depth(verify, parameters):
    """With idle and back-pressure, and at full speed."""
    verify(DotAccumulator(**parameters), 5_000, stalls=parameters["stages"])
    verify(DotAccumulator(**parameters), 5_000)


@pytest.mark.parametrize("options", [
    {"window": 60}, *(pytest.param(options, marks=pytest.mark.slow) for options in (
        {"accumulation": "fp32_fused"}, {"accumulation": "fp32_chain"}, {"accumulation": "blackwell", "block_size": 2}))])
def test_each_cut(verify_together, options):
    """Every number of stages, in one model, with as many slots as the longest loop needs, and several rounds of these."""
    options = {"block_size": 4, "lanes": 2} | options
    parameters = DotAccumulator(**options).parameters
    options["slots"] = -(-(len(parameters.loop) + 1) // parameters.beats)
    count = len(parameters.cuts)
    units = {f"stages{n}": DotAccumulator(**options, stages=n) for n in range(count + 1)}
    assert all(unit.interval == 1 for unit in units.values())
    verify_together(units, max(30, 4 * options["slots"]), stalls=count)


@pytest.mark.parametrize("parameters", [*itertools.chain(*map(ends, DEPTHS))])
def test_bare_core(verify, parameters):
    verify(DotAccumulator(**parameters), 5_000, streamed=False)


def test_interval():
    def interval(**parameters):
        return DotAccumulator(accumulation="fp32_fused", **parameters).interval
    cuts = len(DotAccumulator(accumulation="fp32_fused").parameters.cuts)
    loop = len(DotAccumulator(accumulation="fp32_fused").parameters.loop) + 1
    assert interval() == interval(stages=cuts - loop + 1) == 1
    assert interval(stages=cuts) == loop
    assert interval(stages=cuts, slots=loop) == interval(stages=cuts, slots=loop + 1) == 1
    assert interval(stages=cuts, slots=loop - 1) == 2
    # Several beats a block leave the loop as much more time.
    narrow = DotAccumulator(accumulation="fp32_fused", block_size=8, lanes=2)
    assert interval(stages=len(narrow.parameters.cuts), block_size=8, lanes=2) == -(-(len(narrow.parameters.loop) + 1) // 4)


@pytest.mark.slow
@pytest.mark.parametrize("parameters", [
    {}, {"a_element": "e5m2", "window": 24}, *({"accumulation": name} for name in ("fp32_fused", "fp32_chain", "blackwell"))])
def test_ten_million_blocks(verify, parameters):
    verify(DotAccumulator(stages=12, **parameters), 1_000_000, mixed=9)


# NaN of the sample has another code than ours; what is NaN is the same.
def same(got, wanted):
    is_nan = wanted & 0x7FFFFFFF > 0x7F800000
    return np.where(is_nan, got == 0x7FFFFFFF, got == wanted)


@pytest.mark.parametrize(("accumulation", "result"), [
    ("exact", "exact_rne"), ("fp32_chain", "fp32chain"), ("blackwell", "mmasim")])
@pytest.mark.parametrize("pair", ["e4m3_e4m3", "e5m2_e5m2", "e4m3_e5m2"])
def test_published_sample(play, pair, accumulation, result):
    with np.load(DATA / "dot_sample.npz") as sample:
        rows = {name.removeprefix(f"{pair}_"): sample[name] for name in sample if name.startswith(pair)}
    a, b = pair.split("_")
    unit = Streamed(DotAccumulator(a_element=a, b_element=b, accumulation=accumulation,
                                   lanes=32 if accumulation == "blackwell" else 4))
    count = len(rows["c"])
    # Four block pairs a product; results after two and after four.
    inputs = {
        "first": np.tile(np.uint8([1, 0, 0, 0]), count), "last": np.tile(np.uint8([1, 1, 0, 1]), count),
        "a_scale": rows["sa"].reshape(-1), "a_elements": rows["a"].reshape(-1, 32),
        "b_scale": rows["sb"].reshape(-1), "b_elements": rows["b"].reshape(-1, 32), "c": np.repeat(rows["c"], 4)}
    got = play(unit, "dot_accumulator", inputs)["result"].reshape(-1, 3)
    for n, length in enumerate((32, 64, 128)):
        # The published model lets zeros take part in the choice of the largest exponent; we do not.
        artifact = rows["mmasim_zero_artifact"][:, :length // 32].any(axis=1) & (accumulation == "blackwell")
        assert artifact.mean() < 0.5
        wrong = np.flatnonzero(~same(got[:, n], rows[f"{result}_k{length}"]) & ~artifact)
        assert not len(wrong), f"row {wrong[0]}, K={length} is {got[wrong[0], n]:#x}"


@pytest.mark.parametrize(("parameters", "message"), [
    ({"lanes": 64}, "lanes must divide block_size"),
    ({"window": 255}, "window must be 0 to 254"),
    ({"max_blocks": 0}, "max_blocks must be 1 to"),
    ({"slots": 0}, "slots must be 1 to"),
    ({"target": "fp16"}, "target must be one of fp32, bf16"),
    ({"accumulation": "fp64"}, "accumulation must be one of exact"),
    ({"stages": 21}, "stages must be 0 to 20"),
    ({"accumulation": "fp32_fused", "window": 24}, "window must be 254 but for accumulation exact"),
    ({"accumulation": "blackwell", "target": "bf16"}, "target must be fp32 for accumulation blackwell"),
    ({"accumulation": "blackwell", "lanes": 8}, "lanes must be block_size"),
    ({"accumulation": "fp32_chain", "max_blocks": 2}, "max_blocks must be 4096 but for accumulation exact"),
])
def test_refusals(parameters, message):
    with pytest.raises(ValueError, match=message):
        DotAccumulator(**parameters)
