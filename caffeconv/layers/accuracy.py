"""Accuracy, over all classes and for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from caffeconv.caffe_pb2 import LayerParameter
from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.element_types import FLOAT
from caffeconv.ir.layer import Arity, Gradients, LabelRule, Layer, Node, Settings, exactly
from caffeconv.layers.gradient_ops import refuse_all
from caffeconv.layers.label_ops import (
    at_least_one,
    behind_arg_max,
    check_label_count,
    count_not,
    emit_quotient,
    extent,
    label_rule,
    labels_for,
    one_hot,
    read_labels,
    why_labels_are_refused,
)
from caffeconv.tensor.shape import Shape, Shapes, canonical_axis, count

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder


@dataclass(frozen=True)
class Accuracy(Layer):
    """The share of labels among the `top_k` best scores; with a second top, also that of each class, C.

    bottom[0]: scores, classes along `axis`; bottom[1]: as many labels as there are predictions, in any shape. A class
    that scores as much as the label counts as better than it. 0 where no label counts (caffe: accuracy_layer.cpp).
    """

    bottoms: ClassVar[Arity] = exactly(2)
    tops: ClassVar[Arity] = Arity(1, 2)
    settings: ClassVar[str] = "accuracy_param"
    label_bottoms: ClassVar[tuple[int, ...]] = (1,)
    top_kinds: ClassVar[tuple[str, ...]] = ("accuracy", "accuracy")
    computes_in_float32: ClassVar[bool] = True
    float32_tops: ClassVar[tuple[int, ...]] = (0, 1)
    is_discontinuous: ClassVar[bool] = True

    axis: int
    top_k: int
    ignore_label: int | None
    per_class: bool

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.accuracy_param
        if p.min_is_better:
            raise LayerError("min_is_better: true, happynear's, is not supported; the largest score is the best here")
        ignored = p.ignore_label if p.HasField("ignore_label") else None
        return cls(p.axis, p.top_k, ignored, len(layer.tops) == 2)

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

    def is_spatially_uniform(self, node: Node) -> bool:
        return self.axis == 1

    def label_rules(self, node: Node) -> Sequence[LabelRule]:
        return label_rule(node, self.axis, self.ignore_label)

    @classmethod
    def repairs(cls, layer: LayerDef, bottoms: Shapes) -> Sequence[Settings]:
        classes = count(bottoms[0]) // max(count(bottoms[1]), 1)
        return [{"top_k": k} for k in (5, 1) if k <= classes and k < layer.proto.accuracy_param.top_k]

    def fitting_bottoms(self, bottoms: Shapes) -> Sequence[Mapping[int, Shape]]:
        return [{1: labels_for(bottoms[0], self.axis)}]

    def why_refused(self, bottoms: Shapes) -> Sequence[str]:
        return why_labels_are_refused(bottoms[0], bottoms[1], self.axis)

    @classmethod
    def with_labels_made_over(cls, layer: LayerDef, bottoms: Shapes) -> Sequence[LayerParameter]:
        return behind_arg_max(layer, bottoms, layer.proto.accuracy_param.axis)
