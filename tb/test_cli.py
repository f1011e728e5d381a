"""The command line, as users meet it."""
import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

import mxgolden.dequantizer
from mxforge import catalog, cli
from mxforge.flow import run

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{ROOT / 'rtl'}{os.pathsep}{ROOT / 'tb'}", "COLUMNS": "80"}


def vectors(count=100, lanes=32):
    rng = np.random.default_rng(5)
    return {"scale": rng.integers(0, 256, count, dtype=np.uint8), "elements": rng.integers(0, 256, (count, lanes), dtype=np.uint8)}


@pytest.fixture
def folder(tmp_path):
    """What the wrong invocations meet."""
    np.savez(tmp_path / "good.npz", **vectors())
    np.savez(tmp_path / "misnamed.npz", scales=vectors()["scale"], elements=vectors()["elements"])
    np.savez(tmp_path / "narrow.npz", **vectors(lanes=16))
    np.savez(tmp_path / "float.npz", scale=vectors()["scale"], elements=vectors()["elements"].astype(np.float32))
    np.savez(tmp_path / "unended.npz", **vectors(), tlast=np.zeros(100, np.uint8))
    np.savez(tmp_path / "short.npz", scale=vectors()["scale"][:-1], elements=vectors()["elements"])
    np.savez(tmp_path / "object.npz", scale=np.array([{}]), elements=vectors()["elements"])
    np.save(tmp_path / "one.npy", vectors()["scale"])
    (tmp_path / "cut.npy").write_bytes((tmp_path / "one.npy").read_bytes()[:60])
    whole = (tmp_path / "good.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:-40])
    with zipfile.ZipFile(tmp_path / "header.npz", "w") as archive:
        archive.writestr("scale.npy", (tmp_path / "cut.npy").read_bytes())
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 50,)})
        archive.writestr("scale.npy", header.getvalue())
    pair = {f"{side}_{name}": array for side in "ab" for name, array in vectors(4).items()}
    np.savez(tmp_path / "silent.npz", first=np.zeros(4, np.uint8), last=np.ones(4, np.uint8), c=np.zeros(4, np.uint32), **pair)
    tile = {name.replace("scale", "scales"): array[:, None] if array.ndim == 1 else array for name, array in pair.items()}
    np.savez(tmp_path / "tile.npz", first=np.zeros(4, np.uint8), last=np.ones(4, np.uint8), c=np.zeros((4, 1), np.uint32), **tile)
    (tmp_path / "text.npz").write_text("no arrays")
    (tmp_path / "file").write_text("a file")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("not emitted")
    return tmp_path


RUN = "run dequantizer --in {} -o r.npz"


@pytest.mark.parametrize(("line", "answer"), [
    ("emti dequantizer", "no command 'emti'; did you mean emit?"),
    ("frobnicate", "no command 'frobnicate'; see mxforge --help"),
    ("emit", "Missing argument 'NAME'."),
    ("emit --lanes 4", "Missing argument 'NAME'."),
    ("emit --", "Missing argument 'NAME'."),
    ("run --in good.npz -o r.npz", "Missing argument 'NAME'."),
    ("emit dequantizer --name=", "--name must be a Verilog identifier, not ''"),
    ("emit dequantizer --name o", "--name must not be that of a port or of Verilator's own top, o"),
    ("emit quantizer --axi --name aclk", "--name must not be that of a port or of Verilator's own top, aclk"),
    ("emit quantizer --axi --name s_axis_tdata", "--name must not be that of a port or of Verilator's own top, s_axis_tdata"),
    ("emit dequantizer --name TOP", "--name must not be that of a port or of Verilator's own top, TOP"),
    ("emit dequantizer --name " + "n" * 101, "--name must have 100 characters at most, not 101"),
    ("emit dequantizer -o /proc/unit", "/proc/unit can't be written"),
    ("emit quantizer --block-size 16", "lanes must divide block_size (16), not 32; set both"),
    ("verilog -o file", "file is a file; -o must be a directory"),
    ("emit dequantiser", "no unit or catalogue entry 'dequantiser'; did you mean dequantizer"),
    ("emit xyzzy", "no unit or catalogue entry 'xyzzy'; see mxforge list"),
    ("emit dequantizer --element e4m4", "element must be one of e4m3, e5m2, e3m2, e2m3, e2m1, mxint8, not 'e4m4'"),
    ("emit dequantizer --lanes 0", "lanes must be 1 to 1024, not 0"),
    ("emit dequantizer --lanes many", "--lanes must be an integer, not 'many'"),
    ("emit dequantizer --stages 9", "stages must be 0 to 7 (sums, result, elements, added, picked, fine, codes), not 9"),
    ("emit dequantizer --lane 8", "no option --lane; did you mean --lanes?"),
    ("emit dequantizer --block-size 8", "no option --block-size; see --help"),
    ("emit packer --bare", "packer has no bare core: it is between streams by itself"),
    ("emit dequantizer extra", "Got unexpected extra argument (extra)"),
    ("emit dequantizer --lanes", "Option '--lanes' requires an argument."),
    ("emit dequantizer --reset maybe", "Invalid value for '--reset': 'maybe' is not one of 'sync', 'async'."),
    ("emit dequantizer --name 2fast", "--name must be a Verilog identifier, not '2fast'"),
    ("emit dequantizer --name module", "--name must be a Verilog identifier, not 'module'"),
    ("emit dequantizer -o mine", "mine has files that mxforge did not emit; -o must be a new or an empty directory"),
    ("emit dequantizer -o file", "file is a file; -o must be a directory"),
    ("emit dequantizer -o file/below", "file is a file; -o must be a directory"),
    ("emit dequantizer --bare --axi", "--bare, --streams and --axi exclude each other"),
    ("emit fp32_multiplier --streams --axi", "--bare, --streams and --axi exclude each other"),
    ("run dequantizer -o r.npz", "Missing option '--in'."),
    (RUN.format("missing.npz"), "missing.npz: No such file or directory"),
    (RUN.format("text.npz"), "text.npz must be an .npz file of arrays, as numpy.savez writes it"),
    (RUN.format("one.npy"), "one.npy must be an .npz file of arrays, as numpy.savez writes it"),
    (RUN.format("object.npz"), "object.npz must be an .npz file of arrays, as numpy.savez writes it"),
    (RUN.format("misnamed.npz"), "inputs must be scale (N) of 8 bits, elements (N, 32) of 8 bits, not elements, scales"),
    (RUN.format("narrow.npz"), "elements must have the shape (N, 32), not (100, 16)"),
    (RUN.format("float.npz"), "elements must be unsigned integers (bit patterns, uint8), not float32"),
    (RUN.format("short.npz"), "inputs must have as many rows each, not scale 99, elements 100"),
    (RUN.format("good.npz") + " --waves w.gtk", "waves must be a .fst or .vcd file, not w.gtk"),
    (RUN.format("narrow.npz") + " --axi", "elements must have the shape (N, 32), not (100, 16)"),
    (RUN.format("misnamed.npz") + " --axi",
     "inputs must be scale (N) of 8 bits, elements (N, 32) of 8 bits, tlast (N, 1) of 1 bit, not elements, scales, tlast"),
    (RUN.format("unended.npz") + " --axi", "tlast must have the shape (N, 1), not (100,)"),
    ("run dequantizer --in good.npz -o none/r.npz", "none/r.npz can't be written: there is no directory none"),
    (RUN.format("cut.npz"), "cut.npz must be an .npz file of arrays, as numpy.savez writes it"),
    (RUN.format("header.npz"), "header.npz must be an .npz file of arrays, as numpy.savez writes it"),
    (RUN.format("huge.npz"), "huge.npz must be an .npz file of arrays, as numpy.savez writes it"),
    ("run matmul_tile --rows 1 --columns 1 --in tile.npz -o r.npz",
     "wanted `first` on the first row of each of 1 slots, got none on row 0"),
    ("run matmul_layer --rows 1 --columns 1 --in tile.npz -o r.npz --check",
     "wanted `first` on the first row of each of 1 slots, got none on row 0"),
    ("run dot_accumulator --in silent.npz -o r.npz", "wanted `first` on the first row of each of 1 slots, got none on row 0"),
    ("run dequantizer --in good.npz -o mine", "mine is a directory; it must be a file"),
    ("run dequantizer --in good.npz -o /proc/r.npz", "/proc/r.npz can't be written"),
    ("run dequantizer --in good.npz -o r.fst --waves r.fst", "the waves would replace r.fst; --waves must be another file"),
    ("run dequantizer --in good.npz -o r.npz --waves mine", "mine is a directory; it must be a file"),
    ("demo --weights cut.npy", "cut.npy is no whole .npy file of numbers"),
    ("demo --weights good.npz", "weights must be a .safetensors or .npy file, not good.npz"),
    ("demo --weights one.npy --report file", "file is a file; file must be a directory"),
    ("demo --weights missing.npy", "missing.npy is missing"),
    ("run dequantizer --in good.npz -o good.npz", "the results would replace the vectors, good.npz; -o must be another file"),
    ("lint nothing", "no unit or catalogue entry 'nothing'"),
])
def test_wrong_invocations_get_one_line(line, answer, folder, refused):
    refused(*line.split(), answer=answer)


@pytest.mark.parametrize("wanted", ["system", "none"])
def test_no_yosys_gets_one_line(wanted, mxforge, monkeypatch, tmp_path):
    monkeypatch.setenv("AMARANTH_USE_YOSYS", wanted)
    monkeypatch.setenv("YOSYS", "no_such_yosys")
    status, out, error = mxforge("emit", "dequantizer")
    assert (status, out) == (2, "") and not [*tmp_path.iterdir()]
    assert error.startswith("mxforge: no Yosys 0.40 or newer to write Verilog with") and error.count("\n") == 1


def test_list(mxforge):
    status, out, _ = mxforge("list")
    assert status == 0
    for name in catalog.ENTRIES:
        assert name in out
    listed = json.loads(mxforge("list", "--json")[1])
    assert [entry["name"] for entry in listed["entries"]] == list(catalog.ENTRIES)
    assert listed["units"]["dequantizer"]["parameters"]["element"]["options"][0] == "e4m3"
    assert listed["entries"][0]["parameters"]["lanes"] == 32


def test_formats(mxforge):
    status, out, _ = mxforge("formats")
    assert status == 0 and "57344" in out
    table = {fact["name"]: fact for fact in json.loads(mxforge("formats", "--json")[1])}
    assert table["e4m3"]["max"] == 448 and table["e4m3"]["inf_code"] is None and table["e4m3"]["nan_code"] == 0x7F
    assert table["e8m0"]["smallest"] == 2.0 ** -127


@pytest.mark.parametrize("words", [(), ("fpga",)])
def test_commands_without_a_word_show_their_help(mxforge, words):
    assert mxforge(*words) == mxforge(*words, "--help") and "\n  -h, --help" in mxforge(*words)[1]


def test_help_has_parameters(mxforge):
    status, out, _ = mxforge("emit", "dequantizer_e5m2_bf16", "--help")
    assert status == 0
    assert "--target fp32|bf16|fp16" in out and "[bf16]" in out and "--stages 0..9" in out
    assert "Pipeline cuts taken, of the unit's list of cut points: sums, result" in " ".join(out.split())
    assert "--lanes" not in mxforge("emit", "--help")[1]


def test_options_do_not_collide_with_parameters():
    for command in (cli.emit, cli.run):
        own = {option.name for option in command.params}
        for unit in catalog.UNITS.values():
            assert not own & set(unit.Parameters.__dataclass_fields__)


def test_emit(mxforge, tmp_path):
    assert mxforge("emit", "dequantizer")[0] == 0
    manifest = json.loads((tmp_path / "dequantizer" / "dequantizer.json").read_text())
    assert manifest["streamed"] and manifest["parameters"]["lanes"] == 32
    assert mxforge("emit", "-o", "ip/one", "--lanes=1", "dequantizer", "--bare", "--name", "one", "--reset", "async")[0] == 0
    manifest = json.loads((tmp_path / "ip/one/one.json").read_text())
    assert not manifest["streamed"] and manifest["parameters"]["lanes"] == 1 and manifest["reset"] == "async"
    assert mxforge("emit", "dequantize1_fp32", "--target", "bf16")[0] == 0
    manifest = json.loads((tmp_path / "dequantize1_fp32/dequantize1_fp32.json").read_text())
    assert not manifest["streamed"] and manifest["parameters"]["lanes"] == 1 and manifest["parameters"]["target"] == "bf16"


def test_an_operator_is_bare_by_its_name(mxforge, tmp_path):
    assert mxforge("emit", "fp32_multiplier")[0] == mxforge("emit", "fp32_multiplier_fast", "--lanes", "2")[0] == 0
    manifest = json.loads((tmp_path / "fp32_multiplier/fp32_multiplier.json").read_text())
    assert list(manifest["ports"]) == ["i", "o"] and manifest["command"] == "mxforge emit fp32_multiplier --bare"
    fast = tmp_path / "fp32_multiplier_fast"
    command = json.loads((fast / "fp32_multiplier_fast.json").read_text())["command"]
    assert command == "mxforge emit fp32_multiplier --stages 19 --product rows --lanes 2 --streams --name fp32_multiplier_fast"
    assert mxforge(*command.split()[1:], "-o", "again")[0] == 0
    assert (tmp_path / "again/fp32_multiplier_fast.v").read_bytes() == (fast / "fp32_multiplier_fast.v").read_bytes()


def test_emit_of_axi_streams(mxforge, tmp_path):
    assert mxforge("emit", "--axi", "dequantizer", "--lanes", "1", "--reset", "async")[0] == 0
    manifest = json.loads((tmp_path / "dequantizer/dequantizer.json").read_text())
    assert manifest["axi"] and list(manifest["ports"])[:3] == ["aclk", "aresetn", "s_axis_tvalid"]
    assert "negedge" not in (text := (tmp_path / "dequantizer/dequantizer.v").read_text()) and "posedge rst" in text
    # A bare entry and an AXI one, made another.
    assert mxforge("emit", "dequantize1_fp32", "--axi", "-o", "a")[0] == 0
    assert json.loads((tmp_path / "a/dequantize1_fp32.json").read_text())["axi"]
    assert mxforge("emit", "dequantizer_axis", "--bare", "--lanes", "1", "-o", "b")[0] == 0
    manifest = json.loads((tmp_path / "b/dequantizer_axis.json").read_text())
    assert not manifest["axi"] and not manifest["streamed"]


@pytest.mark.parametrize("entry", ["dequantizer_e2m1_fp16", "dequantizer_axis"])
def test_header_names_the_command_that_writes_it(entry, mxforge, tmp_path):
    mxforge("emit", entry, "-o", "a", "--no-init", "--lanes", "2")
    text = (tmp_path / f"a/{entry}.v").read_text()
    command = text.partition("\n")[0].partition("mxforge emit ")[2]
    assert mxforge("emit", *command.split(), "-o", "b")[0] == 0
    assert (tmp_path / f"b/{entry}.v").read_text() == text


def test_emitting_again_replaces_what_was_emitted_only(mxforge, tmp_path):
    mxforge("emit", "dequantizer", "--lanes", "4")
    verilog = tmp_path / "dequantizer/dequantizer.v"
    first = verilog.read_text()
    (tmp_path / "dequantizer/notes.txt").write_text("mine")
    assert mxforge("emit", "dequantizer", "--lanes", "2")[0] == 0
    second = verilog.read_text()
    assert second != first
    assert (tmp_path / "dequantizer/notes.txt").read_text() == "mine"

    verilog.write_text(second + "// patched\n")
    status, _, error = mxforge("emit", "dequantizer")
    assert status == 2 and error == "mxforge: dequantizer/dequantizer.v was changed since it was emitted; --force replaces it\n"
    assert verilog.read_text().endswith("// patched\n")
    assert mxforge("emit", "dequantizer", "--lanes", "4", "--force")[0] == 0
    assert verilog.read_text() == first

    status, _, error = mxforge("emit", "dequantizer", "--name", "other", "-o", "dequantizer")
    assert status == 2 and error == "mxforge: dequantizer holds dequantizer; -o must be another directory for other\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dequantizer"]


def test_run(folder, mxforge):
    status, out, error = mxforge("run", "dequantizer", "--target", "bf16", "--in", "good.npz", "-o", "r.npz", "--check")
    assert status == 0, error
    assert "100 rows" in out and "0 bits differ" in out
    expected = mxgolden.dequantizer.expected({"element": "e4m3", "target": "bf16", "lanes": 32, "overflow": "inf"}, vectors())
    with np.load(folder / "r.npz") as results:
        np.testing.assert_array_equal(results["values"], expected["values"])


@pytest.mark.parametrize("jobs", [1, 2])
def test_run_called_from_python_shows_nothing(jobs, folder, sim_build, capfd):
    result = run.run(catalog.find("dequantizer"), folder / "good.npz", folder / "r.npz", sim_build, check=True, jobs=jobs)
    assert result.difference is None and capfd.readouterr() == ("", "")


def test_run_of_packets(folder, mxforge):
    """Rows out are not rows in: packets of 100 and 3 blocks over a bus of 16 bytes, and the whole beats of 5 that nothing ends."""
    np.savez(folder / "blocks.npz", **vectors(108), last=(np.isin(np.arange(108), [99, 102])).astype(np.uint8))
    for more in "", " --stalls 3":
        status, out, error = mxforge(*f"run packer --in blocks.npz -o beats.npz --check{more}".split())
        assert status == 0, error
        beats = -(-3300 // 16) + -(-99 // 16) + 5 * 33 // 16
        assert f"{beats} rows from 108" in out and "0 bits differ" in out
    status, out, error = mxforge("run", "unpacker", "--in", "beats.npz", "-o", "back.npz", "--check")
    assert status == 0, error
    with np.load(folder / "blocks.npz") as blocks, np.load(folder / "back.npz") as back:
        for name in "scale", "elements", "last":
            np.testing.assert_array_equal(back[name][:103], blocks[name][:103])
        assert not back["is_truncated"].any()


def test_run_with_stalls_and_waves(folder, mxforge):
    line = "run dequantizer_e2m1_fp16 --lanes 32 --element e4m3 --in good.npz -o r.npz --check --stalls 7 --waves w.fst"
    status, _, error = mxforge(*line.split())
    assert status == 0, error
    assert (folder / "w.fst").stat().st_size > 1000


def test_run_of_axi_streams(folder, mxforge):
    line = "run quantizer --axi --source bf16 --element e2m1 --lanes 2 --block-size 8 --in {} -o r.npz --check --stalls 3"
    rng = np.random.default_rng(1)
    values = rng.integers(0, 1 << 16, (100, 8), dtype=np.uint16)
    tlast = rng.integers(0, 2, (100, 4), dtype=np.uint8)
    np.savez(folder / "plain.npz", values=values)
    np.savez(folder / "marked.npz", values=values, tlast=tlast)
    for name, wanted in ("plain", np.zeros(100)), ("marked", tlast[:, -1]):
        status, out, error = mxforge(*line.format(f"{name}.npz").split())
        assert status == 0 and "0 bits differ" in out, error
        with np.load(folder / "r.npz") as results:
            np.testing.assert_array_equal(results["tlast"][:, -1], wanted)
            assert not results["tlast"][:, :-1].any()


def test_run_says_where_golden_differs(folder, mxforge, monkeypatch):
    def wrong(parameters, inputs):
        values = np.zeros((100, 32), np.uint32)
        values[3, 5] = 1
        return {"values": values}

    monkeypatch.setattr("mxgolden.dequantizer.expected", wrong)
    status, _, error = mxforge("run", "dequantizer", "--in", "good.npz", "-o", "r.npz", "--check")
    assert status == 1 and "values differ from golden, first values[0, 0]: 0x" in error
    assert (folder / "r.npz").exists(), "the results are what shows the error"


def test_runs_as_a_module_without_warnings():
    done = subprocess.run([sys.executable, "-W", "error", "-m", "mxforge", "--version"], env=ENVIRONMENT, capture_output=True,
                          text=True)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("mxforge ")


def test_help_imports_neither_amaranth_nor_numpy():
    code = "import sys; from mxforge.cli import main; main(['--help']); sys.exit(bool({'amaranth', 'numpy'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True).returncode == 0


def test_broken_pipe_is_quiet():
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {sys.executable} -m mxforge list --json | true"], env=ENVIRONMENT,
                          capture_output=True, text=True)
    assert done.stderr == ""


def test_interrupt_leaves_nothing(tmp_path):
    child = subprocess.Popen([sys.executable, "-m", "mxforge", "verilog", "-o", "all"], env=ENVIRONMENT, cwd=tmp_path,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not any(tmp_path.glob("all/*/SHA256SUMS")):
        assert child.poll() is None, child.stderr.read()
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGINT)
    out, error = child.communicate(timeout=60)
    assert (child.returncode, out, error.strip()) == (130, "", "")
    assert not list(tmp_path.glob("all/.*")), "half-written directories"
