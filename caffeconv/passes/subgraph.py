"""Some of a net's layers in a row as a graph of their own, which takes what lies before them as inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from caffeconv.caffe_pb2 import LayerParameter
from caffeconv.files.net_folders import NetFolders
from caffeconv.frontend.reshape import reshape_graph
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.graph import Graph
from caffeconv.ir.layer import Node
from caffeconv.layers.input import Input
from caffeconv.tensor.shape import Shape


def external_inputs(nodes: Sequence[Node]) -> dict[str, str]:
    """Value → blob of everything that the layers read and none of them makes."""
    own_values: set[str] = set()
    inputs: dict[str, str] = {}
    for node in nodes:
        inputs |= {
            v: blob for blob, v in zip(node.definition.bottoms, node.bottoms, strict=True) if v not in own_values
        }
        own_values.update(node.tops)
    return inputs


def last_writes(nodes: Sequence[Node]) -> dict[str, str]:
    """Blob → the value that it holds when the layers have run; a top that the prototxt leaves out is called as its value."""
    return {
        blob: value
        for node in nodes
        for blob, value in zip((*node.definition.tops, *node.tops[len(node.definition.tops) :]), node.tops, strict=True)
    }


def values_behind(nodes: Sequence[Node], values: Iterable[str]) -> set[str]:
    """Every value that some values depend on, these included."""
    behind = set(values)
    for node in reversed(nodes):
        if behind.intersection(node.tops):
            behind.update(node.bottoms)
    return behind


def extract_subgraph(graph: Graph, span: slice, shapes: Mapping[str, Shape]) -> Graph:
    """The layers `span` of a graph, with an input for each value of `external_inputs`, of the shape given for it.

    An input layer within keeps the shape that it has. Raises InvalidNetError where shapes do not go together.
    """
    nodes = graph.nodes[span]
    input_nodes = [_input(value, shapes[value], graph) for value in external_inputs(nodes)]
    own_shapes = {
        blob: graph.shapes[value]
        for node in nodes
        if node.layer.is_input
        for blob, value in zip(node.definition.tops, node.tops, strict=True)
    }
    inputs = (
        *(node.name for node in input_nodes),
        *(top for node in nodes if node.layer.is_input for top in node.tops),
    )
    subgraph = replace(graph, nodes=(*input_nodes, *nodes), inputs=inputs, outputs=(), dims={}, symbols={})
    return reshape_graph(subgraph, {**own_shapes, **{node.name: node.top_shapes[0] for node in input_nodes}})


def _input(value: str, shape: Shape, graph: Graph) -> Node:
    definition = LayerDef(
        value, "Input", (), (value,), (), (value,), LayerParameter(name=value, type="Input", top=[value]),
        graph.net.phase, NetFolders(graph.net.directory),
    )  # fmt: skip
    return Node(definition, Input((shape,)), (), (value,), (), (shape,))
