"""Layers that divide by a norm: SSD's Normalize (ssd: normalize_layer.cpp), and what other forks call Normalize, L2Norm,
L2Normalize, NormL2 and Normalization.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.filler import Filler
from caffeconv.ir.layer import Arity, Gradients, Layer, Node, Settings
from caffeconv.layers.gradient_ops import class_sums, like_bottom, sum_over, times
from caffeconv.layers.weight_layouts import along
from caffeconv.tensor.axis_order import AxisOrder
from caffeconv.tensor.shape import Shape, Shapes, count, format_shape
from caffeconv.tensor.weight_array import Fact, WeightArrays

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.caffe_pb2 import NormalizeParameter
    from caffeconv.ir.onnx_builder import OnnxBuilder


@dataclass(frozen=True)
class NormRule:
    """By what a fork divides: the norm of each item, or that of the channels (axis 1) at each place, made safe somehow."""

    over: Literal["item", "place"]
    norm: Literal["L1", "L2"] = "L2"
    sum_eps: float = 0.0
    """Added to the sum (of squares, for L2)."""
    least_sum: float = 0.0
    root_eps: float = 0.0
    """Added to the root of the sum."""
    zero_as_one: bool = False
    """Whether a norm of 0 counts as 1."""
    length: float = 1.0
    """The norm that the top has."""

    def axes(self, rank: int) -> list[int]:
        """The axes that are summed over."""
        return list(range(1, rank)) if self.over == "item" else [1]

    def divisor(self, onnx: OnnxBuilder, x: str, rank: int) -> str:
        """What x is divided by, with axes of size 1 where the sum was taken."""
        op_type = "ReduceSumSquare" if self.norm == "L2" else "ReduceL1"
        total = onnx.reduce(op_type, x, self.axes(rank), keepdims=True, what="sum")
        if self.sum_eps:
            total = onnx.op("Add", [total, onnx.floats("eps", self.sum_eps)], what="guarded")
        if self.least_sum:
            total = onnx.op("Max", [total, onnx.floats("least_sum", self.least_sum)], what="guarded")
        norm = onnx.op("Sqrt", [total], what="norm") if self.norm == "L2" else total
        if self.root_eps:
            norm = onnx.op("Add", [norm, onnx.floats("eps", self.root_eps)], what="guarded_norm")
        if self.zero_as_one:
            is_zero = onnx.op("Equal", [norm, onnx.floats("zero", 0)], what="is_zero")
            norm = onnx.op("Where", [is_zero, onnx.floats("one", 1), norm], what="guarded_norm")
        return norm


@dataclass(frozen=True)
class NormDivision(Layer):
    """y = length · x / norm. Bottom N×C×…; the top is shaped as it, or has 4 axes."""

    computes_in_float32: ClassVar[bool] = True
    is_pointwise: ClassVar[bool] = True

    rule: NormRule
    four_axes: bool = False
    doubt: str = ""
    """Why nobody can tell the rule where an item has several places; empty: the rule is known."""

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        x = bottoms[0]
        if len(x) < 2 or (self.four_axes and len(x) > 4):
            most = ", and at most 4," if self.four_axes else ""
            raise LayerError(f"the bottom is {format_shape(x)}; at least 2 axes{most} were needed (N×C×…)")
        return [(*x, *([1] * (4 - len(x)))) if self.four_axes else x]

    def undecided(self, bottoms: Shapes) -> str:
        x, places = bottoms[0], count(bottoms[0], 2)
        if not self.doubt or places <= 1:
            return ""
        return f"the bottom is {format_shape(x)}, {places} places of {x[1]} channels; {self.doubt}"

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        x = self._seen_as_top(node, onnx)
        divisor = self.rule.divisor(onnx, x, len(node.top_shapes[0]))
        if self.rule.length == 1:
            onnx.emit("Div", [x, divisor], node.tops[:1])
        else:
            unit = onnx.op("Div", [x, divisor], what="unit")
            onnx.emit("Mul", [unit, onnx.floats("length", self.rule.length)], node.tops[:1])
        if len(node.tops) > 1:
            onnx.emit("Identity", [divisor], node.tops[1:])

    def _seen_as_top(self, node: Node, onnx: OnnxBuilder) -> str:
        """The bottom in the shape of the top."""
        if node.bottom_shapes[0] == node.top_shapes[0]:
            return node.bottoms[0]
        return onnx.reshape(node.bottoms[0], onnx.dims(node.tops[0]))

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        if self.rule.norm == "L1" or len(node.tops) > 1:
            return super().lower_gradient(node, onnx, top_diffs, propagate_down)
        x, rank = self._seen_as_top(node, onnx), len(node.top_shapes[0])
        divisor = self.rule.divisor(onnx, x, rank)
        turn, _ = self.turn_diff(onnx, onnx.op("Div", [x, divisor], what="unit"), divisor, top_diffs[0], rank)
        return Gradients((like_bottom(onnx, node, times(onnx, turn, self.rule.length, "length_diff")),))

    def turn_diff(self, onnx: OnnxBuilder, unit: str, divisor: str, diff: str, rank: int) -> tuple[str, str]:
        """The diff of x where the top is x / divisor, the unit vector; and diff · unit. As if no eps were in the norm."""
        product = onnx.op("Mul", [diff, unit], what="diff_unit")
        along_unit = onnx.reduce("ReduceSum", product, self.rule.axes(rank), keepdims=True, what="along")
        across = onnx.op("Sub", [diff, onnx.op("Mul", [unit, along_unit], what="radial")], what="across")
        return onnx.op("Div", [across, divisor], what="turn"), product

    def is_spatially_uniform(self, node: Node) -> bool:
        return self.rule.over == "place" and not self.doubt and not self.four_axes

    @property
    def mixes_positions(self) -> bool:
        return self.rule.over == "item"

    def multiply_adds(self, bottoms: Shapes, tops: Shapes) -> int:
        return 2 * count(bottoms[0])


L2NORM_DOUBT = (
    "forks of this name differ: some divide by the norm of the channels at each place (`dialect='ultinous'`, "
    "`dialect='akrit2013'`), others by that of the whole item (`dialect='retrieval'`), and nothing in the layer tells which "
    "is meant. Give the one that the net was trained with"
)


@dataclass(frozen=True)
class L2Norm(NormDivision):
    """y = x / √Σ x², the sum over the channels of each place or over all of an item: four layers of one name.

    Ultinous': each place, a norm of 0 counts as 1, the top has 4 axes. Akrit2013's: the same times √l2_length, the top
    shaped as the bottom. yuminsuh's (caffe_retrieval): each item, the sum at least 1e-12. Face_Parsing_2016's: each item,
    eps added to the root. Fields of l2norm_param or the dialect tell; N×C is the same to all of them.
    """

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.l2norm_param
        if p.HasField("eps") and p.HasField("l2_length"):
            raise LayerError(
                "eps is of Face_Parsing_2016's L2Norm, l2_length of Akrit2013's; fields of one were needed"
            )
        if p.HasField("eps"):
            if layer.bottoms == layer.tops:
                raise LayerError(
                    f"top '{layer.tops[0]}' is its own bottom; the L2Norm that has eps does not allow in-place "
                    "computation. Give the top a name of its own"
                )
            return cls(NormRule("item", root_eps=p.eps), four_axes=True)
        if p.HasField("l2_length") or layer.dialect == "akrit2013":
            if p.l2_length <= 0:
                raise LayerError(f"l2_length is {p.l2_length:g}; a number above 0 was needed")
            return cls(NormRule("place", zero_as_one=True, length=math.sqrt(p.l2_length)))
        if layer.dialect == "ultinous":
            return cls(NormRule("place", zero_as_one=True), four_axes=True)
        return cls(NormRule("item", least_sum=1e-12), doubt="" if layer.dialect == "retrieval" else L2NORM_DOUBT)


@dataclass(frozen=True)
class L2Normalize(NormDivision):
    """y = x / √(Σ x² + 1e-7), the sum over all of an item (C3D 1.1, cnntools: l2_normalize_layer.cpp)."""

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls(NormRule("item", sum_eps=1e-7))


@dataclass(frozen=True)
class GRN(NormDivision):
    """y = x / √(Σ x² + bias), the sum over the channels of each place (training_toolbox_caffe: grn_layer.cpp).

    With `dummy_backward` the bottom's diff is the top's.
    """

    dummy_backward: bool = False

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.grn_param
        if p.bias < 0:
            raise LayerError(f"bias is {p.bias:g}; Bias must be >=0.")
        return cls(NormRule("place", sum_eps=p.bias), dummy_backward=p.dummy_backward)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        if self.dummy_backward:
            return Gradients((top_diffs[0],))
        return super().lower_gradient(node, onnx, top_diffs, propagate_down)


@dataclass(frozen=True)
class NormL2(NormDivision):
    """y = x / √(Σ x² + 1e-7), the sum over all of an item; the top has 4 axes (SeqFace: norm_l2_layer.cpp)."""

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls(NormRule("item", sum_eps=1e-7), four_axes=True)


@dataclass(frozen=True)
class Normalization(NormDivision):
    """y = x / √Σ x², the sum over all of an item (CaffeMex_v2, SeqFace: normalization_layer.cpp)."""

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.normalization_param
        if p.norm == p.L1:
            raise LayerError("norm is L1, of which its fork's code makes no norm; norm: L2 was needed")
        return cls(NormRule("item"))


NORMALIZE_DOUBT = (
    "forks of this name differ, and neither norm_param nor normalize_param, nor a scale in the weights, tells whose this is: "
    "SSD's (add `norm_param { }`), happynear's, which divides by the norm of the channels at each place "
    "(`dialect='happynear'`), or yjxiong's, by that of the whole item (`dialect='tsn'`)"
)
_SSD = {"across_spatial", "scale_filler", "channel_shared", "eps", "add_eps_before_sqrt"}
_HAPPYNEAR = {"normalize_type", "fix_gradient", "bp_norm"}
_CAFFEMEX = {"coeff"}
HAPPYNEAR_EPS = 1e-6
ONE = Filler(value=1.0)


@dataclass(frozen=True)
class Normalize(NormDivision):
    """y = scale · x / √(Σ x² + eps), the sum over the channels of each place, or over all of C×H×W.

    Bottom N×C×…, at most 4 axes. SSD's (norm_param) has the parameter scale, C, or one number without axes where
    `channel_shared`; others have none, and tops of 4 axes. happynear's (normalize_param): each place, eps 1e-6, L1 if asked
    for; a second top has the norms, N×1×H×W. CaffeMex_v2's (normalize_param { coeff }): each item, eps 1e-12. yjxiong's
    (TSN): each item, no eps.
    """

    tops: ClassVar[Arity] = Arity(1, 2)
    takes_any_vector: ClassVar[bool] = True
    settings: ClassVar[str] = "norm_param"

    scaled: bool = False
    """Whether there is a scale."""
    channel_shared: bool = True
    filler: Filler = ONE
    gives_norms: bool = False
    """Whether a second top has the norms."""
    own_gradient: bool = False
    """Whether the fork makes a gradient of its own (fix_gradient, bp_norm), which no rule here gives."""

    @classmethod
    def implied_settings(cls, layer: LayerDef, bottoms: Shapes, stored: Shapes) -> Sequence[Settings]:
        is_of_ssd = len(bottoms[0]) > 1 and not layer.proto.HasField("normalize_param")
        if not stored or not is_of_ssd or count(stored[0]) not in (1, bottoms[0][1]):
            return ()
        return ({"channel_shared": count(stored[0]) == 1},)

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.normalize_param
        fields = {field.name for field, _ in p.ListFields()}
        ssd, happynear, caffemex = sorted(fields & _SSD), sorted(fields & _HAPPYNEAR), sorted(fields & _CAFFEMEX)
        if ssd:
            raise LayerError(f"{ssd[0]} is of SSD's Normalize, which reads it from norm_param; rename normalize_param")
        if layer.proto.HasField("norm_param") and fields:
            raise LayerError(
                "norm_param is of SSD's Normalize, normalize_param of other forks'; one of them was needed"
            )
        if happynear and caffemex:
            raise LayerError(f"{happynear[0]} is of happynear's Normalize, coeff of CaffeMex_v2's; one was needed")
        if caffemex:
            cls._check_tops(layer)
            return cls(NormRule("item", sum_eps=1e-12, length=p.coeff), four_axes=True)
        if layer.proto.HasField("norm_param") or layer.stored_shapes:
            cls._check_tops(layer)
            return cls._of_ssd(layer.proto.norm_param)
        if happynear or len(layer.tops) > 1 or layer.dialect == "happynear":
            return cls._of_happynear(p, gives_norms=len(layer.tops) > 1)
        return cls(NormRule("item"), four_axes=True, doubt="" if layer.dialect == "tsn" else NORMALIZE_DOUBT)

    @staticmethod
    def _check_tops(layer: LayerDef) -> None:
        if len(layer.tops) > 1:
            raise LayerError(f"{len(layer.tops)} tops; Normalize Layer produces 1 top blob(s) as output.")

    @classmethod
    def _of_ssd(cls, p: NormalizeParameter) -> Self:
        own = sorted({field.name for field, _ in p.ListFields()} - _SSD)
        if own:
            raise LayerError(f"{own[0]} is no field of SSD's norm_param; write it in normalize_param")
        over: Literal["item", "place"] = "item" if p.across_spatial else "place"
        # synopsys-caffe: norms of places start from eps, whatever add_eps_before_sqrt says
        under_root = p.add_eps_before_sqrt or over == "place"
        rule = NormRule(over, sum_eps=p.eps) if under_root else NormRule(over, root_eps=p.eps)
        filler = Filler.parse(p.scale_filler) if p.HasField("scale_filler") else ONE
        return cls(rule, scaled=True, channel_shared=p.channel_shared, filler=filler)

    @classmethod
    def _of_happynear(cls, p: NormalizeParameter, *, gives_norms: bool) -> Self:
        if p.normalize_type not in ("L1", "L2"):
            raise LayerError(f"normalize_type is {p.normalize_type}; L1 or L2 was needed")
        rule = NormRule("place", "L2" if p.normalize_type == "L2" else "L1", HAPPYNEAR_EPS)
        return cls(rule, four_axes=True, gives_norms=gives_norms, own_gradient=p.fix_gradient or p.bp_norm)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        x = bottoms[0]
        if self.scaled and not 2 <= len(x) <= 4:
            raise LayerError(
                f"the bottom is {format_shape(x)}; Number of axes of bottom blob must be >=2, and at most 4"
            )
        (top,) = super().top_shapes(bottoms)
        return [top, (top[0], 1, *top[2:])] if self.gives_norms else [top]

    def weight_shapes(self, bottoms: Shapes) -> Mapping[str, Shape]:
        return {"scale": () if self.channel_shared else (bottoms[0][1],)} if self.scaled else {}

    def fillers(self) -> Mapping[str, Filler]:
        return {"scale": self.filler} if self.scaled else {}

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        if not self.scaled:
            super().lower(node, onnx)
            return
        divisor = self.rule.divisor(onnx, node.bottoms[0], len(node.bottom_shapes[0]))
        unit = onnx.op("Div", [node.bottoms[0], divisor], what="unit")
        onnx.emit("Mul", [unit, self._scale(node, onnx)], node.tops)

    def _scale(self, node: Node, onnx: OnnxBuilder) -> str:
        shape = node.bottom_shapes[0]
        return onnx.weight("scale", () if self.channel_shared else (shape[1], *([1] * (len(shape) - 2))))

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        if self.own_gradient:
            return Layer.lower_gradient(self, node, onnx, top_diffs, propagate_down)
        if not self.scaled:
            return super().lower_gradient(node, onnx, top_diffs, propagate_down)
        rank = len(node.bottom_shapes[0])
        divisor = self.rule.divisor(onnx, node.bottoms[0], rank)
        unit = onnx.op("Div", [node.bottoms[0], divisor], what="unit")
        turn, product = self.turn_diff(onnx, unit, divisor, top_diffs[0], rank)
        # ssd: the scale comes last, as if it were the same for all channels
        scaled = onnx.op("Mul", [turn, self._scale(node, onnx)], what="bottom_diff")
        if self.channel_shared:
            return Gradients((scaled,), {"scale": sum_over(onnx, product, range(rank), "scale_diff")})
        return Gradients((scaled,), {"scale": class_sums(onnx, product, rank, 1, "scale_diff")})

    def weight_arrays(self, node: Node, bottoms: Sequence[AxisOrder], follower: Node | None) -> WeightArrays | None:
        if not self.scaled:
            return super().weight_arrays(node, bottoms, follower)
        facts: dict[str, Fact] = {"epsilon": self.rule.sum_eps or self.rule.root_eps}
        return WeightArrays((along(node, node.param("scale"), "gamma", 1, bottoms[0]),), facts)
