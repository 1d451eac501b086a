"""Passes over a bound graph, in this order: each returns a graph that computes the same outputs, and notes what it left."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from caffeconv.errors import Diagnostic
from caffeconv.ir.graph import Graph
from caffeconv.passes.drop_identities import drop_identities
from caffeconv.passes.fold_affine import fold_affine
from caffeconv.passes.shared_memory import drop_unread_views

GraphPass = Callable[[Graph, list[Diagnostic]], Graph]
PASSES: tuple[GraphPass, ...] = (drop_unread_views, drop_identities, fold_affine)
LINKING_PASSES: tuple[GraphPass, ...] = (drop_unread_views, drop_identities, partial(fold_affine, keep_linkable=True))
"""Those that leave alone what a model can point to in a weights file."""


def run_passes(graph: Graph, passes: Iterable[GraphPass] = PASSES, notes: list[Diagnostic] | None = None) -> Graph:
    """The graph after every pass, validated after each; what the passes left as it is, and why, goes to `notes`."""
    diagnostics: list[Diagnostic] = [] if notes is None else notes
    for apply in passes:
        graph = apply(graph, diagnostics)
        validate(graph)
    return graph


def validate(graph: Graph) -> None:
    """Raises RuntimeError, a bug of ours, where a value is read before it is made, made twice, or has no shape."""
    values: set[str] = set()
    for node in graph.nodes:
        missing = [value for value in node.bottoms if value not in values]
        if missing:
            raise RuntimeError(f"{node.name} reads {missing[0]}, which nothing makes")
        for top, shape in zip(node.tops, node.top_shapes, strict=True):
            if top in values:
                raise RuntimeError(f"{node.name} makes {top} a second time")
            if graph.shapes.get(top) != shape:
                raise RuntimeError(f"{node.name} makes {top} of shape {shape}, not {graph.shapes.get(top)}")
            values.add(top)
    missing = [value for value in graph.outputs if value not in values]
    if missing:
        raise RuntimeError(f"nothing makes the output {missing[0]}")
