"""Passes over an ONNX model: each gives the model in one more respect of the form that is wanted. In this order."""

from __future__ import annotations

from collections.abc import Callable

from onnx import ModelProto

from caffeconv.emit.check import check_model
from caffeconv.emit.lazy_model import LazyModel
from caffeconv.emit.metadata import Folding
from caffeconv.emit.model_options import ModelOptions
from caffeconv.emit.passes.channels_last import to_nhwc
from caffeconv.emit.passes.float16 import to_half
from caffeconv.emit.passes.preprocess import with_preprocess
from caffeconv.errors import Diagnostic

OnnxPass = Callable[[ModelProto, ModelOptions, list[Diagnostic]], ModelProto]


def prepare_images(model: ModelProto, options: ModelOptions, notes: list[Diagnostic]) -> ModelProto:
    """Given  data (float32) → conv   Result  data (uint8) → crop → Cast → Sub → Mul → conv , with `preprocess`."""
    if options.preprocess is None:
        return model
    # half weights would hold a folded scale and mean less well than float32 nodes in front of them
    folding: Folding = "none" if not options.fold else "order" if options.half else "all"
    return with_preprocess(model, options.preprocess, folding=folding)


def halve(model: ModelProto, options: ModelOptions, notes: list[Diagnostic]) -> ModelProto:
    """Given  data → conv → loss , float32   Result  data (float16) → conv (float16) → Cast → loss , with `half`."""
    return to_half(model, keep_io=options.keep_io, notes=notes) if options.half else model


def turn_channels_last(model: ModelProto, options: ModelOptions, notes: list[Diagnostic]) -> ModelProto:
    """Given  data N×C×H×W → conv   Result  data N×H×W×C → Transpose → conv , with the layout "nhwc"."""
    return to_nhwc(model) if options.layout == "nhwc" else model


ONNX_PASSES: tuple[OnnxPass, ...] = (prepare_images, halve, turn_channels_last)


def run_onnx_passes(model: ModelProto, options: ModelOptions, notes: list[Diagnostic] | None = None) -> ModelProto:
    """The model in that form, checked by onnx.checker; the model itself where the options are plain.

    Notes for the user go to `notes`. Raises CaffeconvError where it cannot take the form.
    """
    if options.is_plain:
        return model
    diagnostics: list[Diagnostic] = [] if notes is None else notes
    for apply in ONNX_PASSES:
        model = apply(model, options, diagnostics)
    return check_model(LazyModel(model, {})).model
