"""Models whose parameters have no values yet."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from caffeconv.emit.lazy_model import MOST_BYTES, LazyModel, packed, without
from caffeconv.errors import CaffeconvError
from caffeconv.tensor.param import Param
from caffeconv.tensor.param_values import ArrayValues, DerivedValues
from caffeconv.tensor.shape import FloatArray

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)


def refuse() -> FloatArray:
    raise AssertionError("the values are not to be read")


def lazy(
    dims: tuple[int, ...] = (2, 3), kind: int = TensorProto.FLOAT, values: FloatArray | None = WEIGHT
) -> LazyModel:
    """x · weight + bias, where only the bias has its values; None for a weight that must not be read."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["m"]), helper.make_node("Add", ["m", "bias"], ["y"])], "net",
        [helper.make_tensor_value_info("x", kind, [1, dims[0]])], [helper.make_tensor_value_info("y", kind, [1, dims[1]])],
        [TensorProto(name="weight", data_type=kind, dims=dims),
         numpy_helper.from_array(np.zeros(dims[1], helper.tensor_dtype_to_np_dtype(kind)), "bias")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    param = Param("weight", dims, DerivedValues(refuse) if values is None else ArrayValues(values))
    return LazyModel(model, {"weight": param})


def weight_of(model: ModelProto) -> TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == "weight")


def test_values_are_fetched_when_the_model_is_wanted() -> None:
    model = lazy()
    whole = model.materialize()
    np.testing.assert_array_equal(numpy_helper.to_array(weight_of(whole)), WEIGHT)
    assert not weight_of(model.model).HasField("raw_data")
    assert whole.ByteSize() - 8 <= model.bytes <= whole.ByteSize()


def test_values_are_cast_to_the_initializer_s_type() -> None:
    weight = numpy_helper.to_array(weight_of(lazy(kind=TensorProto.FLOAT16).materialize()))
    assert weight.dtype == np.float16
    np.testing.assert_array_equal(weight, WEIGHT)


def test_a_model_with_all_values_is_itself() -> None:
    model = lazy().materialize()
    assert LazyModel(model, {}).materialize() is model
    assert LazyModel(model, {}).bytes == model.ByteSize()


def test_what_one_file_cannot_hold_is_refused_before_it_is_read() -> None:
    dims = 1 << 15, 1 << 14
    assert lazy(dims, values=None).bytes >= MOST_BYTES
    message = "the model takes 2.1 GB; one ONNX file holds at most 2.1 GB. Write it with its weights beside it: "
    with pytest.raises(CaffeconvError, match="^" + re.escape(message)):
        lazy(dims, values=None).materialize()


def test_a_checker_sees_parameters_as_inputs() -> None:
    model = lazy(values=None)
    checked = model.to_check()
    onnx.checker.check_model(checked, full_check=True)
    assert [value.name for value in checked.graph.input] == ["x", "weight"]
    assert [tensor.name for tensor in checked.graph.initializer] == ["bias"]
    assert checked.opset_import == model.model.opset_import
    assert [tensor.name for tensor in model.model.graph.initializer] == ["weight", "bias"]


def test_a_copy_that_lacks_fields() -> None:
    model = lazy().model
    copy = without(model, {"graph", "producer_name"})
    assert not copy.HasField("graph")
    assert without(model, set()) == model
    copy.graph.CopyFrom(model.graph)
    assert copy == model


def test_bytes_are_little_endian_and_in_c_order() -> None:
    assert packed(WEIGHT.T) == np.ascontiguousarray(WEIGHT.T).tobytes()
    assert packed(WEIGHT.astype(">f4")) == WEIGHT.tobytes()
    assert packed(WEIGHT, np.dtype(">f2")) == WEIGHT.astype("<f2").tobytes()
