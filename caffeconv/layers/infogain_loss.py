"""InfogainLoss, a loss with a matrix of costs between classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from caffeconv.caffe_format.caffemodel import StoredBlob, read_binaryproto
from caffeconv.caffe_pb2 import LayerParameter
from caffeconv.errors import CaffeconvError, Diagnostic, LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Arity, Gradients, LabelRule, Node
from caffeconv.layers.gradient_ops import refuse_to
from caffeconv.layers.label_ops import (
    Normalization,
    behind_arg_max,
    check_label_count,
    label_rule,
    labels_for,
    why_labels_are_refused,
)
from caffeconv.layers.losses import LOG_THRESHOLD, Loss, clamp_of, softmax_over
from caffeconv.tensor.shape import Shape, Shapes, canonical_axis, count, shape_string

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder


@dataclass(frozen=True)
class InfogainLoss(Loss):
    """loss = Σ -Σₖ H[label, k] · log max(softmax(x)ₖ, 1e-20) / normalizer (caffe: infogain_loss_layer.cpp).

    bottom[0]: scores, L classes along `axis`; bottom[1]: as many labels as there are predictions, in any shape; H: L·L
    numbers, row = true label, from the file `source` or from bottom[2]. A second top is softmax(x).

    probabilities: bottom[0] holds probabilities, not scores, and nothing is normalized, as in Caffe before 2017.
    """

    bottoms: ClassVar[Arity] = Arity(2, 3)
    tops: ClassVar[Arity] = Arity(1, 2)
    label_bottoms: ClassVar[tuple[int, ...]] = (1, 2)
    top_kinds: ClassVar[tuple[str, ...]] = ("loss", "probabilities")
    clamp: ClassVar[str] = clamp_of(LOG_THRESHOLD)

    axis: int
    normalization: Normalization
    source: str
    stored: StoredBlob | None = field(compare=False)
    """H of the file `source`; None where it is bottom[2]."""
    gives_prob: bool
    probabilities: bool = False

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        if len(layer.tops) == 2 and not layer.loss_weights:
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

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        loss = super().top_shapes(bottoms)
        return [*loss, bottoms[0]] if self.gives_prob else loss

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

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        from caffeconv.layers.infogain_functions import infogain_attributes, infogain_loss_function

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

    def _constant_h(self, onnx: OnnxBuilder, classes: int) -> str:
        assert self.stored is not None
        return onnx.floats("H", self.stored.array().reshape(classes, classes))

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        from caffeconv.layers.infogain_functions import infogain_attributes, infogain_loss_grad_function

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

    def lint(self, node: Node, sources: Sequence[Node | None]) -> Sequence[Diagnostic]:
        source = sources[0]
        if node.definition.infogain is not None or source is None or source.layer.top_kinds != ("probabilities",):
            return ()
        message = (
            f"bottom '{node.definition.bottoms[0]}' holds the probabilities of {source.name} ({source.type}); "
            "scores were needed: in Caffe 1.0 InfogainLoss applies softmax itself, so here it is applied twice"
        )
        hint = (
            "If the net was written for Caffe before April 2017, whose InfogainLoss took probabilities, say "
            f"`infogain='probabilities'`. Else give the layer what goes into {source.name}. `infogain='logits'` leaves the "
            "net as it is, without this warning."
        )
        return [Diagnostic("warning", node.definition.where, message, hint, node.name)]

    @classmethod
    def prediction_layer(cls, layer: LayerDef) -> LayerParameter | None:
        is_prediction = layer.infogain == "probabilities"
        return None if is_prediction else softmax_over(layer, layer.proto.infogain_loss_param.axis)

    def is_spatially_uniform(self, node: Node) -> bool:
        return self.axis == 1

    def label_rules(self, node: Node) -> Sequence[LabelRule]:
        return label_rule(node, self.axis, self.normalization.ignore_label)

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
        if self.stored is not None and classes * classes == count(self._h_shape(bottoms)) and classes:
            known.append({0: (*scores[:axis], classes, *scores[axis + 1 :]), **labels})
        if self.stored is None:
            known.append({2: (*((1, 1) if len(bottoms[2]) == 4 else ()), scores[axis], scores[axis]), **labels})
        return known

    @classmethod
    def with_labels_made_over(cls, layer: LayerDef, bottoms: Shapes) -> Sequence[LayerParameter]:
        return behind_arg_max(layer, bottoms, layer.proto.infogain_loss_param.axis)

    def why_refused(self, bottoms: Shapes) -> Sequence[str]:
        axis = canonical_axis(self.axis, len(bottoms[0]), bottoms[0])
        sentences = [*why_labels_are_refused(bottoms[0], bottoms[1], axis)]
        numbers, classes = count(self._h_shape(bottoms)), bottoms[0][axis]
        if numbers == classes * classes:
            return sentences
        root = math.isqrt(numbers)
        made_for = (
            f"{root}×{root}, for {root} classes" if root * root == numbers else "no square of a number of classes"
        )
        where = f"the file {self.source}" if self.stored is not None else "bottom[2]"
        sentences.append(
            f"H in {where} holds {numbers} numbers: {made_for}; the scores have {classes} classes on axis {axis}, which "
            f"needs {classes}×{classes} = {classes * classes}."
        )
        return sentences


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
