# amaranth: UnusedElaboratable=no
"""The demo on the virtual board, and on boards that have less or other units."""
import re
from dataclasses import asdict, replace
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
from answers import Imposter, says

import mxgolden
from mxbench.safetensors import write_safetensors
from mxforge.fpga import demo
from mxforge.fpga.design import SERVICES, Design
from mxforge.fpga.host import Board, Port
from mxforge.fpga.link import Link, Traffic
from mxforge.fpga.protocol import Command
from mxforge.fpga.virtual import DESIGN, VirtualBoard

RNG = np.random.default_rng(1)
LAYER = RNG.standard_normal((16, 96)).astype(np.float32)
BIAS = RNG.standard_normal(33).astype(np.float32)


@pytest.fixture(scope="module")
def port(sim_build):
    with VirtualBoard(sim_build) as board:
        yield board.port


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_safetensors(tmp_path_factory.mktemp("weights") / "small.safetensors", {
        "layer": ("F32", LAYER.shape, LAYER.tobytes()), "bias": ("F32", BIAS.shape, BIAS.tobytes()),
        "ids": ("I64", (1,), bytes(8))})


def test_on_the_virtual_board(mxforge, file, port):
    status, out, error = mxforge("fpga", "run", "--port", port, "--weights", file)
    assert (status, error) == (0, "")
    tensors = {"layer": 48, "bias": 2}
    # Scales, codes and values of each block; of the layer's 16 rows the codes and sums of the dot product, those of the tile.
    compared = 50 * (1 + 32 + 32) + 17 * 3 * 33 + 48 + 24 * 3 * 33 + 16 * 8
    assert f"{compared:,} bit patterns compared with golden, 0 mismatches: 50 blocks quantized and dequantized, 48 block " \
           f"products, {8 * 4 * 3} tiles" in out
    sqnr = mxgolden.sqnr(LAYER, mxgolden.dequantize(*mxgolden.quantize(LAYER)[::-1]).view(np.float32))
    assert re.search(rf"layer +{tensors['layer']} +0 +{sqnr:.2f} ", out)
    assert re.search(rf"Total +{sum(tensors.values())} +0 ", out)
    assert "Skipped: ids holds I64" in out and f"Board virtual at {port}: mxforge" in out
    assert re.search(r"[\d,]+ values/s, [\d,]+ blocks/s; [\d.]+ MB over the line, [\d,]+ kB/s\n"
                     r"[\d,]+ frames, 0 of them sent again; damaged 0 here, at the board 0 corrupt, 0 too long", out)


@pytest.mark.parametrize(("command", "place", "words"), [
    (Command.QUANTIZE, 1, "layer row 0, value 0: the quantizer gives elements 0x"),
    (Command.DEQUANTIZE, 0, "layer row 0, value 0: the dequantizer gives values 0x"),
    (Command.DEQUANTIZE, 4 * (96 + 37), "layer row 1, value 37: the dequantizer gives values 0x"),
    (Command.DOT, 4, "layer row 1, product of block 0: the scaled_dot gives result 0x"),
    (Command.MATMUL, 0, "layer row 0, product with vector 0: the matmul_tile gives 0x")])
def test_a_wrong_bit_of_the_board_is_found(mxforge, file, port, monkeypatch, command, place, words):
    right, planted = Link.ask, []

    def wrong(self, requests):
        requests = list(requests)
        for (asked, _), body in zip(requests, right(self, requests), strict=True):
            if asked == command and not planted:
                planted.append(place)
                body = body[:place] + bytes([body[place] ^ 1]) + body[place + 1:]
            yield body

    monkeypatch.setattr(Link, "ask", wrong)
    status, out, error = mxforge("fpga", "run", "--port", port, "--weights", file, "--tensor", "layer")
    assert status == 1
    assert re.fullmatch(r"mxforge: 1 of [\d,]+ bit patterns differ from golden\n", error)
    assert f"Mismatch: {words}" in out and ", 1 mismatches: " in out


class GoldenBoard(Board):
    """A board of a design whose units are golden."""
    def __init__(self, units):
        self.design = Design(board="small", clock=12_000_000, divisor=12, units=units)
        self.ports = {command: Port(service, self.design) for command, service in self.design.services.items()}
        self.link = SimpleNamespace(port="somewhere", traffic=Traffic(seconds=1.0))
        self.played = []

    def close(self):
        pass

    def reset(self):
        pass

    def counters(self):
        return {"ok": 1}

    def play(self, command, inputs, progress=None):
        self.ports[command].inputs.check(inputs)
        self.played.append(command)
        if progress is not None:
            progress(len(next(iter(inputs.values()))))
        return import_module(f"mxgolden.{SERVICES[command]}").expected(asdict(self._parameters(command)), inputs)


@pytest.mark.parametrize(("units", "wanted", "done", "left"), [
    ({"quantize": {"source": "bf16", "lanes": 1, "element": "e5m2", "scale_rule": "floor"}, "dequantize": {"element": "e5m2",
      "target": "fp16", "lanes": 5}}, "E5M2", "50 blocks quantized and dequantized", []),
    ({"quantize": {"source": "fp16", "lanes": 8, "rounding": "stochastic"}, "dequantize": {"target": "bf16", "lanes": 64}},
     "E4M3", "50 blocks quantized and dequantized", []),
    ({"quantize": {"lanes": 4, "element": "e2m1"}, "dequantize": {"lanes": 4}, "dot": {"a_element": "e2m1", "lanes": 4},
      "matmul": {"rows": 1, "columns": 1, "lanes": 4}}, "E2M1", "50 blocks quantized",
     ["dequantize, since its elements are e4m3, those of quantize e2m1",
      "dot, since its elements are e2m1 and e4m3, those of quantize e2m1",
      "matmul, since its elements are e4m3, those of quantize e2m1"]),
    ({"quantize": {"lanes": 4}, "dot": {"addend": False, "target": "bf16", "lanes": 4},
      "matmul": {"accumulation": "exact", "rows": 1, "columns": 1, "lanes": 4}}, "E4M3",
     "50 blocks quantized, 48 block products", ["matmul, since its tile can't go on with a sum"]),
    ({"quantize": {"lanes": 4}, "dot": {"block_size": 16, "lanes": 4}}, "E4M3", "50 blocks quantized",
     ["dot, since its blocks are of 16 elements"]),
])
def test_other_boards(mxforge, file, monkeypatch, units, wanted, done, left):
    """What a board has is compared, the rest left out; the loss is of what came back, all roundings on the way counted."""
    board = GoldenBoard(units)
    monkeypatch.setattr(demo, "Board", lambda *_, **__: board)
    status, out, error = mxforge("fpga", "run", "--weights", file)
    assert (status, error) == (0, "")
    assert f", 0 mismatches: {done}\n" in out and f"MX: {wanted}, a scale" in out
    assert re.findall(r"Not on the board: (.*)\.\n", out) == left
    sqnr = float(re.search(r"layer +48 +0 +([\d.]+) ", out)[1])
    # Stochastic rounding loses some dB.
    low, high = {"E5M2": (24, 27), "E4M3": (27, 33), "E2M1": (17, 21)}[wanted]
    assert low < sqnr < high
    assert {command.name.lower() for command in board.played} == {"quantize"} | {
        word for word in ("dequantize", "dot") if word in units and not any(line.startswith(word) for line in left)}


def test_a_board_that_cant_do_the_demo(refused, file):
    small = Design(board="small", clock=12_000_000, divisor=12, units={"dequantize": {"lanes": 1}, "dot": {"lanes": 1}})
    with Imposter(says(small.identity())) as port:
        refused("fpga", "run", "--port", port, "--weights", file,
                answer="the board small has no quantize, which the demo needs; it has dequantize, dot")
    small = replace(small, units={"quantize": {"block_size": 16, "lanes": 4}})
    with Imposter(says(small.identity())) as port:
        refused("fpga", "run", "--port", port, "--weights", file, answer="the board small quantizes blocks of 16 values, not of 32")


@pytest.mark.parametrize(("version", "older"), [("0.0.1", "board"), ("99.1", "host")])
def test_a_board_of_another_mxforge_is_refused(refused, file, version, older):
    with Imposter(says(replace(DESIGN, mxforge=version).identity())) as port:
        refused("fpga", "run", "--port", port, "--weights", file, answer=(
            f"the board at {port} (virtual, mxforge {version}) has another manifest than this host (mxforge {DESIGN.mxforge}); "
            f"the {older} is older: "))


@pytest.mark.parametrize("command", ["run", "soak"])
def test_ports_that_cant_be_used(refused, file, monkeypatch, command):
    options = ["--weights", file] if command == "run" else []
    refused("fpga", command, "--port", "/dev/none", *options, answer="the port /dev/none can't be opened: there is no such device")
    monkeypatch.setitem(Board.__init__.__kwdefaults__, "patience", 0.01)
    with Imposter(lambda frame: b"") as port:
        refused("fpga", command, "--port", port, "--baud", 9600, *options,
                answer=f"no board of mxforge answers at {port} (at 9,600 baud); is it programmed, and no other program at the")


@pytest.mark.parametrize(("options", "answer"), [
    (["--weights", "none.npy"], "none.npy is missing"),
    (["--weights", "FILE", "--tensor", "layr"], "the file has no tensor layr; did you mean layer?"),
    (["--weights", "FILE", "--baud", "0"], "Invalid value for '--baud': 0 is not in the range x>=1."),
])
def test_wrong_weights_are_told_before_a_board_is_looked_for(refused, file, monkeypatch, options, answer):
    monkeypatch.setattr(demo, "Board", None)
    refused("fpga", "run", *(file if option == "FILE" else option for option in options), answer=answer)
