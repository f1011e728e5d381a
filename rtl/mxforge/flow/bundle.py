"""The directory that is emitted: Verilog, manifest, and all that goes with them."""
import ast
import hashlib
import json
import os
import re
import shutil
from importlib import metadata, resources
from pathlib import Path

import mxbench
import mxgolden

from ..emit import CLOCKS, RESERVED, comment, contract_lines, field_span, padding_of, payloads
from ..errors import MxforgeError
from .files import check_folder

__all__ = ["SUMS", "check_name", "check_target", "files", "write"]

# Names each file with its hash, as sha256sum does: what was emitted, and so may be replaced.
SUMS = "SHA256SUMS"
_LONGEST_NAME = 100
# Verilator keeps the ports of the top and TOP in one scope with the module's name.
_TAKEN_NAMES = frozenset([
    "TOP", *CLOCKS, "i", "o", "i_valid", "o_valid",
    *(f"{side}__{member}" for side in "io" for member in ("payload", "valid", "ready")),
    *(f"{side}_axis_t{member}" for side in "sm" for member in ("valid", "ready", "data", "keep", "last"))])


def check_name(module):
    """``MxforgeError`` unless ``module`` can name a Verilog module, and files, beside its own ports."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", module) or module in RESERVED:
        raise MxforgeError(f"--name must be a Verilog identifier, not {module!r}")
    if len(module) > _LONGEST_NAME:
        raise MxforgeError(f"--name must have {_LONGEST_NAME} characters at most, not {len(module)}")
    if module in _TAKEN_NAMES:
        raise MxforgeError(f"--name must not be that of a port or of Verilator's own top, {module}")


def files(text, manifest):
    """What is emitted: ``{path in the directory: text}``."""
    name = manifest["name"]
    return {
        f"{name}.v": text,
        f"{name}.json": json.dumps(manifest, indent=2) + "\n",
        f"{name}_pkg.sv": _package(manifest),
        f"{name}_template.svh": _template(manifest),
        f"{name}.core": _fusesoc(manifest),
        **_bench(manifest),
    }


def _package(manifest):
    name = manifest["name"]
    lines = [f"package {name}_pkg;", "  /* verilator lint_off UNUSEDPARAM */",
             *(f"  {constant['verilog']}" for constant in manifest["constants"]), "  /* verilator lint_on UNUSEDPARAM */"]
    for side, port in payloads(manifest).items():
        port = manifest["ports"][port]
        lines += ["", "  typedef struct packed {"]
        if padding := padding_of(port):
            lines.append(f"    logic [{padding - 1}:0] padding;")
        # A packed structure lists its most significant field first, the manifest its least.
        for field in reversed(port["fields"]):
            items = f"[{field['count'] - 1}:0]" if "count" in field else ""
            bits = f"[{field['width'] - 1}:0]" if field["width"] > 1 or items else ""
            shape = f"{items}{bits} ".lstrip()
            lines.append(f"    logic {shape}{field['name']};  // {field_span(field)} {field['meaning']}")
        lines.append(f"  }} {side}_t;")
    return comment(manifest) + "\n".join([*lines, "endpackage"]) + "\n"


def _template(manifest):
    name = manifest["name"]
    types = {port: f"{name}_pkg::{side}_t" for side, port in payloads(manifest).items()}
    lines, connections = [], []
    for port, facts in manifest["ports"].items():
        if port in CLOCKS:
            connections.append((port, port))
            continue
        local = f"{name}_{port.replace('__', '_')}"
        bits = f"[{facts['width'] - 1}:0] " if facts["width"] > 1 else ""
        lines.append(f"{types.get(port, f'logic {bits}'.rstrip())} {local};")
        connections.append((port, local))
    joined = ",\n".join(f"  .{port}({local})" for port, local in connections)
    return f"{comment(manifest)}" + "\n".join([*lines, "", f"{name} u_{name} (", joined, ");"]) + "\n"


def _fusesoc(manifest):
    name = manifest["name"]
    return f"""\
CAPI=2:
{comment(manifest, "#")}name: mxforge:{manifest["unit"]}:{name}:{manifest["mxforge"]}
description: "{manifest["command"]}"

filesets:
  rtl:
    files:
      - {name}_pkg.sv: {{file_type: systemVerilogSource}}
      - {name}.v: {{file_type: verilogSource}}

targets:
  default: &default
    filesets: [rtl]
    toplevel: {name}
  lint:
    <<: *default
    flow: lint
    flow_options:
      tool: verilator
      verilator_options: [-Wall]
"""


def _bench(manifest):
    """The directory's Makefile and README, and benches that need no mxforge."""
    kind = "axi" if manifest["axi"] else "stream" if manifest["streamed"] else "core"
    values = {
        "NAME": manifest["name"], "UNIT": manifest["unit"],
        "BENCH": {"axi": "axi_stream", "stream": "bench", "core": "core"}[kind],
        "VERSION": manifest["mxforge"], "COMMAND": manifest["command"], "CONTRACT": "\n".join(contract_lines(manifest)),
        "PARAMETERS": ", ".join(f"{name} {value}" for name, value in manifest["parameters"].items()),
    }
    templates = resources.files(__package__) / "templates" / "unit"

    def filled(path):
        return re.sub(r"@([A-Z]+)@", lambda match: values[match[1]], (templates / path).read_text())

    found = {
        "Makefile": filled("Makefile.in"),
        "README.md": filled("README.md.in"),
        "bench/run.py": filled("bench/run.py.in"),
        "bench/example.py": filled(f"bench/example_{kind}.py.in"),
        # The bus model of AXI.
        "bench/requirements.txt": filled("bench/requirements.txt.in") + "cocotbext-axi>=0.1.28\n" * (kind == "axi"),
        "bench/LICENSE": _licence(),
    }
    for package, left_out in ((mxgolden, ()), (mxbench, ("stimulus", "safetensors.py", *["axi_stream.py"] * (kind != "axi")))):
        for path, text in _sources(resources.files(package)):
            if path.partition("/")[0] not in left_out:
                found[f"bench/{package.__name__}/{path}"] = text
    found |= _stimulus(manifest["unit"])
    return found


def _sources(folder, prefix=""):
    for item in sorted(folder.iterdir(), key=lambda item: item.name):
        if item.is_dir() and item.name != "__pycache__":
            yield from _sources(item, f"{prefix}{item.name}/")
        elif item.name.endswith((".py", ".h")):
            yield prefix + item.name, item.read_text()


def _stimulus(unit):
    """The stimulus of ``unit``, and of what it imports beside it."""
    folder = resources.files(mxbench) / "stimulus"
    found = {}
    waiting = ["__init__", unit]
    while waiting:
        module = waiting.pop()
        path = f"bench/mxbench/stimulus/{module}.py"
        if path not in found:
            found[path] = (folder / f"{module}.py").read_text()
            for node in ast.walk(ast.parse(found[path])):
                if isinstance(node, ast.ImportFrom) and node.level:
                    waiting += [node.module] if node.module else [name.name for name in node.names]
    return found


def _licence():
    """Apache-2.0, as this clone or the installed distribution has it."""
    clone = Path(__file__).resolve().parents[3] / "LICENSE"
    return clone.read_text() if clone.exists() else metadata.distribution("mxforge").read_text("licenses/LICENSE")


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
    check_folder(directory)
    # It is made under another name beside its own.
    check_folder(directory.absolute().parent)
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
    fresh = directory.parent / f".{directory.name}.{os.getpid()}"
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
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
    except OSError as error:
        raise MxforgeError(f"{directory} can't be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
