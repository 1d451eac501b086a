"""Sums, extremes and norms over some axes (Synopsys: reduce_mean_layer.cpp and its kin), and Gram."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Gradients, Layer, Node
from caffeconv.layers.gradient_ops import times
from caffeconv.tensor.axis_order import AxisOrder, as_caffe
from caffeconv.tensor.shape import Shapes, canonical_axis, count, format_shape

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.caffe_pb2 import ReduceNormParameter
    from caffeconv.ir.onnx_builder import OnnxBuilder


@dataclass(frozen=True)
class Reduce(Layer):
    """One number of the values along the axes `axis`, all where none is named; `keepdims` leaves axes of length 1."""

    in_place: ClassVar[bool] = False
    computes_in_float32: ClassVar[bool] = True
    operator: ClassVar[str]
    message: ClassVar[str]
    """The message of its fields."""

    axes: tuple[int, ...]
    keepdims: bool

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = getattr(layer.proto, cls.message)
        return cls(tuple(p.axis), p.keepdims)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        x = bottoms[0]
        axes = self._axes(x)
        if len(set(axes)) != len(axes):
            raise LayerError(f"axis names an axis of {format_shape(x)} twice: {list(self.axes)}; each once was needed")
        if self.keepdims:
            return [tuple(1 if axis in axes else size for axis, size in enumerate(x))]
        return [tuple(size for axis, size in enumerate(x) if axis not in axes)]

    def _axes(self, bottom: Sequence[int]) -> list[int]:
        shape = tuple(bottom)
        return sorted(canonical_axis(axis, len(shape), shape) for axis in self.axes) or list(range(len(shape)))

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        axes = self._axes(node.bottom_shapes[0])
        onnx.reduce(self.operator, node.bottoms[0], axes, keepdims=self.keepdims, to=node.tops[0])

    def axis_orders(self, node: Node, bottoms: Sequence[AxisOrder]) -> Sequence[AxisOrder] | None:
        return [as_caffe(node.top_shapes[0])] if not bottoms[0].moves else None

    @property
    def mixes_positions(self) -> bool:
        return True


@dataclass(frozen=True)
class ReduceSum(Reduce):
    """The sum of the values along some axes (Synopsys: reduce_sum_layer.cpp)."""

    operator: ClassVar[str] = "ReduceSum"
    message: ClassVar[str] = "reduce_sum_param"


@dataclass(frozen=True)
class ReduceMean(Reduce):
    """The mean of the values along some axes (Synopsys: reduce_mean_layer.cpp)."""

    operator: ClassVar[str] = "ReduceMean"
    message: ClassVar[str] = "reduce_mean_param"


@dataclass(frozen=True)
class ReduceMax(Reduce):
    """The greatest of the values along some axes (Synopsys: reduce_max_layer.cpp)."""

    operator: ClassVar[str] = "ReduceMax"
    message: ClassVar[str] = "reduce_max_param"


@dataclass(frozen=True)
class ReduceMin(Reduce):
    """The least of the values along some axes (Synopsys: reduce_min_layer.cpp)."""

    operator: ClassVar[str] = "ReduceMin"
    message: ClassVar[str] = "reduce_min_param"


@dataclass(frozen=True)
class ReduceProd(Reduce):
    """The product of the values along some axes (Synopsys: reduce_prod_layer.cpp)."""

    operator: ClassVar[str] = "ReduceProd"
    message: ClassVar[str] = "reduce_prod_param"


@dataclass(frozen=True)
class ReduceNorm(Reduce):
    """A norm of the values along the axes `axes`, all where none is named; these stay unless `keepdims: 0`."""

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p: ReduceNormParameter = getattr(layer.proto, cls.message)
        return cls(tuple(p.axes), p.keepdims == 1)


@dataclass(frozen=True)
class ReduceL1(ReduceNorm):
    """The sum of the absolute values along some axes (Synopsys: reduce_l1_layer.cpp)."""

    operator: ClassVar[str] = "ReduceL1"
    message: ClassVar[str] = "reduce_l1_param"


@dataclass(frozen=True)
class ReduceL2(ReduceNorm):
    """The root of the sum of the squares along some axes (Synopsys: reduce_l2_layer.cpp)."""

    operator: ClassVar[str] = "ReduceL2"
    message: ClassVar[str] = "reduce_l2_param"


@dataclass(frozen=True)
class ReduceLogsumexp(Reduce):
    """log Σ exp x over some axes (Synopsys: reduce_logsumexp_layer.cpp)."""

    operator: ClassVar[str] = "ReduceLogSumExp"
    message: ClassVar[str] = "reduce_logsumexp_param"


@dataclass(frozen=True)
class Gram(Layer):
    """N×C×H×W → N×C×C×1: the products of all channels over their places, by C·H·W (caffe-windows: gram_layer.cpp)."""

    in_place: ClassVar[bool] = False
    computes_in_float32: ClassVar[bool] = True

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls()

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        if len(bottoms[0]) != 4:
            raise LayerError(f"the bottom is {format_shape(bottoms[0])}; N×C×H×W was needed")
        num, channels, *_ = bottoms[0]
        return [(num, channels, channels, 1)]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        x, turned = self._planes(node, onnx)
        products = onnx.op("MatMul", [x, turned], what="products")
        mean = times(onnx, products, self._share(node), "mean_product")
        onnx.reshape(mean, onnx.dims(node.tops[0]), to=node.tops[0])

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        x, _ = self._planes(node, onnx)
        batch, channels = onnx.dims(node.tops[0])[0], node.top_shapes[0][1]
        diff = onnx.reshape(top_diffs[0], (batch, channels, channels), what="pair_diff")
        diff = onnx.op("Add", [diff, onnx.op("Transpose", [diff], perm=[0, 2, 1], what="turned")], what="both_sides")
        diff = times(onnx, onnx.op("MatMul", [diff, x], what="plane_diff"), self._share(node), "mean_diff")
        return Gradients((onnx.reshape(diff, onnx.dims(node.bottoms[0]), what="bottom_diff"),))

    def _planes(self, node: Node, onnx: OnnxBuilder) -> tuple[str, str]:
        """The bottom as N×C×places, and as N×places×C."""
        batch, channels, *_ = onnx.dims(node.bottoms[0])
        places = count(node.bottom_shapes[0], 2)
        x = onnx.reshape(node.bottoms[0], (batch, channels, places), what="planes")
        return x, onnx.op("Transpose", [x], perm=[0, 2, 1], what="turned_planes")

    def _share(self, node: Node) -> float:
        return 1 / count(node.bottom_shapes[0], 1)

    @property
    def mixes_positions(self) -> bool:
        return True

    def multiply_adds(self, bottoms: Shapes, tops: Shapes) -> int:
        return count(bottoms[0]) * bottoms[0][1]

    def axis_orders(self, node: Node, bottoms: Sequence[AxisOrder]) -> Sequence[AxisOrder] | None:
        return None
