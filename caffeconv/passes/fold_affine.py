"""Folds BatchNorm, Scale and Bias into the Convolution, Deconvolution or InnerProduct before them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from caffeconv.ir.graph import Graph
from caffeconv.ir.layer import Node
from caffeconv.tensor.stored_values import StoredValues


def fold_affine(graph: Graph, *, keep_linkable: bool = False) -> Graph:
    """Given  conv (w, b) → bn → scale   Result  conv (w·s, b·s + t) , named as the last one's top.

    A layer folds where it is the only reader of what comes before it, no output needs that, and the parameters are
    nobody else's. `keep_linkable`: nor into a layer whose weight a model can point to in its file, as it is.
    """
    readers = Counter(value for node in graph.nodes for value in node.bottoms)
    makers: dict[str, int] = {}
    nodes: list[Node | None] = []
    for node in graph.nodes:
        maker = makers.get(node.bottoms[0]) if node.bottoms else None
        before = nodes[maker] if maker is not None else None
        kept = keep_linkable and before is not None and _linkable(before)
        folded = _folded(graph, before, node, readers) if not kept else None
        if folded is not None and maker is not None:
            nodes[maker] = None
            node = folded
        makers.update((top, len(nodes)) for top in node.tops)
        nodes.append(node)
    return replace(graph, nodes=tuple(node for node in nodes if node is not None))


def _linkable(node: Node) -> bool:
    values = node.params[0].values if node.params else None
    return isinstance(values, StoredValues) and values.offset is not None


def _folded(graph: Graph, before: Node | None, node: Node, readers: Counter[str]) -> Node | None:
    """`before` with `node` folded into it, or None where that cannot be."""
    if before is None or len(node.bottoms) != 1 or len(before.tops) != 1:
        return None
    value = node.bottoms[0]
    if readers[value] != 1 or value in graph.outputs or any(param.owner or param.shared for param in before.params):
        return None
    affine = node.layer.channel_affine(node)
    if affine is None:
        return None
    params = before.layer.fold_affine(before, *affine)
    if params is None:
        return None
    return replace(before, params=params, tops=node.tops)
