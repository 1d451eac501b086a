"""A net over places: products become convolutions, so that a larger picture gives a map of predictions."""

from __future__ import annotations

from dataclasses import replace

from caffeconv.errors import Diagnostic, InvalidNetError, LayerError
from caffeconv.frontend.build import infer_tops
from caffeconv.ir.graph import Graph
from caffeconv.ir.layer import Node
from caffeconv.tensor.shape import Shape, count, format_shape


def fully_convolutional(graph: Graph) -> Graph:
    """The graph with a Convolution for every InnerProduct, whose window is all of the bottom at the graph's own size.

    Given   pool5 N×C×H×W → flatten N×CHW → fc6 N×K → fc7 N×L → prob N×L
    Result  pool5 N×C×H×W → fc6 N×K×1×1 (kernel H×W) → fc7 N×L×1×1 (kernel 1×1) → prob N×L×1×1

    At this size all numbers stay; at a larger one (reshape_graph) each place has those of a window of this size that
    slides over the picture. Parameters keep their values and get the shapes of filters. Raises InvalidNetError with
    every layer that has no such form, and why.
    """
    spatial_values = _spatial_values(graph)
    shapes: dict[str, Shape] = {}
    nodes: list[Node] = []
    problems: list[Diagnostic] = []
    for node in graph.nodes:
        bottoms = tuple(shapes[value] for value in node.bottoms)
        new_node = node
        if bottoms != node.bottom_shapes or node.layer.is_fully_connected or _flattens_for(node, spatial_values):
            try:
                new_node = _as_convolution(node, bottoms)
            except LayerError as error:
                message = f"cannot be part of a fully convolutional net: {error}"
                problems.append(Diagnostic("error", node.definition.where, message, layer=node.name))
        nodes.append(new_node)
        shapes.update(zip(new_node.tops, new_node.top_shapes, strict=True))
    if problems:
        raise InvalidNetError(problems)
    definitions = {node.name: node.definition for node, old in zip(nodes, graph.nodes, strict=True) if node is not old}
    layers = tuple(definitions.get(layer.name, layer) for layer in graph.net.layers)
    return replace(graph, net=replace(graph.net, layers=layers), nodes=tuple(nodes), shapes=shapes)


def _spatial_values(graph: Graph) -> set[str]:
    """The values that lead to a layer that spans all places, and so are wanted with their places apart."""
    spatial_values: set[str] = set()
    for node in reversed(graph.nodes):
        passes_on = node.layer.only_flattens(node) or node.layer.is_spatially_uniform(node)
        if node.layer.is_fully_connected or (passes_on and spatial_values.intersection(node.tops)):
            spatial_values.update(node.bottoms)
    return spatial_values


def _flattens_for(node: Node, spatial_values: set[str]) -> bool:
    return node.layer.only_flattens(node) and bool(spatial_values.intersection(node.tops))


def _as_convolution(node: Node, bottoms: tuple[Shape, ...]) -> Node:
    convolution = node.layer.as_convolution(node, bottoms)
    tops = infer_tops(convolution.definition, convolution.layer, bottoms, {}, None)
    for blob, old, new in zip(node.definition.tops, node.top_shapes, tops, strict=False):
        if count(old) != count(new):
            raise LayerError(f"top '{blob}' would be {format_shape(new)} in place of {format_shape(old)}")
    return replace(convolution, bottom_shapes=bottoms, top_shapes=tops)
