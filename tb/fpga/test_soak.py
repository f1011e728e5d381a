# amaranth: UnusedElaboratable=no
"""A short soak; `make soak` is a long one."""
import re
from itertools import count

import numpy as np
import pytest
from answers import Imposter, says

from mxforge.fpga import soak
from mxforge.fpga.design import Design
from mxforge.fpga.link import Link
from mxforge.fpga.soak import NoisyPort, run
from mxforge.fpga.virtual import VirtualBoard


class Port:
    """What is written can be read."""
    baudrate, name = 9600, "somewhere"

    def __init__(self):
        self.data = b""

    def write(self, data):
        self.data = data

    def read(self, size):
        return self.data


def test_all_kinds_of_noise():
    rng = np.random.default_rng(1)
    port = NoisyPort(Port(), 2000, rng)
    assert port.name == "somewhere"
    clean = bytes(range(100))
    changed = {"write": 0, "read": 0}
    for _ in range(10_000):
        port.write(clean)
        changed["write"] += port._port.data != clean
        port._port.data = clean
        changed["read"] += port.read(1) != clean
    # Once in 20 times; no more goes wrong than is counted, and some of what doubles is the same as before.
    assert all(350 < count < 650 for count in changed.values())
    assert sum(changed.values()) == sum(port.done.values())
    assert all(count > 100 for kind, count in port.done.items() if not kind.startswith("write"))
    assert all(count > 50 for count in port.done.values())


@pytest.fixture(scope="module")
def port(sim_build):
    with VirtualBoard(sim_build) as board:
        yield board.port


def test_short(port):
    told = []
    outcome = run(port, 600, every=3000, progress=told.append)
    assert (outcome.requests, outcome.wrong, sum(told)) == (600, 0, 600)
    assert outcome.vanished == 3
    assert all(outcome.noise[kind] for kind in NoisyPort.KINDS)
    assert outcome.noticed["again"] and outcome.noticed["complaints"] and outcome.noticed["stray"]
    assert outcome.counters["ok"] >= 600 and outcome.counters["corrupt"] and not outcome.counters["overrun"]


def test_what_is_printed(mxforge, port):
    status, out, error = mxforge("fpga", "soak", "--port", port, "--frames", 300, "--every", 3000)
    assert (status, error) == (0, "")
    lines = {line.strip(): int(number) for line, number in re.findall(r"^(.*\S) +([\d,]+) *$", out, re.M)}
    assert lines["frames                 answered"] == 300 and lines["wrong"] == 0
    assert lines["hosts                  vanished in the middle of a frame"] == 2
    assert "faults                 flipped" in lines and {*NoisyPort.KINDS[1:]} < {*lines}
    assert lines["noticed by the host    requests sent again"] and lines["noticed by the board   corrupt"]
    assert re.search(r"^[\d.]+ s, [\d,]+ frames/s$", out, re.M)


def test_wrong_answers_are_told(mxforge, port, monkeypatch):
    right, number = Link.ask, count()

    def wrong(self, requests):
        for body in right(self, requests):
            # Of each host the first is who the board is; the board was reset before.
            yield body[:-1] + bytes([body[-1] ^ 1]) if len(body) < 200 and next(number) % 50 == 49 else body

    monkeypatch.setattr(Link, "ask", wrong)
    status, out, error = mxforge("fpga", "soak", "--port", port, "--frames", 120, "--every", 100_000)
    assert status == 1
    found = re.fullmatch(r"mxforge: (\d) of 120 answers differ from golden\n", error)
    assert found and re.search(rf"wrong +{found[1]} *$", out, re.M)


def test_a_hang_is_told(mxforge, monkeypatch):
    """The board says who it is, three times, and is reset; then nobody answers."""
    design = Design(board="small", clock=12_000_000, divisor=12, units={"dequantize": {"lanes": 1}})
    answered, number = says(design.identity()), count()
    monkeypatch.setattr(soak, "_PATIENCE", 0.01)
    monkeypatch.setattr(soak, "_TRIES", 20)
    with Imposter(lambda frame: answered(frame) if next(number) < 4 else b"") as port:
        status, out, error = mxforge("fpga", "soak", "--port", port, "--frames", 100, "--every", 1_000_000)
    assert status == 1 and re.search(r"answered +0 *$", out, re.M)
    assert re.fullmatch(f"mxforge: after 0 frames the board hangs: the board at {port} doesn't answer: [a-z]+ was sent 20 times\n",
                        error)


def test_a_board_that_cant_be_asked(refused):
    design = Design(board="small", clock=12_000_000, divisor=12, units={"matmul": {"accumulation": "exact", "lanes": 4}})
    with Imposter(says(design.identity())) as port:
        refused("fpga", "soak", "--port", port, answer="the board small has no unit that a soak can ask")
