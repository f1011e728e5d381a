# amaranth: UnusedElaboratable=no
import io
import json

import numpy as np
import pytest
from rich.console import Console

from mxbench import verilator
from mxbench.verilator import ToolError
from mxforge import cli
from mxforge.emit import emit
from mxforge.errors import MxforgeError
from mxforge.flow import exhaustive
from mxforge.flow.exhaustive import Counted, Pairs

PAIRS = Pairs(unit="dequantizer", field="elements", width=4, rotated=True,
              parameters={"element": "e2m1", "target": "fp16", "overflow": "inf", "lanes": 32})


def test_counts_every_value_once():
    sweep = Counted(unit="element_cast", field="values", width=10, fixed={"scale": 7}, parameters={"lanes": 8})
    halves = [sweep.inputs(0, 50), sweep.inputs(50, sweep.rows)]
    values = np.concatenate([half["values"] for half in halves])
    assert np.array_equal(values.reshape(-1), np.arange(1024))
    assert (halves[0]["scale"] == 7).all() and len(halves[0]["scale"]) == 50


def test_a_sample_meets_all_low_bits_and_all_exponents():
    sweep = Counted(unit="scale_select", field="amaxes", width=31, parameters={"lanes": 32}, step=exhaustive.QUICK_STEP)
    values = sweep.inputs(0, sweep.rows)["amaxes"].reshape(-1)
    assert len(values) >= (1 << 31) // exhaustive.QUICK_STEP
    assert len(np.unique(values & 0xffff)) == 1 << 16
    assert len(np.unique(values >> 23)) == 256


def test_pairs():
    every_lane = PAIRS.inputs(0, PAIRS.rows)
    for lane in range(32):
        pairs = every_lane["scale"].astype(int) << 4 | every_lane["elements"][:, lane]
        assert np.array_equal(np.sort(pairs), np.arange(256 << 4))
    once = Pairs(unit="element_cast", field="values", width=10, parameters={"lanes": 8})
    inputs = once.inputs(0, once.rows)
    pairs = (inputs["scale"].astype(int)[:, None] << 10 | inputs["values"]).reshape(-1)
    assert np.array_equal(np.sort(pairs), np.arange(256 << 10))


def test_what_is_swept():
    names = [str(sweep) for sweep in exhaustive.sweeps()]
    assert len(set(names)) == len(names) == 6 * 3 * 2 + 2 * 6 + 7 + 8 + 2 * 6
    for scale in (0, 1, 10, 11, 127, 247, 254):
        assert f"element_cast fp32 e4m3 scale={scale}" in names
    for scale in (0, 1, 17, 18, 127, 240, 247, 254):
        assert f"element_cast fp32 e5m2 scale={scale}" in names
    totals = {}
    for sweep in exhaustive.sweeps():
        totals[sweep.unit] = totals.get(sweep.unit, 0) + sum(
            sweep.values(stop - start) for start, stop in exhaustive._pieces(sweep))
    assert totals["element_cast"] == 15 * 2**32 + 12 * 2**24
    assert totals["scale_select"] == 12 * 2**31


@pytest.fixture
def build_dir(tmp_path, sim_build):
    """A fresh ledger, with the tests' Verilator runtime."""
    built = verilator.runtime(sim_build).parent
    (tmp_path / built.name).symlink_to(built)
    return tmp_path


def run(build_dir, *only):
    console = Console(width=120, file=io.StringIO())
    results = exhaustive.run(build_dir, only=only, jobs=1, console=console)
    return results, console.file.getvalue()


def test_runs_and_resumes(build_dir):
    name = "dequantizer e2m1 bf16 saturate"
    results, said = run(build_dir, name)
    (result,) = results.values()
    assert (result.values, result.mismatches) == (256 * 16 * 32, 0)
    assert f"{256 * 16 * 32:,}" in said and "compared before" not in said
    ledger = json.loads((build_dir / "exhaustive" / "done.json").read_text())
    assert len(ledger) == 1

    again, said = run(build_dir, name)
    assert again == results
    assert f"{256 * 16 * 32:,} values were compared before" in said


@pytest.mark.parametrize("name", ["_build", "_compare"])
def test_what_fails_is_told_when_the_rest_is_done(name, build_dir, monkeypatch):
    right = getattr(exhaustive, name)

    def wrong(sweep, **arguments):
        if sweep.parameters["overflow"] == "inf":
            raise ToolError("no space left")
        return right(sweep, **arguments)

    monkeypatch.setattr(exhaustive, name, wrong)
    told = r"^1 builds or pieces failed, first dequantizer e2m1 bf16 inf scale=all: no space left$"
    with pytest.raises(MxforgeError, match=told):
        run(build_dir, "dequantizer e2m1 bf16")
    assert len(json.loads((build_dir / "exhaustive" / "done.json").read_text())) == 1


def test_mismatches_are_counted_and_told(sim_build):
    # Verilog that saturates, where golden has infinities.
    saturating = Pairs(**{**vars(PAIRS), "parameters": PAIRS.parameters | {"overflow": "saturate"}})
    text, _ = emit(saturating.component(), "dequantizer")
    _, manifest = emit(PAIRS.component(), "dequantizer")
    result = exhaustive._compare(PAIRS, text, manifest, sim_build, 0, PAIRS.rows)
    inputs = PAIRS.inputs(0, PAIRS.rows)
    values = np.float64([0, .5, 1, 1.5, 2, 3, 4, 6])[inputs["elements"] & 7] * 2.0 ** (inputs["scale"][:, None] - 127.0)
    overflows = (values >= 65520) & (inputs["scale"][:, None] != 255)
    assert (result.values, result.mismatches) == (overflows.size, overflows.sum())
    assert result.examples[0].startswith("dequantizer e2m1 fp16 inf scale=all: scale 0x8d, elements 0x6 in lane ")
    assert result.examples[0].endswith("gave values 0x7bff, golden says 0x7c00")
    assert len(result.examples) == 3


def test_another_verilog_is_another_piece():
    text, _ = emit(PAIRS.component(), "dequantizer")
    assert exhaustive._key(text, PAIRS, 0, 1) != exhaustive._key(text + "\n", PAIRS, 0, 1)
    assert exhaustive._key(text, PAIRS, 0, 1) != exhaustive._key(text, PAIRS, 1, 2)


def test_golden_is_what_the_unit_imports():
    assert "def scales_of" in exhaustive._golden("scale_select")
    assert exhaustive._golden("dequantizer") != exhaustive._golden("element_cast")


def test_command_line(build_dir, monkeypatch, capsys):
    arguments = ["exhaustive", "--only", "dequantizer e2m1 bf16 saturate", "--jobs", "1", "--build-dir", str(build_dir)]
    assert cli.main(arguments) == 0
    assert "1 sweeps" in capsys.readouterr().out
    wrong = exhaustive.Result(values=2, mismatches=1, examples=["bad"])
    monkeypatch.setattr(exhaustive, "run", lambda *args, **options: {"a": wrong})
    assert cli.main(arguments) == 1
    assert capsys.readouterr().err == "mxforge: 1 values differ from golden\n"
    monkeypatch.undo()
    assert cli.main([*arguments[:2], "nothing", *arguments[3:]]) == 2
    assert capsys.readouterr().err.startswith("mxforge: only must be part of a sweep's name")


def test_nothing_to_sweep(build_dir):
    with pytest.raises(MxforgeError, match=r"only must be part of a sweep's name, such as .* not 'element_caste'"):
        run(build_dir, "element_caste")
