# amaranth: UnusedElaboratable=no
import itertools

import golden_reference as reference
import numpy as np
import pytest
from depths import depths_of, ends

import mxgolden.tensor_quantizer
from mxbench.bench import compare
from mxbench.stimulus import tensor_quantizer as stimulus
from mxforge.formats import WIDES
from mxforge.multiply import Multiplier
from mxforge.pipeline import Streamed
from mxforge.tensor_quantizer import FP8, TensorQuantizer

CHOICES = list(itertools.product(WIDES, FP8, ("saturate", "ieee")))
DEPTHS = depths_of(TensorQuantizer.Parameters, "product", Multiplier.PRODUCTS, source="fp16", lanes=5)


@pytest.mark.parametrize("options", [
    {"lanes": 8},
    {"source": "fp16", "element": "e5m2", "overflow": "ieee", "lanes": 3, "stages": 12},
    {"source": "bf16", "lanes": 1, "stages": 3},
])
def test_bench(simulate, options):
    simulate(Streamed(TensorQuantizer(**options)), "tensor_quantizer")


@pytest.mark.parametrize(("source", "element", "overflow"), CHOICES)
def test_volume(verify, source, element, overflow):
    product = "rows" if overflow == "ieee" else "operator"
    unit = TensorQuantizer(source=source, element=element, overflow=overflow, product=product, lanes=4, stages=2)
    hits = verify(unit, 100_000)
    assert all(hits.values()), hits


@pytest.mark.parametrize(("product", "stages"), DEPTHS)
def test_every_depth(verify, product, stages):
    unit = TensorQuantizer(source="fp16", element="e5m2", overflow="ieee", product=product, lanes=5, stages=stages)
    verify(unit, 20_000)
    verify(unit, 20_000, stalls=stages)


@pytest.mark.parametrize(("product", "stages"), ends(DEPTHS))
def test_bare_core(verify, product, stages):
    unit = TensorQuantizer(source="fp16", element="e5m2", overflow="ieee", product=product, lanes=5, stages=stages)
    verify(unit, 20_000, streamed=False)


@pytest.mark.parametrize(("source", "product", "lanes", "stages"), [
    ("bf16", "rows", 1, 12), ("bf16", "rows", 2, 1), ("bf16", "operator", 5, 21), ("fp32", "rows", 5, 25),
    *(pytest.param("bf16", "rows", 64, stages, marks=pytest.mark.slow) for stages in (7, 23)),
])
def test_one_lane_and_many(verify, source, product, lanes, stages):
    """The tree of maxima has no level, one, and more, in which steps share a stage and have one each; all cuts are taken or few."""
    hits = verify(TensorQuantizer(source=source, product=product, lanes=lanes, stages=stages), 50_000)
    assert all(hits.values()), hits


@pytest.mark.parametrize(("source", "element", "overflow"), CHOICES)
def test_golden_is_that_of_fractions(source, element, overflow):
    parameters = {"source": source, "element": element, "overflow": overflow, "lanes": 3}
    inputs = stimulus.blocks(parameters, 400, np.random.default_rng(5))
    outputs = mxgolden.tensor_quantizer.expected(parameters, inputs)
    largest = 0
    for row in range(400):
        scale, values = int(inputs["scale"][row]), inputs["values"][row].tolist()
        for value, code in zip(values, outputs["elements"][row].tolist(), strict=True):
            scaled = reference.multiply(value, scale, source, "fp32", "fp32")
            wanted = reference.round_to_element(reference.wide_value(scaled, "fp32"), scaled >> 31, element, overflow)
            assert code == wanted, (hex(value), hex(scale))
        numbers = [abs(v) for v in (reference.wide_value(value, source) for value in values) if not isinstance(v, str)]
        largest = max(*numbers, 0, *([] if inputs["first"][row] else [largest]), 0)
        assert reference.wide_value(int(outputs["amax"][row]), "fp32") == largest


@pytest.mark.parametrize("source", ["bf16", "fp16"])
def test_every_value(play, verified, source):
    """All codes of the source, under factors that bring its subnormals, its middle and its ends into the element's range."""
    unit = TensorQuantizer(source=source, lanes=4, stages=1)
    factors = np.array([0x3F800000, 0x3F000001, 0x7F7FFFFF, 0x7E012345, 0x43E00000, 0x4F555555, 0x00FFFFFF, 0x00000001, 0xBDCCCCCD])
    values = np.arange(1 << 16, dtype=np.uint16).reshape(-1, 4)
    inputs = {"scale": np.repeat(factors.astype(np.uint32), len(values)), "values": np.tile(values, (len(factors), 1)),
              "first": np.zeros(len(factors) * len(values), np.uint8)}
    got = play(Streamed(unit), "tensor_quantizer", inputs)
    compare(got, mxgolden.tensor_quantizer.expected(vars(unit.parameters), inputs), inputs)
    verified("tensor_quantizer", values=inputs["values"].size,
             exhausted=f"{source}: all 65,536 values under {len(factors)} factors")


def test_amax_starts_anew(play):
    """From reset, and with `first`; the largest is kept until then; what isn't finite doesn't count."""
    values = np.array([1.0, np.inf, 3.0, 2.0, -0.5, np.nan, -7.0], np.float32)
    inputs = {"scale": np.full(7, 0x3F800000, np.uint32), "values": values.view(np.uint32)[:, None],
              "first": np.array([0, 0, 0, 0, 1, 0, 0], np.uint8)}
    got = play(Streamed(TensorQuantizer(lanes=1)), "tensor_quantizer", inputs)
    assert got["amax"].view(np.float32).tolist() == [1, 1, 3, 3, 0.5, 0.5, 7]
    assert got["elements"].ravel().tolist() == [0x38, 0x7E, 0x44, 0x40, 0xB0, 0x7F, 0xCE]


def test_a_tensor_by_its_own_amax(play):
    """Twice through the unit: for amax, and under the factor that follows; the codes are the golden model's of the tensor."""
    x = np.random.default_rng(6).standard_normal((50, 8), dtype=np.float32) * np.float32(0.03)
    first = (np.arange(50) == 0).astype(np.uint8)
    inputs = {"scale": np.full(50, 0x3F800000, np.uint32), "values": x.view(np.uint32), "first": first}
    unit = TensorQuantizer(lanes=8)
    amax = play(Streamed(unit), "tensor_quantizer", inputs)["amax"][-1:].view(np.float32)[0]
    assert amax == np.abs(x).max()
    inputs["scale"][:] = mxgolden.tensor_quantizer.tensor_factor(amax).view(np.uint32)
    codes = play(Streamed(unit), "tensor_quantizer", inputs)["elements"]
    assert (codes == mxgolden.quantize_tensor(x)[1]).all()


@pytest.mark.slow
@pytest.mark.parametrize(("source", "element"), list(itertools.product(WIDES, FP8)))
def test_ten_million_beats(verify, source, element):
    for part in range(10):
        verify(TensorQuantizer(source=source, element=element, lanes=4, stages=3), 1_000_000 + part)


@pytest.mark.parametrize(("values", "error", "message"), [
    ({"element": "e2m1"}, ValueError, "element must be one of e4m3, e5m2, not 'e2m1'"),
    ({"source": "fp8"}, ValueError, "source must be one of fp32, bf16, fp16, not 'fp8'"),
    ({"overflow": "inf"}, ValueError, "overflow must be one of saturate, ieee, not 'inf'"),
    ({"lanes": 1025}, ValueError, "lanes must be 1 to 1024, not 1025"),
    ({"stages": 23}, ValueError, r"stages must be 0 to 22 \(product, result, .*\), not 23"),
])
def test_refuses(values, error, message):
    with pytest.raises(error, match=message):
        TensorQuantizer(**values)
