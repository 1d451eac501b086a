"""Runs jobs in workers of a Ray cluster, and gives what they make in the jobs' order. What a job is, others know."""

from __future__ import annotations

import hashlib
import itertools
import logging
import math
import os
import platform
import socket
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Generic, TypeVar

from caffeconv.errors import CaffeconvError
from caffeconv.runtime.install import import_onnxruntime
from caffeconv.version import __version__

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle
    from typing_extensions import Self

Job = TypeVar("Job")
Result = TypeVar("Result")
Build = Callable[[int], Callable[[Job], Result]]
"""Makes, in a worker that may use so many threads, what does its jobs; it travels there by pickle."""

CORES_A_WORKER = 4
_AT_A_WORKER = 2
"""Jobs that a worker has at most: the one that it does, and the next, so that it never waits for one."""
_AHEAD = 3
"""Jobs for each worker that are begun, or done and not given out: what the machine has to hold at most."""
_TRIES = 4
_PATIENCE = 20.0
"""Seconds without a worker after which it is said what is waited for."""


@dataclass(frozen=True)
class WorkerResources:
    """What a worker may use, of what Ray hands out."""

    cpus: float
    gpus: float

    @property
    def threads(self) -> int:
        """Threads that use it well."""
        return max(1, int(self.cpus))

    def __str__(self) -> str:
        cores = f"{self.cpus:g} {'cores' if self.cpus > 1 else 'core'}"
        return f"{cores} and {self.gpus:g} GPU" if self.gpus else cores


@dataclass(frozen=True)
class WorkerEnvironment:
    """What has to be the same for a worker as for whoever sends it jobs, for the results to be the same."""

    folder: str
    """The current folder: relative paths start there."""
    files: tuple[tuple[str, str], ...]
    """Paths and SHA-256 of the files that each worker reads."""
    versions: str

    @classmethod
    def here(cls, files: Iterable[Path]) -> WorkerEnvironment:
        """Those of this process, with the files that are to be the same."""
        return cls(str(Path.cwd()), tuple((str(file), _digest(file)) for file in files), _versions())

    def enter(self) -> None:
        """Makes them this process's; CaffeconvError where that cannot be."""
        if _versions() != self.versions:
            raise CaffeconvError(
                f"the worker on {platform.node()} has {_versions()}, the run was started with {self.versions}; the same were "
                "needed for the same numbers. Install them there"
            )
        try:
            os.chdir(self.folder)
        except OSError as error:
            raise CaffeconvError(
                f"{self.folder}: {error.strerror} on {platform.node()}; a worker works in the folder in which the run was "
                "started, so every machine of the cluster needs it under the same path"
            ) from None
        for path, digest in self.files:
            if _digest(Path(path)) != digest:
                raise CaffeconvError(
                    f"{path}: the worker on {platform.node()} does not find the file that the run was started with; every "
                    "machine of the cluster needs the same files under the same paths"
                )


def _digest(file: Path) -> str:
    if not file.is_file():
        return ""
    with file.open("rb") as content:
        digest = hashlib.sha256()
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _versions() -> str:
    return f"caffeconv {__version__}, onnxruntime {import_onnxruntime().__version__}"


@dataclass(frozen=True)
class _Refused:
    """A CaffeconvError's message: exceptions of others' classes do not survive Ray's pickling unchanged."""

    message: str


class _Worker(Generic[Job, Result]):
    """Lives in a process of its own, and does one job after another."""

    def __init__(self, build: Build[Job, Result], threads: int, environment: WorkerEnvironment) -> None:
        # built by the first job, so that what kills the process then is met like any other death
        self._build = build
        self._threads = threads
        self._environment = environment
        self._do: Callable[[Job], Result] | None = None

    def get_ready(self) -> _Refused | None:
        """Builds what does the jobs."""
        try:
            self._environment.enter()
            self._do = self._build(self._threads)
        except CaffeconvError as error:
            return _Refused(str(error))
        return None

    def do(self, job: Job) -> Result | _Refused:
        assert self._do is not None, "get_ready comes first"
        try:
            return self._do(job)
        except CaffeconvError as error:
            return _Refused(str(error))


@dataclass(eq=False)
class _Task(Generic[Job, Result]):
    """A job on its way; without one, a worker's getting ready."""

    job: Job | None
    done: bool = False
    """Whether its result is there, or nobody waits for it any more."""
    result: Result | _Refused | None = None
    deaths: int = 0
    suspect: bool = False
    """Whether a worker died that had it: the next one gets it alone, so that it is known what the deaths are over."""


@dataclass(eq=False)
class _WorkerState(Generic[Job, Result]):
    """A worker as seen from here."""

    actor: ActorHandle[_Worker[Job, Result]]
    ready: bool = False
    tasks: dict[ObjectRef[Result | _Refused | None], _Task[Job, Result]] = field(default_factory=dict)
    """In the order in which it does them."""

    def takes(self, task: _Task[Job, Result]) -> bool:
        """Whether the task may be given to it now, besides what it has."""
        return not self.tasks or not (task.suspect or any(other.suspect for other in self.tasks.values()))


@dataclass(frozen=True)
class _Cluster:
    """What this process is connected to."""

    address: str
    ours: bool
    """Whether it was connected to here, and is to be left again."""


class RayWorkers(Generic[Job, Result]):
    """Workers on the Ray cluster that is there, else on one that is started on this machine and ended afterwards.

    Use ``with``. A worker that dies is replaced, and what it was at is done again.

    Args:
        build: makes what does the jobs. It, and what it holds, is shipped once.
        files: have to be the same where the workers are.
        workers: how many; None: one for every four cores of the cluster, or for every GPU.
        gpus: whether each worker gets a GPU, or a share of one.
        say: takes a line for people.
        threads: that each may use; None: one for each of its cores.
    """

    def __init__(
        self, build: Build[Job, Result], files: Sequence[Path], workers: int | None, say: Callable[[str], None], *,
        threads: int | None = None, gpus: bool = False,
    ) -> None:  # fmt: skip
        self._build = build
        self._files = files
        self._requested_count = workers
        self._threads = threads
        self._gpus = gpus
        self._say = say
        self._cluster: _Cluster | None = None
        self._start: Callable[[], ActorHandle[_Worker[Job, Result]]] | None = None
        self._workers: list[_WorkerState[Job, Result]] = []
        self._to_do: deque[_Task[Job, Result]] = deque()
        self._patient_until = math.inf

    @property
    def count(self) -> int:
        """How many workers there are."""
        return len(self._workers)

    def __enter__(self) -> Self:
        ray = import_ray()
        self._cluster = _connect()
        try:
            count, resources = _worker_resources(self._requested_count, gpus=self._gpus)
            build, environment = ray.put(self._build), ray.put(WorkerEnvironment.here(self._files))
            # Ray does not restart them: it would do so in silence, and as often as it likes
            actor = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus, max_restarts=0, max_task_retries=0)(
                _Worker
            )
            self._start = lambda: actor.remote(build, self._threads or resources.threads, environment)
            self._workers = [self._worker_state() for _ in range(count)]
            self._say(
                f"Ray at {self._cluster.address}: {count} {'worker' if count == 1 else 'workers'}, {resources} each"
            )
            self._patient_until = time.monotonic() + _PATIENCE
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._leave()

    def _leave(self) -> None:
        import ray

        for worker in self._workers:
            with suppress(ray.exceptions.RayError):
                ray.kill(worker.actor)
        self._workers.clear()
        if self._cluster is not None and self._cluster.ours:
            ray.shutdown()

    def _worker_state(self, deaths: int = 0) -> _WorkerState[Job, Result]:
        assert self._start is not None, "used without `with`"
        worker = _WorkerState[Job, Result](self._start())
        worker.tasks[worker.actor.get_ready.remote()] = _Task(None, deaths=deaths)
        return worker

    def in_order(self, jobs: Iterable[Job]) -> Generator[tuple[Job, Result], None, None]:
        """Each job and what came of it, in the jobs' order; three for each worker are begun, or wait, at most.

        Raises CaffeconvError where a job does, and for a job over which workers die again and again.
        """
        upcoming = iter(jobs)
        waiting: deque[_Task[Job, Result]] = deque()
        try:
            while True:
                for job in islice(upcoming, _AHEAD * self.count - len(waiting)):
                    waiting.append(_Task(job))
                    self._to_do.append(waiting[-1])
                if not waiting:
                    return
                if waiting[0].done:
                    yield self._result(waiting.popleft())
                else:
                    self._hand_out()
                    self._wait()
        finally:
            # whoever is at one ends it, for nothing: what Ray's cancel does to a worker at work is not always harmless
            self._to_do.clear()
            for task in waiting:
                task.done = True

    def _result(self, task: _Task[Job, Result]) -> tuple[Job, Result]:
        if isinstance(task.result, _Refused):
            raise CaffeconvError(task.result.message)
        assert task.job is not None
        assert task.result is not None
        return task.job, task.result

    def _hand_out(self) -> None:
        for load in range(_AT_A_WORKER):  # first to those that have nothing to do
            for worker in self._workers:
                if self._to_do and worker.ready and len(worker.tasks) <= load and worker.takes(self._to_do[0]):
                    task = self._to_do.popleft()
                    worker.tasks[worker.actor.do.remote(task.job)] = task

    def _wait(self) -> None:
        """Until something has happened, or a second is over."""
        import ray

        workers = {ref: worker for worker in self._workers for ref in worker.tasks}
        ready, _ = ray.wait(list(workers), num_returns=1, timeout=1)
        for ref in ready:
            self._take(workers[ref], ref)
        if time.monotonic() > self._patient_until and not any(worker.ready for worker in self._workers):
            self._patient_until = math.inf
            self._say("still waiting for Ray to start a worker; the cluster may have no room (`ray status` tells)")

    def _take(self, worker: _WorkerState[Job, Result], ref: ObjectRef[Result | _Refused | None]) -> None:
        import ray
        from ray.exceptions import ObjectLostError, OutOfMemoryError, RayActorError

        try:
            result = ray.get(ref)
        except (RayActorError, ObjectLostError, OutOfMemoryError) as error:
            self._replace(worker, error)
            return
        task = worker.tasks.pop(ref)
        if task.job is not None:
            task.result, task.done = result, True
        elif isinstance(result, _Refused):
            raise CaffeconvError(result.message)
        else:
            worker.ready = True

    def _replace(self, worker: _WorkerState[Job, Result], error: Exception) -> None:
        import ray

        with suppress(ray.exceptions.RayError):  # it may only be out of reach
            ray.kill(worker.actor)
        first = next(iter(worker.tasks.values()))
        first.deaths += 1
        if first.deaths >= _TRIES:
            raise _died_again(first.job, error)
        for task in worker.tasks.values():
            task.suspect = True
        lost = [task for task in worker.tasks.values() if task.job is not None and not task.done]
        self._to_do.extendleft(reversed(lost))
        self._workers[self._workers.index(worker)] = self._worker_state(first.deaths if first.job is None else 0)
        what = f"done again: {', '.join(str(task.job) for task in lost)}" if lost else "another takes its place"
        self._say(f"Ray: a worker died; {what}")


def _died_again(job: object | None, error: Exception) -> CaffeconvError:
    if job is None:
        return CaffeconvError(
            f"Ray: {_TRIES} workers died before they were ready: {_last_words(error)}. Every machine of the cluster needs "
            "caffeconv in the Python that Ray runs in there, and memory for the net"
        )
    return CaffeconvError(
        f"Ray: {_TRIES} workers died, one after the other, over {job}: {_last_words(error)}. Too little memory is the usual "
        "reason: try fewer `workers=…`, or a smaller batch"
    )


def _last_words(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__


# -- the cluster -----------------------------------------------------------------------------------------------------


def import_ray() -> ModuleType:
    """The module, told to keep quiet; CaffeconvError says how to install it where it is missing."""
    # what Ray tells on stdout would stand among the results; and it reports its use to its makers, unless told not to
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ["RAY_DEDUP_LOGS"] = "1"
    os.environ["RAY_DEDUP_LOGS_SKIP_REGEX"] = "."
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise CaffeconvError(
            f"`engine='ray'`: Ray cannot be imported ({error}); it is needed to share a run out. "
            "Install it on every machine: pip install 'caffeconv[ray]'"
        ) from None
    module: ModuleType = ray
    return module


def _connect() -> _Cluster:
    """Connects to the cluster of RAY_ADDRESS, or that `ray start` started on this machine; else starts one for this run.

    Raises CaffeconvError where RAY_ADDRESS leads nowhere.
    """
    import ray

    if ray.is_initialized():
        return _Cluster(ray.get_runtime_context().gcs_address, ours=False)
    address = os.environ.get("RAY_ADDRESS", "")
    _check_address(address)
    try:
        # Ray lets workers import from the folder that is current here first; that may hold another caffeconv, unbuilt
        with standing_in(Path(__file__).resolve().parents[2]):
            ray.init(include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"RAY_ADDRESS={address}: " if address else ""
        raise CaffeconvError(f"{where}Ray does not start, or connect: {_last_words(error)}") from None
    return _Cluster(ray.get_runtime_context().gcs_address, ours=True)


@contextmanager
def standing_in(folder: Path) -> Iterator[None]:
    """With that folder as the current one."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _check_address(address: str) -> None:
    """Raises CaffeconvError for an address where nobody answers, as Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if address.startswith("ray://"):
        raise CaffeconvError(
            f"RAY_ADDRESS={address}: this is for Ray's client; the run has to be started on a machine of the cluster"
        )
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise CaffeconvError(
            f"RAY_ADDRESS={address}: no Ray cluster answers there ({error}); give the address that `ray start` printed"
        ) from None


def _worker_resources(workers: int | None, *, gpus: bool) -> tuple[int, WorkerResources]:
    """How many workers, and what each of them gets."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if gpus:
        nodes = [node for node in nodes if node.get("GPU")]
        if not nodes:
            raise CaffeconvError("the Ray cluster has no GPU; `provider='cpu'` computes without one")
    cpus = [node.get("CPU", 0) for node in nodes]
    if not gpus:
        count = workers or max(1, int(sum(cpus)) // CORES_A_WORKER)
        return count, WorkerResources(share(cpus, count), 0)
    devices = [node["GPU"] for node in nodes]
    count = workers or max(1, int(sum(devices)))
    return count, WorkerResources(share(cpus, count), min(1, share(devices, count)))


def share(sizes: Sequence[float], count: int) -> float:
    """The most that each of `count` workers can have, where none of them lies across two machines of these sizes.

    A whole number, or below 1 a fraction 1/n.
    """
    if sum(sizes) <= 0:
        return 0
    for each in range(int(sum(sizes) // count), 0, -1):
        if sum(int(size // each) for size in sizes) >= count:
            return each
    parts = next(n for n in itertools.count(1) if sum(int(size * n) for size in sizes) >= count)
    return 1 / parts
