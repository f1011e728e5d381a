# amaranth: UnusedElaboratable=no
"""`mxforge matmul`: files in, D out, and one line for each way in which the files can be wrong."""
import re

import ml_dtypes
import numpy as np
import pytest

import mxgolden
from mxbench.safetensors import write_safetensors
from mxforge.flow import matmul


def matrices():
    """A (5, 70), B (70, 9) and a bias: no side is a multiple of a tile's or a block's."""
    rng = np.random.default_rng(11)
    return (rng.standard_normal((5, 70)).astype(np.float32), rng.standard_normal((70, 9)).astype(np.float32),
            rng.standard_normal(9).astype(np.float32))


@pytest.fixture
def folder(tmp_path):
    """What the invocations meet."""
    a, b, c = matrices()
    for name, array in {
            "a": a, "b": b, "c": c, "row": a[0], "cube": a[None], "empty": a[:0], "double": b.astype(np.float64), "short": c[:8],
            "whole": np.arange(4).reshape(2, 2), "square": a[:, :5]}.items():
        np.save(tmp_path / f"{name}.npy", array)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "b.npy").read_bytes()[:-3])
    whole = write_safetensors(tmp_path / "layer.safetensors", {
        "layer.weight": ("BF16", (9, 70), b.T.astype(ml_dtypes.bfloat16).tobytes()), "layer.bias": ("F32", (9,), c.tobytes()),
        "ids": ("I64", (2, 2), bytes(32))})
    (tmp_path / "cut.safetensors").write_bytes(whole.read_bytes()[:-1])
    (tmp_path / "none.safetensors").mkdir()
    return tmp_path


def quantized(values):
    """Blocks of 32 along the last axis as E4M3 under a power of two, by ml_dtypes in float64."""
    blocks = np.pad(values, ((0, 0), (0, -values.shape[1] % 32))).astype(np.float64).reshape(len(values), -1, 32)
    amax = np.abs(blocks).max(axis=-1, keepdims=True)
    scale = np.exp2(np.ceil(np.log2(np.where(amax > 0, amax, 448) / 448)))
    return ((blocks / scale).astype(ml_dtypes.float8_e4m3fn).astype(np.float64) * scale).reshape(len(values), -1)


def test_a_product(folder, mxforge):
    status, out, error = mxforge("matmul", "a.npy", "b.npy", "-o", "d.npy", "--c", "c.npy")
    assert (status, error) == (0, "")
    a, b, c = matrices()
    d = np.load("d.npy")
    assert (d.dtype, d.shape) == (np.float32, (5, 9))
    # FP32 sums of three blocks are as near as this to those of float64.
    wanted = quantized(a) @ quantized(b.T).T + c
    np.testing.assert_allclose(d, wanted, rtol=1e-5, atol=1e-5)
    exact = a.astype(np.float64) @ b + c
    sqnr = 10 * np.log10((exact ** 2).sum() / ((exact - d) ** 2).sum())
    assert f"SQNR against float64: {sqnr:.2f} dB" in out and sqnr > 20
    assert "d.npy: 5 x 9, K = 70; e4m3, fp32_fused; 135 block pairs in 45 beats of a 2 x 2 tile" in out
    # Scales and codes of rows and columns in whole tiles, and the results.
    assert f"{(6 + 10) * 3 * 33 + 45:,} bit patterns compared with golden, 0 mismatches" in out
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith((".", "d"))) == ["d.npy", "double.npy"]


def test_called_from_python_nothing_is_shown(folder, sim_build, capfd):
    result = matmul.run(f"{folder}/a.npy", f"{folder}/b.npy", folder / "d.npy", sim_build)
    assert result.difference is None and np.load(folder / "d.npy").shape == (5, 9) and capfd.readouterr() == ("", "")


def test_tensors_of_a_file(folder, mxforge):
    status, _, error = mxforge("matmul", "a.npy", "layer.safetensors:layer.weight", "--transpose-b",
                               "--c", "layer.safetensors:layer.bias", "-o", "d.npy")
    assert (status, error) == (0, "")
    a, b, c = matrices()
    wanted = quantized(a) @ quantized(b.T.astype(ml_dtypes.bfloat16)).T + c
    np.testing.assert_allclose(np.load("d.npy"), wanted, rtol=1e-5, atol=1e-5)


def test_formats_rules_and_tiles(folder, mxforge):
    status, out, error = mxforge("matmul", "a.npy", "b.npy", "-o", "d.npy", "--a-element", "e5m2", "--scale-rule", "floor",
                                 "--accumulation", "blackwell", "--rows", "1", "--columns", "1", "--jobs", "1")
    assert (status, error) == (0, "")
    assert "e5m2 by e4m3, blackwell; 135 block pairs in 135 beats of a 1 x 1 tile" in out
    a, b, _ = (np.pad(x, ((0, 0), (0, 26))) if x.ndim > 1 else x for x in (matrices()[0], matrices()[1].T, matrices()[2]))
    a_scales, a_codes = mxgolden.quantize(a, element="e5m2", scale_rule="floor")
    b_scales, b_codes = mxgolden.quantize(b, scale_rule="floor")
    wanted = mxgolden.dot(a_codes[:, None], a_scales[:, None], b_codes, b_scales, a_element="e5m2", accumulation="blackwell")
    np.testing.assert_array_equal(np.load("d.npy").view(np.uint32), wanted)


def test_pieces_and_jobs_make_no_difference(folder, mxforge, monkeypatch):
    assert mxforge("matmul", "a.npy", "b.npy", "-o", "d.npy", "--c", "c.npy")[0] == 0
    monkeypatch.setattr(matmul, "BEATS", 1)
    monkeypatch.setattr(matmul, "QUANTIZED", 1)
    assert mxforge("matmul", "a.npy", "b.npy", "-o", "e.npy", "--c", "c.npy", "--jobs", "3")[0] == 0
    assert (folder / "d.npy").read_bytes() == (folder / "e.npy").read_bytes()


@pytest.mark.parametrize(("element", "rule", "tile"), [
    ("e4m3", "rceil", (2, 2)),
    # At 64 two blocks of D from each product; 64 dot units take a minute to build.
    *(pytest.param("e2m1", "floor", (1, columns), marks=pytest.mark.slow) for columns in (4, 64))])
def test_d_as_mx(folder, mxforge, element, rule, tile):
    """40 columns fill two blocks; a tile of 64 columns makes both at once."""
    a, b, c = matrices()
    rng = np.random.default_rng(12)
    b, c = np.concatenate([b, rng.standard_normal((70, 31)).astype(np.float32)], axis=1), np.append(c, rng.standard_normal(31))
    np.save("wide.npy", b)
    np.save("row.npy", c.astype(np.float32))
    common = "--c", "row.npy", "--scale-rule", rule
    status, out, error = mxforge("matmul", "a.npy", "wide.npy", "-o", "d.npz", *common, "--requantize", element,
                                 "--rows", tile[0], "--columns", tile[1])
    assert (status, error) == (0, "")
    assert f"d.npz: 5 x 40, K = 70; e4m3, fp32_fused, D as {element}; 600 block pairs in " in out
    with np.load("d.npz") as d:
        assert set(d.files) == {"scales", "codes"}
        scales, codes = d["scales"], d["codes"]
    assert mxforge("matmul", "a.npy", "wide.npy", "-o", "d.npy", *common)[0] == 0
    wanted = mxgolden.quantize(np.pad(np.load("d.npy"), ((0, 0), (0, 24))), element=element, scale_rule=rule)
    np.testing.assert_array_equal(scales, wanted[0])
    np.testing.assert_array_equal(codes, wanted[1])
    values = mxgolden.dequantize(codes, scales, element).view(np.float32)[:, :40].astype(np.float64)
    exact = a.astype(np.float64) @ b + c.astype(np.float32)
    sqnr = 10 * np.log10((exact ** 2).sum() / ((exact - values) ** 2).sum())
    assert f"SQNR against float64: {sqnr:.2f} dB" in out and sqnr > (25 if element == "e4m3" else 12)
    rows = 5 + -5 % tile[0]
    assert f"{(rows + 64) * 3 * 33 + 5 * 2 * 33:,} bit patterns compared with golden, 0 mismatches" in out


def test_d_as_mx_in_pieces(folder, mxforge, monkeypatch):
    """A row of A with a NaN makes NaN blocks, filled up or not."""
    a = matrices()[0]
    a[2, 69] = np.nan
    np.save("a.npy", a)
    np.save("wide.npy", np.random.default_rng(13).standard_normal((70, 100)).astype(np.float32))
    line = "matmul", "a.npy", "wide.npy", "--requantize", "e5m2", "-o"
    assert mxforge(*line, "d.npz")[0] == 0
    monkeypatch.setattr(matmul, "BEATS", 1)
    status, out, _ = mxforge(*line, "e.npz", "--jobs", "3")
    assert status == 0 and "0 mismatches" in out
    with np.load("d.npz") as d, np.load("e.npz") as e:
        assert d["codes"].shape == (5, 128) and d["scales"].shape == (5, 4)
        assert (d["scales"][2] == 255).all() and (np.delete(d["scales"], 2, 0) < 255).all()
        for name in "scales", "codes":
            np.testing.assert_array_equal(d[name], e[name])


def test_a_planted_mismatch_of_d_as_mx_is_found(folder, mxforge, monkeypatch):
    right = mxgolden.quantize

    def wrong(*arguments, **options):
        scales, codes = right(*arguments, **options)
        scales[0, 0] ^= 1
        codes[1, 33] ^= 1
        return scales, codes

    np.save("wide.npy", np.random.default_rng(13).standard_normal((70, 40)).astype(np.float32))
    monkeypatch.setattr(mxgolden, "quantize", wrong)
    status, out, error = mxforge("matmul", "a.npy", "wide.npy", "-o", "d.npz", "--requantize", "e4m3")
    assert status == 1
    # Three rows of tiles, the last of one row.
    assert error.startswith("mxforge: 5 bit patterns differ from golden, first D, row 0, block 0: the matmul_layer gives 0x")
    assert "5 mismatches" in out


def test_what_is_not_finite_is_told(folder, mxforge):
    a, _, c = matrices()
    a[1, 3], a[1, 40], c[4] = np.nan, -np.inf, np.inf
    np.save("a.npy", a)
    np.save("c.npy", c)
    status, out, _ = mxforge("matmul", "a.npy", "b.npy", "-o", "d.npy", "--c", "c.npy")
    assert status == 0
    assert "A holds 2 NaN or Inf, whose blocks are NaN\nC holds 5 NaN or Inf\n" in out and "B holds" not in out
    d = np.load("d.npy")
    assert np.isnan(d[1]).all() and (d[[0, 2, 3, 4], 4] == np.inf).all() and np.isfinite(np.delete(d[[0, 2, 3, 4]], 4, 1)).all()
    assert re.search(r"SQNR against float64: \d\d\.\d\d dB", out)


def test_a_planted_mismatch_is_found(folder, mxforge, monkeypatch):
    right = mxgolden.dot

    def wrong(*arguments):
        results = right(*arguments).copy()
        results[1, 2] ^= 1
        return results

    monkeypatch.setattr(mxgolden, "dot", wrong)
    status, out, error = mxforge("matmul", "a.npy", "b.npy", "-o", "d.npy")
    assert status == 1
    # One in each row of tiles; the last row is half filling.
    assert error.startswith("mxforge: 2 bit patterns differ from golden, first D, row 1, column 2: the matmul_tile gives 0x")
    assert "2 mismatches" in out
    assert (folder / "d.npy").exists(), "the result is what shows the error"


def test_a_planted_mismatch_of_a_quantizer_is_found(folder, mxforge, monkeypatch):
    from mxgolden import quantizer
    right = quantizer.expected

    def wrong(parameters, inputs):
        outputs = right(parameters, inputs)
        if len(inputs["values"]) == 10 * 3:
            outputs["elements"][4, 5] ^= 1
        return outputs

    monkeypatch.setattr(quantizer, "expected", wrong)
    status, _, error = mxforge("matmul", "a.npy", "b.npy", "-o", "d.npy")
    assert status == 1
    assert error.startswith("mxforge: 1 bit patterns differ from golden, first B, column 1, value 37 of its K: the quantizer gives")


@pytest.mark.parametrize(("line", "answer"), [
    ("a.npy b.npy", "Missing option '-o' / '--output'."),
    ("a.npy -o d.npy", "Missing argument 'B'."),
    ("a.npy missing.npy -o d.npy", "B: missing.npy is missing"),
    ("a.npy notes.txt -o d.npy", "B: weights must be a .safetensors or .npy file, not notes.txt"),
    ("a.npy cut.npy -o d.npy", "B: cut.npy is no whole .npy file of numbers: "),
    ("a.npy cut.safetensors:layer.weight -o d.npy", "B: cut.safetensors is no whole safetensors file: "),
    ("a.npy none.safetensors:layer.weight -o d.npy", "B: none.safetensors is not a file"),
    ("a.npy layer.safetensors -o d.npy", "B: layer.safetensors holds 3 tensors; name one, as layer.safetensors:layer.weight"),
    ("a.npy layer.safetensors:layer.weights -o d.npy", "B: the file has no tensor layer.weights; did you mean layer.weight"),
    ("a.npy layer.safetensors:ids -o d.npy", "B: ids holds I64, not F32, F16, BF16"),
    ("a.npy b.npy:b -o d.npy", "B: weights must be a .safetensors or .npy file, not b.npy:b"),
    ("row.npy b.npy -o d.npy", "A: row must be a matrix, not of shape (70,)"),
    ("a.npy cube.npy -o d.npy", "B: cube must be a matrix, not of shape (1, 5, 70)"),
    ("empty.npy b.npy -o d.npy", "A: empty is empty, of shape (0, 70)"),
    ("a.npy double.npy -o d.npy", "B: double holds float64, not float32, float16"),
    ("whole.npy b.npy -o d.npy", "A: whole holds int64, not float32, float16"),
    ("a.npy square.npy -o d.npy", "A has 70 columns, B 5 rows; they must be as many\n"),
    ("a.npy a.npy -o d.npy", "A has 70 columns, B 5 rows; they must be as many; try --transpose-b\n"),
    ("a.npy b.npy --transpose-b -o d.npy", "A has 70 columns, B 9 rows; they must be as many; leave out --transpose-b\n"),
    ("a.npy b.npy --c short.npy -o d.npy", "C: short must be of shape (5, 9), or (9,) for each row, not (8,)"),
    ("a.npy b.npy --c a.npy -o d.npy", "C: a must be of shape (5, 9), or (9,) for each row, not (5, 70)"),
    ("a.npy b.npy -o none/d.npy", "none/d.npy can't be written: there is no directory none"),
    ("a.npy b.npy -o b.npy", "the result would replace B, b.npy; -o must be another file"),
    ("a.npy b.npy --c c.npy -o c.npy", "the result would replace C, c.npy; -o must be another file"),
    ("a.npy b.npy -o d.npy --element e4m4", "element must be one of e4m3, e5m2, "),
    ("a.npy b.npy -o d.npy --b-element fp32", "b_element must be one of e4m3, e5m2, "),
    ("a.npy b.npy -o d.npy --accumulation fp64", "accumulation must be one of exact, fp32_fused, fp32_chain, blackwell, not"),
    ("a.npy b.npy -o d.npy --scale-rule ocp", "scale_rule must be one of rceil, floor, "),
    ("a.npy b.npy -o d.npz --requantize fp32", "d_element must be one of e4m3, e5m2, "),
    ("a.npy b.npy -o d.npy --requantize e4m3", "-o must be an .npz file with --requantize, for scales and codes, not d.npy\n"),
    ("a.npy b.npy -o d.npz --requantize e4m3 --columns 3", "columns must be a power of two where D is quantized, not 3\n"),
    ("a.npy b.npy -o d.npy --rows 0", "rows must be 1 to 64, not 0"),
    ("a.npy b.npy -o d.npy --rows two", "Invalid value for '--rows': 'two' is not a valid integer."),
    ("a.npy b.npy -o d.npy --jobs 0", "Invalid value for '--jobs': 0 is not in the range x>=1."),
])
def test_wrong_invocations_get_one_line(line, answer, folder, refused):
    refused("matmul", *line.split(), answer=answer)


def test_an_interrupted_run_leaves_nothing(folder, mxforge, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt
    monkeypatch.setattr(matmul, "_played", interrupt)
    before = sorted(folder.iterdir())
    assert mxforge("matmul", "a.npy", "b.npy", "-o", "d.npy")[0] == 130
    assert sorted(folder.iterdir()) == before


def test_the_exact_accumulator_holds_long_products(folder, mxforge, monkeypatch):
    given = []

    def emitted(parameters, *_):
        given.append(parameters.max_blocks)
        raise KeyboardInterrupt
    monkeypatch.setattr(matmul.Hardware, "emitted", emitted)
    for k in 64, 32 * 5000:
        np.save("a.npy", np.zeros((1, k), np.float32))
        mxforge("matmul", "a.npy", "a.npy", "--transpose-b", "-o", "d.npy", "--accumulation", "exact")
    assert given == [4096, 5000]
