"""What the layers of a net say of its blobs and passes, whatever their shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from caffeconv.emit.backward import loss_weights
from caffeconv.ir.layer import Node
from caffeconv.net.blobs import NetLayer, ParamBlob
from caffeconv.passes.subgraph import last_writes


def layer_objects(nodes: Sequence[Node], params: Mapping[str, Sequence[ParamBlob]]) -> dict[str, object]:
    """Layer → a `NetLayer`; for a Python layer the user's own object."""
    layers: dict[str, object] = {}
    for node in nodes:
        own = node.layer.user_object
        layers[node.name] = NetLayer(node.type, params.get(node.name, [])) if own is None else own
    return layers


def blob_kinds(nodes: Sequence[Node]) -> dict[str, str]:
    """Blob → what it means (probabilities, detections, …), where the layer that writes it last says that."""
    blob_of = {value: blob for blob, value in last_writes(nodes).items()}
    return {
        blob_of[value]: kind
        for node in nodes
        for value, kind in zip(node.tops, node.layer.top_kinds, strict=False)
        if value in blob_of
    }


def blob_loss_weights(nodes: Sequence[Node]) -> dict[str, float]:
    """Blob → by how much it counts in the net's loss, for those of all tops."""
    weights: dict[str, float] = {}
    for node in nodes:
        blobs = (*node.definition.tops, *node.tops[len(node.definition.tops) :])
        weights |= zip(blobs, loss_weights(node), strict=True)
    return weights


def order_reasons(nodes: Sequence[Node], sinks: Iterable[str]) -> dict[str, str]:
    """Layer → why passes have to go through one net, one after another. sinks: the layers that write to files."""
    reasons = dict.fromkeys(sinks, "writes what it is given to a file")
    for node in nodes:
        if node.layer.state_shapes(node.bottom_shapes):
            reasons[node.name] = "keeps its state from one pass to the next"
        elif node.layer.has_dynamic_shapes and not node.bottoms:
            reasons[node.name] = "is the user's code and makes data of its own"
    return reasons
