"""Checks a model that was built."""

from __future__ import annotations

from onnx import checker, shape_inference

from caffeconv.emit.lazy_model import LazyModel


def check_model(model: LazyModel) -> LazyModel:
    """The model itself; raises RuntimeError, which is a bug of ours, where onnx.checker (full) refuses it."""
    try:
        checker.check_model(model.to_check(), full_check=True)
    except (checker.ValidationError, shape_inference.InferenceError, RuntimeError) as error:
        raise RuntimeError(f"the model written is not valid ONNX: {error}") from error
    return model
