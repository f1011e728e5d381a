"""Tables of README and docs, from the manifests and from what was measured: ``make readme`` puts them in, a test compares."""
import functools
import re
import sys
from pathlib import Path

from .. import catalog
from ..emit import extent, manifest_of, option_of
from . import figures

__all__ = ["TABLES", "filled", "latencies", "ports"]


@functools.cache
def _manifests():
    return {name: manifest_of(entry.component(), name) for name, entry in catalog.ENTRIES.items()}


def _markdown(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def _payload(port):
    def shown(field):
        count = f"{field['count']} x " if "count" in field else ""
        return f"`{field['name']}` {count}{field['width']}"

    fields = ", ".join(map(shown, port["fields"]))
    return fields if len(port["fields"]) == 1 and "count" not in port["fields"][0] else f"{fields} = {port['width']}"


def ports():
    """Payload fields and bits of each unit with its defaults."""
    rows = []
    for name, manifest in _manifests().items():
        if name in catalog.UNITS:
            ports = manifest["ports"]
            rows.append([f"`{name}`", *(_payload(ports.get(f"{side}__payload") or ports[side]) for side in "io")])
    return _markdown(["Unit", "`i__payload`: fields and bits", "`o__payload`"], rows)


def latencies():
    """Latency, interval and beats of each catalogue entry."""
    rows = []
    for name, manifest in _manifests().items():
        entry = catalog.ENTRIES[name]
        options = [option_of(option, value) for option, value in entry.parameters.items()]
        beats = manifest["beats"]
        rows.append([f"`{name}`", entry.ports, extent(manifest["latency"]), extent(manifest["interval"]),
                     f"{beats['i']} : {beats['o']}", " ".join(options if name in catalog.UNITS else [entry.unit, *options])])
    return _markdown(["Entry", "Ports", "Latency", "Interval", "Beats in : out", "Configuration"], rows)


def _measured(table):
    return lambda: _markdown(*table(figures.document()))


def _said(words):
    return lambda: "".join(f"* {sentence}\n" for sentence in words(figures.document()))


TABLES = {"ports": ports, "latencies": latencies, **{name: _measured(table) for name, table in figures.TABLES.items()},
          **{name: _said(words) for name, words in figures.WORDS.items()}}


def filled(text):
    """``text`` with each table that is marked in it made anew."""
    def table(match):
        return f"{match[1]}{TABLES[match[2]]()}{match[4]}"

    return re.sub(r"(<!-- table (\w+): made by make readme -->\n)(.*?)(<!-- end of table -->)", table, text, flags=re.S)


def main(paths):
    """Fill the tables of the files ``paths`` in place."""
    for path in map(Path, paths):
        path.write_text(filled(path.read_text()))


if __name__ == "__main__":
    main(sys.argv[1:])
