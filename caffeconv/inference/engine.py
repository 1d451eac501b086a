"""Which machinery makes the passes of a run: this process, or the workers of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from caffeconv.inference.data_passes import Dataset, DatasetRunner
from caffeconv.inference.request import EngineOptions, RunRequest
from caffeconv.inference.sharding import RunnerBuild, ShardedRunner, refuse_order
from caffeconv.runtime.providers import Provider

if TYPE_CHECKING:
    from caffeconv.data.input_items import InputSource
    from caffeconv.net.net import Net
    from caffeconv.tensor.shape import FloatArray

Say = Callable[[str], None]
"""Takes a line for people."""


@dataclass(frozen=True)
class OpenedRun:
    """A model with its data, ready to run, and what is known of it."""

    dataset: Dataset
    open_elsewhere: Callable[[Provider, int], Dataset]
    """Opens the same in another process, for a provider and so many threads."""
    blobs: Sequence[str]
    """What each pass is to give."""
    bytes_of: Callable[[Sequence[str]], int]
    """About what some of the model's blobs take in one pass."""
    identify: Callable[[], dict[str, str]]
    """What the run is made of; reads all files."""
    net: Net | None = None
    """Where it is a net over its own data layers."""
    main_input: InputSource | None = None
    """What names the items, where the inputs are handed over."""
    stdin: Path | None = None
    """The picture that came from stdin, which is called so."""

    def item_name(self, index: int) -> str:
        """What to call an item of the inputs."""
        name = self.main_input.item_name(index) if self.main_input is not None else "net"
        return "stdin" if self.stdin is not None and name == str(self.stdin) else name

    @property
    def states(self) -> Mapping[str, FloatArray]:
        """What recurrent layers keep for the next pass."""
        return self.net.states if self.net is not None else {}


@dataclass(frozen=True)
class Start:
    """Where a run begins."""

    positions: Mapping[str, int] = field(default_factory=dict)
    passes: int = 0
    """How many are done."""


def check_engine(engine: EngineOptions, net: Net | None = None) -> None:
    """Raises CaffeconvError, before anything is written, where Ray is missing or the net cannot be shared out."""
    if engine.name == "process":
        return
    from caffeconv.inference.ray_workers import import_ray

    import_ray()
    if net is not None:
        refuse_order(net)


@contextmanager
def running(run: OpenedRun, request: RunRequest, say: Say, start: Start | None = None) -> Iterator[DatasetRunner]:
    """What goes over the data."""
    start, data = start or Start(), request.data
    runner = DatasetRunner(
        run.dataset, run.blobs, passes=data.passes, begin=start.positions, first=start.passes, threads=data.decoders,
        skip_bad=data.skip_bad,
    )  # fmt: skip
    if request.engine.name == "process" or not run.dataset.sources:
        yield runner
        return
    from caffeconv.inference.ray_workers import RayWorkers

    for layer in run.net.user_layers if run.net is not None else ():
        say(f"{layer}: every worker runs its own; what it keeps from one batch to the next is not shared")
    provider = _provider_of_workers(request.compute.provider)
    build = RunnerBuild(
        partial(run.open_elsewhere, provider), run.blobs, runner.items, data.passes, data.decoders, data.skip_bad
    )  # fmt: skip
    workers = RayWorkers(
        build, request.files.all, request.engine.workers, say, threads=request.compute.threads, gpus=provider == "cuda"
    )  # fmt: skip
    with workers:
        yield ShardedRunner(
            run.dataset, run.blobs, workers, run.bytes_of(run.blobs), passes=data.passes, begin=start.positions,
            first=start.passes, skip_bad=data.skip_bad,
        )  # fmt: skip


def _provider_of_workers(provider: Provider) -> Provider:
    """The one that every worker computes on, as the numbers of two differ."""
    from caffeconv.runtime.install import choose_providers, import_onnxruntime

    return "cuda" if "CUDAExecutionProvider" in choose_providers(provider, import_onnxruntime()) else "cpu"
