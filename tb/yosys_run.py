"""Yosys, as a user's flow runs it."""
import subprocess
import sys

from amaranth.back import verilog

__all__ = ["is_never_wrong", "yosys"]


def yosys(script, folder=None):
    """What Yosys says to a script, run in ``folder``; in a process of its own, as it ends the process on an error."""
    code = "import sys\nfrom pyosys import libyosys as ys\nd = ys.Design()\nys.run_pass(sys.argv[1], d)\n"
    done = subprocess.run([sys.executable, "-c", code, script], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def is_never_wrong(component, folder):
    """Whether Yosys proves that the output ``is_wrong`` of a combinational component is never 1; else it has found where it is."""
    (folder / "proven.v").write_text(verilog.convert(component, name="proven", emit_src=False, strip_internal_attrs=True))
    said = yosys("read_verilog proven.v; prep -top proven -flatten; opt -full; sat -prove is_wrong 0 proven", folder)
    assert ("no model found: SUCCESS" in said) != ("model found: FAIL" in said), said
    return "no model found: SUCCESS" in said
