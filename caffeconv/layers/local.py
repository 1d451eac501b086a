"""Convolutions with filters for each channel, or for each place: ConvolutionDepthwise, Local."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from caffeconv.caffe_pb2 import ConvolutionParameter, LocalParameter
from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.filler import Filler
from caffeconv.ir.layer import Gradients, Layer, Node, Settings
from caffeconv.layers.convolution import Convolution, parse_window, picks
from caffeconv.layers.gradient_ops import spread_windows, sum_over
from caffeconv.layers.weight_layouts import transposed
from caffeconv.tensor.axis_order import AxisOrder
from caffeconv.tensor.param import Param
from caffeconv.tensor.shape import FloatArray, Shape, Shapes, count, format_shape
from caffeconv.tensor.weight_array import WeightArrays
from caffeconv.tensor.window import Padding, Window, WindowSpec, conv_padding

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder


@dataclass(frozen=True)
class ConvolutionDepthwise(Layer):
    """A convolution with one filter for each channel: N×C×H×W → N×C×H'×W'; weight C×1×kernel, bias C.

    `num_output` and `group` are not read: both are the number of channels (sp2823/caffe: conv_dw_layer.cpp).
    """

    param_axes: ClassVar[Mapping[str, str]] = {"weight": "channels × 1 × kernel_h × kernel_w", "bias": "channels"}
    settings: ClassVar[str] = "convolution_param"
    size_settings: ClassVar[tuple[str, ...]] = Convolution.size_settings

    bias: bool
    window: WindowSpec
    weight_filler: Filler
    bias_filler: Filler
    same: bool = False
    """Whether the padding is that of TensorFlow's SAME (Synopsys: `pad_type: 1`)."""

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.convolution_param
        fillers = Filler.parse(p.weight_filler), Filler.parse(p.bias_filler)
        return cls(p.bias_term, parse_window(p), *fillers, same=p.pad_type == 1)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        return self.grouped(bottoms).top_shapes(bottoms)

    def grouped(self, bottoms: Shapes) -> Convolution:
        """The same as a Convolution, which it is once the number of channels is known."""
        if len(bottoms[0]) != 4:
            raise LayerError(f"the bottom is {format_shape(bottoms[0])}; N×C×H×W was needed")
        channels = bottoms[0][1]
        if channels < 1:
            raise LayerError(f"the bottom is {format_shape(bottoms[0])}; at least one channel was needed")
        fillers = self.weight_filler, self.bias_filler
        return Convolution(channels, channels, 1, self.bias, self.window, *fillers, same=self.same)

    def weight_shapes(self, bottoms: Shapes) -> Mapping[str, Shape]:
        return self.grouped(bottoms).weight_shapes(bottoms)

    def fillers(self) -> Mapping[str, Filler]:
        return {"weight": self.weight_filler, "bias": self.bias_filler}

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        self.grouped(node.bottom_shapes).lower(node, onnx)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        return self.grouped(node.bottom_shapes).lower_gradient(node, onnx, top_diffs, propagate_down)

    def fold_affine(self, node: Node, factor: FloatArray, shift: FloatArray) -> tuple[Param, ...] | None:
        return self.grouped(node.bottom_shapes).fold_affine(node, factor, shift)

    def padding(self, node: Node) -> Padding | None:
        return self.grouped(node.bottom_shapes).padding(node)

    def weight_arrays(self, node: Node, bottoms: Sequence[AxisOrder], follower: Node | None) -> WeightArrays:
        return self.grouped(node.bottom_shapes).weight_arrays(node, bottoms, follower)

    def window_over(self, bottom: Shape) -> Window | None:
        return self.grouped([bottom]).window_over(bottom)

    def size_formulas(self, bottom: Shape) -> tuple[str, ...]:
        return self.grouped([bottom]).size_formulas(bottom)

    def multiply_adds(self, bottoms: Shapes, tops: Shapes) -> int:
        return self.grouped(bottoms).multiply_adds(bottoms, tops)

    @classmethod
    def implied_settings(cls, layer: LayerDef, bottoms: Shapes, stored: Shapes) -> Sequence[Settings]:
        return ({"kernel_size": stored[0][2:], "bias_term": len(stored) > 1},) if stored and len(stored[0]) > 2 else ()

    @classmethod
    def implied_channels(cls, layer: LayerDef, bottoms: Shapes, stored: Shapes) -> int | None:
        return stored[0][0] if stored and stored[0] else None


@dataclass(frozen=True)
class Local(Layer):
    """A convolution that has filters of its own for each place: N×C×H×W → N×num_output×H'×W'.

    Parameters: weight num_output × 1 × (C·kernel_h·kernel_w) × (H'·W'), bias 1 × 1 × num_output × (H'·W'). The fields
    are those of `local_param`, or of `convolution_param` where there is none (many forks: local_layer.cpp).
    """

    num_output: int
    bias: bool
    window: Window
    weight_filler: Filler
    bias_filler: Filler

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        if layer.proto.HasField("local_param"):
            p: LocalParameter | ConvolutionParameter = layer.proto.local_param
            window = _local_window(layer.proto.local_param)
        else:
            p = layer.proto.convolution_param
            if p.pad_type:
                raise LayerError("pad_type is not known of Local; pad, or pad_h and pad_w, were needed")
            window = parse_window(p).over(2)
            if window.dilation != (1, 1):
                raise LayerError(
                    f"dilation is {format_shape(window.dilation)}, which is not known of Local; 1 was needed"
                )
        if p.num_output < 1:
            raise LayerError(f"num_output is {p.num_output}; at least 1 was needed")
        return cls(p.num_output, p.bias_term, window, Filler.parse(p.weight_filler), Filler.parse(p.bias_filler))

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        bottom = bottoms[0]
        if len(bottom) != 4:
            raise LayerError(f"the bottom is {format_shape(bottom)}; N×C×H×W was needed")
        for name, size, kernel in zip(("height", "width"), bottom[2:], self.window.kernel, strict=True):
            if size < kernel:
                raise LayerError(f"the bottom is {format_shape(bottom)}, the kernel "
                f"{format_shape(self.window.kernel)}; {name} smaller "
                                 "than kernel size")  # fmt: skip
        places = self.places(bottom)
        if min(places) < 1:
            raise LayerError(f"the output would be {format_shape(places)}; use a larger input or a smaller kernel_size")
        return [(bottom[0], self.num_output, *places)]

    def places(self, bottom: Shape) -> Shape:
        """H', W'."""
        return self.window.conv_size(bottom[2:])

    def weight_shapes(self, bottoms: Shapes) -> Mapping[str, Shape]:
        places = count(self.places(bottoms[0]))
        weight = (self.num_output, 1, bottoms[0][1] * count(self.window.kernel), places)
        return {"weight": weight, "bias": (1, 1, self.num_output, places)} if self.bias else {"weight": weight}

    def fillers(self) -> Mapping[str, Filler]:
        return {"weight": self.weight_filler, "bias": self.bias_filler}

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        weight = onnx.op("Transpose", [self._weight(node, onnx)], perm=[2, 1, 0], what="weight_by_place")
        product = onnx.op("MatMul", [self._columns(node, onnx), weight], what="product")  # place, picture, output
        product = onnx.op("Transpose", [product], perm=[1, 2, 0], what="outputs")
        top = onnx.dims(node.tops[0])
        if not self.bias:
            onnx.reshape(product, top, to=node.tops[0])
            return
        product = onnx.reshape(product, top, what="planes")
        onnx.emit("Add", [product, onnx.weight("bias", (1, *node.top_shapes[0][1:]))], node.tops)

    def _columns(self, node: Node, onnx: OnnxBuilder) -> str:
        """Each window's values: place × picture × value."""
        channels, window = node.bottom_shapes[0][1], self.window
        columns = onnx.op(
            "Conv", [node.bottoms[0], picks(onnx, window, channels)], what="columns", kernel_shape=window.kernel,
            strides=window.stride, dilations=window.dilation, pads=window.pads, group=channels,
        )  # fmt: skip
        values, places = channels * count(window.kernel), count(node.top_shapes[0], 2)
        columns = onnx.reshape(columns, (onnx.dims(node.bottoms[0])[0], values, places), what="columns")
        return onnx.op("Transpose", [columns], perm=[2, 0, 1], what="by_place")

    def _weight(self, node: Node, onnx: OnnxBuilder) -> str:
        """Output × value × place."""
        values = node.bottom_shapes[0][1] * count(self.window.kernel)
        return onnx.weight("weight", (self.num_output, values, count(node.top_shapes[0], 2)))

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        bottom, top = node.bottom_shapes[0], node.top_shapes[0]
        batch, values = onnx.dims(node.bottoms[0])[0], bottom[1] * count(self.window.kernel)
        diff = onnx.reshape(top_diffs[0], (batch, self.num_output, count(top, 2)), what="outputs_diff")
        by_output = onnx.op("Transpose", [diff], perm=[2, 1, 0], what="diff_by_output")  # place, output, picture
        weight_diff = onnx.op("MatMul", [by_output, self._columns(node, onnx)], what="weight_diff_by_place")
        weight_diff = onnx.op("Transpose", [weight_diff], perm=[1, 2, 0], what="weight_diff")
        params = {"weight": onnx.reshape(weight_diff, node.param("weight").shape, what="weight_diff")}
        if self.bias:
            bias_diff = sum_over(onnx, diff, [0], "bias_diff")
            params["bias"] = onnx.reshape(bias_diff, node.param("bias").shape, what="bias_diff")
        weight = onnx.op("Transpose", [self._weight(node, onnx)], perm=[2, 0, 1], what="weight_by_place")
        by_picture = onnx.op("Transpose", [diff], perm=[2, 0, 1], what="diff_by_picture")
        columns = onnx.op("MatMul", [by_picture, weight], what="columns_diff")  # place, picture, value
        columns = onnx.op("Transpose", [columns], perm=[1, 2, 0], what="columns_diff")
        bottom_diff = spread_windows(
            onnx, onnx.reshape(columns, (batch, values, *top[2:]), what="columns_diff"),
            picks(onnx, self.window, bottom[1]), self.window, bottom[1], positions=top[2:], size=bottom[2:],
            what="bottom_diff",
        )  # fmt: skip
        return Gradients((bottom_diff,), params)

    def padding(self, node: Node) -> Padding | None:
        return conv_padding(self.window, node.bottom_shapes[0][2:], node.top_shapes[0][2:])

    def weight_arrays(self, node: Node, bottoms: Sequence[AxisOrder], follower: Node | None) -> WeightArrays:
        channels, kernel, places = node.bottom_shapes[0][1], self.window.kernel, self.places(node.bottom_shapes[0])
        weight = transposed(
            node, node.param("weight"), "kernel", (4, 2, 3, 1, 0),
            "O×1×(I·kernel_h·kernel_w)×places → places×(kernel_h·kernel_w·I)×O",
            view=(self.num_output, channels, *kernel, count(places)),
            shape=(count(places), count(kernel) * channels, self.num_output),
        )  # fmt: skip
        if not self.bias:
            return WeightArrays((weight,))
        view = (self.num_output, *places)
        bias = transposed(node, node.param("bias"), "bias", (1, 2, 0), "1×1×O×(H·W) → H×W×O", view=view)
        return WeightArrays((weight, bias))

    def window_over(self, bottom: Shape) -> Window | None:
        return self.window

    def multiply_adds(self, bottoms: Shapes, tops: Shapes) -> int:
        return bottoms[0][0] * count(self.weight_shapes(bottoms)["weight"])


def _local_window(p: LocalParameter) -> Window:
    kernel = (p.kernel_h, p.kernel_w) if p.HasField("kernel_h") or p.HasField("kernel_w") else (p.kernel_size,) * 2
    stride = (p.stride_h, p.stride_w) if p.HasField("stride_h") or p.HasField("stride_w") else (p.stride,) * 2
    pad = (p.pad_h, p.pad_w) if p.HasField("pad_h") or p.HasField("pad_w") else (p.pad,) * 2
    if min(kernel) < 1 or min(stride) < 1:
        raise LayerError(
            f"kernel_size is {format_shape(kernel)}, stride {format_shape(stride)}; each must be at least 1"
        )
    return Window(kernel, stride, pad, (1, 1))
