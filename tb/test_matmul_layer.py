# amaranth: UnusedElaboratable=no
import cocotb
import numpy as np
import pytest
from amaranth import *
from amaranth.lib import data, wiring
from depths import depths

import mxgolden
from mxbench import bench
from mxbench.stimulus import matmul_layer as stimulus
from mxforge.arith import select
from mxforge.catalog import Entry
from mxforge.emit import contract_lines, manifest_of
from mxforge.errors import MxforgeError
from mxforge.formats import ELEMENTS
from mxforge.matmul_layer import MatmulLayer
from mxforge.quantizer import Quantizer
from mxforge.scale_select import SCALE_RULES
from mxforge.unit import StreamUnit

SMALL = {"block_size": 4, "lanes": 4}


@cocotb.test()
async def last_ends_each_block(dut):
    """Beat by beat, not by rows alone."""
    manifest, i, o = await bench.start(dut)
    inputs, expected = bench.vectors(manifest, 40)
    beats = manifest["beats"]["o"]
    count = len(expected["last"]) * beats
    cocotb.start_soon(bench.put_all(dut.clk, i, i.layout.to_beats(inputs)))
    got = [o.layout.unpack(beat)["last"][0] for beat in await bench.get_all(dut.clk, o, count)]
    assert got == [0] * (beats - 1) + [1] if count == beats else got == ([0] * (beats - 1) + [1]) * (count // beats)


@pytest.mark.parametrize("parameters", [
    {"rows": 2, "columns": 2, **SMALL},
    {"rows": 1, "columns": 1, "accumulation": "exact", "slots": 2, "stages": 5, "quantizer_stages": 3, "target": "bf16", **SMALL},
    {"rows": 1, "columns": 4, "block_size": 2, "lanes": 2, "accumulation": "blackwell", "d_element": "e2m1"},
])
def test_matmul_layer(simulate, parameters):
    simulate(MatmulLayer(**parameters), "matmul_layer")


def quantizer_cuts(**parameters):
    return len(MatmulLayer(**parameters).parameters.quantizer.cuts)


# Each element of D and each scale rule; fewer columns than a block, as many, and more; each accumulation.
VOLUME = [
    {"rows": 3, "columns": 2, "d_element": "e4m3", "scale_rule": "rceil", **SMALL},
    {"rows": 2, "columns": 4, "d_element": "e5m2", "scale_rule": "floor", "target": "bf16", "stages": 4, **SMALL},
    {"rows": 2, "columns": 8, "d_element": "e3m2", "scale_rule": "ceil", "quantizer_stages": 2, **SMALL},
    {"rows": 2, "columns": 1, "d_element": "e2m3", "scale_rule": "even", "slots": 4, "stages": 17, "quantizer_stages": 5, **SMALL},
    {"rows": 1, "columns": 2, "d_element": "e2m1", "scale_rule": "floor_plus_1", "accumulation": "blackwell", **SMALL},
    {"rows": 2, "columns": 2, "d_element": "mxint8", "scale_rule": "unit", "accumulation": "fp32_chain", **SMALL},
    {"rows": 2, "columns": 2, "accumulation": "exact", "window": 40, "stages": 6, "quantizer_stages": 1, **SMALL},
    {"rows": 2, "columns": 4, "accumulation": "exact", "window": 40, "target": "bf16", "quantizer_stages": 2, **SMALL},
    {"rows": 1, "columns": 4, "accumulation": "exact", "a_element": "e5m2", "max_blocks": 50, "block_size": 2, "lanes": 1},
    {"rows": 1, "columns": 2, "b_element": "e2m1", "addend": False, "block_size": 8, "lanes": 2, "stages": 2},
]


def test_cover_is_one():
    rows = [MatmulLayer(**options).parameters for options in VOLUME]
    assert {row.d_element for row in rows} == set(ELEMENTS) and {row.scale_rule for row in rows} == set(SCALE_RULES)
    assert {(np.sign(row.columns - row.block_size), row.target) for row in rows} >= {(-1, "fp32"), (0, "bf16"), (1, "fp32")}
    assert {(row.accumulation, row.products > 1) for row in rows} >= {("exact", True), ("exact", False)}


@pytest.mark.parametrize("parameters", VOLUME)
def test_in_volume(verify, parameters):
    p = MatmulLayer(**parameters).parameters
    counts = verify(MatmulLayer(**parameters), 25_000)
    wanted = {"of D: NaN block", "NaN scales", "running sums that go on after a result"}
    if p.addend and p.window == 254:
        # The quantizer's stimulus is D, too; blackwell knows no -0.
        wanted = counts.keys() - ({"-0", "of D: negative zero"} if p.accumulation == "blackwell" else set())
    elif p.products == 1:
        wanted.add("of D: all zero")
    assert wanted <= counts.keys() and all(counts[name] for name in wanted), counts


def test_under_stalls(verify):
    verify(MatmulLayer(rows=2, columns=2, stages=6, quantizer_stages=2, **SMALL), 4_000, stalls=5)
    verify(MatmulLayer(rows=2, columns=4, accumulation="exact", stages=6, **SMALL), 4_000, stalls=6)
    verify(MatmulLayer(rows=1, columns=1, accumulation="exact", slots=3, **SMALL), 4_000, stalls=7, axi=True)


@pytest.mark.parametrize(("columns", "stages"), [
    pytest.param(columns, *one.values, marks=one.marks)
    for columns in (2, 4) for one in depths(quantizer_cuts(columns=columns, **SMALL))])
def test_every_depth_of_the_quantizers(verify, columns, stages):
    layer = MatmulLayer(rows=1, columns=columns, accumulation="exact", window=40, quantizer_stages=stages, **SMALL)
    verify(layer, 1_000)
    assert layer.latency == 1 + 1 + stages + (columns < 4) + 1


def test_two_layers_chain(play):
    """Blocks of D, as they come, are the next tile's A: (4 x 32) by (32 x 16), and that by (16 x 8)."""
    rng = np.random.default_rng(3)
    layer = {"rows": 4, "columns": 2, "block_size": 8, "lanes": 8, "addend": False}
    a = rng.standard_normal((4, 32)).astype(np.float32)
    weights = [rng.standard_normal(shape).astype(np.float32) for shape in ((16, 32), (8, 16))]

    scales, codes = mxgolden.quantize(a, block_size=8)
    want_scales, want_codes = scales, codes
    for weight in weights:
        b_scales, b_codes = mxgolden.quantize(weight, block_size=8)
        blocks = scales.shape[1]
        rows = [{"first": block == 0, "last": block == blocks - 1,
                 "a_scales": scales[:, block], "a_elements": codes[:, 8 * block:8 * block + 8].ravel(),
                 "b_scales": b_scales[left:left + 2, block], "b_elements": b_codes[left:left + 2, 8 * block:8 * block + 8].ravel()}
                for left in range(0, len(weight), 2) for block in range(blocks)]
        got = play(MatmulLayer(**layer), "matmul_layer", {name: np.stack([row[name] for row in rows]) for name in rows[0]})
        # A row of the outputs is a block of each row of D, in four beats of two columns.
        scales = got["scales"].reshape(-1, 4, 4)[:, 0].T
        codes = got["elements"].reshape(-1, 4, 4, 2).transpose(2, 0, 1, 3).reshape(4, -1)

        d = mxgolden.dot(want_codes[:, None], want_scales[:, None], b_codes, b_scales, accumulation="fp32_fused", block_size=8)
        want_scales, want_codes = mxgolden.quantize(d.view(np.float32), block_size=8)
        np.testing.assert_array_equal(scales, want_scales)
        np.testing.assert_array_equal(codes, want_codes)
    assert codes.shape == (4, 8) and scales.shape == (4, 1)


class TwoLayers(StreamUnit):
    """``D = (A W) V`` with ``A W`` as MX: each beat of the first layer's output is, as it is, a beat of the second one's A.

    The second layer's lanes are the first one's columns. ``weights``: the beats of V's columns, ``b_scales`` and ``b_elements``,
    for one product of the second layer.
    """
    cadence = "some"

    def __init__(self, first, second, weights):
        assert (first.parameters.rows, first.parameters.columns) == (second.parameters.rows, second.parameters.lanes)
        self._first, self._second, self._weights = first, second, weights
        self.beats = first.beats[0], second.beats[1]
        output = second.o.payload
        super().__init__(first.parameters, i=first.i.payload.shape(), o=data.StructLayout({
            "d_scales": output.scales.shape(), "d_elements": output.elements.shape()}))

    latency = 0
    interval = 1

    def elaborate(self, platform):
        m = Module()

        m.submodules.first = first = self._first
        m.submodules.second = second = self._second
        wiring.connect(m, wiring.flipped(self.i), first.i)
        beat = Signal(range(len(self._weights)))
        with m.If(second.i.valid & second.i.ready):
            m.d.sync += beat.eq(Mux(beat == len(self._weights) - 1, 0, beat + 1))
        given, taken = first.o.payload, second.i.payload
        layout = data.StructLayout({name: taken[name].shape() for name in ("b_scales", "b_elements")})
        weights = [layout.const(values).as_value() for values in self._weights]
        of_block = second.beats[0]
        m.d.comb += [
            second.i.valid.eq(first.o.valid),
            first.o.ready.eq(second.i.ready),
            taken.a_scales.eq(given.scales),
            taken.a_elements.eq(given.elements),
            Cat(taken.b_scales, taken.b_elements).eq(select(m, weights, beat)),
            taken.first.eq(beat < of_block),
            taken.last.eq(beat >= len(weights) - of_block),
            self.o.valid.eq(second.o.valid),
            second.o.ready.eq(self.o.ready),
            self.o.payload.d_scales.eq(second.o.payload.scales),
            self.o.payload.d_elements.eq(second.o.payload.elements),
        ]

        return m


@pytest.mark.slow
@pytest.mark.parametrize(("lanes", "stages"), [(8, 0), (4, 9)])
def test_two_layers_without_a_host_between(play, lanes, stages):
    """(4 x 32) by (32 x 16), and that by (16 x 8): all that the host sees of the first product is the second's result."""
    rng = np.random.default_rng(4)
    a, w, v = (rng.standard_normal(shape).astype(np.float32) for shape in ((4, 32), (16, 32), (8, 16)))
    (a_scales, a_codes), (w_scales, w_codes), (v_scales, v_codes) = (mxgolden.quantize(x, block_size=8) for x in (a, w, v))
    # What the second layer's columns get, beat by beat: 4 of the 8 elements of a block.
    weights = [{"b_scales": v_scales[:, block].tolist(), "b_elements": v_codes[:, 8 * block + half:][:, :4].ravel().tolist()}
               for block in range(2) for half in (0, 4)]
    common = {"rows": 2, "block_size": 8, "addend": False}
    layers = (MatmulLayer(columns=4, lanes=lanes, stages=stages, quantizer_stages=stages // 4, **common),
              MatmulLayer(columns=8, lanes=4, stages=stages // 3, **common))

    # Rows of A in twos, for each of them W's columns in fours.
    steps = [(top, left, block) for top in (0, 2) for left in range(0, 16, 4) for block in range(4)]
    row = {"first": [block == 0 for *_, block in steps], "last": [block == 3 for *_, block in steps],
           "a_scales": [a_scales[top:top + 2, block] for top, _, block in steps],
           "b_scales": [w_scales[left:left + 4, block] for _, left, block in steps],
           "a_elements": [a_codes[top:top + 2, 8 * block:8 * block + 8] for top, _, block in steps],
           "b_elements": [w_codes[left:left + 4, 8 * block:8 * block + 8] for _, left, block in steps]}
    inputs = {name: np.array(values) for name, values in row.items()}
    for name, lines in ("a_elements", 2), ("b_elements", 4):
        # One beat after the other, of ``lanes`` elements of each line.
        inputs[name] = inputs[name].reshape(len(steps), lines, -1, lanes).swapaxes(1, 2).reshape(len(steps), -1)
    for name in "a_scales", "b_scales":
        inputs[name] = np.tile(inputs[name], (1, 8 // lanes))

    middle = mxgolden.dot(a_codes[:, None], a_scales[:, None], w_codes, w_scales, accumulation="fp32_fused", block_size=8)
    middle_scales, middle_codes = mxgolden.quantize(middle.view(np.float32), block_size=8)
    d = mxgolden.dot(middle_codes[:, None], middle_scales[:, None], v_codes, v_scales, accumulation="fp32_fused", block_size=8)
    wanted_scales, wanted_codes = mxgolden.quantize(d.view(np.float32), block_size=8)
    for stalls in None, 1:
        got = play(TwoLayers(*layers, weights), "two_layers", inputs, stalls=stalls)
        np.testing.assert_array_equal(got["d_scales"].reshape(4, 1), wanted_scales)
        np.testing.assert_array_equal(got["d_elements"].reshape(4, 8), wanted_codes)
    # As near to the product of the matrices as two layers of E4M3 are.
    exact = a.astype(np.float64) @ w.T @ v.T
    assert 18 < mxgolden.sqnr(exact, mxgolden.dequantize(wanted_codes, wanted_scales, block_size=8).view(np.float32)) < 35


def test_what_is_left_of_a_block_gives_nothing(play):
    p = {"rows": 1, "columns": 1, "block_size": 4, "lanes": 4}
    inputs = stimulus.blocks(vars(MatmulLayer(**p).parameters), 40, np.random.default_rng(1))
    inputs["first"][:] = inputs["last"][:] = 1
    for count in 3, 4, 7, 8:
        part = {name: array[:count] for name, array in inputs.items()}
        assert len(play(MatmulLayer(**p), "matmul_layer", part)["scales"]) == count // 4


def test_latency_and_interval_are_the_halves():
    layer = MatmulLayer(columns=2, stages=17, quantizer_stages=3, **SMALL)
    quantizer = Quantizer(lanes=2, block_size=4, stages=3)
    assert layer.latency == 17 + 1 + quantizer.latency + 1
    assert layer.interval > 1 and layer.beats == (1, 2)


def test_contract_tells_blocks_of_the_inputs_from_those_of_d():
    lines = list(contract_lines(manifest_of(MatmulLayer(columns=1, block_size=4, lanes=2), "one")))
    assert lines[0] == "A block takes 2 input beats, counted from reset."
    assert "A block's last input beat gives 4 output beats if it has last and completes what they need." in lines
    assert "4 products that are delivered one after the other make a block of each of D's rows." in lines
    assert any("that transfers an input beat that gives output beats to the edge at which its first" in line for line in lines)


@pytest.mark.parametrize(("parameters", "message"), [
    ({"columns": 3}, "columns must be a power of two where D is quantized, not 3"),
    ({"block_size": 1, "lanes": 1}, "block_size must be 2 to 256 where D is quantized, not 1"),
    ({"block_size": 512}, "block_size must be 2 to 256 where D is quantized, not 512"),
    ({"quantizer_stages": 9}, r"quantizer_stages must be 0 to \d+ \(scale, .*\), not 9"),
    ({"d_element": "fp32"}, "d_element must be one of e4m3, "),
    ({"scale_rule": "ocp"}, "scale_rule must be one of rceil, "),
    ({"rows": 0}, "rows must be 1 to 64, not 0"),
])
def test_refusals(parameters, message):
    with pytest.raises(ValueError, match=message):
        MatmulLayer(**parameters)


def test_there_is_no_bare_core():
    with pytest.raises(MxforgeError, match="matmul_layer has no bare core"):
        Entry(name="layer", unit="matmul_layer", streamed=False)
