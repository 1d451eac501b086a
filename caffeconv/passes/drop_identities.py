"""Takes out layers that change nothing, such as Dropout in TEST."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from caffeconv.errors import Diagnostic
from caffeconv.ir.graph import Graph
from caffeconv.ir.layer import Node


def drop_identities(graph: Graph, notes: list[Diagnostic]) -> Graph:
    """Given  fc6 → drop6 → fc7   Result  fc6 → fc7 , where no output needs drop6's top.

    Where drop6's top is an output, fc6 makes it instead, unless fc6's own top is an output or an input too.
    """
    kept_names = {*graph.outputs, *graph.inputs}
    new_names: dict[str, str] = {}
    for node in graph.nodes:
        if not node.layer.is_identity(node) or len(node.tops) != 1:
            continue
        bottom, top = new_names.get(node.bottoms[0], node.bottoms[0]), node.tops[0]
        if top not in kept_names:
            new_names[top] = bottom
        elif bottom not in kept_names:
            new_names = {value: top if name == bottom else name for value, name in new_names.items()}
            new_names[bottom] = top
    nodes = tuple(_rename(node, new_names) for node in graph.nodes)
    return replace(graph, nodes=tuple(n for n in nodes if not (n.layer.is_identity(n) and n.bottoms == n.tops)))


def _rename(node: Node, new_names: Mapping[str, str]) -> Node:
    return replace(
        node,
        bottoms=tuple(new_names.get(value, value) for value in node.bottoms),
        tops=tuple(new_names.get(value, value) for value in node.tops),
    )
