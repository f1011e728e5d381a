# amaranth: UnusedElaboratable=no
"""Arrays through the virtual board, beside golden; boards that a host can't use."""
from dataclasses import asdict, replace
from importlib import import_module

import numpy as np
import pytest
from answers import Imposter, says

import mxgolden
import mxgolden.scaled_dot
from mxforge.errors import MxforgeError
from mxforge.fpga import host
from mxforge.fpga.design import SERVICES, Design
from mxforge.fpga.host import Board, Port
from mxforge.fpga.protocol import Command, Status
from mxforge.fpga.virtual import DESIGN


@pytest.fixture(scope="module")
def board(sim_build):
    with Board(build_dir=sim_build) as board:
        yield board


@pytest.fixture
def rng():
    return np.random.default_rng(1)


@pytest.mark.parametrize(("command", "blocks"), [(Command.QUANTIZE, 400), (Command.DEQUANTIZE, 3000), (Command.DOT, 700)])
def test_each_unit(board, rng, command, blocks):
    """More blocks than a frame takes; told as they are done."""
    core = board.design.services[command].core
    unit = SERVICES[command]
    inputs = import_module(f"mxbench.stimulus.{unit}").blocks(asdict(core.parameters), blocks, rng)
    wanted = import_module(f"mxgolden.{unit}").expected(asdict(core.parameters), inputs)
    done = []
    got = board.play(command, inputs, done.append)
    assert set(got) == set(wanted)
    for name, array in got.items():
        assert np.array_equal(array, wanted[name]), name
    assert sum(done) == blocks and len(done) > 1


def test_blocks_there_and_back(board, rng):
    values = rng.normal(size=(50, 32)).astype(np.float32)
    scales, codes = board.quantize(values)
    wanted = mxgolden.quantize(values.view(np.uint32))
    assert np.array_equal(scales, wanted[0].reshape(-1)) and np.array_equal(codes, wanted[1])
    assert np.array_equal(board.dequantize(scales, codes).view(np.uint32), mxgolden.dequantize(codes, scales[:, None], "e4m3"))
    ones = np.ones(50, np.float32)
    results = board.dot(scales, codes, scales[::-1], codes[::-1], ones)
    wanted = mxgolden.scaled_dot.expected(asdict(board.design.services[Command.DOT].core.parameters), {
        "a_scale": scales, "a_elements": codes, "b_scale": scales[::-1], "b_elements": codes[::-1], "c": ones.view(np.uint32)})
    assert np.array_equal(results, wanted["result"])


@pytest.mark.parametrize(("m", "k", "n"), [(1, 32, 1), (19, 300, 21), (5, 2000, 3), (40, 64, 33)])
def test_matmul(board, rng, m, k, n):
    """Products that aren't of whole panels or blocks; sums that take several frames; many tiles."""
    a, b, c = (rng.normal(size=shape).astype(np.float32) for shape in ((m, k), (k, n), (m, n)))

    def quantized(rows):
        scales, codes = mxgolden.quantize(np.pad(rows, ((0, 0), (0, -k % 32))).view(np.uint32))
        return codes.reshape(len(rows), -1), scales.reshape(len(rows), -1)

    (a_codes, a_scales), (b_codes, b_scales) = quantized(a), quantized(np.ascontiguousarray(b.T))
    for addend in None, c:
        start = np.zeros((m, n), np.uint32) if addend is None else c.view(np.uint32)
        wanted = mxgolden.dot(a_codes[:, None], a_scales[:, None], b_codes, b_scales, start, "e4m3", "e4m3", "fp32_fused")
        assert np.array_equal(board.matmul(a, b, addend).view(np.uint32), wanted)


def test_counts(board):
    board.reset()
    assert board.counters() == {"ok": 1, "corrupt": 0, "too_long": 0, "overrun": 0, "timeout": 0, "dropped": 0}
    before = board.link.traffic.requests
    board.counters()
    assert board.link.traffic.requests == before + 1 and board.link.traffic.again == 0


@pytest.mark.parametrize(("call", "message"), [
    (lambda board: board.matmul(np.ones((2, 3)), np.ones((2, 3))), r"a and b must be \(M, K\) and \(K, N\), not \(2, 3\) and"),
    (lambda board: board.dequantize(np.zeros(2, np.uint8), np.zeros((2, 30), np.uint8)), "a multiple of 4 codes, not 30"),
    (lambda board: board.dequantize(np.zeros(3, np.uint8), np.zeros((2, 32), np.uint8)),
     r"and \(N, block_size\), not \(3,\) and \(2, 32\)"),
    (lambda board: board.matmul(np.ones((2, 0)), np.ones((0, 3))), r"a and b must not be empty, as \(2, 0\) and \(0, 3\) are"),
    (lambda board: board.matmul(np.ones((0, 2)), np.ones((2, 3))), "a and b must not be empty"),
    (lambda board: board.matmul(np.ones((2, 4)), np.ones((4, 3)), np.ones(3)), r"c must be of shape \(2, 3\), not \(3,\)"),
])
def test_refuses_arrays(board, call, message):
    with pytest.raises(MxforgeError, match=message):
        call(board)


def test_what_a_frame_takes_of_a_product():
    """No more than fits, whatever the product's shape; the answer neither."""
    port = Port(DESIGN.services[Command.MATMUL], DESIGN)
    a, b, c = port.service.input_bytes
    for blocks, rows, columns in (1, 1, 1), (1000, 1, 1), (1, 400, 400), (12, 100, 1), (12, 3, 200), (64, 64, 64):
        k, i, j = port.cut(blocks, rows, columns)
        assert 1 <= k <= blocks and 1 <= i <= min(rows, 255) and 1 <= j <= min(columns, 255)
        request = port.filled(bytes(4 + 8 * k * (i * a + j * b) + i * j * c), i * j * port.output_bytes)
        assert len(request) + 8 <= DESIGN.limit


@pytest.mark.parametrize(("answer", "message"), [
    (lambda frame: b"", r"no board of mxforge answers at /dev/\S+ \(at 115,200 baud\); is it programmed, and no other program"),
    (lambda frame: frame + b"\0", "no board of mxforge answers"),
    (lambda frame: b"login: ", "no board of mxforge answers"),
    (says(b"hello"), r"what answers at /dev/\S+ is no board of mxforge: it gives no identity"),
    (says(b"", Status.UNKNOWN_COMMAND), "refuses identify: the board has no such command"),
    (says(replace(DESIGN, mxforge="0.0.1").identity()), r"\(virtual, mxforge 0.0.1\) has another manifest than this host "
                                                        r"\(mxforge .*\); the board is older: build and program it anew"),
    (says(replace(DESIGN, mxforge="99.1").identity()), "the host is older: install the mxforge that it was built with"),
    (says(b"\0" * 32 + DESIGN.identity(built=1)[32:]), "the board is older"),
    (says(b"\0" * 32 + DESIGN.identity(built=4_000_000_000)[32:]), "the host is older"),
])
def test_boards_that_cant_be_used(answer, message):
    with Imposter(answer) as port, pytest.raises(MxforgeError, match=message):
        Board(port, baud=115_200, patience=0.03)


def test_a_unit_that_the_host_doesnt_know():
    """A later mxforge may have units that are described in another way."""
    text = DESIGN.identity().replace(b'"dot":', b'"dut":').replace(DESIGN.mxforge.encode(), b"77.0")
    with Imposter(says(text)) as port, pytest.raises(MxforgeError, match="the host is older"):
        Board(port, baud=115_200)


def test_bauds_are_tried(monkeypatch):
    monkeypatch.setattr(host, "BAUDS", (9600, 19200))
    with Imposter(lambda frame: b"") as port, pytest.raises(MxforgeError, match=r"\(at 9,600, 19,200 baud\)"):
        Board(port, patience=0.02)
    with Imposter(says(DESIGN.identity())) as port, Board(port) as board:
        assert board.design == DESIGN


def test_a_board_without_a_unit():
    small = Design(board="small", clock=12_000_000, divisor=12, units={"quantize": {"source": "bf16", "lanes": 1}})
    with Imposter(says(small.identity())) as port, Board(port, baud=115_200) as board:
        with pytest.raises(MxforgeError, match="the board small has no matmul"):
            board.matmul(np.ones((2, 2)), np.ones((2, 2)))
        with pytest.raises(MxforgeError, match="this board quantizes BF16: give it bit patterns"):
            board.quantize(np.ones((1, 32)))


def test_an_answer_of_another_length(sim_build):
    with Imposter(says(DESIGN.identity())) as port, Board(port, baud=115_200) as board, \
            pytest.raises(MxforgeError, match="bytes to quantize, not 80"):
        board.quantize(np.ones((2, 32)))
