# amaranth: UnusedElaboratable=no
import json
import struct

import numpy as np
import pytest

from mxbench import verilator
from mxforge.dequantizer import Dequantizer
from mxforge.emit import emit
from mxforge.flow import player
from mxforge.pipeline import Streamed

# A register between two streams that passes `a` and the inverse of `b`.
REGISTER = """
module register(input clk, input rst, input [7:0] i__payload, input i__valid, output i__ready,
                output reg [7:0] o__payload, output o__valid, input o__ready);
  reg full;
  assign o__valid = full;
  assign i__ready = !full || o__ready;
  always @(posedge clk) begin
    if (o__ready) full <= 0;
    if (i__valid && i__ready) begin
      full <= 1;
      o__payload <= {~i__payload[7:4], i__payload[3:0]};
    end
    if (rst) full <= 0;
  end
endmodule
"""


def port(direction, width, *fields):
    return {"dir": direction, "width": width} | ({"fields": list(fields)} if fields else {})


def field(name, offset, width, count=None):
    return {"name": name, "offset": offset, "width": width, "signed": False} | ({"count": count} if count else {})


def manifest_of(name, inputs, outputs, **facts):
    width_in, width_out = (sum(f["width"] * f.get("count", 1) for f in fields) for fields in (inputs, outputs))
    streamed = facts.get("streamed", True)
    clock = {"clk": port("in", 1), "rst": port("in", 1)}
    if streamed:
        ports = clock | {
            "i__payload": port("in", width_in, *inputs), "i__valid": port("in", 1), "i__ready": port("out", 1),
            "o__payload": port("out", width_out, *outputs), "o__valid": port("out", 1), "o__ready": port("in", 1)}
    else:
        ports = clock | {"i": port("in", width_in, *inputs), "o": port("out", width_out, *outputs)}
    return {"name": name, "unit": name, "streamed": True, "cadence": "each", "latency": 1, "interval": 1,
            "beats": {"i": 1, "o": 1}, "reset": "sync", "ports": ports} | facts


def register(text=REGISTER):
    nibbles = field("a", 0, 4), field("b", 4, 4)
    return text, manifest_of("register", nibbles, nibbles)


def vectors(count, **widths):
    rng = np.random.default_rng(7)
    return {name: rng.integers(0, 1 << width, count, dtype=np.min_scalar_type((1 << width) - 1))
            for name, width in widths.items()}


@pytest.fixture
def build(sim_build):
    return lambda text, manifest: player.build(text, manifest, sim_build)


@pytest.mark.parametrize("stalls", [None, 1, 2])
def test_every_row_comes_once_in_order(build, stalls):
    unit = build(*register())
    inputs = vectors(20_000, a=4, b=4)
    seen = []
    outputs = unit.play(inputs, stalls=stalls, progress=lambda done, total: seen.append((done, total)))
    assert (outputs["a"] == inputs["a"]).all() and (outputs["b"] == inputs["b"] ^ 15).all()
    assert outputs["a"].dtype == np.uint8
    assert seen[-1] == (20_000, 20_000) and seen == sorted(seen)
    if stalls is None:
        assert (unit.last.latency, unit.last.interval) == (1, 1)
    else:
        assert unit.last.cycles > 25_000, "nothing stalled"
    assert unit.last.inputs == unit.last.outputs == 20_000


def test_same_seed_same_cycles(build):
    unit = build(*register())
    inputs = vectors(2_000, a=4, b=4)
    cycles = []
    for stalls in (5, 5, 6):
        unit.play(inputs, stalls=stalls)
        cycles.append(unit.last.cycles)
    assert cycles[0] == cycles[1] != cycles[2]


@pytest.mark.parametrize(("was", "becomes", "message"), [
    ("assign o__valid = full;", "reg [3:0] n = 0; always @(posedge clk) n <= n + 1; assign o__valid = full && n != 0;",
     "o.valid dropped before a transfer"),
    ("if (rst) full <= 0;", "if (rst) full <= 0; if (full && !o__ready) o__payload <= o__payload + 1;",
     "o.payload changed while o.valid waited"),
    ("assign o__valid = full;", "assign o__valid = full && o__ready;", "o.valid depends on o.ready"),
    ("assign o__valid = full;", "assign o__valid = full && i__valid;", "o.valid depends on i.valid"),
    ("assign i__ready = !full || o__ready;",
     "reg [9:0] n = 0; always @(posedge clk) if (i__valid && i__ready && !rst) n <= n + 1; "
     "assign i__ready = (!full || o__ready) && n < 1000;", "the unit hangs: i.ready has been low"),
    ("full <= 1;", "full <= i__payload != 8'h5a;", r"the unit hangs: \d+ of 5000 outputs came"),
    ("if (o__ready) full <= 0;", "if (o__ready && o__payload != 8'h5a) full <= 0;", "an output came without an input"),
])
def test_catches(build, was, becomes, message):
    assert was in REGISTER
    unit = build(*register(REGISTER.replace(was, becomes)))
    inputs = vectors(5_000, a=4, b=4)
    inputs["a"][-1], inputs["b"][-1] = 0xa, 0xa           # the inverse of 5 last: something is left to come out
    with pytest.raises(player.ProtocolError, match=message):
        unit.play(inputs, stalls=3)


@pytest.mark.parametrize("count", [1, 3, 100])
def test_a_result_that_never_comes(build, count):
    unit = build(*register(REGISTER.replace("assign o__valid = full;", "assign o__valid = 0;")))
    with pytest.raises(player.ProtocolError, match="hangs"):
        unit.play(vectors(count, a=4, b=4))


def concatenation(name, fields, **facts):
    """A register that passes everything through: what comes back shows how rows are packed."""
    manifest = manifest_of(name, fields, fields, **facts)
    width = manifest["ports"]["i__payload" if manifest["streamed"] else "i"]["width"]
    return REGISTER.replace("register", name).replace("[7:0]", f"[{width - 1}:0]").replace(
        "{~i__payload[7:4], i__payload[3:0]}", "i__payload"), manifest


@pytest.mark.parametrize("stalls", [None, 4])
@pytest.mark.parametrize(("widths", "beats"), [
    ([(8, None)], 1), ([(8, None), (8, 32)], 1), ([(8, None), (4, 32)], 2), ([(1, None), (1, None), (6, 16)], 4),
    ([(31, 32)], 1), ([(8, 3), (32, 2)], 1), ([(64, 2), (3, None)], 1), ([(40, 2), (24, 1)], 2), ([(33, 5)], 1),
    ([(32, None)], 1), ([(16, 2)], 2), ([(5, 3)], 1), ([(63, 1), (1, None)], 1), ([(13, 16), (16, None)], 2),
])
def test_rows_of_any_width(build, widths, beats, stalls):
    fields, offset = [], 0
    for n, (width, count) in enumerate(widths):
        fields.append(field(f"f{n}", offset, width, count))
        offset += width * (count or 1)
    unit = build(*concatenation("passes", fields, beats={"i": beats, "o": beats}))
    rng = np.random.default_rng(11)
    rows = 3_000
    inputs = {}
    for f in fields:
        shape = (rows, f["count"] * beats) if "count" in f else rows
        inputs[f["name"]] = rng.integers(0, (1 << f["width"]) - 1, shape, dtype=np.min_scalar_type((1 << f["width"]) - 1),
                                         endpoint=True)
    outputs = unit.play(inputs, stalls=stalls)
    for name, array in inputs.items():
        assert outputs[name].dtype == array.dtype
        np.testing.assert_array_equal(outputs[name], array)


def test_fields_lie_where_the_manifest_says(build):
    # 4-bit items at offset 5, seen as one integer.
    text, manifest = concatenation("passes", [field("tag", 0, 5), field("items", 5, 4, 6)])
    manifest["ports"]["o__payload"]["fields"] = [field("word", 0, 29)]
    outputs = build(text, manifest).play({"tag": np.array([3], np.uint8), "items": np.array([[1, 2, 3, 4, 5, 15]], np.uint8)})
    assert outputs["word"].tolist() == [3 | 0xf54321 << 5]


def test_a_scalar_that_changes_within_a_block(build):
    text, manifest = concatenation("passes", [field("tag", 0, 4), field("items", 4, 4, 1)],
                                   beats={"i": 2, "o": 2})
    manifest["ports"]["o__payload"]["fields"] = [field("items", 0, 4, 1), field("tag", 4, 4)]
    with pytest.raises(player.ProtocolError, match="tag must be the same on every beat"):
        build(text, manifest).play({"tag": np.zeros(9, np.uint8), "items": np.tile(np.uint8([1, 2]), (9, 1))})


# One result for each `last`; a bare core with state takes beats at an interval.
SUMS = """
module sums(input clk, input rst, input [8:0] i, input i_valid, output reg [7:0] o, output reg o_valid);
  reg [7:0] sum = 0;
  always @(posedge clk) begin
    o <= sum + i[8:1];
    o_valid <= i_valid && i[0];
    if (i_valid) sum <= i[0] ? 0 : sum + i[8:1];
    if (rst) begin sum <= 0; o_valid <= 0; end
  end
endmodule
"""


@pytest.mark.parametrize("interval", [1, 3])
@pytest.mark.parametrize("stalls", [None, 1])
def test_a_bare_core_that_says_when(build, interval, stalls):
    manifest = manifest_of("sums", [field("last", 0, 1), field("term", 1, 8)], [field("sum", 0, 8)], streamed=False,
                           cadence="some", interval=interval)
    manifest["ports"] |= {"i_valid": port("in", 1), "o_valid": port("out", 1)}
    unit = build(SUMS, manifest)
    inputs = vectors(30_000, last=1, term=8)
    outputs = unit.play(inputs, stalls=stalls)
    ends = np.flatnonzero(inputs["last"])
    totals = np.cumsum(inputs["term"].astype(np.uint64))[ends]
    np.testing.assert_array_equal(outputs["sum"], np.diff(totals, prepend=np.uint64(0)).astype(np.uint8))
    if stalls is None:
        assert unit.last.interval == interval
    assert unit.play({"last": np.zeros(3, np.uint8), "term": np.ones(3, np.uint8)})["sum"].shape == (0,)


@pytest.mark.parametrize("stages", [0, 1, 3])
@pytest.mark.parametrize("stalls", [None, 1])
def test_a_bare_core(build, stages, stalls):
    unit = Dequantizer(element="e4m3", target="fp32", lanes=2, stages=stages)
    text, manifest = emit(unit, "dequantizer")
    assert ("clk" in manifest["ports"]) == (stages > 0)
    # A scale of 127 is 1: the first codes are multiples of 2 ** -9.
    inputs = {"scale": np.full(1_000, 127, np.uint8), "elements": np.tile(np.uint8([[3, 0x38]]), (1_000, 1))}
    play = build(text, manifest)
    values = play.play(inputs, stalls=stalls)["values"]
    bits = [struct.unpack("I", struct.pack("f", value))[0] for value in (3 * 2 ** -9, 1.0)]
    assert (values == np.array(bits, np.uint32)).all()
    assert play.last.latency == (stages if stalls is None else None)


def test_chunks_are_one_play(build):
    unit = build(*register())
    chunks = [vectors(count, a=4, b=4) for count in (1, 70_000, 0, 5)]
    outputs = list(unit.stream(chunks))
    assert [len(chunk["a"]) for chunk in outputs] == [1, 70_000, 5]
    assert (outputs[1]["b"] == chunks[1]["b"] ^ 15).all()
    assert unit.last.inputs == 70_006


@pytest.mark.parametrize(("offset", "width", "count"), [(0, 32, 4), (8, 16, 5), (5, 31, 7), (3, 6, 1), (0, 4, 16)])
def test_a_ramp(build, offset, width, count):
    fields = ([field("tag", 0, offset)] if offset else []) + [field("items", offset, width, count)]
    fields.append(field("end", offset + width * count, 3))
    unit = build(*concatenation("passes", fields))
    row = {"tag": np.array([5 % (1 << offset)], np.uint8), "end": np.uint8([5]),
           "items": np.zeros((1, count), np.min_scalar_type((1 << width) - 1))}
    if not offset:
        del row["tag"]
    rows = 300_000
    items = np.concatenate([piece["items"] for piece in unit.ramp(row, "items", 3, rows, 7)]).reshape(-1)
    np.testing.assert_array_equal(items, (3 + 7 * np.arange(rows * count)) % (1 << width))
    for piece in unit.ramp(row, "items", 0, 100):
        assert all((piece[name] == row[name]).all() for name in row if name != "items")


def test_an_error_in_the_chunks_is_not_lost(build):
    def chunks():
        yield vectors(10, a=4, b=4)
        raise KeyError("mine")
    with pytest.raises(KeyError, match="mine"):
        list(build(*register()).stream(chunks()))


@pytest.mark.parametrize("suffix", ["fst", "vcd"])
def test_waves(build, tmp_path, suffix):
    waves = tmp_path / f"waves.{suffix}"
    inputs = vectors(100, a=4, b=4)
    outputs = build(*register()).play(inputs, waves=waves)
    assert (outputs["a"] == inputs["a"]).all()
    content = waves.read_bytes()
    if suffix == "vcd":
        assert b"$enddefinitions" in content and content.count(b"\n#") > 200
    else:
        # The first block of an FST is its header: type 0, length 329.
        assert content[:9] == bytes([0]) + (329).to_bytes(8, "big") and b"i__payload" in content


def test_waves_of_another_kind(build, tmp_path):
    with pytest.raises(ValueError, match=r"waves must be a \.fst or \.vcd file, not waves\.png"):
        build(*register()).play(vectors(1, a=4, b=4), waves=tmp_path / "waves.png")


@pytest.mark.parametrize(("change", "message"), [
    ({"b": None}, r"inputs must be a \(N\) of 4 bits, b \(N\) of 4 bits, not a$"),
    ({"c": np.zeros(3, np.uint8)}, r"not a, b, c$"),
    ({"a": np.zeros(3)}, r"a must be unsigned integers \(bit patterns, uint8\), not float64"),
    ({"a": np.zeros(3, np.int64)}, r"a must be unsigned integers \(bit patterns, uint8\), not int64"),
    ({"a": np.zeros((3, 1), np.uint8)}, r"a must have the shape \(N\), not \(3, 1\)"),
    ({"a": np.uint8(1)}, r"a must have the shape \(N\), not \(\)"),
    ({"a": np.uint8([1, 2, 16])}, r"a must be below 2\*\*4, not 16"),
    ({"a": np.zeros(4, np.uint8)}, "inputs must have as many rows each, not a 4, b 3"),
])
def test_refuses(build, change, message):
    inputs = {"a": np.zeros(3, np.uint8), "b": np.zeros(3, np.uint8)} | change
    with pytest.raises(ValueError, match=message):
        build(*register()).play({name: array for name, array in inputs.items() if array is not None})


def test_refuses_the_wrong_number_of_items(build):
    unit = build(*concatenation("passes", [field("f0", 0, 8, 3)], beats={"i": 2, "o": 2}))
    with pytest.raises(ValueError, match=r"f0 must have the shape \(N, 6\), not \(4, 3\)"):
        unit.play({"f0": np.zeros((4, 3), np.uint8)})


def test_no_rows(build):
    outputs = build(*register()).play({"a": np.zeros(0, np.uint8), "b": np.zeros(0, np.uint8)})
    assert outputs["a"].shape == (0,)


def test_verilog_that_is_none(build):
    with pytest.raises(verilator.ToolError, match="syntax error"):
        build("module register(; endmodule", register()[1])


def test_missing_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(verilator.ToolError, match=r"g\+\+ missing: .*apt-get install g\+\+$"):
        player.build(*register(), tmp_path)


def test_lint(tmp_path):
    verilog = tmp_path / "register.v"
    verilog.write_text(REGISTER)
    verilator.lint([verilog], "register")
    verilog.write_text(REGISTER.replace("reg full;", "reg [-1:0] full;"))
    with pytest.raises(verilator.ToolError, match="ASCRANGE"):
        verilator.lint([verilog], "register")


@pytest.mark.parametrize("stalls", [None, 1])
def test_a_streamed_unit(build, stalls):
    text, manifest = emit(Streamed(Dequantizer(element="e2m1", target="bf16", lanes=7, stages=2)), "dequantizer")
    unit = build(text, json.loads(json.dumps(manifest)))
    inputs = {"scale": np.full(5_000, 128, np.uint8), "elements": np.tile(np.arange(7, dtype=np.uint8), (5_000, 1))}
    values = unit.play(inputs, stalls=stalls)["values"]
    assert values.shape == (5_000, 7)
    assert (values == (np.float32([0, 1, 2, 3, 4, 6, 8]).view(np.uint32) >> 16)).all()
    if stalls is None:
        assert (unit.last.latency, unit.last.interval) == (manifest["latency"], manifest["interval"])
