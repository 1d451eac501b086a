"""Graph → every parameter as an array of a net that keeps channels last (or as Caffe has it), and what to know of it."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from caffeconv.emit.metadata import Layout
from caffeconv.errors import CaffeconvError
from caffeconv.ir.graph import Graph
from caffeconv.ir.layer import Node
from caffeconv.layers.weight_layouts import all_as_stored
from caffeconv.tensor.axis_order import AxisOrder, as_caffe, channels_last, usual
from caffeconv.tensor.shape import FloatArray, count, format_shape, unique_name
from caffeconv.tensor.weight_array import WeightArray, WeightArrays
from caffeconv.tensor.window import Padding
from caffeconv.version import __version__

FORMAT = "caffeconv kernels 1"
NO_RULE = "no rule is known for this layer type; its parameters are as in Caffe"
METADATA = "__metadata__"
"""The array of an npz, and the data set of an HDF5 file, that holds the metadata as JSON."""
Json = Mapping[str, object]


@dataclass(frozen=True)
class Array:
    """One array of the file."""

    group: str
    """The layer's name; one that Keras takes where the file is for Keras."""
    weight_array: WeightArray

    @property
    def key(self) -> str:
        return f"{self.group}/{self.weight_array.name}"

    @property
    def bytes(self) -> int:
        return 4 * count(self.weight_array.shape)

    def parts(self) -> Iterator[FloatArray]:
        """Views or arrays whose values, in C order, one after the other, are the array's; float32."""
        yield from self.weight_array.parts()

    def origin(self) -> dict[str, object]:
        """Where it comes from: layer, blob and what was done to it."""
        sources = [
            {"layer": source.layer, "blob": source.index, "name": source.name, "shape": list(source.shape),
             "from": source.origin}
            for source in self.weight_array.sources
        ]  # fmt: skip
        return {
            "caffe": sources,
            "transposition": self.weight_array.transposition,
            "shape": list(self.weight_array.shape),
        }


@dataclass(frozen=True)
class WeightsContent:
    """All arrays in the file's order, and facts about the layers and blobs."""

    layout: Layout
    net: str
    arrays: tuple[Array, ...]
    layers: Mapping[str, Json]
    """Layer → type, padding, epsilon, notes, …; only layers of which there is something to say."""
    blobs: Mapping[str, Json]
    """Blob → how a net that keeps channels last holds it: shape, axes, and of a flattening what lies along it."""

    @property
    def bytes(self) -> int:
        return sum(array.bytes for array in self.arrays)

    def metadata(self) -> str:
        """Everything but the values, as JSON."""
        return json.dumps(
            {
                "format": FORMAT, "producer": f"caffeconv {__version__}", "layout": self.layout, "net": self.net,
                "arrays": {array.key: array.origin() for array in self.arrays},
                "layers": self.layers, "blobs": self.blobs,
            },
            ensure_ascii=False,
        )  # fmt: skip


def weight_arrays_of(graph: Graph, layout: Layout, *, keras_names: bool = False) -> WeightsContent:
    """The arrays of a graph with its weights.

    keras_names: give layers names that Keras takes: without `/`.

    Raises:
        CaffeconvError: the net has no parameters.
    """
    layer_arrays = _layers_channels_last(graph) if layout == "nhwc" else _layers_as_stored(graph)
    arrays: list[Array] = []
    layers: dict[str, Json] = {}
    for item, groups in zip(layer_arrays, _groups(layer_arrays, keras=keras_names), strict=True):
        arrays += [Array(groups[array.part_of], array) for array in item.weights.arrays]
        facts = _layer_facts(item, groups[""])
        if item.weights.arrays or facts.keys() - {"type"}:
            layers[item.node.name] = facts
    if not arrays:
        raise CaffeconvError(
            f"{graph.net.name or 'the net'} has no layer with parameters; there are no weights to write"
        )
    blobs = _blobs(graph, layer_arrays) if layout == "nhwc" else {}
    return WeightsContent(layout, graph.net.name, tuple(arrays), layers, blobs)


@dataclass(frozen=True)
class _LayerArrays:
    """A layer with its arrays, and the axis orders of its blobs."""

    node: Node
    weights: WeightArrays
    bottoms: tuple[AxisOrder, ...] = ()
    tops: tuple[AxisOrder, ...] = ()
    in_caffes_order: bool = False
    merged_into: str = ""


def _layers_as_stored(graph: Graph) -> list[_LayerArrays]:
    return [_LayerArrays(node, WeightArrays(all_as_stored(node))) for node in graph.nodes]


def _layers_channels_last(graph: Graph) -> list[_LayerArrays]:
    readers: dict[str, list[Node]] = defaultdict(list)
    for node in graph.nodes:
        for value in dict.fromkeys(node.bottoms):
            readers[value].append(node)
    axis_orders: dict[str, AxisOrder] = {}
    merges: dict[str, str] = {}
    layer_arrays = []
    for node in graph.nodes:
        bottoms = tuple(axis_orders[value] for value in node.bottoms)
        orders = _input_tops(node, readers) if node.layer.is_input else node.layer.axis_orders(node, bottoms)
        in_caffes_order = orders is None
        if orders is None:
            bottoms = tuple(as_caffe(shape) for shape in node.bottom_shapes)
            orders = [as_caffe(shape) if node.layer.tops_as_caffe else usual(shape) for shape in node.top_shapes]
        axis_orders.update(zip(node.tops, orders, strict=True))
        if node.tops and merges.get(node.bottoms[0] if node.bottoms else ""):
            into = merges[node.bottoms[0]]
            layer_arrays.append(_LayerArrays(node, WeightArrays(), bottoms, tuple(orders), in_caffes_order, into))
            continue
        follower = _follower(node, readers)
        if follower is not None:
            merges[node.tops[0]] = node.name
        weights = node.layer.weight_arrays(node, bottoms, follower)
        if weights is None:
            weights = WeightArrays(all_as_stored(node), notes=(NO_RULE,) if node.params else ())
        layer_arrays.append(_LayerArrays(node, weights, bottoms, tuple(orders), in_caffes_order))
    return layer_arrays


def _follower(node: Node, readers: Mapping[str, Sequence[Node]]) -> Node | None:
    """The layer that Keras has as one with this one: the only reader of what this one makes, where it makes one blob."""
    top_readers = readers[node.tops[0]] if len(node.tops) == 1 and node.tops[0] in readers else []
    if len(top_readers) != 1 or top_readers[0].bottoms != node.tops:
        return None
    return top_readers[0] if node.layer.fuses_with(node, top_readers[0]) else None


def _input_tops(node: Node, readers: Mapping[str, Sequence[Node]]) -> list[AxisOrder]:
    """The axis orders of the net's inputs: channels where a layer that reads them says, else at axis 1."""
    tops = []
    for top, shape in zip(node.tops, node.top_shapes, strict=True):
        axis = _channel_axis(top, readers)
        tops.append(usual(shape) if axis is None else channels_last(shape, axis))
    return tops


def _channel_axis(value: str, readers: Mapping[str, Sequence[Node]]) -> int | None:
    """What the first layer says that knows, behind pointwise ones; each value is followed once."""
    seen, waiting = {value}, [(node, value) for node in reversed(readers.get(value, ()))]
    while waiting:
        node, bottom = waiting.pop()
        axis = node.layer.channel_axis_of(node, node.bottoms.index(bottom))
        if axis is not None:
            return axis
        if node.layer.is_pointwise and node.tops and node.tops[0] not in seen:
            top = node.tops[0]
            seen.add(top)
            waiting += [(reader, top) for reader in reversed(readers.get(top, ()))]
    return None


# -- names -------------------------------------------------------------------------------------------------------------


def _groups(layer_arrays: Sequence[_LayerArrays], *, keras: bool) -> list[dict[str, str]]:
    """For each layer the names of its groups, by `WeightArray.part_of`; no two names are the same."""
    used_names = {METADATA}
    groups = [
        {"": unique_name(_for_keras(item.node.name) if keras else item.node.name, used_names)} for item in layer_arrays
    ]
    for item, names in zip(layer_arrays, groups, strict=True):
        for array in item.weights.arrays:
            if array.part_of not in names:
                names[array.part_of] = unique_name(f"{names['']}_{array.part_of}", used_names)
    return groups


def _for_keras(layer: str) -> str:
    """The name without what neither Keras nor HDF5 takes in it."""
    name = re.sub(r"[/\0]", "_", layer)
    return name if name.strip(".") else f"layer{name}"


# -- facts about layers and blobs --------------------------------------------------------------------------------------


def _layer_facts(item: _LayerArrays, name: str) -> dict[str, object]:
    facts: dict[str, object] = {"type": item.node.type}
    if name != item.node.name:
        facts["name"] = name
    if item.merged_into:
        facts["merged_into"] = item.merged_into
    facts |= item.weights.facts
    padding = item.node.layer.padding(item.node)
    if padding is not None:
        facts["window"] = _window(item.node, padding)
    notes = [*item.weights.notes]
    if item.in_caffes_order:
        reads, makes = (
            ", ".join(map(format_shape, shapes)) for shapes in (item.node.bottom_shapes, item.node.top_shapes)
        )
        notes.append(f"do this in Caffe's order: bring the bottoms into it ({reads}), and the tops ({makes}) out of it")
    if notes:
        facts["notes"] = notes
    return facts


def _window(node: Node, padding: Padding) -> dict[str, object]:
    window = padding.window
    facts: dict[str, object] = {
        "kernel": list(window.kernel), "stride": list(window.stride), "dilation": list(window.dilation)
    }  # fmt: skip
    facts["crop" if padding.crops else "pad"] = _sides(padding.pads)
    facts |= {"same": padding.same, "valid": padding.valid, "same_would_be": _sides(padding.same_pads)}
    facts["input_size"] = list(node.bottom_shapes[0][-len(padding.pads) :])
    if not padding.crops:
        facts["pad_with"] = padding.fill
    if padding.factors:
        facts["then_multiply"] = [[factor if isfinite(factor) else None for factor in axis] for axis in padding.factors]
    return facts


def _sides(pads: Sequence[tuple[int, int]]) -> dict[str, int] | list[list[int]]:
    if len(pads) != 2:
        return [list(sides) for sides in pads]
    (top, bottom), (left, right) = pads
    return {"top": top, "bottom": bottom, "left": left, "right": right}


def _blobs(graph: Graph, layer_arrays: Sequence[_LayerArrays]) -> dict[str, Json]:
    orders = {value: top for item in layer_arrays for value, top in zip(item.node.tops, item.tops, strict=True)}
    last = graph.net.last_value
    return {blob: _blob_facts(orders[last[blob]]) for blob in graph.net.blob_order() if last[blob] in orders}


def _blob_facts(blob: AxisOrder) -> Json:
    facts: dict[str, object] = {"shape": list(blob.held_shape), "axes": list(blob.axes)}
    if blob.is_flattening:
        facts["flattened"] = [{"shape": list(segment.shape), "axes": list(segment.axes)} for segment in blob.pieces]
    return facts
