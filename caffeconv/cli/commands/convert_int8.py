"""caffeconv convert … --int8: the model in eight-bit integers, and what that changes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from caffeconv.cli.options.int8 import Int8Options
from caffeconv.cli.options.model_form import FormOptions
from caffeconv.cli.options.net import note
from caffeconv.cli.show.console import echo
from caffeconv.data.mean import Mean
from caffeconv.emit.metadata import Preprocess
from caffeconv.errors import CaffeconvError
from caffeconv.frontend.options import NetOptions
from caffeconv.inference.request import ImageOptions, NetFiles, RunRequest
from caffeconv.runtime.providers import ComputeOptions

if TYPE_CHECKING:
    from caffeconv.emit.lazy_model import LazyModel
    from caffeconv.quantization import OutputChange, Quantized

COMPUTE = ComputeOptions("cpu", None, nhwc=False, half=False)


def quantized_model(
    model: LazyModel, files: NetFiles, options: NetOptions, forms: FormOptions, int8: Int8Options, *, quiet: bool
) -> LazyModel:
    """The model in eight bits, in the net's own form; prints what that changes.

    files, options: the net that the model was made of. Raises CaffeconvError where the options, the net or the data do not
    go with it.
    """
    from caffeconv.emit.lazy_model import LazyModel
    from caffeconv.inference.calibration_items import read_calibration_items
    from caffeconv.net.open_session import open_session
    from caffeconv.quantization import quantize

    _refuse_other_forms(forms)
    images = _image_options(files, options, forms)
    request = RunRequest(files=files, inputs=int8.sources, images=images, net=options, compute=COMPUTE)
    items = read_calibration_items(open_session(model, COMPUTE), request, int8.items, partial(note, quiet=quiet))
    quantized = quantize(
        model.materialize(), items.batches, labels=items.labels, most_deviation=int8.deviation,
        reduce_range=int8.reduce_range,
    )  # fmt: skip
    if not quiet:
        for line in _lines(quantized, items.source):
            echo(line)
    return LazyModel(quantized.model, {})


def _refuse_other_forms(forms: FormOptions) -> None:
    if forms.half:
        raise CaffeconvError("--int8 with --fp16: a model computes in one of them; leave one out")
    if forms.wants_verification:
        raise CaffeconvError(
            "--int8 with --verify: eight bits are never as exact as --verify wants them; verify the model without --int8, "
            "then look at what --int8 says that it changes"
        )


def _image_options(files: NetFiles, options: NetOptions, forms: FormOptions) -> ImageOptions:
    """How pictures are prepared: as the options say, else as the net's data layer does."""
    own = forms.typical(files.net, options) or Preprocess()
    mean = Mean(forms.mean) if forms.mean else None if own.mean is None else Mean("the data layer's", own.mean)
    scale = own.scale if forms.scale is None else forms.scale
    return ImageOptions(mean=mean, scale=scale, resize=forms.resize_size or own.size, rgb=forms.rgb)


def _lines(quantized: Quantized, source: str) -> Iterator[str]:
    layers, kept = len(quantized.layers), quantized.float_layers
    yield (
        f"int8: {layers} of {layers + len(kept)} layers, ranges of {quantized.items} items of {source}; "
        f"{quantized.deviation:.2%} off at the last of them"
    )
    if kept:
        named = [f"{name} ({harm:.1%} off by itself)" for name, harm in list(kept.items())[:5]]
        more = f" and {len(kept) - 5} more" if len(kept) > 5 else ""
        yield f"  float32: {', '.join(named)}{more}"
    yield from (f"  {_change(output)}" for output in quantized.outputs)


def _change(output: OutputChange) -> str:
    parts = [f"{output.blob}: {output.deviation:.2%} off"]
    if output.same_class is not None:
        parts.append(f"the same class for {output.same_class:.1%} of the items")
    if output.accuracy is not None:
        parts.append(f"accuracy {output.accuracy[0]:.4f} → {output.accuracy[1]:.4f}")
    return ", ".join(parts)
