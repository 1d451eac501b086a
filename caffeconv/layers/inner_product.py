"""InnerProduct (caffe: inner_product_layer.cpp) and Embed (caffe: embed_layer.cpp)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from caffeconv.caffe_pb2 import LayerParameter
from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.element_types import INT64
from caffeconv.ir.filler import Filler
from caffeconv.ir.layer import Gradients, LabelRule, Layer, Node, Settings
from caffeconv.layers.convolution import Convolution, absorbed, copy_fillers, layer_like
from caffeconv.layers.distances import rows_of_length_1
from caffeconv.layers.gradient_ops import added_rows, like_bottom, refuse_to, sum_over
from caffeconv.layers.weight_layouts import as_stored, dense_kernel, flattened, source_of
from caffeconv.tensor.axis_order import AxisOrder, as_caffe
from caffeconv.tensor.param import Param
from caffeconv.tensor.param_values import DerivedValues
from caffeconv.tensor.shape import FloatArray, Shape, Shapes, canonical_axis, count, format_shape
from caffeconv.tensor.weight_array import WeightArray, WeightArrays

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder


@dataclass(frozen=True)
class InnerProduct(Layer):
    """y = x·Wᵀ + b over the axes from `axis` on, taken as one of length K.

    Weight num_output × K (K × num_output with `transpose`); bias num_output. `normalize` divides each row of the weight
    by its length (happynear's caffe-windows: inner_product_layer.cpp).
    """

    is_fully_connected: ClassVar[bool] = True
    tops_as_caffe: ClassVar[bool] = True
    param_axes: ClassVar[Mapping[str, str]] = {"weight": "num_output × inputs", "bias": "num_output"}
    settings: ClassVar[str] = "inner_product_param"
    channel_setting: ClassVar[str] = "num_output"

    num_output: int
    axis: int
    transpose: bool
    bias: bool
    weight_filler: Filler
    bias_filler: Filler
    normalize: bool = False

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.inner_product_param
        if p.num_output < 1:
            raise LayerError(f"num_output is {p.num_output}; at least 1 was needed")
        if p.normalize and p.transpose:
            raise LayerError(
                "normalize and transpose: true, of which the fork scales parts of rows; one of them was needed"
            )
        fillers = Filler.parse(p.weight_filler), Filler.parse(p.bias_filler)
        return cls(p.num_output, p.axis, p.transpose, p.bias_term, *fillers, normalize=p.normalize)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        axis = canonical_axis(self.axis, len(bottoms[0]), bottoms[0])
        return [(*bottoms[0][:axis], self.num_output)]

    def in_place_fault(self, bottoms: Shapes, tops: Shapes) -> str:
        return "Caffe multiplies the bottom as it lies, and writes over it meanwhile"

    def weight_shapes(self, bottoms: Shapes) -> Mapping[str, Shape]:
        k = count(bottoms[0], canonical_axis(self.axis, len(bottoms[0])))
        weight = (k, self.num_output) if self.transpose else (self.num_output, k)
        return {"weight": weight, "bias": (self.num_output,)} if self.bias else {"weight": weight}

    def fillers(self) -> Mapping[str, Filler]:
        return {"weight": self.weight_filler, "bias": self.bias_filler}

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        rank = len(node.bottom_shapes[0])
        axis = canonical_axis(self.axis, rank)
        x = node.bottoms[0]
        if axis != 1 or rank != 2:
            x = onnx.op("Flatten", [x], axis=axis)
        inputs = [x, *(self.parameter(onnx, param.name) for param in node.params)]
        if axis == 1:
            onnx.emit("Gemm", inputs, node.tops, transB=int(not self.transpose))
        else:
            y = onnx.op("Gemm", inputs, transB=int(not self.transpose))
            onnx.reshape(y, onnx.dims(node.tops[0]), to=node.tops[0])

    def parameter(self, onnx: OnnxBuilder, name: str) -> str:
        """The parameter of that name, as the layer uses it."""
        value = onnx.weight(name)
        return rows_of_length_1(onnx, value) if self.normalize and name == "weight" else value

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        shape = node.bottom_shapes[0]
        axis = canonical_axis(self.axis, len(shape))
        x = onnx.op("Flatten", [node.bottoms[0]], what="x_rows", axis=axis)
        diff = onnx.op("Flatten", top_diffs, what="diff_rows", axis=axis)
        product = [x, diff] if self.transpose else [diff, x]
        params = {"weight": onnx.op("Gemm", product, what="weight_diff", transA=1)}
        if self.bias:
            params["bias"] = sum_over(onnx, diff, [0], "bias_diff")
        rows = onnx.op(
            "Gemm", [diff, self.parameter(onnx, "weight")], what="bottom_diff_rows", transB=int(self.transpose)
        )
        flat = (count(shape, 0, axis), count(shape, axis))
        return Gradients((like_bottom(onnx, node, rows, shape=flat),), params)

    def fold_affine(self, node: Node, factor: FloatArray, shift: FloatArray) -> tuple[Param, ...] | None:
        if canonical_axis(self.axis, len(node.bottom_shapes[0])) != 1 or self.normalize:
            return None
        return absorbed(node, factor, shift, factor[None, :] if self.transpose else factor[:, None])

    def as_convolution(self, node: Node, bottoms: Shapes) -> Node:
        x = bottoms[0]
        if self.normalize:
            raise LayerError(
                "`normalize: true` scales the weight, which a convolution cannot; a layer without it was needed"
            )
        if canonical_axis(self.axis, len(node.bottom_shapes[0])) != 1:
            raise LayerError(f"it multiplies the axes from {self.axis} on; `axis: 1` was needed")
        if len(x) < 3:
            raise LayerError(
                f"bottom '{node.definition.bottoms[0]}' is {format_shape(x)}; N×C×H×W was needed, or what layers make of that "
                "place by place: there is nothing for a window to slide over"
            )
        if self.transpose and (node.param("weight").owner or node.param("weight").shared):
            raise LayerError("its weight is shared, and transposed; a convolution has no `transpose`")
        p = node.definition.proto.inner_product_param
        proto = layer_like(node.definition, "Convolution")
        proto.convolution_param.num_output, proto.convolution_param.bias_term = p.num_output, p.bias_term
        proto.convolution_param.kernel_size.extend(x[2:])
        copy_fillers(p, proto.convolution_param)
        definition = node.definition.with_proto(proto)
        params = tuple(self._as_filters(param, x) if param.name == "weight" else param for param in node.params)
        return replace(node, definition=definition, layer=Convolution.parse(definition), params=params)

    def _as_filters(self, weight: Param, x: Shape) -> Param:
        """num_output × K as num_output × C × kernel…: the same numbers in the same order, unless transposed."""
        shape = (self.num_output, *x[1:])
        if not self.transpose:
            return replace(weight, shape=shape)

        def transpose() -> FloatArray:
            return np.ascontiguousarray(weight.array().T).ravel()

        return replace(weight, shape=shape, values=DerivedValues(transpose, weight.is_filled))

    def channel_axis_of(self, node: Node, bottom: int) -> int | None:
        axis = canonical_axis(self.axis, len(node.bottom_shapes[0]))
        return axis if axis > 1 and axis == len(node.bottom_shapes[0]) - 1 else None

    def axis_orders(self, node: Node, bottoms: Sequence[AxisOrder]) -> Sequence[AxisOrder] | None:
        axis = canonical_axis(self.axis, len(node.bottom_shapes[0]))
        # axes in front of the inputs become axes of the top
        if bottoms[0].lead < min(axis, len(node.bottom_shapes[0]) - 1) and bottoms[0].moves:
            return None
        return [as_caffe(node.top_shapes[0])]

    def weight_arrays(self, node: Node, bottoms: Sequence[AxisOrder], follower: Node | None) -> WeightArrays | None:
        if self.normalize:
            return None
        rows = bottoms[0].along(canonical_axis(self.axis, len(node.bottom_shapes[0])))
        kernel = dense_kernel(node, node.param("weight"), "kernel", rows, rows_first=self.transpose)
        return WeightArrays((kernel, flattened(node, node.param("bias"), "bias")) if self.bias else (kernel,))

    def multiply_adds(self, bottoms: Shapes, tops: Shapes) -> int:
        return count(bottoms[0]) * self.num_output

    @classmethod
    def implied_settings(cls, layer: LayerDef, bottoms: Shapes, stored: Shapes) -> Sequence[Settings]:
        if not stored or len(stored[0]) < 2:
            return ()
        p = layer.proto.inner_product_param
        bias = len(stored) > 1
        rows, columns = stored[0][-2:]
        as_it_is = (columns, rows) if p.transpose else (rows, columns)
        turned = as_it_is[::-1]
        inputs = count(bottoms[0], canonical_axis(p.axis, len(bottoms[0]), bottoms[0]))
        known: list[Settings] = [{"num_output": as_it_is[0], "bias_term": bias}]
        if turned[1] == inputs and (not bias or count(stored[1]) == turned[0]):
            known.insert(0, {"num_output": turned[0], "transpose": not p.transpose, "bias_term": bias})
        return known

    @classmethod
    def other_types(cls, layer: LayerDef, bottoms: Shapes, stored: Shapes) -> Sequence[LayerParameter]:
        if not stored or len(stored[0]) != 4 or len(bottoms[0]) < 2 or stored[0][:2] == (1, 1):
            return ()
        outputs, inside, *kernel_hw = stored[0]
        other = layer_like(layer, "Convolution")
        window = other.convolution_param
        window.num_output = outputs
        if kernel_hw[0] == kernel_hw[1]:
            window.kernel_size.append(kernel_hw[0])
        else:
            window.kernel_h, window.kernel_w = kernel_hw
        channels = bottoms[0][1]
        if 0 < inside < channels and channels % inside == 0:
            window.group = channels // inside
        if len(stored) < 2:
            window.bias_term = False
        copy_fillers(layer.proto.inner_product_param, window)
        return (other,)

    @classmethod
    def implied_channels(cls, layer: LayerDef, bottoms: Shapes, stored: Shapes) -> int | None:
        if not stored or len(stored[0]) < 2 or len(bottoms[0]) < 2:
            return None
        p = layer.proto.inner_product_param
        inputs, places = stored[0][-2 if p.transpose else -1], count(bottoms[0], 2)
        return inputs // places if p.axis == 1 and places and inputs % places == 0 else None


ROWS = 1 << 10
"""How many rows get their bias at once."""


@dataclass(frozen=True)
class Embed(Layer):
    """Rows of a table: top = W[x] (+ b); the bottom's values are row numbers, truncated toward zero.

    Weight input_dim × num_output; bias num_output; the top has one axis more than the bottom. In bottom-up-attention's
    Caffe a row takes the place of a last axis of size 1, as what it takes of an ArgMax and joins to an InnerProduct has.
    """

    tops_as_caffe: ClassVar[bool] = True
    settings: ClassVar[str] = "embed_param"

    num_output: int
    input_dim: int
    bias: bool
    weight_filler: Filler
    bias_filler: Filler
    replaces_axis: bool = False
    """Whether rows take the place of a last axis of size 1."""

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.embed_param
        if p.num_output < 1:
            raise LayerError("Embed num_output must be positive.")
        if p.input_dim < 1:
            raise LayerError("Embed input_dim must be positive.")
        fillers = Filler.parse(p.weight_filler), Filler.parse(p.bias_filler)
        return cls(p.num_output, p.input_dim, p.bias_term, *fillers, layer.dialect == "bottom-up-attention")

    @classmethod
    def dialect_of_net(cls, layer: LayerDef, layers: Sequence[LayerDef]) -> str | None:
        """Bottom-up-attention's, where a net joins embedded classes to features by their first axis after the regions."""
        features = {top for other in layers if other.type == "InnerProduct" for top in other.tops}
        classes = {top for other in layers if other.type == "ArgMax" for top in other.tops}
        joined = [
            set(other.bottoms) for other in layers if other.type == "Concat" and set(layer.tops) & set(other.bottoms)
        ]
        is_theirs = classes.intersection(layer.bottoms) and any(features & bottoms for bottoms in joined)
        return "bottom-up-attention" if is_theirs else None

    @classmethod
    def implied_settings(cls, layer: LayerDef, bottoms: Shapes, stored: Shapes) -> Sequence[Settings]:
        if not stored or len(stored[0]) < 2:
            return ()
        rows, columns = stored[0][-2:]
        return ({"input_dim": rows, "num_output": columns, "bias_term": len(stored) > 1},)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        return [(*(bottoms[0][:-1] if self._replaces(bottoms[0]) else bottoms[0]), self.num_output)]

    def _replaces(self, bottom: Shape) -> bool:
        return self.replaces_axis and bottom[-1:] == (1,)

    def weight_shapes(self, bottoms: Shapes) -> Mapping[str, Shape]:
        weight = (self.input_dim, self.num_output)
        return {"weight": weight, "bias": (self.num_output,)} if self.bias else {"weight": weight}

    def fillers(self) -> Mapping[str, Filler]:
        return {"weight": self.weight_filler, "bias": self.bias_filler}

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        rows = onnx.op("Cast", [node.bottoms[0]], what="rows", to=7)
        if self._replaces(node.bottom_shapes[0]):
            onnx.fixed(onnx.dims(node.bottoms[0])[-1:], "a row takes the place of an axis of size 1")
            rows = onnx.op("Squeeze", [rows, onnx.ints("last_axis", [-1])], what="rows")
        if not self.bias:
            onnx.emit("Gather", [onnx.weight("weight"), rows], node.tops, axis=0)
            return
        picked = onnx.op("Gather", [onnx.weight("weight"), rows], axis=0)
        onnx.emit("Add", [picked, onnx.weight("bias")], node.tops)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        refuse_to("EmbedLayer input", propagate_down, 0)
        rows = onnx.op("Cast", [onnx.reshape(node.bottoms[0], (-1,), what="flat_rows")], what="rows", to=INT64)
        diff = onnx.reshape(top_diffs[0], (-1, self.num_output), what="diff_rows")
        params = {"weight": added_rows(onnx, onnx.weight("weight"), rows, diff, 2, "weight_diff")}
        if self.bias:
            params["bias"] = sum_over(onnx, diff, [0], "bias_diff")
        return Gradients((None,), params)

    def label_rules(self, node: Node) -> Sequence[LabelRule]:
        return (LabelRule(0, self.input_dim),)

    def weight_arrays(self, node: Node, bottoms: Sequence[AxisOrder], follower: Node | None) -> WeightArrays:
        weight = node.param("weight")
        if not self.bias:
            return WeightArrays((replace(as_stored(node, weight), name="embeddings"),))
        bias = node.param("bias")
        sources = source_of(node, weight), source_of(node, bias)

        def parts() -> Iterator[FloatArray]:
            rows, summand = weight.array(), bias.array()
            for start in range(0, len(rows), ROWS):
                yield rows[start : start + ROWS] + summand

        # Keras's Embedding has no bias; row + bias, in float32, is what Caffe computes
        return WeightArrays((WeightArray("embeddings", weight.shape, sources, "bias added to every row", parts),))
