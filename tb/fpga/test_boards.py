# amaranth: UnusedElaboratable=no
"""Boards by name and by import path, and what an accelerator on them is by default."""
import importlib
import sys
from pathlib import Path

import pytest

from mxforge.cli import cli
from mxforge.errors import MxforgeError
from mxforge.fpga.boards import BOARDS, find
from mxforge.fpga.design import Design

STILL = """
from amaranth.vendor import LatticeECP5Platform
class Still(LatticeECP5Platform):
    device, package, speed, default_clk, resources, connectors = "LFE5U-25F", "BG381", "6", None, [], []
"""


@pytest.mark.parametrize("name", BOARDS)
def test_each_has_a_platform_and_units_that_fit_the_link(name):
    kit, platform = find(name)
    assert ("uart", 0) in platform.resources
    design = Design(board=kit.name, units=kit.units, clock=round(kit.clock), divisor=8, depth=kit.depth)
    assert {"quantize", "dequantize", "matmul"} <= set(design.manifest["units"])


def test_the_help_names_each():
    helps = [option.help for option in cli.commands["fpga"].commands["build"].params if option.name == "board"]
    assert all(name in helps[0] for name in BOARDS)


def test_any_platform_by_its_path():
    kit, platform = find("amaranth_boards.ecpix5:ECPIX585Platform")
    assert kit.name == type(platform).__name__ == "ECPIX585Platform" and kit.units


def test_without_the_platforms(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name, name="amaranth_boards")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MxforgeError) as told:
        find("icebreaker")
    assert str(told.value) == "icebreaker needs amaranth-boards: pip install 'mxforge[boards]', in a clone '.[boards]'"


@pytest.mark.parametrize(("name", "answer"), [
    ("icebraker", "no board 'icebraker'; did you mean icebreaker?"),
    ("de10", "no board 'de10'; there are ulx3s-85f, icebreaker, tang-nano-9k; any other by the import path of its Amaranth "
             "platform, such as amaranth_boards.ecpix5:ECPIX585Platform"),
    ("nowhere.board:Platform", "nowhere.board:Platform can't be imported: No module named 'nowhere'"),
    ("amaranth_boards.ulx3s:ULX3S", "amaranth_boards.ulx3s:ULX3S can't be imported: module 'amaranth_boards.ulx3s' has no "
                                    "attribute 'ULX3S'"),
    (":X", ":X can't be imported: Empty module name"),
    ("json:JSONDecoder", "json:JSONDecoder is no class of an Amaranth platform"),
    ("sys:exit", "sys:exit is no class of an Amaranth platform"),
    ("amaranth_boards.tang_mega_138k_pro_dock:TangMega138kProDockPlatform",
     "amaranth_boards.tang_mega_138k_pro_dock:TangMega138kProDockPlatform can't be used: Supplied part name is invalid"),
    ("broken:Platform", "broken:Platform can't be imported: 1 is enough"),
    ("still:Still", "still:Still can't be used: it has no default_clk"),
])
def test_others_are_refused(name, answer, tmp_path, monkeypatch):
    """Also classes of the user's own, where the user is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("broken.py").write_text("raise ValueError('1 is enough')\n")
    Path("still.py").write_text(STILL)
    with pytest.raises(MxforgeError) as told:
        find(name)
    assert str(told.value) == answer
