"""What the losses share: how labels are read, what a loss is divided by, and Caffe's checks of both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from caffeconv.caffe_pb2 import LayerParameter
from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.element_types import FLOAT, INT64
from caffeconv.ir.layer import LabelRule, Node
from caffeconv.layers.gradient_ops import like_bottom, times
from caffeconv.tensor.shape import Dims, Shape, Shapes, canonical_axis, count, format_shape

if TYPE_CHECKING:
    from caffeconv.caffe_pb2 import LossParameter
    from caffeconv.ir.onnx_builder import OnnxBuilder


# -- Caffe's checks ----------------------------------------------------------------------------------------------------


def legacy_shape(shape: Shape, bottom: int) -> Shape:
    """num, channels, height, width; axes that a blob lacks count as 1 (caffe: Blob::LegacyShape)."""
    if len(shape) > 4:
        raise LayerError(
            f"bottom[{bottom}] is {format_shape(shape)}; Cannot use legacy accessors on Blobs with > 4 axes."
        )
    return (*shape, *([1] * (4 - len(shape))))


def check_same_batch(bottoms: Shapes) -> None:
    """Refuses what Caffe's LossLayer::Reshape refuses."""
    for bottom in bottoms[:2]:
        canonical_axis(0, len(bottom))
    if bottoms[0][0] != bottoms[1][0]:
        raise LayerError(
            f"The data and label should have the same first dimension. ({bottoms[0][0]} vs. {bottoms[1][0]}; "
            f"bottom[0] is {format_shape(bottoms[0])}, bottom[1] is {format_shape(bottoms[1])})"
        )


def check_label_count(scores: Shape, labels: Shape, axis: int, axis_name: str) -> None:
    """Refuses labels that are not one for each prediction; `axis` is that of the classes."""
    predictions = count(scores, 0, axis) * count(scores, axis + 1)
    if predictions != count(labels):
        raise LayerError(
            f"Number of labels must match number of predictions ({predictions} vs. {count(labels)}; predictions are "
            f"{format_shape(scores)}, labels {format_shape(labels)}); e.g., if {axis_name} axis == 1 and prediction shape is "
            "(N, C, H, W), label count (number of labels) must be N*H*W, with integer values in {0, 1, ..., C-1}."
        )


def labels_for(scores: Shape, axis: int) -> Shape:
    """The shape of one label for each prediction: that of the scores with one class."""
    axis = canonical_axis(axis, len(scores), scores)
    return (*scores[:axis], 1, *scores[axis + 1 :]) if len(scores) > 2 else scores[:1]


def why_labels_are_refused(scores: Shape, labels: Shape, axis: int) -> Sequence[str]:
    """What is to be said where there is not one label for each prediction."""
    axis = canonical_axis(axis, len(scores), scores)
    places = (*scores[:axis], *scores[axis + 1 :])
    if count(places) == count(labels):
        return ()
    wanted = labels_for(scores, axis)
    product = f"{'·'.join(map(str, places))} = {count(places)}" if len(places) > 1 else str(count(places))
    return [
        f"The scores {format_shape(scores)} are {scores[axis]} classes at {product} places, one label each: "
        f"shape {format_shape(wanted)} "
        f"was needed, or another of {count(places)} numbers; the labels have {count(labels)}.",
        *_other_labels(scores, labels, places, axis),
    ]


def is_one_hot(scores: Shape, labels: Shape, axis: int) -> bool:
    """Whether labels have a number for each class of the scores, along the same axis."""
    if not -len(scores) <= axis < len(scores):
        return False
    axis = canonical_axis(axis, len(scores), scores)
    return count(scores) == count(labels) and len(labels) > axis and labels[axis] == scores[axis] > 1


def with_another_loss(layer: LayerDef, loss: str) -> LayerParameter:
    """A layer of another type over the same bottoms and tops, with what a loss of any type says."""
    proto = LayerParameter(name=layer.name, type=loss, bottom=layer.bottoms, top=layer.proto.top)
    proto.loss_weight.extend(layer.proto.loss_weight)
    proto.include.extend(layer.proto.include)
    proto.exclude.extend(layer.proto.exclude)
    if layer.proto.HasField("loss_param"):
        proto.loss_param.CopyFrom(layer.proto.loss_param)
    return proto


def behind_arg_max(layer: LayerDef, bottoms: Shapes, axis: int) -> Sequence[LayerParameter]:
    """ArgMax over one-hot labels, and the layer over the class numbers that it makes; none for other labels."""
    if len(bottoms) < 2 or not bottoms[0] or not is_one_hot(bottoms[0], bottoms[1], axis):
        return ()
    top = f"{layer.name}_{layer.bottoms[1]}"
    numbers = LayerParameter(name=top, type="ArgMax", bottom=[layer.bottoms[1]], top=[top])
    numbers.argmax_param.axis = canonical_axis(axis, len(bottoms[0]), bottoms[0])
    numbers.include.extend(layer.proto.include)
    numbers.exclude.extend(layer.proto.exclude)
    proto = LayerParameter()
    proto.CopyFrom(layer.proto)
    proto.bottom[1] = top
    return numbers, proto


def _other_labels(scores: Shape, labels: Shape, places: Shape, axis: int) -> Iterator[str]:
    """What labels of another number of values seem to be, and what takes them."""
    factor = count(labels) // count(places) if count(places) and count(labels) % count(places) == 0 else 0
    if factor == scores[axis]:
        yield (
            "They have a number for every class: one-hot, or several labels at once. One-hot labels become class numbers "
            "(the place of the 1) where they are made, or by an ArgMax before the loss; where several classes may hold at "
            "once, SigmoidCrossEntropyLoss takes them as they are."
        )
    elif factor == 3 and len(labels) == 4 and labels[1] == 3:
        yield (
            "They have 3 channels, a picture in colour: class numbers are a picture of one channel, which ImageData reads "
            "with `is_color: false`."
        )
    elif factor > 1 and len(labels) > 1 and labels[1] == factor:
        yield (
            f"They are {factor} labels for each place: a Slice along axis 1 gives each loss its own, and for "
            "several labels at once SigmoidCrossEntropyLoss takes a 0 or 1 for every class."
        )
    elif len(labels) == 4 and len(scores) == 4 and labels[2:] != scores[2:]:
        yield (
            f"The labels are maps of {format_shape(labels[2:])}, the scores of {format_shape(scores[2:])}: crop or resize "
            "the labels where they are made, or bring the scores to their size (Deconvolution or Interp, then Crop)."
        )


def why_targets_are_refused(scores: Shape, targets: Shape) -> Sequence[str]:
    """What is to be said where a loss wants a number for each score and is given class numbers."""
    classes = scores[1] if len(scores) > 1 else 0
    if classes < 2 or count(targets) * classes != count(scores):
        return ()
    return [
        f"There is one label for each place, which seems to be the number of its class, and {classes} scores: this loss wants "
        "a target for every score (0 or 1 for each class). SoftmaxWithLoss takes class numbers."
    ]


def label_rule(node: Node, axis: int, ignore_label: int | None) -> Sequence[LabelRule]:
    """One label in bottom[1] for each prediction in bottom[0]."""
    scores = node.bottom_shapes[0]
    return (LabelRule(1, scores[canonical_axis(axis, len(scores))], ignore_label),)


def first_label_rule(node: Node) -> Sequence[LabelRule]:
    """One label for each item, the classes being all of an item's values; further labels are not looked at."""
    scores, labels = node.bottom_shapes[:2]
    return (LabelRule(1, count(scores, 1)),) if count(labels) == scores[0] else ()


# -- what a loss is divided by -----------------------------------------------------------------------------------------

Divisor = float | str
"""A number, or the ONNX value (float32 scalar) that holds it where it depends on the batch or the labels."""


@dataclass(frozen=True)
class Normalization:
    """What a loss is divided by, at least 1 (caffe: get_normalizer), and the labels that do not count."""

    mode: str
    ignore_label: int | None
    pre_fixed: float

    @classmethod
    def parse(cls, p: LossParameter, *, default: str = "VALID") -> Normalization:
        mode = default
        if p.HasField("normalization"):
            mode = p.NormalizationMode.Name(p.normalization)
        elif p.HasField("normalize"):  # caffe: the old field, where the new one is not set
            mode = "VALID" if p.normalize else "BATCH_SIZE"
        return cls(mode, p.ignore_label if p.HasField("ignore_label") else None, p.pre_fixed_normalizer)

    def divisor(self, onnx: OnnxBuilder, *, everything: Divisor, batch: Divisor, ignored: str | None) -> Divisor:
        """`everything`: the number of labels; `batch`: that of outer items; `ignored`: where labels do not count."""
        if self.mode == "NONE":
            return 1.0
        if self.mode == "PRE_FIXED":  # R-FCN's and Intel's forks
            return max(1.0, self.pre_fixed)
        divisor = batch if self.mode == "BATCH_SIZE" else everything
        if self.mode == "VALID" and ignored is not None:
            divisor = count_not(onnx, ignored)
        return at_least_one(onnx, divisor)


def count_not(onnx: OnnxBuilder, mask: str) -> str:
    """How often `mask` is false, a float32 scalar."""
    counted = onnx.op("Cast", [onnx.op("Not", [mask], what="counted")], what="ones", to=FLOAT)
    return onnx.reduce("ReduceSum", counted, None, keepdims=False, what="valid_count")


def at_least_one(onnx: OnnxBuilder, divisor: Divisor) -> Divisor:
    if isinstance(divisor, float):
        return max(1.0, divisor)
    return onnx.op("Max", [divisor, onnx.floats("one", 1)], what="normalizer")


def extent(onnx: OnnxBuilder, value: str, axes: Sequence[int], what: str) -> Divisor:
    """How many elements a blob has over some axes: a number where all are known, else computed when the model runs."""
    dims = [onnx.dims(value)[axis] for axis in axes]
    known = float(np.prod([dim for dim in dims if dim is not None]))
    open_axes = [axis for axis, dim in zip(axes, dims, strict=True) if dim is None]
    if not open_axes:
        return known
    sizes = onnx.op("Gather", [onnx.op("Shape", [value]), onnx.ints(f"{what}_axes", open_axes)], what=f"{what}_sizes")
    size = onnx.reduce("ReduceProd", sizes, None, keepdims=False, what=f"{what}_size")
    total = onnx.op("Cast", [size], what=what, to=FLOAT)
    return total if known == 1 else onnx.op("Mul", [total, onnx.floats(f"{what}_known", known)], what=what)


def emit_quotient(onnx: OnnxBuilder, total: str, divisor: Divisor, top: str) -> None:
    """top = total / divisor, the layer's last node."""
    if isinstance(divisor, float):
        divisor = onnx.floats("normalizer", divisor)
    onnx.emit("Div", [total, divisor], [top])


def weighted(onnx: OnnxBuilder, slope: str, loss_diff: str, divisor: Divisor, factor: float = 1) -> str:
    """slope · factor · loss_diff / divisor: the gradient of a loss that was divided so."""
    if isinstance(divisor, float):
        scale = onnx.op("Mul", [loss_diff, onnx.floats("slope_factor", factor / divisor)], what="slope_scale")
    else:
        scale = onnx.op("Div", [loss_diff, divisor], what="slope_scale")
        scale = times(onnx, scale, factor, "slope_scale")
    return onnx.op("Mul", [slope, scale], what="weighted_slope")


# -- labels in ONNX ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Labels:
    """Labels as class numbers, int64, of the scores' shape but with 1 along the class axis; 0 where they are illegal.

    legal, ignored: boolean, of that shape; ignored is None where no label is.
    """

    index: str
    legal: str
    ignored: str | None

    def marked(self, onnx: OnnxBuilder, value: str) -> str:
        """`value` (one for each label), but NaN where a label is out of range and 0 where it is ignored."""
        value = onnx.op("Where", [self.legal, value, onnx.floats("nan", np.nan)], what="legal_only")
        if self.ignored is None:
            return value
        return onnx.op("Where", [self.ignored, onnx.floats("zero", 0), value], what="counted_only")


def read_labels(onnx: OnnxBuilder, node: Node, axis: int, ignore_label: int | None) -> Labels:
    """The labels in bottom[1] for the scores in bottom[0], classes along `axis`; truncated toward zero, as in Caffe."""
    scores = node.bottoms[0]
    classes = onnx.fixed((onnx.dims(scores)[axis],), "the number of classes varies with the batch")[0]
    dims = onnx.dims(scores)
    shaped = _with_dims(onnx, node.bottoms[1], (*dims[:axis], 1, *dims[axis + 1 :]), axis)
    return class_numbers(onnx, shaped, classes, ignore_label)


def class_numbers(onnx: OnnxBuilder, labels: str, classes: int, ignore_label: int | None) -> Labels:
    """Labels of any shape as class numbers of that shape."""
    whole = onnx.op("Cast", [labels], what="labels", to=INT64)
    zero = onnx.ints("first_class", 0)
    not_below = onnx.op("Not", [onnx.op("Less", [whole, zero], what="below")], what="not_below")
    below_end = onnx.op("Less", [whole, onnx.ints("classes", classes)], what="below_end")
    legal = onnx.op("And", [not_below, below_end], what="legal")
    index = onnx.op("Where", [legal, whole, zero], what="index")
    if ignore_label is None:
        return Labels(index, legal, None)
    return Labels(index, legal, onnx.op("Equal", [whole, onnx.ints("ignore_label", ignore_label)], what="ignored"))


def _with_dims(onnx: OnnxBuilder, labels: str, dims: Dims, axis: int) -> str:
    have = onnx.dims(labels)
    if have == dims:
        return labels
    if have == (*dims[:axis], *dims[axis + 1 :]):
        return onnx.op("Unsqueeze", [labels, onnx.ints("class_axis", [axis])], what="labels_per_class")
    return onnx.reshape(labels, dims, what="labels_like_scores")


def first_labels(onnx: OnnxBuilder, node: Node, bottom: int) -> str:
    """The first N labels of a bottom, N×1, for the N items of bottom[0]."""
    labels, items = node.bottoms[bottom], node.bottom_shapes[0][0]
    flat = onnx.reshape(labels, (-1, 1), what="flat_labels")
    if count(node.bottom_shapes[bottom]) == items:
        return flat
    end = onnx.op("Gather", [onnx.op("Shape", [node.bottoms[0]]), onnx.ints("first_axis", [0])], what="items")
    return onnx.op("Slice", [flat, onnx.ints("start", [0]), end, onnx.ints("first_axis", [0])], what="first_labels")


def one_hot(onnx: OnnxBuilder, index: str, classes: int, axis: int, rank: int) -> str:
    """Boolean: where along `axis` the class is; `index` has 1 there."""
    numbers = np.arange(classes).reshape([classes if i == axis else 1 for i in range(rank)])
    return onnx.op("Equal", [index, onnx.ints("class_numbers", numbers)], what="one_hot")


# -- arithmetic --------------------------------------------------------------------------------------------------------


def not_below(onnx: OnnxBuilder, value: str, bound: float, what: str) -> str:
    """max(value, bound), but NaN stays NaN as with Caffe's std::max(value, bound), which ONNX leaves open."""
    limit = onnx.floats(f"{what}_limit", bound)
    return onnx.op("Where", [onnx.op("Less", [value, limit]), limit, value], what=what)


def rows(onnx: OnnxBuilder, node: Node, numbers: Sequence[int]) -> list[str]:
    """Those bottoms; each as N×K where their shapes differ."""
    if len({node.bottom_shapes[i] for i in numbers}) == 1:
        return [node.bottoms[i] for i in numbers]
    return [onnx.op("Flatten", [node.bottoms[i]], what=f"rows_{i}", axis=1) for i in numbers]


def from_rows(onnx: OnnxBuilder, node: Node, diff: str, bottom: int, numbers: Sequence[int]) -> str:
    """A diff of a bottom that `rows` of those numbers gave, in the bottom's own shape."""
    if len({node.bottom_shapes[i] for i in numbers}) == 1:
        return diff
    return unflattened(onnx, node, diff, bottom)


def unflattened(onnx: OnnxBuilder, node: Node, diff: str, bottom: int = 0) -> str:
    """A diff N×K in the shape of its bottom."""
    shape = node.bottom_shapes[bottom]
    return like_bottom(onnx, node, diff, bottom, shape=(shape[0], count(shape, 1)))
