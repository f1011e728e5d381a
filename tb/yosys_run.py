"""Yosys, as a user's flow runs it."""
import subprocess
import sys

__all__ = ["yosys"]


def yosys(script, folder=None):
    """What Yosys says to a script, run in ``folder``; in a process of its own, as it ends the process on an error."""
    code = "import sys\nfrom pyosys import libyosys as ys\nd = ys.Design()\nys.run_pass(sys.argv[1], d)\n"
    done = subprocess.run([sys.executable, "-c", code, script], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
