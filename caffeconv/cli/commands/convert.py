"""caffeconv convert"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from caffeconv.cli.options.int8 import Int8Options, int8_options
from caffeconv.cli.options.model_form import FormOptions, form_options
from caffeconv.cli.options.net import (
    fully_convolutional_option,
    net_argument,
    net_options,
    talk_options,
    weights_argument,
)
from caffeconv.frontend.options import NetOptions

if TYPE_CHECKING:
    from caffeconv.emit.onnx_writer import Storage

FRAMEWORKS = {
    ".tflite": "TensorFlow Lite", ".pb": "TensorFlow", ".keras": "Keras", ".pt": "PyTorch", ".pth": "PyTorch",
    ".mlmodel": "Core ML", ".mlpackage": "Core ML", ".xml": "OpenVINO", ".engine": "TensorRT", ".plan": "TensorRT",
    ".trt": "TensorRT", ".param": "ncnn",
}  # fmt: skip
"""Suffix of a model → whose it is."""


@click.command("convert")
@net_argument
@weights_argument
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="What to write, by its name: a model, OUT.onnx; the weights alone for other frameworks, OUT.safetensors, OUT.npz "
    "or OUT.h5; or as Caffe saves them, OUT.caffemodel or OUT.caffemodel.h5.",
)
@click.option(
    "--output",
    "outputs",
    multiple=True,
    metavar="BLOB",
    help="Make these blobs the outputs and cut the rest; `all`: every blob. May be repeated.",
)
@click.option(
    "--batch",
    default="dynamic",
    show_default=True,
    metavar="dynamic|keep|N",
    help="Batch size: any, where every layer allows it; the prototxt's; or N.",
)
@click.option(
    "--weights",
    "storage",
    type=click.Choice(["embed", "external", "link"], case_sensitive=False),
    help="Where the weights go: into OUT; beside it, to OUT.….data; or nowhere: OUT points into WEIGHTS, which must lie in "
    "its folder or below.  [default: embed; external where OUT would be over 2 GiB]",
)
@click.option("--opset", type=int, help="ONNX operator set.  [default: 17]")
@click.option("--no-fold", is_flag=True, help="Keep BatchNorm, Scale, Bias and Dropout as layers of their own.")
@click.option("--seed", type=int, default=0, help="For fillers that draw at random, where weights are missing.")
@fully_convolutional_option
@form_options
@int8_options
@net_options
@talk_options
def convert_command(
    net: Path, weights: tuple[Path, ...], out: Path, outputs: tuple[str, ...], batch: str, storage: Storage | None,
    opset: int | None, no_fold: bool, seed: int, fully_convolutional: bool, forms: FormOptions, int8: Int8Options | None,
    options: NetOptions, quiet: bool, verbose: bool,
) -> None:  # fmt: skip
    """Writes NET with WEIGHTS as an ONNX model that a plain onnxruntime runs, or the weights alone.

    Example, from the project's folder:

    \b
        caffeconv convert fixtures/digits/deploy.prototxt fixtures/digits/digits.caffemodel -o digits.onnx
    """
    from caffeconv.cli.commands.convert_caffemodel import convert_weights, writes_caffemodel
    from caffeconv.cli.commands.convert_onnx import ModelRequest, convert_model
    from caffeconv.cli.commands.convert_weight_arrays import convert_weight_arrays, writes_weight_arrays
    from caffeconv.errors import CaffeconvError
    from caffeconv.files.atomic import refuse_input_as_output

    refuse_input_as_output(out, (net, *weights))
    if forms.verify_report is not None:
        refuse_input_as_output(forms.verify_report, (net, *weights, out))
    options = replace(options, seed=seed)
    if writes_caffemodel(out):
        convert_weights(net, weights, out, options, quiet=quiet, verbose=verbose)
        return
    if writes_weight_arrays(out):
        convert_weight_arrays(net, weights, out, forms.layout, options, quiet=quiet, verbose=verbose)
        return
    framework = FRAMEWORKS.get(out.suffix.lower())
    if framework is not None:
        raise CaffeconvError(
            f"{out}: {framework} reads our ONNX models by a converter of its own: write a name that ends in .onnx, and "
            "continue as docs/other_frameworks.md says"
        )
    if out.suffix.lower() != ".onnx":
        raise CaffeconvError(
            f"{out}: a name that ends in .onnx was needed for a model; in .safetensors, .npz or .h5 for weights alone; in "
            ".caffemodel or .caffemodel.h5 for weights that Caffe loads"
        )
    request = ModelRequest(
        net=net, weights=weights, out=out, outputs=outputs, batch=_batch(batch), storage=storage, opset=opset,
        fold=not no_fold, forms=forms, int8=int8, options=replace(
            options, fully_convolutional=fully_convolutional, outputs=() if outputs == ("all",) else outputs
        ),
    )  # fmt: skip
    convert_model(request, quiet=quiet, verbose=verbose)


def _batch(value: str) -> int | Literal["dynamic", "keep"]:
    if value in ("dynamic", "keep"):
        return "keep" if value == "keep" else "dynamic"
    if not value.isdigit():
        raise click.UsageError(f"--batch {value}: dynamic, keep or a number was needed")
    return int(value)
