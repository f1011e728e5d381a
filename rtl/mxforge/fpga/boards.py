"""Boards that a bitstream can be built for: what they are called, and what fits them."""
import importlib
import os
import sys
from dataclasses import dataclass, field

from amaranth.build import Platform

from ..errors import MxforgeError, install, nearest
from .protocol import BAUDS

__all__ = ["BOARDS", "Kit", "find"]


@dataclass(frozen=True, kw_only=True)
class Kit:
    """A board: the import path of its Amaranth ``platform``, ``module:Class``, and what an accelerator on it is by default.

    ``units``, ``depth``: as of a :class:`.Design`. ``clock``: what is tried first, in Hz. ``bauds``: what the link may
    run at, fastest first. ``held``: pins that must be high, each (resource, number, part). ``loader``: what openFPGALoader calls
    the board.
    """
    name: str
    platform: str
    units: dict = field(hash=False)
    depth: int = 4096
    clock: float
    bauds: tuple = BAUDS
    held: tuple = ()
    loader: str | None = None


_SMALL = {"quantize": {"lanes": 1, "stages": 5}, "dequantize": {"lanes": 1, "stages": 2},
          "matmul": {"lanes": 1, "rows": 1, "columns": 1, "stages": 19}}

BOARDS = {kit.name: kit for kit in (
    # Its ESP32 takes a low pin for the wish to load another bitstream.
    Kit(name="ulx3s-85f", platform="amaranth_boards.ulx3s:ULX3S_85F_Platform", clock=60e6, held=(("esp32", 0, "gpio0"),),
        loader="ulx3s", units={
        "quantize": {"lanes": 16, "stages": 8}, "dequantize": {"lanes": 16, "stages": 2}, "dot": {"lanes": 16, "stages": 18},
        "matmul": {"lanes": 16, "stages": 23}}),
    Kit(name="icebreaker", platform="amaranth_boards.icebreaker:ICEBreakerPlatform", clock=21e6, loader="ice40_generic",
        units=_SMALL),
    Kit(name="tang-nano-9k", platform="amaranth_boards.tang_nano_9k:TangNano9kPlatform", clock=51e6, bauds=(1_000_000, 115_200),
        loader="tangnano9k", units=_SMALL | {"matmul": {"lanes": 1, "rows": 2, "columns": 1, "stages": 19}}),
)}


def find(name):
    """``(kit, platform)`` of a board's name, or of the import path of a platform's class: a `Kit`, an Amaranth platform.
    ``MxforgeError`` if there is none.
    """
    kit = BOARDS.get(name)
    if kit is None:
        if ":" not in name:
            hint = nearest(name, BOARDS, f"there are {', '.join(BOARDS)}; any other by the import path of its Amaranth platform, "
                           "such as amaranth_boards.ecpix5:ECPIX585Platform")
            raise MxforgeError(f"no board {name!r}; {hint}")
        kit = Kit(name=name.partition(":")[2], platform=name, units=_SMALL, clock=100e6)
    module, _, attribute = kit.platform.partition(":")
    # A class of the user's own lies where the user is.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    # Whatever is wrong with code that isn't ours.
    try:
        made = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "amaranth_boards":
            raise MxforgeError(f"{name} needs amaranth-boards: {install('boards')}") from None
        raise MxforgeError(f"{name} can't be imported: {error}") from error
    if not isinstance(made, type) or not issubclass(made, Platform):
        raise MxforgeError(f"{name} is no class of an Amaranth platform")
    try:
        platform = made()
    except Exception as error:
        raise MxforgeError(f"{name} can't be used: {error}") from error
    if platform.default_clk is None:
        raise MxforgeError(f"{name} can't be used: it has no default_clk")
    return kit, platform
