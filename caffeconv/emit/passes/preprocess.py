"""Preprocessing as the model's first nodes, so that images can be fed as they are."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from caffeconv.emit.metadata import PREPROCESS_KEY, Folding, ImagePreprocessing, Layout, Preprocess
from caffeconv.emit.passes.channels_last import channels_last, note_layouts, transpose_node
from caffeconv.emit.passes.editor import Dims, ModelEdit, dims_of
from caffeconv.emit.precision import keep_float32
from caffeconv.errors import CaffeconvError
from caffeconv.tensor.shape import FloatArray, format_shape


def with_preprocess(model: ModelProto, preprocess: Preprocess, *, folding: Folding = "all") -> ModelProto:
    """The model with a uint8 input of pictures, which it crops, turns to its channel order, centres and scales itself.

    Given  data (float32) → conv   Result  data (uint8) → crop → Cast → Sub mean → Mul scale → conv , with as much of it
    in the convolution's weights as these can hold: order and scale always, the mean where nothing is padded.

    The numbers are those of Caffe's DataTransformer. Raises CaffeconvError where the net takes no pictures, or mean and
    size do not go with them.
    """
    edit = ModelEdit(model)
    plan = _plan(edit, preprocess)
    folded = _fold(edit, plan, folding)
    inner = edit.fresh(f"{plan.blob}/net")
    edit.rename({plan.blob: inner})
    nodes = _first_nodes(edit, plan, folded, inner)
    edit.nodes[:0] = nodes
    keep_float32(edit.metadata, [node.name for node in nodes])
    value = next(value for value in edit.inputs if value.name == plan.blob)
    dims: Dims = (plan.batch, plan.channels, *plan.size)
    if plan.layout == "nhwc":
        dims = channels_last(dims)
        note_layouts(edit.metadata, {plan.blob: 4})
    value.CopyFrom(helper.make_tensor_value_info(plan.blob, TensorProto.UINT8, list(dims)))
    description = ImagePreprocessing(
        plan.blob, plan.order, plan.net_order, plan.size, plan.crop, _mean_entry(preprocess.mean), plan.scale, folded
    )  # fmt: skip
    edit.metadata[PREPROCESS_KEY] = json.dumps(dataclasses.asdict(description), sort_keys=True)
    return edit.model()


@dataclass(frozen=True)
class _Plan:
    """What is to be done to the pictures of one input."""

    blob: str
    batch: int | str
    channels: int
    size: tuple[int, int]
    crop: tuple[int, int]
    layout: Layout
    order: str
    net_order: str
    mean: FloatArray | None
    """C×1×1 or C×H×W, cropped, in the order of the pictures' channels."""
    scale: float

    @property
    def offsets(self) -> tuple[int, int]:
        # caffe: (height - crop_size) / 2, rounded down, in TEST
        return (self.size[0] - self.crop[0]) // 2, (self.size[1] - self.crop[1]) // 2

    @property
    def turns(self) -> bool:
        return self.order != self.net_order


def _plan(edit: ModelEdit, preprocess: Preprocess) -> _Plan:
    """Raises CaffeconvError where the net takes no pictures, or mean and size do not go with them."""
    value = _image_input(edit, preprocess)
    batch, channels, *rest = dims_of(value)
    crop = (int(rest[0]), int(rest[1]))
    mean = _mean(preprocess, value.name, int(channels))
    order, net_order = ("RGB" if rgb else "BGR" for rgb in (preprocess.pictures == "rgb", preprocess.rgb))
    if channels != 3:
        order = net_order = "grey" if channels == 1 else "as the net has them"
    plan = _Plan(
        value.name, batch, int(channels), _image_size(preprocess, mean, crop), crop, preprocess.layout, order, net_order,
        mean, float(preprocess.scale),
    )  # fmt: skip
    if mean is None:
        return plan
    if mean.shape[1:] != (1, 1):
        top, left = plan.offsets
        mean = mean[:, top : top + crop[0], left : left + crop[1]]
    return replace(plan, mean=mean[::-1] if plan.turns else mean)


def _first_nodes(edit: ModelEdit, plan: _Plan, folded: Sequence[str], output: str) -> list[NodeProto]:
    """The nodes from the pictures to the value `output`, without what is folded into weights."""
    chain = _NodeChain(edit, plan.blob, plan.blob, [])
    if plan.size != plan.crop:
        _crop(chain, plan)
    if plan.layout == "nhwc":
        dims = channels_last((plan.batch, plan.channels, *plan.crop))
        planes = edit.fresh(f"{plan.blob}/planes")
        chain.append(transpose_node(edit, chain.value, planes, dims, (0, 3, 1, 2), f"{plan.blob}/to_nchw"))
    mean = plan.mean
    if plan.turns and "order" not in folded:
        chain.op("Gather", "turned", edit.constant(f"{plan.blob}/last_first", np.array([2, 1, 0], np.int64)), axis=1)
        mean = None if mean is None else mean[::-1]
    chain.op("Cast", "float", to=TensorProto.FLOAT)
    if mean is not None and "mean" not in folded:
        chain.op("Sub", "centred", edit.constant(f"{plan.blob}/mean", mean))
    if plan.scale != 1 and "scale" not in folded:
        chain.op("Mul", "scaled", edit.constant(f"{plan.blob}/scale", np.array(plan.scale, np.float32)))
    chain.nodes[-1].output[0] = output
    return chain.nodes


class _NodeChain:
    """The new nodes, each reading the output of the one before."""

    def __init__(self, edit: ModelEdit, blob: str, value: str, nodes: list[NodeProto]) -> None:
        self.edit, self.blob, self.value, self.nodes = edit, blob, value, nodes

    def op(self, op_type: str, what: str, *inputs: str, **attributes: int | Sequence[int]) -> None:
        output = self.edit.fresh(f"{self.blob}/{what}")
        self.append(self.edit.node(op_type, [self.value, *inputs], output, f"{self.blob}/{what}", **attributes))

    def append(self, node: NodeProto) -> None:
        self.nodes.append(node)
        self.value = node.output[0]


def _image_input(edit: ModelEdit, preprocess: Preprocess) -> ValueInfoProto:
    """The input that takes pictures."""
    inputs = [value for value in edit.inputs if preprocess.input in (None, value.name)]
    if not inputs:
        names = ", ".join(value.name for value in edit.inputs)
        raise CaffeconvError(f"`preprocess=…`: the net has no input '{preprocess.input}'; it has {names or 'none'}")
    for value in inputs:
        dims = dims_of(value)
        if len(dims) == 4 and all(isinstance(size, int) and size > 0 for size in dims[1:]):
            return value
    shapes = ", ".join(f"{value.name} {format_dims(dims_of(value))}" for value in inputs)
    raise CaffeconvError(
        f"`preprocess=…`: no input of the net takes pictures; N×C×H×W of known C, H and W was needed, but it has {shapes}"
    )


def format_dims(dims: Dims) -> str:
    """``batch×3×224×224``"""
    return "×".join(str(size) for size in dims) or "scalar"


def _mean(preprocess: Preprocess, name: str, channels: int) -> FloatArray | None:
    """C×1×1 or C×H×W, in the net's order; CaffeconvError for a mean of another number of channels."""
    if preprocess.mean is None or not np.any(preprocess.mean):
        return None
    mean = np.asarray(preprocess.mean, np.float32)
    mean = mean.reshape(-1, 1, 1) if mean.ndim < 3 else mean
    if mean.ndim != 3 or mean.shape[0] not in (1, channels):
        shape = f"{format_shape(mean.shape)}" if mean.shape[1:] != (1, 1) else f"{len(mean)} values"
        raise CaffeconvError(
            f"`mean=…`: the mean is {shape}, the input '{name}' has {channels} channels; one value, one for each channel, or "
            f"{channels}×H×W was needed"
        )
    if not np.isfinite(mean).all():
        raise CaffeconvError("`mean=…`: the mean holds values that are no finite numbers")
    return np.repeat(mean, channels, axis=0) if mean.shape[0] == 1 else mean


def _image_size(preprocess: Preprocess, mean: FloatArray | None, net: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the pictures; CaffeconvError where they are too small, or not those of the mean."""
    size = preprocess.size or net
    if mean is not None and mean.shape[1:] != (1, 1):
        size = preprocess.size or (mean.shape[1], mean.shape[2])
    if mean is not None and mean.shape[1:] not in ((1, 1), size):
        raise CaffeconvError(
            f"`mean=…`: the mean is of {mean.shape[1]}×{mean.shape[2]} pixels, the pictures before the crop of "
            f"{format_shape(size)}; "
            "leave the size out (`size=…`), or give a mean value per channel"
        )
    if size[0] < net[0] or size[1] < net[1]:
        raise CaffeconvError(
            f"`preprocess=…`: pictures of {format_shape(size)} cannot be cropped to the net's "
            f"{format_shape(net)}; larger ones were needed"
        )
    return size


def _crop(chain: _NodeChain, plan: _Plan) -> None:
    (top, left), (height, width) = plan.offsets, plan.crop
    axes = [1, 2] if plan.layout == "nhwc" else [2, 3]
    bounds = {"crop_from": [top, left], "crop_to": [top + height, left + width], "crop_axes": axes}
    names = [chain.edit.constant(f"{plan.blob}/{what}", np.array(v, np.int64)) for what, v in bounds.items()]
    chain.op("Slice", "crop", *names)


def _fold(edit: ModelEdit, plan: _Plan, folding: Folding) -> tuple[str, ...]:
    """Gives the convolution that reads the pictures weights that turn, scale and centre them; says which of these.

    w·(x - m)·s = (w·s)·x - (w·s)·m, the last of which is a bias where every window holds as many real pixels: where
    nothing is padded. Nothing is folded where others read the pictures or the weights too.
    """
    conv = _first_convolution(edit, plan.blob)
    if conv is None or folding == "none":
        return ()
    folded = []
    weight = edit.array(conv.input[1]).astype(np.float64)
    if plan.turns:
        weight = weight[:, ::-1]
        folded.append("order")
    if folding == "all" and plan.scale != 1:
        weight = weight * plan.scale
        folded.append("scale")
    pads = next((list(a.ints) for a in conv.attribute if a.name == "pads"), [])
    mean = plan.mean if plan.mean is not None and plan.mean.shape[1:] == (1, 1) and not any(pads) else None
    if folding == "all" and mean is not None and _has_own_bias(edit, conv):
        _add_bias(edit, conv, -(weight * mean.astype(np.float64)).sum(axis=(1, 2, 3)))
        folded.append("mean")
    edit.replace_constant(conv.input[1], weight.astype(np.float32))
    return tuple(folded)


def _first_convolution(edit: ModelEdit, value: str) -> NodeProto | None:
    readers = edit.readers(value)
    if len(readers) != 1 or readers[0].op_type != "Conv" or readers[0].domain or readers[0].input[0] != value:
        return None
    conv = readers[0]
    group = next((a.i for a in conv.attribute if a.name == "group"), 1)
    own = conv.input[1] in edit.initializers and len(edit.readers(conv.input[1])) == 1 and value not in conv.input[1:]
    return conv if own and group == 1 else None


def _has_own_bias(edit: ModelEdit, conv: NodeProto) -> bool:
    return len(conv.input) < 3 or (conv.input[2] in edit.initializers and len(edit.readers(conv.input[2])) == 1)


def _add_bias(edit: ModelEdit, conv: NodeProto, offset: NDArray[np.float64]) -> None:
    if len(conv.input) < 3:
        conv.input.append(edit.constant(f"{conv.name}/bias", offset.astype(np.float32)))
        return
    bias = edit.array(conv.input[2]).astype(np.float64)
    edit.replace_constant(conv.input[2], (bias + offset).astype(np.float32))


def _mean_entry(mean: FloatArray | None) -> tuple[float, ...] | str:
    if mean is None:
        return ()
    return format_shape(mean.shape) if np.ndim(mean) == 3 else tuple(float(value) for value in np.ravel(mean))
