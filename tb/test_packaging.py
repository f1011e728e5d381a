"""Wheel and sdist carry all that users need."""
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def tracked(folder):
    """Files of ``folder`` that belong to the project, relative to it."""
    listed = subprocess.run(["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return {str(Path(path).relative_to(folder)) for path in listed}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", folder], cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl")), next(folder.glob("*.tar.gz"))


def test_wheel_holds_each_package_whole(built):
    with zipfile.ZipFile(built[0]) as wheel:
        names = set(wheel.namelist())
    for package, folder in (("mxforge", "rtl/mxforge"), ("mxgolden", "tb/mxgolden"), ("mxbench", "tb/mxbench")):
        missing = {f"{package}/{path}" for path in tracked(folder)} - names
        assert not missing, missing
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "mxforge/flow/measured.json" in names


def test_sdist_holds_the_project(built):
    with tarfile.open(built[1]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    for path in ("LICENSE", "README.md", "Makefile", "pyproject.toml", "tb/conftest.py", "rtl/mxforge/formats.py"):
        assert path in names
    assert not any(name.startswith(("sim_build/", ".venv")) for name in names)


def test_wheel_runs_without_the_source(built, tmp_path):
    site = tmp_path / "site"
    with zipfile.ZipFile(built[0]) as wheel:
        wheel.extractall(site)
    code = ("import mxforge, mxgolden, mxbench, mxforge.emit; print(mxforge.__file__, mxgolden.__file__, mxbench.__file__); "
            "from mxforge.flow import figures; print(len(figures.document()))")
    *found, count = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(site)},
                                   capture_output=True, text=True, check=True).stdout.split()
    assert all(path.startswith(str(site)) for path in found), found
    assert int(count) == len(json.loads((ROOT / "docs" / "measured.json").read_text())) > 0
