"""Many jobs at once: in processes of this machine, or on the workers of a dask.distributed scheduler."""
import contextlib
import functools
import hashlib
import importlib.util
import itertools
import logging
import os
import pickle
import queue
import signal
import tempfile
import threading
import time
import traceback
import uuid
import warnings
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from pathlib import Path

from mxbench.verilator import ToolError

from ..errors import MxforgeError, install
from .player import ProtocolError

__all__ = ["TOLD", "Failure", "Job", "Workers", "needed", "own_build_dir", "shown"]

# Errors that say in their own words what was wrong.
TOLD = MxforgeError, ToolError, ProtocolError

# What every job depends on; a worker has the same, or gets no job.
_PACKAGES = "python", "mxforge", "numpy", "dask", "distributed"
# Seconds after which workers are looked at anew, and for which a scheduler, its workers or new ones are waited for.
_LOOK = 0.5
_PATIENCE = 20


@dataclass(frozen=True, kw_only=True)
class Job:
    """``function(**arguments)``: a function at the top of a module of mxforge, with text, numbers, arrays and dicts of them in and
    out. It uses no file of the machine that asks, and may be run twice.
    """
    name: str
    function: Callable
    arguments: dict = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The outcome of a job that failed twice; ``log`` is what its tools said, or Python's traceback."""
    log: str

    @property
    def line(self):
        """Of the log its first line, of a traceback the last."""
        lines = [line for line in self.log.splitlines() if line.strip()] or ["it failed without a word"]
        return lines[-1 if lines[0].startswith("Traceback") else 0]


def shown(progress):
    """``progress``, a :class:`rich.progress.Progress`, or where that is None one that shows nothing."""
    from rich.progress import Progress

    return Progress(disable=True) if progress is None else progress


def needed(job, outcome):
    """``outcome``, for whom the other jobs are of no use without this one: ``MxforgeError`` with the log of a `Failure`."""
    if isinstance(outcome, Failure):
        raise MxforgeError(f"{job.name}: {outcome.log or outcome.line}")
    return outcome


def own_build_dir(given):
    """Where a job builds what it may find again: ``given``, of `Workers.build_dir`; on another machine the folder that its
    environment's ``MXFORGE_BUILD_DIR`` names, or one of the worker's own.
    """
    if given is not None:
        return Path(given)
    from distributed import get_worker

    return Path(os.environ.get("MXFORGE_BUILD_DIR") or get_worker().local_directory)


def _tried(job):
    """``(value, None)``, or ``(None, log)`` if the job fails."""
    try:
        return job.function(**job.arguments), None
    except TOLD as error:
        return None, "\n".join([str(error), *getattr(error, "__notes__", [])])
    except (Exception, SystemExit):
        return None, traceback.format_exc().rstrip()


def _outcome(value, log, before):
    """Of a job whose last attempt gave ``value`` or ``log``; ``before`` is the first one's log, told once if they are the same."""
    return value if log is None else Failure(log="\n".join(dict.fromkeys([before, log])))


def _twice(job):
    """The outcome of a job in this thread."""
    value, before = _tried(job)
    return value if before is None else _outcome(*_tried(job), before)


def _tried_in_bytes(job):
    """The same on a worker, which dask has no part in: pickled in and out."""
    try:
        return pickle.dumps(_tried(pickle.loads(job)))
    except Exception:
        return pickle.dumps((None, traceback.format_exc().rstrip()))


@contextlib.contextmanager
def _no_interrupts():
    """Threads that are started meanwhile, and their processes, never see the terminal's Ctrl-C; this thread sees it afterwards."""
    # It unblocks the signals of the thread that starts it.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass(eq=False, kw_only=True)
class _Attempt:
    """A job on a worker. The second is made alone on it, so that it is known whose fault a worker's death is; ``before`` is the
    first one's log.
    """
    job: Job
    address: str
    before: str | None = None
    future: object = None
    is_lost: bool = False

    @property
    def alone(self):
        return self.before is not None


class Workers:
    """What runs jobs, between ``with`` and its end: ``count`` processes of this machine (without: as many as it has cores), or the
    workers of the dask scheduler at the address ``scheduler``, which must have the same mxforge, Python, NumPy, dask and
    ``packages``.

    A single job, or ``count`` 1, is run in this process, and ``threads`` runs all in threads of it: they start at once and
    differ in one thing, that a job that ends its process ends this one. ``MxforgeError`` where dask is missing, or no
    scheduler or worker answers for `_PATIENCE` seconds, or a worker differs; one that comes later and differs gets no job.
    A script that starts processes needs ``if __name__ == "__main__":``, as all do in Python.
    """
    def __init__(self, count=None, scheduler=None, *, threads=False, packages=()):
        if count is not None and scheduler is not None:
            raise MxforgeError("--jobs and --scheduler exclude each other: a scheduler knows its workers")
        self.scheduler = scheduler
        self._count = count or os.cpu_count() or 1
        self._threads = threads and scheduler is None
        self._packages = *_PACKAGES, *packages
        self._client = None
        self._differences = {}
        self._open = contextlib.ExitStack()

    def __enter__(self):
        if self.scheduler is not None or (self._count > 1 and not self._threads):
            try:
                import distributed  # noqa: F401
            except ModuleNotFoundError as error:
                one = "; --jobs 1 does without" if self.scheduler is None else ""
                raise MxforgeError(f"many jobs need {error.name}: {install('jobs')}{one}") from None
        if self.scheduler is not None:
            with self._open:
                self._connect()
                self._open = self._open.pop_all()
        return self

    def __exit__(self, *_):
        self._client = None
        self._open.close()

    @property
    def count(self):
        """How many jobs run at once, as it is now; at least 1."""
        return self._count if self.scheduler is None else max(1, sum(self._seen().values()))

    def build_dir(self, path):
        """What a job is given for `own_build_dir`: ``path``, where the jobs' machine is this one."""
        return None if self.scheduler is not None else str(Path(path).absolute())

    def run(self, jobs):
        """``(job, outcome)`` of each of ``jobs``, as they come: what its function returns, or a `Failure` if it fails twice, by
        an exception or the death of its worker. A worker that dies is replaced, or the others do its work.

        ``jobs`` are taken as workers become free. ``Progress.track`` of rich shows how far it is. What has come stays
        valid whatever ends the rest.
        """
        jobs = iter(jobs)
        first = list(itertools.islice(jobs, 2))
        jobs = itertools.chain(first, jobs)
        if self.scheduler is None and (self._threads or self._count == 1 or len(first) == 1):
            return self._run_here(jobs, 1 if len(first) == 1 else self._count)
        return self._run_spread(jobs)

    def _run_here(self, jobs, count):
        if count == 1:
            for job in jobs:
                yield job, _twice(job)
            return
        running = {}
        with ThreadPoolExecutor(count) as pool:
            def start(job, before=None):
                running[pool.submit(_tried, job)] = job, before

            for job in itertools.islice(jobs, count):
                start(job)
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job, before = running.pop(future)
                    value, log = future.result()
                    # Decided in the thread that a Ctrl-C ends: tools that it ends aren't started again.
                    if log is not None and before is None:
                        start(job, log)
                        continue
                    for another in itertools.islice(jobs, 1):
                        start(another)
                    yield job, _outcome(value, log, before)

    def _run_spread(self, jobs):
        if self._client is None:
            self._connect()
        answers, running, again, workers = queue.SimpleQueue(), set(), deque(), {}
        looked = lonely = None

        def place():
            for attempt in _placed(workers, running, again, jobs):
                self._start(attempt, answers)
                running.add(attempt)

        try:
            while True:
                now = time.monotonic()
                if looked is None or now - looked > _LOOK:
                    looked, workers = now, self._seen()
                    for attempt in running:
                        if attempt.address not in workers and not attempt.is_lost:
                            attempt.is_lost = True
                            attempt.future.cancel()
                    lonely = None if workers else lonely or now
                    if lonely and now - lonely > _PATIENCE:
                        raise MxforgeError(f"{self._name} has had no worker for {_PATIENCE} s; {self._hint}")
                place()
                if workers and not running:
                    return
                try:
                    attempt, answer = answers.get(timeout=_LOOK)
                except queue.Empty:
                    continue
                running.remove(attempt)
                value, log = self._read(attempt, answer)
                if log is not None and not attempt.alone:
                    again.append((attempt.job, log))
                    # If its worker has died, that must be known before it is tried again.
                    looked = None
                    continue
                # Its worker gets the next, however long the caller is busy with this one.
                place()
                yield attempt.job, _outcome(value, log, attempt.before)
        finally:
            for attempt in running:
                attempt.future.release()

    def _read(self, attempt, answer):
        """An attempt's value or log, as `_tried` has them."""
        from distributed import KilledWorker

        if isinstance(answer, bytes):
            return pickle.loads(answer)
        if attempt.is_lost or isinstance(answer, KilledWorker):
            return None, f"its worker {attempt.address} died"
        raise MxforgeError(f"{self._name} is gone, or has dropped the jobs: {' '.join(str(answer).split())}")

    def _start(self, attempt, answers):
        key = f"{attempt.job.function.__name__}-{uuid.uuid4().hex}"
        attempt.future = self._client.submit(_tried_in_bytes, pickle.dumps(attempt.job), key=key, workers=[attempt.address],
                                             allow_other_workers=False, pure=False)

        def report():
            try:
                answer = attempt.future.result()
            except Exception as error:
                answer = error
            answers.put((attempt, answer))

        # Its own thread, since a result is lost with its worker until the attempt is cancelled.
        threading.Thread(target=report, daemon=True).start()

    def _connect(self):
        import dask

        for name in "distributed", "distributed.client":
            logger = logging.getLogger(name)
            self._open.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.CRITICAL)
        self._open.enter_context(dask.config.set({
            # A job carries all that it needs.
            "distributed.admin.large-graph-warning-threshold": "1TiB",
            # Memory that is given back with each array costs as much time as the arithmetic.
            "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None}))
        self._client = self._open.enter_context(self._local() if self.scheduler is None else self._existing())
        try:
            self._client.wait_for_workers(1, timeout=_PATIENCE)
        except TimeoutError:
            raise MxforgeError(f"{self._name} has no worker; {self._hint}") from None
        self._seen()
        if differences := [words for words in self._differences.values() if words]:
            raise MxforgeError(differences[0])

    def _local(self):
        from distributed import Client, LocalCluster

        folder = self._open.enter_context(tempfile.TemporaryDirectory(prefix="mxforge-"))
        with _no_interrupts():
            cluster = self._open.enter_context(LocalCluster(
                n_workers=self._count, threads_per_worker=1, processes=True, host="127.0.0.1", memory_limit=0,
                silence_logs=logging.CRITICAL, local_directory=folder,
                # Without a dashboard there is a port still: one that is free, instead of dask's own.
                dashboard_address=None, scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"}))
        self._open.callback(_end_workers, cluster)
        return Client(cluster, set_as_default=False)

    def _existing(self):
        from distributed import Client
        from distributed.comm import resolve_address
        from distributed.versions import VersionMismatchWarning

        try:
            # A client whose address can't be one is closed only when it is collected; while another starts, both wait forever.
            resolve_address(self.scheduler)
            with warnings.catch_warnings():
                # Told in our words.
                warnings.simplefilter("ignore", VersionMismatchWarning)
                return Client(self.scheduler, timeout=_PATIENCE, set_as_default=False)
        except (OSError, ValueError, ImportError) as error:
            raise MxforgeError(f"no dask scheduler answers at {self.scheduler}; --scheduler must be the address that it tells, "
                               f"such as tcp://127.0.0.1:8786 ({' '.join(str(error).split())})") from None

    @property
    def _name(self):
        return f"the dask scheduler at {self.scheduler}" if self.scheduler is not None else "the local cluster"

    @property
    def _hint(self):
        return f"start one: dask worker {self.scheduler}" if self.scheduler is not None else "they end as soon as they start"

    def _seen(self):
        """Threads of the workers that are there and have our versions, by address."""
        client = self._client
        try:
            if client.status != "running":
                raise OSError
            workers = client.sync(client.scheduler.identity, n_workers=-1)["workers"]
            if not workers.keys() <= self._differences.keys():
                versions = client.get_versions(packages=self._packages)
                # One that doesn't answer is asked again.
                found = {address: self._difference(address, facts["packages"], versions["client"]["packages"])
                         for address, facts in versions["workers"].items()}
                fitting = [address for address, words in found.items() if words is None]
                for address, code in client.run(_code, workers=fitting, on_error="return").items():
                    if code != _code():
                        found[address] = f"the dask worker {address} has another mxforge of the same version; install this one"
                self._differences |= found
        except OSError:
            raise MxforgeError(f"{self._name} is gone") from None
        return {address: facts["nthreads"] for address, facts in workers.items()
                if self._differences.get(address, "unknown") is None}

    def _difference(self, address, theirs, ours):
        """How a worker's packages differ from ours, in words; None if they don't."""
        for package in self._packages:
            if theirs.get(package) != ours[package]:
                there, here = (facts.get(package) or "none" for facts in (theirs, ours))
                return f"the dask worker {address} has {package} {there}, this process {here}; they must be the same"
        return None


@functools.cache
def _code():
    """A hash of the sources that jobs are made of, since a version says little of a clone."""
    code = hashlib.sha256()
    for package in "mxforge", "mxgolden", "mxbench":
        folder = Path(importlib.util.find_spec(package).origin).parent
        for path in sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".in")):
            code.update(f"{package} {path.relative_to(folder)}\0".encode() + path.read_bytes() + b"\0")
    return code.hexdigest()


def _placed(workers, running, again, jobs):
    """Attempts at jobs on the ``workers`` that have room; what must be tried again goes first, to one that does nothing else."""
    for address, threads in workers.items():
        own = [attempt for attempt in running if attempt.address == address]
        if again and not own:
            job, log = again.popleft()
            yield _Attempt(job=job, address=address, before=log)
        elif not again and not any(attempt.alone for attempt in own):
            for job in itertools.islice(jobs, max(0, threads - len(own))):
                yield _Attempt(job=job, address=address)


def _end_workers(cluster):
    """End the cluster's processes and all programs that their jobs still run, which would outlive them."""
    import psutil

    for nanny in cluster.workers.values():
        nanny.auto_restart = False
        if (pid := nanny.pid) is None:
            continue
        with contextlib.suppress(psutil.Error):
            worker = psutil.Process(pid)
            # So that it starts no more of them.
            worker.suspend()
            for process in (*worker.children(recursive=True), worker):
                with contextlib.suppress(psutil.Error):
                    process.kill()
