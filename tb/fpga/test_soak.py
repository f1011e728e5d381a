"""A short soak; `make soak` is a long one."""
import numpy as np

from mxforge.fpga.soak import NoisyPort, run


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


def test_short(sim_build):
    told = []
    outcome = run("virtual", 600, every=3000, build_dir=sim_build, progress=told.append)
    assert (outcome.requests, outcome.wrong, sum(told)) == (600, 0, 600)
    assert outcome.vanished == 3
    assert all(outcome.noise[kind] for kind in NoisyPort.KINDS)
    assert outcome.noticed["again"] and outcome.noticed["complaints"] and outcome.noticed["stray"]
    assert outcome.counters["ok"] >= 600 and outcome.counters["corrupt"] and not outcome.counters["overrun"]
