"""Names, constants, states and loops of the nodes that layers write."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from onnx import FunctionProto, helper

from caffeconv.ir.onnx_builder import NeedsFixedBatchError, OnnxBuilder, same
from caffeconv.tensor.param import Param
from caffeconv.tensor.param_values import ArrayValues

DIMS = {"x": (None, 3), "y": (2, 3), "z": (None, None)}
WEIGHT = Param("weight", (2, 3), ArrayValues(np.arange(6, dtype=np.float32)))


def builder(opset: int = 17, *, stateful: bool = False, unroll: bool = False) -> OnnxBuilder:
    """One inside layer `l`."""
    onnx = OnnxBuilder(opset, DIMS, stateful=stateful, unroll=unroll)
    onnx.enter("l", ["y"], [WEIGHT])
    return onnx


def test_names_lie_in_the_layer_s_scope() -> None:
    onnx = builder()
    assert [onnx.op("Relu", ["x"]), onnx.op("Relu", ["x"]), onnx.op("Add", ["x", "x"], what="sum")] == [
        "l/relu", "l/relu_2", "l/sum",
    ]  # fmt: skip
    onnx.emit("Relu", ["l/sum"], ["y"])
    onnx.enter("l", ["other"], [])
    onnx.emit("Relu", ["y"], ["other"])
    assert [node.name for node in onnx.nodes] == ["l/relu", "l/relu_2", "l/sum", "l", "l_2"]
    assert set(onnx.makers.values()) == {"l"}
    onnx.resume("l", ["y"], [WEIGHT])
    assert onnx.ops("Split", ["x"], 2) == ("l/split", "l/split_1")


def test_equal_constants_are_one_and_others_get_another_name() -> None:
    onnx = builder()
    assert [onnx.ints("axes", [1]), onnx.ints("axes", [1]), onnx.ints("axes", [2])] == ["l/axes", "l/axes", "l/axes_2"]
    assert onnx.floats("axes", [1]) == "l/axes_3"
    assert [onnx.initializers[name].dtype for name in ("l/axes", "l/axes_3", onnx.bools("b", [True]))] == [  # type: ignore[union-attr]
        np.int64, np.float32, np.bool_,
    ]  # fmt: skip
    assert (same(np.zeros(1), -np.zeros(1)), same(np.array([np.nan]), np.array([np.nan]))) == (False, True)


def test_shapes() -> None:
    onnx = builder()
    assert (onnx.shape("y"), onnx.shape("x")) == ("l/shape", "l/shape_2")
    np.testing.assert_array_equal(np.asarray(onnx.initializers["l/shape"]), [2, 3])
    assert onnx.fixed(onnx.dims("y"), "") == (2, 3)
    with pytest.raises(NeedsFixedBatchError, match=r"^l: the number of boxes is fixed$"):
        onnx.fixed(onnx.dims("x"), "the number of boxes is fixed")


@pytest.mark.parametrize(("opset", "allows"), [(13, []), (14, ["allowzero"])])
def test_reshape(opset: int, allows: list[str]) -> None:
    onnx = builder(opset)
    assert onnx.reshape("x", (None, 3)) == "l/reshape"
    np.testing.assert_array_equal(np.asarray(onnx.initializers["l/reshape_shape"]), [-1, 3])
    onnx.reshape("x", (0, 3), to="y")
    assert (onnx.nodes[-1].name, [attribute.name for attribute in onnx.nodes[-1].attribute]) == ("l", allows)
    with pytest.raises(NeedsFixedBatchError, match="l: a shape with more than one axis that varies with the batch"):
        onnx.reshape("z", (None, None))
    with pytest.raises(
        NeedsFixedBatchError, match="l: a blob without values, whose batch cannot be told from its size"
    ):
        onnx.reshape("x", (None, 0))


@pytest.mark.parametrize(
    ("kind", "opset", "inputs"), [("ReduceSum", 13, 2), ("ReduceMean", 17, 1), ("ReduceMean", 18, 2)]
)
def test_axes_are_where_the_opset_wants_them(kind: str, opset: int, inputs: int) -> None:
    onnx = builder(opset)
    onnx.reduce(kind, "x", [1], keepdims=False)
    node = onnx.nodes[-1]
    assert (len(node.input), [attribute.name for attribute in node.attribute]) == (
        inputs, ["keepdims"] if inputs == 2 else ["axes", "keepdims"],
    )  # fmt: skip
    onnx.reduce(kind, "x", None, keepdims=True)
    assert len(onnx.nodes[-1].input) == 1


def test_parameters_and_shared_ones() -> None:
    onnx = builder()
    assert onnx.weight("weight") == "l/weight"
    onnx.enter(
        "m",
        ["z"],
        [
            Param("weight", (2, 3), WEIGHT.values, ("l", "weight")),
            Param("turned", (3, 2), WEIGHT.values, ("l", "weight")),
        ],
    )
    assert onnx.weight("weight") == "l/weight"
    assert onnx.weight("turned") == "m/turned"
    assert (onnx.nodes[-1].op_type, list(onnx.nodes[-1].input)) == ("Reshape", ["l/weight", "m/turned_shape"])
    assert onnx.values("turned").tolist() == [[0, 1], [2, 3], [4, 5]]


def test_states_start_from_zeros_unless_they_are_kept() -> None:
    onnx = builder()
    state = onnx.state("h", (1, 2))
    onnx.keep_state(state, "new")
    assert (np.asarray(onnx.initializers[state]).tolist(), onnx.states, onnx.nodes) == ([[0, 0]], {}, [])
    onnx = builder(stateful=True)
    onnx.keep_state(onnx.state("h", (1, 2)), "new")
    assert onnx.states == {"l/h_in": ("l/h_out", (1, 2))}
    assert (list(onnx.nodes[0].input), list(onnx.nodes[0].output)) == (["new"], ["l/h_out"])


@pytest.mark.parametrize(("unroll", "steps", "operators"), [
    (False, 2, ["Scan"]), (True, None, ["Scan"]),
    (True, 2, ["Split", "Squeeze", "Add", "Unsqueeze", "Squeeze", "Add", "Unsqueeze", "Concat"]),
])  # fmt: skip
def test_loops(unroll: bool, steps: int | None, operators: list[str]) -> None:
    onnx = builder(unroll=unroll)

    def step(states: Sequence[str], items: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
        total = onnx.op("Add", [states[0], items[0]])
        return [total], [total]

    states, outputs = onnx.scan(step, ["start"], ["items"], steps=steps)
    assert [node.op_type for node in onnx.nodes] == operators
    assert (len(states), len(outputs)) == (1, 1)


def test_functions_have_one_body_each() -> None:
    onnx = builder()
    body = FunctionProto(
        name="F", domain="caffeconv", input=["a"], output=["b"], node=[helper.make_node("Relu", ["a"], ["b"])]
    )
    assert [onnx.overload_for("F", "one"), onnx.overload_for("F", "two"), onnx.overload_for("F", "one")] == [
        "",
        "two",
        "",
    ]
    assert onnx.function_value(body, ["x"], what="f") == "l/f"
    onnx.function_op(body, ["x"], ["y"])
    assert (len(onnx.functions), onnx.nodes[-1].domain, onnx.nodes[-1].name) == (1, "caffeconv", "l")
    other = FunctionProto()
    other.CopyFrom(body)
    other.node[0].op_type = "Abs"
    with pytest.raises(RuntimeError, match="two bodies for "):
        onnx.function_op(other, ["x"], ["y"])
