# amaranth: UnusedElaboratable=no
import golden_reference as reference
import numpy as np
import pytest
from depths import depths_of, ends

import mxgolden.fp32_multiplier
from mxbench.bench import compare
from mxbench.stimulus import fp32_multiplier as stimulus
from mxforge.fp32_multiplier import FP32Multiplier
from mxforge.multiply import Multiplier
from mxforge.pipeline import Streamed

DEPTHS = depths_of(FP32Multiplier.Parameters, "product", Multiplier.PRODUCTS)


@pytest.mark.parametrize(("product", "lanes", "stages"), [("operator", 1, 0), ("operator", 4, 8), ("rows", 2, 19)])
def test_bench(simulate, product, lanes, stages):
    simulate(Streamed(FP32Multiplier(product=product, lanes=lanes, stages=stages)), "fp32_multiplier")


def by_numpy(a, b):
    """NumPy's own float32 products, with our NaN."""
    with np.errstate(all="ignore"):
        products = a.view(np.float32) * b.view(np.float32)
    assert products.dtype == np.float32
    return np.where(np.isnan(products), np.uint32(0x7FFFFFFF), products.view(np.uint32))


def every_pair_of_exponents(rng, rounds):
    """Factors of all 65,536 pairs of exponent codes, with mantissas at the ends, of few bits, and any."""
    a, b = (code.ravel().astype(np.uint32) << 23 for code in np.meshgrid(np.arange(256), np.arange(256)))

    def mantissas(kind):
        drawn = rng.integers(0, 1 << 23, len(a), dtype=np.uint32)
        kept = rng.integers(0, 23, len(a), dtype=np.uint32)
        few = (drawn >> kept | np.uint32(1)) << kept & np.uint32(0x7FFFFF)
        return [np.zeros_like(a), np.full_like(a, 0x7FFFFF), np.ones_like(a), few, drawn][kind]

    def signs():
        return rng.integers(0, 2, len(a), dtype=np.uint32) << 31

    pairs = [(i, j) for i in range(5) for j in range(5)] * rounds
    return {"a": np.stack([a | mantissas(i) | signs() for i, _ in pairs], axis=1),
            "b": np.stack([b | mantissas(j) | signs() for _, j in pairs], axis=1)}


@pytest.mark.parametrize("product", Multiplier.PRODUCTS)
def test_every_pair_of_exponents(play, verified, product):
    inputs = every_pair_of_exponents(np.random.default_rng(1), 1)
    lanes = inputs["a"].shape[1]
    wanted = {"products": by_numpy(inputs["a"], inputs["b"])}
    compare(mxgolden.fp32_multiplier.expected({"lanes": lanes}, inputs), wanted, inputs)
    inputs = {name: array.reshape(-1, 5) for name, array in inputs.items()}
    got = play(Streamed(FP32Multiplier(product=product, lanes=5, stages=4)), "fp32_multiplier", inputs)
    compare(got, {"products": wanted["products"].reshape(-1, 5)}, inputs)
    verified("fp32_multiplier", values=got["products"].size,
             exhausted=f"{product}: all 65,536 pairs of exponents, with {lanes} pairs of mantissas each")


def test_golden_is_numpys_and_that_of_fractions():
    rng = np.random.default_rng(2)
    inputs = stimulus.blocks({"lanes": 4}, 200_000, rng)
    golden = mxgolden.fp32_multiplier.expected({"lanes": 4}, inputs)
    compare(golden, {"products": by_numpy(inputs["a"], inputs["b"])}, inputs)
    rows = zip(*(array[:2000].ravel().tolist() for array in (inputs["a"], inputs["b"], golden["products"])), strict=True)
    for a, b, product in rows:
        assert reference.multiply(a, b, "fp32", "fp32", "fp32") == product, (hex(a), hex(b))


@pytest.mark.parametrize(("a", "b", "product"), [
    # The largest subnormal and the smallest normal meet: (2 - 2^-23) 2^-127 is halfway, and even is above.
    (0x3F7FFFFF, 0x00800000, 0x00800000),
    (0x3F7FFFFE, 0x00800000, 0x007FFFFF),
    # 2^-150 is half of the smallest, what is above it rounds up; 2^-64 times 2^-73.
    (0x00000001, 0x3F000000, 0x00000000),
    (0x00000001, 0xBF000001, 0x80000001),
    (0x1F800000, 0x1B000000, 0x00001000),
    # The largest number times what is just above 1, and times half.
    (0x7F7FFFFF, 0x3F800001, 0x7F800000),
    (0x7F7FFFFF, 0x3F000000, 0x7EFFFFFF),
    # 1.5 and 4.5 last places: ties with the even number above, and below.
    (0x3FC00000, 0x3F800001, 0x3FC00002),
    (0x3FC00000, 0x3F800003, 0x3FC00004),
    # A subnormal, normal again.
    (0x00000001, 0x7F000000, 0x34800000),
    (0x807FFFFF, 0x4B000000, 0x8BFFFFFE),
    (0x7F800000, 0x80000000, 0x7FFFFFFF),
    (0xFF800000, 0x00000001, 0xFF800000),
    (0x7F800001, 0x00000000, 0x7FFFFFFF),
    (0x80000000, 0x7F7FFFFF, 0x80000000),
])
def test_by_hand(play, a, b, product):
    inputs = {"a": np.array([[a], [b]], np.uint32), "b": np.array([[b], [a]], np.uint32)}
    wanted = {"products": np.array([[product], [product]], np.uint32)}
    compare(mxgolden.fp32_multiplier.expected({"lanes": 1}, inputs), wanted, inputs)
    compare({"products": by_numpy(inputs["a"], inputs["b"])}, wanted, inputs)
    compare(play(FP32Multiplier(), "fp32_multiplier", inputs), wanted, inputs)


@pytest.mark.parametrize(("product", "stages"), DEPTHS)
def test_every_depth(verify, product, stages):
    unit = FP32Multiplier(product=product, lanes=2, stages=stages)
    verify(unit, 20_000, stalls=stages)
    hits = verify(unit, 200_000)
    assert all(hits.values()), hits


@pytest.mark.parametrize(("product", "stages"), ends(DEPTHS))
def test_bare_core(verify, product, stages):
    verify(FP32Multiplier(product=product, lanes=2, stages=stages), 20_000, streamed=False)


@pytest.mark.slow
@pytest.mark.parametrize("product", Multiplier.PRODUCTS)
def test_a_hundred_million(verify, product):
    for part in range(25):
        verify(FP32Multiplier(product=product, lanes=4, stages=3), 1_000_000 + part)


@pytest.mark.slow
@pytest.mark.parametrize("product", Multiplier.PRODUCTS)
def test_many_mantissas_of_every_pair_of_exponents(play, product):
    for seed in range(8):
        inputs = every_pair_of_exponents(np.random.default_rng(100 + seed), 1)
        wanted = {"products": by_numpy(inputs["a"], inputs["b"])}
        compare(play(FP32Multiplier(product=product, lanes=25, stages=3), "fp32_multiplier", inputs), wanted, inputs)


@pytest.mark.parametrize(("values", "error", "message"), [
    ({"lanes": 0}, ValueError, "lanes must be 1 to 1024, not 0"),
    ({"lanes": 2.0}, TypeError, "lanes must be an integer, not 2.0"),
    ({"product": "booth"}, ValueError, "product must be one of operator, rows, not 'booth'"),
    ({"stages": 17}, ValueError, r"stages must be 0 to 16 \(product, shifted, .*\), not 17"),
    ({"product": "rows", "stages": 20}, ValueError, r"stages must be 0 to 19 \(product, shifted, .*\), not 20"),
])
def test_refuses(values, error, message):
    with pytest.raises(error, match=message):
        FP32Multiplier(**values)
