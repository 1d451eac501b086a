"""caffeconv run"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from caffeconv.cli.commands.run_data import DataOptions, Request, Verbosity, data_options, run_over_data
from caffeconv.cli.commands.run_inputs import InputRequest, profile_net, run_over_inputs
from caffeconv.cli.options.net import (
    compute_options,
    fully_convolutional_option,
    net_argument,
    net_options,
    talk_options,
    weights_argument,
)
from caffeconv.frontend.options import NetOptions
from caffeconv.runtime.providers import ComputeOptions

if TYPE_CHECKING:
    from caffeconv.cli.show.classes import Format


@click.command("run")
@net_argument
@weights_argument
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="BLOB=SOURCE",
    help="A picture, a folder, pattern or list (.txt) of pictures, or an array (.npy, .npz, .binaryproto). One input "
    "needs no BLOB=. An array for an input of fixed size, such as H, serves all items.",
)
@click.option(
    "--blobs",
    multiple=True,
    metavar="NAME",
    help="Blobs to give besides the outputs; `all`: every one. May be repeated.",
)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="Write results: .npz, .npy, .h5, .lmdb, .csv, .json or .jsonl."
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
@click.option("--oversample", is_flag=True, help="Average over ten crops of each picture: corners, centre, mirrored.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "jsonl"]),
    default="table",
    show_default=True,
    help="How classes and detections are printed, or written with -o.",
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
    data.engine.check_provider(compute.provider)
    asked = InputRequest(
        net, weights, inputs, blobs, out, top_k, labels, threshold, mean, scale, resize, crop, rgb, batch_size, oversample,
        form, _is_given("labels", "top_k", "threshold"), fully_convolutional, compute, options,
    )  # fmt: skip
    if profile:
        profile_net(asked, data.iterations or 10, Verbosity(quiet, verbose))
        return
    if data.wanted(net, inputs, options):
        if resize or crop or rgb or oversample or form != "table":
            raise click.UsageError(
                "--resize, --crop, --rgb, --oversample and --format are for --input; a data layer has its transform_param"
            )
        request = Request(net, weights, blobs, out, batch_size, mean, scale, compute, options, fully_convolutional)
        run_over_data(request, data, Verbosity(quiet, verbose))
        return
    run_over_inputs(asked, data, Verbosity(quiet, verbose))


def _is_given(*parameters: str) -> bool:
    """Whether one of the command's parameters stands on the command line."""
    context = click.get_current_context()
    return any(context.get_parameter_source(name) is ParameterSource.COMMANDLINE for name in parameters)
