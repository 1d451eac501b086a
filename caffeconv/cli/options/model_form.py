"""The options of `convert` that say which form the model takes, and how it is checked."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from caffeconv.cli.options.net import parse_size
from caffeconv.emit.metadata import ChannelOrder, Layout, Preprocess
from caffeconv.emit.model_options import ModelOptions
from caffeconv.errors import CaffeconvError, Diagnostic
from caffeconv.frontend.options import NetOptions

if TYPE_CHECKING:
    from caffeconv.verify.engines import EngineName


@dataclass(frozen=True)
class FormOptions:
    """What the command line asks for."""

    layout: Layout | None
    half: bool
    keep_io: bool
    preprocess: bool
    mean: str | None
    scale: float | None
    resize: str | None
    crop: str | None
    rgb: bool
    pictures: ChannelOrder
    input_layout: Layout | None
    verify: bool
    verify_with: EngineName | None
    verify_report: Path | None

    @property
    def crop_size(self) -> tuple[int, int] | None:
        return parse_size(self.crop, "--crop") if self.crop else None

    @property
    def resize_size(self) -> tuple[int, int] | None:
        return parse_size(self.resize, "--resize") if self.resize else None

    @property
    def wants_verification(self) -> bool:
        return self.verify or self.verify_with is not None or self.verify_report is not None

    @property
    def _says_preprocessing(self) -> bool:
        return self.mean is not None or self.scale is not None or self.rgb

    def model_options(self, net: Path, options: NetOptions, notes: list[Diagnostic], *, fold: bool) -> ModelOptions:
        """The form of the model; reads the mean, or what the net's data layer says."""
        if self.keep_io and not self.half:
            raise click.UsageError("--keep-io without --fp16: inputs and outputs are float32 as it is")
        prepare = self.preprocess or self._says_preprocessing
        if not prepare and (self.input_layout or self.resize):
            raise click.UsageError(
                "--input-layout and --resize say how pictures come; --preprocess, --mean, --scale or --rgb was needed too"
            )
        model_options = ModelOptions(self.layout or "nchw", self.half, self.keep_io, fold=fold)
        return replace(model_options, preprocess=self._preprocess(net, options, notes)) if prepare else model_options

    def typical(self, net: Path, options: NetOptions) -> Preprocess | None:
        """What the net's pictures go through outside of the model, where the net says it: for probe inputs."""
        from caffeconv.conversion.own_preprocess import own_preprocess
        from caffeconv.frontend.open_files import read_net

        try:
            source = read_net(net, is_built=True)
            return own_preprocess(source, options)
        except CaffeconvError:
            return None

    def _preprocess(self, net: Path, options: NetOptions, notes: list[Diagnostic]) -> Preprocess:
        base = Preprocess(
            size=self.resize_size, rgb=self.rgb, pictures=self.pictures, layout=self.input_layout or "nhwc"
        )
        if self._says_preprocessing:
            from caffeconv.data.mean import Mean

            scale = 1.0 if self.scale is None else self.scale
            return replace(base, mean=Mean(self.mean).load() if self.mean is not None else None, scale=scale)
        from caffeconv.conversion.own_preprocess import own_preprocess
        from caffeconv.frontend.open_files import read_net

        source = read_net(net, is_built=True)
        return own_preprocess(source, options, base, notes)


def form_options(command: Callable[..., None]) -> Callable[..., None]:
    """--layout, --fp16, --preprocess, --verify and what belongs to them, handed to the command as one `forms`."""

    @functools.wraps(command)
    def wrapper(
        *args: object, layout: Layout | None, half: bool, keep_io: bool, preprocess: bool, mean: str | None,
        scale: float | None, resize: str | None, crop: str | None, rgb: bool, pictures: ChannelOrder,
        input_layout: Layout | None, verify: bool, verify_with: EngineName | None,
        verify_report: Path | None, **rest: object,
    ) -> None:  # fmt: skip
        forms = FormOptions(
            layout, half, keep_io, preprocess, mean, scale, resize, crop, rgb, pictures, input_layout, verify, verify_with,
            verify_report,
        )  # fmt: skip
        command(*args, forms=forms, **rest)

    layouts = click.Choice(["nchw", "nhwc"], case_sensitive=False)
    decorators = (
        click.option("--layout", type=layouts,
                     help="Axis order, nhwc: channels last; of a model's inputs and outputs of four axes and more, or of "
                     "weights alone.  [default: nchw for ONNX, nhwc for weights alone]"),
        click.option("--fp16", "half", is_flag=True,
                     help="Weights and computation in half precision, except for losses and statistics."),
        click.option("--keep-io", is_flag=True, help="With --fp16: leave inputs and outputs float32."),
        click.option("--preprocess", is_flag=True,
                     help="Take uint8 pictures, and do to them what the net's data layer (its transform_param) does."),
        click.option("--mean", metavar="B,G,R|FILE",
                     help="As --preprocess, with this mean: values in the net's order, or a .binaryproto or .npy."),
        click.option("--scale", type=float, help="As --preprocess, with this factor after the mean is subtracted."),
        click.option("--resize", metavar="SIZE",
                     help="Size of the pictures before the centre crop: 256 or 256x340 (height×width)."),
        click.option("--crop", metavar="SIZE", help="Give the net's input this size."),
        click.option("--rgb", is_flag=True, help="As --preprocess; the net wants red first. Caffe's nets want blue first."),
        click.option("--pictures", type=click.Choice(["rgb", "bgr"], case_sensitive=False), default="rgb", show_default=True,
                     help="How the pictures come: rgb as from PIL, bgr as from cv2."),
        click.option("--input-layout", type=layouts, help="Axis order of the pictures.  [default: nhwc]"),
        click.option("--verify", is_flag=True,
                     help="Compare every blob with another engine, and write nothing where one differs."),
        click.option("--verify-python", type=click.Path(exists=True, dir_okay=False), metavar="PATH", expose_value=False,
                     callback=_set_verify_python,
                     help="The Python that has Caffe or OpenCV, from 2.7 on; also $CAFFECONV_VERIFY_PYTHON.  [default: this]"),
        click.option("--verify-report", type=click.Path(path_type=Path), metavar="FILE.json|.html", callback=_checked_report,
                     help="As --verify, and write how far each blob is off, from what, with which versions."),
        click.option("--verify-with", type=click.Choice(["caffe", "opencv", "self"], case_sensitive=False),
                     help="As --verify, with this engine.  [default: the first of these that runs the net]"),
    )  # fmt: skip
    decorated: Callable[..., None] = wrapper
    for decorator in reversed(decorators):
        decorated = decorator(decorated)
    return decorated


def _set_verify_python(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        from caffeconv.verify.engines import PYTHON_VARIABLE

        os.environ[PYTHON_VARIABLE] = value


def _checked_report(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    if value is not None and value.suffix.lower() not in (".json", ".html"):
        raise click.UsageError(f"--verify-report {value}: a name that ends in .json or .html was needed")
    return value
