# amaranth: UnusedElaboratable=no
"""The demo on a small file: through Verilator, against figures that are computed here another way."""
import io
import json
import math
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from rich.console import Console

from mxbench.safetensors import write_safetensors
from mxforge import cli
from mxforge.errors import MxforgeError
from mxforge.flow import demo

ONES = np.float32(1)


def tensors():
    """An ordinary matrix, one with an outlier and a ragged last axis, BF16, FP16, a NaN, an Inf, zeros and integers."""
    rng = np.random.default_rng(7)
    outlier = rng.standard_normal((5, 45)).astype(np.float32)
    outlier[2, 3] = 3e6
    special = rng.standard_normal((3, 64)).astype(np.float32)
    special[0, 1], special[2, 40] = np.nan, -np.inf
    return {
        "layer.weight": rng.standard_normal((16, 96)).astype(np.float32) * np.float32(0.02),
        "outlier.weight": outlier,
        "brain": rng.standard_normal((4, 32)).astype(ml_dtypes.bfloat16),
        "half.bias": rng.standard_normal(33).astype(np.float16),
        "special": special,
        "zeros": np.zeros(64, np.float32),
        "<ids> & $x$": np.arange(4),
    }


FORMATS = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64"}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_safetensors(tmp_path_factory.mktemp("weights") / "small.safetensors", {
        name: (FORMATS[str(array.dtype)], array.shape, array.tobytes()) for name, array in tensors().items()})


def run(file, sim_build, folder, **options):
    said = io.StringIO()
    status = demo.run(file, build_dir=sim_build, report_dir=folder, jobs=2, console=Console(file=said, width=130), **options)
    return status, said.getvalue(), json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def done(file, tmp_path_factory):
    from conftest import SIM_BUILD
    return run(file, SIM_BUILD, tmp_path_factory.mktemp("report"))


def reference(array):
    """Blocks of 32, their codes' values under MXFP8 and under one FP32 scale, by ml_dtypes and float64."""
    rows = np.atleast_2d(array.astype(np.float32))
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 32))).reshape(-1, 32)
    finite = np.where(np.isfinite(rows), np.abs(rows), 0).astype(np.float64)
    amax = finite.max(axis=1, keepdims=True)
    scale = np.exp2(np.ceil(np.log2(np.where(amax > 0, amax, 448) / 448)))
    scale[~np.isfinite(rows).all(axis=1)] = np.nan
    one = np.float32(amax.max()) / np.float32(448) or ONES
    e4m3 = ml_dtypes.float8_e4m3fn
    mx = (rows / scale).astype(np.float32).astype(e4m3).astype(np.float64) * scale
    fp8 = (rows / one).astype(e4m3).astype(np.float64) * np.float64(one)
    return rows.astype(np.float64), mx, fp8


@pytest.mark.parametrize("name", [name for name, array in tensors().items() if array.dtype != np.int64])
def test_figures(done, name):
    rows, mx, fp8 = reference(tensors()[name])
    tensor = next(tensor for tensor in done[2]["tensors"] if tensor["name"] == name)
    counted = np.isfinite(rows) & np.isfinite(mx)
    assert (tensor["blocks"], tensor["values"]) == (len(rows), tensors()[name].size)
    assert tensor["padding"] == rows.size - tensors()[name].size
    assert tensor["not_finite"] == np.count_nonzero(~np.isfinite(rows))
    assert tensor["lost"] == np.count_nonzero(np.isfinite(rows) & ~np.isfinite(mx))
    assert tensor["bytes"] == tensors()[name].nbytes
    assert tensor["mx"]["bytes"] == 33 * len(rows)
    assert tensor["fp8"]["bytes"] == tensors()[name].size + 4
    signal = (rows[counted] ** 2).sum()
    for scheme, became in ("mx", mx), ("fp8", fp8):
        noise = ((rows - became)[counted] ** 2).sum()
        if not signal:
            assert tensor[f"sqnr_{scheme}"] == "nan"
            continue
        # One scheme's products are rounded to FP32 on the way back, which these are not.
        assert tensor[f"sqnr_{scheme}"] == pytest.approx(10 * math.log10(signal / noise), rel=1e-5)
        assert tensor[scheme]["flushed"] == np.count_nonzero((became == 0) & (rows != 0) & counted)


def test_blocks_of_an_outlier_are_alone_in_their_loss(done):
    tensor = next(tensor for tensor in done[2]["tensors"] if tensor["name"] == "outlier.weight")
    assert tensor["mx"]["flushed"] < 64 < tensor["fp8"]["flushed"]


def test_nothing_differs(done):
    status, said, results = done
    assert status == 0
    assert results["mismatches"] == 0
    # Each value once dequantized at least.
    assert results["compared"] >= 32 * results["totals"]["blocks"] > 0
    assert "0 mismatches" in said
    assert "Skipped: <ids> & $x$ holds I64" in said
    assert "half.bias: each row of 33 filled up to whole blocks, 31 zeros" in said
    assert "special: 2 NaN or Inf, 62 other values lost" in said
    assert said.rstrip().endswith("index.html")


def test_scales_are_counted(done):
    scales = np.array(done[2]["scales"])
    assert scales.sum() == done[2]["totals"]["blocks"]
    assert scales[255] == 2 and scales[0] == 2


def test_pieces_make_no_difference(file, sim_build, tmp_path, done, monkeypatch):
    monkeypatch.setattr(demo, "PIECE", 64)
    results = run(file, sim_build, tmp_path)[2]
    for whole, pieced in zip(done[2]["tensors"], results["tensors"], strict=True):
        for name in ("name", "blocks", "padding", "not_finite", "lost", "check"):
            assert pieced[name] == whole[name]
        for scheme in ("mx", "fp8"):
            assert pieced[scheme].pop("noise") == pytest.approx(whole[scheme]["noise"])
            assert pieced[scheme] == {name: figure for name, figure in whole[scheme].items() if name != "noise"}
    assert results["scales"] == done[2]["scales"]


def test_chosen_tensors(file, sim_build, tmp_path):
    _, said, results = run(file, sim_build, tmp_path, names=["brain", "zeros"])
    assert [tensor["name"] for tensor in results["tensors"]] == ["brain", "zeros"]
    assert "Skipped" not in said


def test_a_planted_mismatch_is_found(file, sim_build, tmp_path, monkeypatch):
    from mxgolden import dequantizer
    right = dequantizer.expected

    def wrong(parameters, inputs):
        values = right(parameters, inputs)["values"].copy()
        if len(values) == 10:           # outlier.weight: 5 rows of 2 blocks
            values[7, 2] ^= 1
        return {"values": values}

    monkeypatch.setattr(dequantizer, "expected", wrong)
    status, said, results = run(file, sim_build, tmp_path)
    assert status == 1
    assert results["mismatches"] == 1
    assert "Mismatch: outlier.weight row 3, value 34: the dequantizer gives values 0x" in said
    assert "outlier.weight row 3, value 34" in (tmp_path / "index.html").read_text()


def test_interrupted_run_leaves_no_report(file, sim_build, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt
    monkeypatch.setattr(demo, "_examine", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(file, sim_build, tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_wrong_input_is_refused_before_anything_is_built(tmp_path):
    with pytest.raises(MxforgeError, match="missing"):
        demo.run(tmp_path / "none.safetensors", build_dir=tmp_path / "build", console=Console(file=io.StringIO()))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("options", "status", "answer"), [
    (["--weights", "none.safetensors"], 2, "mxforge: none.safetensors is missing"),
    (["--weights", "FILE", "--tensor", "layer"], 2, "mxforge: the file has no tensor layer; did you mean layer.weight?"),
    (["--weights", "FILE", "--tensor", "<ids> & $x$"], 2, "mxforge: <ids> & $x$ holds I64, not F32, F16, BF16"),
    (["--weights", "FILE", "--jobs", "0"], 2, "mxforge: Invalid value for '--jobs': 0 is not in the range x>=1."),
    (["--weights", "pyproject.toml"], 2, "mxforge: weights must be a .safetensors or .npy file, not pyproject.toml")])
def test_wrong_command_lines(file, capsys, tmp_path, monkeypatch, options, status, answer):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["demo", *(str(file) if option == "FILE" else option for option in options)]) == status
    said = capsys.readouterr()
    assert said.err == f"{answer}\n" and not said.out
    assert not list(tmp_path.iterdir())


def test_command_line_gives_the_status(monkeypatch, file):
    given = []
    monkeypatch.setattr(demo, "run", lambda *arguments: given.append(arguments) or 1)
    assert cli.main(["demo", "--weights", str(file), "--tensor", "a", "--tensor", "b", "--report", "r", "--jobs", "3"]) == 1
    assert given == [(file, ("a", "b"), Path("sim_build"), Path("r"), 3)]
