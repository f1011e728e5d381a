# amaranth: UnusedElaboratable=no
"""The page's server, and the page in a browser, on a virtual board or on what takes its place."""
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from itertools import product
from pathlib import Path

import numpy as np
import pytest

import mxgolden
from mxbench import verilator
from mxforge.errors import MxforgeError
from mxforge.fpga import view
from mxforge.fpga.view import CHOICES, Server, parameters_of
from mxgolden import quantizer

OUTLIER = ["0.5", "-1.25", "3e-7", "100", *["0.75"] * 28]
JSON = "application/json"


@contextlib.contextmanager
def serving(build_dir):
    with Server(build_dir, 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def server(sim_build):
    """One with real hardware."""
    with serving(sim_build) as server:
        yield server


class Golden:
    """In the place of a virtual board: golden's answers, and a change of them."""
    is_slow = False
    wrong = 0
    trouble = None

    def __init__(self, build_dir, parameters):
        self.parameters = parameters
        self.is_closed = False
        self.made.append(self)

    def is_started(self, seconds=0):
        return not self.is_slow

    def is_wanted(self):
        return not self.is_closed

    def play(self, inputs):
        if self.trouble:
            raise self.trouble
        block = quantizer.expected(vars(self.parameters), inputs)
        codes = block["elements"] ^ np.uint8(self.wrong)
        values = mxgolden.dequantize(codes, block["scale"][:, None], self.parameters.element)
        return block["scale"], codes, values, (b"", {}, 4)

    def close(self):
        self.is_closed = True


@pytest.fixture
def golden(monkeypatch):
    """`Golden` for virtual boards."""
    fresh = type("Fresh", (Golden,), {"made": []})
    monkeypatch.setattr(view, "_Machine", fresh)
    monkeypatch.setattr(view, "waves", lambda *_: {"clocks": 8, "divisor": 4, "rows": [], "lines": {}, "parts": [["all", 0, 8]]})
    return fresh


@pytest.fixture
def quick(golden, tmp_path):
    """A server without hardware."""
    with serving(tmp_path) as server:
        yield server


def asked(server, method, path, body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    with contextlib.closing(connection):
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, response.read(), dict(response.headers)


def posted(server, path, **body):
    status, answer, _ = asked(server, "POST", path, json.dumps(body), Content_Type=JSON)
    return status, json.loads(answer)


def ran(server, texts, **body):
    """An answer of a run, once the hardware is there."""
    while True:
        status, answer = posted(server, "/run", values=" ".join(texts), **body)
        if status != 202:
            return status, answer
        time.sleep(0.1)


@pytest.mark.parametrize(("path", "kind"), [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript"),
                                            ("/icon.svg", "image/svg+xml"), ("/?a=b", "text/html")])
def test_assets(quick, path, kind):
    status, content, headers = asked(quick, "GET", path)
    assert status == 200 and content and headers["Content-Type"].startswith(kind)
    assert "default-src 'none'" in headers["Content-Security-Policy"] and "unsafe" not in headers["Content-Security-Policy"]
    assert b"http://" not in content.replace(b"http://www.w3.org/2000/svg", b"") and b"https://" not in content


@pytest.mark.parametrize(("method", "path", "body", "headers", "status", "message"), [
    ("GET", "/view.py", None, {}, 404, "there is no such page"),
    ("GET", "/../view.py", None, {}, 404, "there is no such page"),
    ("POST", "/choices", "{}", {"Content-Type": JSON}, 404, "there is no such page"),
    ("GET", "/", None, {"Host": "evil.example"}, 403, "for this machine's own pages only"),
    ("GET", "/choices", None, {"Host": "127.0.0.1:1"}, 403, "for this machine's own pages only"),
    ("POST", "/run", "{}", {"Content-Type": JSON, "Origin": "http://evil.example"}, 403, "for this machine's own pages only"),
    ("POST", "/run", "{}", {"Content-Type": "text/plain"}, 415, "the body must be JSON"),
    ("POST", "/run", "{", {"Content-Type": JSON}, 400, "the body must be a JSON object"),
    ("POST", "/run", "[]", {"Content-Type": JSON}, 400, "the body must be a JSON object"),
    ("POST", "/run", b"\xff", {"Content-Type": JSON}, 400, "the body must be a JSON object"),
    ("POST", "/run", "[" * 60_000, {"Content-Type": JSON}, 400, "the body must be a JSON object"),
    ("POST", "/run", " " * 70_000, {"Content-Type": JSON}, 413, "the body must be of 65536 bytes or less"),
    ("POST", "/run", "{}", {"Content-Type": JSON, "Content-Length": "-1"}, 411, "the body's length must be given"),
    ("POST", "/run", "{}", {"Content-Type": JSON, "Content-Length": "9" * 5000}, 413, "the body must be of 65536 bytes or less"),
    ("PUT", "/run", "{}", {"Content-Type": JSON}, 501, "Unsupported method ('PUT')"),
])
def test_refuses_requests(quick, method, path, body, headers, status, message):
    got, answer, sent = asked(quick, method, path, body, **headers)
    said = json.loads(answer)
    assert (got, set(said)) == (status, {"field", "message"}) and message in said["message"] and "\n" not in said["message"]
    assert "Content-Security-Policy" in sent


def test_a_head_has_no_body(quick):
    assert asked(quick, "HEAD", "/")[:2] == (501, b"")


def test_the_port_of_http(monkeypatch):
    """Which browsers leave out of what they ask."""
    told = []
    handler = object.__new__(view._Handler)
    handler.server = type("Server", (), {"server_port": 80})
    monkeypatch.setattr(handler, "_refuse", lambda *refusal: told.append(refusal), raising=False)
    for host, origin in ("localhost", "http://localhost"), ("127.0.0.1", None), ("localhost:8032", None), ("localhost", "http://a.b"):
        handler.headers = {"Host": host, "Origin": origin}
        told.append(handler._is_from_here())
    assert told[:2] == [True, True] and told[3] is told[5] is False and "this is 127.0.0.1," in told[2][2]


@pytest.mark.parametrize(("change", "field", "message"), [
    ({"values": "1 2"}, "values", "a block is 32 values; these are 2, 30 missing"),
    ({"values": "1 2 abc"}, "values", "value 3, 'abc', is not a number"),
    ({"values": 7}, "values", "values must be a text"),
    ({"parameters": {"element": "e9m9"}}, "element", "element must be one of e4m3, e5m2, e3m2, e2m3, e2m1, mxint8, not 'e9m9'"),
    ({"parameters": {"element": "e2m1", "nan_policy": "element"}}, "nan_policy", "NaN policy must be block for e2m1"),
    ({"parameters": {"scale_rule": 3}}, "scale_rule", "scale rule must be a name, not 3"),
    ({"parameters": {"lanes": 1}}, "parameters",
     "parameters must be a choice of element, scale_rule, nan_policy, rounding, overflow, by name"),
    ({"parameters": None}, "parameters", "parameters must be"),
    ({"seed": -1}, "seed", "the seed must be a whole number from 0 to 4294967295, not -1"),
    ({"seed": None}, "seed", "the seed must be a whole number from 0 to 4294967295"), ({"seed": True}, "seed", "not True"),
    ({"elsewhere": "-3"}, "elsewhere", "the largest magnitude elsewhere must be a finite number, 0 or more, not '-3'"),
    ({"elsewhere": "inf"}, "elsewhere", "must be a finite number"),
    ({"elsewhere": "many"}, "elsewhere", "must be a finite number"),
    ({"elsewhere": 3}, "elsewhere", "the magnitude must be a text"),
    ({"other": 3}, "body", "run takes values, parameters, seed, elsewhere"),
])
def test_refuses_blocks(quick, change, field, message):
    status, answer = posted(quick, "/run", **({"values": " ".join(OUTLIER), "parameters": {}} | change))
    assert (status, answer["field"]) == (400, field) and message in answer["message"]


def combinations():
    for chosen in product(*(field.metadata["options"] for field in CHOICES.values())):
        parameters = dict(zip(CHOICES, chosen, strict=True))
        with contextlib.suppress(MxforgeError):
            yield parameters_of(parameters), parameters


def test_every_choice(quick, golden):
    """What is sent to a board, and said of its answer, fits each combination that a quantizer takes."""
    numbers = set()
    for p, parameters in combinations():
        status, answer = ran(quick, OUTLIER, parameters=parameters, seed=3)
        assert (status, answer["differences"]) == (200, 0), parameters
        assert ("random" in answer["rows"][0]) == (p.rounding == "stochastic")
        numbers.add(answer["run"])
    assert len(numbers) > 100
    # Those that ran before are closed.
    assert sum(not machine.is_closed for machine in golden.made) == view._BOARDS


@pytest.mark.parametrize("parameters", [{}, pytest.param(
    {"element": "e5m2", "scale_rule": "floor", "nan_policy": "element", "rounding": "stochastic", "overflow": "ieee"},
    marks=pytest.mark.slow)])
def test_real_hardware(server, parameters):
    """Blocks through a virtual board as golden has them, with their waves."""
    p = parameters_of(parameters)
    for texts in OUTLIER, ["nan", "inf", "-0", "0x00000001", *["7e8"] * 28], ["0"] * 32:
        status, answer = ran(server, texts, parameters=parameters, seed=5)
        assert (status, answer["differences"]) == (200, 0)
        bits = np.array([int(row["hex"], 16) for row in answer["rows"]], np.uint32)
        inputs = {"values": bits[None]}
        if p.rounding == "stochastic":
            inputs["random"] = np.array([[int(row["random"], 16) for row in answer["rows"]]], np.uint16)
        wanted = quantizer.expected(vars(p), inputs)
        assert int(answer["scale"]["hex"], 16) == wanted["scale"][0]
        assert [int(row["mx"]["hex"], 16) for row in answer["rows"]] == wanted["elements"][0].tolist()
    status, shown = posted(server, "/waves", run=answer["run"])
    assert status == 200 and {row["group"] for row in shown["rows"]} == {"line", "quantize", "dequantize"}


def test_waves_are_kept_for_a_while(quick):
    _, first = ran(quick, OUTLIER, parameters={})
    for _ in range(view._RUNS):
        ran(quick, OUTLIER, parameters={})
    for number in first["run"], 12345, "x", []:
        status, answer = posted(quick, "/waves", run=number)
        assert status == 400 and answer["message"] == f"the waves of run {number} are no longer kept; run the block again"


@pytest.mark.parametrize("trouble", [MxforgeError("the port is gone"), verilator.ToolError("g++ failed"), OSError(28, "No space")])
def test_a_board_in_trouble(quick, golden, trouble):
    """It is told, and another one takes its place."""
    golden.trouble = trouble
    status, answer = ran(quick, OUTLIER, parameters={})
    assert (status, answer) == (500, {"field": "hardware", "message": str(trouble)})
    golden.trouble = None
    assert ran(quick, OUTLIER, parameters={})[0] == 200
    assert [machine.is_closed for machine in golden.made] == [True, False]


def test_who_drops_a_connection_is_not_told_of(quick, capfd):
    for request in b"", b"GET / HTT", b"POST /run HTTP/1.0\r\nHost: 127.0.0.1:%d\r\nContent-Length: 9\r\n\r\n" % quick.server_port:
        with socket.create_connection(("127.0.0.1", quick.server_port)) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(request)
    assert asked(quick, "GET", "/")[0] == 200
    time.sleep(0.1)
    assert capfd.readouterr() == ("", "")


def test_a_board_that_makes_room(sim_build):
    """One that waited for its turn is told, and the next one gets a new board."""
    hardware = view.Hardware(sim_build)
    machine = hardware.machine(parameters_of({}))
    assert machine.is_started(60)
    machine.close()
    inputs = {"values": np.ones((1, 32), np.float32).view(np.uint32)}
    with pytest.raises(MxforgeError, match="the board has made room for another; run the block again"):
        hardware.play(machine, inputs)
    another = hardware.machine(parameters_of({}))
    assert another is not machine and another.is_started(60)
    assert hardware.play(another, inputs)[0] == 0x77
    hardware.close()


def test_boards_for_more_than_run_at_a_time(tmp_path, monkeypatch):
    """All who wait for one get it; what nobody waits for any more isn't built."""
    begun = []

    class Slow:
        def __init__(self, build_dir, design, waves):
            begun.append(design.units["quantize"]["scale_rule"])
            self.port = None

        def __enter__(self):
            time.sleep(0.2)
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(view, "VirtualBoard", Slow)
    monkeypatch.setattr(view, "Board", lambda port, baud: contextlib.nullcontext())
    monkeypatch.setattr(view, "_PATIENCE", 0.5)
    hardware = view.Hardware(tmp_path)
    rules = CHOICES["scale_rule"].metadata["options"]
    assert len(rules) > view._BOARDS
    waiting = {parameters_of({"scale_rule": rule}) for rule in rules}
    end = time.monotonic() + 30
    while waiting:
        assert time.monotonic() < end
        waiting -= {p for p in [*waiting] if hardware.machine(p).is_started()}
        time.sleep(0.05)
    # One may have been evicted between its start and its next question.
    assert set(begun) == set(rules)

    begun.clear()
    monkeypatch.setattr(view, "_BUILDS", threading.Semaphore(1))
    with view._BUILDS:
        given_up = hardware.machine(parameters_of({"element": "e5m2", "scale_rule": "floor"}))
        time.sleep(0.8)
        wanted = hardware.machine(parameters_of({"element": "e5m2", "scale_rule": "ceil"}))
    assert wanted.is_started(10) and begun == ["ceil"] and not given_up.is_started()
    again = hardware.machine(given_up.parameters)
    assert again is not given_up and again.is_started(10)
    hardware.close()


def test_each_option_is_explained():
    assert {name: set(field.metadata["options"]) for name, field in CHOICES.items()} == {
        name: set(meanings) for name, meanings in view._MEANINGS.items()}


def test_its_usual_port(tmp_path, golden):
    """Or any, if that is taken."""
    with contextlib.ExitStack() as stack:
        first, second = (stack.enter_context(Server(tmp_path)) for _ in range(2))
        assert first.server_port != second.server_port and second.server_port != view.PORT


@contextlib.contextmanager
def viewing(build_dir, *options, **environment):
    """`mxforge view` as a process that doesn't outlive the test."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "MXFORGE_BUILD_DIR": str(build_dir)} | environment
    with subprocess.Popen([sys.executable, "-m", "mxforge", "view", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, env=environment) as child:
        try:
            yield child
        finally:
            child.kill()


def test_the_browser_may_take_its_time(sim_build, tmp_path):
    """One in the terminal returns only when it is left, and the page is there."""
    (tmp_path / "browser").write_text(f"#!{sys.executable}\nimport os, sys, time, urllib.request\nparent = os.getppid()\n"
                                      f"page = urllib.request.urlopen(sys.argv[1], timeout=20).read()\n"
                                      f"open({str(tmp_path / 'page')!r}, 'wb').write(page)\n"
                                      "while os.getppid() == parent:\n    time.sleep(0.05)\n")
    (tmp_path / "browser").chmod(0o755)
    with viewing(sim_build, "--port", "0", BROWSER=f"{tmp_path / 'browser'} %s") as child:
        end = time.monotonic() + 30
        while not (tmp_path / "page").exists() or b"</html>" not in (tmp_path / "page").read_bytes():
            assert time.monotonic() < end
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=20)
    assert child.returncode == 130


def test_a_board_that_cant_be_built(sim_build, monkeypatch):
    def broken(*_, **__):
        raise verilator.ToolError("verilator failed")

    monkeypatch.setattr(view, "VirtualBoard", broken)
    with serving(sim_build) as server:
        assert ran(server, OUTLIER, parameters={}) == (500, {"field": "hardware", "message": "verilator failed"})


def test_real_blocks(quick, tmp_path, monkeypatch):
    from mxforge.flow import weights

    status, answer, _ = asked(quick, "GET", "/choices")
    assert status == 200 and "run `mxforge demo` once" in json.loads(answer)["no_tensors"]
    status, answer = posted(quick, "/block", tensor="layer", index=0)
    assert status == 400 and "run `mxforge demo` once" in answer["message"]

    values = np.random.default_rng(1).normal(size=(6, 64)).astype(np.float32)
    np.save(tmp_path / "layer.npy", values)
    monkeypatch.setattr(weights, "fetched_model", lambda build_dir: tmp_path / "layer.npy")
    assert json.loads(asked(quick, "GET", "/choices")[1])["tensors"] == [{"name": "layer", "blocks": 12}]
    status, answer = posted(quick, "/block", tensor="layer", index=5)
    assert status == 200 and [np.float32(text) for text in answer["values"]] == values[2, 32:].tolist()
    assert np.float32(answer["amax"]) == np.abs(values).max()
    for tensor, index, field, message in (
            ("other", 0, "tensor", "there is no tensor 'other'"), ([], 0, "tensor", "there is no tensor []"),
            ("layer", 12, "index", "the block must be a whole number from 0 to 11, not 12"),
            ("layer", None, "index", "the block must be a whole number from 0 to 11")):
        status, answer = posted(quick, "/block", tensor=tensor, index=index)
        assert (status, answer["field"]) == (400, field) and answer["message"].startswith(message)


def test_refuses_a_port_that_is_taken(quick, refused):
    refused("view", "--no-browser", "--port", quick.server_port,
            answer=f"port {quick.server_port} can't be used: Address already in use; --port names another, 0 any that is free")


def test_ends_with_ctrl_c(sim_build):
    """Quietly, its board too."""
    with viewing(sim_build, "--no-browser") as child:
        address = child.stdout.readline()
        port = int(address.removeprefix("http://127.0.0.1:").removesuffix("/\n"))

        class Address:
            server_port = port

        assert ran(Address, OUTLIER, parameters={})[0] == 200
        boards = [pid for path in Path(f"/proc/{child.pid}/task").glob("*/children") for pid in path.read_text().split()]
        child.send_signal(signal.SIGINT)
        out, error = child.communicate(timeout=20)
    assert (child.returncode, out, error.strip()) == (130, "", "")
    assert boards and not any(Path(f"/proc/{board}").exists() for board in boards)


# ---- In a browser

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Headless Chromium."""
    pytest.importorskip("selenium")
    from selenium import webdriver

    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        pytest.skip("no chromium and chromedriver here (Debian: apt-get install chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for flag in (*FLAGS, "--window-size=1280,900", f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(programs[1]))
    yield driver
    driver.quit()


class Page:
    """The page in the browser. After each use nothing may stand in the console, and nothing have been asked of others."""
    def __init__(self, driver, server):
        self.driver = driver
        self.address = f"http://127.0.0.1:{server.server_port}/"
        self.refusals = 0

    def open(self, state=""):
        self.driver.get("about:blank")
        self.driver.get(f"{self.address}#{state}")
        return self

    def until(self, condition, *arguments, seconds=40):
        end = time.monotonic() + seconds
        while not (value := self.js(f"return {condition}", *arguments)):
            assert time.monotonic() < end, self.js("return document.body.innerText")
            time.sleep(0.03)
        return value

    def js(self, code, *arguments):
        return self.driver.execute_script(code, *arguments)

    def text(self, name):
        return self.js("return document.getElementById(arguments[0]).innerText", name)

    def is_done(self):
        self.until("document.getElementById('status').textContent.startsWith('Done') && "
                   "!document.getElementById('result').classList.contains('stale')")

    def press(self, *keys, held=None):
        from selenium.webdriver.common.action_chains import ActionChains

        chain = ActionChains(self.driver)
        if held:
            chain.key_down(held)
        for key in keys:
            chain.send_keys(key)
        if held:
            chain.key_up(held)
        chain.perform()

    def swipe(self, start, x=0, y=0):
        """A finger from ``start``, by so much."""
        for kind, share in (("touchStart", 0), *(("touchMove", n / 10) for n in range(1, 11)), ("touchEnd", None)):
            points = [] if share is None else [{"x": start[0] + x * share, "y": start[1] + y * share}]
            self.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def focused(self):
        return self.js("const on = document.activeElement; return on.id || on.getAttribute('aria-label') || on.textContent")

    def tab_to(self, wanted):
        from selenium.webdriver.common.keys import Keys

        passed = []
        while self.focused() != wanted:
            passed.append(self.focused())
            assert len(passed) < 60, passed
            self.press(Keys.TAB)
        return passed

    def check(self):
        said = self.driver.get_log("browser")
        assert len(said) == self.refusals, said
        assert all("(Bad Request)" in entry["message"] for entry in said), said
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                url = message["params"]["request"]["url"]
                # The browser's own pages have other schemes.
                assert url.startswith(self.address) or not url.startswith(("http", "ws")), url


@pytest.fixture
def page(browser, server):
    page = Page(browser, server)
    yield page
    page.check()


def test_a_bad_value_is_told_beside_it(page):
    page.open()
    page.is_done()
    values = page.driver.find_element("id", "values")
    values.clear()
    values.send_keys(" ".join([*OUTLIER[:6], "abc", *OUTLIER[7:]]))
    page.driver.find_element("id", "run").click()
    page.refusals = 1
    assert page.until("document.getElementById('values-error').innerText") == "value 7, 'abc', is not a number"
    assert values.get_attribute("aria-invalid") == "true" and "values-error" in values.get_attribute("aria-describedby")
    start = page.js("return arguments[0].selectionStart", values)
    assert values.get_property("value")[start:page.js("return arguments[0].selectionEnd", values)] == "abc"
    # Where it should be: right below the field.
    below = page.driver.find_element("id", "values-error").location["y"] - values.location["y"] - values.size["height"]
    assert 0 <= below < 20
    page.press("7")
    page.driver.find_element("id", "run").click()
    page.is_done()
    assert page.text("values-error") == "" and not values.get_attribute("aria-invalid")


def test_a_bad_value_takes_no_focus(page):
    """Of who draws another value, or chooses."""
    from selenium.webdriver.common.keys import Keys

    page.open()
    page.is_done()
    page.js("const v = document.getElementById('values'); v.value = v.value.replace(/[^,]+$/, ' abc');")
    page.js("document.querySelector('.bar').focus()")
    page.press(Keys.ARROW_UP)
    page.until("document.getElementById('values-error').innerText")
    assert page.focused() == "Value 1"
    page.press("0", Keys.END)
    texts = page.js("return document.getElementById('values').value").split(", ")
    assert texts[0] == "5" and texts[-1] == "abc"
    page.until("document.getElementById('values-error').innerText")
    # What was refused, which `check` would count.
    assert page.driver.get_log("browser")


def test_a_paste_that_is_too_long(page):
    page.open()
    page.is_done()
    page.js("document.getElementById('values').value = '1.25 '.repeat(16000)")
    page.driver.find_element("id", "run").click()
    assert page.text("values-error") == "a block is 32 values, and not 16,000 in as many as 80,000 characters"
    assert page.focused() == "values"


def test_what_is_changed_is_not_yet_run(page):
    """What was run before is told from it."""
    page.open("rounding=stochastic")
    page.is_done()
    for field in "elsewhere", "seed", "values":
        page.driver.find_element("id", field).send_keys("1")
        assert page.text("status") == "Changed. Run shows what becomes of it."
        assert page.js("return getComputedStyle(document.getElementById('verdict')).visibility === 'hidden' || "
                       "document.getElementById('result').classList.contains('stale')")
        page.until("getComputedStyle(document.getElementById('stale')).visibility === 'visible' && "
                   "getComputedStyle(document.getElementById('verdict')).visibility === 'hidden'")
        page.driver.find_element("id", "run").click()
        page.is_done()
        assert page.js("return getComputedStyle(document.getElementById('stale')).visibility") == "hidden"


def test_what_is_lost_is_shown_as_lost(page):
    """In the plot, and in the words for it; not what was no number."""
    page.open(f"values=inf+nan+{'+'.join(['1'] * 30)}")
    page.is_done()
    assert page.js("return document.querySelectorAll('#plot circle').length") == 31
    assert page.js("return document.getElementById('plot').getAttribute('aria-label')").startswith(
        "Relative errors: MX 32 not finite; conventional FP8 up to ")
    assert page.js("return document.querySelectorAll('#table .left.off')[5].innerText").endswith("not finite")
    assert page.text("words").split("\n")[::2] == ["exact", "saturated", "NaN", "spoiled"]


def test_undo(browser, quick, tmp_path, monkeypatch):
    """What a preset, a drawing or a block of weights replaced; and its tensor goes with a block."""
    from mxforge.flow import weights

    np.save(tmp_path / "layer.npy", np.random.default_rng(1).normal(size=(6, 64)).astype(np.float32))
    monkeypatch.setattr(weights, "fetched_model", lambda build_dir: tmp_path / "layer.npy")
    page = Page(browser, quick)
    values = "return document.getElementById('values').value"
    elsewhere = "return document.getElementById('elsewhere').value"
    page.open(f"values={'+'.join(OUTLIER)}")
    page.is_done()
    assert page.js("return document.getElementById('undo').hidden")
    page.driver.find_element("id", "take").click()
    page.until("document.getElementById('taken').innerText.startsWith('Taken: block 0 of layer')")
    block, amax = page.js(values), page.js(elsewhere)
    page.js("[...document.querySelectorAll('#presets button')][2].click()")
    assert page.js(elsewhere) == "" and page.text("taken") == "" and amax
    assert "e-11" not in page.text("bars-height") and "0000" not in page.text("bars-height")
    page.driver.find_element("css selector", ".bar").click()
    drawn = page.js(values)
    for wanted in "Tiny", block, ", ".join(OUTLIER):
        assert page.js(values) != wanted
        page.driver.find_element("id", "undo").click()
        assert wanted == "Tiny" or page.js(values) == wanted
        assert page.js(values) != drawn and page.js(elsewhere) == (amax if wanted == block else "")
        assert bool(page.text("taken")) == (wanted == block)
    assert page.js("return document.getElementById('undo').hidden") and page.focused() == "values"
    page.is_done()
    page.check()


def test_a_block_with_an_outlier(page):
    page.open(f"values={'+'.join(OUTLIER)}&elsewhere=1e9")
    page.is_done()
    bits = np.array(OUTLIER, np.float32).view(np.uint32)
    scales, codes = mxgolden.quantize(bits)
    shown = page.js("return [...document.querySelectorAll('#table tbody tr')].map("
                    "row => [...row.querySelectorAll('.code small, .outcome')].map(part => part.innerText))")
    assert [int(row[0], 16) for row in shown] == codes.tolist()
    assert f"0x{scales[0]:02x}" in page.text("tiles") and "equal to golden" in page.text("verdict")
    assert shown[2][1] == "flushed" and shown[0][2] == "flushed" and shown[0][1] == "exact"
    assert page.js("return [...document.querySelectorAll('#table .before')][3].innerText") == "100 amax"
    assert page.until("document.querySelectorAll('#waves path').length") > 10


def test_with_the_keyboard_only(page):
    """Everything in the order in which it stands, and a run, a drawn value and the waves without a mouse."""
    from selenium.webdriver.common.keys import Keys

    page.open()
    page.is_done()
    page.tab_to("values")
    page.press("a", held=Keys.CONTROL)
    page.press("\n".join(OUTLIER))
    page.press(Keys.ENTER, held=Keys.CONTROL)
    page.until("location.hash.includes('3e-7')")
    page.is_done()
    page.tab_to("Value 1")
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_UP, Keys.ARROW_UP)
    assert page.focused() == "Value 2"
    assert page.js("return document.activeElement.getAttribute('aria-valuetext')") == "2.75"
    page.until("document.querySelectorAll('#table .before')[1].innerText === '2.75'")
    passed = page.tab_to("run")
    assert [f"choice-{name}" for name in CHOICES] == [name for name in passed if name.startswith("choice-")]
    assert "Value 3" not in passed
    page.press(Keys.ENTER)
    page.is_done()
    page.tab_to("quantize: in the unit")
    page.press(Keys.ENTER)
    assert page.js("return document.activeElement.getAttribute('aria-pressed')") == "true"
    page.tab_to("waves")
    page.press("n", "n")
    assert page.text("readout").startswith("clock ") and "quantize " in page.text("spoken")
    assert len(page.text("spoken")) < len(page.text("readout"))
    page.press("+")
    assert page.text("spoken").startswith("clocks ")
    before = page.js("return document.getElementById('waves').innerHTML")
    page.press("-", Keys.ARROW_RIGHT)
    assert page.js("return document.getElementById('waves').innerHTML") != before


CONTRASTS = """
const style = getComputedStyle(document.documentElement);
const light = name => {
  const parts = style.getPropertyValue('--' + name).match(/[0-9a-f]{2}/g).map(part => parseInt(part, 16) / 255);
  const [r, g, b] = parts.map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
};
const pairs = ['ink', 'muted', 'mx', 'fp8', 'good', 'bad'].flatMap(name => [[name, 'page'], [name, 'panel']]);
return [...pairs, ['on', 'mx'], ['on', 'bad']].map(([a, b]) => [a, b, Math.max(light(a) / light(b), light(b) / light(a))]);
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(page, scheme):
    """No wider than it is, and read with enough contrast."""
    def turned(width, height):
        page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
            "width": width, "height": height, "deviceScaleFactor": 2, "mobile": True})
        page.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})

    turned(740, 360)
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    try:
        page.open(f"values={'+'.join(['-3.4028235e38', '1e-45', *OUTLIER[2:]])}")
        page.is_done()
        page.until("document.querySelectorAll('#waves path').length")
        turned(360, 740)
        page.until("document.querySelector('#plot svg').getBoundingClientRect().width <= 360")
        assert page.js("return document.documentElement.scrollWidth <= innerWidth && innerWidth === 360")
        small = page.js("return [...document.querySelectorAll('button, input, select')].filter("
                        "part => part.offsetParent && part.offsetHeight < 30).length")
        assert small == 0
        assert [pair for pair in page.js(CONTRASTS) if pair[2] < 4.5] == []
        # A finger that scrolls draws nothing; one that goes across does.
        values = "return document.getElementById('values').value"
        before = page.js(values)
        middle = ("const bars = document.getElementById('bars'); bars.scrollIntoView({block: 'center'}); "
                  "const box = bars.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2, scrollY]")
        *start, before_it = page.js(middle)
        page.swipe(start, y=-200)
        page.until("scrollY > arguments[0]", before_it + 50)
        assert page.js(values) == before
        page.swipe(page.js(middle)[:2], x=-100)
        one, other = (page.js(f"return document.getElementById('values').value.split(', ')[{n}]") for n in (16, 17))
        assert one != OUTLIER[16] and other == OUTLIER[17]
        page.is_done()
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_bars_without_colours(page):
    """Where the system has its own for all, the bars still show."""
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "forced-colors", "value": "active"}]})
    try:
        page.open()
        page.is_done()
        fill, behind = page.js("return ['.bar span', '#bars'].map("
                               "name => getComputedStyle(document.querySelector(name)).backgroundColor)")
        assert fill != behind
    finally:
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_while_hardware_is_built(browser, quick, golden):
    """It says so, and what is typed then counts; bits that differ are told loudly."""
    page = Page(browser, quick)
    golden.is_slow = True
    page.open()
    page.until("document.getElementById('status').textContent.startsWith('Building the hardware')")
    page.js("[...document.querySelectorAll('#presets button')][3].click()")
    golden.is_slow, golden.wrong = False, 1
    page.is_done()
    assert page.js("return document.querySelectorAll('#table .before')[0].innerText").startswith("-1")
    assert "DIFFER from the golden model" in page.text("verdict")
    assert page.js("return getComputedStyle(document.getElementById('verdict')).backgroundColor") != "rgba(0, 0, 0, 0)"
    assert "run `mxforge demo` once" in page.text("no-weights")
