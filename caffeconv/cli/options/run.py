"""The options of `caffeconv run`, gathered in values of the request that they make up."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click
from click.core import ParameterSource

from caffeconv.cli.options.net import (
    compute_options,
    fully_convolutional_option,
    net_options,
    parse_size,
    talk_options,
)
from caffeconv.data.image_transform import Size
from caffeconv.data.mean import Mean
from caffeconv.inference.request import DataOptions, EngineName, EngineOptions, ImageOptions, OutputOptions
from caffeconv.inference.result_files import FORMATS, RecordFormat, format_of

Command = Callable[..., None]
PrintFormat = Literal["table", "csv", "jsonl"]


@dataclass(frozen=True)
class Verbosity:
    """How much to say."""

    quiet: bool
    verbose: bool


def run_options(command: Command) -> Command:
    """All options, in the order of the help; handed to the command as `images`, `output`, `data`, `engine`, `compute` and
    `options` (of the net), besides `inputs`, `blobs`, `profile`, `fully_convolutional`, `quiet` and `verbose`."""
    for gather in (_gather_images, _gather_output, _gather_data, _gather_engine):
        command = gather(command)
    command = net_options(talk_options(command))
    command = fully_convolutional_option(_decorated(command, _DATA_OPTIONS))
    return _decorated(compute_options(command), _ITEM_OPTIONS)


def _gather_images(command: Command) -> Command:
    @functools.wraps(command)
    def gathered(
        *args: object, mean: Mean | None, scale: float, resize: Size | None, crop: Size | None, rgb: bool, oversample: bool,
        **rest: object,
    ) -> None:  # fmt: skip
        images = ImageOptions(mean=mean, scale=scale, resize=resize, crop=crop, rgb=rgb, oversample=oversample)
        command(*args, images=images, **rest)

    return gathered


def _gather_output(command: Command) -> Command:
    @functools.wraps(command)
    def gathered(
        *args: object, out: Path | None, form: PrintFormat, per_batch: Path | None, labels: Path | None, top_k: int,
        threshold: float, draw: Path | None, **rest: object,
    ) -> None:  # fmt: skip
        output = OutputOptions(
            path=out, records=_records_of(form, out), format_is_asked=form != "table", per_batch=per_batch, labels=labels,
            top_k=top_k, threshold=threshold, draw=draw, wants_classes=_is_on_command_line("labels", "top_k"),
            wants_boxes=_is_on_command_line("threshold"),
        )  # fmt: skip
        command(*args, output=output, **rest)

    return gathered


def _gather_data(command: Command) -> Command:
    @functools.wraps(command)
    def gathered(
        *args: object, iterations: int | None, batch_size: int | None, input_db: str | None, resume: bool, skip_bad: bool,
        decoders: int | None, **rest: object,
    ) -> None:  # fmt: skip
        data = DataOptions(
            passes=iterations, batch_size=batch_size, input_db=input_db, resume=resume, skip_bad=skip_bad,
            decoders=decoders,
        )  # fmt: skip
        command(*args, data=data, **rest)

    return gathered


def _gather_engine(command: Command) -> Command:
    @functools.wraps(command)
    def gathered(*args: object, engine: EngineName, workers: int | None, **rest: object) -> None:
        if workers is not None and engine != "ray":
            raise click.UsageError("--workers are Ray's: give --engine ray too")
        command(*args, engine=EngineOptions(name=engine, workers=workers), **rest)

    return gathered


def _decorated(command: Command, decorators: Sequence[Callable[[Command], Command]]) -> Command:
    for decorator in reversed(decorators):
        command = decorator(command)
    return command


def _size(context: click.Context, parameter: click.Parameter, value: str | None) -> Size | None:
    return parse_size(value, parameter.opts[0]) if value else None


def _factor(context: click.Context, parameter: click.Parameter, value: str) -> float:
    """``0.017`` or ``1/255``."""
    numerator, slash, denominator = value.partition("/")
    try:
        factor = float(numerator) / (float(denominator) if slash else 1)
    except (ValueError, ZeroDivisionError):
        factor = math.nan
    if not math.isfinite(factor):
        raise click.UsageError(f"--scale {value}: a number was needed, such as 0.017 or 1/255")
    return factor


def _records_of(form: PrintFormat, out: Path | None) -> RecordFormat | None:
    """How classes or boxes are to be written; a usage error where the file's suffix says otherwise."""
    if form == "table":
        return "jsonl" if out is not None and format_of(out).records == "jsonl" else None
    if out is not None and format_of(out).records != form:
        raise click.UsageError(
            f"--format {form} with -o {out}: classes and boxes are written to .csv, .jsonl or .json, and the "
            "suffix says how; other files hold whole blobs. Leave one of them out"
        )
    return form


def _is_on_command_line(*parameters: str) -> bool:
    """Whether one of the command's parameters stands on the command line."""
    context = click.get_current_context()
    return any(context.get_parameter_source(name) is ParameterSource.COMMANDLINE for name in parameters)


HEADINGS = {
    "Input": ("inputs", "input_db", "iterations", "batch_size", "skip_bad", "decoders"),
    "Pictures": ("mean", "scale", "resize", "crop", "rgb", "oversample"),
    "Output": ("blobs", "out", "form", "top_k", "labels", "threshold", "draw", "per_batch", "resume", "profile",
               "quiet", "verbose"),
    "Compute": ("provider", "threads", "nhwc", "half"),
    "Cluster": ("engine", "workers"),
    "Net": ("phase", "level", "stages", "shapes", "deploy", "fully_convolutional", "extended", "infogain", "dialect",
            "allow_python", "ignore_unknown_fields"),
}  # fmt: skip
"""How the help of `run` orders its options."""
_SUFFIXES = list(FORMATS)
_ITEM_OPTIONS = (
    click.option("--input", "inputs", multiple=True, metavar="BLOB=SOURCE",
                 help="A picture, a folder, pattern or list (.txt) of pictures, or an array (.npy, .npz, .binaryproto); "
                 "`-`: a picture or array on stdin. May be repeated. One input needs no BLOB=. An array for an input of fixed "
                 "size, such as H, serves all items."),
    click.option("--blobs", multiple=True, metavar="NAME",
                 help="Blobs to return besides the outputs; `all`: every one. May be repeated."),
    click.option("-o", "--out", type=click.Path(path_type=Path),
                 help=f"Write results: {', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]}."),
    click.option("--top-k", type=click.IntRange(1), default=5, show_default=True,
                 help="Classes to show for each picture."),
    click.option("--labels", type=click.Path(path_type=Path), help="Class names, one a line."),
    click.option("--threshold", type=float, default=0.5, show_default=True,
                 help="Lowest score at which detections are shown."),
    click.option("--draw", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
                 help="Write the pictures of --input with what is found in them: boxes, or label maps as colours."),
    click.option("--mean", metavar="B,G,R|FILE", callback=lambda _, __, value: None if value is None else Mean(value),
                 help="Mean to subtract: values, or a .binaryproto or .npy."),
    click.option("--scale", metavar="FACTOR", default="1", show_default=True, callback=_factor,
                 help="Factor after the mean is subtracted, such as 0.017 or 1/255."),
    click.option("--resize", metavar="SIZE", callback=_size,
                 help="Resize pictures to this before the centre crop: 256 or 256x340 (height×width)."),
    click.option("--crop", metavar="SIZE", callback=_size,
                 help="Crop to this size, and give the net's input that size.  [default: the net's]"),
    click.option("--rgb", is_flag=True, help="The net wants red first; Caffe's nets want blue first."),
    click.option("--batch-size", type=click.IntRange(1), help="Items in one pass.  [default: 16, or the model's]"),
    click.option("--oversample", is_flag=True, help="Average over ten crops of each picture: corners, centre, mirrored."),
    click.option("--format", "form", type=click.Choice(["table", "csv", "jsonl"], case_sensitive=False), default="table",
                 show_default=True,
                 help="How classes and detections are printed, or written with -o."),
    click.option("--profile", is_flag=True,
                 help="Print the time that each layer takes instead; -o: .json, .trace.json."),
)  # fmt: skip
_DATA_OPTIONS = (
    click.option("--iterations", type=click.IntRange(1), metavar="N",
                 help="Batches to run over data layers; with --profile: passes.  [default: the whole database once; 10]"),
    click.option("--per-batch", type=click.Path(path_type=Path, allow_dash=True), metavar="FILE.csv|-",
                 help="Write the outputs of every batch too."),
    click.option("--input-db", metavar="[BLOB=]PATH",
                 help="An LMDB or LevelDB of Datums for the input, or instead of the Data layer's own."),
    click.option("--output-dir", type=click.Path(path_type=Path, file_okay=False, exists=True), metavar="DIR",
                 help="Let the net's HDF5Output layers write into this folder or below; without it, they may not."),
    click.option("--resume", is_flag=True, help="Continue -o FILE where an interrupted run stopped."),
    click.option("--skip-bad", is_flag=True,
                 help="Leave damaged items out, and list them at the end, instead of stopping at the first."),
    click.option("--decoders", type=click.IntRange(0, 1024), metavar="N",
                 help="Threads that read, decode and transform.  [default: one for each core]"),
    click.option("--engine", type=click.Choice(["process", "ray"], case_sensitive=False), default="process", show_default=True,
                 help="What computes: this process, or the workers of a Ray cluster, which share the items."),
    click.option("--workers", type=click.IntRange(1), metavar="N",
                 help="Workers of --engine ray.  [default: one for every 4 cores of the cluster]"),
)  # fmt: skip
