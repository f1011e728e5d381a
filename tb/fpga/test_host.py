# amaranth: UnusedElaboratable=no
"""Arrays through the virtual board, beside golden; boards that a host can't use."""
import os
import threading
import tty
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from importlib import import_module

import numpy as np
import pytest
import serial
from answers import Imposter, says

import mxgolden
import mxgolden.scaled_dot
from mxforge.errors import MxforgeError
from mxforge.fpga import host
from mxforge.fpga.design import SERVICES, Design
from mxforge.fpga.host import Board, Port
from mxforge.fpga.link import Link, SilenceError
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
    assert results.dtype == np.float32 and np.array_equal(results.view(np.uint32), wanted["result"])
    # Its own results, and bit patterns, are addends as numbers are.
    once, again = (board.dot(scales, codes, scales, codes, c) for c in (ones, ones.view(np.uint32)))
    assert np.array_equal(once, again)


def test_bit_patterns_and_numbers(board, rng):
    """Only what is unsigned and as wide as the format is a bit pattern; codes are integers of any type."""
    numbers = rng.integers(0, 256, (2, 32))
    wanted = board.quantize(numbers.astype(np.float32))
    for same in (numbers, numbers.astype(np.uint8), numbers.astype(np.uint64), numbers.tolist(), numbers.astype(np.float64),
                 numbers.astype(np.float32).view(np.uint32), np.asfortranarray(numbers)):
        assert all(map(np.array_equal, board.quantize(same), wanted))
    scales, codes = wanted
    values = board.dequantize(scales, codes)
    assert np.array_equal(board.dequantize(scales.tolist(), codes.astype(int)), values)
    sides = scales[:, None], codes[:, None]
    product = board.multiply(*sides, *sides)
    assert np.array_equal(board.multiply(*(array.tolist() for array in (*sides, *sides))), product)
    bits = rng.normal(size=(2, 64)).astype(np.float32)
    assert np.array_equal(board.matmul(bits.view(np.uint32), bits.T), board.matmul(bits, bits.T))
    c = rng.normal(size=(2, 2)).astype(np.float32)
    assert np.array_equal(board.multiply(*sides, *sides, c.view(np.uint32)), board.multiply(*sides, *sides, c))


def test_who_asks_while_it_asks(board, rng):
    """It is told; and the board can be asked when it is over, however it ended."""
    values = rng.normal(size=(300, 32))
    with pytest.raises(MxforgeError, match="is being asked already: take all answers, then ask again") as told:
        board.quantize(values, lambda count: board.counters())
    assert board.counters()["ok"] and told.value


def test_threads_take_turns(board, rng):
    arrays = [rng.normal(size=(200, 32)).astype(np.float32) for _ in range(4)]
    before = board.link.traffic.again
    with ThreadPoolExecutor(4) as threads:
        got = list(threads.map(board.quantize, arrays))
    for array, (scales, codes) in zip(arrays, got, strict=True):
        wanted = mxgolden.quantize(array.view(np.uint32))
        assert np.array_equal(scales, wanted[0].reshape(-1)) and np.array_equal(codes, wanted[1])
    assert board.link.traffic.again == before


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


def blocks(rows, count):
    return np.zeros((rows, count), np.uint8), np.zeros((rows, count, 32), np.uint8)


@pytest.mark.parametrize(("call", "message"), [
    (lambda board: board.matmul(np.ones((2, 3)), np.ones((2, 3))), r"a and b must be \(M, K\) and \(K, N\), not \(2, 3\) and"),
    (lambda board: board.dequantize(np.zeros(2, np.uint8), np.zeros((2, 30), np.uint8)), "a multiple of 4 codes, not 30"),
    (lambda board: board.dequantize(np.zeros(3, np.uint8), np.zeros((2, 32), np.uint8)),
     r"and \(N, block_size\), not \(3,\) and \(2, 32\)"),
    (lambda board: board.quantize(np.ones((2, 31))), r"quantize: values must have the shape \(N, 32\), not \(2, 31\)"),
    (lambda board: board.quantize(np.ones((2, 32), complex)), "values must be real numbers, not complex128"),
    (lambda board: board.quantize([["a"] * 32]), "values must be real numbers, not <U1"),
    (lambda board: board.quantize(np.ones((2, 32)), random=np.zeros((2, 32), int)), "rounds to nearest even, without random"),
    (lambda board: board.dequantize([1.0], np.zeros((1, 32), int)), "scales must be integers, not float64"),
    (lambda board: board.dequantize([1], np.full((1, 32), -1)), "codes must be from 0 to 255, not -1 to -1"),
    (lambda board: board.dot([1], np.full((1, 32), 256), [1], np.zeros((1, 32), int)), "a_codes must be from 0 to 255, not 256"),
    (lambda board: board.dot([1], np.zeros((1, 32), int), [1, 1], np.zeros((2, 32), int)), "dot: inputs must have as many rows"),
    (lambda board: board.multiply(*blocks(2, 3), *blocks(2, 2)), "as many blocks along K, not 3 and 2"),
    (lambda board: board.multiply(*blocks(2, 3), blocks(2, 3)[0], blocks(1, 3)[1]), r"b_scales and b_codes must be \(rows, bl"),
    (lambda board: board.multiply(*blocks(0, 3), *blocks(2, 3)), "one or more of each"),
    (lambda board: board.multiply(*blocks(2, 3), blocks(2, 3)[0], blocks(2, 3)[1] / 2), "b_codes must be integers, not float64"),
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
    (says(b"\0" * 32 + DESIGN.identity(built=86_400)[32:]), r"the board seems older \(the board was built 1970-01-0.* files are"),
    (says(b"\0" * 32 + DESIGN.identity(built=4_000_000_000)[32:]), r"the host seems older \(the board was built 2096"),
    (says(b"\0" * 32 + DESIGN.identity()[32:]), "which is older isn't known, as the board doesn't say when it was built"),
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
        with pytest.raises(MxforgeError, match="this board takes values of BF16: give it bit patterns"):
            board.quantize(np.ones((1, 32)))


@pytest.mark.parametrize(("units", "message"), [
    ({"quantize": {"lanes": 4}, "matmul": {"a_element": "e5m2", "b_element": "e5m2", "lanes": 4, "rows": 1, "columns": 1}},
     "the board odd quantizes to e4m3 in blocks of 32, but multiplies e5m2 in blocks of 32; multiply takes blocks"),
    ({"quantize": {"lanes": 4, "block_size": 16}, "matmul": {"lanes": 4, "rows": 1, "columns": 1}},
     "quantizes to e4m3 in blocks of 16, but multiplies e4m3 in blocks of 32"),
])
def test_a_tile_of_other_blocks(units, message):
    odd = Design(board="odd", clock=12_000_000, divisor=12, units=units)
    with Imposter(says(odd.identity())) as port, Board(port, baud=115_200) as board, pytest.raises(MxforgeError, match=message):
        board.matmul(np.ones((1, 32)), np.ones((32, 1)))


def test_stochastic_rounding(monkeypatch):
    """Random numbers go with the values; some, if none are given."""
    asked = []
    design = Design(board="some", clock=12_000_000, divisor=12, units={"quantize": {"rounding": "stochastic", "lanes": 4}})
    with Imposter(says(design.identity())) as port, Board(port, baud=115_200) as board:
        monkeypatch.setattr(board, "play", lambda command, inputs, progress: asked.append(inputs) or {"scale": 0, "elements": 0})
        board.quantize(np.ones((3, 32)))
        board.quantize(np.ones((3, 32)), random=np.full((3, 32), 65_535))
        with pytest.raises(MxforgeError, match="random must be from 0 to 65535, not 65536"):
            board.quantize(np.ones((3, 32)), random=np.full((3, 32), 65_536))
    assert [inputs["random"].shape for inputs in asked] == [(3, 32)] * 2 and asked[0]["random"].std() > 10_000
    assert (asked[1]["random"] == 65_535).all() and asked[1]["random"].dtype == np.uint16


def test_a_port_that_talks_by_itself():
    """A console, or a receiver of satellites."""
    master, slave = os.openpty()
    is_over = threading.Event()

    def talk():
        while not is_over.wait(0.01):
            os.write(master, b"tick ")

    talking = threading.Thread(target=talk)
    talking.start()
    try:
        with pytest.raises(MxforgeError, match="no board of mxforge answers"):
            Board(os.ttyname(slave), baud=115_200, patience=0.02)
    finally:
        is_over.set()
        talking.join()
        os.close(master)
        os.close(slave)


def test_a_port_of_the_users_own():
    """That would never return by itself, and one that takes nothing."""
    with Imposter(says(DESIGN.identity())) as port, serial.Serial(port, 115_200) as own:
        board = Board(own)
        board.close()
    master, slave = os.openpty()
    tty.setraw(slave)
    with serial.Serial(os.ttyname(slave), 4_000_000) as own, pytest.raises(SilenceError, match="takes nothing more"):
        link = Link(own, tries=10**6)
        own.write_timeout = 0.05
        with link:
            list(link.ask((Command.QUANTIZE, bytes(4000)) for _ in range(8)))
    os.close(master)
    os.close(slave)


def test_a_port_that_another_has():
    with Imposter(says(DESIGN.identity())) as port, Board(port, baud=115_200), \
            pytest.raises(MxforgeError, match=f"the port {port} can't be opened: another program has it"):
        Board(port, baud=115_200)


def test_an_answer_of_another_length(sim_build):
    with Imposter(says(DESIGN.identity())) as port, Board(port, baud=115_200) as board, \
            pytest.raises(MxforgeError, match="bytes to quantize, not 80"):
        board.quantize(np.ones((2, 32)))
