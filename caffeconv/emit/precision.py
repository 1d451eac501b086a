"""Which parts of a model need float32, by its layers; kept in its metadata for a later cast to float16."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffeconv.errors import CaffeconvError
from caffeconv.files.foreign_json import MALFORMED
from caffeconv.ir.graph import Graph
from caffeconv.ir.layer import Node

if TYPE_CHECKING:
    from onnx import NodeProto

PRECISION_KEY = "caffeconv.float32"
"""Metadata: {"nodes": […], "values": […]} that stay float32 in half precision."""


@dataclass(frozen=True)
class Precision:
    """Nodes that compute in float32, and inputs and outputs that hold what half precision cannot."""

    nodes: frozenset[str]
    values: frozenset[str]


def precision_of(graph: Graph, makers: Mapping[str, str], nodes: Sequence[NodeProto]) -> str:
    """The value of PRECISION_KEY: `makers` tells which layer each of the model's nodes belongs to."""
    exact = float32_values(graph)
    layers = {node.name for node in graph.nodes if _keeps_float32(node, exact)}
    float32_nodes = frozenset(node.name for node in nodes if makers.get(node.name) in layers)
    edges = {*graph.inputs, *(name for node in nodes for name in node.output)}
    return _as_json(float32_nodes, exact & edges)


def _as_json(nodes: frozenset[str], values: frozenset[str]) -> str:
    return json.dumps({"nodes": sorted(nodes), "values": sorted(values)})


def read_precision(metadata: Mapping[str, str]) -> Precision:
    """What a model says; CaffeconvError where it says nothing, because it is none of ours or an old one."""
    try:
        entries = json.loads(metadata[PRECISION_KEY])
        return Precision(frozenset(entries["nodes"]), frozenset(entries["values"]))
    except MALFORMED:
        raise CaffeconvError(
            f"the model does not say which layers have to stay float32 (metadata {PRECISION_KEY}), so it was not written "
            "by this caffeconv; convert the net again, with `half=True`"
        ) from None


def keep_float32(metadata: dict[str, str], nodes: Sequence[str]) -> None:
    """Writes into a model's metadata that these nodes stay float32 too."""
    precision = read_precision(metadata)
    metadata[PRECISION_KEY] = _as_json(precision.nodes.union(nodes), precision.values)


def float32_values(graph: Graph) -> frozenset[str]:
    """Values that half precision cannot hold, followed up and down through layers that only move values."""
    exact = frozenset[str]().union(*(node.layer.float32_values(node) for node in graph.nodes))
    while True:
        more = exact.union(
            *(_moved_values(node) for node in graph.nodes if _passes_on(node) and exact & _moved_values(node))
        )
        if more == exact:
            return exact
        exact = more


def _passes_on(node: Node) -> bool:
    return node.layer.only_moves_data or node.layer.is_identity(node)


def _moved_values(node: Node) -> frozenset[str]:
    """Bottoms and tops, but not a bottom that says which values are moved."""
    return frozenset((*node.bottoms, *node.tops)) - node.layer.float32_values(node)


def _keeps_float32(node: Node, exact: frozenset[str]) -> bool:
    moves = _passes_on(node) or not node.bottoms
    return node.layer.computes_in_float32 or (moves and not exact.isdisjoint(_moved_values(node)))
