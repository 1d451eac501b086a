"""Sessions of models that were just converted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from support.net_objects import ON_THE_CPU, net_objects

from caffeconv.conversion.to_onnx import to_onnx
from caffeconv.emit.lazy_model import LazyModel
from caffeconv.errors import CaffeconvError
from caffeconv.net.open_session import finish_model, open_session
from caffeconv.runtime import install
from caffeconv.runtime.providers import CPU, CUDA
from caffeconv.runtime.session import SharedModel

X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def model(tmp_path: Path) -> LazyModel:
    loaded = net_objects(tmp_path).loaded
    return to_onnx(loaded, ("double",))


def test_a_model_and_its_file_compute_the_same(model: LazyModel, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(model.materialize(), path)
    assert isinstance(finish_model(model, ON_THE_CPU), SharedModel)
    assert finish_model(path, ON_THE_CPU) is path
    outputs, expected = (open_session(source, ON_THE_CPU).run({"x": X})["double"] for source in (model, path))
    np.testing.assert_array_equal(outputs, expected)


def test_half_precision_is_for_cuda(model: LazyModel) -> None:
    with pytest.raises(CaffeconvError, match="on the CPU onnxruntime turns half precision into float32 and back"):
        open_session(model, replace(ON_THE_CPU, half=True))


def test_a_model_in_half_precision(model: LazyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(install, "missing_gpu", lambda index: "")
    half = finish_model(model, replace(ON_THE_CPU, provider="cuda", half=True))
    assert isinstance(half, onnx.ModelProto)
    assert onnx.TensorProto.FLOAT16 in {tensor.data_type for tensor in half.graph.initializer}
