"""Which machinery makes the passes of a run: this process, or the workers of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import click

from caffeconv.cli.options.net import note
from caffeconv.runtime.providers import ComputeOptions, Provider, parse_provider

if TYPE_CHECKING:
    from caffeconv.data.input_items import Source
    from caffeconv.inference.data_passes import DatasetRunner, Positions
    from caffeconv.inference.input_batches import Batch
    from caffeconv.inference.ray_workers import Build, RayWorkers
    from caffeconv.net.net import Net
    from caffeconv.runtime.session import Session

Name = Literal["process", "ray"]
Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Engine:
    """What makes the passes."""

    name: Name
    workers: int | None

    def __post_init__(self) -> None:
        if self.workers is not None and self.name != "ray":
            raise click.UsageError("--workers are Ray's: give --engine ray too")

    def check_provider(self, provider: Provider) -> None:
        """A usage error where workers shall all compute on one GPU."""
        if self.name == "ray" and parse_provider(provider).index is not None:
            raise click.UsageError(
                f"--provider {provider} with --engine ray: Ray gives each worker a GPU of its own; write cuda"
            )

    def check(self, net: Net | None = None) -> None:
        """Raises CaffeconvError, before anything is written, where Ray is missing or the net cannot be shared out."""
        if self.name == "process":
            return
        from caffeconv.inference.ray_workers import import_ray
        from caffeconv.inference.sharding import refuse_order

        import_ray()
        if net is not None:
            refuse_order(net)


@dataclass(frozen=True)
class ComputeSetup:
    """What computes, and what it reads besides the data."""

    compute: ComputeOptions
    files: Sequence[Path]


@dataclass(frozen=True)
class DataRun:
    """A net, and what its passes over its data are to give."""

    net: Net
    open_net: Callable[[Provider, int], Net]
    """Opens the same net elsewhere."""
    blobs: Sequence[str]
    passes: int | None
    decoders: int | None
    skip_bad: bool
    begin: Positions
    first: int


@dataclass(frozen=True)
class InputRun:
    """A session, and the items that are to go through it."""

    session: Session
    open_session: Callable[[Provider, int], Session]
    """Opens the same session elsewhere."""
    sources: Mapping[str, Source]
    batch_size: int | None
    means: ComputeSetup


@contextmanager
def sweeping(run: DataRun, means: ComputeSetup, engine: Engine, *, quiet: bool) -> Iterator[DatasetRunner]:
    """What goes over the data."""
    from caffeconv.inference.data_passes import DatasetRunner
    from caffeconv.inference.sharding import RunnerBuild, ShardedRunner

    sweep = DatasetRunner(
        run.net, run.blobs, passes=run.passes, begin=run.begin, first=run.first, threads=run.decoders, skip_bad=run.skip_bad,
    )  # fmt: skip
    if engine.name == "process":
        yield sweep
        return
    for layer in run.net.user_layers:
        note(f"{layer}: every worker runs its own; what it keeps from one batch to the next is not shared", quiet=quiet)
    provider = _provider(means.compute.provider)
    build = RunnerBuild(
        partial(run.open_net, provider), run.blobs, sweep.items, run.passes, run.decoders, run.skip_bad
    )  # fmt: skip
    with _workers(build, provider, means, engine, quiet=quiet) as workers:
        yield ShardedRunner(
            run.net, run.blobs, workers, passes=run.passes, begin=run.begin, first=run.first, skip_bad=run.skip_bad
        )  # fmt: skip


@contextmanager
def batching(run: InputRun, engine: Engine, *, start: int = 0, quiet: bool) -> Iterator[Iterator[Batch]]:
    """The batches of the inputs from item `start` on."""
    from caffeconv.inference.input_batches import run_batches
    from caffeconv.inference.sharding import BatchesBuild, run_batches_sharded

    if engine.name == "process":
        yield run_batches(run.session, run.sources, run.batch_size, start=start)
        return
    provider = _provider(run.means.compute.provider)
    build = BatchesBuild(partial(run.open_session, provider), run.sources, run.batch_size)
    with _workers(build, provider, run.means, engine, quiet=quiet) as workers:
        yield run_batches_sharded(workers, run.session, run.sources, run.batch_size, start)


def _workers(
    build: Build[Job, Result], provider: Provider, means: ComputeSetup, engine: Engine, *, quiet: bool
) -> RayWorkers[Job, Result]:
    from caffeconv.inference.ray_workers import RayWorkers

    return RayWorkers(
        build, means.files, engine.workers, partial(note, quiet=quiet), threads=means.compute.threads, gpus=provider == "cuda"
    )  # fmt: skip


def _provider(asked: Provider) -> Provider:
    """The one that every worker computes on, as the numbers of two differ."""
    from caffeconv.runtime.install import choose_providers, import_onnxruntime
    from caffeconv.runtime.providers import parse_provider

    if parse_provider(asked).index is not None:
        raise click.UsageError(
            f"--provider {asked} with --engine ray: Ray gives each worker a GPU of its own; write cuda"
        )
    return "cuda" if "CUDAExecutionProvider" in choose_providers(asked, import_onnxruntime()) else "cpu"
