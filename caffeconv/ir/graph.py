"""A net as nodes with shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from caffeconv.ir.definition import NetDef
from caffeconv.ir.layer import Node
from caffeconv.tensor.shape import Dims, Shape


@dataclass(frozen=True)
class Graph:
    """Nodes in order; every value has a shape. Input nodes are nodes like any other: their tops are `inputs`."""

    net: NetDef
    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shapes: Mapping[str, Shape]
    dims: Mapping[str, Dims] = field(default_factory=dict)
    """As `shapes`, with None for an axis that varies with the batch or follows from values; filled before emission."""
    symbols: Mapping[tuple[str, int], str] = field(default_factory=dict)
    """(value, axis) → name, for those axes among them that are an input's batch axis."""
