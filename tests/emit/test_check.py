"""Models that onnx.checker refuses are a bug of ours."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from onnx import ModelProto, TensorProto, helper

from caffeconv.emit.check import check_model
from caffeconv.emit.lazy_model import LazyModel


def relu() -> ModelProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "net", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def test_a_model_that_is_right() -> None:
    model = LazyModel(relu(), {})
    assert check_model(model) is model


def unknown_value(model: ModelProto) -> None:
    model.graph.node[0].input[0] = "z"


def unknown_type(model: ModelProto) -> None:
    model.graph.node[0].op_type = "Rely"


def wrong_shape(model: ModelProto) -> None:  # which only the full check sees
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 4


@pytest.mark.parametrize("break_it", [unknown_value, unknown_type, wrong_shape])
def test_models_that_are_wrong(break_it: Callable[[ModelProto], None]) -> None:
    model = relu()
    break_it(model)
    with pytest.raises(RuntimeError, match=r"^the model written is not valid ONNX: "):
        check_model(LazyModel(model, {}))
