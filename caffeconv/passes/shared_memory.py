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
    wholes = {id(group): frozenset(group.blobs) for group in groups.of.values()}
    return {blob: wholes[id(group)] for blob, group in groups.of.items() if len(group.blobs) > 1}


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
    for node in graph.nodes:
        state.follow(node)
    nodes = state.finish()
    if len(nodes) == len(graph.nodes):
        return graph
    outputs = tuple(state.newest_of(value) for value in graph.outputs)
    net = replace(graph.net, last_value=state.last_value)
    followed = replace(graph, net=net, nodes=tuple(nodes), outputs=outputs, shapes=state.shapes)
    return _called_as_blobs(followed, {*graph.inputs})


def _called_as_blobs(graph: Graph, inputs: set[str]) -> Graph:
    """The last write of each blob called as the blob, and what was called so as it and its layer; inputs stay."""
    maker = {value: node.name for node in graph.nodes for value in node.tops}
    names: dict[str, str] = {}
    taken = {*graph.shapes}
    for blob, value in graph.net.last_value.items():
        if value != blob and blob not in inputs and not {blob, value} & names.keys():
            names |= {blob: unique_name(f"{blob}/{maker[blob]}", taken), value: blob}
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


@dataclass(frozen=True)
class _Write:
    """That a layer wrote in place into a blob of a group."""

    number: int
    writer: Node
    top: int
    """Which of the layer's tops."""
    views: list[Node]
    """What has been put behind the layer."""


@dataclass
class _Group:
    """Blobs that are one memory, and the last write into it."""

    blobs: set[str]
    write: _Write | None = None


class _Groups:
    """Which blobs are one memory."""

    def __init__(self) -> None:
        self.of: dict[str, _Group] = {}

    def moved_by(self, node: Node) -> set[str]:
        """The blobs that come into another group, or into their first, by what the layer shares."""
        groups = self._shared(node)
        whole = max(groups, key=lambda group: len(group.blobs), default=None)
        return set[str]().union(*(group.blobs for group in groups if group is not whole))

    def follow(self, node: Node) -> None:
        """Joins what the layer shares."""
        groups, moved = self._shared(node), self.moved_by(node)
        if groups:
            whole = max(groups, key=lambda group: len(group.blobs))
            whole.blobs |= moved
            self.of.update(dict.fromkeys(whole.blobs & {*moved, node.definition.bottoms[0]}, whole))

    def _shared(self, node: Node) -> list[_Group]:
        if not node.layer.shares_memory(node):
            return []
        blobs = dict.fromkeys((node.definition.bottoms[0], *node.definition.tops))
        groups = [self.of.get(blob) or _Group({blob}) for blob in blobs]
        return list({id(group): group for group in groups}.values())


@dataclass
class _State:
    """What the layers so far have left.

    A write makes a value of each blob in its memory; one that nobody looks at before the next write is never made, so
    that a thousand writes into one memory of a thousand blobs are no million of values.
    """

    shapes: dict[str, Shape]
    last_value: dict[str, str]
    groups: _Groups = field(default_factory=_Groups)
    current: dict[str, str] = field(default_factory=dict)
    """Blob → the value of its own last write."""
    newest: dict[str, str] = field(default_factory=dict)
    """Value → what its memory holds, where a layer wrote over it by another blob, as far as somebody looked."""
    _blobs: dict[str, str] = field(default_factory=dict)
    """Value → its blob."""
    _seen: dict[str, int] = field(default_factory=dict)
    """Value → the number of the last write that it tells of."""
    _nodes: list[tuple[Node, list[Node]]] = field(default_factory=list)
    """Each node, and the views that stand behind it."""
    _writes: int = 0

    def __post_init__(self) -> None:
        self._taken = set(self.shapes)

    def follow(self, node: Node) -> None:
        """The next layer of the graph."""
        followed = replace(node, bottoms=tuple(self.newest_of(value) for value in node.bottoms))
        moved = self.groups.moved_by(node)
        for blob in sorted(moved & self.current.keys()):  # as the memory is that it leaves
            self.newest_of(self.current[blob])
        self.groups.follow(node)
        self.current.update(zip(node.definition.tops, node.tops, strict=False))
        self._blobs.update(zip(node.tops, node.definition.tops, strict=False))
        for value in (*node.tops, *(self.current[blob] for blob in moved & self.current.keys())):
            self._seen[value] = self._writes
        self._add(followed)
        for bottom, layer in node.layer.rewritten_bottoms(followed).items():
            self._add(self._rewrite(followed, bottom, layer))

    def finish(self) -> list[Node]:
        """All nodes, with a value of each blob as it is in the end."""
        for value in list(self.current.values()):
            self.newest_of(value)
        return [one for node, views in self._nodes for one in (node, *views)]

    def newest_of(self, value: str) -> str:
        """What the value's memory holds now."""
        blob = self._blobs.get(value)
        group = self.groups.of.get(blob) if blob is not None else None
        if blob is None or group is None or group.write is None or self.current[blob] != value:
            return self.newest.get(value, value)
        if self._seen[value] < group.write.number:
            self._seen[value] = group.write.number
            group.write.views.append(self._view(blob, group.write))
        return self.newest.get(value, value)

    def _add(self, node: Node) -> None:
        """The node behind the others; what it writes in place stands in other blobs' memory too."""
        views: list[Node] = []
        self._nodes.append((node, views))
        if node.layer.is_identity(node) or node.layer.shares_memory(node):
            return
        for i, (bottom, top) in enumerate(zip(node.definition.bottoms, node.definition.tops, strict=False)):
            group = self.groups.of.get(top)
            if bottom == top and group is not None:
                self._writes += 1
                group.write = _Write(self._writes, node, i, views)
                self._seen[self.current[top]] = self._writes

    def _rewrite(self, reader: Node, bottom: int, layer: Layer) -> Node:
        """What the layer leaves in one of the blobs that it reads."""
        blob, shape = reader.definition.bottoms[bottom], reader.bottom_shapes[bottom]
        own = self.current.get(blob, blob)
        before, value = self.newest_of(own), self._new_value(blob, reader, shape)
        self.newest[own] = value
        definition = _definition(type(layer).__name__, (blob,), blob, reader, value)
        return Node(definition, layer, (before,), (value,), (shape,), (shape,))

    def _new_value(self, blob: str, writer: Node, shape: Shape) -> str:
        value = unique_name(f"{blob}/{writer.name}", self._taken)
        self.shapes[value] = shape
        self.last_value[blob] = value
        return value

    def _view(self, blob: str, write: _Write) -> Node:
        own, writer = self.current[blob], write.writer
        before, shape = self.newest.get(own, own), self.shapes[own]
        value = self.newest[own] = self._new_value(blob, writer, shape)
        definition = _definition("SharedMemory", (blob, writer.definition.tops[write.top]), blob, writer, value)
        bottoms, shapes = (before, writer.tops[write.top]), (shape, writer.top_shapes[write.top])
        return Node(definition, SharedMemory(), bottoms, (value,), shapes, (shape,))


def _definition(kind: str, bottoms: tuple[str, ...], top: str, writer: Node, name: str) -> LayerDef:
    proto = LayerParameter(name=name, type=kind, bottom=bottoms, top=[top])
    return LayerDef(name, kind, bottoms, (top,), (), (name,), proto, writer.definition.phase, writer.definition.folders)
