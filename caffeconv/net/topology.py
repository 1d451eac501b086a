"""What the layers of a net say of its blobs and passes, whatever their shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from caffeconv.emit.backward import loss_weights
from caffeconv.errors import CaffeconvError
from caffeconv.files import arguments
from caffeconv.ir.layer import Node
from caffeconv.net.blobs import NetLayer, ParamBlob
from caffeconv.passes.subgraph import last_writes


def layer_objects(nodes: Sequence[Node], params: Mapping[str, Sequence[ParamBlob]]) -> dict[str, object]:
    """Layer → a `NetLayer`; for a Python layer the user's own object."""
    layers: dict[str, object] = {}
    for node in nodes:
        if not node.layer.stands_in_net:
            continue
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
    """Blob → its weight in the net's loss, for those of all tops."""
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


def checked_names(blobs: object, names: str, arrays: str) -> tuple[str, ...]:
    """The blobs' names, or one name that stands alone; CaffeconvError where something else is given by position, such as
    an array."""
    if blobs is None:
        return ()
    if isinstance(blobs, str):
        return (blobs,)
    if isinstance(blobs, Iterable) and not isinstance(blobs, (Mapping, np.ndarray)):
        return arguments.names("blobs", blobs)
    raise CaffeconvError(
        f"{type(blobs).__name__} is given by position, where a list of further blobs to return belongs: {names}. "
        f"Arrays are given by their blobs' names: {arrays}"
    )


def layer_span(nodes: Sequence[Node], first: str | None, last: str | None) -> slice:
    """The layers from `first` to `last`, both included, and what these leave in shared memory; None: to the net's end."""
    start = 0 if first is None else place_of(nodes, first)
    stop = len(nodes) if last is None else place_of(nodes, last) + 1
    while stop < len(nodes) and not nodes[stop].layer.stands_in_net:
        stop += 1
    return slice(start, max(start, stop))


def place_of(nodes: Sequence[Node], layer: str) -> int:
    """Where a layer stands; CaffeconvError where it is none of the net's."""
    names = [node.name if node.layer.stands_in_net else "" for node in nodes]
    if not isinstance(layer, str) or layer not in names:
        raise CaffeconvError(f"the net has no layer '{layer}'; it has {', '.join(filter(None, names))}")
    return names.index(layer)
