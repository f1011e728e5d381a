# amaranth: UnusedElaboratable=no
import json
import re
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
from amaranth import Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from mxbench.axi_stream import Wires
from mxbench.runner import run as run_benches
from mxforge import catalog, parameters
from mxforge.axi_stream import AxiStream
from mxforge.emit import emit, manifest_of
from mxforge.errors import MxforgeError
from mxforge.flow import player
from mxforge.pipeline import Streamed, delay, streamed
from mxforge.unit import Unit

# Each unit, small: of each cadence, with a block in one beat and in several, with and without registers.
CONFIGURATIONS = [
    ("dequantizer", {"lanes": 3, "element": "e2m1", "target": "fp16"}),
    ("dequantizer", {"lanes": 4, "stages": 4}),
    ("block_amax", {"source": "bf16", "block_size": 8, "lanes": 2, "stages": 1}),
    ("block_amax", {"source": "fp16", "block_size": 4, "lanes": 4}),
    ("scale_select", {"source": "bf16", "lanes": 2, "stages": 1}),
    ("element_cast", {"source": "bf16", "lanes": 3, "stages": 2}),
    ("quantizer", {"source": "bf16", "element": "e2m1", "block_size": 8, "lanes": 2, "stages": 3}),
    ("quantizer", {"source": "fp16", "block_size": 16, "lanes": 1}),
    ("quantizer", {"source": "bf16", "block_size": 4, "lanes": 4, "rounding": "stochastic", "stages": 5}),
    ("lfsr", {"width": 5, "lanes": 3, "seed": 7}),
    ("scaled_dot", {"block_size": 4, "lanes": 4, "stages": 4}),
    ("scaled_dot", {"a_element": "e2m1", "b_element": "e2m1", "block_size": 8, "lanes": 2, "target": "bf16", "stages": 2}),
    ("dot_accumulator", {"block_size": 4, "lanes": 4, "window": 24, "max_blocks": 64, "slots": 2, "stages": 3}),
    ("dot_accumulator", {"accumulation": "fp32_fused", "block_size": 8, "lanes": 2, "addend": False, "stages": 8, "slots": 3}),
    ("dual_quantizer", {"source": "bf16", "block_size": 4, "stages": 2}),
    ("matmul_tile", {"rows": 1, "columns": 2, "block_size": 4, "lanes": 2, "stages": 2}),
    ("matmul_layer", {"rows": 1, "columns": 2, "block_size": 4, "lanes": 4, "stages": 2}),
    # More than a cycle between beats.
    ("dot_accumulator", {"accumulation": "fp32_chain", "block_size": 4, "lanes": 4, "target": "bf16", "stages": 28}),
]
# Units that are not among them yet, with their defaults.
CONFIGURATIONS += [(unit, {}) for unit in catalog.UNITS if unit not in dict(CONFIGURATIONS)]

each_configuration = pytest.mark.parametrize(
    ("unit", "options"), CONFIGURATIONS,
    ids=["-".join(map(str, (unit, *options.values()))) for unit, options in CONFIGURATIONS])


class Bytes(Unit):
    """Beats of bytes, a cycle later."""
    is_stateful = True

    class Parameters(parameters.Parameters):
        cuts = ("only",)

    def __init__(self):
        layout = data.StructLayout({"keep": 4, "last": 1, "data": data.ArrayLayout(8, 4)})
        super().__init__(self.Parameters(stages=1), i=layout, o=layout)

    def elaborate(self, platform):
        m = Module()
        m.d.comb += [
            self.o.eq(delay(m, self.i, 1, name="beat")),
            self.o_valid.eq(delay(m, self.i_valid, 1, name="valid", reset_less=False)),
        ]
        return m


@each_configuration
def test_bench(simulate, unit, options):
    simulate(AxiStream(catalog.UNITS[unit](**options)), f"{unit}_axis", blocks=300)


@pytest.mark.parametrize("style", [{"reset": "async"}, {"init": False}, {"reset": "async", "init": False}],
                         ids=["async", "no_init", "asic"])
def test_bench_of_other_styles(simulate, style):
    core = catalog.UNITS["quantizer"](source="bf16", block_size=4, lanes=2, stages=1)
    simulate(AxiStream(core), "quantizer_axis", blocks=300, **style)


# Small ones first; those with their defaults are slow.
@pytest.mark.parametrize(("unit", "options"), [
    pytest.param(unit, options, id="-".join(map(str, (unit, *options.values()))), marks=() if options else pytest.mark.slow)
    for unit, options in CONFIGURATIONS])
@pytest.mark.parametrize("stalls", [pytest.param(None, marks=pytest.mark.slow), 1], ids=["full_speed", "stalls"])
def test_volume(verify, unit, options, stalls):
    verify(catalog.UNITS[unit](**options), 20_000, axi=True, stalls=stalls)


def test_timing_is_that_of_plain_streams():
    for unit, options in CONFIGURATIONS:
        core = catalog.UNITS[unit](**options)
        axi, plain = manifest_of(AxiStream(core), "one"), manifest_of(streamed(core), "one")
        for fact in "latency", "interval", "beats", "cadence", "parameters":
            assert axi[fact] == plain[fact], fact


def test_cover_is_one():
    """What the benches have of each kind."""
    manifests = [manifest_of(AxiStream(catalog.UNITS[unit](**options)), unit) for unit, options in CONFIGURATIONS]
    assert {manifest["unit"] for manifest in manifests} == set(catalog.UNITS)
    kinds = {(manifest["cadence"], manifest["beats"]["i"] > 1) for manifest in manifests}
    assert {("each", False), ("some", False), ("some", True), ("blocks", True)} <= kinds
    assert any(np.max(manifest["interval"]) > 1 for manifest in manifests)
    assert any(manifest["latency"] == 1 for manifest in manifests), "no core without latency"


@pytest.mark.parametrize(("right", "wrong", "complaint"), [
    (r"assign m_axis_tlast = (.*);", r"assign m_axis_tlast = ~ \1;", "tlast"),
    (r"assign m_axis_tlast = .*;", "assign m_axis_tlast = 1'b1;", "tlast"),
    (r"assign m_axis_tkeep = 3'h7;", "assign m_axis_tkeep = 3'h5;", "not all ones"),
    (r"\.o__valid\(m_axis_tvalid\)", ".o__valid(planted)", "tvalid"),
    (r"assign rst = ~ aresetn;", "assign rst = 1'b0;", "tvalid is high after an edge in reset"),
    (r"(m_axis_tdata\[7:0\]) = (.*);", r"\1 = \2 ^ {8{~ m_axis_tready}};", "changed before a transfer"),
])
def test_bench_notices(sim_build, tmp_path, right, wrong, complaint):
    """Planted errors."""
    text, manifest = emit(AxiStream(catalog.UNITS["quantizer"](source="bf16", block_size=4, lanes=2, stages=1)), "planted")
    broken, count = re.subn(right, wrong, text)
    assert count == 1
    if "planted)" in wrong:
        gated = "  wire planted;\n  assign m_axis_tvalid = planted & m_axis_tready;\n"
        broken = broken.replace("  assign rst", f"{gated}  assign rst", 1)
    verilog, contract, log = tmp_path / "planted.v", tmp_path / "manifest.json", tmp_path / "sim.log"
    verilog.write_text(broken)
    contract.write_text(json.dumps(manifest))
    count, failed = run_benches(verilog, contract, ["mxbench.axi_stream"], sim_build, log_file=log,
                                extra_env={"MXFORGE_BLOCKS": "120"})
    assert count > 0 and failed > 0
    assert complaint in log.read_text()


@pytest.mark.parametrize("wrap", [AxiStream, lambda core: AxiStream(Streamed(core))], ids=["core", "streamed"])
def test_bytes(sim_build, wrap):
    """``data``, ``keep`` and ``last`` are ``tdata``, ``tkeep`` and ``tlast``."""
    text, manifest = emit(wrap(Bytes()), "bytes")
    assert {name: port["width"] for name, port in manifest["ports"].items()} == {
        "aclk": 1, "aresetn": 1,
        "s_axis_tvalid": 1, "s_axis_tready": 1, "s_axis_tdata": 32, "s_axis_tkeep": 4, "s_axis_tlast": 1,
        "m_axis_tvalid": 1, "m_axis_tready": 1, "m_axis_tdata": 32, "m_axis_tkeep": 4, "m_axis_tlast": 1,
    }
    for side in "s_axis", "m_axis":
        for name in "data", "keep", "last":
            (field,) = manifest["ports"][f"{side}_t{name}"]["fields"]
            assert (field["name"], field["offset"]) == (name, 0)
    rng = np.random.default_rng(1)
    rows = 10_000
    inputs = {"data": rng.integers(0, 256, (rows, 4), dtype=np.uint8), "keep": rng.integers(0, 16, rows, dtype=np.uint8),
              "last": rng.integers(0, 2, rows, dtype=np.uint8)}
    got = player.build(text, manifest, sim_build).play(inputs, stalls=3)
    for name, values in inputs.items():
        np.testing.assert_array_equal(got[name], values)


def test_packets_of_the_bus_model():
    """Beats to frames and back, with and without ``keep`` among the fields."""
    rng = np.random.default_rng(5)
    for core, keep_width in (Bytes(), 4), (catalog.UNITS["dequantizer"](lanes=4), 0):
        manifest = manifest_of(AxiStream(core), "one")
        wires = Wires(SimpleNamespace(**dict.fromkeys(manifest["ports"])), manifest, "s_axis", "i")
        width = manifest["ports"]["s_axis_tdata"]["width"]
        beats = [int.from_bytes(rng.bytes(16)) % (1 << (width + keep_width + 1)) for _ in range(200)]
        beats[-1] |= 1 << (width + keep_width)
        packets = list(wires.to_packets(beats))
        assert len(packets) == sum(beat >> (width + keep_width) for beat in beats)
        assert [beat for packet in packets for beat in wires.to_beats(packet)] == beats
        with pytest.raises(AssertionError, match="must end its packet"):
            list(wires.to_packets([0]))


def test_fields_and_padding():
    core = catalog.UNITS["dot_accumulator"](block_size=4, lanes=4)
    ports = manifest_of(AxiStream(core), "dot")["ports"]
    assert [(field["name"], field["offset"]) for field in ports["s_axis_tdata"]["fields"]] == [
        ("first", 0), ("a_scale", 1), ("a_elements", 9), ("b_scale", 41), ("b_elements", 49), ("c", 81)]
    # 113 bits of fields.
    assert (ports["s_axis_tdata"]["width"], ports["s_axis_tkeep"]["width"]) == (120, 15)
    assert [field["name"] for field in ports["s_axis_tlast"]["fields"]] == ["last"]
    assert "fields" not in ports["m_axis_tlast"]
    assert [field["name"] for field in ports["m_axis_tdata"]["fields"]] == ["result", "is_out_of_window"]
    assert (ports["m_axis_tdata"]["width"], ports["m_axis_tkeep"]["width"]) == (40, 5)


def test_contract_says_how_packets_go():
    def header(unit, **options):
        return emit(AxiStream(catalog.UNITS[unit](**options)), "one")[0].partition("\nmodule")[0]

    text = header("quantizer", block_size=4, lanes=2)
    assert "m_axis_tlast of a block's last beat is s_axis_tlast of its last input beat" in text
    assert "aresetn is active low and synchronous." in text
    assert "m_axis_tkeep is all ones." in text
    text = header("dot_accumulator", block_size=4, lanes=4)
    assert "m_axis_tlast is s_axis_tlast of the beat that gives the output beat" in text
    assert "[119:113] are not looked at" in text and "[39:33] zeros" in text
    assert "s_axis_tlast, 1 bit:\n//   [0:0] last  1 asks for the result" in text


def test_clock_edge_is_the_ports(tmp_path):
    """No net between `aclk` and the registers, that would delay their edges in simulation."""
    text = emit(AxiStream(catalog.UNITS["dequantizer"](lanes=1, stages=1)), "one", reset="async")[0]
    edges = set(re.findall(r"posedge (\w+)", text))
    assert edges == {"aclk", "rst"} and "assign aclk" not in text


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus is not installed (apt-get install iverilog)")
def test_icarus_runs_it(tmp_path):
    """Another simulator sees the same: a beat goes through, with its mark."""
    (tmp_path / "one.v").write_text(emit(AxiStream(catalog.UNITS["dequantizer"](lanes=1, stages=1)), "one")[0])
    (tmp_path / "top.v").write_text("""\
module top;
  reg aclk = 0, aresetn = 0, valid = 0;
  wire ready, out, last;
  wire [31:0] value;
  always #5 aclk = ~aclk;
  one u_one (.aclk(aclk), .aresetn(aresetn), .s_axis_tvalid(valid), .s_axis_tready(ready), .s_axis_tdata({8'h38, 8'd128}),
             .s_axis_tkeep(2'b11), .s_axis_tlast(1'b1), .m_axis_tvalid(out), .m_axis_tready(1'b1), .m_axis_tdata(value),
             .m_axis_tkeep(), .m_axis_tlast(last));
  initial begin
    repeat (3) @(posedge aclk);
    aresetn <= 1;
    valid <= 1;
    @(posedge aclk);
    valid <= 0;
  end
  always @(posedge aclk) if (out) begin
    $display("%h %b", value, last);
    $finish;
  end
endmodule
""")
    program = tmp_path / "top.vvp"
    subprocess.run(["iverilog", "-g2005", "-s", "top", "-o", program, tmp_path / "top.v", tmp_path / "one.v"], check=True)
    said = subprocess.run(["vvp", "-N", program], check=True, capture_output=True, text=True).stdout
    # 1.0 times two.
    assert said.splitlines()[0] == "40000000 1"


def _streams(**layouts):
    return wiring.Signature({side: flow(stream.Signature(data.StructLayout(layouts[side])))
                             for side, flow in (("i", In), ("o", Out))})


class _Nothing(wiring.Component):
    def elaborate(self, platform):
        raise NotImplementedError


@pytest.mark.parametrize(("signature", "message"), [
    (_streams(i={"last": 1, "values": 8}, o={"values": 8}), "must have last at its output, where packets end"),
    (wiring.Signature({"a": In(stream.Signature(8))}), "must have a stream i of a structure"),
    (wiring.Signature({"i": In(stream.Signature(8)), "o": Out(stream.Signature(8))}), "must have a stream i of a structure"),
    (_streams(i={"last": 1, "keep": 3, "data": 32}, o={"last": 1}),
     "must have data, a bit of keep for each byte of it, and last, not last, keep, data"),
    (_streams(i={"last": 1, "keep": 4, "data": 32, "user": 1}, o={"last": 1}),
     "must have data, a bit of keep for each byte of it, and last, not last, keep, data, user"),
])
def test_refuses(signature, message, monkeypatch):
    with pytest.raises(TypeError, match=message):
        AxiStream(_Nothing(signature))
    monkeypatch.setitem(catalog.UNITS, "nothing", lambda: _Nothing(signature))
    with pytest.raises(MxforgeError, match=f"nothing can't be put between AXI4-Streams: .*{message}"):
        catalog.Entry(name="nothing", unit="nothing", axi=True).component()
