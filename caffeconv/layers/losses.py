"""Losses, and Accuracy. A loss is a scalar blob; Caffe adds those of a net up, each times its `loss_weight`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from caffeconv.caffe_format.caffemodel import StoredBlob, read_binaryproto
from caffeconv.errors import CaffeconvError, Diagnostic, LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Arity, Gradients, LabelRule, Layer, Node, exactly
from caffeconv.layers.gradients import INT64, refuse_all, refuse_to
from caffeconv.layers.labels import (
    FLOAT,
    Divisor,
    Labels,
    Normalization,
    at_least_one,
    check_label_count,
    check_same_batch,
    class_numbers,
    count_not,
    emit_quotient,
    extent,
    first_label_rule,
    first_labels,
    from_rows,
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
)  # fmt: skip
from caffeconv.tensor.shape import Shape, Shapes, by_x, canonical_axis, count, shape_string

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder

FLT_MIN = float(np.finfo(np.float32).tiny)
LOG_THRESHOLD = 1e-20  # caffe: kLOG_THRESHOLD


@dataclass(frozen=True)
class Loss(Layer):
    """bottom[0]: N×…; bottom[1]: N×…; the top is a scalar (caffe: loss_layer.cpp)."""

    bottoms: ClassVar[Arity] = exactly(2)
    makes_missing_tops: ClassVar[bool] = True
    is_loss: ClassVar[bool] = True
    top_kinds: ClassVar[tuple[str, ...]] = ("loss",)
    label_bottoms: ClassVar[tuple[int, ...]] = (1,)
    never_forced: ClassVar[tuple[int, ...]] = (1,)
    keeps_float32: ClassVar[bool] = True
    exact_tops: ClassVar[tuple[int, ...]] = (0,)

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls()

    def check(self, bottoms: Shapes) -> None:
        """Raises LayerError where Caffe refuses the bottoms' shapes, beyond what it asks of every loss."""

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        check_same_batch(bottoms)
        self.check(bottoms)
        return [()]


# -- losses of class scores --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SoftmaxWithLoss(Loss):
    """loss = Σ -log max(softmax(x)[label], FLT_MIN) / normalizer (caffe: softmax_loss_layer.cpp).

    bottom[0]: scores, classes along `axis`; bottom[1]: as many labels as there are predictions, in any shape.
    SegNet's `class_weighting` multiplies each term by its label's weight.
    """

    prediction: ClassVar[str] = "Softmax"
    tops: ClassVar[Arity] = Arity(1, 2)

    axis: int
    normalization: Normalization
    class_weights: tuple[float, ...]

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        if len(layer.tops) == 2:
            # caffe: the inner Softmax, which has one top, is given the layer's loss weights too
            raise LayerError(
                f"2 tops, {len(layer.proto.loss_weight)} loss_weight; loss_weight must be unspecified or specified "
                "once per top blob. (2 vs. 1): Caffe 1.0 refuses SoftmaxWithLoss with two tops, whatever its weights. "
                f"Leave the top '{layer.tops[1]}' out, and take the probabilities from a Softmax layer of their own."
            )
        p = layer.proto.loss_param
        if p.label_smoothing != 0:
            raise LayerError(f"label_smoothing is {p.label_smoothing:g}; only 0 can be converted. Leave it out.")
        weights = tuple(p.class_weighting) if p.weight_by_label_freqs else ()
        return cls(layer.proto.softmax_param.axis, Normalization.parse(p), weights)

    def fitting_bottoms(self, bottoms: Shapes) -> Sequence[Mapping[int, Shape]]:
        return [{1: labels_for(bottoms[0], self.axis)}]

    def why_refused(self, bottoms: Shapes) -> Sequence[str]:
        return why_labels_are_refused(bottoms[0], bottoms[1], self.axis)

    def check(self, bottoms: Shapes) -> None:
        axis = canonical_axis(self.axis, len(bottoms[0]), bottoms[0])
        check_label_count(bottoms[0], bottoms[1], axis, "softmax")
        classes = bottoms[0][axis]
        if self.class_weights and len(self.class_weights) != classes:
            raise LayerError(
                f"{len(self.class_weights)} class_weighting for {classes} classes; "
                "Number of class weight values does not match the number of classes."
            )

    def label_rules(self, node: Node) -> Sequence[LabelRule]:
        return label_rule(node, self.axis, self.normalization.ignore_label)

    def treats_places_alike(self, node: Node) -> bool:
        return self.axis == 1

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


@dataclass(frozen=True)
class InfogainLoss(Loss):
    """loss = Σ -Σₖ H[label, k] · log max(softmax(x)ₖ, 1e-20) / normalizer (caffe: infogain_loss_layer.cpp).

    bottom[0]: scores, L classes along `axis`; bottom[1]: as many labels as there are predictions, in any shape; H: L·L
    numbers, row = true label, from the file `source` or from bottom[2]. A second top is softmax(x).

    probabilities: bottom[0] holds probabilities, not scores, and nothing is normalized, as in Caffe before 2017.
    """

    label_bottoms: ClassVar[tuple[int, ...]] = (1, 2)
    prediction: ClassVar[str] = "Softmax"
    bottoms: ClassVar[Arity] = Arity(2, 3)
    tops: ClassVar[Arity] = Arity(1, 2)
    top_kinds: ClassVar[tuple[str, ...]] = ("loss", "probabilities")

    axis: int
    normalization: Normalization
    source: str
    stored: StoredBlob | None = field(compare=False)
    """H of the file `source`; None where it is bottom[2]."""
    gives_prob: bool
    probabilities: bool = False

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        if len(layer.tops) == 2 and not layer.proto.loss_weight:
            # caffe: LossLayer::LayerSetUp adds a weight for the first top only
            raise LayerError(
                "2 tops and no loss_weight; loss_weight must be unspecified or specified once per top blob. (2 vs. 1) "
                "Add `loss_weight: 1 loss_weight: 0`."
            )
        p = layer.proto.loss_param
        if p.HasField("normalize"):
            raise LayerError(
                'loss_param.normalize is set; normalize is deprecated. use "normalization" '
                "(VALID for true, BATCH_SIZE for false)"
            )
        normalization = Normalization.parse(p)
        if normalization.mode == "PRE_FIXED":
            raise LayerError("normalization is PRE_FIXED; FULL, VALID, BATCH_SIZE or NONE was needed")
        if len(layer.bottoms) == 3 and layer.force_backward:
            raise LayerError(
                f"force_backward asks for a gradient of bottom '{layer.bottoms[2]}'; "
                f"{layer.type} Layer cannot backpropagate to infogain inputs. Leave `force_backward` out of the net."
            )
        p_own = layer.proto.infogain_loss_param
        stored = _read_h(layer) if len(layer.bottoms) < 3 else None
        probabilities = layer.infogain == "probabilities"
        return cls(p_own.axis, normalization, p_own.source, stored, len(layer.tops) == 2, probabilities)

    @classmethod
    def prediction_of(cls, layer: LayerDef) -> str:
        return "" if layer.infogain == "probabilities" else cls.prediction

    def fitting_bottoms(self, bottoms: Shapes) -> Sequence[Mapping[int, Shape]]:
        scores = bottoms[0]
        axis = canonical_axis(self.axis, len(scores), scores)
        classes = math.isqrt(count(self._h_shape(bottoms)))
        labels: dict[int, Shape] = {}
        if count(bottoms[1]) != count(labels_for(scores, axis)):
            labels = {1: labels_for(scores, axis)}
        if classes * classes == count(self._h_shape(bottoms)) and classes == scores[axis]:
            return [labels]
        known: list[Mapping[int, Shape]] = []
        if classes * classes == count(self._h_shape(bottoms)) and classes:
            known.append({0: (*scores[:axis], classes, *scores[axis + 1 :]), **labels})
        if self.stored is None:
            known.append({2: (*((1, 1) if len(bottoms[2]) == 4 else ()), scores[axis], scores[axis]), **labels})
        return known

    def why_refused(self, bottoms: Shapes) -> Sequence[str]:
        axis = canonical_axis(self.axis, len(bottoms[0]), bottoms[0])
        said = [*why_labels_are_refused(bottoms[0], bottoms[1], axis)]
        numbers, classes = count(self._h_shape(bottoms)), bottoms[0][axis]
        if numbers == classes * classes:
            return said
        root = math.isqrt(numbers)
        made_for = (
            f"{root}×{root}, for {root} classes" if root * root == numbers else "no square of a number of classes"
        )
        where = f"the file {self.source}" if self.stored is not None else "bottom[2]"
        said.append(
            f"H in {where} holds {numbers} numbers: {made_for}; the scores have {classes} classes on axis {axis}, which "
            f"needs {classes}×{classes} = {classes * classes}."
        )
        return said

    def _h_shape(self, bottoms: Shapes) -> Shape:
        return self.stored.shape if self.stored is not None else bottoms[2]

    def check(self, bottoms: Shapes) -> None:
        axis = canonical_axis(self.axis, len(bottoms[0]), bottoms[0])
        check_label_count(bottoms[0], bottoms[1], axis, "infogain")
        classes = bottoms[0][axis]
        h = self._h_shape(bottoms)
        if count(h) != classes * classes:
            where = f"H in {self.source}" if self.stored is not None else "H, the third bottom,"
            raise LayerError(
                f"{where} is {shape_string(h)}; infogain->count() == num_labels_*num_labels_ "
                f"({count(h)} vs. {classes * classes}): {classes}×{classes} was needed (classes on axis {axis})"
            )

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        loss = super().top_shapes(bottoms)
        return [*loss, bottoms[0]] if self.gives_prob else loss

    def remarks(self, node: Node, sources: Sequence[Node | None]) -> Sequence[Diagnostic]:
        source = sources[0]
        if node.definition.infogain is not None or source is None or source.layer.top_kinds != ("probabilities",):
            return ()
        message = (
            f"bottom '{node.definition.bottoms[0]}' holds the probabilities of {source.name} ({source.type}); "
            "scores were needed: in Caffe 1.0 InfogainLoss applies softmax itself, so here it is applied twice"
        )
        hint = (
            "If the net was written for Caffe before April 2017, whose InfogainLoss took probabilities, say "
            f"--infogain probabilities. Else give the layer what goes into {source.name}. --infogain logits leaves the "
            "net as it is, without this warning."
        )
        return [Diagnostic("warning", node.definition.where, message, hint, node.name)]

    def label_rules(self, node: Node) -> Sequence[LabelRule]:
        return label_rule(node, self.axis, self.normalization.ignore_label)

    def treats_places_alike(self, node: Node) -> bool:
        return self.axis == 1

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        from caffeconv.ops.functions import infogain_attributes, infogain_loss_function

        scores, labels = node.bottoms[:2]
        rank = len(node.bottom_shapes[0])
        axis = canonical_axis(self.axis, rank)
        classes, ignored = onnx.dims(scores)[axis], self.normalization.ignore_label
        kind = "probabilities" if self.probabilities else "logits"
        key = f"{rank}d_axis{axis}_{classes}_{self.normalization.mode}_{ignored}_{kind}_{len(node.tops)}tops"
        function = infogain_loss_function(
            onnx.overload_for("InfogainLoss", key), rank=rank, axis=axis, normalization=self.normalization.mode,
            ignore_label=ignored, num_classes=classes, probabilities=self.probabilities, with_prob=self.gives_prob,
            opset=onnx.opset,
        )  # fmt: skip
        attributes = infogain_attributes(
            axis=axis, normalization=self.normalization.mode, ignore_label=ignored, probabilities=self.probabilities
        )
        h = node.bottoms[2] if self.stored is None else self._constant_h(onnx, node.bottom_shapes[0][axis])
        onnx.function_op(function, [scores, labels, h], node.tops, **attributes)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        from caffeconv.ops.functions import infogain_attributes, infogain_loss_grad_function

        refuse_to("label inputs", propagate_down, 1)
        refuse_to("infogain inputs", propagate_down, 2)
        scores, labels = node.bottoms[:2]
        rank = len(node.bottom_shapes[0])
        axis = canonical_axis(self.axis, rank)
        classes, ignored = onnx.dims(scores)[axis], self.normalization.ignore_label
        kind = "probabilities" if self.probabilities else "logits"
        key = f"{rank}d_axis{axis}_{classes}_{self.normalization.mode}_{ignored}_{kind}"
        function = infogain_loss_grad_function(
            onnx.overload_for("InfogainLossGrad", key), rank=rank, axis=axis, normalization=self.normalization.mode,
            ignore_label=ignored, num_classes=classes, probabilities=self.probabilities, opset=onnx.opset,
        )  # fmt: skip
        attributes = infogain_attributes(
            axis=axis, normalization=self.normalization.mode, ignore_label=ignored, probabilities=self.probabilities
        )
        h = node.bottoms[2] if self.stored is None else self._constant_h(onnx, node.bottom_shapes[0][axis])
        diff = onnx.function_value(function, [scores, labels, h, top_diffs[0]], what="bottom_diff", **attributes)
        return Gradients((diff, *([None] * (len(node.bottoms) - 1))))

    def _constant_h(self, onnx: OnnxBuilder, classes: int) -> str:
        assert self.stored is not None
        return onnx.floats("H", self.stored.array().reshape(classes, classes))


def _read_h(layer: LayerDef) -> StoredBlob:
    p = layer.proto.infogain_loss_param
    if not p.HasField("source"):
        raise LayerError(
            "no source and no third bottom; Infogain matrix source must be specified. "
            'Add `infogain_loss_param { source: "H.binaryproto" }` (caffeconv make-h writes one), or H as third bottom.'
        )
    path = layer.find_file(p.source)
    if not path.exists():
        raise LayerError(f"File not found: {p.source}, the infogain matrix H; `caffeconv make-h` writes one")
    try:
        return read_binaryproto(path)
    except CaffeconvError as error:
        raise LayerError(str(error)) from None


@dataclass(frozen=True)
class MultinomialLogisticLoss(Loss):
    """loss = Σ -log max(p[label], 1e-20) / N (caffe: multinomial_logistic_loss_layer.cpp).

    bottom[0]: N×… probabilities, all of an item's values being its classes; bottom[1]: N labels.
    """

    def check(self, bottoms: Shapes) -> None:
        legacy_shape(bottoms[0], 0)
        for name, size in zip(("channels", "height", "width"), legacy_shape(bottoms[1], 1)[1:], strict=True):
            if size != 1:
                raise LayerError(
                    f"labels are {by_x(bottoms[1])}; bottom[1]->{name}() == 1 ({size} vs. 1): "
                    "one label for each item was needed"
                )

    def label_rules(self, node: Node) -> Sequence[LabelRule]:
        return first_label_rule(node)

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
            raise LayerError(f"labels are {by_x(bottoms[1])}; one for each of {bottoms[0][0]} items was needed")

    def label_rules(self, node: Node) -> Sequence[LabelRule]:
        return first_label_rule(node)

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        kept, labels, _ = self._margins(node, onnx)
        op_type = "ReduceSumSquare" if self.squared else "ReduceSum"
        total = onnx.reduce(op_type, labels.marked(onnx, kept), None, keepdims=False, what="total")
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
        kept, labels, at_label = self._margins(node, onnx)
        slope = onnx.op("Where", [at_label, onnx.op("Neg", [kept]), kept], what="slope")
        slope = slope if self.squared else onnx.op("Sign", [slope], what="slope_sign")
        items, factor = extent(onnx, node.bottoms[0], [0], "items"), 2 if self.squared else 1
        diff = weighted(onnx, labels.marked(onnx, slope), top_diffs[0], items, factor)
        return Gradients((unflattened(onnx, node, diff), None))


# -- losses of values --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EuclideanLoss(Loss):
    """loss = Σ (a - b)² / 2N; a, b: N×…, as many values for each item (caffe: euclidean_loss_layer.cpp)."""

    never_forced: ClassVar[tuple[int, ...]] = ()

    def check(self, bottoms: Shapes) -> None:
        a, b = bottoms
        if count(a, 1) != count(b, 1):
            raise LayerError(
                f"the bottoms are {by_x(a)} and {by_x(b)}; Inputs must have the same dimension. "
                f"({count(a, 1)} vs. {count(b, 1)} values for each item)"
            )
        legacy_shape(a, 0)

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
        return Gradients([from_rows(onnx, node, found, i, (0, 1)) for i, found in enumerate(both)])


@dataclass(frozen=True)
class SigmoidCrossEntropyLoss(Loss):
    """loss = Σ log(1 + exp -|x|) - x · (t - [x ≥ 0]) / normalizer (caffe: sigmoid_cross_entropy_loss_layer.cpp).

    bottom[0]: x, N×…; bottom[1]: targets t in 0…1, as many. Targets that are `ignore_label` once truncated toward zero
    do not count. Divided by N unless loss_param says otherwise.
    """

    prediction: ClassVar[str] = "Sigmoid"

    normalization: Normalization

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls(Normalization.parse(layer.proto.loss_param, default="BATCH_SIZE"))

    def check(self, bottoms: Shapes) -> None:
        if count(bottoms[0]) != count(bottoms[1]):
            raise LayerError(
                f"the bottoms are {by_x(bottoms[0])} and {by_x(bottoms[1])}; SIGMOID_CROSS_ENTROPY_LOSS layer inputs "
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


@dataclass(frozen=True)
class ContrastiveLoss(Loss):
    """loss = Σ (d² where similar, else max(margin - d, 0)²) / 2N (caffe: contrastive_loss_layer.cpp).

    bottom[0], bottom[1]: N×C(×1×1), d their Euclidean distance; bottom[2]: N(×1×1×1), similar where it is not 0 once
    truncated toward zero. `legacy_version`: max(margin - d², 0) for those that are not similar.
    """

    label_bottoms: ClassVar[tuple[int, ...]] = (2,)
    never_forced: ClassVar[tuple[int, ...]] = (2,)
    bottoms: ClassVar[Arity] = exactly(3)

    margin: float
    legacy_version: bool

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.contrastive_loss_param
        return cls(p.margin, p.legacy_version)

    def check(self, bottoms: Shapes) -> None:
        a, b, similar = (legacy_shape(bottom, i) for i, bottom in enumerate(bottoms))
        if a[1] != b[1]:
            raise LayerError(
                f"the bottoms are {by_x(bottoms[0])} and {by_x(bottoms[1])}; "
                f"bottom[0]->channels() == bottom[1]->channels() ({a[1]} vs. {b[1]}) was needed"
            )
        sizes = {
            "bottom[0]->height()": a[2], "bottom[0]->width()": a[3], "bottom[1]->height()": b[2],
            "bottom[1]->width()": b[3], "bottom[2]->channels()": similar[1], "bottom[2]->height()": similar[2],
            "bottom[2]->width()": similar[3],
        }  # fmt: skip
        for name, size in sizes.items():
            if size != 1:
                raise LayerError(f"{name} == 1 ({size} vs. 1): N×C, N×C and N were needed")
        if similar[0] < a[0]:
            raise LayerError(f"bottom[2] is {by_x(bottoms[2])}; a number for each of {a[0]} pairs was needed")

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        pairs = self._pairs(node, onnx)
        missing = not_below(onnx, pairs.short, 0, "missing")
        apart = missing if self.legacy_version else onnx.op("Mul", [missing, missing], what="apart")
        terms = onnx.op("Where", [pairs.unlike, apart, pairs.distance_sq], what="terms")
        total = onnx.reduce("ReduceSum", terms, None, keepdims=False, what="total")
        half = onnx.op("Mul", [total, onnx.floats("half", 0.5)], what="half_total")
        emit_quotient(onnx, half, extent(onnx, node.bottoms[0], [0], "items"), node.tops[0])

    def _pairs(self, node: Node, onnx: OnnxBuilder) -> _Pairs:
        a, b = (onnx.op("Flatten", [node.bottoms[i]], what=f"rows_{i}", axis=1) for i in (0, 1))
        diff = onnx.op("Sub", [a, b], what="diff")
        distance_sq = onnx.reduce("ReduceSumSquare", diff, [1], keepdims=True, what="distance_sq")
        distance = onnx.op("Sqrt", [distance_sq], what="distance")
        margin = onnx.floats("margin", self.margin)
        short = onnx.op("Sub", [margin, distance_sq if self.legacy_version else distance], what="short")
        whole = onnx.op("Cast", [first_labels(onnx, node, 2)], what="whole_label", to=INT64)
        unlike = onnx.op("Equal", [whole, onnx.ints("unlike", 0)], what="unlike")
        return _Pairs(diff, distance_sq, distance, short, unlike)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        pairs, zero = self._pairs(node, onnx), onnx.floats("zero", 0)
        pull = onnx.floats("minus_one", -1)
        if not self.legacy_version:
            # caffe: 1e-4 keeps the distance from being 0
            guarded = onnx.op("Add", [pairs.distance, onnx.floats("least_distance", 1e-4)], what="guarded_distance")
            pull = onnx.op("Neg", [onnx.op("Div", [pairs.short, guarded], what="push")], what="pull")
        near = onnx.op("Greater", [pairs.short, zero], what="near")
        factor = onnx.op("Where", [near, pull, zero], what="unlike_factor")
        factor = onnx.op("Where", [pairs.unlike, factor, onnx.floats("one", 1)], what="factor")
        slope, items = onnx.op("Mul", [pairs.diff, factor], what="slope"), extent(onnx, node.bottoms[0], [0], "items")
        both = (weighted(onnx, slope, top_diffs[0], items, sign) for sign in (1, -1))
        return Gradients((*(unflattened(onnx, node, found, i) for i, found in enumerate(both)), None))


@dataclass(frozen=True)
class _Pairs:
    """Values of ContrastiveLoss: a - b, N×C; the rest N×1."""

    diff: str
    distance_sq: str
    distance: str
    short: str
    """By how much the distance (legacy: its square) falls short of the margin."""
    unlike: str


@dataclass(frozen=True)
class SmoothL1Loss(Loss):
    """loss = Σ w_out · f(w_in · (a - b)) / N, f(d) = σ²d²/2 where |d| < 1/σ², else |d| - 1/(2σ²).

    bottoms: a, b, all N×…; then Fast R-CNN's inside and outside weights, or SSD's inside weights alone, σ being 1
    (rbgirshick/caffe-fast-rcnn, weiliu89/caffe: smooth_L1_loss_layer).
    """

    label_bottoms: ClassVar[tuple[int, ...]] = (1, 2, 3)
    never_forced: ClassVar[tuple[int, ...]] = ()
    bottoms: ClassVar[Arity] = Arity(2, 4)

    sigma_sq: float
    fast_rcnn: bool

    @property
    def first_loss_weight(self) -> float:
        # caffe-fast-rcnn: its LayerSetUp does not call LossLayer's, which sets the weight; SSD's does
        return 0.0 if self.fast_rcnn else 1.0

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
                    f"bottom[0] is {by_x(bottoms[0])}, bottom[{i}] {by_x(bottom)}; "
                    "all must have the same num, channels, height and width"
                )

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
        found = [from_rows(onnx, node, diff, i, numbers) for i, diff in enumerate(both)]
        return Gradients((*found, *([None] * len(weights))))


# -- accuracy ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Accuracy(Layer):
    """The share of labels among the `top_k` best scores; with a second top, also that of each class, C.

    bottom[0]: scores, classes along `axis`; bottom[1]: as many labels as there are predictions, in any shape. A class
    that scores as much as the label counts as better than it. 0 where no label counts (caffe: accuracy_layer.cpp).
    """

    label_bottoms: ClassVar[tuple[int, ...]] = (1,)
    bottoms: ClassVar[Arity] = exactly(2)
    tops: ClassVar[Arity] = Arity(1, 2)
    top_kinds: ClassVar[tuple[str, ...]] = ("accuracy", "accuracy")
    keeps_float32: ClassVar[bool] = True
    decides: ClassVar[bool] = True
    exact_tops: ClassVar[tuple[int, ...]] = (0, 1)

    axis: int
    top_k: int
    ignore_label: int | None
    per_class: bool

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.accuracy_param
        ignored = p.ignore_label if p.HasField("ignore_label") else None
        return cls(p.axis, p.top_k, ignored, len(layer.tops) == 2)

    def fitting_bottoms(self, bottoms: Shapes) -> Sequence[Mapping[int, Shape]]:
        return [{1: labels_for(bottoms[0], self.axis)}]

    def why_refused(self, bottoms: Shapes) -> Sequence[str]:
        return why_labels_are_refused(bottoms[0], bottoms[1], self.axis)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        scores, labels = bottoms
        classes = count(scores) // max(count(labels), 1)
        if self.top_k > classes:
            raise LayerError(
                f"top_k is {self.top_k}, and there are {count(scores)} scores for {count(labels)} labels; "
                f"top_k must be less than or equal to the number of classes. ({self.top_k} vs. {classes})"
            )
        axis = canonical_axis(self.axis, len(scores), scores)
        check_label_count(scores, labels, axis, "label")
        return [(), (scores[axis],)] if self.per_class else [()]

    def label_rules(self, node: Node) -> Sequence[LabelRule]:
        return label_rule(node, self.axis, self.ignore_label)

    def treats_places_alike(self, node: Node) -> bool:
        return self.axis == 1

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        scores, rank = node.bottoms[0], len(node.bottom_shapes[0])
        axis = canonical_axis(self.axis, rank)
        labels = read_labels(onnx, node, axis, self.ignore_label)
        own = onnx.op("GatherElements", [scores, labels.index], what="own_score", axis=axis)
        as_good = onnx.op("Cast", [onnx.op("GreaterOrEqual", [scores, own], what="at_least")], what="as_good", to=FLOAT)
        # caffe: the label's own class is counted too
        rank_of_label = onnx.reduce("ReduceSum", as_good, [axis], keepdims=True, what="rank_of_label")
        hit = onnx.op("Less", [rank_of_label, onnx.floats("beyond_top_k", self.top_k + 1)], what="hit")
        hits = labels.marked(onnx, onnx.op("Cast", [hit], what="hits", to=FLOAT))
        total = onnx.reduce("ReduceSum", hits, None, keepdims=False, what="total")
        if labels.ignored is None:
            number = extent(onnx, node.bottoms[1], range(len(node.bottom_shapes[1])), "labels_given")
        else:
            number = count_not(onnx, labels.ignored)
        emit_quotient(onnx, total, at_least_one(onnx, number), node.tops[0])
        if not self.per_class:
            return
        member = one_hot(onnx, labels.index, node.bottom_shapes[0][axis], axis, rank)
        if labels.ignored is not None:
            counted = onnx.op("Not", [labels.ignored], what="counted_label")
            member = onnx.op("And", [member, counted], what="counted_member")
        others = [i for i in range(rank) if i != axis]
        members = onnx.op("Cast", [member], what="members", to=FLOAT)
        class_hits = onnx.op("Where", [member, hits, onnx.floats("zero", 0)], what="class_hits")
        if others:
            members = onnx.reduce("ReduceSum", members, others, keepdims=False, what="class_size")
            class_hits = onnx.reduce("ReduceSum", class_hits, others, keepdims=False, what="class_total")
        emit_quotient(onnx, class_hits, at_least_one(onnx, members), node.tops[1])

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        return refuse_all(propagate_down)
