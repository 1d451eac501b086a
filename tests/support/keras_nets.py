"""Nets built again in Keras, channels last, from their prototxt and what an exported weights file says of them.

Nothing of caffeconv computes here: convolutions, pooling and the rest are Keras's on jax, and paddings are those that the
file's metadata asks for. A layer has Caffe's name, so that Keras loads the weights by name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
from keras import layers, ops

from caffeconv.ir.layer import Node
from support.golden_cases import Array

LOWEST = float(np.finfo(np.float32).min)
Tensor = Any
Said = Mapping[str, Any]


@dataclass
class Rebuilding:
    """A Keras model as it grows."""

    said: Said
    held: dict[str, Tensor]

    def of(self, node: Node) -> Said:
        """What the file says of a layer."""
        found: Said = self.said["layers"].get(node.name, {})
        return found

    def axes(self, blob: str) -> list[int]:
        """The axes of Caffe's blob in the order in which they are held."""
        found: list[int] = self.said["blobs"][blob]["axes"]
        return found

    def held_axis(self, node: Node, axis: int) -> int:
        """Where Caffe's axis of the first bottom lies here."""
        return self.axes(node.definition.bottoms[0]).index(axis % len(node.bottom_shapes[0]))

    def is_in_caffes_order(self, node: Node) -> bool:
        """Whether the file says that the layer needs Caffe's order."""
        return any("Caffe's order" in note for note in self.of(node).get("notes", ()))

    def in_caffes_order(self, node: Node, x: Tensor) -> Tensor:
        """The first bottom, brought into Caffe's order where the layer needs that."""
        if not self.is_in_caffes_order(node):
            return x
        return ops.transpose(x, np.argsort(self.axes(node.definition.bottoms[0])).tolist())

    def name(self, node: Node) -> str:
        return str(self.of(node).get("name", node.name))


def metadata(path: Path) -> Said:
    """What a weights file for Keras says of itself."""
    with h5py.File(path) as file:
        found: Said = json.loads(file["__metadata__"].asstr()[()])
        return found


def rebuilt(nodes: tuple[Node, ...], weights: Path, feeds: Mapping[str, Array]) -> keras.Model:
    """A model of every blob but the inputs, by name, with the weights loaded by name; inputs shaped as `feeds`, held."""
    net = Rebuilding(metadata(weights), {})
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    for node in nodes:
        if node.layer.is_input:
            for top, blob in zip(node.tops, node.definition.tops, strict=True):
                inputs[blob] = net.held[top] = keras.Input(batch_shape=feeds[blob].shape, name=blob)
            continue
        if node.type not in BUILDERS or not all(value in net.held for value in node.bottoms):
            continue
        tops = BUILDERS[node.type](net, node, [net.held[value] for value in node.bottoms])
        net.held.update(zip(node.tops, tops, strict=True))
        outputs.update(zip(node.definition.tops, tops, strict=True))
    model = keras.Model(inputs, outputs)
    model.load_weights(str(weights), by_name=True)
    return model


def run(model: keras.Model, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Every output, as the model holds it."""
    return {name: np.asarray(value) for name, value in model(dict(feeds)).items()}


def held(values: Array, blob: Said) -> Array:
    """Caffe's array as the file says that this net holds the blob."""
    values = values.transpose(blob["axes"])
    if "flattened" not in blob:
        return values
    ends = np.cumsum([np.prod(piece["shape"], dtype=int) for piece in blob["flattened"]])
    runs = np.split(values, ends[:-1], axis=-1)
    front = values.shape[:-1]
    moved = [
        run.reshape(*front, *piece["shape"]).transpose(*range(len(front)), *(len(front) + i for i in piece["axes"]))
        for run, piece in zip(runs, blob["flattened"], strict=True)
    ]
    return np.concatenate([run.reshape(*front, -1) for run in moved], axis=-1)


# -- windows -----------------------------------------------------------------------------------------------------------


def sides(window: Said, key: str) -> list[tuple[int, int]]:
    found = window[key]
    if isinstance(found, dict):
        return [(found["top"], found["bottom"]), (found["left"], found["right"])]
    return [(before, after) for before, after in found]


def padded(x: Tensor, window: Said) -> tuple[Tensor, str]:
    """What goes into a layer of that window, and its `padding`."""
    if window["same"]:
        return x, "same"
    if window["valid"]:
        return x, "valid"
    value = LOWEST if window["pad_with"] == "lowest" else 0.0
    return ops.pad(x, [(0, 0), *sides(window, "pad"), (0, 0)], constant_values=value), "valid"


def convolution(net: Rebuilding, node: Node, bottoms: list[Tensor]) -> list[Tensor]:
    said, p = net.of(node), node.definition.proto.convolution_param
    if "window" not in said:  # no spatial axes
        return [
            layers.Dense(p.num_output, use_bias=p.bias_term, name=net.name(node), kernel_initializer="zeros")(bottom)
            for bottom in bottoms
        ]
    window, weight = said["window"], node.params[0].shape
    group, rank = said.get("group", 1), len(window["kernel"])
    shared = {"kernel_size": window["kernel"], "strides": window["stride"], "use_bias": p.bias_term}
    if window["dilation"] != [1] * rank:
        shared["dilation_rate"] = window["dilation"]
    _, how = padded(bottoms[0], window)
    depthwise = group > 1 and weight[1] == 1 and rank in (1, 2)
    uneven = depthwise and rank == 2 and len(set(window["stride"])) > 1
    if uneven or (max(window["dilation"]) > 1 and max(window["stride"]) > 1):
        shape = tuple(net.said["arrays"][f"{net.name(node)}/{'depthwise_kernel' if depthwise else 'kernel'}"]["shape"])
        layer: keras.Layer = Refused(shape, shared, how, depthwise=depthwise, name=net.name(node))
    elif depthwise:
        kind = {1: layers.DepthwiseConv1D, 2: layers.DepthwiseConv2D}[rank]
        layer = kind(
            depth_multiplier=weight[0] // group, padding=how, name=net.name(node), depthwise_initializer="zeros", **shared
        )  # fmt: skip
    else:
        kind = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}[rank]
        layer = kind(weight[0], groups=group, padding=how, name=net.name(node), kernel_initializer="zeros", **shared)
    tops = []
    for bottom in bottoms:
        items = ops.reshape(bottom, (-1, *bottom.shape[-rank - 1 :]))  # all axes in front are one to Keras
        top = layer(padded(items, window)[0])
        tops.append(ops.reshape(top, (*bottom.shape[: -rank - 1], *top.shape[1:])))
    return tops


class Refused(keras.Layer):  # type: ignore[misc]
    """A convolution that Keras's layers refuse, but not its operations: strides that differ, strides and dilation."""

    def __init__(
        self, shape: tuple[int, ...], shared: dict[str, Any], padding: str, *, depthwise: bool, name: str
    ) -> None:
        super().__init__(name=name)
        self.shape, self.shared, self.padding, self.depthwise = shape, shared, padding, depthwise

    def build(self, shape: tuple[int, ...]) -> None:
        outputs = self.shape[-1] * (self.shape[-2] if self.depthwise else 1)
        self.kernel = self.add_weight(initializer="zeros", shape=self.shape)
        self.bias = self.add_weight(initializer="zeros", shape=(outputs,)) if self.shared["use_bias"] else 0

    def call(self, x: Tensor) -> Tensor:
        operation = ops.depthwise_conv if self.depthwise else ops.conv
        dilation = self.shared.get("dilation_rate", 1)
        return operation(x, self.kernel, self.shared["strides"], self.padding, None, dilation) + self.bias


class GroupedTranspose(keras.Layer):  # type: ignore[misc]
    """A transposed convolution of groups, for which Keras has no layer, as the file's note says to do it."""

    def __init__(self, group: int, outputs: int, window: Said, *, use_bias: bool, name: str) -> None:
        super().__init__(name=name)
        self.group, self.outputs, self.window, self.use_bias = group, outputs, window, use_bias

    def build(self, shape: tuple[int, ...]) -> None:
        self.kernel = self.add_weight(
            initializer="zeros", shape=(*self.window["kernel"], self.outputs // self.group, shape[-1])
        )
        self.bias = self.add_weight(initializer="zeros", shape=(self.outputs,)) if self.use_bias else None

    def call(self, x: Tensor) -> Tensor:
        how = "same" if self.window["same"] else "valid"
        pairs = zip(ops.split(x, self.group, axis=-1), ops.split(self.kernel, self.group, axis=-1), strict=True)
        made = [
            ops.conv_transpose(
                part, kernel, self.window["stride"], padding=how, dilation_rate=tuple(self.window["dilation"])
            )
            for part, kernel in pairs
        ]
        y = ops.concatenate(made, axis=-1)
        return y if self.bias is None else y + self.bias


def deconvolution(net: Rebuilding, node: Node, bottoms: list[Tensor]) -> list[Tensor]:
    said, p = net.of(node), node.definition.proto.convolution_param
    window, group = said["window"], said.get("group", 1)
    if group > 1 or (max(window["dilation"]) > 1 and max(window["stride"]) > 1):
        layer: keras.Layer = GroupedTranspose(group, p.num_output, window, use_bias=p.bias_term, name=net.name(node))
    else:
        layer = layers.Conv2DTranspose(
            p.num_output, window["kernel"], window["stride"], "same" if window["same"] else "valid",
            dilation_rate=window["dilation"], use_bias=p.bias_term, name=net.name(node), kernel_initializer="zeros",
        )  # fmt: skip
    tops = []
    for bottom in bottoms:
        top = layer(bottom)
        if not window["same"]:
            (top_cut, bottom_cut), (left, right) = sides(window, "crop")
            top = top[:, top_cut : top.shape[1] - bottom_cut, left : top.shape[2] - right]
        tops.append(top)
    return tops


def pooling(net: Rebuilding, node: Node, bottoms: list[Tensor]) -> list[Tensor]:
    p, window = node.definition.proto.pooling_param, net.of(node).get("window")
    if window is None:
        globally = layers.GlobalMaxPooling2D if p.pool == p.MAX else layers.GlobalAveragePooling2D
        return [globally(keepdims=True)(bottoms[0])]
    x, how = padded(bottoms[0], window)
    pool = layers.MaxPooling2D if p.pool == p.MAX else layers.AveragePooling2D
    top = pool(window["kernel"], window["stride"], how)(x)
    if "then_multiply" in window and how == "valid":
        rows, columns = (np.array(factors, np.float32) for factors in window["then_multiply"])
        top = top * rows[:, None, None] * columns[:, None]
    return [top]


# -- with parameters ---------------------------------------------------------------------------------------------------


def inner_product(net: Rebuilding, node: Node, bottoms: list[Tensor]) -> list[Tensor]:
    p, x = node.definition.proto.inner_product_param, net.in_caffes_order(node, bottoms[0])
    axis = p.axis % len(node.bottom_shapes[0])
    x = ops.reshape(x, (*x.shape[:axis], int(np.prod(x.shape[axis:], dtype=int))))
    dense = layers.Dense(p.num_output, use_bias=p.bias_term, name=net.name(node), kernel_initializer="zeros")
    y = dense(ops.expand_dims(x, 0) if axis == 0 else x)
    return [y[0] if axis == 0 else y]


def batch_norm(net: Rebuilding, node: Node, bottoms: list[Tensor]) -> list[Tensor]:
    said = net.of(node)
    return [layers.BatchNormalization(epsilon=said["epsilon"], name=net.name(node))(bottoms[0])]


class Affine(keras.Layer):  # type: ignore[misc]
    """x·gamma + beta, of those that there are."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], name: str) -> None:
        super().__init__(name=name)
        self.shapes = shapes

    def build(self, shape: tuple[int, ...]) -> None:
        self.values = {name: self.add_weight(initializer="zeros", shape=size) for name, size in self.shapes.items()}

    def call(self, x: Tensor, operand: Tensor = None) -> Tensor:
        x = x * self.values.get("gamma", 1.0 if operand is None else operand)
        return x + self.values.get("beta", 0.0)


def affine(net: Rebuilding, node: Node, bottoms: list[Tensor]) -> list[Tensor]:
    if "merged_into" in net.of(node):
        return bottoms
    name = net.name(node)
    shapes = {
        key.removeprefix(f"{name}/"): tuple(array["shape"])
        for key, array in net.said["arrays"].items() if key.startswith(f"{name}/")
    }  # fmt: skip
    if len(bottoms) == 1:
        return [Affine(shapes, name)(bottoms[0])]
    axis = 0 if not node.bottom_shapes[1] else getattr(node.definition.proto, f"{node.type.lower()}_param").axis
    rank, operand = len(node.bottom_shapes[0]), node.bottom_shapes[1]
    lined_up = ops.reshape(bottoms[1], (*([1] * (axis % rank)), *operand, *([1] * (rank - axis % rank - len(operand)))))
    lined_up = ops.transpose(lined_up, net.axes(node.definition.bottoms[0]))
    return [Affine(shapes, name)(bottoms[0], lined_up) if node.type == "Scale" else bottoms[0] + lined_up]


def prelu(net: Rebuilding, node: Node, bottoms: list[Tensor]) -> list[Tensor]:
    return [layers.PReLU(shared_axes=net.of(node)["shared_axes"] or None, name=net.name(node))(bottoms[0])]


def embed(net: Rebuilding, node: Node, bottoms: list[Tensor]) -> list[Tensor]:
    p = node.definition.proto.embed_param
    return [layers.Embedding(p.input_dim, p.num_output, "zeros", name=net.name(node))(ops.cast(bottoms[0], "int32"))]


def recurrent(net: Rebuilding, node: Node, bottoms: list[Tensor]) -> list[Tensor]:
    """Step by step, so that `cont` can clear the state before each."""
    p, is_lstm = node.definition.proto.recurrent_param, node.type == "LSTM"
    x, cont, *rest = bottoms
    steps, streams, states = x.shape[0], x.shape[1], 2 if is_lstm else 1
    start = [ops.expand_dims(cont[0], 1) * np.zeros((1, p.num_output), np.float32) for _ in range(states)]
    if p.expose_hidden:
        start = [state[0] for state in rest[-states:]]
        rest = rest[:-states]
    cell = (layers.LSTM if is_lstm else layers.SimpleRNN)(
        p.num_output, return_state=True, name=net.name(node), kernel_initializer="zeros", recurrent_initializer="zeros"
    )  # fmt: skip
    dense = layers.Dense(p.num_output, activation="tanh", name=f"{net.name(node)}_output", kernel_initializer="zeros")
    made = []
    for t in range(steps):
        features = [ops.reshape(x[t], (streams, -1)), *(ops.reshape(static, (streams, -1)) for static in rest)]
        start = [state * ops.expand_dims(cont[t], 1) for state in start]
        y, *start = cell(ops.expand_dims(ops.concatenate(features, axis=-1), 1), initial_state=start)
        made.append(y if is_lstm else dense(y))
    return [ops.stack(made), *([ops.expand_dims(state, 0) for state in start] if p.expose_hidden else [])]


def lstm(net: Rebuilding, node: Node, bottoms: list[Tensor]) -> list[Tensor]:
    """Without an indicator: every sequence starts with the first step."""
    p, shape = node.definition.proto.lstm_param, node.top_shapes[0]
    items = shape[1] if len(shape) == 3 else p.batch_size
    steps = ops.transpose(ops.reshape(bottoms[0], (-1, items, node.params[0].shape[1])), (1, 0, 2))
    cell = layers.LSTM(
        p.num_output, return_sequences=True, name=net.name(node), kernel_initializer="zeros",
        recurrent_initializer="zeros",
    )  # fmt: skip
    return [ops.reshape(ops.transpose(cell(steps), (1, 0, 2)), shape)]


# -- without parameters ------------------------------------------------------------------------------------------------


def elementwise(function: Callable[[Tensor], Tensor]) -> Callable[[Rebuilding, Node, list[Tensor]], list[Tensor]]:
    return lambda net, node, bottoms: [function(bottoms[0])]


def relu(net: Rebuilding, node: Node, bottoms: list[Tensor]) -> list[Tensor]:
    return [ops.leaky_relu(bottoms[0], node.definition.proto.relu_param.negative_slope)]


def softmax(net: Rebuilding, node: Node, bottoms: list[Tensor]) -> list[Tensor]:
    return [ops.softmax(bottoms[0], axis=net.held_axis(node, node.definition.proto.softmax_param.axis))]


def concat(net: Rebuilding, node: Node, bottoms: list[Tensor]) -> list[Tensor]:
    return [ops.concatenate(bottoms, axis=net.held_axis(node, node.definition.proto.concat_param.axis))]


def eltwise(net: Rebuilding, node: Node, bottoms: list[Tensor]) -> list[Tensor]:
    p = node.definition.proto.eltwise_param
    if p.operation == p.SUM:
        weights = list(p.coeff) or [1.0] * len(bottoms)
        return [sum(weight * bottom for weight, bottom in zip(weights, bottoms, strict=True))]
    return [(ops.maximum if p.operation == p.MAX else ops.multiply)(*bottoms)]


def power(net: Rebuilding, node: Node, bottoms: list[Tensor]) -> list[Tensor]:
    p = node.definition.proto.power_param
    return [(p.shift + p.scale * bottoms[0]) ** p.power]


def flatten(net: Rebuilding, node: Node, bottoms: list[Tensor]) -> list[Tensor]:
    x = net.in_caffes_order(node, bottoms[0])
    axes = net.axes(node.definition.tops[0])
    if net.is_in_caffes_order(node):
        return [ops.transpose(ops.reshape(x, node.top_shapes[0]), axes)]
    return [ops.reshape(x, [node.top_shapes[0][axis] for axis in axes])]


def crop(net: Rebuilding, node: Node, bottoms: list[Tensor]) -> list[Tensor]:
    offset = node.definition.proto.crop_param.offset[0]
    height, width = node.top_shapes[0][2:]
    return [bottoms[0][:, offset : offset + height, offset : offset + width]]


def lrn(net: Rebuilding, node: Node, bottoms: list[Tensor]) -> list[Tensor]:
    p, (x,) = node.definition.proto.lrn_param, bottoms
    half, channels = p.local_size // 2, x.shape[-1]
    if p.norm_region == p.WITHIN_CHANNEL:
        squares = ops.pad(x * x, [(0, 0), (half, half), (half, half), (0, 0)])
        return [x / (1 + p.alpha * ops.average_pool(squares, p.local_size, 1)) ** p.beta]
    squares = ops.pad(x * x, [(0, 0)] * 3 + [(half, half)])
    total = sum(squares[..., i : i + channels] for i in range(p.local_size))
    return [x / (p.k + p.alpha / p.local_size * total) ** p.beta]


def slices(net: Rebuilding, node: Node, bottoms: list[Tensor]) -> list[Tensor]:
    axis = net.held_axis(node, node.definition.proto.slice_param.axis)
    ends = np.cumsum([shape[node.definition.proto.slice_param.axis] for shape in node.top_shapes])
    return list(ops.split(bottoms[0], ends[:-1].tolist(), axis=axis))


def convolution_3d(net: Rebuilding, node: Node, bottoms: list[Tensor]) -> list[Tensor]:
    window = net.of(node)["window"]
    x, how = padded(bottoms[0], window)
    kernel, bias = node.params[0].shape, len(node.params) > 1
    return [
        layers.Conv3D(
            kernel[0], window["kernel"], window["stride"], how, use_bias=bias, name=net.name(node), kernel_initializer="zeros"
        )(x)
    ]  # fmt: skip


class LocallyConnected(keras.Layer):  # type: ignore[misc]
    """Filters of its own for each place: patches by their places' matrices."""

    def __init__(self, window: Said, shapes: list[tuple[int, ...]], name: str) -> None:
        super().__init__(name=name)
        self.window, self.shapes = window, shapes

    def build(self, shape: tuple[int, ...]) -> None:
        self.kernel, *bias = (self.add_weight(initializer="zeros", shape=shape) for shape in self.shapes)
        self.bias = bias[0] if bias else None

    def call(self, x: Tensor) -> Tensor:
        (rows, columns), (down, right) = self.window["kernel"], self.window["stride"]
        made, place = [], 0
        for top in range(0, x.shape[1] - rows + 1, down):
            for left in range(0, x.shape[2] - columns + 1, right):
                patch = ops.reshape(x[:, top : top + rows, left : left + columns], (x.shape[0], -1))
                made.append(patch @ self.kernel[place])
                place += 1
        height = (x.shape[1] - rows) // down + 1
        y = ops.reshape(ops.stack(made, axis=1), (x.shape[0], height, -1, self.kernel.shape[-1]))
        return y if self.bias is None else y + self.bias


def local(net: Rebuilding, node: Node, bottoms: list[Tensor]) -> list[Tensor]:
    window, name = net.of(node)["window"], net.name(node)
    x = ops.pad(bottoms[0], [(0, 0), *sides(window, "pad"), (0, 0)])
    arrays = net.said["arrays"]
    shapes = [
        tuple(arrays[f"{name}/{kernel}"]["shape"]) for kernel in ("kernel", "bias") if f"{name}/{kernel}" in arrays
    ]
    return [LocallyConnected(window, shapes, name)(x)]


def normalize(net: Rebuilding, node: Node, bottoms: list[Tensor]) -> list[Tensor]:
    p, (x,) = node.definition.proto.norm_param, bottoms
    axes = tuple(range(1, len(x.shape))) if p.across_spatial else -1
    unit = x / ops.sqrt(ops.sum(x * x, axis=axes, keepdims=True) + net.of(node)["epsilon"])
    return affine(net, node, [unit])


def bn(net: Rebuilding, node: Node, bottoms: list[Tensor]) -> list[Tensor]:
    return batch_norm(net, node, bottoms) if len(node.params) == 4 else affine(net, node, bottoms)


BUILDERS: dict[str, Callable[[Rebuilding, Node, list[Tensor]], list[Tensor]]] = {
    "BN": bn,
    "BatchNorm": batch_norm,
    "Bias": affine,
    "Concat": concat,
    "Convolution": convolution,
    "ConvolutionDepthwise": convolution,
    "Convolution3D": convolution_3d,
    "Crop": crop,
    "Deconvolution": deconvolution,
    "DepthwiseConvolution": convolution,
    "Dropout": elementwise(lambda x: x),
    "Eltwise": eltwise,
    "Embed": embed,
    "Flatten": flatten,
    "InnerProduct": inner_product,
    "LRN": lrn,
    "LSTM": recurrent,
    "Local": local,
    "Lstm": lstm,
    "Normalize": normalize,
    "PReLU": prelu,
    "Pooling": pooling,
    "Power": power,
    "RNN": recurrent,
    "ReLU": relu,
    "Reshape": flatten,
    "Scale": affine,
    "Sigmoid": elementwise(ops.sigmoid),
    "Slice": slices,
    "Softmax": softmax,
    "TanH": elementwise(ops.tanh),
}
