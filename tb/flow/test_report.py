"""The report's page: whole by itself, escaped, and true to the results."""
import html.parser
import json
import re
from pathlib import Path

import numpy as np
import pytest

from mxforge.errors import MxforgeError
from mxforge.flow import report
from mxforge.flow.demo import OUTLIER, BlockErrors, Comparison, Copies, Example, Loss, Results, TensorResult

NAME = "<b>$x$ & 'y'</b>.weight"


def tensor(name, mx, fp8, **facts):
    return TensorResult(name=name, dtype="F32", shape=(8, 32), values=256, bytes=1024, blocks=8, signal=1.0,
                        mx=Loss(noise=mx, flushed=1, block_error=0.02, bytes=264),
                        fp8=Loss(noise=fp8, flushed=4, block_error=0.03, bytes=260), **facts)


@pytest.fixture
def results():
    results = Results(source="a <file>.safetensors", tensors=[tensor(NAME, 1e-3, 1e-3), tensor("other", 1e-3, 1e-2)],
                      seconds={"build": 1.0, "blocks": 2.0})
    results.scales[[0, 120, 121, 255]] = 1, 10, 3, 2
    results.sizes["count"][:3] = results.sizes["mx"][:3] = results.sizes["fp8"][:3] = 1, 2, 3
    errors = np.linspace(0.01, 0.05, 16)
    results.blocks = BlockErrors(name=NAME, amax=np.geomspace(1, 100, 16).astype(np.float32), mx=errors, fp8=2 * errors)
    results.examples = [Example(element=element, block_size=size, scales=[127] * (8 // size), values=list(OUTLIER))
                        for element in ("e4m3", "mxint8") for size in (8, 4)]
    for which in results.tensors:
        for element, noise in ("e4m3", 1.01e-3), ("mxint8", 2e-3):
            which.copies[element] = Copies(tiles=3, values=200, signal=1.0, direct=1e-3, requantized=noise, same=190, transposed=90)
    return results


@pytest.fixture(autouse=True)
def measured(monkeypatch):
    """The figures that mxforge came with: none, but for tests that put some in."""
    found = {}
    monkeypatch.setattr(report.figures, "document", lambda: found)
    return found


class Reader(html.parser.HTMLParser):
    """Checks that each element is closed where it should be, and gathers what a test asks for."""
    VOID = "meta", "link", "br", "img", "wbr"

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.words = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def page_of(results, tmp_path):
    return report.write(results, tmp_path / "new" / "report", OUTLIER).read_text()


def test_page_needs_nothing_beside_it(results, tmp_path):
    text = page_of(results, tmp_path)
    assert not re.search(r"https?:|//\w|@import|<script|<link", text)
    for _, attributes in Reader(text).elements:
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith("#")
    assert not re.search(r"url\((?!#)", text)


def test_page_is_for_everyone(results, tmp_path):
    page = Reader(page_of(results, tmp_path))
    pictures = [attributes for tag, attributes in page.elements if tag == "svg"]
    assert len(pictures) == 6 and all(picture["role"] == "img" and picture["aria-label"] for picture in pictures)
    assert sum(tag == "figcaption" for tag, _ in page.elements) == len(pictures)
    assert ("html", {"lang": "en"}) in page.elements
    assert any(attributes.get("name") == "viewport" for _, attributes in page.elements)
    text = page_of(results, tmp_path)
    assert "prefers-color-scheme: dark" in text
    # Every colour of a picture is one of the page's, or it would be unreadable in the other mode.
    drawn = "".join(re.findall(r"<svg.*?</svg>", text, re.S))
    assert not re.findall(r"#[0-9a-f]{6}\b", drawn)


def test_names_are_escaped(results, tmp_path):
    text = page_of(results, tmp_path)
    assert "<b>" not in text
    assert "&lt;b&gt;$x$ &amp; &#39;y&#39;&lt;/b&gt;.<wbr>weight</th>" in text
    assert any(NAME in words for words in Reader(text).words)
    assert any(NAME.removesuffix(".weight") == words.strip() for words in Reader(text).words)      # in a picture
    assert "a &lt;file&gt;.safetensors" in text


def test_figures_are_the_results(results, tmp_path):
    text = page_of(results, tmp_path)
    words = " ".join(Reader(text).words)
    assert "0 mismatches among 0 bit patterns compared." in words
    assert "512 in 2 tensors" in re.sub(r"\s+", " ", words)
    assert "30.00" in words and "20.00" in words
    figures = json.loads((tmp_path / "new" / "report" / "results.json").read_text())
    assert figures["totals"]["mx.bytes"] == 528
    assert [figure["sqnr_fp8"] for figure in figures["tensors"]] == pytest.approx([30, 20])


def test_mismatches_are_shown(results, tmp_path):
    results.tensors[0].check = Comparison(compared=7, mismatches=2, told=["row <1>: wrong"])
    text = page_of(results, tmp_path)
    assert "2 mismatches among 7 bit patterns compared." in text
    assert "row &lt;1&gt;: wrong" in text


def test_findings_are_plain(results):
    said = " ".join(report.findings(results))
    assert "of 2 tensors MXFP8 is better in 1, worse in 0 and within 0.1 dB in 1" in said
    assert "not the more precise" not in said
    results.tensors[1] = tensor("other", 1e-2, 1e-3)
    said = " ".join(report.findings(results))
    assert "better in 0, worse in 1" in said and "MXFP8 is not the more precise" in said
    assert "4.0 times as many" in said


def test_copies_are_told(results, tmp_path):
    page = Reader(page_of(results, tmp_path))
    words = re.sub(r"\s+", " ", " ".join(page.words))
    assert ("Column-wise copies in MXINT8, 6 tiles: median 30.00 dB from the values, 26.99 dB from row-wise copies; 95 % of codes "
            "alike.") in words
    assert "45 % of the codes agree" in words
    assert "it is not E4M3 that asks for both copies" in words
    assert words.count("30.00 26.99 95 45") == 2
    figures = json.loads((tmp_path / "new" / "report" / "results.json").read_text())
    assert figures["tensors"][0]["copies"]["mxint8"]["sqnr_requantized"] == pytest.approx(26.9897)
    # Where E4M3 loses by it as well, nothing is said in its favour.
    for which in results.tensors:
        which.copies["e4m3"].requantized = 2e-3
    assert "it is not E4M3" not in " ".join(report.findings(results))


def test_copies_without_a_figure(results, tmp_path):
    """Of a matrix of zeros there is no SQNR, and none of an exact copy: the table has them all the same."""
    results.tensors[0].copies["mxint8"].signal = results.tensors[0].copies["mxint8"].direct = 0.0
    results.tensors[0].copies["mxint8"].requantized = 0.0
    words = re.sub(r"\s+", " ", " ".join(Reader(page_of(results, tmp_path)).words))
    assert "in MXINT8, 3 tiles: median" in words
    assert "- - 95 45" in words


def test_what_was_measured_is_shown(results, tmp_path, measured):
    assert "The claims, measured" not in page_of(results, tmp_path)
    for lanes in 1, 2, 4:
        measured[f"area/dequantizer_lanes_{lanes}"] = {
            "command": "mxforge synth <x>", "tools": {}, "latency": 4, "beats": {"i": 1},
            "values": {"ecp5": {"lut4_equivalents": 10 + 70 * lanes, "ffs": 5, "lut_rams": 0}}}
    measured["fmax/dequantizer_lanes_4"] = {"beats": {"i": 1}, "values": {"median": 250.0, "min": 240.0, "max": 260.0}}
    measured["area/dequantize1_fp32"] = measured["area/dequantizer_lanes_1"]
    text = page_of(results, tmp_path)
    page = Reader(text)
    words = re.sub(r"\s+", " ", " ".join(page.words))
    assert "The claims, measured" in words and sum(tag == "svg" for tag, _ in page.elements) == 7
    assert "10 + 70.0 x lanes" in words and "How units scale" in words
    assert "E8M0, 1 lane: <code>dequantize1_fp32</code>" in text and "<code>mxforge synth &lt;x&gt;</code>" in text
    assert not re.search(r"https?:|url\((?!#)", text)


def test_little_to_show(tmp_path):
    """All zeros: no signal, no scales but the lowest, nothing to draw."""
    nothing = tensor("zeros", 0.0, 0.0)
    nothing.signal, nothing.mx.flushed, nothing.fp8.flushed = 0.0, 0, 0
    page = Reader(page_of(Results(source="zeros.npy", tensors=[nothing], seconds={"blocks": 1.0}), tmp_path))
    assert not [tag for tag, _ in page.elements if tag == "svg"]


def test_old_page_stays_whole_if_writing_fails(results, tmp_path, monkeypatch):
    page = report.write(results, tmp_path, OUTLIER)
    before = page.read_text()

    def fail(*_):
        raise OSError("disk full")
    monkeypatch.setattr(Path, "replace", fail)
    results.source = "another"
    with pytest.raises(MxforgeError, match=r"results.json can't be written: disk full"):
        report.write(results, tmp_path, OUTLIER)
    assert page.read_text() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.html", "results.json"]


@pytest.mark.parametrize(("part", "whole", "words"), [
    (0, 100, "0"), (1, 100, "1.0"), (1, 8, "12"), (157, 22713216, "0.00069"), (100, 100, "100"), (0, 0, "-")])
def test_percent(part, whole, words):
    assert report.percent(part, whole) == words
