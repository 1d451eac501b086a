"""caffeconv run"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from caffeconv.cli.engine import InputRun, Means, batching
from caffeconv.cli.options import (
    NetOptions,
    net_argument,
    net_options,
    note,
    parse_size,
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

    from caffeconv.runtime.session import Provider, Session
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
    help="A picture, a folder or pattern of pictures, or an array (.npy, .npz). One input needs no BLOB=.",
)
@click.option(
    "--blobs",
    multiple=True,
    metavar="NAME",
    help="Blobs to give besides the outputs; `all`: every one. May be repeated.",
)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="Write results: .npz, .npy, .h5, .lmdb, .csv or .json."
)
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
@click.option(
    "--provider",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to compute.",
)
@click.option("--threads", type=click.IntRange(1), help="Threads of onnxruntime.")
@data_options
@net_options
@talk_options
def run_command(
    net: Path, weights: tuple[Path, ...], inputs: tuple[str, ...], blobs: tuple[str, ...], out: Path | None, top_k: int,
    labels: Path | None, threshold: float, mean: str | None, scale: float, resize: str | None, crop: str | None, rgb: bool,
    batch_size: int | None, provider: Provider, threads: int | None, data: DataOptions, options: NetOptions, quiet: bool,
    verbose: bool,
) -> None:  # fmt: skip
    """Runs NET (a prototxt with WEIGHTS, or an ONNX model) on pictures or arrays, or on what its data layers read.

    Prints classes, detections or a summary of each output; over data layers, their averages as `caffe test` does.
    Example, from the project's folder:

    \b
        caffeconv run fixtures/digits/deploy.prototxt fixtures/digits/digits.caffemodel --input fixtures/digits/3.png
    """
    from caffeconv.cli.progress import progress
    from caffeconv.emit.atomic import refuse_input_as_output
    from caffeconv.held import unchanged
    from caffeconv.runtime.batches import batch_size_of, join
    from caffeconv.runtime.sinks import check_output, write_results

    if data.wanted(net, inputs, options):
        if resize or crop or rgb:
            raise click.UsageError("--resize, --crop and --rgb are for --input; a data layer has its transform_param")
        request = Request(net, weights, blobs, out, batch_size, mean, scale, provider, threads, options)
        run_over_data(request, data, Talk(quiet, verbose))
        return
    data.engine.check()
    names = _read_labels(labels)
    crop_size = parse_size(crop, "--crop") if crop else None
    with unchanged((net, *weights)):
        session = _open(net, weights, blobs, options, crop_size, provider, threads, quiet=quiet)
    extracts = data.extracts(out, blobs, session)
    if out is not None and not extracts:
        check_output(out, list(session.outputs))
    if out is not None:
        refuse_input_as_output(out, (net, *weights))
    resize_to = parse_size(resize, "--resize") if resize else None
    sources = _sources(session, inputs, _read_mean(mean), scale, resize_to, rgb)
    opening = functools.partial(_open, net, weights, blobs, options, crop_size, quiet=True)
    run = InputRun(session, opening, sources, batch_size, Means(provider, threads, (net, *weights)))
    if verbose:
        note(f"providers: {', '.join(session.providers)}")
    if out is not None and extracts:
        identity = identify(net, weights, options, inputs, mean, scale, resize, crop, rgb)
        extract_from_inputs(run, blobs, out, identity, data, Talk(quiet, verbose))
        return
    total = max((len(source) for source in sources.values()), default=1)
    batches = []
    with (
        batching(run, data.engine, quiet=quiet) as stream,
        progress(total, "running", quiet=quiet) as advance,
    ):
        for batch in stream:
            batches.append(batch)
            advance(batch.size)
    results = join(batches, {name: session.kind(name) for name in session.outputs})
    main = next(iter(sources.values()), None)
    items = [main.label(i) for i in range(total)] if main is not None else ["net"]
    if out is not None:
        write_results(out, results, items)
        note(f"{out}: {', '.join(results)} of {total} items", quiet=quiet)
    if verbose:
        note(f"{total} items in batches of {batch_size_of(session, batch_size)}")
    if not quiet:
        _show(session, results, items, names, top_k, threshold)


def _open(
    net: Path, weights: tuple[Path, ...], blobs: tuple[str, ...], options: NetOptions, crop: tuple[int, int] | None,
    provider: Provider, threads: int | None, *, quiet: bool,
) -> Session:  # fmt: skip
    """The session of an ONNX file, or of a net that is converted on the way."""
    from caffeconv.batch import input_shapes
    from caffeconv.convert import choose_outputs, convert_loaded, load
    from caffeconv.errors import CaffeconvError
    from caffeconv.runtime.session import Session

    if net.suffix.lower() == ".onnx":
        if weights or blobs or options.shapes or crop:
            raise CaffeconvError(
                f"{net}: an ONNX model has its weights, blobs and shapes; leave WEIGHTS, --blobs, --shape and --crop out"
            )
        if not net.is_file():
            raise CaffeconvError(f"{net}: no such file; an ONNX model was needed")
        return Session(net, provider, threads)
    shapes = options.shapes
    read = functools.partial(
        load, net, weights, state=options.state, ignore_unknown_fields=options.ignore_unknown_fields
    )
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
    model = convert_loaded(loaded, values)
    return Session(model, provider, threads, user_code=loaded.net.user_code)


def _sources(
    session: Session, inputs: tuple[str, ...], mean: NDArray[np.float32] | None, scale: float,
    resize: tuple[int, int] | None, rgb: bool,
) -> dict[str, Source]:  # fmt: skip
    """A source for each --input."""
    import difflib

    from caffeconv.errors import CaffeconvError
    from caffeconv.runtime.pictures import Transform, find_pictures
    from caffeconv.runtime.sources import ArraySource, PictureSource, fit_array, read_array

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
        if len(shape) != 4 or not all(isinstance(size, int) for size in shape[1:]):
            raise CaffeconvError(
                f"--input {value}: input '{blob}' is {shape}; a picture needs N×C×H×W. Give an array (.npy)"
            )
        channels, height, width = (int(size) for size in shape[1:])
        transform = Transform(channels, (height, width), resize, mean, scale, rgb)
        sources[blob] = PictureSource(tuple(pictures), transform)
    return sources


def _read_mean(mean: str | None) -> NDArray[np.float32] | None:
    """``104,117,123``, a .npy or a .binaryproto, as C or C×H×W."""
    if mean is None:
        return None
    import numpy as np

    from caffeconv.errors import CaffeconvError
    from caffeconv.read.caffemodel import read_binaryproto
    from caffeconv.runtime.sources import read_array

    try:
        return np.array([float(value) for value in mean.split(",")], np.float32)
    except ValueError:
        pass
    path = Path(mean)
    if path.suffix.lower() in ARRAYS:
        array = read_array(path, "mean")
    else:
        blob = read_binaryproto(path)
        array = blob.array().reshape(blob.shape)
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim not in (1, 3):
        raise CaffeconvError(f"{path}: the mean is {array.shape}; C values or C×H×W were needed")
    return array


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
            and values[0].size == values.shape[1]
            and len(values) == len(items)
        ):
            console.print(tables.classes(name, values, items, labels, top_k))
        elif kind == "detections":
            console.print(tables.detections(name, values, items, labels, threshold))
        else:
            console.print(tables.summary(name, values))
