# amaranth: UnusedElaboratable=no
"""Many jobs: what comes back, whatever dies meanwhile."""
import contextlib
import functools
import gc
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import sample_jobs
from distributed import Client
from rich.progress import Progress

import mxgolden.dequantizer
from mxforge import catalog
from mxforge.emit import emit, manifest_of
from mxforge.errors import MxforgeError
from mxforge.flow import jobs, matmul, player, run
from mxforge.flow.jobs import Failure, Job, Workers
from mxforge.matmul_tile import MatmulTile

ROOT = Path(__file__).resolve().parent.parent.parent
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{ROOT / 'rtl'}{os.pathsep}{ROOT / 'tb'}"}


def job(function, **arguments):
    return Job(name=f"{function.__name__} {arguments}", function=function, arguments=arguments)


def squares(numbers):
    return [job(sample_jobs.square, number=number) for number in numbers]


def outcomes(workers, work):
    return {done.name: outcome for done, outcome in workers.run(work)}


def appeared(path):
    """Wait until a file holds something, and return that."""
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, f"{path.name} did not come"
        time.sleep(0.02)
    return path.read_text()


class Dask:
    """A scheduler and its workers, started by hand as users do."""
    def __init__(self, folder, stack):
        self._folder, self._stack = folder, stack
        file = folder / "scheduler.json"
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", file)
        self.address = json.loads(appeared(file))["address"]

    def _start(self, *arguments, environment=ENVIRONMENT):
        dask = Path(sys.executable).with_name("dask")
        process = subprocess.Popen([dask, *map(str, arguments)], env=environment, cwd=self._folder, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process

    def worker(self, threads=1, **environment):
        """One that nothing replaces when it dies."""
        return self._start("worker", self.address, "--no-nanny", "--nthreads", threads, "--no-dashboard", "--local-directory",
                           self._folder, environment=ENVIRONMENT | environment)


@pytest.fixture
def dask(tmp_path):
    folder = tmp_path / "dask"
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        yield Dask(folder, stack)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(jobs, "_PATIENCE", 0.2)


@pytest.fixture(scope="module")
def local():
    """Two processes of this machine, which the tests share."""
    with Workers(2) as workers:
        yield workers


def test_values_come_back(local):
    values = outcomes(local, squares(range(20)))
    assert values == {f"square {{'number': {n}}}": n * n for n in range(20)}
    pids = set(outcomes(local, [Job(name=str(n), function=sample_jobs.pid) for n in range(10)]).values())
    assert 1 <= len(pids) <= 2 and os.getpid() not in pids
    assert outcomes(local, []) == {}
    array = np.arange(1 << 20, dtype=np.uint32).reshape(1 << 10, -1)
    for _, value in local.run([Job(name=str(n), function=np.transpose, arguments={"a": array}) for n in range(3)]):
        np.testing.assert_array_equal(value, array.T)


def test_one_job_starts_nothing():
    with Workers(8) as workers:
        assert list(outcomes(workers, [job(sample_jobs.pid)]).values()) == [os.getpid()]


@pytest.mark.parametrize("how", [{"count": 1}, {"count": 3, "threads": True}])
def test_in_this_process(how, tmp_path):
    with Workers(**how) as workers:
        work = [job(sample_jobs.pid), job(sample_jobs.fails, mark=str(tmp_path / "mark")), job(sample_jobs.fails),
                *squares(range(9))]
        values = outcomes(workers, work)
    assert values.pop("pid {}") == os.getpid()
    assert isinstance(values.pop("fails {}"), Failure)
    assert values.pop(f"fails {{'mark': '{tmp_path}/mark'}}") == "done"
    assert sorted(values.values()) == [n * n for n in range(9)]


def test_jobs_are_taken_as_workers_become_free():
    taken = []

    def work():
        for one in squares(range(100)):
            taken.append(one.name)
            yield one

    for how in {"count": 1}, {"count": 3, "threads": True}:
        taken.clear()
        with Workers(**how) as workers:
            next(iter(workers.run(work())))
        assert len(taken) <= 5


def test_a_job_that_fails_once_or_twice(local, tmp_path):
    values = outcomes(local, [
        *squares(range(3)), job(sample_jobs.fails, mark=str(tmp_path / "mark")), job(sample_jobs.fails), *squares(range(3, 6))])
    assert values.pop(f"fails {{'mark': '{tmp_path}/mark'}}") == "done"
    failure = values.pop("fails {}")
    assert failure.log.startswith("Traceback") and failure.log.endswith("ValueError: the tool said no")
    assert failure.log.count("Traceback") == 1
    assert sorted(values.values()) == [n * n for n in range(6)]


def test_what_does_not_travel_is_a_failure(local):
    values = outcomes(local, [job(sample_jobs.unsendable), *squares(range(3))])
    assert "pickle" in values.pop("unsendable {}").log and sorted(values.values()) == [0, 1, 4]


def test_what_a_tool_says_is_the_log(local):
    for workers in local, Workers(1):
        failures = outcomes(workers, [job(sample_jobs.fails_in_a_tool, number=n) for n in range(2)])
        assert {failure.log for failure in failures.values()} == {"sh failed with status 3:\nno room for 7 LUTs"}
    for log, said in ("no room", "no room"), ("", "it failed without a word"):
        with pytest.raises(MxforgeError, match=rf"^area: {said}$"):
            jobs.needed(Job(name="area", function=sample_jobs.pid), Failure(log=log))


@pytest.mark.parametrize(("log", "line"), [
    ("no room\nfor 7", "no room"), ("Traceback (most recent call last):\n  File\nValueError: no\n", "ValueError: no"),
    ("\nno room", "no room"), ("", "it failed without a word"), (" \n", "it failed without a word")])
def test_a_failure_in_a_line(log, line):
    assert Failure(log=log).line == line


def test_a_job_that_ends_its_worker_once_or_twice(local, tmp_path):
    """Those that do are known; the others aren't blamed."""
    values = outcomes(local, [
        *squares(range(3)), job(sample_jobs.dies, mark=str(tmp_path / "mark")), job(sample_jobs.dies), *squares(range(3, 8)),
        Job(name="again", function=sample_jobs.dies), *squares(range(8, 12))])
    assert values.pop(f"dies {{'mark': '{tmp_path}/mark'}}") == "done"
    for name in "dies {}", "again":
        assert [line.split("tcp")[0] for line in values.pop(name).log.splitlines()] == ["its worker "] * 2
    assert sorted(values.values()) == [n * n for n in range(12)]


def test_a_worker_that_is_killed_is_replaced(local, tmp_path):
    mark = tmp_path / "mark"
    work = local.run([job(sample_jobs.waits, mark=str(mark), seconds=600), *squares(range(6))])
    values = [next(work)[1]]
    os.kill(int(appeared(mark)), signal.SIGKILL)
    values += [outcome for _, outcome in work]
    assert sorted(values, key=str) == [0, 1, 16, 25, 4, 9, "done"]
    pids = set()
    while len(pids) < 2:
        pids |= set(outcomes(local, [Job(name=str(n), function=sample_jobs.pid) for n in range(10)]).values())
    assert int(mark.read_text()) not in pids


def connected(dask, count, threads=1):
    """`Workers` of a scheduler with ``count`` workers."""
    processes = [dask.worker(threads) for _ in range(count)]
    workers = Workers(scheduler=dask.address)
    deadline = time.monotonic() + 60

    @contextlib.contextmanager
    def all_there():
        with workers:
            while workers.count < count * threads:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield workers, processes
    return all_there()


def test_a_scheduler_and_a_worker_that_is_killed(dask, tmp_path):
    mark = tmp_path / "mark"
    with connected(dask, 2) as (workers, processes):
        done = []
        for _, outcome in workers.run([job(sample_jobs.waits, mark=str(mark), seconds=600), *squares(range(30))]):
            if not done:
                next(process for process in processes if process.pid == int(appeared(mark))).kill()
            done.append(outcome)
        assert workers.count == 1
    assert done.count("done") == 1 and sorted(set(done) - {"done"}) == [n * n for n in range(30)]


def test_who_dies_with_a_job_of_another_thread_is_not_blamed(dask, tmp_path):
    """All that a worker of three threads was at is tried again, one by one."""
    mark = tmp_path / "mark"
    with connected(dask, 3, threads=3) as (workers, _):
        values = outcomes(workers, [job(sample_jobs.waits, mark=str(mark), seconds=600),
                                    Job(name="culprit", function=sample_jobs.dies_after, arguments={"mark": str(mark)}),
                                    *squares(range(20))])
        assert workers.count == 3
    assert values.pop("culprit").log.count("died") == 2
    assert values.pop(f"waits {{'mark': '{mark}', 'seconds': 600}}") == "done"
    assert sorted(values.values()) == [n * n for n in range(20)]


def test_a_scheduler_that_dies_leaves_what_came(dask, caplog):
    dask.worker()
    work = Workers(scheduler=dask.address)
    with pytest.raises(MxforgeError, match=rf"^the dask scheduler at {dask.address} is gone"), work as workers:
        done = []
        for one, outcome in workers.run([*squares(range(3)), job(sample_jobs.runs_a_tool, seconds=600)]):
            done.append((one.name, outcome))
            if len(done) == 3:
                dask.scheduler.kill()
    assert [outcome for _, outcome in done] == [0, 1, 4]
    assert not caplog.text


def test_refuses_workers_of_other_versions(dask, tmp_path):
    told = tmp_path / "old" / "mxforge-0.0.1.dist-info"
    told.mkdir(parents=True)
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: mxforge\nVersion: 0.0.1\n")
    dask.worker(PYTHONPATH=f"{told.parent}{os.pathsep}{ENVIRONMENT['PYTHONPATH']}")
    with pytest.raises(MxforgeError, match=r"^the dask worker tcp://127.0.0.1:\d+ has mxforge 0.0.1, this process .*; they must"), \
            Workers(scheduler=dask.address):
        pass


def test_refuses_workers_of_other_sources(dask, tmp_path):
    """Clones of one version may differ."""
    for folder in "rtl/mxforge", "tb/mxgolden", "tb/mxbench":
        shutil.copytree(ROOT / folder, tmp_path / folder)
    changed = tmp_path / "tb" / "mxgolden" / "scales.py"
    changed.write_text(changed.read_text() + "\n")
    dask.worker(PYTHONPATH=f"{tmp_path / 'rtl'}{os.pathsep}{tmp_path / 'tb'}")
    with pytest.raises(MxforgeError, match=r"^the dask worker tcp://127.0.0.1:\d+ has another mxforge of the same version; "), \
            Workers(scheduler=dask.address):
        pass


@pytest.mark.parametrize("address", ["127.0.0.1:1", "tcp://127.0.0.1:1", "nowhere.invalid:8786", "xyz://127.0.0.1:1", ""])
def test_refuses_an_address_where_no_scheduler_is(address, impatient):
    answer = rf"^no dask scheduler answers at {address}; --scheduler must be the address that it tells, such as tcp:"
    with pytest.raises(MxforgeError, match=answer) as error, Workers(scheduler=address):
        pass
    assert "\n" not in str(error.value)
    # Collection would otherwise close the client, perhaps while another one starts, which never ends.
    assert "connecting" not in {one.status for one in gc.get_objects() if isinstance(one, Client)}


def test_refuses_a_scheduler_without_workers(dask, monkeypatch):
    original = Workers._existing

    def connected(self):
        client = original(self)
        monkeypatch.setattr(jobs, "_PATIENCE", 0.5)
        return client

    monkeypatch.setattr(Workers, "_existing", connected)
    answer = rf"^the dask scheduler at {dask.address} has no worker; start one: dask worker {dask.address}$"
    with pytest.raises(MxforgeError, match=answer), Workers(scheduler=dask.address):
        pass


def test_gives_up_when_all_workers_have_died(dask, monkeypatch):
    worker = dask.worker()
    with Workers(scheduler=dask.address) as workers:
        work = workers.run([*squares(range(2)), job(sample_jobs.runs_a_tool, seconds=600)])
        assert [next(work)[1], next(work)[1]] == [0, 1]
        monkeypatch.setattr(jobs, "_PATIENCE", 1)
        worker.kill()
        with pytest.raises(MxforgeError, match="has had no worker for 1 s; start one: dask worker tcp"):
            next(work)


def test_refuses_what_contradicts_itself():
    with pytest.raises(MxforgeError, match=r"^--jobs and --scheduler exclude each other"):
        Workers(2, "tcp://127.0.0.1:8786")


@pytest.mark.parametrize(("how", "more"), [({"count": 2}, "; --jobs 1 does without"), ({"scheduler": "tcp://127.0.0.1:8786"}, "")])
def test_says_what_to_install(how, more, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MxforgeError) as error, Workers(**how):
        pass
    assert str(error.value) == f"many jobs need distributed: pip install 'mxforge[jobs]', in a clone '.[jobs]'{more}"
    for one in {"count": 2, "threads": True}, {"count": 1}:
        with Workers(**one) as workers:
            assert sorted(outcomes(workers, squares(range(3))).values()) == [0, 1, 4]


INTERRUPTED = """
import sys
import sample_jobs
from rich.progress import Progress
from mxforge.flow.jobs import Job, Workers
work = [Job(name=str(n), function=sample_jobs.square, arguments={"number": n}) for n in range(4)]
work += [Job(name=f"long {n}", function=sample_jobs.runs_a_tool, arguments={"seconds": 600}) for n in range(4)]
try:
    with Workers(2) as workers:
        for job, outcome in workers.run(work):
            print(job.name, outcome, flush=True)
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_an_interrupt_leaves_what_came(tmp_path):
    """As Ctrl-C in a terminal does, it goes to all processes; none of them has more to say, and none is left."""
    child = subprocess.Popen([sys.executable, "-c", INTERRUPTED], env=ENVIRONMENT | {"TMPDIR": str(tmp_path)},
                             start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    came = {child.stdout.readline() for _ in range(4)}
    os.killpg(child.pid, signal.SIGINT)
    out, error = child.communicate(timeout=60)
    assert (child.returncode, out, error) == (130, "", "")
    assert came == {"0 0\n", "1 1\n", "2 4\n", "3 9\n"}
    # The last to end is Python's own, which watches the others.
    with pytest.raises(ProcessLookupError):
        for _ in range(600):
            os.killpg(child.pid, 0)
            time.sleep(0.05)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("mxforge-")]


def matrices(folder):
    rng = np.random.default_rng(21)
    np.save(folder / "a.npy", rng.standard_normal((9, 70), dtype=np.float32))
    np.save(folder / "b.npy", rng.standard_normal((70, 40), dtype=np.float32))


def same(first, second):
    """What `matmul` says, but for the file's name and the time."""
    def words(text):
        return [line.partition(":")[2].rpartition(",")[0] if n == 0 else line for n, line in enumerate(text.splitlines())]
    return words(first) == words(second)


def test_a_product_by_processes(local, sim_build, monkeypatch):
    hardware = matmul.Hardware.emitted(MatmulTile.Parameters(), "rceil", sim_build)
    rng = np.random.default_rng(21)
    a, b, c = (rng.standard_normal(shape, dtype=np.float32) for shape in ((9, 70), (40, 70), (9, 40)))
    with Workers(1) as workers:
        whole = matmul.multiply(hardware, a, b, c, workers, lambda what, count: None)
    for name, value in {"BEATS": 30, "QUANTIZED": 1000}.items():
        monkeypatch.setattr(matmul, name, value)
    advanced = Counter()
    product = matmul.multiply(hardware, a, b, c, local, lambda what, count: advanced.update({what: count}))
    np.testing.assert_array_equal(product.d.view(np.uint32), whole.d.view(np.uint32))
    assert product.check == whole.check and not product.check.mismatches and product.beats == whole.beats
    assert advanced == matmul.work(hardware.parameters, 9, 40, 70)


@pytest.mark.slow
def test_a_product_by_processes_of_its_own(mxforge, tmp_path, monkeypatch):
    matrices(tmp_path)
    line = "matmul", "a.npy", "b.npy", "-o"
    status, said, error = mxforge(*line, "d.npy")
    assert (status, error) == (0, "")
    for name, value in {"SMALL": 1, "BEATS": 30, "QUANTIZED": 1000}.items():
        monkeypatch.setattr(matmul, name, value)
    status, said_again, error = mxforge(*line, "e.npy", "--jobs", "2")
    assert (status, error) == (0, "") and same(said, said_again)
    assert (tmp_path / "d.npy").read_bytes() == (tmp_path / "e.npy").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("output", [("-o", "d.npy"), ("--requantize", "e4m3", "-o", "d.npz")])
def test_a_product_by_a_scheduler(output, dask, mxforge, tmp_path, monkeypatch, sim_build):
    """With another worker killed on the way."""
    matrices(tmp_path)
    status, said, error = mxforge("matmul", "a.npy", "b.npy", *output)
    assert (status, error) == (0, "")
    whole = (tmp_path / output[-1]).read_bytes()
    for name in "BEATS", "QUANTIZED":
        monkeypatch.setattr(matmul, name, 1)
    dask.worker(MXFORGE_BUILD_DIR=str(sim_build))
    victim = dask.worker(MXFORGE_BUILD_DIR=str(sim_build))
    advanced = []
    original = matmul.multiply

    def multiply(hardware, a, b, c, workers, advance):
        def watched(what, count):
            advanced.append(what)
            if what == "Tiles":
                # While others are on their way.
                victim.kill()
            advance(what, count)
        return original(hardware, a, b, c, workers, watched)

    monkeypatch.setattr(matmul, "multiply", multiply)
    status, said_again, error = mxforge("matmul", "a.npy", "b.npy", *output, "--scheduler", dask.address)
    assert (status, error) == (0, "") and same(said, said_again)
    assert (tmp_path / output[-1]).read_bytes() == whole
    assert advanced.count("Tiles") > 4


@pytest.mark.slow
def test_a_sweep_by_a_scheduler(dask, mxforge, tmp_path, monkeypatch):
    """With another worker killed on the way."""
    line = ["sweep", "dequantizer", "--bare", "--vary", "lanes=1,2,4", "--vary", "element=e4m3,e2m1", "--target", "ecp5",
            "--target", "gates", "--build-dir"]
    status, said, error = mxforge(*line, "here", "-o", "here_results")
    assert (status, error) == (0, "")
    dask.worker()
    victim = dask.worker()
    original, counts = Workers.run, []

    def watched(self, work):
        for outcome in original(self, work):
            counts.append(self.count)
            if len(counts) > 2 and victim.poll() is None and counts[-1] == 2:
                # While it has something to do.
                victim.kill()
            yield outcome

    monkeypatch.setattr(Workers, "run", watched)
    status, said_again, error = mxforge(*line, "there", "-o", "there_results", "--scheduler", dask.address)
    assert (status, error) == (0, "") and said_again.replace("there_results", "here_results") == said
    assert len(counts) == 12 and counts[-1] == 1 and victim.poll() is not None
    for name in "results.json", "results.csv", "sweep.svg":
        assert (tmp_path / "here_results" / name).read_bytes() == (tmp_path / "there_results" / name).read_bytes()
    kept = [{path.name: path.read_bytes() for path in (tmp_path / folder / "synth").iterdir()} for folder in ("here", "there")]
    assert kept[0] == kept[1]


@pytest.mark.slow
def test_refuses_workers_of_other_tools(dask, mxforge, tmp_path):
    told = tmp_path / "old" / "pyosys-0.1.dist-info"
    told.mkdir(parents=True)
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: pyosys\nVersion: 0.1\n")
    dask.worker(PYTHONPATH=f"{told.parent}{os.pathsep}{ENVIRONMENT['PYTHONPATH']}")
    status, said, error = mxforge("synth", "dequantizer", "--build-dir", "build", "--scheduler", dask.address)
    assert (status, said) == (2, "")
    assert re.match(r"mxforge: the dask worker tcp://127.0.0.1:\d+ has pyosys 0.1, this process .*; they must be the same\n", error)


def rows(lanes, count):
    """Inputs of the ``dequantizer``."""
    rng = np.random.default_rng(count)
    return {"scale": rng.integers(0, 256, count, np.uint8), "elements": rng.integers(0, 256, (count, lanes), np.uint8)}


def test_a_run_in_pieces(mxforge, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "Workers", functools.partial(Workers, threads=True))
    np.savez("in.npz", **rows(32, 1001))
    line = ["run", "dequantizer", "--in", "in.npz", "--check", "-o"]
    assert mxforge(*line, "whole.npz")[0] == 0
    status, said, error = mxforge(*line, "pieces.npz", "--jobs", "2", "--stalls", "5")
    assert (status, error) == (0, "")
    assert said.startswith("pieces.npz: 1,001 rows from 1,001 in ") and said.endswith(" in 8 pieces; 0 bits differ from golden\n")
    with np.load("whole.npz") as whole, np.load("pieces.npz") as pieces:
        np.testing.assert_array_equal(whole["values"], pieces["values"])
    right = mxgolden.dequantizer.expected

    def wrong(parameters, inputs):
        outputs = right(parameters, inputs)
        outputs["values"][inputs["scale"] == 7, 3] ^= 1
        return outputs

    monkeypatch.setattr(mxgolden.dequantizer, "expected", wrong)
    told = [mxforge(*line, "o.npz", *more)[::2] for more in ((), ("--jobs", "3"))]
    assert told[0] == told[1] and told[0][0] == 1 and " values differ from golden, first values[" in told[0][1]


def test_what_remembers_is_run_whole(mxforge, tmp_path):
    """The random numbers of a second piece would be those of the first."""
    np.savez("in.npz", values=np.zeros((100, 1), np.uint32))
    status, said, error = mxforge(*["run", "lfsr", "--lanes", "1", "--in", "in.npz", "-o", "o.npz", "--check", "--jobs", "2"])
    assert (status, error) == (0, "") and "pieces" not in said
    with np.load("o.npz") as outputs:
        assert len(np.unique(outputs["random"])) > 90


@pytest.mark.parametrize(("line", "answer"), [
    ("run dequantizer --in in.npz -o o.npz --jobs 2 --waves w.fst", "waves are of a run in one piece, here; leave out --jobs and"),
    ("run dequantizer --in in.npz -o o.npz --scheduler 127.0.0.1:1", "no dask scheduler answers at 127.0.0.1:1; --scheduler must"),
    ("run dequantizer --in in.npz -o o.npz --scheduler 127.0.0.1:1 --jobs 2", "--jobs and --scheduler exclude each other: "),
    ("matmul a.npy b.npy -o o.npy --scheduler 127.0.0.1:1", "no dask scheduler answers at 127.0.0.1:1; --scheduler must"),
    ("matmul a.npy b.npy -o o.npy --scheduler 127.0.0.1:1 --jobs 2", "--jobs and --scheduler exclude each other: "),
])
def test_refused_by_the_command_line(line, answer, refused, impatient, tmp_path):
    matrices(tmp_path)
    np.savez(tmp_path / "in.npz", **rows(32, 4))
    refused(*line.split(), answer=answer)


def test_pieces_are_all_rows():
    for count in 0, 1, 7, 1000:
        for workers in 1, 3:
            inputs = {"a": np.zeros((count, 3), np.uint8)}
            spans = run._pieces(inputs, workers)
            assert [start for start, _ in spans[1:]] == [stop for _, stop in spans[:-1]]
            assert spans[0][0] == 0 and spans[-1][1] == count and len(spans) <= max(1, 4 * workers)
    large = {"a": np.broadcast_to(np.uint8(0), (1 << 30, 1))}
    assert max(stop - start for start, stop in run._pieces(large, 1)) <= run.PIECE_BYTES


CUT = {"dequantizer", "block_amax", "scale_select", "element_cast", "quantizer", "dual_quantizer", "scaled_dot",
       "fp32_multiplier", "tensor_dequantizer"}


def test_what_is_cut():
    for entry in catalog.ENTRIES.values():
        component = entry.component()
        assert run._is_cuttable(component, manifest_of(component, entry.name)) == (entry.unit in CUT), entry.name


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name == "dequantizer" else pytest.mark.slow)
                                  for name, entry in catalog.ENTRIES.items() if entry.unit in CUT])
def test_pieces_are_as_the_whole(name, local, sim_build):
    entry = catalog.ENTRIES[name]
    text, manifest = emit(entry.component(), name)
    stimulus = importlib.import_module(f"mxbench.stimulus.{entry.unit}")
    inputs = stimulus.blocks(manifest["parameters"], 50, np.random.default_rng(1))
    run._add_marks(manifest, inputs)
    inputs = player.check(manifest, inputs)
    whole = player.build(text, manifest, sim_build).play(inputs)
    progress = Progress(disable=True)
    pieces, _, is_right = run._spread(local, progress, inputs, run._pieces(inputs, 1), text=text, manifest=manifest,
                                      stalls=None, check=True, build_dir=local.build_dir(sim_build))
    assert is_right
    for field, values in whole.items():
        np.testing.assert_array_equal(pieces[field], values)


@pytest.mark.slow
def test_a_run_by_a_scheduler(dask, mxforge, tmp_path, sim_build):
    """One that is cut, and one that isn't."""
    for _ in range(2):
        dask.worker(MXFORGE_BUILD_DIR=str(sim_build))
    np.savez("in.npz", **rows(32, 1001))
    np.savez("zeros.npz", values=np.zeros((100, 1), np.uint32))
    for line in "run dequantizer --in in.npz", "run lfsr --lanes 1 --in zeros.npz":
        for more in (), ("--scheduler", dask.address):
            status, said, error = mxforge(*line.split(), "--check", "-o", f"{len(more)}.npz", *more)
            assert (status, error) == (0, "") and "0 bits differ" in said
        assert (tmp_path / "0.npz").read_bytes() == (tmp_path / "2.npz").read_bytes()
