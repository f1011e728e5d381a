"""Files that a user names: read or refused in one line, written whole or not at all."""
import contextlib
import os
import tempfile
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from ..errors import MxforgeError

__all__ = ["DAMAGED", "check_folder", "check_output", "load_arrays", "replacing", "save_arrays"]

# What NumPy and zipfile raise on files that are cut off, damaged or not what they seem.
DAMAGED = (ValueError, EOFError, SyntaxError, MemoryError, NotImplementedError, RuntimeError, zlib.error, tokenize.TokenError,
           zipfile.BadZipFile)


def check_output(path):
    """``MxforgeError`` unless a file can be written at ``path``: to be asked before the work that it is for."""
    path = Path(path)
    folder = path.absolute().parent
    if not folder.is_dir():
        raise MxforgeError(f"{path} can't be written: there is no directory {path.parent}")
    if path.is_dir():
        raise MxforgeError(f"{path} is a directory; it must be a file")
    _check_takes_files(folder, path)


def check_folder(path):
    """``MxforgeError`` unless files can be written into the directory ``path``, or into one made there."""
    path = Path(path)
    for there in (path, *path.absolute().parents):
        if there.exists():
            if not there.is_dir():
                raise MxforgeError(f"{there} is a file; {path} must be a directory")
            _check_takes_files(there, path)
            return


def _check_takes_files(folder, path):
    """By making one: what the permissions say isn't all, not of /proc nor to root."""
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise MxforgeError(f"{path} can't be written: no file can be made in {folder} ({error.strerror})") from None


@contextlib.contextmanager
def replacing(path):
    """A binary file that becomes ``path`` when all is written; until then, and after an error, ``path`` stays as it was."""
    path = Path(path)
    # Other processes may write the same file.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        with open(unfinished, "wb") as file:
            yield file
        unfinished.replace(path)
    except OSError as error:
        raise MxforgeError(f"{path} can't be written: {error.strerror or error}") from error
    finally:
        unfinished.unlink(missing_ok=True)


def load_arrays(path):
    """The arrays of an .npz file by name."""
    # A file of ours, since NumPy leaves its own open where it fails.
    with open(path, "rb") as file, contextlib.suppress(*DAMAGED):
        arrays = np.load(file, allow_pickle=False)
        if isinstance(arrays, np.lib.npyio.NpzFile):
            with arrays:
                return {name: arrays[name] for name in arrays.files}
    raise MxforgeError(f"{path} must be an .npz file of arrays, as numpy.savez writes it")


def save_arrays(path, arrays):
    """Write arrays as an .npz file."""
    with replacing(path) as file:
        np.savez(file, **arrays)
