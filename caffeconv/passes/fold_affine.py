"""Folds BatchNorm, Scale and Bias into the Convolution, Deconvolution or InnerProduct before them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from caffeconv.errors import Diagnostic
from caffeconv.ir.graph import Graph
from caffeconv.ir.layer import Node


def fold_affine(graph: Graph, notes: list[Diagnostic], *, keep_linkable: bool = False) -> Graph:
    """Given  conv (w, b) → bn → scale   Result  conv (w·s, b·s + t) , named as the last one's top.

    A layer folds where it is the only reader of what comes before it, no output needs that, and the parameters are
    not shared. `keep_linkable`: nor into a layer whose weight a model can point to in its file, as it is. Why a layer
    that could be folded was not goes to `notes`.
    """
    readers = Counter(value for node in graph.nodes for value in node.bottoms)
    makers: dict[str, int] = {}
    nodes: list[Node | None] = []
    for node in graph.nodes:
        maker = makers.get(node.bottoms[0]) if node.bottoms else None
        before = nodes[maker] if maker is not None else None
        is_linked = keep_linkable and before is not None and _linkable(before)
        folded = _fold(graph, before, node, readers) if not is_linked else ""
        if isinstance(folded, Node) and maker is not None:
            nodes[maker] = None
            node = folded
        elif isinstance(folded, str) and folded:
            message = f"not folded into the layer before it: {folded}"
            notes.append(Diagnostic("note", node.definition.where, message, layer=node.name))
        makers.update((top, len(nodes)) for top in node.tops)
        nodes.append(node)
    return replace(graph, nodes=tuple(node for node in nodes if node is not None))


def _linkable(node: Node) -> bool:
    values = node.params[0].values if node.params else None
    return values is not None and values.location is not None


def _fold(graph: Graph, before: Node | None, node: Node, readers: Counter[str]) -> Node | str:
    """`before` with `node` folded into it; or why not, empty for a layer that is no factor and summand per channel."""
    affine = node.layer.channel_affine(node)
    if affine is None or before is None or len(node.bottoms) != 1:
        return ""
    value = node.bottoms[0]
    if len(before.tops) != 1:
        return f"{before.name} has {len(before.tops)} tops"
    if readers[value] != 1:
        return f"{readers[value]} layers read what {before.name} makes"
    if value in graph.outputs:
        return f"what {before.name} makes is an output"
    if any(param.owner or param.shared for param in before.params):
        return f"{before.name} shares its parameters with another layer"
    params = before.layer.fold_affine(before, *affine)
    if params is None:
        return f"{before.name} ({before.type}) has no weights that could take it up"
    return replace(before, params=params, tops=node.tops)
