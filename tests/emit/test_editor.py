"""Models taken apart and put together again."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from caffeconv.emit.passes.editor import ModelEdit, dims_of, every_node, reads, rename_in, set_dims

BODY = helper.make_graph(
    [
        helper.make_node("Add", ["state", "outside"], ["sum"], "add"),
        helper.make_node("Identity", ["sum"], ["next"], "next"),
    ],
    "body",
    [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("state", "item")],
    [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("next", "sum")],
)


def scan() -> NodeProto:
    """A Scan over `items` from `start`, whose body reads `outside`."""
    return helper.make_node("Scan", ["start", "items"], ["last", "sums"], "scan", body=BODY, num_scan_inputs=1)


def chain() -> ModelProto:
    """x → relu → r → add (with `one`) → y, and an initializer that nothing reads."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["r"], "relu"), helper.make_node("Add", ["r", "one"], ["y"], "add")], "net",
        values[:1], values[1:], [numpy_helper.from_array(np.ones(3, np.float32), name) for name in ("one", "unread")],
    )  # fmt: skip
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="test", producer_version="1"
    )
    model.metadata_props.add(key="b", value="2")
    return model


def test_together_again_it_is_the_same_without_what_nothing_reads() -> None:
    model = chain()
    edited = ModelEdit(model).model()
    assert [tensor.name for tensor in edited.graph.initializer] == ["one"]
    del model.graph.initializer[1]
    assert edited == model


def test_the_model_that_it_came_from_stays() -> None:
    model = chain()
    before = model.SerializeToString()
    edit = ModelEdit(model)
    edit.rename({"r": "q"})
    edit.replace_constant("one", np.zeros(3, np.float32))
    set_dims(edit.inputs[0], ("n", 3))
    edit.metadata["a"] = "1"
    assert model.SerializeToString() == before
    assert [(entry.key, entry.value) for entry in edit.model().metadata_props] == [("a", "1"), ("b", "2")]


def test_names_are_free() -> None:
    edit = ModelEdit(chain())
    assert [edit.fresh("r"), edit.fresh("r"), edit.fresh("one"), edit.fresh("new")] == ["r_2", "r_3", "one_2", "new"]
    assert edit.constant("one", np.arange(2)) == "one_3"
    np.testing.assert_array_equal(edit.array("one_3"), [0, 1])
    node = edit.node("Concat", ["x", "r"], "z", "relu", axis=1, other=[2, 3])
    assert (node.name, [attribute.name for attribute in node.attribute]) == ("relu_2", ["axis", "other"])


def test_a_rewriting() -> None:
    edit = ModelEdit(chain())
    half = edit.constant("half", np.full(3, 0.5, np.float32))
    edit.nodes.insert(1, edit.node("Mul", ["r", half], edit.fresh("r"), "mul"))
    edit.nodes[2].input[0] = "r_2"
    model = edit.model()
    onnx.checker.check_model(model, full_check=True)
    assert [node.name for node in edit.readers("r")] == ["mul"]
    assert [tensor.name for tensor in model.graph.initializer] == ["one", "half"]


def test_bodies_read_from_outside_of_them() -> None:
    assert reads(scan()) == {"start", "items", "outside"}
    assert [node.name for node in every_node(scan())] == ["scan", "add", "next"]


def test_renaming_reaches_bodies() -> None:
    node = scan()
    rename_in(node, {"outside": "weights", "start": "zeros"})
    assert reads(node) == {"zeros", "items", "weights"}


def test_open_sizes_have_names() -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["batch", None, 3])
    assert dims_of(value) == ("batch", "x_1", 3)
    set_dims(value, (1, "h"))
    assert (dims_of(value), value.type.tensor_type.elem_type) == ((1, "h"), TensorProto.FLOAT16)


@pytest.mark.parametrize("name", ["Loop", "If"])
def test_every_attribute_that_is_a_graph_is_a_body(name: str) -> None:
    other = GraphProto(node=[helper.make_node("Identity", ["deep"], ["z"])])
    node = helper.make_node(name, ["a", ""], ["b"], then_branch=BODY, else_branch=other)
    assert reads(node) == {"a", "outside", "deep"}
