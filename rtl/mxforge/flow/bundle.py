"""The directory that is emitted: Verilog, manifest, and all that goes with them."""
import hashlib
import json
import os
import re
import shutil
from pathlib import Path

from ..errors import MxforgeError

__all__ = ["SUMS", "check_name", "check_target", "files", "write"]

# Names each file with its hash, as sha256sum does: what was emitted, and so may be replaced.
SUMS = "SHA256SUMS"

# Reserved words of IEEE 1800-2017 that a unit might be called.
_RESERVED = """
    accept_on alias always always_comb always_ff always_latch and assert assign assume automatic before begin bind bins
    binsof bit break buf bufif0 bufif1 byte case casex casez cell chandle checker class clocking cmos config const
    constraint context continue cover covergroup coverpoint cross deassign default defparam design disable dist do edge
    else end endcase endchecker endclass endclocking endconfig endfunction endgenerate endgroup endinterface endmodule
    endpackage endprimitive endprogram endproperty endspecify endsequence endtable endtask enum event eventually expect
    export extends extern final first_match for force foreach forever fork forkjoin function generate genvar global
    highz0 highz1 if iff ifnone ignore_bins illegal_bins implements implies import incdir include initial inout input
    inside instance int integer interconnect interface intersect join join_any join_none large let liblist library local
    localparam logic longint macromodule matches medium modport module nand negedge nettype new nexttime nmos nor
    noshowcancelled not notif0 notif1 null or output package packed parameter pmos posedge primitive priority program
    property protected pull0 pull1 pulldown pullup pulsestyle_ondetect pulsestyle_onevent pure rand randc randcase
    randsequence rcmos real realtime ref reg reject_on release repeat restrict return rnmos rpmos rtran rtranif0
    rtranif1 s_always s_eventually s_nexttime s_until s_until_with scalared sequence shortint shortreal showcancelled
    signed small soft solve specify specparam static string strong strong0 strong1 struct super supply0 supply1
    sync_accept_on sync_reject_on table tagged task this throughout time timeprecision timeunit tran tranif0 tranif1 tri
    tri0 tri1 triand trior trireg type typedef union unique unique0 unsigned until until_with untyped use uwire var
    vectored virtual void wait wait_order wand weak weak0 weak1 while wildcard wire with within wor xnor xor
"""


def check_name(module):
    """``MxforgeError`` unless ``module`` can name a Verilog module."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", module) or module in _RESERVED.split():
        raise MxforgeError(f"--name must be a Verilog identifier, not {module!r}")


def files(text, manifest):
    """What is emitted: ``{path in the directory: text}``."""
    name = manifest["name"]
    return {
        f"{name}.v": text,
        f"{name}.json": json.dumps(manifest, indent=2) + "\n",
    }


def _sum(content):
    return hashlib.sha256(content).hexdigest()


def _emitted(directory):
    """``{path: hash}`` of what was emitted into the directory; None if nothing was."""
    try:
        lines = (directory / SUMS).read_text().splitlines()
    except FileNotFoundError:
        return None
    return {path: digest for digest, _, path in (line.partition("  ") for line in lines)}


def check_target(directory, module, force=False, paths=()):
    """``MxforgeError`` unless ``paths`` can be written for ``module`` without harm to what is there.

    A directory is new, empty, or one that held the same module before, with no file changed since or in the way
    (``force`` replaces such).
    """
    for path in (directory, *directory.parents):
        if path.exists() and not path.is_dir():
            raise MxforgeError(f"{path} is a file; -o must be a directory")
    if not directory.exists():
        return
    if not any(directory.iterdir()):
        return
    before = _emitted(directory)
    if before is None:
        raise MxforgeError(f"{directory} has files that mxforge did not emit; -o must be a new or an empty directory")
    if f"{module}.v" not in before:
        held = next((path[:-2] for path in before if path.endswith(".v")), "something else")
        raise MxforgeError(f"{directory} holds {held}; -o must be another directory for {module}")
    if force:
        return
    for path in {*before, *paths}:
        there = directory / path
        if there.exists() and (path not in before or _sum(there.read_bytes()) != before[path]):
            raise MxforgeError(f"{there} was changed since it was emitted; --force replaces it")


def write(files, directory, module, force=False):
    """Write ``files`` into ``directory``, all or none; those of an earlier emission that are no longer among them go."""
    directory = Path(directory)
    check_target(directory, module, force, files)
    sums = "".join(f"{_sum(text.encode())}  {path}\n" for path, text in sorted(files.items()))
    directory.parent.mkdir(parents=True, exist_ok=True)
    fresh = directory.parent / f".{directory.name}.{os.getpid()}"
    try:
        for path, text in {**files, SUMS: sums}.items():
            (fresh / path).parent.mkdir(parents=True, exist_ok=True)
            (fresh / path).write_text(text, newline="\n")
        if not directory.exists():
            fresh.rename(directory)
            return
        for path in (_emitted(directory) or {}).keys() - files.keys():
            (directory / path).unlink(missing_ok=True)
        for path in [*files, SUMS]:
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (fresh / path).replace(directory / path)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
