"""A graph at other input shapes: reshaping, and which axes vary with the batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from caffeconv.errors import CaffeconvError, Diagnostic, InvalidNetError, LayerError
from caffeconv.frontend.build import infer_tops
from caffeconv.ir.graph import Graph
from caffeconv.ir.layer import Node
from caffeconv.tensor.shape import Shape, format_shape


def reshape_graph(graph: Graph, input_shapes: Mapping[str, Sequence[int]], *, data_size: int | None = None) -> Graph:
    """The graph with inputs (blob → shape) of other shapes, and all that follows; parameters stay.

    `data_size`: see build. Raises InvalidNetError where shapes do not go together, or parameters would change theirs.
    """
    requested = {blob: tuple(shape) for blob, shape in input_shapes.items()}
    shapes: dict[str, Shape] = {}
    nodes = []
    for node in graph.nodes:
        try:
            nodes.append(_reshaped(node, tuple(shapes[value] for value in node.bottoms), requested, data_size))
        except LayerError as error:
            raise InvalidNetError([Diagnostic("error", node.definition.where, str(error), layer=node.name)]) from None
        shapes.update(zip(node.tops, nodes[-1].top_shapes, strict=True))
    return replace(graph, nodes=tuple(nodes), shapes=shapes)


def _reshaped(node: Node, bottoms: tuple[Shape, ...], requested: Mapping[str, Shape], data_size: int | None) -> Node:
    tops = infer_tops(node.definition, node.layer, bottoms, requested, data_size)
    for name, shape in node.layer.weight_shapes(bottoms).items():
        if node.has_param(name) and node.param(name).shape != tuple(shape):
            raise LayerError(
                f"its parameter {name} would be {format_shape(shape)} for these input shapes, "
                f"and no longer what the weights are, {format_shape(node.param(name).shape)}"
            )
    return replace(node, bottom_shapes=bottoms, top_shapes=tops)


def input_shapes(graph: Graph) -> dict[str, Shape]:
    """Blob → shape of every input."""
    return {
        blob: graph.shapes[value]
        for node in graph.nodes
        if node.layer.is_input
        for blob, value in zip(node.definition.tops, node.tops, strict=True)
    }


def checked_shapes(graph: Graph, requested: Mapping[str, Sequence[int]]) -> dict[str, Shape]:
    """The shapes that the caller asks for; CaffeconvError for what is no input of the graph."""
    shapes = input_shapes(graph)
    for blob in requested:
        if blob not in shapes:
            raise CaffeconvError(
                f"shape given for '{blob}', which is no input of the net; inputs: {', '.join(sorted(shapes))}"
            )
    return {blob: tuple(shape) for blob, shape in requested.items()}


def for_any_batch(graph: Graph) -> Graph:
    """The same graph, in which layers that name the batch size as a number mean the batch."""
    nodes = (replace(node, layer=node.layer.for_any_batch(node.bottom_shapes)) for node in graph.nodes)
    return replace(graph, nodes=tuple(nodes))


def with_batch(graph: Graph, batch: int) -> Graph:
    """The graph at a batch size: that of the first input, and of others as large as it."""
    if batch < 1:
        raise CaffeconvError(f"`batch={batch}`: at least 1 was needed")
    shapes = input_shapes(graph)
    main = next((shape[0] for shape in shapes.values() if shape), None)
    requested = {blob: (batch, *shape[1:]) for blob, shape in shapes.items() if shape and shape[0] == main}
    return reshape_graph(for_any_batch(graph), requested)


def grown(shapes: Mapping[str, Shape], pixels: int) -> dict[str, Shape]:
    """Inputs of N×C×spatial… that are larger by a number of pixels, another one on each axis; others as they are."""
    return {
        blob: (*shape[:2], *(size + pixels + i for i, size in enumerate(shape[2:]))) for blob, shape in shapes.items()
    }
