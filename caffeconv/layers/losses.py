"""Losses, and Accuracy. A loss is a scalar blob; Caffe adds those of a net up, each times its `loss_weight`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from caffeconv.caffe_pb2 import LayerParameter
from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.element_types import FLOAT, INT64
from caffeconv.ir.layer import Arity, Gradients, LabelRule, Layer, Node, exactly
from caffeconv.layers.gradient_ops import refuse_to
from caffeconv.layers.label_ops import (
    Divisor,
    Labels,
    Normalization,
    behind_arg_max,
    check_label_count,
    check_same_batch,
    class_numbers,
    emit_quotient,
    extent,
    first_label_rule,
    first_labels,
    from_rows,
    is_one_hot,
    label_rule,
    labels_for,
    legacy_shape,
    not_below,
    one_hot,
    read_labels,
    rows,
    unflattened,
    weighted,
    why_labels_are_refused,
    why_targets_are_refused,
    with_another_loss,
)
from caffeconv.tensor.shape import Shape, Shapes, canonical_axis, count, format_shape

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder

FLT_MIN = float(np.finfo(np.float32).tiny)
LOG_THRESHOLD = 1e-20  # caffe: kLOG_THRESHOLD


def clamp_of(least: float) -> str:
    """What to know of a loss in which no probability counts as less than `least`."""
    return (
        f"a probability below {least:.2g} counts as {least:.2g}, as in Caffe, so that no -log of one is above "
        f"{-math.log(least):.3g}, however wrong the prediction"
    )


@dataclass(frozen=True)
class Loss(Layer):
    """bottom[0]: N×…; bottom[1]: N×…; the top is a scalar (caffe: loss_layer.cpp)."""

    bottoms: ClassVar[Arity] = exactly(2)
    makes_missing_tops: ClassVar[bool] = True
    is_loss: ClassVar[bool] = True
    never_forced: ClassVar[tuple[int, ...]] = (1,)
    label_bottoms: ClassVar[tuple[int, ...]] = (1,)
    top_kinds: ClassVar[tuple[str, ...]] = ("loss",)
    computes_in_float32: ClassVar[bool] = True
    float32_tops: ClassVar[tuple[int, ...]] = (0,)

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls()

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        check_same_batch(bottoms)
        self.check(bottoms)
        return [()]

    def check(self, bottoms: Shapes) -> None:
        """Raises LayerError where Caffe refuses the bottoms' shapes, beyond what it asks of every loss."""


# -- losses of class scores --------------------------------------------------------------------------------------------


def softmax_over(layer: LayerDef, axis: int) -> LayerParameter:
    """A Softmax along `axis` of the layer's first bottom, without name and top."""
    proto = LayerParameter(type="Softmax", bottom=layer.bottoms[:1])
    if axis != 1:
        proto.softmax_param.axis = axis
    return proto


@dataclass(frozen=True)
class SoftmaxWithLoss(Loss):
    """loss = Σ -log max(softmax(x)[label], FLT_MIN) / normalizer (caffe: softmax_loss_layer.cpp).

    bottom[0]: scores, classes along `axis`; bottom[1]: as many labels as there are predictions, in any shape.
    SegNet's `class_weighting` multiplies each term by its label's weight.
    """

    tops: ClassVar[Arity] = Arity(1, 2)
    clamp: ClassVar[str] = clamp_of(FLT_MIN)

    axis: int
    normalization: Normalization
    class_weights: tuple[float, ...]

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        if len(layer.tops) == 2:
            # caffe: the inner Softmax, which has one top, is given the layer's loss weights too
            raise LayerError(
                f"2 tops, {len(layer.loss_weights)} loss_weight; loss_weight must be unspecified or specified "
                "once per top blob. (2 vs. 1): Caffe 1.0 refuses SoftmaxWithLoss with two tops, whatever its weights. "
                f"Leave the top '{layer.tops[1]}' out, and take the probabilities from a Softmax layer of their own."
            )
        p = layer.proto.loss_param
        if p.label_smoothing != 0:
            raise LayerError(f"label_smoothing is {p.label_smoothing:g}; only 0 can be converted. Leave it out.")
        if p.adaptive_weighting or p.scale != 1:
            raise LayerError(
                "adaptive_weighting and scale of training_toolbox_caffe are not supported: only a loss that does not weigh "
                "itself can be computed. Leave them out; `deploy=True` takes the loss out"
            )
        weights = tuple(p.class_weighting) if p.weight_by_label_freqs else ()
        return cls(layer.proto.softmax_param.axis, Normalization.parse(p), weights)

    def check(self, bottoms: Shapes) -> None:
        axis = canonical_axis(self.axis, len(bottoms[0]), bottoms[0])
        check_label_count(bottoms[0], bottoms[1], axis, "softmax")
        classes = bottoms[0][axis]
        if self.class_weights and len(self.class_weights) != classes:
            raise LayerError(
                f"{len(self.class_weights)} class_weighting for {classes} classes; "
                "Number of class weight values does not match the number of classes."
            )

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        scores = node.bottoms[0]
        axis = canonical_axis(self.axis, len(node.bottom_shapes[0]))
        labels = read_labels(onnx, node, axis, self.normalization.ignore_label)
        log_prob = onnx.op("LogSoftmax", [scores], what="log_prob", axis=axis)
        picked = onnx.op("GatherElements", [log_prob, labels.index], what="picked", axis=axis)
        terms = onnx.op("Neg", [not_below(onnx, picked, math.log(FLT_MIN), "guarded")], what="terms")
        if self.class_weights:
            by_class = onnx.floats("class_weights", self.class_weights)
            weights = onnx.op("Gather", [by_class, labels.index], what="weights")
            terms = onnx.op("Mul", [terms, weights], what="weighted")
        total = onnx.reduce("ReduceSum", labels.marked(onnx, terms), None, keepdims=False, what="total")
        emit_quotient(onnx, total, self._divisor(node, onnx, axis, labels), node.tops[0])

    def _divisor(self, node: Node, onnx: OnnxBuilder, axis: int, labels: Labels) -> Divisor:
        return self.normalization.divisor(
            onnx, everything=extent(onnx, node.bottoms[1], range(len(node.bottom_shapes[1])), "everything"),
            batch=extent(onnx, node.bottoms[0], range(axis), "batch"), ignored=labels.ignored,
        )  # fmt: skip

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        refuse_to("label inputs", propagate_down, 1)
        shape = node.bottom_shapes[0]
        axis = canonical_axis(self.axis, len(shape))
        labels = read_labels(onnx, node, axis, self.normalization.ignore_label)
        prob = onnx.op("Softmax", node.bottoms[:1], what="prob", axis=axis)
        at_label = onnx.op(
            "Cast", [one_hot(onnx, labels.index, shape[axis], axis, len(shape))], what="wanted", to=FLOAT
        )
        slope = onnx.op("Sub", [prob, at_label], what="slope")
        if self.class_weights:
            weights = onnx.op(
                "Gather", [onnx.floats("class_weights", self.class_weights), labels.index], what="weights"
            )
            slope = onnx.op("Mul", [slope, weights], what="weighted")
        divisor = self._divisor(node, onnx, axis, labels)
        return Gradients((weighted(onnx, labels.marked(onnx, slope), top_diffs[0], divisor), None))

    @classmethod
    def prediction_layer(cls, layer: LayerDef) -> LayerParameter:
        return softmax_over(layer, layer.proto.softmax_param.axis)

    def is_spatially_uniform(self, node: Node) -> bool:
        return self.axis == 1

    def label_rules(self, node: Node) -> Sequence[LabelRule]:
        return label_rule(node, self.axis, self.normalization.ignore_label)

    def fitting_bottoms(self, bottoms: Shapes) -> Sequence[Mapping[int, Shape]]:
        return [{1: labels_for(bottoms[0], self.axis)}]

    def why_refused(self, bottoms: Shapes) -> Sequence[str]:
        return why_labels_are_refused(bottoms[0], bottoms[1], self.axis)

    @classmethod
    def other_rules(cls, layer: LayerDef, bottoms: Shapes) -> Sequence[LayerParameter]:
        one_hot = len(bottoms) == 2 and is_one_hot(bottoms[0], bottoms[1], layer.proto.softmax_param.axis)
        return [with_another_loss(layer, "SigmoidCrossEntropyLoss")] if one_hot else ()

    @classmethod
    def with_labels_made_over(cls, layer: LayerDef, bottoms: Shapes) -> Sequence[LayerParameter]:
        return behind_arg_max(layer, bottoms, layer.proto.softmax_param.axis)


@dataclass(frozen=True)
class MultinomialLogisticLoss(Loss):
    """loss = Σ -log max(p[label], 1e-20) / N (caffe: multinomial_logistic_loss_layer.cpp).

    bottom[0]: N×… probabilities, all of an item's values being its classes; bottom[1]: N labels.
    """

    clamp: ClassVar[str] = clamp_of(LOG_THRESHOLD)

    def check(self, bottoms: Shapes) -> None:
        legacy_shape(bottoms[0], 0)
        for name, size in zip(("channels", "height", "width"), legacy_shape(bottoms[1], 1)[1:], strict=True):
            if size != 1:
                raise LayerError(
                    f"labels are {format_shape(bottoms[1])}; bottom[1]->{name}() == 1 ({size} vs. 1): "
                    "one label for each item was needed"
                )

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        classes = count(node.bottom_shapes[0], 1)
        labels = class_numbers(onnx, first_labels(onnx, node, 1), classes, None)
        prob = onnx.op("Flatten", [node.bottoms[0]], what="prob", axis=1)
        picked = onnx.op("GatherElements", [prob, labels.index], what="picked", axis=1)
        terms = onnx.op("Neg", [onnx.op("Log", [not_below(onnx, picked, LOG_THRESHOLD, "guarded")])], what="terms")
        total = onnx.reduce("ReduceSum", labels.marked(onnx, terms), None, keepdims=False, what="total")
        emit_quotient(onnx, total, extent(onnx, node.bottoms[0], [0], "items"), node.tops[0])

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        refuse_to("label inputs", propagate_down, 1)
        classes = count(node.bottom_shapes[0], 1)
        labels = class_numbers(onnx, first_labels(onnx, node, 1), classes, None)
        prob = onnx.op("Flatten", [node.bottoms[0]], what="prob", axis=1)
        inverse = onnx.op("Reciprocal", [not_below(onnx, prob, LOG_THRESHOLD, "guarded_all")], what="inverse")
        at_label = one_hot(onnx, labels.index, classes, 1, 2)
        slope = onnx.op("Where", [at_label, onnx.op("Neg", [inverse]), onnx.floats("zero", 0)], what="slope")
        diff = weighted(onnx, labels.marked(onnx, slope), top_diffs[0], extent(onnx, node.bottoms[0], [0], "items"))
        return Gradients((unflattened(onnx, node, diff), None))

    def label_rules(self, node: Node) -> Sequence[LabelRule]:
        return first_label_rule(node)


@dataclass(frozen=True)
class HingeLoss(Loss):
    """loss = Σ max(0, 1 ∓ x) / N, squared with norm L2; - at the label, + elsewhere (caffe: hinge_loss_layer.cpp).

    bottom[0]: N×…, all of an item's values being its classes; bottom[1]: labels, of which the first N are read.
    """

    squared: bool

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.hinge_loss_param
        return cls(p.norm == p.L2)

    def check(self, bottoms: Shapes) -> None:
        legacy_shape(bottoms[0], 0)
        if count(bottoms[1]) < bottoms[0][0]:
            raise LayerError(f"labels are {format_shape(bottoms[1])}; one for each of {bottoms[0][0]} items was needed")

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        margins, labels, _ = self._margins(node, onnx)
        op_type = "ReduceSumSquare" if self.squared else "ReduceSum"
        total = onnx.reduce(op_type, labels.marked(onnx, margins), None, keepdims=False, what="total")
        emit_quotient(onnx, total, extent(onnx, node.bottoms[0], [0], "items"), node.tops[0])

    def _margins(self, node: Node, onnx: OnnxBuilder) -> tuple[str, Labels, str]:
        """max(0, 1 ∓ x), N×K; the labels; and where they are, boolean, N×K."""
        classes = count(node.bottom_shapes[0], 1)
        labels = class_numbers(onnx, first_labels(onnx, node, 1), classes, None)
        scores = onnx.op("Flatten", [node.bottoms[0]], what="scores", axis=1)
        at_label = one_hot(onnx, labels.index, classes, 1, 2)
        signed = onnx.op("Where", [at_label, onnx.op("Neg", [scores]), scores], what="signed")
        margin = onnx.op("Add", [signed, onnx.floats("one", 1)], what="margin")
        # caffe: max(0, margin), which is 0 where the margin is NaN
        positive = onnx.op("Greater", [margin, onnx.floats("zero", 0)], what="positive")
        return onnx.op("Where", [positive, margin, onnx.floats("zero", 0)], what="kept"), labels, at_label

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        refuse_to("label inputs", propagate_down, 1)
        margins, labels, at_label = self._margins(node, onnx)
        slope = onnx.op("Where", [at_label, onnx.op("Neg", [margins]), margins], what="slope")
        slope = slope if self.squared else onnx.op("Sign", [slope], what="slope_sign")
        items, factor = extent(onnx, node.bottoms[0], [0], "items"), 2 if self.squared else 1
        diff = weighted(onnx, labels.marked(onnx, slope), top_diffs[0], items, factor)
        return Gradients((unflattened(onnx, node, diff), None))

    def label_rules(self, node: Node) -> Sequence[LabelRule]:
        return first_label_rule(node)


# -- losses of values --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EuclideanLoss(Loss):
    """loss = Σ (a - b)² / 2N; a, b: N×…, as many values for each item (caffe: euclidean_loss_layer.cpp)."""

    never_forced: ClassVar[tuple[int, ...]] = ()

    def check(self, bottoms: Shapes) -> None:
        a, b = bottoms
        if count(a, 1) != count(b, 1):
            raise LayerError(
                f"the bottoms are {format_shape(a)} and {format_shape(b)}; Inputs must have the same dimension. "
                f"({count(a, 1)} vs. {count(b, 1)} values for each item)"
            )
        legacy_shape(a, 0)

    def fitting_bottoms(self, bottoms: Shapes) -> Sequence[Mapping[int, Shape]]:
        return [{1: bottoms[0]}]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        diff = onnx.op("Sub", rows(onnx, node, (0, 1)), what="diff")
        total = onnx.reduce("ReduceSumSquare", diff, None, keepdims=False, what="total")
        half = onnx.op("Mul", [total, onnx.floats("half", 0.5)], what="half_total")
        emit_quotient(onnx, half, extent(onnx, node.bottoms[0], [0], "items"), node.tops[0])

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        diff = onnx.op("Sub", rows(onnx, node, (0, 1)), what="diff")
        items = extent(onnx, node.bottoms[0], [0], "items")
        both = (weighted(onnx, diff, top_diffs[0], items, sign) for sign in (1, -1))
        return Gradients([from_rows(onnx, node, rows_diff, i, (0, 1)) for i, rows_diff in enumerate(both)])


@dataclass(frozen=True)
class SigmoidCrossEntropyLoss(Loss):
    """loss = Σ log(1 + exp -|x|) - x · (t - [x ≥ 0]) / normalizer (caffe: sigmoid_cross_entropy_loss_layer.cpp).

    bottom[0]: x, N×…; bottom[1]: targets t in 0…1, as many. Targets that are `ignore_label` once truncated toward zero
    do not count. Divided by N unless loss_param says otherwise.
    """

    normalization: Normalization

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls(Normalization.parse(layer.proto.loss_param, default="BATCH_SIZE"))

    def check(self, bottoms: Shapes) -> None:
        if count(bottoms[0]) != count(bottoms[1]):
            raise LayerError(
                f"the bottoms are {format_shape(bottoms[0])} and {format_shape(bottoms[1])}; "
                "SIGMOID_CROSS_ENTROPY_LOSS layer inputs "
                f"must have the same count. ({count(bottoms[0])} vs. {count(bottoms[1])})"
            )

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        x, target = rows(onnx, node, (0, 1))
        at_least_zero = onnx.op("GreaterOrEqual", [x, onnx.floats("zero", 0)], what="at_least_zero")
        step = onnx.op("Cast", [at_least_zero], what="step", to=FLOAT)
        linear = onnx.op("Mul", [x, onnx.op("Sub", [target, step], what="offset")], what="linear")
        decayed = onnx.op("Exp", [onnx.op("Neg", [onnx.op("Abs", [x])])], what="decayed")
        curved = onnx.op("Log", [onnx.op("Add", [decayed, onnx.floats("one", 1)], what="grown")], what="curved")
        terms = onnx.op("Sub", [curved, linear], what="terms")
        counted, ignored = self._counted(onnx, terms, target)
        total = onnx.reduce("ReduceSum", counted, None, keepdims=False, what="total")
        emit_quotient(onnx, total, self._divisor(node, onnx, ignored), node.tops[0])

    def _counted(self, onnx: OnnxBuilder, values: str, target: str) -> tuple[str, str | None]:
        """The values, but 0 where the target is `ignore_label`; and where that is, boolean."""
        if self.normalization.ignore_label is None:
            return values, None
        whole = onnx.op("Cast", [target], what="whole_target", to=INT64)
        ignore_label = onnx.ints("ignore_label", self.normalization.ignore_label)
        ignored = onnx.op("Equal", [whole, ignore_label], what="ignored")
        return onnx.op("Where", [ignored, onnx.floats("zero", 0), values], what="counted_only"), ignored

    def _divisor(self, node: Node, onnx: OnnxBuilder, ignored: str | None) -> Divisor:
        return self.normalization.divisor(
            onnx, everything=extent(onnx, node.bottoms[0], range(len(node.bottom_shapes[0])), "everything"),
            batch=extent(onnx, node.bottoms[0], [0], "batch"), ignored=ignored,
        )  # fmt: skip

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        refuse_to("label inputs", propagate_down, 1)
        x, target = rows(onnx, node, (0, 1))
        slope = onnx.op("Sub", [onnx.op("Sigmoid", [x], what="prob"), target], what="slope")
        counted, ignored = self._counted(onnx, slope, target)
        diff = weighted(onnx, counted, top_diffs[0], self._divisor(node, onnx, ignored))
        return Gradients((from_rows(onnx, node, diff, 0, (0, 1)), None))

    @classmethod
    def prediction_layer(cls, layer: LayerDef) -> LayerParameter:
        return LayerParameter(type="Sigmoid", bottom=layer.bottoms[:1])

    def fitting_bottoms(self, bottoms: Shapes) -> Sequence[Mapping[int, Shape]]:
        return [{1: bottoms[0]}]

    def why_refused(self, bottoms: Shapes) -> Sequence[str]:
        return why_targets_are_refused(bottoms[0], bottoms[1])

    @classmethod
    def other_rules(cls, layer: LayerDef, bottoms: Shapes) -> Sequence[LayerParameter]:
        refused = why_targets_are_refused(bottoms[0], bottoms[1]) if len(bottoms) == 2 else ()
        return [with_another_loss(layer, "SoftmaxWithLoss")] if refused else ()


@dataclass(frozen=True)
class SmoothL1Loss(Loss):
    """loss = Σ w_out · f(w_in · (a - b)) / N, f(d) = σ²d²/2 where |d| < 1/σ², else |d| - 1/(2σ²).

    bottoms: a, b, all N×…; then Fast R-CNN's inside and outside weights, or SSD's inside weights alone, σ being 1
    (rbgirshick/caffe-fast-rcnn, weiliu89/caffe: smooth_L1_loss_layer).
    """

    bottoms: ClassVar[Arity] = Arity(2, 4)
    never_forced: ClassVar[tuple[int, ...]] = ()
    label_bottoms: ClassVar[tuple[int, ...]] = (1, 2, 3)

    sigma_sq: float
    fast_rcnn: bool

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        sigma = layer.proto.smooth_l1_loss_param.sigma
        if len(layer.bottoms) == 3 and sigma != 1:
            raise LayerError(
                f"3 bottoms and sigma {sigma:g}; If weights are used, must specify both inside and outside weights "
                "(SSD's form, with inside weights only, knows no sigma)"
            )
        # SSD's form has no parameters, and no outside weights
        return cls(sigma * sigma, len(layer.bottoms) == 4 or layer.proto.HasField("smooth_l1_loss_param"))

    def check(self, bottoms: Shapes) -> None:
        wanted = legacy_shape(bottoms[0], 0)
        for i, bottom in enumerate(bottoms):
            if legacy_shape(bottom, i) != wanted:
                raise LayerError(
                    f"bottom[0] is {format_shape(bottoms[0])}, bottom[{i}] {format_shape(bottom)}; "
                    "all must have the same num, channels, height and width"
                )

    def fitting_bottoms(self, bottoms: Shapes) -> Sequence[Mapping[int, Shape]]:
        return [{i: bottoms[0] for i in range(1, len(bottoms)) if bottoms[i] != bottoms[0]}]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        diff, size, small, weights = self._differences(node, onnx)
        square = onnx.op("Mul", [diff, diff], what="square")
        parabola = onnx.op("Mul", [square, onnx.floats("half_sigma_sq", 0.5 * self.sigma_sq)], what="parabola")
        line = onnx.op("Sub", [size, onnx.floats("half_bend", 0.5 * self.bend)], what="line")
        terms = onnx.op("Where", [small, parabola, line], what="terms")
        if len(weights) == 2:
            terms = onnx.op("Mul", [terms, weights[1]], what="outside")
        total = onnx.reduce("ReduceSum", terms, None, keepdims=False, what="total")
        emit_quotient(onnx, total, extent(onnx, node.bottoms[0], [0], "items"), node.tops[0])

    @property
    def bend(self) -> float:
        """Where the parabola ends; with σ 0 every difference is small."""
        return 1 / self.sigma_sq if self.sigma_sq else math.inf

    def _differences(self, node: Node, onnx: OnnxBuilder) -> tuple[str, str, str, Sequence[str]]:
        """w_in · (a - b), its absolute value, where that is small (boolean), and the weights."""
        a, b, *weights = rows(onnx, node, range(len(node.bottoms)))
        diff = onnx.op("Sub", [a, b], what="diff")
        if weights:
            diff = onnx.op("Mul", [diff, weights[0]], what="inside")
        size = onnx.op("Abs", [diff], what="size")
        return diff, size, onnx.op("Less", [size, onnx.floats("bend", self.bend)], what="small"), weights

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        diff, _, small, weights = self._differences(node, onnx)
        steep = onnx.op("Mul", [diff, onnx.floats("sigma_sq", self.sigma_sq)], what="steep")
        slope = onnx.op("Where", [small, steep, onnx.op("Sign", [diff])], what="slope")
        # caffe-ssd: the inside weights alone, its third bottom, do not come into the gradient again
        for weight in weights if len(weights) == 2 else ():
            slope = onnx.op("Mul", [slope, weight], what="weighted")
        items, numbers = extent(onnx, node.bottoms[0], [0], "items"), range(len(node.bottoms))
        both = (weighted(onnx, slope, top_diffs[0], items, sign) for sign in (1, -1))
        diffs = [from_rows(onnx, node, diff, i, numbers) for i, diff in enumerate(both)]
        return Gradients((*diffs, *([None] * len(weights))))

    @property
    def first_loss_weight(self) -> float:
        # caffe-fast-rcnn: its LayerSetUp does not call LossLayer's, which sets the weight; SSD's does
        return 0.0 if self.fast_rcnn else 1.0


# -- accuracy ----------------------------------------------------------------------------------------------------------
