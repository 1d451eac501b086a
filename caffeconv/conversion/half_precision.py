"""A model for half precision, in memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto

    from caffeconv.emit.lazy_model import LazyModel


def to_half_precision(model: LazyModel | Path) -> ModelProto:
    """The model, or that of an ONNX file, with weights and computation in float16; inputs and outputs stay as they are.

    Raises CaffeconvError for a model that does not say what has to stay float32, or that one message cannot hold.
    """
    import onnx

    from caffeconv.emit.passes.float16 import to_half

    return to_half(onnx.load(model) if isinstance(model, Path) else model.materialize(), keep_io=True)
