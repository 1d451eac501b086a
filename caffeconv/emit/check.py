"""Checks a model before anybody gets it."""

from __future__ import annotations

from onnx import ModelProto, checker


def check_model(model: ModelProto) -> ModelProto:
    """The model itself; raises RuntimeError, which is a bug of ours, where onnx.checker (full) refuses it."""
    try:
        checker.check_model(model, full_check=True)
    except (checker.ValidationError, RuntimeError) as error:
        raise RuntimeError(f"the model written is not valid ONNX: {error}") from error
    return model
