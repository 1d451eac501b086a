"""Blobs that share memory in Caffe: what a layer writes in place into one of them stands in the others too.

caffe: Blob::ShareData, in Split, Flatten, Reshape, and Concat and Slice of one blob.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from caffeconv.caffe_pb2 import LayerParameter
from caffeconv.errors import Diagnostic
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.graph import Graph
from caffeconv.ir.layer import Layer, Node
from caffeconv.layers.shared_memory import SharedMemory
from caffeconv.tensor.shape import Shape, unique_name


def shared_blobs(nodes: Sequence[Node]) -> dict[str, frozenset[str]]:
    """Blob → all blobs that are one memory with it, itself among them; blobs of their own are left out."""
    groups = _Groups()
    for node in nodes:
        groups.follow(node)
    return {blob: frozenset(group) for blob, group in groups.of.items() if len(group) > 1}


def shared_diffs(nodes: Sequence[Node], backward: Sequence[Node]) -> dict[str, str]:
    """Bottom → top of one diff memory: what `shared_blobs` has where no other layer reads the bottom too.

    backward: those of the nodes that run backward; caffe: only then a Flatten layer shares diffs.
    """
    own = [node for node in nodes if node.layer.stands_in_net]
    # by blobs, not by values: who reads what was written over a blob reads the blob
    readers = Counter(blob for node in own for blob in node.definition.bottoms if blob not in node.definition.tops)
    return {
        node.definition.bottoms[0]: node.definition.tops[0]
        for node in backward
        if node.layer.shares_memory(node)
        and len(node.tops) == 1
        and not node.is_in_place
        and readers[node.definition.bottoms[0]] == 1
    }


def follow_shared_memory(graph: Graph) -> Graph:
    """Given  a → Flatten → f → ReLU → f , and  a → b   Result  b reads what ReLU left, in a's shape.

    Given  a → ConvolutionRistretto → c , and then  a → b   Result  b reads a as that layer rounded it.
    """
    state = _State(dict(graph.shapes), dict(graph.net.last_value))
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes.append(replace(node, bottoms=tuple(state.newest.get(value, value) for value in node.bottoms)))
        state.groups.follow(node)
        state.current.update(zip(node.definition.tops, node.tops, strict=False))
        nodes += state.views(nodes[-1])
        for bottom, layer in node.layer.rewritten_bottoms(node).items():
            nodes.append(state.rewrite(node, bottom, layer))
            nodes += state.views(nodes[-1])
    if len(nodes) == len(graph.nodes):
        return graph
    outputs = tuple(state.newest.get(value, value) for value in graph.outputs)
    net = replace(graph.net, last_value=state.last_value)
    followed = replace(graph, net=net, nodes=tuple(nodes), outputs=outputs, shapes=state.shapes)
    return _called_as_blobs(followed, {*graph.inputs})


def _called_as_blobs(graph: Graph, inputs: set[str]) -> Graph:
    """The last write of each blob called as the blob, and what was called so as it and its layer; inputs stay."""
    maker = {value: node.name for node in graph.nodes for value in node.tops}
    names: dict[str, str] = {}
    for blob, value in graph.net.last_value.items():
        if value != blob and blob not in inputs and not {blob, value} & names.keys():
            names |= {blob: unique_name(f"{blob}/{maker[blob]}", {*graph.shapes, *names.values()}), value: blob}
    nodes = tuple(
        replace(
            node, bottoms=tuple(names.get(value, value) for value in node.bottoms),
            tops=tuple(names.get(value, value) for value in node.tops),
        )
        for node in graph.nodes
    )  # fmt: skip
    last_value = {blob: names.get(value, value) for blob, value in graph.net.last_value.items()}
    return replace(
        graph, net=replace(graph.net, last_value=last_value), nodes=nodes,
        outputs=tuple(names.get(value, value) for value in graph.outputs),
        shapes={names.get(value, value): shape for value, shape in graph.shapes.items()},
    )  # fmt: skip


def drop_unread_views(graph: Graph, notes: list[Diagnostic]) -> Graph:
    """Given  conv → Flatten → f → ReLU → f   Result  the same, without what ReLU left in conv, which nobody asks for."""
    needed = {*graph.outputs, *(value for node in graph.nodes if node.layer.stands_in_net for value in node.bottoms)}
    nodes = []
    for node in reversed(graph.nodes):
        if node.layer.stands_in_net or node.tops[0] in needed:
            nodes.append(node)
            needed.update(node.bottoms)
    return replace(graph, nodes=tuple(reversed(nodes)))


class _Groups:
    """Which blobs are one memory."""

    def __init__(self) -> None:
        self.of: dict[str, set[str]] = {}

    def follow(self, node: Node) -> None:
        if not node.layer.shares_memory(node):
            return
        group = set[str]().union(
            *(self.of.get(blob, {blob}) for blob in (node.definition.bottoms[0], *node.definition.tops))
        )
        self.of.update(dict.fromkeys(group, group))


@dataclass
class _State:
    """What the layers so far have left."""

    shapes: dict[str, Shape]
    last_value: dict[str, str]
    groups: _Groups = field(default_factory=_Groups)
    current: dict[str, str] = field(default_factory=dict)
    """Blob → the value of its own last write."""
    newest: dict[str, str] = field(default_factory=dict)
    """Value → what its memory holds now, where a layer wrote over it by another blob."""

    def views(self, writer: Node) -> list[Node]:
        """What stands in other blobs' memory after the layer."""
        if writer.layer.is_identity(writer) or writer.layer.shares_memory(writer):
            return []
        definition = writer.definition
        written = [
            i for i, pair in enumerate(zip(definition.bottoms, definition.tops, strict=False)) if len({*pair}) == 1
        ]
        return [
            self._view(blob, writer, i)
            for i in written
            for blob in sorted(self.groups.of.get(definition.tops[i], set()) - {definition.tops[i]})
            if blob in self.current
        ]

    def rewrite(self, reader: Node, bottom: int, layer: Layer) -> Node:
        """What the layer leaves in one of the blobs that it reads."""
        blob, shape = reader.definition.bottoms[bottom], reader.bottom_shapes[bottom]
        own = self.current.get(blob, blob)
        before, value = self.newest.get(own, own), self._new_value(blob, reader, shape)
        self.newest[own] = value
        definition = _definition(type(layer).__name__, (blob,), blob, reader, value)
        return Node(definition, layer, (before,), (value,), (shape,), (shape,))

    def _new_value(self, blob: str, writer: Node, shape: Shape) -> str:
        value = unique_name(f"{blob}/{writer.name}", set(self.shapes))
        self.shapes[value] = shape
        self.last_value[blob] = value
        return value

    def _view(self, blob: str, writer: Node, top: int) -> Node:
        own = self.current[blob]
        before, shape = self.newest.get(own, own), self.shapes[own]
        value = self.newest[own] = self._new_value(blob, writer, shape)
        definition = _definition("SharedMemory", (blob, writer.definition.tops[top]), blob, writer, value)
        bottoms, shapes = (before, writer.tops[top]), (shape, writer.top_shapes[top])
        return Node(definition, SharedMemory(), bottoms, (value,), shapes, (shape,))


def _definition(kind: str, bottoms: tuple[str, ...], top: str, writer: Node, name: str) -> LayerDef:
    proto = LayerParameter(name=name, type=kind, bottom=bottoms, top=[top])
    return LayerDef(name, kind, bottoms, (top,), (), (name,), proto, writer.definition.phase, writer.definition.folders)
