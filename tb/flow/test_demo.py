# amaranth: UnusedElaboratable=no
"""The demo on a small file: through Verilator, against figures that are computed here another way."""
import html
import importlib
import io
import json
import math
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import small_minilm
from rich.console import Console

import mxgolden
from mxbench.safetensors import write_safetensors
from mxforge import cli
from mxforge.errors import MxforgeError
from mxforge.flow import demo, weights
from mxforge.flow.checked import Checked
from mxforge.matmul_tile import MatmulTile

ONES = np.float32(1)


def tensors():
    """An ordinary matrix, one with an outlier and a ragged last axis, one of several tiles and ragged axes, BF16, FP16, a NaN,
    an Inf, zeros and integers."""
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
        "tiles.weight": (rng.standard_normal((40, 70)) * np.geomspace(1, 50, 70)).astype(np.float32),
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
    """The run that most tests look at. Its units serve the other runs too, since emitting them takes seconds."""
    from conftest import SIM_BUILD
    built, build = [], demo._build
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "_build", lambda *arguments: built.append(build(*arguments)) or built[0])
        result = run(file, SIM_BUILD, tmp_path_factory.mktemp("report"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "_build", lambda *_: built[0])
        yield result


def reference(array):
    """Blocks of 32, their codes' values under MXFP8 and under one FP32 scale, by ml_dtypes and float64."""
    rows = np.atleast_2d(array.astype(np.float32))
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 32))).reshape(-1, 32)
    finite = np.where(np.isfinite(rows), np.abs(rows), 0).astype(np.float64)
    amax = finite.max(axis=1, keepdims=True)
    scale = np.exp2(np.ceil(np.log2(np.where(amax > 0, amax, 448) / 448)))
    scale[~np.isfinite(rows).all(axis=1)] = np.nan
    one = np.float32(448) / np.float32(amax.max()) if amax.any() else ONES
    e4m3 = ml_dtypes.float8_e4m3fn
    mx = (rows / scale).astype(np.float32).astype(e4m3).astype(np.float64) * scale
    fp8 = (rows * one).astype(e4m3).astype(np.float64) * np.float64(np.float32(1) / one)
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


def test_products(done):
    """Rows times activations, from float64 sums of what the codes stand for."""
    tensor = next(tensor for tensor in done[2]["tensors"] if tensor["name"] == "layer.weight")
    activations = np.random.default_rng(0).standard_normal((1, 96)).astype(np.float32)
    (rows, mx, _), (vector, mx_vector, _) = reference(tensors()["layer.weight"]), reference(activations)
    exact, became = rows.reshape(16, 96) @ vector.ravel(), mx.reshape(16, 96) @ mx_vector.ravel()
    assert tensor["products"] == 16 * 3
    assert tensor["product_sqnr"] == pytest.approx(10 * math.log10((exact ** 2).sum() / ((exact - became) ** 2).sum()), rel=1e-4)
    # Scales, codes and values of the tensor; once more the codes of its rows and of the activations; and the sums.
    assert tensor["check"]["compared"] == 48 * (1 + 32 + 32) + (48 + 3) * 33 + 48


def mx(rows, element):
    """Codes and values in blocks of 32 along the rows, by float64."""
    blocks = rows.reshape(-1, 32)
    largest, dtype = {"e4m3": (448, ml_dtypes.float8_e4m3fn), "mxint8": (127 / 64, None)}[element]
    scale = np.exp2(np.ceil(np.log2(np.abs(blocks).max(axis=1, keepdims=True).clip(2.0 ** -120) / largest)))
    codes = np.rint(64 * blocks / scale) if dtype is None else (blocks / scale).astype(dtype)
    values = scale * (codes / 64 if dtype is None else codes.astype(np.float64))
    return codes.reshape(rows.shape), values.reshape(rows.shape)


@pytest.mark.parametrize("element", ["e4m3", "mxint8"])
def test_two_copies(done, element):
    """Both copies of all tiles at once, from the padded matrix and its transpose."""
    matrix = tensors()["tiles.weight"].astype(np.float64)
    padded = np.pad(matrix, ((0, 24), (0, 26)))
    row_codes, rows = mx(padded, element)
    codes, direct = mx(padded.T.copy(), element)
    again_codes, again = mx(rows.T.copy(), element)
    tensor = next(tensor for tensor in done[2]["tensors"] if tensor["name"] == "tiles.weight")
    copies = tensor["copies"][element]
    assert (copies["tiles"], copies["values"]) == (6, matrix.size)
    for name, copy in ("direct", direct), ("requantized", again):
        sqnr = 10 * math.log10((matrix ** 2).sum() / ((padded.T - copy) ** 2).sum())
        assert copies[f"sqnr_{name}"] == pytest.approx(sqnr, rel=1e-6)
    own = slice(70), slice(40)
    assert copies["same"] == (codes == again_codes)[own].sum() < matrix.size
    assert copies["transposed"] == (codes == row_codes.T)[own].sum() < matrix.size
    assert copies["sqnr_direct"] - copies["sqnr_requantized"] > (1 if element == "mxint8" else -0.1)
    assert f"Column-wise copies in {element.upper()}, 6 tiles: median {copies['sqnr_direct']:.2f} dB from the values" in done[1]


def test_copies_are_of_matrices_with_a_tile(done):
    assert [tensor["name"] for tensor in done[2]["tensors"] if tensor["copies"]] == ["tiles.weight"]


def test_tiles_are_spread(monkeypatch):
    monkeypatch.setattr(demo, "TILES", 5)
    places = demo._tile_places(weights.Tensor("large", "F32", (3200, 3200)))
    assert places.tolist() == [[0, 0], [768, 736], [1568, 1536], [2368, 2336], [3168, 3136]]


def test_the_second_block_is_not_hurt_by_an_outlier_in_the_first(done):
    of = {(example["element"], example["block_size"]): example for example in done[2]["examples"]}
    error = {key: np.abs(np.divide(example["values"], demo.OUTLIER) - 1) for key, example in of.items()}
    assert of["mxint8", 8]["scales"] == [134] and of["mxint8", 4]["scales"] == [134, 127]
    assert (error["mxint8", 8][4:] > 0.3).all() and (error["mxint8", 4][4:] < 0.02).all()
    assert (error["mxint8", 4][:3] == error["mxint8", 8][:3]).all() and (error["mxint8", 4][:3] > 0.6).all()
    # E4M3 has exponents of its own: the same values either way, as the report says.
    assert of["e4m3", 8]["values"] == of["e4m3", 4]["values"]
    assert (error["e4m3", 8] <= 2 ** -4).all()


def test_facts(done):
    facts = done[2]["facts"]
    assert (facts["bits"]["before"], facts["bits"]["after"]) == (2048, 528)
    assert (facts["scales"]["weights"], facts["scales"]["scales"]) == (1_000_000, 31_250)


def test_scales_are_counted(done):
    scales = np.array(done[2]["scales"])
    assert scales.sum() == done[2]["totals"]["blocks"]
    assert scales[255] == 2 and scales[0] == 2


def test_pieces_make_no_difference(file, sim_build, tmp_path, done, monkeypatch):
    monkeypatch.setattr(demo, "PIECE", 64)
    results = run(file, sim_build, tmp_path)[2]
    for whole, pieced in zip(done[2]["tensors"], results["tensors"], strict=True):
        for name in ("name", "blocks", "padding", "not_finite", "lost"):
            assert pieced[name] == whole[name]
        for scheme in ("mx", "fp8"):
            assert pieced[scheme].pop("noise") == pytest.approx(whole[scheme]["noise"])
            assert pieced[scheme] == {name: figure for name, figure in whole[scheme].items() if name != "noise"}
    assert results["scales"] == done[2]["scales"]


def test_chosen_tensors(file, done, sim_build, tmp_path):
    _, said, results = run(file, sim_build, tmp_path, names=["brain", "zeros"])
    assert [tensor["name"] for tensor in results["tensors"]] == ["brain", "zeros"]
    assert "Skipped" not in said


@pytest.mark.parametrize(("unit", "field", "shape", "index", "words"), [
    ("quantizer", "scale", (10,), (7,), "outlier.weight row 3, values 32 to 44: the quantizer gives scale 0x"),
    ("quantizer", "elements", (10, 32), (7, 2), "outlier.weight row 3, value 34: the quantizer gives elements 0x"),
    ("dequantizer", "values", (10, 32), (7, 2), "outlier.weight row 3, value 34: the dequantizer gives values 0x"),
    ("scaled_dot", "result", (16,), (5,), "layer.weight row 5, product of block 0: the scaled_dot gives result 0x"),
    ("dequantizer", "values", (1, 32), (0, 1), "the outlier as e4m3 in blocks of 8, row 0, lane 1: the dequantizer gives values"),
    ("dual_quantizer", "column_elements", (6, 1024), (4, 37), "tiles.weight, e4m3 tile at row 32, column 64, item 37: the "
     "dual_quantizer gives column_elements 0x")])
def test_a_planted_mismatch_is_found(file, done, sim_build, tmp_path, monkeypatch, unit, field, shape, index, words):
    """Golden is made wrong in one bit of E4M3's first play of that shape."""
    golden = importlib.import_module(f"mxgolden.{unit}")
    right, planted = golden.expected, []

    def wrong(parameters, inputs):
        outputs = right(parameters, inputs)
        if outputs[field].shape == shape and not planted and parameters.get("element", "e4m3") == "e4m3":
            planted.append(outputs[field].copy())
            planted[0][index] ^= 1
            outputs = outputs | {field: planted[0]}
        return outputs

    monkeypatch.setattr(golden, "expected", wrong)
    status, said, results = run(file, sim_build, tmp_path)
    assert status == 1
    assert results["mismatches"] == 1
    assert f"Mismatch: {words}" in said
    assert words in html.unescape((tmp_path / "index.html").read_text())


@pytest.fixture
def model(done, tmp_path, sim_build, monkeypatch):
    """A model in the place of the one that is fetched: a small one of the same make."""
    path = small_minilm.write(tmp_path / "m.safetensors", small_minilm.arrays())
    weights.vocabulary_beside(path).write_text("\n".join(small_minilm.PIECES))
    monkeypatch.setattr(weights, "fetch_model", lambda build_dir, say: path)
    monkeypatch.setattr(demo, "SENTENCE", "Unscaleable two-two scales. Two a")
    units = demo._build() | {"matmul_tile": Checked.emitted(MatmulTile(), "matmul_tile", sim_build)}
    monkeypatch.setattr(demo, "_build", lambda *_: units)
    return path


def test_projection(model, sim_build, tmp_path):
    status, said, results = run(None, sim_build, tmp_path / "report")
    assert status == 0
    projection = results["projection"]
    # [CLS] un ##scale ##able two - two scale ##s . two a [SEP]: 13 tokens, of 24 values, by 40 columns.
    assert (projection["tokens"], projection["k"], projection["columns"], projection["tile"]) == (13, 24, 40, [2, 2])
    assert projection["pairs"] == 13 * 40 and projection["beats"] == 7 * 20
    assert projection["check"] == {"compared": (14 + 40) * 33 + 13 * 40, "mismatches": 0, "told": []}
    assert 20 < projection["sqnr"] < 50
    tensors = sum(tensor["check"]["compared"] for tensor in results["tensors"])
    assert results["compared"] == tensors + results["check"]["compared"] + projection["check"]["compared"]
    words = "encoder.layer.0.intermediate.dense on the 13 tokens of a sentence, 24 to 40: 520 block pairs"
    page = html.unescape((tmp_path / "report" / "index.html").read_text())
    assert words in said and words in page and "“Unscaleable two-two scales. Two a”" in page


def test_a_planted_mismatch_of_the_projection_is_found(model, sim_build, tmp_path, monkeypatch):
    right = mxgolden.dot
    monkeypatch.setattr(mxgolden, "dot", lambda *arguments: right(*arguments) ^ np.uint32(1))
    status, said, results = run(None, sim_build, tmp_path / "report")
    assert status == 1
    assert results["mismatches"] == results["projection"]["check"]["mismatches"] == 13 * 40
    assert "Mismatch: encoder.layer.0.intermediate.dense, D, row 0, column 0: the matmul_tile gives 0x" in said


def test_a_file_of_ones_own_has_no_projection(done):
    assert done[2]["projection"] is None and "tokens of a sentence" not in done[1]


def test_interrupted_run_leaves_no_report(file, done, sim_build, tmp_path, monkeypatch):
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
