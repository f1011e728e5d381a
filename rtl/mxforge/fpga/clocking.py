"""Clocks of FPGAs: what phase-locked loops can make of a board's oscillator."""
import math
from dataclasses import dataclass

from amaranth import *
from amaranth.lib import io
from amaranth.lib.cdc import FFSynchronizer, ResetSynchronizer
from amaranth.vendor import GowinPlatform, LatticePlatform, SiliconBluePlatform

__all__ = ["FAMILIES", "Clocking", "Loop", "family_of", "has_loop", "loops"]

# iCE40's block RAMs read as zeros for some microseconds after configuration.
_SETTLING = 15e-6


@dataclass(frozen=True, kw_only=True)
class Loop:
    """Settings of a phase-locked loop: its ``output`` in Hz is the oscillator's over ``divide`` times ``multiply``, that of the
    oscillator within over ``post``.
    """
    divide: int
    multiply: int
    post: int
    output: float


@dataclass(frozen=True, kw_only=True)
class Family:
    """Limits of a family's loops: largest dividers before the loop and in it, the ``posts`` behind it, and ranges in Hz of what is
    ``compared``, of the oscillator ``within``, and of the ``outputs``. What is fed back is the output; where ``is_before``, what
    ``post`` divides.
    """
    divides: int
    multiplies: int
    posts: tuple
    compared: tuple
    within: tuple
    outputs: tuple
    is_before: bool = False


FAMILIES = {
    # Lattice FPGA-DS-02012. It feeds back one output and gives another.
    "ecp5": Family(divides=128, multiplies=128, posts=tuple(range(1, 129)), compared=(10e6, 400e6), within=(400e6, 800e6),
                   outputs=(3.125e6, 400e6), is_before=True),
    # Lattice FPGA-TN-02052.
    "ice40": Family(divides=16, multiplies=128, posts=tuple(2 ** n for n in range(1, 7)), compared=(10e6, 133e6),
                    within=(533e6, 1066e6), outputs=(16e6, 275e6), is_before=True),
    # Gowin UG286; what all of the devices with an rPLL have, of their speed C6/I5.
    "gowin": Family(divides=64, multiplies=64, posts=(2, 4, 8, 16, 32, 48, 64, 80, 96, 112, 128), compared=(3e6, 400e6),
                    within=(500e6, 900e6), outputs=(3.125e6, 450e6)),
}


def family_of(platform):
    """Which of `FAMILIES` an Amaranth platform is of; None if of none."""
    if isinstance(platform, LatticePlatform):
        return "ecp5" if platform.family == "ecp5" else None
    return "ice40" if isinstance(platform, SiliconBluePlatform) else "gowin" if isinstance(platform, GowinPlatform) else None


def has_loop(platform):
    """Whether `Clocking` knows a loop of this device that takes its oscillator."""
    if platform.default_clk in ("OSCG", "SB_HFOSC", "SB_LFOSC", "OSC"):
        return False
    # The others have a PLLVR or PLLA.
    return not isinstance(platform, GowinPlatform) or platform.series in ("GW2A", "GW2AR") or platform.size in ("1", "9")


def loops(family, oscillator):
    """A `Loop` for each output that can be made of ``oscillator`` Hz, fastest first."""
    facts = FAMILIES[family]
    found = {}
    for divide in range(1, facts.divides + 1):
        compared = oscillator / divide
        if not facts.compared[0] <= compared <= facts.compared[1]:
            continue
        for multiply in range(1, facts.multiplies + 1):
            for post in facts.posts:
                output = compared * multiply / (post if facts.is_before else 1)
                if facts.within[0] <= output * post <= facts.within[1] and facts.outputs[0] <= output <= facts.outputs[1]:
                    found.setdefault(round(output), Loop(divide=divide, multiply=multiply, post=post, output=output))
    return [found[output] for output in sorted(found, reverse=True)]


class Clocking(Elaboratable):
    """What drives the domain ``sync`` of a board: a `Loop` at its oscillator, and a reset until memories can be read."""
    def __init__(self, loop):
        self._loop = loop

    def elaborate(self, platform):
        m = Module()

        output, locked, seen = Signal(), Signal(), Signal()
        port = platform.request(platform.default_clk, dir="-")
        if family_of(platform) == "ice40":
            # The pin is the loop's own: no buffer may be between.
            oscillator = port.io
        else:
            m.submodules.buffer = buffer = io.Buffer("i", port)
            oscillator = buffer.i
        megahertz = {"i": f"{platform.default_clk_frequency / 1e6:g}", "o": f"{self._loop.output / 1e6:g}"}
        m.submodules.loop = getattr(self, f"_{family_of(platform)}")(platform, megahertz, oscillator, output, locked)
        m.domains.start = ClockDomain(reset_less=True, local=True)
        m.d.comb += [ClockSignal("sync").eq(output), ClockSignal("start").eq(output)]

        m.submodules.locked = FFSynchronizer(locked, seen, o_domain="start")
        last = math.ceil(_SETTLING * self._loop.output)
        count = Signal(range(last + 1))
        is_ready = Signal()
        m.d.start += is_ready.eq(seen & (count == last))
        with m.If(~seen):
            m.d.start += count.eq(0)
        with m.Elif(count != last):
            m.d.start += count.eq(count + 1)
        m.submodules.reset = ResetSynchronizer(~is_ready, domain="sync")

        return m

    def _ecp5(self, platform, megahertz, oscillator, output, locked):
        loop = self._loop
        fed_back = Signal()
        return Instance(
            "EHXPLLL", i_CLKI=oscillator, i_CLKFB=fed_back, o_CLKOP=fed_back, o_CLKOS=output, o_LOCK=locked, i_RST=0, i_STDBY=0,
            i_PHASESEL0=0, i_PHASESEL1=0, i_PHASEDIR=1, i_PHASESTEP=1, i_PHASELOADREG=1, i_PLLWAKESYNC=0, i_ENCLKOP=0, i_ENCLKOS=0,
            p_PLLRST_ENA="DISABLED", p_INTFB_WAKE="DISABLED", p_STDBY_ENABLE="DISABLED", p_DPHASE_SOURCE="DISABLED",
            p_OUTDIVIDER_MUXA="DIVA", p_OUTDIVIDER_MUXB="DIVB", p_CLKOP_ENABLE="ENABLED", p_CLKOS_ENABLE="ENABLED",
            p_FEEDBK_PATH="CLKOP", p_CLKI_DIV=loop.divide, p_CLKFB_DIV=1, p_CLKOP_DIV=loop.multiply,
            p_CLKOP_CPHASE=loop.multiply // 2, p_CLKOP_FPHASE=0, p_CLKOS_DIV=loop.post, p_CLKOS_CPHASE=loop.post // 2,
            p_CLKOS_FPHASE=0, a_FREQUENCY_PIN_CLKI=megahertz["i"],
            a_FREQUENCY_PIN_CLKOP=f"{platform.default_clk_frequency / loop.divide / 1e6:g}", a_FREQUENCY_PIN_CLKOS=megahertz["o"],
            a_ICP_CURRENT="12", a_LPF_RESISTOR="8", a_MFG_ENABLE_FILTEROPAMP="1", a_MFG_GMCREF_SEL="2")

    def _ice40(self, platform, megahertz, oscillator, output, locked):
        loop = self._loop
        compared = platform.default_clk_frequency / loop.divide
        return Instance(
            "SB_PLL40_PAD", i_PACKAGEPIN=oscillator, o_PLLOUTGLOBAL=output, o_LOCK=locked, i_RESETB=1, i_BYPASS=0,
            p_FEEDBACK_PATH="SIMPLE", p_PLLOUT_SELECT="GENCLK", p_DIVR=Const(loop.divide - 1, 4),
            p_DIVF=Const(loop.multiply - 1, 7), p_DIVQ=Const(loop.post.bit_length() - 1, 3),
            p_FILTER_RANGE=Const(1 + sum(compared >= end for end in (17e6, 26e6, 44e6, 66e6, 101e6)), 3))

    def _gowin(self, platform, megahertz, oscillator, output, locked):
        loop = self._loop
        fixed = dict.fromkeys(("DYN_IDIV_SEL", "DYN_FBDIV_SEL", "DYN_ODIV_SEL", "DYN_DA_EN", "CLKOUT_BYPASS", "CLKOUTP_BYPASS",
                               "CLKOUTD_BYPASS"), "false")
        return Instance(
            "rPLL", i_CLKIN=oscillator, o_CLKOUT=output, o_LOCK=locked, i_RESET=0, i_RESET_P=0, i_CLKFB=0, i_FBDSEL=Const(0, 6),
            i_IDSEL=Const(0, 6), i_ODSEL=Const(0, 6), i_PSDA=Const(0, 4), i_DUTYDA=Const(0, 4), i_FDLY=Const(0, 4),
            p_DEVICE=platform.family, p_FCLKIN=megahertz["i"], p_IDIV_SEL=loop.divide - 1, p_FBDIV_SEL=loop.multiply - 1,
            p_ODIV_SEL=loop.post, p_CLKFB_SEL="internal", p_PSDA_SEL="0000", p_DUTYDA_SEL="1000", p_CLKOUT_FT_DIR=Const(1, 1),
            p_CLKOUTP_FT_DIR=Const(1, 1), p_CLKOUT_DLY_STEP=0, p_CLKOUTP_DLY_STEP=0, p_CLKOUTD_SRC="CLKOUT",
            p_CLKOUTD3_SRC="CLKOUT", p_DYN_SDIV_SEL=2, **{f"p_{name}": value for name, value in fixed.items()})
