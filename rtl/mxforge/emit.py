"""Verilog, and the manifest that is its contract."""
import contextlib
import gc
import os
import re
from dataclasses import asdict, fields

from amaranth import ClockDomain, Shape
from amaranth._toolchain.yosys import YosysError, _BuiltinYosys, find_yosys
from amaranth.back import rtlil
from amaranth.lib import data, wiring

from . import __version__
from .axi_stream import AxiStream
from .errors import MxforgeError
from .formats import E8M0, ELEMENTS, WIDES, IntegerFormat
from .pipeline import Streamed
from .unit import StreamUnit

__all__ = ["CLOCKS", "MEANINGS", "RESERVED", "RESETS", "command_of", "comment", "contract_lines", "emit", "extent", "field_span",
           "manifest_of", "option_of", "padding_of", "payloads", "unit_of"]

# Ports that are no part of a stream.
CLOCKS = "clk", "rst", "aclk", "aresetn"

RESETS = "sync", "async"

# What each payload field means, by its name, or by unit and name where units differ. Braces hold a parameter.
MEANINGS = {
    "a_elements": "{a_element} codes of A's block",
    "a_scale": "E8M0 code of A's block",
    "amax": "largest magnitude of the block: {source} bits without the sign",
    "amaxes": "largest magnitudes of blocks, one a lane: {source} bits without the sign",
    "b_elements": "{b_element} codes of B's block",
    "b_scale": "E8M0 code of B's block",
    "c": "FP32 bits of the addend",
    "column_elements": "{element} codes of the tile's column, from top to bottom",
    "column_scales": "E8M0 code of the tile's column",
    "elements": "{element} codes",
    "first": "1 starts a new product, at the addend",
    "is_out_of_window": "1 if a term lay outside the accumulator's window; the result is NaN then",
    "last": "1 asks for the result",
    "products": "FP32 bits of a times b",
    "random": "a fresh random number for each value",
    "result": "{target} bits of the sum",
    "row_elements": "{element} codes of the tile's row, from left to right",
    "row_scales": "E8M0 code of the tile's row",
    "scale": "E8M0 code of the block",
    "scales": "E8M0 codes, one a lane",
    "values": "{source} bits",
    "count": "blocks that are there on a packet's last transfer",
    "data": "bytes of the stream, the first in memory lowest",
    "is_truncated": "1 if the packet ended inside its last block, whose missing bytes are 0, or with no byte of one",
    "keep": "a bit for each byte of data, 1 if it counts; all ones but on a packet's last beat",
    "column": "column of the scale",
    "columns": "columns of the matrix of scales, 0 for 65,536; read with first",
    "is_padding": "1 where no scale lies",
    "offset": "bytes from the swizzled plane's start",
    "row": "row of the scale",
    "rows": "rows of the matrix of scales, 0 for 65,536; read with first",
    "scale_address.first": "1 starts a walk",
    "scale_address.last": "1 on a walk's last address",
    "packer.last": "1 on a packet's last",
    "unpacker.last": "1 on a packet's last",
    "a_scales": "E8M0 codes of the blocks of A's rows",
    "b_scales": "E8M0 codes of the blocks of B's columns",
    "dequantizer.values": "{target} bits",
    "dual_quantizer.values": "{source} bits, a row of a tile",
    "fp32_multiplier.a": "FP32 bits",
    "fp32_multiplier.b": "FP32 bits",
    "lfsr.values": "bits of any kind, passed through",
    "tensor_dequantizer.scale": "FP32 bits of the factor of elements",
    "tensor_dequantizer.values": "{target} bits",
    "tensor_quantizer.amax": "largest finite magnitude of the tensor so far: FP32 bits without the sign",
    "tensor_quantizer.first": "1 starts a tensor",
    "tensor_quantizer.scale": "FP32 bits of the factor of values",
    "matmul_tile.a_elements": "{a_element} codes of the blocks of A's rows, row after row",
    "matmul_tile.b_elements": "{b_element} codes of the blocks of B's columns, column after column",
    "matmul_tile.c": "FP32 bits of the addends, row after row",
    "matmul_tile.is_out_of_window": "1 for each result of which a term lay outside the accumulator's window; it is NaN then",
    "results": "{target} bits of the sums, row after row",
}

MEANINGS |= {f"matmul_layer.{name}": MEANINGS[f"matmul_tile.{name}"] for name in ("a_elements", "b_elements", "c")} | {
    "matmul_layer.scales": "E8M0 codes of the blocks of D's rows, the same on each of their beats",
    "matmul_layer.elements": "{d_element} codes of the next of D's columns, row after row",
    "matmul_layer.last": "1 asks for the results; at the output, 1 on a block's last beat",
    "matmul_layer.is_out_of_window": "1 for each row if a term of its block lay outside the accumulator's window: it is NaN",
}

# IEEE 1800-2017, annex B.
_RESERVED_WORDS = """
    accept_on alias always always_comb always_ff always_latch and assert assign assume automatic before begin bind bins
    binsof bit break buf bufif0 bufif1 byte case casex casez cell chandle checker class clocking cmos config const
    constraint context continue cover covergroup coverpoint cross deassign default defparam design disable dist do edge
    else end endcase endchecker endclass endclocking endconfig endfunction endgenerate endgroup endinterface endmodule
    endpackage endprimitive endprogram endproperty endspecify endsequence endtable endtask enum event eventually expect
    export extends extern final first_match for force foreach forever fork forkjoin function generate genvar global
    highz0 highz1 if iff ifnone ignore_bins illegal_bins implements implies import incdir include initial inout input
    inside instance int integer interconnect interface intersect join join_any join_none large let liblist library local
    localparam logic longint macromodule matches medium modport module nand negedge nettype new nexttime nmos nor
    noshowcancelled not notif0 notif1 null or output package packed parameter pmos posedge primitive priority program
    property protected pull0 pull1 pulldown pullup pulsestyle_ondetect pulsestyle_onevent pure rand randc randcase
    randsequence rcmos real realtime ref reg reject_on release repeat restrict return rnmos rpmos rtran rtranif0
    rtranif1 s_always s_eventually s_nexttime s_until s_until_with scalared sequence shortint shortreal showcancelled
    signed small soft solve specify specparam static string strong strong0 strong1 struct super supply0 supply1
    sync_accept_on sync_reject_on table tagged task this throughout time timeprecision timeunit tran tranif0 tranif1 tri
    tri0 tri1 triand trior trireg type typedef union unique unique0 unsigned until until_with untyped use uwire var
    vectored virtual void wait wait_order wand weak weak0 weak1 while wildcard wire with within wor xnor xor
"""
RESERVED = frozenset(_RESERVED_WORDS.split())

# Yosys writes operands at their own width, never a `default:` arm, and initialises what a process assigns. ASCRANGE
# stays fatal: it is how a zero-width port shows. In the file, so that a design round it is linted without waivers.
_WAIVED = "WIDTHEXPAND", "WIDTHTRUNC", "CASEINCOMPLETE", "UNUSEDSIGNAL", "PROCASSINIT"

_OWNERSHIP = """\
SPDX-License-Identifier: LicenseRef-owner-of-this-file
This file belongs to whoever generated it. The authors of mxforge claim no rights in it."""


def unit_of(component):
    return unit_of(component.core) if isinstance(component, Streamed | AxiStream) else component


def _unit_name(component):
    return type(unit_of(component)).__module__.rpartition(".")[2]


def _fields(shape, unit, parameters):
    """Payload fields; an array is one field of ``count`` items."""
    words = {name: value.upper() for name, value in parameters.items() if isinstance(value, str)}
    for name, field in shape:
        fact = {"name": name, "offset": field.offset}
        item = field.shape
        if isinstance(item, data.ArrayLayout):
            fact["count"] = item.length
            item = item.elem_shape
        item = Shape.cast(item)
        meaning = MEANINGS.get(f"{unit}.{name}", MEANINGS.get(name, ""))
        yield fact | {"width": item.width, "signed": item.signed, "meaning": meaning.format(**words)}


def option_of(name, value):
    """A parameter as the command line writes it."""
    name = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    return f"--{name} {value}"


def command_of(component, name, reset="sync", init=True):
    """The command that emits ``component`` as module ``name``: its unit, and what differs from the defaults."""
    unit = _unit_name(component)
    words = [f"mxforge emit {unit}"]
    for field in fields(component.parameters):
        value = getattr(component.parameters, field.name)
        if value != field.default:
            words.append(option_of(field.name, value))
    if isinstance(component, AxiStream):
        words.append("--axi")
    elif not isinstance(component, Streamed | StreamUnit):
        words.append("--bare")
    elif isinstance(component, Streamed) and component.core.is_operator:
        words.append("--streams")
    if name != unit:
        words.append(f"--name {name}")
    if not init:
        words.append("--no-init")
    if reset != "sync":
        words.append(f"--reset {reset}")
    return " ".join(words)


def manifest_of(component, name, clocked=True, reset="sync", init=True):
    """The contract of ``component`` as module ``name``: parameters, cadence, latency and interval in cycles, beats of a
    block, for each port its direction, width and payload fields, and constants for those who write Verilog.
    """
    unit = _unit_name(component)
    parameters = asdict(component.parameters)
    is_axi = isinstance(component, AxiStream)
    ports = {port: {"dir": "in", "width": 1} for port in ("clk", "rst")} if clocked and not is_axi else {}
    for path, member, _ in component.signature.flatten(component):
        port = ports["__".join(map(str, path))] = {
            "dir": "in" if member.flow == wiring.In else "out",
            "width": Shape.cast(member.shape).width,
        }
        if isinstance(member.shape, data.Layout):
            port["fields"] = list(_fields(member.shape, unit, parameters))
    beats_in, beats_out = component.beats
    rates = {"throughput": component.throughput} if component.cadence == "elastic" else {}
    manifest = {
        "name": name,
        "unit": unit,
        "mxforge": __version__,
        "command": command_of(component, name, reset, init),
        "parameters": parameters,
        "streamed": isinstance(component, Streamed | StreamUnit | AxiStream),
        "axi": is_axi,
        "cadence": component.cadence,
        "latency": component.latency,
        "interval": component.interval,
        **rates,
        "beats": {"i": beats_in, "o": beats_out},
        "notes": list(component.notes),
        "reset": reset,
        "init": init,
        "ports": ports,
    }
    return manifest | {"constants": list(_constants(manifest))}


def _constants(manifest):
    """What a design round the unit has to know, as ``localparam``s of Verilog: name, value, text."""
    def integer(name, value, width=None):
        name = name.upper()
        if width is None and value < 1 << 31:
            return {"name": name, "value": value, "verilog": f"localparam integer {name} = {value};"}
        width = width or 64
        text = f"localparam [{width - 1}:0] {name} = {width}'h{value:0{-(-width // 4)}x};"
        return {"name": name, "value": value, "verilog": text}

    for name in "latency", "interval":
        bounds = {f"min_{name}": manifest[name][0], f"max_{name}": manifest[name][1]} if manifest["cadence"] == "elastic" else {
            name: manifest[name]}
        for bound, cycles in bounds.items():
            yield integer(bound, cycles)
    for side, beats in manifest["beats"].items():
        yield integer(f"{side}_beats", beats)
    formats = ELEMENTS | WIDES
    for name, value in manifest["parameters"].items():
        if not isinstance(value, str):
            yield integer(name, int(value))
            continue
        yield {"name": name.upper(), "value": value, "verilog": f"localparam {name.upper()} = \"{value}\";"}
        if value in formats:
            fmt = formats[value]
            if isinstance(fmt, IntegerFormat):
                facts = {"width": fmt.width, "fraction_width": fmt.mantissa_width}
            else:
                facts = {"width": fmt.width, "exponent_width": fmt.exponent_width, "mantissa_width": fmt.mantissa_width,
                         "bias": fmt.bias}
            for fact, number in facts.items():
                yield integer(f"{name}_{fact}", number)
            codes = {"max": fmt.max_code, "inf": fmt.inf_code, "nan": fmt.nan_code if fmt.has_nan else None}
            for fact, code in codes.items():
                if code is not None:
                    yield integer(f"{name}_{fact}_code", code, fmt.width)
    fields = [field for port in payloads(manifest).values() for field in manifest["ports"][port]["fields"]]
    if any("E8M0" in field["meaning"] for field in fields):
        yield integer("scale_width", E8M0.width)
        yield integer("scale_bias", E8M0.bias)
        yield integer("scale_nan_code", E8M0.nan_code, E8M0.width)
    for side, port in payloads(manifest).items():
        facts = manifest["ports"][port]
        yield integer(f"{side}_width", facts["width"])
        for field in facts["fields"]:
            for fact in "offset", "width", "count":
                if fact in field:
                    yield integer(f"{side}_{field['name']}_{fact}", field[fact])


def payloads(manifest):
    """``{name: port}`` of the payloads: ``i`` and ``o``, of AXI4-Streams ``s_axis_tdata`` and ``m_axis_tdata``."""
    ports = [port for port, facts in manifest["ports"].items() if "fields" in facts]
    return {port.partition("__")[0]: port for port in ports if not port.endswith(("_tkeep", "_tlast"))}


def emit(component, name, *, reset="sync", init=True):
    """``(text, manifest)``: Verilog of ``component`` as module ``name``, and its contract. Same input, same text.

    ``reset`` is ``"sync"`` or ``"async"``, active high (low where the port is ``aresetn``). Without ``init`` no register and
    no memory has an initial value, as ASIC flows want it: state is then defined from the first reset on.
    """
    if reset not in RESETS:
        raise ValueError(f"reset must be one of {', '.join(RESETS)}, not {reset!r}")
    if isinstance(component, AxiStream):
        component.domain.async_reset = reset == "async"
    with _no_garbage_collection():
        text = rtlil.convert(component, name=name, emit_src=False,
                             missing_domain=lambda domain: ClockDomain(domain, async_reset=reset == "async"))
    text = _plain_names(_without_repeats(text))
    clocked = re.search(r"^  wire width 1 input \d+ +\\clk$", text, re.M) is not None
    manifest = manifest_of(component, name, clocked, reset, init)
    text = _port_list(_verilog(text, init), manifest)
    return _header(manifest) + _waived(text.lstrip("\n")), manifest


@contextlib.contextmanager
def _no_garbage_collection():
    """Amaranth makes millions of objects, all of which stay: looking for garbage among them is 2/5 of its time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _without_repeats(text):
    """RTLIL ``text`` in which modules that are alike but for their names are one, named as the first."""
    module = re.compile(r"^(?:attribute [^\n]*\n)*module \\(\S+)\n(.*?^end\n)", re.M | re.S)
    while True:
        first, kept = {}, {}
        for match in module.finditer(text):
            kept[match[1]] = first.setdefault(match[2], match[1])
        if len(first) == len(kept):
            return text
        text = module.sub(lambda match, kept=kept: match[0] if kept[match[1]] == match[1] else "", text)
        text = re.sub(r"^( *cell \\)(\S+)", lambda match, kept=kept: match[1] + kept.get(match[2], match[2]), text, flags=re.M)


def _plain_names(text):
    """RTLIL ``text`` whose public names are plain identifiers, since many tools mishandle escaped ones.

    ``top.core`` becomes ``top__core``, so all modules carry the top's name and two units can live in one design.
    """
    # Memories are named in strings too, with the backslash doubled.
    name = re.compile(r"""(?:(?<=\s)|(?<="\\))\\([^\s"]+)""")
    found = dict.fromkeys(name.findall(text))
    taken = {old for old in found if re.fullmatch(r"\w+", old) and old not in RESERVED}
    plain = {}
    for old in found:
        if old not in taken:
            new = re.sub(r"\W+", "_", old.replace(".", "__")).rstrip("_")
            while new in taken or new in RESERVED:
                new += "_"
            taken.add(new)
            plain[old] = new
    return name.sub(lambda match: "\\" + plain.get(match[1], match[1]), text)


def _verilog(text, init):
    if not init:
        text = re.sub(r"^ *attribute \\init .*\n", "", text, flags=re.M)
    # Assignments and registers alone: an `always @*` depends on an initial value that starts it at time 0.
    steps = ["read_rtlil <<rtlil", text, "rtlil", "proc -norom"]
    if not init:
        steps.append("delete t:$meminit_v2")
    steps += ["memory_collect", *(f"attrmap {modules}-remove {name}" for modules in ("", "-modattr ")
                                  for name in ("generator", "top", "src", "amaranth.hierarchy", "amaranth.decoding")),
              "write_verilog"]
    text = _yosys().run(["-q", "-"], "\n".join(steps), ignore_warnings=True)
    return re.sub(r"^/\* Generated by .*\*/\n", "", text)


def _yosys():
    # The one that amaranth brings, unless told otherwise: one found on the system may write other bytes.
    if "AMARANTH_USE_YOSYS" not in os.environ and _BuiltinYosys.available():
        return _BuiltinYosys
    try:
        return find_yosys(lambda version: version >= (0, 40))
    except YosysError as error:
        raise MxforgeError(f"no Yosys 0.40 or newer to write Verilog with (unset AMARANTH_USE_YOSYS, or "
                           f"pip install 'amaranth[builtin-yosys]'): {error}") from None


def _port_list(text, manifest):
    """Verilog ``text`` with the top's ports declared in its header, one a line, in the manifest's order."""
    name, ports = manifest["name"], manifest["ports"]
    head, top, rest = re.fullmatch(rf"(.*?)^module {name}\([^)]*\);\n(.*?^endmodule\n)(.*)", text, re.M | re.S).groups()
    lines = []
    for port, facts in ports.items():
        span = f"[{facts['width'] - 1}:0] " if facts["width"] > 1 else ""
        declared = re.escape(f"{span}{port}")
        top = re.sub(rf"^  {facts['dir']}put {declared};\n", "", top, count=1, flags=re.M)
        kind, value = re.search(rf"^  (wire|reg) {declared}( = \S+)?;\n", top, re.M).groups()
        top = re.sub(rf"^  {kind} {declared}( = \S+)?;\n", "", top, count=1, flags=re.M)
        lines.append(f"  {facts['dir'] + 'put':6} {kind} {span}{port}{value or ''}")
    if rest := head + rest:
        # One file holds the whole unit; its name is the top's.
        rest = f"\n/* verilator lint_off DECLFILENAME */\n{rest}/* verilator lint_on DECLFILENAME */\n"
    return f"module {name} (\n" + ",\n".join(lines) + f"\n);\n{top}{rest}"


def _waived(text):
    off = "".join(f"/* verilator lint_off {rule} */\n" for rule in _WAIVED)
    return f"/* verilator lint_save */\n{off}\n{text}\n/* verilator lint_restore */\n"


def _plural(count, noun):
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _has_last(manifest):
    return any(field["name"] == "last" for port in manifest["ports"].values() for field in port.get("fields", ()))


def extent(cycles):
    """A latency or an interval as people read it: a number, or the bounds that it has."""
    if not isinstance(cycles, list):
        return cycles
    least, most = cycles
    return least if least == most else f"{least} to {most}"


def _timing(manifest):
    """Cadence, latency, interval and reset, in sentences."""
    if not manifest["ports"].keys() & set(CLOCKS):
        yield "Combinational: o follows i."
        return
    beats_in, beats_out = manifest["beats"]["i"], manifest["beats"]["o"]
    # Of an output that takes several inputs, the blocks are others.
    is_gathered = manifest["cadence"] == "some" and beats_out > 1
    if beats_in > 1:
        outputs = "" if is_gathered else f" and {_plural(beats_out, 'output beat')}"
        yield f"A block takes {_plural(beats_in, 'input beat')}{outputs}, counted from reset."
        yield "Its arrays come in order, their first items in the first beat; what is no array is the same on each of its beats."
    block = "A block's last input beat" if beats_in > 1 else "An input beat"
    most = manifest["interval"][1] if manifest["cadence"] == "elastic" else 1
    yield {
        "each": "Each input beat gives one output beat.",
        "some": f"{block} gives one output beat{' if it has last' if _has_last(manifest) else ''}." if not is_gathered else
                f"{block} gives {beats_out} output beats if it has last and completes what they need.",
        "blocks": "Each block gives its output beats once all of it is in.",
        "elastic": f"An input beat completes {extent([0, most])} output beats.",
    }[manifest["cadence"]]
    yield from manifest["notes"]
    beat = "an input beat" + (" (a block's last)" if beats_in > 1 else "")
    if manifest["cadence"] == "elastic":
        beat = "the input beat that completes an output beat"
    elif is_gathered:
        beat = "an input beat that gives output beats"
    first = "first output beat" if beats_out > 1 else "output beat"
    latency = _plural(extent(manifest["latency"]), "cycle")
    if manifest["streamed"]:
        yield f"Latency: {latency}, from the clock edge that transfers {beat} to the edge at which its {first} is first seen valid."
    else:
        yield f"Latency: {latency}, from {beat} to its {first}."
    yield f"Interval: {_plural(extent(manifest['interval']), 'cycle')} from one input beat to the next, sustained."
    if manifest["cadence"] == "elastic":
        rates = manifest["throughput"]
        yield f"Throughput in long packets: {rates['i']:.4g} input beats and {rates['o']:.4g} output beats a cycle."
    if manifest["axi"]:
        yield "AXI4-Stream: a beat is transferred at a rising edge of aclk at which tvalid and tready are high."
        yield from _packets(manifest)
    elif manifest["streamed"]:
        yield "A beat is transferred at a rising edge of clk at which valid and ready are high; valid never waits for ready."
    elif "i_valid" in manifest["ports"]:
        yield "i is a beat while i_valid is high, o while o_valid is; there is no way to stall."
    is_high = "rst" in manifest["ports"]
    yield (f"{'rst' if is_high else 'aresetn'} is active {'high' if is_high else 'low'} and "
           f"{'a' * (manifest['reset'] == 'async')}synchronous.")
    if not manifest["init"]:
        yield "State is undefined until the first reset."


def _packets(manifest):
    """What tkeep and tlast of an AXI4-Stream top mean, where they are no fields of the unit."""
    ports = manifest["ports"]
    if "fields" not in ports["s_axis_tkeep"]:
        yield "s_axis_tkeep must be all ones (beats are whole) and is not looked at."
    if "fields" not in ports["m_axis_tkeep"]:
        yield "m_axis_tkeep is all ones."
    if "fields" in ports["m_axis_tlast"]:
        if "fields" not in ports["s_axis_tlast"]:
            yield "s_axis_tlast is not looked at."
        return
    if manifest["cadence"] == "each":
        yield "m_axis_tlast is s_axis_tlast of the beat that the output beat comes of."
    elif manifest["cadence"] == "some":
        yield "m_axis_tlast is s_axis_tlast of the beat that gives the output beat; that of a beat that gives none is dropped."
    else:
        yield "m_axis_tlast of a block's last beat is s_axis_tlast of its last input beat; on other beats it is dropped."


def field_span(field):
    """The bits that a field takes in its payload, as Verilog writes them."""
    high = field["offset"] + field["width"] * field.get("count", 1) - 1
    return f"[{high}:{field['offset']}]"


def padding_of(port):
    """How many bits of a payload are above its fields."""
    return port["width"] - max(field["offset"] + field["width"] * field.get("count", 1) for field in port["fields"])


def contract_lines(manifest):
    """The port contract in words, for people."""
    yield from _timing(manifest)
    for name, port in manifest["ports"].items():
        if "fields" not in port:
            continue
        yield ""
        yield f"{name}, {_plural(port['width'], 'bit')}:"
        spans = [field_span(field) for field in port["fields"]]
        names = [f"{field['name']}[{field['count']}]" if "count" in field else field["name"] for field in port["fields"]]
        for span, shown, field in zip(spans, names, port["fields"], strict=True):
            item = f"; item k at [{field['offset']} + {field['width']}*k +: {field['width']}]" if "count" in field else ""
            yield f"  {span:{max(map(len, spans))}} {shown:{max(map(len, names))}}  {field['meaning']}{item}"
        if padding := padding_of(port):
            yield f"  [{port['width'] - 1}:{port['width'] - padding}] {'zeros' if port['dir'] == 'out' else 'are not looked at'}"


def comment(manifest, mark="//"):
    """The head of each emitted file: the command that makes it, whose it is."""
    lines = [f"Generated by mxforge {manifest['mxforge']}: {manifest['command']}", *_OWNERSHIP.splitlines()]
    return "".join(f"{mark} {line}\n" for line in lines)


def _header(manifest):
    parameters = ", ".join(f"{name} {value}" for name, value in manifest["parameters"].items())
    lines = [f"{manifest['unit']}: {parameters}.", *contract_lines(manifest)]
    return f"{comment(manifest)}//\n" + "".join(f"// {line}".rstrip() + "\n" for line in lines) + "\n"
