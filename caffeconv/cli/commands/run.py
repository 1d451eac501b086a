"""caffeconv run"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from caffeconv.cli.commands.run_data import run_over_data
from caffeconv.cli.commands.run_inputs import run_over_inputs
from caffeconv.cli.commands.run_profile import profile_net
from caffeconv.cli.help_sections import SectionedCommand
from caffeconv.cli.options.net import net_argument, weights_argument
from caffeconv.cli.options.run import HEADINGS, Verbosity, run_options
from caffeconv.cli.options.standard_input import standard_input
from caffeconv.data.input_images import SUFFIXES
from caffeconv.frontend.options import NetOptions
from caffeconv.inference.request import (
    DataOptions,
    EngineOptions,
    ImageOptions,
    NetFiles,
    OutputOptions,
    RunRequest,
)
from caffeconv.runtime.providers import ComputeOptions, parse_provider


@click.command("run", cls=SectionedCommand, headings=HEADINGS)
@net_argument
@weights_argument
@run_options
def run_command(
    *, net: Path, weights: tuple[Path, ...], inputs: tuple[str, ...], blobs: tuple[str, ...], output: OutputOptions,
    images: ImageOptions, profile: bool, compute: ComputeOptions, fully_convolutional: bool, data: DataOptions,
    engine: EngineOptions, output_dir: Path | None, options: NetOptions, quiet: bool, verbose: bool,
) -> None:  # fmt: skip
    """Runs NET (a prototxt with WEIGHTS, or an ONNX model) on pictures or arrays, or on what its data layers read.

    Prints classes, detections or a summary of each output; over data layers, their averages as `caffe test` does.
    Example, from the project's folder:

    \b
        caffeconv run fixtures/digits/deploy.prototxt fixtures/digits/digits.caffemodel --input fixtures/digits/3.png
    """
    weights, inputs = _without_items(weights, inputs)
    with standard_input(inputs) as (inputs, stdin):
        request = RunRequest(
            files=NetFiles(net=net, weights=weights), inputs=inputs, stdin=stdin, blobs=blobs, images=images, data=data,
            output=output, compute=compute, engine=engine,
            net=replace(options, fully_convolutional=fully_convolutional, output_dir=output_dir),
        )  # fmt: skip
        _run(request, Verbosity(quiet, verbose), profile=profile)


def _run(request: RunRequest, verbosity: Verbosity, *, profile: bool) -> None:
    engine, compute = request.engine, request.compute
    if engine.name == "ray" and parse_provider(compute.provider).index is not None:
        raise click.UsageError(
            f"--provider {compute.provider} with --engine ray: Ray gives each worker a GPU of its own; write cuda"
        )
    if profile:
        profile_net(request, verbosity)
    elif _is_over_data(request):
        run_over_data(request, verbosity)
    else:
        run_over_inputs(request, verbosity)


def _without_items(weights: tuple[Path, ...], inputs: tuple[str, ...]) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Pictures and arrays are no weights: they go on the last --input, as the shell writes out a pattern without quotes."""
    items = [path for path in weights if path.suffix.lower() in SUFFIXES | {".npy"}]
    blob, equals, _ = inputs[-1].partition("=") if inputs else ("", "", "")
    more = (f"{blob}=" * bool(equals) + str(path) for path in items)
    return tuple(path for path in weights if path not in items), (*inputs, *more)


def _is_over_data(request: RunRequest) -> bool:
    """Whether the net's data layers, or a database instead of an input, are to be read."""
    data, files = request.data, request.files
    values = {"--iterations": data.passes, "--per-batch": request.output.per_batch, "--input-db": data.input_db}
    option = next((option for option, value in values.items() if value is not None), None)
    if request.inputs or files.is_onnx:
        if option is not None:
            where = "with --input" if request.inputs else "with an ONNX model"
            raise click.UsageError(f"{option} {where}: it is for a net's data layers; leave one of them out")
        return False
    if data.input_db is None:
        from caffeconv.inference.open_runner import reads_own_data

        if not reads_own_data(files.net, request.net):
            if option is not None:
                raise click.UsageError(
                    f"{option}: it is for nets with data layers (or with --input-db); this net has none"
                )
            return False
    images = request.images
    if request.output.draw is not None:
        raise click.UsageError("--draw is for the pictures of --input, and not for what data layers read")
    if images.resize or images.crop or images.rgb or images.oversample or request.output.format_is_asked:
        raise click.UsageError(
            "--resize, --crop, --rgb, --oversample and --format are for --input; a data layer has its transform_param"
        )
    return True
