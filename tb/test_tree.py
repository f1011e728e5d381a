"""The tree keeps its own laws."""
import ast
import sys
from pathlib import Path

import pytest

from mxforge import catalog
from mxforge.flow import tables

ROOT = Path(__file__).resolve().parent.parent
RTL = ROOT / "rtl" / "mxforge"
TB = ROOT / "tb"
# Tested where they are used: by every test, or by those of the units that are made of them.
TESTED_ELSEWHERE = {
    "blackwell": "test_scaled_dot", "cli": "test_cli", "emit": "test_catalog", "errors": "test_cli", "packing": "test_packer",
    "raw": "test_formats",
    "round": "test_arith", "scaled_add": "test_scaled_dot", "unit": "test_catalog",
    "flow/bundle": "flow/test_bundle", "flow/checked": "flow/test_demo", "flow/files": "test_cli", "flow/run": "test_cli",
    "flow/tables": "test_tree",
}


def modules(folder):
    return sorted(path for path in folder.rglob("*.py") if not path.name.startswith("__"))


def imports(path):
    """Top-level packages that the module imports by absolute name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("name", [str(path.relative_to(RTL).with_suffix("")) for path in modules(RTL)])
def test_every_module_has_its_test(name):
    folder, _, module = name.rpartition("/")
    test = TESTED_ELSEWHERE.get(name) or f"{folder}/test_{module}".lstrip("/")
    assert (TB / f"{test}.py").exists()


@pytest.mark.parametrize("unit", catalog.UNITS)
def test_every_unit_has_its_golden_stimulus_bench_and_entry(unit):
    for path in (RTL / f"{unit}.py", TB / "mxgolden" / f"{unit}.py", TB / "mxbench" / "stimulus" / f"{unit}.py",
                 TB / f"test_{unit}.py"):
        assert path.exists(), path
    test = (TB / f"test_{unit}.py").read_text()
    assert "simulate(" in test and "verify(" in test, f"test_{unit} lacks a bench in cocotb or in volume"
    assert catalog.ENTRIES[unit].unit == unit
    assert catalog.UNITS[unit].__doc__.count("Members\n") == 1, "its docstring must say what its ports carry"


def names_set(path):
    """Names of keyword arguments, and texts, in a test module but in its tests of what is refused."""
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.FunctionDef) and statement.name.startswith("test_refus"):
            continue
        for node in ast.walk(statement):
            if isinstance(node, ast.keyword):
                yield node.arg
            elif isinstance(node, ast.Constant):
                yield node.value


@pytest.mark.parametrize("unit", catalog.UNITS)
def test_every_parameter_is_set_in_the_units_test(unit):
    missing = set(catalog.UNITS[unit].Parameters.__dataclass_fields__) - set(names_set(TB / f"test_{unit}.py"))
    # A unit without cuts has no stages.
    if not catalog.UNITS[unit].Parameters().cuts:
        missing.discard("stages")
    assert not missing


def test_golden_imports_numpy_only():
    for path in modules(TB / "mxgolden"):
        allowed = {"numpy"} | sys.stdlib_module_names
        assert set(imports(path)) <= allowed, path


def test_bench_needs_no_generator():
    for path in modules(TB / "mxbench"):
        assert "mxforge" not in set(imports(path)) and "amaranth" not in set(imports(path)), path


def test_units_import_no_host_tools():
    for path in sorted(RTL.glob("*.py")):
        if path.stem not in ("cli", "__main__"):
            assert not any(node.module and node.module.startswith("flow") for node in ast.walk(ast.parse(path.read_text()))
                           if isinstance(node, ast.ImportFrom) and node.level), path


def test_tables_are_as_manifests_and_measured_figures_have_them():
    pages = {path: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
    for name in tables.TABLES:
        assert sum(text.count(f"<!-- table {name}: made by make readme -->") for text in pages.values()) == 1, name
    for path, text in pages.items():
        assert tables.filled(text) == text, f"{path.name}: run: make readme"


def test_tables_are_made():
    text = "a\n<!-- table ports: made by make readme -->\nold\n<!-- end of table -->\nb\n"
    made = tables.filled(text)
    assert "old" not in made and made.startswith("a\n") and made.endswith("-->\nb\n")
    assert "| `dequantizer` | `scale` 8, `elements` 32 x 8 = 264 | `values` 32 x 32 = 1024 |" in made
    assert tables.filled(made) == made


def test_changelog_names_every_unit():
    text = (ROOT / "CHANGELOG.md").read_text()
    for component in catalog.UNITS.values():
        assert f"`{component.__name__}`" in text
