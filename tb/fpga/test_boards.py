# amaranth: UnusedElaboratable=no
"""Boards by name and by import path, and what an accelerator on them is by default."""
import importlib

import pytest

from mxforge.errors import MxforgeError
from mxforge.fpga.boards import BOARDS, find
from mxforge.fpga.design import Design


@pytest.mark.parametrize("name", BOARDS)
def test_each_has_a_platform_and_units_that_fit_the_link(name):
    kit, platform = find(name)
    assert ("uart", 0) in platform.resources
    design = Design(board=kit.name, units=kit.units, clock=round(kit.clock), divisor=8, depth=kit.depth)
    assert {"quantize", "dequantize", "matmul"} <= set(design.manifest["units"])


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
    ("amaranth_boards.ulx3s:ULX3S", "amaranth_boards.ulx3s:ULX3S is no platform: module 'amaranth_boards.ulx3s' has no attribute "
                                    "'ULX3S'"),
    ("json:JSONDecoder", "json:JSONDecoder is no platform of Amaranth, but JSONDecoder"),
])
def test_others_are_refused(name, answer):
    with pytest.raises(MxforgeError) as told:
        find(name)
    assert str(told.value) == answer
