"""Verilog, and the manifest that is its contract."""
import re
from dataclasses import asdict

from amaranth import Shape
from amaranth.back import verilog
from amaranth.lib import data, wiring

from . import __version__
from .pipeline import Streamed

__all__ = ["emit", "manifest_of", "unit_of"]


def _fields(shape):
    """Payload fields; an array is one field of ``count`` items."""
    shape = shape if isinstance(shape, data.Layout) else data.StructLayout({"value": shape})
    for name, field in shape:
        fact = {"name": name, "offset": field.offset}
        item = field.shape
        if isinstance(item, data.ArrayLayout):
            fact["count"] = item.length
            item = item.elem_shape
        item = Shape.cast(item)
        yield fact | {"width": item.width, "signed": item.signed}


def unit_of(component):
    return component.core if isinstance(component, Streamed) else component


def manifest_of(component, name, text):
    """The contract of ``component``, emitted as module ``name`` with Verilog ``text``: parameters, cadence, latency
    and interval in cycles, beats of a block, and for each port its direction, width and payload fields.
    """
    unit = unit_of(component)
    ports = {port: {"dir": "in", "width": 1} for port in ("clk", "rst") if re.search(rf"^  input {port};", text, re.M)}
    for path, member, _ in component.signature.flatten(component):
        port = ports["__".join(map(str, path))] = {
            "dir": "in" if member.flow == wiring.In else "out",
            "width": Shape.cast(member.shape).width,
        }
        if isinstance(member.shape, data.Layout):
            port["fields"] = list(_fields(member.shape))
    beats_in, beats_out = component.beats
    return {
        "name": name,
        "unit": type(unit).__module__.rpartition(".")[2],
        "mxforge": __version__,
        "parameters": asdict(component.parameters),
        "streamed": isinstance(component, Streamed),
        "cadence": component.cadence,
        "latency": component.latency,
        "interval": component.interval,
        "beats": {"i": beats_in, "o": beats_out},
        "reset": "sync",
        "ports": ports,
    }


def emit(component, name):
    """``(text, manifest)``: Verilog of ``component`` as module ``name``, and its contract. Same input, same text."""
    text = verilog.convert(component, name=name, emit_src=False, strip_internal_attrs=True)
    return text, manifest_of(component, name, text)
