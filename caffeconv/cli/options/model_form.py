"""The options of `convert` that say which form the model takes, and how it is checked."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from caffeconv.cli.options.net import note, parse_size
from caffeconv.cli.show.console import echo
from caffeconv.data.mean import Mean
from caffeconv.emit.metadata import ChannelOrder, Layout, Preprocess
from caffeconv.emit.model_options import ModelOptions
from caffeconv.errors import CaffeconvError, Diagnostic
from caffeconv.frontend.options import NetOptions

if TYPE_CHECKING:
    from caffeconv.verify import BlobCheck, Verification
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

    @property
    def crop_size(self) -> tuple[int, int] | None:
        return parse_size(self.crop, "--crop") if self.crop else None

    @property
    def wants_verification(self) -> bool:
        return self.verify or self.verify_with is not None

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
            source = read_net(net, ignore_unknown_fields=options.ignore_unknown_fields, is_built=True)
            return own_preprocess(source, options)
        except CaffeconvError:
            return None

    def _preprocess(self, net: Path, options: NetOptions, notes: list[Diagnostic]) -> Preprocess:
        resize = parse_size(self.resize, "--resize") if self.resize else None
        base = Preprocess(size=resize, rgb=self.rgb, pictures=self.pictures, layout=self.input_layout or "nhwc")
        if self._says_preprocessing:
            scale = 1.0 if self.scale is None else self.scale
            return replace(base, mean=Mean(self.mean).load() if self.mean is not None else None, scale=scale)
        from caffeconv.conversion.own_preprocess import own_preprocess
        from caffeconv.frontend.open_files import read_net

        source = read_net(net, ignore_unknown_fields=options.ignore_unknown_fields, is_built=True)
        return own_preprocess(source, options, base, notes)


def form_options(command: Callable[..., None]) -> Callable[..., None]:
    """--layout, --fp16, --preprocess, --verify and what belongs to them, handed to the command as one `forms`."""

    @functools.wraps(command)
    def wrapper(
        *args: object, layout: Layout | None, half: bool, keep_io: bool, preprocess: bool, mean: str | None,
        scale: float | None, resize: str | None, crop: str | None, rgb: bool, pictures: ChannelOrder,
        input_layout: Layout | None, verify: bool, verify_with: EngineName | None, **rest: object,
    ) -> None:  # fmt: skip
        forms = FormOptions(
            layout, half, keep_io, preprocess, mean, scale, resize, crop, rgb, pictures, input_layout, verify, verify_with
        )  # fmt: skip
        command(*args, forms=forms, **rest)

    layouts = click.Choice(["nchw", "nhwc"], case_sensitive=False)
    decorators = (
        click.option("--layout", type=layouts,
                     help="Axis order, nhwc: channels last; of a model's inputs and outputs of four axes and more, or of "
                     "weights alone.  [default: nchw for ONNX, nhwc for weights alone]"),
        click.option("--fp16", "half", is_flag=True,
                     help="Weights and computing in half precision, but for losses and statistics."),
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


def show_verification(verification: Verification, *, quiet: bool) -> None:
    """A table of all blobs on stdout, and on stderr with whom they were compared."""
    for title, why in verification.unfit:
        note(f"not compared with {title}: {why}", quiet=quiet)
    note(f"compared with {verification.engine.title}: {verification.engine.independence}", quiet=quiet)
    if not quiet:
        _print_blobs(verification.blobs)
        absent = (
            f"; {verification.absent} blobs are not in the model (folded into others, or cut)"
            if verification.absent
            else ""
        )
        differing = sum(blob.verdict == "differs" for blob in verification.blobs)
        verdict = f"{differing} differ" if differing else "all agree"
        steep = any(blob.verdict == "ok: steep" for blob in verification.blobs)
        absent += "; steep: inputs changed by a rounding move it as far" if steep else ""
        echo(f"{len(verification.blobs)} blobs compared, {verdict}; tolerated: {verification.tolerance}{absent}")


def not_right(verification: Verification, out: Path) -> str:
    """The message of a verification that failed."""
    from caffeconv.verify.check import HALF

    first = verification.first_wrong
    if first is None:
        return f"{out}: no output could be compared, so nothing is known of the model, and nothing is written"
    half = verification.tolerance == HALF
    advice = "Half precision is too little for this net; leave --fp16 out" if half else verification.engine.advice
    return (
        f"{first.layer}: blob '{first.blob}', the first that differs, is off by {first.deviation:.3g}, where the greatest "
        f"value is {first.magnitude:.3g}; {verification.tolerance} is tolerated. {out} is not written. {advice}".rstrip()
    )


def report_half(deviations: Callable[[], Iterable[BlobCheck]]) -> None:
    """A line for each output, on stdout: how far half precision takes it from float32, on a probe input."""
    try:
        checks = deviations()
    except CaffeconvError as error:
        note(f"how far half precision is from float32 is not known: {error}")
        return
    for check in checks:
        echo(f"{check.blob}: at most {check.deviation:.3g} from float32, whose greatest value is {check.magnitude:.3g}")
        if math.isinf(check.deviation):
            note(
                f"{check.blob} leaves the range of half precision on a probe input; leave --fp16 out, or cut the net before"
            )


def _print_blobs(checks: Sequence[BlobCheck]) -> None:
    from rich.table import Table

    from caffeconv.cli.show.console import cell, make_console
    from caffeconv.tensor.shape import format_shape

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("blob", "layer", "shape", "deviation", "of", "relative", ""):
        table.add_column(heading, justify="right" if heading in ("deviation", "of", "relative") else "left")
    for check in checks:
        numbers = (f"{check.deviation:.2e}", f"{check.magnitude:.3g}", f"{check.relative:.1e}")
        table.add_row(cell(check.blob), cell(check.layer), format_shape(check.shape), *numbers, check.verdict)
    make_console().print(table)
