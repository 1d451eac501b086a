"""InnerDistance, the distances of rows to learnt centres, and Mean, which adds or takes away a mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from caffeconv.caffe_format.caffemodel import read_binaryproto
from caffeconv.errors import CaffeconvError, LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.filler import Filler
from caffeconv.ir.layer import Arity, Gradients, Layer, Node, at_least
from caffeconv.layers.gradient_ops import like_bottom, sum_over, times
from caffeconv.layers.weight_layouts import all_as_stored
from caffeconv.tensor.axis_order import AxisOrder, as_caffe
from caffeconv.tensor.shape import FloatArray, Shape, Shapes, canonical_axis, count, format_shape
from caffeconv.tensor.weight_array import WeightArrays

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder

NORMALIZE_EPS = 1e-6
"""What happynear's fork adds to a row's sum of squares."""


def rows_of_length_1(onnx: OnnxBuilder, rows: str) -> str:
    """Each row of a matrix by the root of its sum of squares + 1e-6 (happynear's caffe-windows: `normalize`)."""
    squares = onnx.reduce("ReduceSumSquare", rows, [1], keepdims=True, what="squares")
    length = onnx.op(
        "Sqrt", [onnx.op("Add", [squares, onnx.floats("eps", NORMALIZE_EPS)], what="eased")], what="length"
    )
    return onnx.op("Div", [rows, length], what="unit_rows")


@dataclass(frozen=True)
class InnerDistance(Layer):
    """The distance of each row of the bottom to each of num_output rows (caffe-windows: inner_distance_layer.cpp).

    Top M×num_output: Σ (x-w)² (`distance_type: "L2"`) or Σ |x-w| ("L1") over the axes from `axis` on. The parameter is
    the weight, num_output × K; a second bottom stands for it, and has as many rows as it likes. There is no bias, whatever
    `bias_term` says.
    """

    bottoms: ClassVar[Arity] = Arity(1, 2)
    in_place: ClassVar[bool] = False
    settings: ClassVar[str] = "inner_distance_param"
    channel_setting: ClassVar[str] = "num_output"
    tops_as_caffe: ClassVar[bool] = True

    num_output: int
    axis: int
    transpose: bool
    squared: bool
    normalize: bool
    weight_filler: Filler

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.inner_distance_param
        if p.num_output < 1 and len(layer.bottoms) == 1:
            raise LayerError(f"num_output is {p.num_output}; at least 1 was needed")
        if p.distance_type not in ("L1", "L2"):
            raise LayerError(f"distance_type is {p.distance_type!r}; L1 or L2 was needed")
        filler = Filler.parse(p.weight_filler)
        return cls(p.num_output, p.axis, p.transpose, p.distance_type == "L2", p.normalize, filler)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        axis = canonical_axis(self.axis, len(bottoms[0]), bottoms[0])
        rows, length = self._rows(bottoms), count(bottoms[0], axis)
        if len(bottoms) > 1 and count(bottoms[1], 1) != length:
            raise LayerError(
                f"the bottom for the weight is {format_shape(bottoms[1])}; rows of {length} values were needed"
            )
        return [(*bottoms[0][:axis], rows)]

    def _rows(self, bottoms: Shapes) -> int:
        return bottoms[1][0] if len(bottoms) > 1 and bottoms[1] else self.num_output

    def weight_shapes(self, bottoms: Shapes) -> Mapping[str, Shape]:
        if len(bottoms) > 1:
            return {}
        k = count(bottoms[0], canonical_axis(self.axis, len(bottoms[0])))
        weight = (k, self.num_output) if self.transpose else (self.num_output, k)
        return {"weight": weight}

    def fillers(self) -> Mapping[str, Filler]:
        return {"weight": self.weight_filler}

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        difference = self._difference(node, onnx)
        operator = "ReduceSumSquare" if self.squared else "ReduceL1"
        distance = onnx.reduce(operator, difference, [2], keepdims=False, what="distance")
        onnx.reshape(distance, onnx.dims(node.tops[0]), to=node.tops[0])

    def _difference(self, node: Node, onnx: OnnxBuilder) -> str:
        """x - w, M × num_output × K."""
        shape = node.bottom_shapes[0]
        axis = canonical_axis(self.axis, len(shape))
        k, before = count(shape, axis), onnx.dims(node.bottoms[0])[:axis]
        rows = None if None in before else count(shape, 0, axis)
        x = onnx.reshape(node.bottoms[0], (rows, 1, k), what="rows")
        # the fork reads the weight row by row even where `transpose` says otherwise
        matrix = (self._rows(node.bottom_shapes), k)
        if len(node.bottoms) > 1:
            weight = onnx.reshape(node.bottoms[1], matrix, what="weight")
        else:
            weight = onnx.weight("weight", matrix)
            weight = rows_of_length_1(onnx, weight) if self.normalize else weight
        return onnx.op("Sub", [x, weight], what="difference")

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        difference = self._difference(node, onnx)
        slope = times(onnx, difference, 2.0, "slope") if self.squared else onnx.op("Sign", [difference], what="slope")
        axis = canonical_axis(self.axis, len(node.bottom_shapes[0]))
        before = onnx.dims(node.tops[0])[:axis]
        rows = None if None in before else count(node.top_shapes[0], 0, axis)
        diff = onnx.reshape(top_diffs[0], (rows, self._rows(node.bottom_shapes), 1), what="distance_diff")
        change = onnx.op("Mul", [slope, diff], what="change")
        bottom_diff = sum_over(onnx, change, [1], "bottom_diff")
        shape = (count(node.bottom_shapes[0], 0, axis), count(node.bottom_shapes[0], axis))
        bottoms: list[str | None] = [like_bottom(onnx, node, bottom_diff, shape=shape)]
        weight_diff = onnx.op("Neg", [sum_over(onnx, change, [0], "weight_change")], what="weight_diff")
        if len(node.bottoms) > 1:
            matrix = (self._rows(node.bottom_shapes), shape[1])
            return Gradients([*bottoms, like_bottom(onnx, node, weight_diff, 1, shape=matrix)])
        weight_diff = onnx.reshape(weight_diff, node.param("weight").shape, what="weight_diff")
        return Gradients(bottoms, {"weight": weight_diff})

    def axis_orders(self, node: Node, bottoms: Sequence[AxisOrder]) -> Sequence[AxisOrder] | None:
        return None if any(bottom.moves for bottom in bottoms) else [as_caffe(node.top_shapes[0])]

    def weight_arrays(self, node: Node, bottoms: Sequence[AxisOrder], follower: Node | None) -> WeightArrays:
        return WeightArrays(all_as_stored(node))

    def multiply_adds(self, bottoms: Shapes, tops: Shapes) -> int:
        return count(bottoms[0]) * self._rows(bottoms)


@dataclass(frozen=True)
class Mean(Layer):
    """y = output_scale · (input_scale · x ± mean_scale · mean), for each bottom (FlowNet2: mean_layer.cpp).

    The means are `value`, as many as divide the channels of N×C×H×W, or a blob C'×H×W of the file `file`.
    """

    bottoms: ClassVar[Arity] = at_least(1)
    tops: ClassVar[Arity] = at_least(1)
    is_pointwise: ClassVar[bool] = True

    mean: FloatArray
    """C'×1×1, or C'×H×W, with its sign and scale."""
    input_scale: float
    output_scale: float

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.mean_param
        if len(layer.bottoms) != len(layer.tops):
            raise LayerError(
                f"{len(layer.bottoms)} bottoms and {len(layer.tops)} tops; MEAN needs as many outputs as inputs"
            )
        mean = _stored_mean(layer, p.file) if p.HasField("file") else np.array(p.value, np.float32).reshape(-1, 1, 1)
        if not mean.size:
            raise LayerError("no value and no file; the mean, `value` for each channel, was needed")
        sign = -1 if p.operation == p.SUBTRACT else 1
        return cls(mean * np.float32(sign * p.mean_scale), p.input_scale, p.output_scale)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        channels, *places = self.mean.shape
        for bottom in bottoms:
            if len(bottom) != 4 or bottom[1] % channels or (places != [1, 1] and tuple(places) != bottom[2:]):
                raise LayerError(
                    f"a bottom is {format_shape(bottom)}, the mean {format_shape(self.mean.shape)} (channels × height × "
                    "width); bottom size not divisible by mean size"
                )
        return list(bottoms)

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        for bottom, top, shape in zip(node.bottoms, node.tops, node.bottom_shapes, strict=True):
            means = np.tile(self.mean, (shape[1] // self.mean.shape[0], 1, 1))
            x = times(onnx, bottom, self.input_scale, "scaled")
            moved = onnx.op("Add", [x, onnx.floats("mean", means)], what="moved")
            onnx.emit("Mul", [moved, onnx.floats("output_scale", self.output_scale)], [top])


def _stored_mean(layer: LayerDef, name: str) -> FloatArray:
    """The mean of a binaryproto, C'×H×W; raises LayerError where it cannot be read."""
    path = layer.find_file(name)
    if not path.exists():
        raise LayerError(f"File not found: {name}, the mean; a blob (binaryproto) was needed")
    try:
        blob = read_binaryproto(path)
    except CaffeconvError as error:
        raise LayerError(str(error)) from None
    shape = (1, 1, 1, *blob.shape)[-3:]
    if count(shape) != blob.count:
        raise LayerError(f"{name} holds {format_shape(blob.shape)}; one mean, C×H×W, was needed")
    return blob.array().reshape(shape)
