"""What synthesis makes of a board's design, simulated: a virtual board of the very netlist that place and route gets."""
import re
from pathlib import Path

import pyosys
from yosys_run import yosys

from mxforge.fpga import build, virtual
from mxforge.fpga.boards import find
from mxforge.fpga.clocking import family_of

# Pins and loops, which Yosys knows only from outside; and memories, for which it has no models: those families get theirs in LUTs.
_MODELS = {
    "ice40": ("", """
        module SB_PLL40_PAD(input PACKAGEPIN, RESETB, BYPASS, output PLLOUTGLOBAL, LOCK);
          parameter FEEDBACK_PATH = "", PLLOUT_SELECT = "", DIVR = 0, DIVF = 0, DIVQ = 0, FILTER_RANGE = 0;
          assign PLLOUTGLOBAL = PACKAGEPIN, LOCK = 1;
        endmodule
        module SB_IO(inout PACKAGE_PIN, input D_OUT_0, D_OUT_1, OUTPUT_ENABLE, LATCH_INPUT_VALUE, CLOCK_ENABLE, INPUT_CLK,
                     OUTPUT_CLK, output D_IN_0, D_IN_1);
          parameter [5:0] PIN_TYPE = 0;
          parameter IO_STANDARD = "", PULLUP = 0, NEG_TRIGGER = 0;
          if (PIN_TYPE[5:2] == 0) assign D_IN_0 = PACKAGE_PIN; else assign PACKAGE_PIN = D_OUT_0;
        endmodule"""),
    "ecp5": (" -nobram", """
        module EHXPLLL(input CLKI, CLKFB, RST, STDBY, PHASESEL0, PHASESEL1, PHASEDIR, PHASESTEP, PHASELOADREG, PLLWAKESYNC, ENCLKOP,
                       ENCLKOS, output CLKOP, CLKOS, LOCK);
          parameter PLLRST_ENA = "", INTFB_WAKE = "", STDBY_ENABLE = "", DPHASE_SOURCE = "", OUTDIVIDER_MUXA = "",
                    OUTDIVIDER_MUXB = "", CLKOP_ENABLE = "", CLKOS_ENABLE = "", FEEDBK_PATH = "", CLKI_DIV = 0, CLKFB_DIV = 0,
                    CLKOP_DIV = 0, CLKOP_CPHASE = 0, CLKOP_FPHASE = 0, CLKOS_DIV = 0, CLKOS_CPHASE = 0, CLKOS_FPHASE = 0;
          assign CLKOP = CLKI, CLKOS = CLKI, LOCK = 1;
        endmodule
        module TRELLIS_IO(inout B, input I, T, output O);
          parameter DIR = "INPUT";
          if (DIR == "INPUT") assign O = B; else assign B = I;
        endmodule"""),
    "gowin": (" -nobram", """
        module rPLL(input CLKIN, CLKFB, RESET, RESET_P, input [5:0] FBDSEL, IDSEL, ODSEL, input [3:0] PSDA, DUTYDA, FDLY,
                    output CLKOUT, LOCK);
          parameter DEVICE = "", FCLKIN = "", IDIV_SEL = 0, FBDIV_SEL = 0, ODIV_SEL = 0, CLKFB_SEL = "", PSDA_SEL = "",
                    DUTYDA_SEL = "", CLKOUT_FT_DIR = 0, CLKOUTP_FT_DIR = 0, CLKOUT_DLY_STEP = 0, CLKOUTP_DLY_STEP = 0,
                    CLKOUTD_SRC = "", CLKOUTD3_SRC = "", DYN_SDIV_SEL = 2, DYN_IDIV_SEL = "", DYN_FBDIV_SEL = "", DYN_ODIV_SEL = "",
                    DYN_DA_EN = "", CLKOUT_BYPASS = "", CLKOUTP_BYPASS = "", CLKOUTD_BYPASS = "";
          assign CLKOUT = CLKIN, LOCK = 1;
        endmodule
        module TBUF(output O, input I, OEN);
          assign O = I;
        endmodule"""),
}


def program(name, design, clock, build_dir, folder):
    """A program as `mxforge.fpga.virtual.build` gives it, of a board's ``design`` at a clock of `build`."""
    kit, platform = find(name)
    family = family_of(platform)
    options, models = _MODELS[family]
    files = build._plan(kit, design, clock, 0, 1)
    (folder / "top.il").write_text(files["top.il"])
    (folder / "models.v").write_text(models + f"""
        module board(input clk, units_clk, rx, output tx, is_busy, is_active);
          assign is_busy = 1, is_active = 0;
          top top(.{platform.default_clk}_0__io(clk), .uart_0__rx__io(rx), .uart_0__tx__io(tx));
        endmodule""")
    synthesis, = re.findall(r"synth_\w+ .*", files["top.ys"])
    library = Path(pyosys.__file__).parent / "share" / family / "cells_sim.v"
    yosys("; ".join([
        "read_rtlil top.il", f"{synthesis}{options}", "delete =A:blackbox", f"read_verilog -D ICE40_U -overwrite {library}",
        "read_verilog -overwrite models.v", "hierarchy -check -top board", "proc", "flatten", "opt_clean", "opt -fast",
        "write_verilog -noattr gates.v"]), folder)
    return virtual.program((folder / "gates.v").read_text(), design.divisor, build_dir)
