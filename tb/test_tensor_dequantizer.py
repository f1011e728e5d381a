# amaranth: UnusedElaboratable=no
import itertools

import golden_reference as reference
import numpy as np
import pytest
from depths import depths_of, ends
from side_by_side import SideBySide

import mxgolden.tensor_dequantizer
from mxbench.bench import compare
from mxbench.stimulus import tensor_dequantizer as stimulus
from mxforge.formats import WIDES
from mxforge.multiply import Multiplier
from mxforge.pipeline import Streamed
from mxforge.tensor_dequantizer import TensorDequantizer
from mxforge.tensor_quantizer import FP8

CHOICES = list(itertools.product(FP8, WIDES))


@pytest.mark.parametrize("options", [
    {"lanes": 8, "stages": 2},
    {"element": "e5m2", "target": "fp16", "overflow": "saturate", "lanes": 3, "stages": 8},
    {"target": "bf16", "multiplier": "trimmed", "lanes": 1},
    {"multiplier": "trimmed", "product": "rows", "lanes": 9, "stages": 16},
    {"multiplier": "trimmed", "lanes": 5, "stages": 15},
    {"element": "e5m2", "target": "fp16", "multiplier": "trimmed", "product": "rows", "lanes": 5, "stages": 15},
])
def test_bench(simulate, options):
    simulate(Streamed(TensorDequantizer(**options)), "tensor_dequantizer")


@pytest.mark.parametrize("overflow", ["inf", "saturate"])
@pytest.mark.parametrize(("element", "target"), CHOICES)
def test_volume(verify, element, target, overflow):
    multiplier = "trimmed" if overflow == "saturate" else "fp32"
    unit = TensorDequantizer(element=element, target=target, overflow=overflow, multiplier=multiplier, lanes=4, stages=3)
    hits = verify(unit, 100_000)
    if overflow == "saturate":
        assert hits.pop("overflow") > 0
    assert all(hits.values()), hits


OF_DEPTHS = {"element": "e5m2", "target": "bf16", "lanes": 5}
DEPTHS = [pytest.param(multiplier, *case.values, marks=case.marks) for multiplier in ("fp32", "trimmed")
          for case in depths_of(TensorDequantizer.Parameters, "product", Multiplier.PRODUCTS, multiplier=multiplier, **OF_DEPTHS)]


@pytest.mark.parametrize(("multiplier", "product", "stages"), DEPTHS)
def test_every_depth(verify, multiplier, product, stages):
    unit = TensorDequantizer(multiplier=multiplier, product=product, stages=stages, **OF_DEPTHS)
    verify(unit, 20_000)
    verify(unit, 20_000, stalls=stages)


@pytest.mark.parametrize(("multiplier", "product", "stages"), ends(DEPTHS))
def test_bare_core(verify, multiplier, product, stages):
    unit = TensorDequantizer(multiplier=multiplier, product=product, stages=stages, **OF_DEPTHS)
    verify(unit, 20_000, streamed=False)


@pytest.mark.parametrize("element", FP8)
def test_every_code(play, verified, element):
    """All codes under factors of every exponent, for all targets, overflows, multipliers and products at once."""
    choices = itertools.product(WIDES, ("inf", "saturate"), ("fp32", "trimmed"), Multiplier.PRODUCTS)
    units = {
        "_".join(names): TensorDequantizer(element=element, lanes=1, **dict(zip(
            ("target", "overflow", "multiplier", "product"), names, strict=True))) for names in choices}
    rng = np.random.default_rng(7)
    exponents = np.arange(256, dtype=np.uint32) << 23
    kept = rng.integers(12, 24, 256)
    mantissas = [np.zeros(256, np.uint32), np.full(256, 0x7FFFFF), rng.integers(0, 1 << 23, 256),
                 (rng.integers(0, 1 << 23, 256) >> kept | 1) << kept & 0x7FFFFF]
    scales = np.concatenate([exponents | mantissa.astype(np.uint32) for mantissa in mantissas])
    scale, code = (array.ravel() for array in np.meshgrid(scales, np.arange(256, dtype=np.uint8)))
    inputs = {"scale": scale, "elements": code[:, None]}
    expected = {name: mxgolden.tensor_dequantizer.expected(vars(unit.parameters), inputs)["values"] for name, unit in units.items()}
    compare(play(SideBySide(units), "tensor_dequantizer", inputs), expected, inputs)
    verified("tensor_dequantizer", values=len(units) * len(scale),
             exhausted=f"{element}: all 256 codes under {len(scales):,} factors of all exponents, {len(units)} configurations")


@pytest.mark.parametrize(("element", "target"), CHOICES)
def test_golden_is_that_of_fractions(element, target):
    """And for FP32 it is NumPy's own product."""
    parameters = {"element": element, "target": target, "overflow": "inf", "lanes": 3}
    inputs = stimulus.blocks(parameters, 500, np.random.default_rng(8))
    values = mxgolden.tensor_dequantizer.expected(parameters, inputs)["values"]
    for scale, elements, row in zip(inputs["scale"].tolist(), inputs["elements"].tolist(), values.tolist(), strict=True):
        for code, bits in zip(elements, row, strict=True):
            number = reference.element_value(code, element)
            wide = {"nan": 0x7FFFFFFF, "inf": 0x7F800000, "-inf": 0xFF800000}.get(number)
            if wide is None:
                wide = reference.round_to_wide(abs(number), "fp32") | code >> 7 << 31
            assert bits == reference.multiply(wide, scale, "fp32", "fp32", target), (hex(code), hex(scale))
    if target == "fp32":
        with np.errstate(all="ignore"):
            products = mxgolden.decode(inputs["elements"], element).astype(np.float32) * inputs["scale"].view(np.float32)[:, None]
        assert (np.where(np.isnan(products), np.uint32(0x7FFFFFFF), products.view(np.uint32)) == values).all()


def test_narrow_targets_are_rounded_once(play):
    """The product is just below 259/256, which is halfway in BF16, and FP32 would round it to that."""
    scale = 0x3F6638E3
    exact = 1.125 * float(np.uint32(scale).view(np.float32))
    inputs = {"scale": np.array([scale], np.uint32), "elements": np.array([[0x39]], np.uint8)}
    once, twice = mxgolden.encode(exact, "bf16"), mxgolden.encode(np.float32(exact), "bf16")
    assert (once, twice) == (0x3F81, 0x3F82)
    assert play(TensorDequantizer(target="bf16", lanes=1), "tensor_dequantizer", inputs)["values"].tolist() == [[once]]


@pytest.mark.slow
@pytest.mark.parametrize(("element", "target"), CHOICES)
def test_ten_million_beats(verify, element, target):
    for part in range(10):
        verify(TensorDequantizer(element=element, target=target, lanes=4, stages=2), 1_000_000 + part)


@pytest.mark.parametrize(("values", "error", "message"), [
    ({"element": "mxint8"}, ValueError, "element must be one of e4m3, e5m2, not 'mxint8'"),
    ({"target": "fp8"}, ValueError, "target must be one of fp32, bf16, fp16, not 'fp8'"),
    ({"overflow": "ieee"}, ValueError, "overflow must be one of inf, saturate, not 'ieee'"),
    ({"multiplier": True}, TypeError, "multiplier must be a name, not True"),
    ({"lanes": 0}, ValueError, "lanes must be 1 to 1024, not 0"),
    ({"stages": 17}, ValueError, r"stages must be 0 to 16 \(product, shifted, .*\), not 17"),
    ({"multiplier": "trimmed", "stages": 16}, ValueError, r"stages must be 0 to 15 \(product, .*\), not 16"),
])
def test_refuses(values, error, message):
    with pytest.raises(error, match=message):
        TensorDequantizer(**values)
