"""A net whose values are all inputs, for a backward pass over what its blobs hold (caffe: a Blob outlives every pass)."""

from __future__ import annotations

from dataclasses import replace

from caffeconv.ir.graph import Graph


def held_value(value: str) -> str:
    """The input that holds a value."""
    return f"held/{value}"


def graph_of_held_values(graph: Graph) -> Graph:
    """Given  conv1 → relu1   Result  held/conv1 → relu1 , and conv1 for itself.

    Every layer reads inputs, and what it makes is read by none; its own gradient may need what it makes on the way.
    """
    nodes = tuple(replace(node, bottoms=tuple(map(held_value, node.bottoms))) for node in graph.nodes)
    return replace(
        graph, nodes=nodes, inputs=tuple(map(held_value, graph.shapes)), outputs=(),
        shapes={**graph.shapes, **{held_value(value): shape for value, shape in graph.shapes.items()}},
        dims={**graph.dims, **{held_value(value): dims for value, dims in graph.dims.items()}},
    )  # fmt: skip
