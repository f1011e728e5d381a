"""Drivers and monitors of streams, for cocotb."""
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge

from .manifest import Payload, load

__all__ = ["StreamPort", "get_all", "put_all", "start"]


class StreamPort:
    """A stream of the design under test."""
    def __init__(self, dut, manifest, name):
        self.payload = getattr(dut, f"{name}__payload")
        self.valid = getattr(dut, f"{name}__valid")
        self.ready = getattr(dut, f"{name}__ready")
        self.layout = Payload(manifest, name)


async def put_all(clk, port, beats, pauses=None):
    """Transfer each of ``beats``, ``pauses()`` idle cycles before each."""
    edge = RisingEdge(clk)
    for beat in beats:
        for _ in range(pauses() if pauses else 0):
            port.valid.value = 0
            await edge
        port.valid.value = 1
        port.payload.value = beat
        while True:
            await edge
            if port.ready.value:
                break
    port.valid.value = 0


async def get_all(clk, port, count, pauses=None, patience=10_000):
    """``count`` beats, ``ready`` low for ``pauses()`` cycles before each.

    Fails if valid drops or the payload changes before a transfer, or if nothing comes for ``patience`` cycles.
    """
    edge = RisingEdge(clk)
    beats, held, idle = [], None, 0
    pause = pauses() if pauses else 0
    while len(beats) < count:
        port.ready.value = int(pause == 0)
        await edge
        valid = bool(port.valid.value)
        if held is not None:
            assert valid, "valid dropped before a transfer"
            assert int(port.payload.value) == held, "payload changed before a transfer"
        held = None
        if valid and pause == 0:
            beats.append(int(port.payload.value))
            idle = 0
            pause = pauses() if pauses else 0
        else:
            if valid:
                held = int(port.payload.value)
            idle += not valid
            assert idle < patience, f"no output for {patience} cycles, after {len(beats)} of {count} beats"
            pause = max(0, pause - 1)
    port.ready.value = 0
    return beats


async def start(dut):
    """Clock and reset; the manifest and the ports ``i`` and ``o``, idle."""
    manifest = load()
    Clock(dut.clk, 10, "ns").start()
    i, o = StreamPort(dut, manifest, "i"), StreamPort(dut, manifest, "o")
    i.valid.value = 0
    o.ready.value = 0
    dut.rst.value = 1
    await ClockCycles(dut.clk, 2)
    dut.rst.value = 0
    return manifest, i, o
