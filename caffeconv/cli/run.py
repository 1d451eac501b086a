"""caffeconv run"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

import click

from caffeconv.cli.options import (
    ComputeOptions,
    NetOptions,
    compute_options,
    fully_convolutional_option,
    net_argument,
    net_options,
    note,
    parse_size,
    read_mean,
    talk_options,
    weights_argument,
)
from caffeconv.cli.run_data import (
    DataOptions,
    Request,
    Talk,
    data_options,
    extract_from_inputs,
    identify,
    run_over_data,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from caffeconv.cli.predictions import Format
    from caffeconv.cli.profile import LayerFacts
    from caffeconv.ir import Graph
    from caffeconv.runtime.batches import Batch
    from caffeconv.runtime.session import Session
    from caffeconv.runtime.sources import Source

ARRAYS = (".npy", ".npz")


@click.command("run")
@net_argument
@weights_argument
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="BLOB=SOURCE",
    help="A picture, a folder, pattern or list (.txt) of pictures, or an array (.npy, .npz). One input needs no BLOB=.",
)
@click.option(
    "--blobs",
    multiple=True,
    metavar="NAME",
    help="Blobs to give besides the outputs; `all`: every one. May be repeated.",
)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write results: .npz, .npy, .h5, .csv or .json.")
@click.option("--top-k", type=click.IntRange(1), default=5, show_default=True, help="Classes to show for each picture.")
@click.option("--labels", type=click.Path(path_type=Path), help="Class names, one a line.")
@click.option("--threshold", type=float, default=0.5, show_default=True, help="Score from which detections are shown.")
@click.option("--mean", metavar="B,G,R|FILE", help="Mean to subtract: values, or a .binaryproto or .npy.")
@click.option("--scale", type=float, default=1.0, show_default=True, help="Factor after the mean is subtracted.")
@click.option(
    "--resize", metavar="SIZE", help="Resize pictures to this before the centre crop: 256 or 256x340 (height×width)."
)
@click.option(
    "--crop", metavar="SIZE", help="Crop to this size, and give the net's input that size.  [default: the net's]"
)
@click.option("--rgb", is_flag=True, help="The net wants red first; Caffe's nets want blue first.")
@click.option("--batch-size", type=click.IntRange(1), help="Items in one pass.  [default: 16, or the model's]")
@click.option("--oversample", is_flag=True, help="Average over ten crops of each picture: corners, centre, mirrored.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "jsonl"]),
    default="table",
    show_default=True,
    help="How classes are printed.",
)
@click.option("--profile", is_flag=True, help="Print the time that each layer takes instead; -o: .json, .trace.json.")
@compute_options
@fully_convolutional_option
@data_options
@net_options
@talk_options
def run_command(
    net: Path, weights: tuple[Path, ...], inputs: tuple[str, ...], blobs: tuple[str, ...], out: Path | None, top_k: int,
    labels: Path | None, threshold: float, mean: str | None, scale: float, resize: str | None, crop: str | None, rgb: bool,
    batch_size: int | None, oversample: bool, form: Format, profile: bool, fully_convolutional: bool,
    compute: ComputeOptions, data: DataOptions, options: NetOptions, quiet: bool, verbose: bool,
) -> None:  # fmt: skip
    """Runs NET (a prototxt with WEIGHTS, or an ONNX model) on pictures or arrays, or on what its data layers read.

    Prints classes, detections or a summary of each output; over data layers, their averages as `caffe test` does.
    Example, from the project's folder:

    \b
        caffeconv run fixtures/digits/deploy.prototxt fixtures/digits/digits.caffemodel --input fixtures/digits/3.png
    """
    from caffeconv.cli.predictions import Classified, is_classification, print_predictions, refuse_other_outputs
    from caffeconv.cli.progress import progress
    from caffeconv.emit.atomic import refuse_input_as_output
    from caffeconv.held import unchanged
    from caffeconv.runtime.batches import averaged, batch_size_of, join, run_batches
    from caffeconv.runtime.sinks import check_output, write_results
    from caffeconv.runtime.sources import CROPS, PictureSource

    names = _read_labels(labels)
    crop_size = parse_size(crop, "--crop") if crop else None
    resize_to = parse_size(resize, "--resize") if resize else None
    opening = functools.partial(
        _open, net, weights, blobs, options, crop_size, compute, fully_convolutional=fully_convolutional, quiet=quiet
    )
    if profile:
        if out is not None:
            refuse_input_as_output(out, (net, *weights))
        with TemporaryDirectory(prefix="caffeconv-") as folder:
            opened = opening(profile_to=Path(folder), batch=batch_size or "keep")
            sources = _sources(opened.session, inputs, read_mean(mean), scale, resize_to, rgb)
            _profile(opened, sources, batch_size, data.iterations or 10, out, quiet=quiet)
        return
    if data.wanted(net, inputs, options):
        if resize or crop or rgb or oversample or form != "table":
            raise click.UsageError(
                "--resize, --crop, --rgb, --oversample and --format are for --input; a data layer has its transform_param"
            )
        request = Request(net, weights, blobs, out, batch_size, mean, scale, compute, options, fully_convolutional)
        run_over_data(request, data, Talk(quiet, verbose))
        return
    if form != "table" and out is not None:
        raise click.UsageError(
            f"--format {form}: classes are printed to stdout, and -o takes whole blobs; give one of them"
        )
    with unchanged((net, *weights)):
        opened = opening()
    session = opened.session
    extracts = data.extracts(out, blobs, session)
    if out is not None and not extracts:
        check_output(out, list(session.outputs))
    if out is not None:
        refuse_input_as_output(out, (net, *weights))
    sources = _sources(session, inputs, read_mean(mean), scale, resize_to, rgb)
    if verbose:
        for line in opened.placement():
            note(line)
    if out is not None and extracts:
        if oversample:
            raise click.UsageError(
                "--oversample with --blobs or --resume: crops are averaged for classes, not for features"
            )
        identity = identify(net, weights, options, inputs, mean, scale, resize, crop, rgb, fully_convolutional)
        extract_from_inputs(session, sources, batch_size, blobs, out, identity, data, Talk(quiet, verbose))
        return
    total = max((len(source) for source in sources.values()), default=1)
    stream = run_batches(session, _oversampled(sources) if oversample else sources, batch_size)
    stream = averaged(stream, CROPS) if oversample else stream
    first = next(stream)
    stream = itertools.chain([first], stream)
    if form != "table":
        refuse_other_outputs(session, first, form)
    main = next(iter(sources.values()), None)
    if out is None and not (quiet and form == "table") and is_classification(session, first):
        own = main.classes if isinstance(main, PictureSource) else None
        what = Classified(main.label if main is not None else lambda _: "net", own, names, top_k)
        with progress(total, "running", quiet=quiet or sys.stdout.isatty()) as advance:
            tally = print_predictions(_advancing(stream, advance), what, form)
        if tally.items:
            note(str(tally), quiet=quiet)
    else:
        with progress(total, "running", quiet=quiet) as advance:
            batches = list(_advancing(stream, advance))
        results = join(batches, {name: session.kind(name) for name in session.outputs})
        items = [main.label(i) for i in range(total)] if main is not None else ["net"]
        if out is not None:
            write_results(out, results, items)
            note(f"{out}: {', '.join(results)} of {total} items", quiet=quiet)
        if not quiet:
            _show(session, results, items, names, top_k, threshold)
    if verbose:
        note(f"{total} items in batches of {batch_size_of(session, batch_size)}")


def _advancing(batches: Iterable[Batch], advance: Callable[[int], None]) -> Iterator[Batch]:
    for batch in batches:
        yield batch
        advance(batch.size)


def _oversampled(sources: Mapping[str, Source]) -> dict[str, Source]:
    """Ten crops of every picture; CaffeconvError where there are other things than pictures."""
    from caffeconv.errors import CaffeconvError
    from caffeconv.runtime.sources import PictureSource, TenCrops

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
        from caffeconv.cli.profile import facts_of_graph, facts_of_model

        if self.graph is not None:
            return facts_of_graph(self.graph)
        import onnx

        return facts_of_model(onnx.load(self.path, load_external_data=False))

    def placement(self) -> list[str]:
        """Where it computes, as lines for people."""
        from caffeconv.runtime.providers import layer_of, said

        placed = self.session.placements()
        names = [layer.name for layer in self.layers()] if placed else []
        owners = {place.node: layer_of(place.node, names) or place.node for place in placed or ()}
        return said(self.session.providers, placed, owners)


def _profile(
    opened: _Opened, sources: Mapping[str, Source], batch: int | None, passes: int, out: Path | None, *, quiet: bool
) -> None:
    """Measures, prints and writes the time per layer."""
    from caffeconv.cli import profile as tables
    from caffeconv.cli.table import make_console
    from caffeconv.emit.atomic import whole_file
    from caffeconv.runtime.batches import batch_size_of
    from caffeconv.runtime.profile import profile_passes

    tables.check_profile_output(out)
    size = batch_size_of(opened.session, batch)
    free = {name: dims for name, dims in opened.session.inputs.items() if name not in sources}
    feeds = {name: _repeated(source, size) for name, source in sources.items()} | tables.noise_for(free, size)
    facts = opened.layers()
    measured = profile_passes(opened.session, feeds, [layer.name for layer in facts], passes=passes)
    if out is not None:
        with whole_file(out) as file:
            file.write(tables.profile_bytes(out, measured, facts))
    if quiet:
        return
    make_console().print(tables.profile_table(measured, facts))
    for line in tables.profile_lines(measured, facts):
        click.echo(line)


def _repeated(source: Source, size: int) -> NDArray[np.float32]:
    """`size` items from the start of a source, over and over where it holds fewer."""
    import numpy as np

    values = source.read(0, min(size, len(source)))
    return np.resize(values, (size, *values.shape[1:])) if values.ndim and len(values) < size else values


def _open(
    net: Path, weights: tuple[Path, ...], blobs: tuple[str, ...], options: NetOptions, crop: tuple[int, int] | None,
    compute: ComputeOptions, *, fully_convolutional: bool, quiet: bool, profile_to: Path | None = None,
    batch: int | Literal["dynamic", "keep"] = "dynamic",
) -> _Opened:  # fmt: skip
    """The session of an ONNX file, or of a net that is converted on the way."""
    from caffeconv.batch import input_shapes, with_batch
    from caffeconv.convert import choose_outputs, convert_loaded, load
    from caffeconv.errors import CaffeconvError
    from caffeconv.runtime.session import Session

    make_session = functools.partial(
        Session, provider=compute.provider, threads=compute.threads, nhwc=compute.nhwc, profile_to=profile_to
    )
    if net.suffix.lower() == ".onnx":
        if weights or blobs or options.shapes or crop:
            raise CaffeconvError(
                f"{net}: an ONNX model has its weights, blobs and shapes; leave WEIGHTS, --blobs, --shape and --crop out"
            )
        if fully_convolutional:
            raise CaffeconvError(
                f"{net}: an ONNX model stays as it is; convert the net anew with --fully-convolutional, or leave that out"
            )
        if options.infogain is not None:
            raise CaffeconvError(
                f"{net}: in an ONNX model it is settled what InfogainLoss layers are given; leave --infogain out, or "
                f"convert the net anew with --infogain {options.infogain}"
            )
        if not net.is_file():
            raise CaffeconvError(f"{net}: no such file; an ONNX model was needed")
        return _Opened(make_session(net), None, net)
    shapes = options.shapes
    read = functools.partial(
        load, net, weights, state=options.state, ignore_unknown_fields=options.ignore_unknown_fields,
        fully_convolutional=fully_convolutional,
    )  # fmt: skip
    loaded = read(shapes=shapes)
    if crop is not None:
        given = input_shapes(loaded.graph)
        picture = next((name for name, shape in given.items() if len(shape) == 4), None)
        if picture is None:
            raise CaffeconvError("--crop: the net has no input of 4 axes")
        shapes = {**shapes, picture: (*given[picture][:2], *crop)}
        loaded = read(shapes=shapes)
    for diagnostic in loaded.bound.diagnostics:
        if diagnostic.severity == "warning":
            note(str(diagnostic), quiet=quiet)
    if not weights and any(node.params for node in loaded.graph.nodes) and net.suffix != ".caffemodel":
        note("no weights given: the parameters are at their fillers, so the results mean nothing", quiet=quiet)
    if blobs == ("all",):
        values = choose_outputs(loaded.graph, "all")
    else:
        values = tuple(
            dict.fromkeys(
                (*choose_outputs(loaded.graph, None), *(choose_outputs(loaded.graph, blobs) if blobs else ()))
            )
        )
    model = convert_loaded(loaded, values, batch=batch)
    graph = with_batch(loaded.graph, batch) if isinstance(batch, int) else loaded.graph
    return _Opened(make_session(model, user_code=loaded.net.user_code), graph, net)


def _sources(
    session: Session, inputs: tuple[str, ...], mean: NDArray[np.float32] | None, scale: float,
    resize: tuple[int, int] | None, rgb: bool,
) -> dict[str, Source]:  # fmt: skip
    """A source for each --input."""
    import difflib

    from caffeconv.emit.form import layouts, pictures_of
    from caffeconv.errors import CaffeconvError
    from caffeconv.runtime.pictures import Transform, find_pictures
    from caffeconv.runtime.sources import ArraySource, PictureSource, fit_array, read_array

    prepared = pictures_of(session.metadata)
    if prepared is not None and (mean is not None or scale != 1 or rgb):
        raise CaffeconvError(
            f"the model prepares its pictures itself: it takes {prepared}. Leave --mean, --scale and --rgb out"
        )
    sources: dict[str, Source] = {}
    for value in inputs:
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
        pictures = find_pictures(path)
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
        sources[blob] = PictureSource(pictures.paths, transform, pictures.classes, channels_last)
    return sources


def _read_labels(path: Path | None) -> list[str]:
    if path is None:
        return []
    from caffeconv.read.prototxt import read_bytes

    return read_bytes(path, "class names, one a line,").decode("utf-8", "replace").splitlines()


def _show(
    session: Session, results: Mapping[str, NDArray[np.float32]], items: Sequence[str], labels: Sequence[str], top_k: int,
    threshold: float,
) -> None:  # fmt: skip
    from caffeconv.cli import results as tables
    from caffeconv.cli.table import make_console

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
