# amaranth: UnusedElaboratable=no
from pathlib import Path

import numpy as np
import pytest

from mxforge.pipeline import Streamed
from mxforge.scaled_dot import ScaledDot

DATA = Path(__file__).parent / "data"


# NaN of the sample has another code than ours; what is NaN is the same.
def same(got, wanted):
    is_nan = wanted & 0x7FFFFFFF > 0x7F800000
    return np.where(is_nan, got == 0x7FFFFFFF, got == wanted)


@pytest.mark.parametrize(("a_element", "b_element", "accumulation", "addend", "result"), [
    ("e4m3", "e4m3", "exact", False, "exact_rne_noc_k32"),
    ("e5m2", "e5m2", "exact", True, "exact_rne_k32"),
    ("e4m3", "e5m2", "exact", True, "exact_rne_k32"),
])
def test_published_sample(play, a_element, b_element, accumulation, addend, result):
    with np.load(DATA / "dot_sample.npz") as sample:
        rows = {name: sample[f"{a_element}_{b_element}_{name}"] for name in ("a", "sa", "b", "sb", "c", result)}
    inputs = {"a_elements": rows["a"][:, 0], "a_scale": rows["sa"][:, 0],
              "b_elements": rows["b"][:, 0], "b_scale": rows["sb"][:, 0]}
    if addend:
        inputs["c"] = rows["c"]
    unit = Streamed(ScaledDot(a_element=a_element, b_element=b_element, accumulation=accumulation, addend=addend))
    got = play(unit, "scaled_dot", inputs)["result"]
    wrong = np.flatnonzero(~same(got, rows[result]))
    assert not len(wrong), f"row {wrong[0]} is {got[wrong[0]]:#x}, expected {rows[result][wrong[0]]:#x}"


@pytest.mark.parametrize(("parameters", "message"), [
    ({"lanes": 64}, "lanes must divide block_size"),
    ({"lanes": 3}, "power of two"),
    ({"a_element": "fp32"}, "a_element must be one of"),
    ({"target": "fp16"}, "target must be one of fp32, bf16"),
    ({"stages": 20}, "stages must be 0 to 19"),
])
def test_refusals(parameters, message):
    with pytest.raises(ValueError, match=message):
        ScaledDot(**parameters)


def test_addend_must_be_boolean():
    with pytest.raises(TypeError, match="addend"):
        ScaledDot(addend=1)
