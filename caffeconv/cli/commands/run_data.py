"""`caffeconv run` over databases and lists: scores as `caffe test` prints them, features as extract_features keeps them."""

from __future__ import annotations

import csv
import functools
import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, overload

import click

from caffeconv.cli.engine import ComputeSetup, DataRun, Engine, InputRun, Name, batching, sweeping
from caffeconv.cli.options.net import note
from caffeconv.cli.show.progress import progress
from caffeconv.frontend.options import NetOptions
from caffeconv.runtime.providers import ComputeOptions

if TYPE_CHECKING:
    from caffeconv.data.input_items import Source
    from caffeconv.data.source import DataSource
    from caffeconv.inference.checkpoint import Checkpoint
    from caffeconv.inference.data_passes import DatasetRunner
    from caffeconv.inference.features import RowBlock
    from caffeconv.net.net import Net
    from caffeconv.runtime.providers import Provider
    from caffeconv.runtime.session import Session

STREAMED = (".npz", ".npy", ".h5")
"""Files that are written row by row where --blobs or --resume is given; so is an LMDB, always."""
ONE_BLOB = (".npy", ".lmdb")
"""Files that hold only what --blobs names, where others hold the outputs too."""


@dataclass(frozen=True)
class DataOptions:
    """What is asked of a run over many items."""

    iterations: int | None
    per_batch: Path | None
    input_db: str | None
    resume: bool
    skip_bad: bool
    decoders: int | None
    engine: Engine

    def wanted(self, net: Path, inputs: Sequence[str], options: NetOptions) -> bool:
        """Whether the net's data layers, or a database instead of an input, are to be read."""
        given = {"--iterations": self.iterations, "--per-batch": self.per_batch, "--input-db": self.input_db}
        option = next((option for option, value in given.items() if value is not None), None)
        if inputs or net.suffix.lower() == ".onnx":
            if option is not None:
                where = "with --input" if inputs else "with an ONNX model"
                raise click.UsageError(f"{option} {where}: it is for a net's data layers; leave one of them out")
            return False
        if self.input_db is not None:
            return True
        reads = _reads_data(net, options)
        if option is not None and not reads:
            raise click.UsageError(f"{option}: it is for nets with data layers (or with --input-db); this net has none")
        return reads

    def extracts(self, out: Path | None, blobs: Sequence[str], session: Session) -> bool:
        """Whether the outputs of a run over --input are written row by row."""
        if out is None:
            if self.resume:
                raise click.UsageError("--resume goes on with an output; name it: -o FILE")
            return False
        suffix = out.suffix.lower()
        return suffix == ".lmdb" or self.resume or (suffix in STREAMED and bool(blobs) and _has_rows(session))


def _reads_data(net: Path, options: NetOptions) -> bool:
    """Whether the net has data of its own: nothing that the caller fills, or a layer that reads."""
    import numpy as np

    from caffeconv.data.source import MemorySource
    from caffeconv.errors import CaffeconvError
    from caffeconv.frontend.open_files import read_definition
    from caffeconv.layers import LAYERS

    definition = read_definition(net, options)
    inputs = [(layer, kind) for layer in definition.layers if (kind := LAYERS.get(layer.type)) and kind.is_input]
    try:
        sources = [kind.parse(layer).data_source(layer.tops, np.random.default_rng(0)) for layer, kind in inputs]
    except CaffeconvError:
        return False  # whoever builds the net says what is wrong with it
    return not inputs or any(source is not None and not isinstance(source, MemorySource) for source in sources)


@dataclass(frozen=True)
class Request:
    """What to run, and how."""

    net: Path
    weights: tuple[Path, ...]
    blobs: tuple[str, ...]
    out: Path | None
    batch_size: int | None
    mean: str | None
    scale: float
    compute: ComputeOptions
    options: NetOptions
    fully_convolutional: bool

    @property
    def means(self) -> ComputeSetup:
        return ComputeSetup(self.compute, (self.net, *self.weights))


@dataclass(frozen=True)
class Verbosity:
    """How much to say."""

    quiet: bool
    verbose: bool


def data_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of runs over many items, handed to the command as one `data`."""

    @functools.wraps(command)
    def gathered(
        *args: object, iterations: int | None, per_batch: Path | None, input_db: str | None, resume: bool, skip_bad: bool,
        decoders: int | None, engine: Name, workers: int | None, **rest: object,
    ) -> None:  # fmt: skip
        data = DataOptions(iterations, per_batch, input_db, resume, skip_bad, decoders, Engine(engine, workers))
        command(*args, data=data, **rest)

    decorators = (
        click.option("--iterations", type=click.IntRange(1), metavar="N",
                     help="Batches to run over data layers; with --profile: passes.  [default: the whole database once; 10]"),
        click.option("--per-batch", type=click.Path(path_type=Path, allow_dash=True), metavar="FILE.csv|-",
                     help="Write the outputs of every batch too."),
        click.option("--input-db", metavar="[BLOB=]PATH",
                     help="An LMDB or LevelDB of Datums for the input, or instead of the Data layer's own."),
        click.option("--resume", is_flag=True, help="Go on with -o FILE where an interrupted run stopped."),
        click.option("--skip-bad", is_flag=True,
                     help="Pass over damaged items, and list them at the end, instead of stopping at the first."),
        click.option("--decoders", type=click.IntRange(0), metavar="N",
                     help="Threads that read, decode and transform.  [default: one for each core]"),
        click.option("--engine", type=click.Choice(["process", "ray"]), default="process", show_default=True,
                     help="What computes: this process, or the workers of a Ray cluster, which share the items out."),
        click.option("--workers", type=click.IntRange(1), metavar="N",
                     help="Workers of --engine ray.  [default: one for every 4 cores of the cluster]"),
    )  # fmt: skip
    decorated: Callable[..., None] = gathered
    for decorator in reversed(decorators):
        decorated = decorator(decorated)
    return decorated


def run_over_data(request: Request, data: DataOptions, talk: Verbosity) -> None:
    """Scores, or features where -o says where to."""
    if request.out is None:
        if request.blobs:
            raise click.UsageError("--blobs keeps features; say where: -o FILE.h5, .npz, .npy or .lmdb")
        if data.resume:
            raise click.UsageError("--resume goes on with an output; name it: -o FILE")
        _test(request, data, talk)
        return
    if data.per_batch is not None:
        raise click.UsageError("--per-batch is of scores; with -o features are kept. Leave one of them out")
    _extract(request, request.out, data, talk)


# -- caffe test --------------------------------------------------------------------------------------------------------


def _test(request: Request, data: DataOptions, talk: Verbosity) -> None:
    import numpy as np

    from caffeconv.inference.scores import Scores

    net = _open(request, data, talk)
    data.engine.check(net)
    scores = Scores(net)
    beyond = 0
    skipped: dict[str, None] = {}  # in order; a later round meets the same items again
    with (
        _rows(data.per_batch) as write,
        sweeping(_run(net, scores.blobs, request, data), request.means, data.engine, quiet=talk.quiet) as sweep,
        progress(sweep.total_items, "testing", quiet=talk.quiet) as advance,
    ):
        _say_what_runs(sweep, data, talk)
        for one in sweep:
            batch = scores.add(one.number, one.blobs)
            if not one.number:
                write(["batch", *scores.names, "loss"])
            write([str(batch.number), *(f"{value:.9g}" for value in (*batch.values, batch.loss))])
            skipped |= dict.fromkeys(one.skipped)
            beyond += int(np.count_nonzero(~one.in_round))
            advance(len(one.in_round))
    if beyond:
        note(
            f"the last batch went on with the first {beyond} items again, as Caffe's does: they count twice",
            quiet=talk.quiet,
        )
    say_skipped(list(skipped))
    lines = [str(score) for score in scores.means()]
    if scores.weights:
        lines.insert(0, f"Loss: {scores.loss:.6g}")
    for line in lines:
        click.echo(line, err=str(data.per_batch) == "-")
    if talk.verbose:
        note(f"{sweep.pace}")


def _run(
    net: Net, blobs: Sequence[str], request: Request, data: DataOptions, begin: Mapping[str, int] | None = None,
    first: int = 0,
) -> DataRun:  # fmt: skip
    opening = functools.partial(_open_elsewhere, request, data)
    return DataRun(net, opening, blobs, data.iterations, data.decoders, data.skip_bad, begin or {}, first)


def _open_elsewhere(request: Request, data: DataOptions, provider: Provider, threads: int) -> Net:
    return _open(
        replace(request, compute=replace(request.compute, provider=provider, threads=threads)), data,
        Verbosity(quiet=True, verbose=False),
    )  # fmt: skip


def _say_what_runs(sweep: DatasetRunner, data: DataOptions, talk: Verbosity) -> None:
    if talk.verbose and data.engine.name == "process":
        from caffeconv.cli.show.placement import say_placement

        session = sweep.net.session_of(sweep.blobs)
        if session is not None:
            say_placement(session, lambda: sweep.net.layer_names)
    if sweep.leading is None:
        note("the net reads no data: 1 batch, unless --iterations says otherwise", quiet=talk.quiet or sweep.total > 1)
        return
    source = sweep.sources[sweep.leading]
    batches = "1 batch" if sweep.total == 1 else f"{sweep.total} batches"
    of = f"{source.name}: {sweep.items[sweep.leading]} items, {batches} of {source.batch_size}"
    note(of, quiet=talk.quiet)


@contextmanager
def _rows(path: Path | None) -> Iterator[Callable[[Sequence[str]], None]]:
    """Writes rows of CSV to a file, whole or not at all; to stdout for ``-``; nowhere for None."""
    from caffeconv.files.atomic import whole_file

    if path is None:
        yield lambda row: None
    elif str(path) == "-":
        yield csv.writer(sys.stdout, lineterminator="\n").writerow
    else:
        with whole_file(path) as file:
            text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
            yield csv.writer(text, lineterminator="\n").writerow
            text.detach()


# -- extract_features --------------------------------------------------------------------------------------------------


def _extract(request: Request, out: Path, data: DataOptions, talk: Verbosity) -> None:
    from caffeconv.files.atomic import refuse_input_as_output
    from caffeconv.inference.feature_files import check_feature_file
    from caffeconv.inference.features import chunks_of

    refuse_input_as_output(out, (request.net, *request.weights))
    net = _open(request, data, talk)
    blobs = _chosen(net, request.blobs)
    identity = _identity(net, request, data)
    if _is_whole(out, identity, blobs, data, talk):
        return
    check_feature_file(out, len(blobs))
    data.engine.check(net)
    _check_skips(data, net.sources)
    parts = _parts(out, identity, blobs, data, talk)
    try:
        journal = parts.journal
        net.states = parts.states()
        run = _run(net, blobs, request, data, journal.positions, journal.passes)
        with sweeping(run, request.means, data.engine, quiet=talk.quiet) as sweep:
            _say_what_runs(sweep, data, talk)
            total = sweep.end if sweep.end is not None else None
            _write(parts, chunks_of(sweep), total, talk)
            if talk.verbose:
                note(f"{sweep.pace}")
    finally:
        parts.leave()


def extract_from_inputs(
    run: InputRun, blobs: Sequence[str], out: Path, identity: Mapping[str, str], data: DataOptions, talk: Verbosity
) -> None:  # fmt: skip
    """Keeps blobs of pictures or arrays in a file, row by row."""
    from caffeconv.inference.feature_files import check_feature_file
    from caffeconv.inference.features import RowBlock

    if data.skip_bad:
        raise click.UsageError(
            "--skip-bad with --input is for classes and boxes, not for whole blobs; take the damaged picture out"
        )
    kept = list(run.session.outputs)
    if out.suffix.lower() in ONE_BLOB and len(kept) > 1:
        kept = [blob for blob in kept if blob in blobs] or kept
    identity = {**identity, "--batch-size": str(run.batch_size)}
    if _is_whole(out, identity, kept, data, talk):
        return
    check_feature_file(out, len(kept))
    data.engine.check()
    items = _ItemNames(run.sources)
    parts = _parts(out, identity, kept, data, talk)
    try:
        with batching(run, data.engine, start=parts.journal.items, quiet=talk.quiet) as batches:
            chunks = (
                RowBlock(batch.size, {name: batch.outputs[name] for name in kept}, {"": batch.start + batch.size})
                for batch in batches
            )
            _write(parts, chunks, len(items), talk, items)
    finally:
        parts.leave()


def _has_rows(session: Session) -> bool:
    """Whether every output has a row for each item."""
    batches = {shape[0] for shape in session.inputs.values() if shape}
    return all(
        shape and shape[0] in batches and session.kind(name) != "detections"
        for name, shape in session.outputs.items()
    )  # fmt: skip


class _ItemNames(Sequence[str]):
    """What to call each item of --input, as the first of them does."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self._source = next(iter(sources.values()), None)

    def __len__(self) -> int:
        return len(self._source) if self._source is not None else 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._source.label(index) if self._source is not None else "net"


def identify(
    net: Path, weights: Sequence[Path], options: NetOptions, inputs: Sequence[str], *transform: object
) -> dict[str, str]:
    """What a run over --input is made of."""
    import hashlib

    from caffeconv.inference.features import stamp

    said = {str(path): hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in (net, *weights)}
    found = {}
    for value in inputs:
        path = Path(value.partition("=")[2] or value)
        found[f"--input {value}"] = stamp(sorted(path.rglob("*")) if path.is_dir() else [path] if path.exists() else [])
    return {**said, **found, "options": f"{options} {transform}"}


def _is_whole(out: Path, identity: Mapping[str, str], blobs: Sequence[str], data: DataOptions, talk: Verbosity) -> bool:
    """Whether the run that is to be gone on with was stopped after its last word."""
    from caffeconv.inference.checkpoint import was_finished

    if not data.resume or not was_finished(out, identity, blobs):
        return False
    note(f"{out}: whole already; the run was stopped after it", quiet=talk.quiet)
    return True


def _parts(
    out: Path, identity: Mapping[str, str], blobs: Sequence[str], data: DataOptions, talk: Verbosity
) -> Checkpoint:
    from caffeconv.inference.checkpoint import Checkpoint

    if not data.resume:
        return Checkpoint.begin(out, identity, blobs)
    found = Checkpoint.go_on(out, identity, blobs)
    if found is None:
        note(f"{out}: nothing to go on with; beginning anew", quiet=talk.quiet)
        return Checkpoint.begin(out, identity, blobs)
    note(f"{out}: going on after {found.journal.items} items", quiet=talk.quiet)
    return found


def _write(
    parts: Checkpoint, chunks: Iterator[RowBlock], total: int | None, talk: Verbosity, items: Sequence[str] = ()
) -> None:  # fmt: skip
    from caffeconv.inference.features import write_features

    try:
        left = None if total is None else total - parts.journal.items
        with progress(left, "extracting", quiet=talk.quiet) as advance:
            write_features(parts, chunks, advance, items)
    except KeyboardInterrupt:
        note(f"stopped: {parts.journal.items} items are in {parts.folder}; the same command with --resume goes on")
        raise
    say_skipped(parts.journal.skipped)
    shapes = ", ".join(f"{blob} {'×'.join(map(str, parts.shape(blob)))}" for blob in parts.journal.blobs)
    note(f"{parts.out}: {shapes}, of {parts.journal.items} items", quiet=talk.quiet)


def _chosen(net: Net, blobs: tuple[str, ...]) -> list[str]:
    if not blobs:
        return list(net.outputs)
    if blobs == ("all",):
        return [blob for blob in net.blobs if not any(blob in source.tops for source in net.sources.values())]
    net.check_known(blobs)
    return list(dict.fromkeys(blobs))


def _identity(net: Net, request: Request, data: DataOptions) -> dict[str, str]:
    from caffeconv.inference.features import stamp
    from caffeconv.version import __version__

    read = {
        f"{layer} reads": f"{source.name}, {stamp(file for file in source.files if file.exists())}, "
        f"in batches of {source.batch_size}"
        for layer, source in net.sources.items()
    }
    options = request.options
    return {
        **{key: value for key, value in net.file_digests().items() if not key.endswith(".name")},
        **read,
        "net state": f"{options.phase}, level {options.level}, stages {', '.join(options.stages) or 'none'}",
        "shapes": ", ".join(f"{blob} {shape}" for blob, shape in options.shapes.items()) or "the net's",
        "--iterations": str(data.iterations),
        "--skip-bad": str(data.skip_bad),
        "--mean, --scale": f"{request.mean}, {request.scale:g}",
        "--provider, --nhwc, --fp16": f"{request.compute.provider}, {request.compute.nhwc}, {request.compute.half}",
        "--fully-convolutional": str(request.fully_convolutional),
        "caffeconv": __version__,
    }


def _check_skips(data: DataOptions, sources: Mapping[str, DataSource]) -> None:
    if data.skip_bad and len(sources) > 1:
        note(
            "--skip-bad with several data layers: each passes over its own damaged items, so items of different layers "
            "no longer stand side by side after one"
        )


def say_skipped(skipped: Sequence[str]) -> None:
    """Counts and lists damaged items that were passed over."""
    if not skipped:
        return
    note(f"{len(skipped)} damaged items were passed over:")
    for text in skipped:
        click.echo(f"  {text}", err=True)


# -- the net -----------------------------------------------------------------------------------------------------------


def _open(request: Request, data: DataOptions, talk: Verbosity) -> Net:
    from caffeconv.errors import CaffeconvError
    from caffeconv.inference.data_passes import no_data_error
    from caffeconv.net.net import Net

    options = request.options
    net = Net(
        request.net, request.weights, options.phase, level=options.level, stages=options.stages,
        allow_python=options.allow_python, provider=request.compute.provider, threads=request.compute.threads,
        nhwc=request.compute.nhwc, half=request.compute.half, fully_convolutional=request.fully_convolutional,
        deploy=options.deploy, extended=options.extended, infogain=options.infogain, shapes=options.shapes,
        ignore_unknown_fields=options.ignore_unknown_fields,
    )  # fmt: skip
    for diagnostic in net.diagnostics:
        note(str(diagnostic), quiet=talk.quiet)
    if not request.weights and net.params and request.net.suffix != ".caffemodel":
        note("no weights given: the parameters are at their fillers, so the results mean nothing", quiet=talk.quiet)
    if data.input_db is not None:
        _read_database(net, data.input_db, request)
    elif request.batch_size is not None or request.mean is not None or request.scale != 1:
        raise CaffeconvError(
            "--batch-size, --mean and --scale are for --input and --input-db; "
            "a data layer has them in the prototxt (batch_size, transform_param)"
        )
    if net.inputs:
        raise no_data_error(net)
    return net


def _read_database(net: Net, value: str, request: Request) -> None:
    """Lets a database fill an input, or take the place of a Data layer's own."""
    from caffeconv.data.database import DatabaseSource
    from caffeconv.data.records import backend_of
    from caffeconv.errors import CaffeconvError

    own = {layer: source for layer, source in net.sources.items() if isinstance(source, DatabaseSource)}
    tops = {**{top: layer for layer, source in own.items() for top in source.tops}, **net.input_layers()}
    blob, equals, place = value.partition("=")
    if not equals or (blob not in tops and Path(value).exists()):
        blob, place = "", value
    if blob and blob not in tops:
        raise CaffeconvError(f"--input-db {value}: the net has no input '{blob}'; it has {', '.join(tops) or 'none'}")
    path = Path(place)
    layers = dict.fromkeys(tops.values())
    if not blob and len(layers) != 1:
        raise CaffeconvError(
            f"--input-db {value}: name the blob that it fills, --input-db BLOB={place}; "
            f"the net has {', '.join(tops) or 'none'}"
        )
    layer = tops[blob] if blob else next(iter(layers))
    if layer in own:
        if request.mean is not None or request.scale != 1 or request.batch_size is not None:
            raise CaffeconvError(
                f"--mean, --scale and --batch-size with --input-db: layer '{layer}' has its own transform_param and batch_size"
            )
        net.read_from(layer, own[layer].at(path, backend_of(path)))
        return
    blob = blob or next(top for top in tops if tops[top] == layer)
    net.read_from(layer, _database_for(net, blob, path, request))


def _database_for(net: Net, blob: str, path: Path, request: Request) -> DataSource:
    import numpy as np

    from caffeconv.data.database import DatabaseSource, first_shape
    from caffeconv.data.records import backend_of
    from caffeconv.data.transform import Transform
    from caffeconv.errors import CaffeconvError
    from caffeconv.tensor.shape import format_shape

    shape = net.shape_of(blob)
    if len(shape) != 4:
        raise CaffeconvError(f"--input-db {path}: input '{blob}' is {format_shape(shape)}; a Datum needs N×C×H×W")
    batch, channels, height, width = shape
    values, file = _mean(request.mean)
    transform = Transform(
        scale=request.scale, crop_size=height if height == width else 0, mean_file=file, mean_values=values,
        force_color=channels == 3, force_gray=channels == 1,
    )  # fmt: skip
    found = first_shape(path, backend_of(path), transform)
    if found != shape[1:]:
        raise CaffeconvError(
            f"--input-db {path}: its items are {format_shape(found)}; input '{blob}' needs {format_shape(shape[1:])}. "
            f"For a net that takes any size: --shape {blob}={batch},{','.join(map(str, found))}"
        )
    source = DatabaseSource(
        (blob,), path, backend_of(path), request.batch_size or batch, transform, np.random.default_rng(0)
    )  # fmt: skip
    net.reshape_input(blob, (source.batch_size, *found))
    return source


def _mean(mean: str | None) -> tuple[tuple[float, ...], Path | None]:
    """Values, or the file of a mean image."""
    if mean is None:
        return (), None
    try:
        return tuple(float(value) for value in mean.split(",")), None
    except ValueError:
        return (), Path(mean)
