"""What is said of weights, on small ones, against ml_dtypes; and what units are given of them."""
import importlib

import ml_dtypes
import numpy as np
import pytest
import small_minilm

import mxgolden
from mxforge.errors import MxforgeError
from mxforge.flow import claims, weights


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A small model, whose matrix ``big.weight`` has as many blocks as are taken of each, and some whose blocks lie far apart."""
    path = tmp_path / "model.safetensors"
    arrays = small_minilm.arrays()
    rng = np.random.default_rng(4)
    arrays["embeddings.position_embeddings.weight"] = rng.standard_normal((32, small_minilm.WIDTH)).astype(np.float32)
    spread = np.geomspace(1, 1e6, 200).astype(np.float32)[:, None]
    arrays["big.weight"] = rng.standard_normal((200, 64)).astype(np.float32) * spread
    small_minilm.write(path, arrays)
    weights.vocabulary_beside(path).write_text("\n".join(small_minilm.PIECES) + "\n")
    monkeypatch.setattr(weights, "fetch_model", lambda build_dir, say: path)
    return claims.Source(tmp_path, print)


def by_ml_dtypes(values, factors):
    """E4M3 under FP32 factors."""
    scaled = np.clip(values * factors, -448, 448).astype(np.float32)
    return scaled.astype(ml_dtypes.float8_e4m3fn)


def test_accuracy(source):
    found = claims.accuracy(source)
    assert (found["source"], found["tensors"], found["matrices"]) == (weights.MODEL_NAME, len(source.tensors), 1)
    values = {tensor.name: tensor.fp32() for tensor in source.tensors}
    assert found["values"] == sum(array.size for array in values.values())
    assert found["scale_bytes"]["fp32_tensor"] == 4 * len(values) and found["scale_bytes"]["fp32_32"] == 4 * found["blocks"]
    assert found["blocks"] == sum(len(array) * -(-array.shape[1] // 32) for array in values.values())
    big = values["big.weight"]
    zeroed, kept = {"mx": 0, "fp8": 0}, {}
    for name, array in values.items():
        blocks = np.pad(array, ((0, 0), (0, -array.shape[1] % 32))).reshape(-1, 32)
        amax = np.abs(blocks).max(axis=1, keepdims=True)
        exponents = np.ceil(np.log2(amax / 448, where=amax > 0, out=np.zeros_like(amax)))
        factor = np.float32(448) / amax.max() if amax.max() else np.float32(1)
        for scheme, factors in ("mx", np.exp2(-exponents).astype(np.float32)), ("fp8", factor):
            codes = by_ml_dtypes(blocks, factors)
            zeroed[scheme] += np.count_nonzero((blocks != 0) & (codes.astype(np.float32) == 0))
            if name == "big.weight":
                kept[scheme] = 10 * np.log10(np.square(big).sum() / np.square(blocks - codes.astype(np.float32) / factors).sum())
    for scheme in zeroed:
        assert found[scheme]["zeroed"] == zeroed[scheme]
        assert found[scheme]["sqnr"] == pytest.approx(kept[scheme], abs=0.01)
    assert found["fp8"]["zeroed"] > found["mx"]["zeroed"]


def test_outliers(source):
    found = claims.outliers(source)
    assert found["matrix"] == "big.weight" and [row["octaves"] for row in found["rows"]] == list(claims.RAISED)
    shares = [row["fp8"]["zeroed"] for row in found["rows"]]
    assert shares == sorted(shares) and shares[-1] > shares[0]
    # Only the block of the value itself is touched.
    assert all(0 <= row["mx"]["zeroed"] - found["rows"][0]["mx"]["zeroed"] <= 100 * 31 / (200 * 64 - 1) for row in found["rows"])
    assert found["activations"]["spread"] > 1 and found["activations"]["mx"]["sqnr"] > 20


@pytest.mark.parametrize(("unit", "lanes"), [("dequantizer", 32), ("dequantizer", 1), ("tensor_dequantizer", 32),
                                             ("fp32_multiplier", 1)])
def test_units_are_given_the_weights(unit, lanes, source):
    """What they make of them is near to the weights."""
    values = next(tensor for tensor in source.tensors if tensor.name == "big.weight").fp32().reshape(-1, 32)[:claims.BLOCKS]
    parameters = {"lanes": lanes, "element": "e4m3", "target": "fp32", "overflow": "inf"}
    streams = claims.streams(unit, lanes, source)
    assert list(streams) == (["e8m0"] if unit == "dequantizer" else ["fp32", "tensor"])
    for name, inputs in streams.items():
        (became,) = importlib.import_module(f"mxgolden.{unit}").expected(parameters, inputs).values()
        assert mxgolden.sqnr(values, became.view(np.float32).reshape(values.shape)) > (25 if name != "tensor" else 10)
    if unit != "dequantizer":
        second = "b" if unit == "fp32_multiplier" else "scale"
        assert len(np.unique(streams["tensor"][second])) == 1 < len(np.unique(streams["fp32"][second]))


def test_without_a_model(tmp_path, monkeypatch):
    def offline(build_dir, say):
        raise MxforgeError("the demo's model can't be fetched (offline?)")

    monkeypatch.setattr(weights, "fetch_model", offline)
    said = []
    source = claims.Source(tmp_path, said.append)
    assert said == ["the demo's model can't be fetched (offline?)"] and source.words == "a matrix of normal values, seed 0"
    found = claims.accuracy(source)
    assert found["source"] == source.words and found["matrices"] == 1 and 31 < found["mx"]["sqnr"] < 32
    assert claims.outliers(source)["activations"] is None
