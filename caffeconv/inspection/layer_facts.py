"""What a layer is and costs, in a row of a table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto

    from caffeconv.ir.graph import Graph


@dataclass(frozen=True)
class LayerFacts:
    """What is known of a layer before it runs."""

    name: str
    type: str
    multiply_adds: int | None
    """Of one pass; None where the net is not known, but only a model."""


def facts_of_graph(graph: Graph) -> list[LayerFacts]:
    """The layers of a net, in order; inputs are none."""
    return [
        LayerFacts(node.name, node.type, node.layer.multiply_adds(node.bottom_shapes, node.top_shapes))
        for node in graph.nodes
        if not node.layer.is_input
    ]


def facts_of_file(path: Path) -> list[LayerFacts]:
    """As `facts_of_model`, of the model in a file."""
    import onnx

    return facts_of_model(onnx.load(path, load_external_data=False))


def facts_of_model(model: ModelProto) -> list[LayerFacts]:
    """The layers of a model of ours, as its nodes' names tell: ``layer``, or ``layer/what`` beside such a one."""
    kinds = {node.name: node.op_type for node in model.graph.node}
    layers: dict[str, str] = {}
    for name in kinds:
        parts = name.split("/")
        owner = next((start for i in range(1, len(parts)) if (start := "/".join(parts[:i])) in kinds), name)
        layers[owner] = kinds[owner]
    return [LayerFacts(name, kind, None) for name, kind in layers.items()]
