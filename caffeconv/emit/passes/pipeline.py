"""Which form a model takes besides what its net says: layout, precision, what it does to pictures; and what it says of it.

What is here needs no onnx, so that whoever runs a model can ask it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffeconv.emit.metadata import Folding, Layout, Preprocess
from caffeconv.errors import Diagnostic

if TYPE_CHECKING:
    from onnx import ModelProto


@dataclass(frozen=True)
class ModelOptions:
    """What is asked for; see `caffeconv.convert`."""

    layout: Layout = "nchw"
    half: bool = False
    keep_io: bool = False
    preprocess: Preprocess | None = None
    fold: bool = True
    """Whether the first layer's weights may take over what `preprocess` does."""

    @property
    def is_plain(self) -> bool:
        return self.layout == "nchw" and not self.half and self.preprocess is None


def run_onnx_passes(model: ModelProto, form: ModelOptions, notes: list[Diagnostic] | None = None) -> ModelProto:
    """The model in that form, checked by onnx.checker; the model itself where nothing is asked for.

    Raises CaffeconvError where it cannot take the form.
    """
    if form.is_plain:
        return model
    from caffeconv.emit.check import check_model
    from caffeconv.emit.lazy_model import LazyModel
    from caffeconv.emit.passes.channels_last import to_nhwc
    from caffeconv.emit.passes.float16 import to_half
    from caffeconv.emit.passes.preprocess import with_preprocess

    if form.preprocess is not None:
        # half weights would hold a folded scale and mean less well than float32 nodes in front of them
        folding: Folding = "none" if not form.fold else "order" if form.half else "all"
        model = with_preprocess(model, form.preprocess, folding=folding)
    if form.half:
        model = to_half(model, keep_io=form.keep_io, notes=notes)
    if form.layout == "nhwc":
        model = to_nhwc(model)
    return check_model(LazyModel(model, {})).model
