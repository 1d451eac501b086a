"""Some layers of a net as a net of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.graphs import Inputs, dense, graph_of, layer

from caffeconv.errors import InvalidNetError
from caffeconv.ir.graph import Graph
from caffeconv.passes.subgraph import external_inputs, extract_subgraph, last_writes

X: Inputs = {"x": (2, 3), "y": (2, 4)}


@pytest.fixture
def graph(tmp_path: Path) -> Graph:
    """x → a, which relu overwrites → b; b + y → sum."""
    relu = layer("relu", "ReLU", "a", top="a")
    return graph_of(tmp_path, X, dense("a", "x", 4) + relu + dense("b", "a", 4) + layer("sum", "Eltwise", "b y"))


def test_what_layers_read_from_outside(graph: Graph) -> None:
    assert external_inputs(graph.nodes) == {}
    assert external_inputs(graph.nodes[3:]) == {"a/a": "a", "y": "y"}
    assert external_inputs(graph.nodes[4:5]) == {"a": "a"}


def test_which_value_a_blob_holds_in_the_end(graph: Graph) -> None:
    assert last_writes(graph.nodes[:3]) == {"x": "x", "y": "y", "a": "a/a"}
    assert last_writes(graph.nodes) == {"x": "x", "y": "y", "a": "a", "b": "b", "sum": "sum"}


def test_a_top_that_the_prototxt_leaves_out_is_called_as_its_value(tmp_path: Path) -> None:
    loss = 'layer { name: "loss" type: "EuclideanLoss" bottom: "x" bottom: "z" }'
    nodes = graph_of(tmp_path, {"x": (2, 3), "z": (2, 3)}, loss).nodes
    assert last_writes(nodes[2:]) == {"loss": "loss"}


def test_the_layers_over_inputs_of_the_shapes_given(graph: Graph) -> None:
    part = extract_subgraph(graph, slice(3, 6), {"a/a": (5, 4), "y": (5, 4)})
    assert [(node.name, node.type) for node in part.nodes] == [
        ("a/a", "Input"), ("y", "Input"), ("relu", "ReLU"), ("b", "InnerProduct"), ("sum", "Eltwise"),
    ]  # fmt: skip
    assert (part.inputs, part.outputs) == (("a/a", "y"), ())
    assert part.shapes == {"a/a": (5, 4), "y": (5, 4), "a": (5, 4), "b": (5, 4), "sum": (5, 4)}
    assert part.nodes[3].params == graph.nodes[4].params


def test_an_input_layer_within_keeps_its_shape(graph: Graph) -> None:
    part = extract_subgraph(graph, slice(0, 3), {})
    assert (part.inputs, part.shapes) == (("x", "y"), {"x": (2, 3), "y": (2, 4), "a/a": (2, 4)})


def test_shapes_that_do_not_go_together(graph: Graph) -> None:
    with pytest.raises(InvalidNetError, match="sum"):
        extract_subgraph(graph, slice(3, 6), {"a/a": (5, 4), "y": (2, 4)})
    with pytest.raises(InvalidNetError, match="its parameter weight would be 4×7"):
        extract_subgraph(graph, slice(3, 6), {"a/a": (5, 7), "y": (5, 7)})
