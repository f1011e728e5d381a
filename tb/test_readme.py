"""What README and docs tell users to type works."""
import re
import shlex
from pathlib import Path

import pytest

from mxbench import verilator
from mxforge import cli

ROOT = Path(__file__).resolve().parent.parent
# A fenced block, and the mark of those that aren't run.
BLOCK = re.compile(r"(<!-- not run by tests: [^>]+ -->\n)?^```(\w+)\n(.*?)^```$", re.M | re.S)


def blocks(path):
    return BLOCK.findall((ROOT / path).read_text())


@pytest.mark.parametrize("path", ["README.md", "docs/golden.md", "docs/embedding.md", "docs/link.md"])
def test_what_it_shows_runs(path, tmp_path, monkeypatch, capfd, sim_build):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MXFORGE_BUILD_DIR", str(sim_build))
    ran = 0
    for mark, language, text in blocks(path):
        if mark or language == "text":
            continue
        if language == "python":
            exec(compile(text, path, "exec"), {})
        elif language == "systemverilog":
            lint_with_emitted(text, tmp_path)
        else:
            for line in text.splitlines():
                program, *arguments = shlex.split(line, comments=True)
                assert program == "mxforge", line
                assert cli.main(arguments) == 0, capfd.readouterr().err
        ran += 1
    assert ran


def lint_with_emitted(text, folder):
    """Verilator's word on a module among the units that were emitted below ``folder``."""
    name = re.search(r"^module (\w+)", text, re.M)[1]
    top = folder / f"{name}.sv"
    top.write_text(text)
    used = sorted({unit for unit in re.findall(r"\b(\w+)_pkg::", text)})
    units = [path for unit in used for kind in ("_pkg.sv", ".v") for path in folder.rglob(f"{unit}{kind}")]
    verilator.lint([*units, top], name)


def test_nothing_is_left_to_write():
    mark = re.compile(r"@[A-Z]+@|\b(TODO|TBD|FIXME|XXX)\b|<!-- (?!table |end of table|not run by tests: )")
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.md")]:
        assert not mark.search(path.read_text()), path


def test_commands_are_in_readme():
    """Every command of the command line, and every target of the Makefile that users are meant to call."""
    text = (ROOT / "README.md").read_text()
    for name in cli.cli.commands:
        assert f"mxforge {name}" in text or f"make {name}" in text, name
    for target in re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)[1].split():
        if target not in ("demo", "distclean"):
            assert f"make {target}" in text, target


def test_blocks_and_marks_are_found():
    found = BLOCK.findall("<!-- not run by tests: why -->\n```sh\nmake\n```\n\n```sh\nmxforge list\n```\n")
    assert [(bool(mark), *rest) for mark, *rest in found] == [(True, "sh", "make\n"), (False, "sh", "mxforge list\n")]
