"""`caffeconv run` over pictures and arrays: classes, detections, whole blobs, features, or the time that layers take."""

from __future__ import annotations

import functools
import itertools
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

import click

from caffeconv.cli.commands.run_data import DataOptions, Verbosity, extract_from_inputs, identify
from caffeconv.cli.damaged import CorruptItems
from caffeconv.cli.engine import ComputeSetup, InputRun, batching
from caffeconv.cli.loading import load_net
from caffeconv.cli.options.net import note, parse_size
from caffeconv.data.mean import read_mean
from caffeconv.frontend.options import NetOptions
from caffeconv.runtime.providers import ComputeOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from caffeconv.cli.show.classes import Classified, Format
    from caffeconv.cli.show.records import RecordFormat
    from caffeconv.data.input_items import Source
    from caffeconv.inference.input_batches import Batch
    from caffeconv.inspection.layer_facts import LayerFacts
    from caffeconv.ir.graph import Graph
    from caffeconv.runtime.providers import Provider
    from caffeconv.runtime.session import Session
    from caffeconv.tensor.shape import FloatArray

ARRAYS = (".npy", ".npz", ".binaryproto")


@dataclass(frozen=True)
class InputRequest:
    """What to run, on what, and what to show of it."""

    net: Path
    weights: tuple[Path, ...]
    inputs: tuple[str, ...]
    blobs: tuple[str, ...]
    out: Path | None
    top_k: int
    labels: Path | None
    threshold: float
    mean: str | None
    scale: float
    resize: str | None
    crop: str | None
    rgb: bool
    batch_size: int | None
    oversample: bool
    form: Format
    per_item: bool
    """Whether options were given that only make sense for classes or boxes."""
    fully_convolutional: bool
    compute: ComputeOptions
    options: NetOptions

    @property
    def wanted_form(self) -> RecordFormat | None:
        """How classes or boxes are to be written, where it is said that they are wanted; None: a table, or whole blobs."""
        from caffeconv.cli.show.records import SUFFIX_FORMATS

        suffix = self.out.suffix.lower() if self.out is not None else ""
        if self.form == "table":
            return "jsonl" if suffix == ".jsonl" else None
        if self.out is not None and SUFFIX_FORMATS.get(suffix) != self.form:
            raise click.UsageError(
                f"--format {self.form} with -o {self.out}: classes and boxes are written to .csv, .jsonl or .json, and the "
                "suffix says how; other files hold whole blobs. Leave one of them out"
            )
        return self.form

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.net, *self.weights)

    @property
    def crop_size(self) -> tuple[int, int] | None:
        return parse_size(self.crop, "--crop") if self.crop else None

    @property
    def resize_to(self) -> tuple[int, int] | None:
        return parse_size(self.resize, "--resize") if self.resize else None


def run_over_inputs(request: InputRequest, data: DataOptions, talk: Verbosity) -> None:
    """Runs every item once, and shows or writes what comes of it."""
    from caffeconv.files.atomic import refuse_input_as_output
    from caffeconv.files.unchanged import unchanged
    from caffeconv.inference.result_files import check_output

    data.engine.check()
    names, out = _read_labels(request.labels), request.out
    form = request.wanted_form
    with unchanged(request.files):
        opened = _open(request, quiet=talk.quiet)
    session = opened.session
    extracts = data.extracts(out, request.blobs, session)
    if out is not None:
        if form is not None and extracts:
            raise click.UsageError(f"--resume goes on with whole blobs, and {out} is to hold classes or boxes")
        if form is None and not extracts:
            check_output(out, list(session.outputs))
        refuse_input_as_output(out, request.files)
    bad = _damaged(request, data)
    sources, constants = _sources_and_constants(request, session, bad)
    if talk.verbose:
        opened.say_placement()
    run = InputRun(
        session, functools.partial(_open_elsewhere, request, constants), sources, request.batch_size,
        ComputeSetup(request.compute, request.files),
    )  # fmt: skip
    if out is not None and extracts:
        _extract(request, run, out, data, talk)
    else:
        _predict(request, run, names, data, bad, talk)


def _damaged(request: InputRequest, data: DataOptions) -> CorruptItems | None:
    """What takes damaged pictures; None where the first one stops the run."""
    if not data.skip_bad:
        return None
    if len(request.inputs) > 1 or data.engine.name == "ray":
        raise click.UsageError("--skip-bad with --input is for one --input, and for this process alone")
    return CorruptItems()


def _extract(request: InputRequest, run: InputRun, out: Path, data: DataOptions, talk: Verbosity) -> None:
    if request.oversample:
        raise click.UsageError(
            "--oversample with --blobs or --resume: crops are averaged for classes, not for features"
        )
    identity = identify(
        request.net, request.weights, request.options, request.inputs, request.mean, request.scale, request.resize,
        request.crop, request.rgb, request.fully_convolutional, request.compute.half,
    )  # fmt: skip
    extract_from_inputs(run, request.blobs, out, identity, data, talk)


def _predict(
    request: InputRequest, run: InputRun, names: Sequence[str], data: DataOptions, bad: CorruptItems | None, talk: Verbosity
) -> None:  # fmt: skip
    from caffeconv.cli.show.classes import is_classification, refuse_other_outputs
    from caffeconv.cli.show.detections import is_detection
    from caffeconv.data.input_items import CROPS
    from caffeconv.inference.input_batches import averaged, batch_size_of

    total = max((len(source) for source in run.sources.values()), default=1)
    crops = replace(run, sources=_oversampled(run.sources)) if request.oversample else run
    with batching(crops, data.engine, quiet=talk.quiet) as batches:
        stream = averaged(batches, CROPS) if request.oversample else batches
        first = next(stream)
        stream = itertools.chain([first], stream)
        stream = stream if bad is None else bad.some_left(stream, total)
        classes, boxes = is_classification(run.session, first), is_detection(run.session, first)
        if request.wanted_form is not None and not classes and not boxes:
            refuse_other_outputs(run.session, first, _asking(request))
        form = _form_of_records(request, boxes=boxes) if classes or boxes else None
        shown = _classified(request, run, names, bad)
        if form is not None:
            _write_records(request, stream, shown, form, total, talk, boxes=boxes)
        elif request.out is None and classes and talk.quiet:
            deque(stream, maxlen=0)  # for what is said of damaged items
        elif request.out is None and classes:
            _print_classes(stream, shown, total, talk)
        elif bad is None:
            _keep_all(request, stream, run, names, total, talk)
        else:
            raise click.UsageError(
                "--skip-bad with --input is for classes and for boxes (--format csv or jsonl); other values are kept whole"
            )
    if bad is not None:
        bad.say()
    if talk.verbose:
        note(f"{total} items in batches of {batch_size_of(run.session, request.batch_size)}")


def _asking(request: InputRequest) -> str:
    return f"-o {request.out}" if request.out is not None and request.form == "table" else f"--format {request.form}"


def _form_of_records(request: InputRequest, *, boxes: bool) -> RecordFormat | None:
    """How classes or boxes are written; None where they are shown as a table, or whole blobs are written instead."""
    from caffeconv.cli.show.records import SUFFIX_FORMATS

    if request.wanted_form is not None or request.out is None:
        return request.wanted_form
    suffix = request.out.suffix.lower()
    # boxes are no rows of values, one for each item, so a .csv holds them one a row in any case
    if (request.per_item and not request.blobs) or (boxes and suffix == ".csv"):
        return SUFFIX_FORMATS.get(suffix)
    return None


def _classified(request: InputRequest, run: InputRun, names: Sequence[str], bad: CorruptItems | None) -> Classified:
    from caffeconv.cli.show.classes import Classified
    from caffeconv.data.input_items import PictureSource

    main = next(iter(run.sources.values()), None)
    own = main.classes if isinstance(main, PictureSource) else None
    items = main.label if main is not None else lambda _: "net"
    return Classified(items, own, names, request.top_k, bad.pictures if bad is not None else ())


def _write_records(
    request: InputRequest, stream: Iterator[Batch], classified: Classified, form: RecordFormat, total: int, talk: Verbosity, *,
    boxes: bool,
) -> None:  # fmt: skip
    """Classes or boxes, one batch after another, to stdout or into a file."""
    from caffeconv.cli.show.classes import Tally, predictions
    from caffeconv.cli.show.detections import Detected
    from caffeconv.cli.show.progress import progress
    from caffeconv.cli.show.records import Record, lines_of, write_lines

    detected = Detected(classified.items, classified.labels, request.threshold, classified.passed_over)
    tally = Tally(request.top_k)
    out = request.out
    with progress(total, "running", quiet=talk.quiet or (out is None and sys.stdout.isatty())) as advance:
        batches = _advancing(stream, advance)
        records: Iterator[Record] = detected.records(batches) if boxes else predictions(batches, classified, tally)
        lines = lines_of(records, detected.header if boxes else classified.header, form)
        if out is not None:
            write_lines(lines, out)
        else:
            for line in lines:
                click.echo(line, nl=False)
    if out is not None:
        left = total - len(classified.passed_over)
        note(f"{out}: {'boxes' if boxes else 'classes'} of {left} items", quiet=talk.quiet)
    if tally.items:
        note(str(tally), quiet=talk.quiet)


def _print_classes(stream: Iterator[Batch], classified: Classified, total: int, talk: Verbosity) -> None:
    from caffeconv.cli.show.classes import print_table
    from caffeconv.cli.show.progress import progress

    with progress(total, "running", quiet=talk.quiet or sys.stdout.isatty()) as advance:
        tally = print_table(_advancing(stream, advance), classified)
    if tally.items:
        note(str(tally), quiet=talk.quiet)


def _keep_all(
    request: InputRequest, stream: Iterator[Batch], run: InputRun, names: Sequence[str], total: int, talk: Verbosity
) -> None:
    from caffeconv.cli.show.progress import progress
    from caffeconv.inference.input_batches import join
    from caffeconv.inference.result_files import write_results

    session, main = run.session, next(iter(run.sources.values()), None)
    with progress(total, "running", quiet=talk.quiet) as advance:
        batches = list(_advancing(stream, advance))
    results = join(batches, {name: session.kind(name) for name in session.outputs})
    items = [main.label(i) for i in range(total)] if main is not None else ["net"]
    if request.out is not None:
        write_results(request.out, results, items)
        note(f"{request.out}: {', '.join(results)} of {total} items", quiet=talk.quiet)
    if not talk.quiet:
        _show(session, results, items, names, request.top_k, request.threshold)


def _advancing(batches: Iterable[Batch], advance: Callable[[int], None]) -> Iterator[Batch]:
    for batch in batches:
        yield batch
        advance(batch.size)


def _oversampled(sources: Mapping[str, Source]) -> dict[str, Source]:
    """Ten crops of every picture; CaffeconvError where there are other things than pictures."""
    from caffeconv.data.input_items import PictureSource, TenCrops
    from caffeconv.errors import CaffeconvError

    crops: dict[str, Source] = {}
    for blob, source in sources.items():
        if not isinstance(source, PictureSource):
            raise CaffeconvError(f"--oversample: input '{blob}' is an array; crops are taken of pictures")
        if source.transform.before_crop == source.transform.size:
            note("--oversample without --resize: the ten crops are the whole picture, and its mirror image")
        crops[blob] = TenCrops(source)
    return crops


@dataclass(frozen=True)
class _Opened:
    """A session, and the net that it runs; None for an ONNX model, whose file is `path`."""

    session: Session
    graph: Graph | None
    path: Path

    def layers(self) -> list[LayerFacts]:
        from caffeconv.inspection.layer_facts import facts_of_graph, facts_of_model

        if self.graph is not None:
            return facts_of_graph(self.graph)
        import onnx

        return facts_of_model(onnx.load(self.path, load_external_data=False))

    def say_placement(self) -> None:
        """Where it computes."""
        from caffeconv.cli.show.placement import say_placement

        say_placement(self.session, lambda: [layer.name for layer in self.layers()])


# -- time per layer ----------------------------------------------------------------------------------------------------


def profile_net(request: InputRequest, passes: int, talk: Verbosity) -> None:
    """Measures, prints and writes the time per layer."""
    from caffeconv.cli.show import profile as tables
    from caffeconv.cli.show.console import make_console
    from caffeconv.files.atomic import refuse_input_as_output, whole_file
    from caffeconv.inference.input_batches import batch_size_of
    from caffeconv.runtime.profiler import profile_passes

    if request.out is not None:
        refuse_input_as_output(request.out, request.files)
    tables.check_profile_output(request.out)
    with TemporaryDirectory(prefix="caffeconv-") as folder:
        opened = _open(request, quiet=talk.quiet, profile_to=Path(folder), batch=request.batch_size or "keep")
        if talk.verbose:
            opened.say_placement()
        sources, _ = _sources_and_constants(request, opened.session)
        size = batch_size_of(opened.session, request.batch_size)
        free = {name: dims for name, dims in opened.session.inputs.items() if name not in sources}
        feeds = {name: _repeated(source, size) for name, source in sources.items()} | tables.noise_for(free, size)
        facts = opened.layers()
        measured = profile_passes(opened.session, feeds, [layer.name for layer in facts], passes=passes)
    if request.out is not None:
        with whole_file(request.out) as file:
            file.write(tables.profile_bytes(request.out, measured, facts))
    if talk.quiet:
        return
    make_console().print(tables.profile_table(measured, facts))
    for line in tables.profile_lines(measured, facts):
        click.echo(line)


def _repeated(source: Source, size: int) -> NDArray[np.float32]:
    """`size` items from the start of a source, over and over where it holds fewer."""
    import numpy as np

    values = source.read(0, min(size, len(source)))
    return np.resize(values, (size, *values.shape[1:])) if values.ndim and len(values) < size else values


# -- the session and what is fed to it ------------------------------------------------------------------------------------


def _open_elsewhere(
    request: InputRequest, constants: Mapping[str, FloatArray], provider: Provider, threads: int
) -> Session:  # fmt: skip
    compute = replace(request.compute, provider=provider, threads=threads)
    session = _open(replace(request, compute=compute), quiet=True).session
    session.bind_constants(constants)
    return session


def _open(
    request: InputRequest, *, quiet: bool, profile_to: Path | None = None,
    batch: int | Literal["dynamic", "keep"] = "dynamic",
) -> _Opened:  # fmt: skip
    """The session of an ONNX file, or of a net that is converted on the way."""
    from caffeconv.conversion.to_onnx import choose_outputs, to_onnx
    from caffeconv.frontend.reshape import with_batch
    from caffeconv.net.open_session import open_session
    from caffeconv.net.planned_session import PlannedSession

    compute, net, blobs = request.compute, request.net, request.blobs
    if net.suffix.lower() == ".onnx":
        _check_model(request)
        return _Opened(open_session(net, compute, profile_to=profile_to), None, net)
    options = replace(request.options, fully_convolutional=request.fully_convolutional)
    loaded = load_net(net, request.weights, options, crop=request.crop_size)
    for diagnostic in loaded.bound.diagnostics:
        if diagnostic.severity == "warning":
            note(str(diagnostic), quiet=quiet)
    if not request.weights and any(node.params for node in loaded.graph.nodes) and net.suffix != ".caffemodel":
        note("no weights given: the parameters are at their fillers, so the results mean nothing", quiet=quiet)
    values = choose_outputs(loaded.graph, "all" if blobs == ("all",) else None)
    if blobs and blobs != ("all",):
        values = tuple(dict.fromkeys((*values, *choose_outputs(loaded.graph, blobs))))
    graph = with_batch(loaded.graph, batch) if isinstance(batch, int) else loaded.graph
    if profile_to is None and any(node.layer.has_dynamic_shapes for node in graph.nodes):
        return _Opened(PlannedSession(loaded, values, compute, batch=batch), graph, net)
    model = to_onnx(loaded, values, batch=batch)
    session = open_session(model, compute, python_host=loaded.net.python_host, profile_to=profile_to)
    return _Opened(session, graph, net)


def _check_model(request: InputRequest) -> None:
    """Raises CaffeconvError for what an ONNX model has settled."""
    from caffeconv.errors import CaffeconvError

    net = request.net
    if request.weights or request.blobs or request.options.shapes or request.crop:
        raise CaffeconvError(
            f"{net}: an ONNX model has its weights, blobs and shapes; leave WEIGHTS, --blobs, --shape and --crop out"
        )
    if request.fully_convolutional:
        raise CaffeconvError(
            f"{net}: an ONNX model stays as it is; convert the net anew with --fully-convolutional, or leave that out"
        )
    if request.options.infogain is not None:
        raise CaffeconvError(
            f"{net}: in an ONNX model it is settled what InfogainLoss layers are given; leave --infogain out, or "
            f"convert the net anew with --infogain {request.options.infogain}"
        )
    if not net.is_file():
        raise CaffeconvError(f"{net}: no such file; an ONNX model was needed")


def _sources_and_constants(
    request: InputRequest, session: Session, bad: CorruptItems | None = None
) -> tuple[dict[str, Source], dict[str, FloatArray]]:
    """A source for each --input that has items, and the others' values, which the session holds from now on."""
    from caffeconv.data.input_items import constants_among

    sources = _sources(request, session, bad)
    constants = constants_among(sources, session.inputs)
    session.bind_constants(constants)
    return {name: source for name, source in sources.items() if name not in constants}, constants


def _sources(request: InputRequest, session: Session, bad: CorruptItems | None) -> dict[str, Source]:
    """A source for each --input; `bad` takes what is damaged."""
    import difflib

    from caffeconv.data.input_images import Transform, find_pictures
    from caffeconv.data.input_items import ArraySource, PictureSource, fit_array, read_array
    from caffeconv.emit.metadata import image_preprocessing, layouts
    from caffeconv.errors import CaffeconvError

    mean, scale, resize, rgb = read_mean(request.mean), request.scale, request.resize_to, request.rgb
    prepared = image_preprocessing(session.metadata)
    if prepared is not None and (mean is not None or scale != 1 or rgb):
        raise CaffeconvError(
            f"the model prepares its pictures itself: it takes {prepared}. Leave --mean, --scale and --rgb out"
        )
    sources: dict[str, Source] = {}
    for value in request.inputs:
        blob, equals, place = value.partition("=")
        if not equals or (blob not in session.inputs and Path(value).exists()):
            if len(session.inputs) != 1:
                raise CaffeconvError(
                    f"--input {value}: the net has several inputs; name one: --input BLOB={value} ({', '.join(session.inputs)})"
                )
            blob, place = next(iter(session.inputs)), value
        if blob not in session.inputs:
            near = difflib.get_close_matches(blob, session.inputs, 1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise CaffeconvError(
                f"--input {value}: the net has no input '{blob}'; {hint}inputs: {', '.join(session.inputs)}"
            )
        shape, path = session.inputs[blob], Path(place)
        if path.suffix.lower() in ARRAYS:
            sources[blob] = ArraySource(path.name, fit_array(read_array(path, blob), shape, blob))
            continue
        pictures = find_pictures(path, bad.lines if bad is not None else None)
        if resize is not None and len(shape) == 4:
            # an open height or width is that of the pictures
            shape = [size if isinstance(size, int) else resize[i - 2] for i, size in enumerate(shape)]
        if len(shape) == 4 and isinstance(shape[1], int) and not all(isinstance(size, int) for size in shape[2:]):
            raise CaffeconvError(
                f"--input {value}: input '{blob}' takes any height and width; say to what pictures are to be resized: "
                "--resize 480x640"
            )
        if len(shape) != 4 or not all(isinstance(size, int) for size in shape[1:]):
            raise CaffeconvError(
                f"--input {value}: input '{blob}' is {shape}; a picture needs four axes. Give an array (.npy)"
            )
        channels_last = layouts(session.metadata).get(blob) == "NHWC"
        sizes = [int(size) for size in shape[1:]]
        channels, height, width = (sizes[-1], *sizes[:-1]) if channels_last else sizes
        red_first = prepared.order == "RGB" if prepared is not None and prepared.input == blob else rgb
        transform = Transform(channels, (height, width), resize, mean, scale, red_first)
        sources[blob] = PictureSource(
            pictures.paths, transform, pictures.classes, channels_last, bad.pictures if bad is not None else None
        )  # fmt: skip
    return sources


def _read_labels(path: Path | None) -> list[str]:
    if path is None:
        return []
    from caffeconv.caffe_format.prototxt import read_bytes

    return read_bytes(path, "a list of class names, one a line,").decode("utf-8", "replace").splitlines()


def _show(
    session: Session, results: Mapping[str, NDArray[np.float32]], items: Sequence[str], labels: Sequence[str], top_k: int,
    threshold: float,
) -> None:  # fmt: skip
    from caffeconv.cli.show import tables as tables
    from caffeconv.cli.show.console import make_console

    console = make_console()
    for name, values in results.items():
        kind = session.kind(name) or tables.guess_kind(values, len(items))
        if (
            kind == "probabilities"
            and values.ndim >= 2
            and values[0].size == max(values.shape[1:])
            and len(values) == len(items)
        ):
            console.print(tables.classes(name, values, items, labels, top_k))
        elif kind == "detections":
            console.print(tables.detections(name, values, items, labels, threshold))
        else:
            console.print(tables.summary(name, values))
