"""Bitstreams onto boards, by an openFPGALoader that is a script."""
import json
import os
import sys

import pytest

from mxforge.fpga import build

PLATFORM = "amaranth_boards.ecpix5:ECPIX585Platform"


@pytest.fixture
def loader(tmp_path_factory, monkeypatch):
    """``loader(code)`` puts a Python script in the place of openFPGALoader, which the package of that name starts; what it returns
    lists the arguments that the script was given, beyond being asked for its version.
    """
    folder = tmp_path_factory.mktemp("bin")
    script, log = folder / "openFPGALoader", folder / "log"
    log.touch()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    def install(code=""):
        script.write_text(f"#!{sys.executable}\nimport sys\nif sys.argv[1:] == ['--Version']:\n    sys.exit()\n"
                          f"print(*sys.argv[1:], file=open({str(log)!r}, 'a'))\nprint('Load SRAM: [####] 100%')\n{code}\n")
        script.chmod(0o755)
        return lambda: log.read_text().splitlines()

    return install


@pytest.fixture
def built(tmp_path):
    """A folder of builds, with one for the iCEBreaker."""
    folder = tmp_path / "builds" / "fpga" / "icebreaker"
    folder.mkdir(parents=True)
    (folder / build.REPORT).write_text(json.dumps({"board": "icebreaker", "bitstream": "icebreaker.bin"}))
    (folder / "icebreaker.bin").write_bytes(b"bits")
    return tmp_path / "builds"


def test_the_build_of_a_board(mxforge, loader, built):
    given = loader()
    status, out, error = mxforge("fpga", "program", "--board", "icebreaker", "--build-dir", built)
    bitstream = built / "fpga" / "icebreaker" / "icebreaker.bin"
    assert (status, out) == (0, f"{bitstream} is on the board; mxforge fpga run --port PORT tries it\n")
    # Its progress.
    assert error == "Load SRAM: [####] 100%\n"
    assert given() == [f"--board ice40_generic {bitstream}"]


@pytest.mark.parametrize(("options", "wanted"), [
    (["icebreaker", "DIR"], "--board ice40_generic"),
    (["icebreaker", "-x.bin", "--flash"], "--board ice40_generic --write-flash"),
    (["ulx3s-85f", "-x.bin"], "--board ulx3s"),
    (["tang-nano-9k", "-x.bin", "--flash"], "--board tangnano9k --write-flash"),
    (["tang-nano-9k", "-x.bin", "--cable", "ft2232"], "--board tangnano9k --cable ft2232"),
    ([PLATFORM, "-x.bin", "--cable", "ft2232"], "--cable ft2232"),
    ([PLATFORM, "-x.bin", "--loader", "ecpix5_r03", "--flash"], "--board ecpix5_r03 --write-flash"),
])
def test_what_openfpgaloader_is_told(mxforge, loader, built, tmp_path, options, wanted):
    given = loader()
    (tmp_path / "-x.bin").write_bytes(b"bits")
    board, path, *options = options
    bitstream = built / "fpga" / "icebreaker" / "icebreaker.bin" if path == "DIR" else tmp_path / path
    status, _, error = mxforge("fpga", "program", "--board", board, *options, "--", bitstream.parent if path == "DIR" else path)
    assert status == 0, error
    assert given() == [f"{wanted} {bitstream}"]


@pytest.mark.parametrize(("options", "answer"), [
    (["ulx3s-85f", "--build-dir", "builds"],
     "builds/fpga/ulx3s-85f is missing; make one: mxforge fpga build --board ulx3s-85f"),
    (["ulx3s-85f", "builds"], "builds has no build; make one: mxforge fpga build --board ulx3s-85f"),
    (["ulx3s-85f", "builds/fpga/icebreaker"], "builds/fpga/icebreaker is a build for icebreaker, not for ulx3s-85f"),
    (["icebreaker", "none.bin"], "none.bin is missing; make one"),
    (["icebreaker", "damaged"], "damaged/report.json is no report of a build; make one"),
    (["icebreaker", "empty"], "empty/icebreaker.bin is missing; make one"),
    (["icebraker"], "no board 'icebraker'; did you mean icebreaker?"),
    ([PLATFORM, "x.bit"], "what openFPGALoader calls ECPIX585Platform isn't known: give --loader NAME or --cable NAME"),
])
def test_refuses(refused, loader, built, tmp_path, options, answer):
    given = loader()
    (tmp_path / "x.bit").write_bytes(b"bits")
    for name, text in ("damaged", "[]"), ("empty", (built / "fpga" / "icebreaker" / build.REPORT).read_text()):
        (tmp_path / name).mkdir()
        (tmp_path / name / build.REPORT).write_text(text)
    refused("fpga", "program", "--board", *options, answer=answer)
    assert not given()


@pytest.mark.parametrize(("code", "answer"), [
    ("print('unable to open ftdi device: -3 (device not found)', file=sys.stderr)\n"
     "sys.exit('JTAG init failed with: unable to open ftdi device\\n')",
     "unable to open ftdi device: -3 (device not found); JTAG init failed with: unable to open ftdi device"),
    ("sys.exit(1)", "it doesn't say why"),
    # A device that doesn't start, of which it makes no more.
    ("print('FAIL', file=sys.stderr)", "FAIL"),
])
def test_its_failures(mxforge, loader, built, code, answer):
    loader(code)
    status, out, error = mxforge("fpga", "program", "--board", "icebreaker", "--build-dir", built)
    assert (status, out) == (2, "")
    assert error == f"Load SRAM: [####] 100%\nmxforge: openFPGALoader could not program icebreaker: {answer}\n"


@pytest.mark.parametrize(("code", "answer"), [
    ("echo \"$0: error while loading shared libraries: libftdi1.so.2: cannot open shared object file: No such file or directory\" "
     ">&2; exit 127",
     "openFPGALoader needs the library libftdi1.so.2, which this system lacks: apt-get install libftdi1-2 libusb-1.0-0\n"),
    ("echo oh >&2; exit 3", "openFPGALoader doesn't start: oh\n"),
])
def test_a_loader_that_doesnt_start(refused, loader, built, tmp_path_factory, monkeypatch, code, answer):
    script = tmp_path_factory.mktemp("broken") / "openFPGALoader"
    script.write_text(f"#!/bin/sh\n{code}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent), prepend=os.pathsep)
    refused("fpga", "program", "--board", "icebreaker", "--build-dir", built, answer=answer)
