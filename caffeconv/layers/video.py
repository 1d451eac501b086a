"""Convolutions and poolings over N×C×length×height×width: those of C3D, and video-caffe's over any number of axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from caffeconv.caffe_pb2 import (
    Convolution3DParameter,
    ConvolutionParameter,
    LayerParameter,
    Pooling3DParameter,
    PoolingParameter,
)
from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.filler import Filler
from caffeconv.ir.layer import Arity, Gradients, Layer, Node, exactly
from caffeconv.layers.convolution import Convolution
from caffeconv.layers.gradient_ops import class_sums, filter_diff, spread_windows
from caffeconv.layers.pooling import METHODS, Method, Pooling, lower_pooling, pool_padding, pooling_diff
from caffeconv.layers.weight_layouts import convolution_kernel, flattened
from caffeconv.tensor.axis_order import AxisOrder
from caffeconv.tensor.shape import Shape, Shapes, count, format_shape
from caffeconv.tensor.weight_array import WeightArrays
from caffeconv.tensor.window import Padding, Window, conv_padding, deconv_padding

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder


def _check_5d(bottom: Shape) -> None:
    if len(bottom) != 5:
        raise LayerError(
            f"the bottom is {format_shape(bottom)}; 5 axes (num, channels, length, height, width) were needed"
        )


@dataclass(frozen=True)
class Convolution3D(Layer):
    """y = w ∗ x + b over length, height and width: N×C×L×H×W → N×num_output×L'×H'×W', sizes rounded down.

    Parameters: weight num_output × C × kernel_depth × kernel_size × kernel_size, bias 1×1×1×1×num_output.
    `filter_group` only splits the work, `group` is not read. The fields are those of convolution3d_param (C3D 1.1), or
    of convolution_param where there is none (C3D 1.0: convolution3d_layer.cpp).
    """

    num_output: int
    bias: bool
    window: Window
    """Axes: length, height, width."""
    weight_filler: Filler
    bias_filler: Filler

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.convolution3d_param if layer.proto.HasField("convolution3d_param") else _as_3d(layer)
        if p.num_output < 1 or p.filter_group < 1 or p.num_output % p.filter_group:
            raise LayerError(
                f"num_output is {p.num_output}, filter_group {p.filter_group}; a multiple of filter_group was needed"
            )
        window = Window(
            (p.kernel_depth, p.kernel_size, p.kernel_size), (p.temporal_stride, p.stride, p.stride),
            (p.temporal_pad, p.pad, p.pad), (1, 1, 1),
        )  # fmt: skip
        _check_window(window)
        return cls(p.num_output, p.bias_term, window, Filler.parse(p.weight_filler), Filler.parse(p.bias_filler))

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        _check_5d(bottoms[0])
        sizes = self.window.conv_size(bottoms[0][2:])
        if min(sizes) < 1:
            raise LayerError(
                f"the output would be {format_shape(sizes)}: input {format_shape(bottoms[0][2:])}, kernel "
                f"{format_shape(self.window.kernel)} "
                "(length × height × width). Use a larger input or a smaller kernel."
            )
        return [(bottoms[0][0], self.num_output, *sizes)]

    def weight_shapes(self, bottoms: Shapes) -> Mapping[str, Shape]:
        weight = (self.num_output, bottoms[0][1], *self.window.kernel)
        return {"weight": weight, "bias": (1, 1, 1, 1, self.num_output)} if self.bias else {"weight": weight}

    def fillers(self) -> Mapping[str, Filler]:
        return {"weight": self.weight_filler, "bias": self.bias_filler}

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        inputs = [node.bottoms[0], onnx.weight("weight")]
        if self.bias:
            inputs.append(onnx.weight("bias", (self.num_output,)))
        operator = "ConvTranspose" if self.transposed else "Conv"
        onnx.emit(
            operator,
            inputs,
            node.tops,
            kernel_shape=self.window.kernel,
            strides=self.window.stride,
            pads=self.window.pads if self.transposed else self.window.pads_over(onnx.dims(node.bottoms[0])[2:]),
        )

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        x, window = node.bottoms[0], self.window
        weight_diff = filter_diff(
            onnx, x, top_diffs[0], window, 1, image_dims=onnx.dims(x), places_dims=onnx.dims(node.tops[0]),
            what="weight_diff",
        )  # fmt: skip
        bottom_diff = spread_windows(
            onnx, top_diffs[0], onnx.weight("weight"), window, 1, positions=node.top_shapes[0][2:],
            size=node.bottom_shapes[0][2:], what="bottom_diff",
        )  # fmt: skip
        if not self.bias:
            return Gradients((bottom_diff,), {"weight": weight_diff})
        bias_diff = class_sums(onnx, top_diffs[0], 5, 1, "bias_diff")
        bias_diff = onnx.reshape(bias_diff, node.param("bias").shape, what="bias_diff")
        return Gradients((bottom_diff,), {"weight": weight_diff, "bias": bias_diff})

    def padding(self, node: Node) -> Padding | None:
        return conv_padding(self.window, node.bottom_shapes[0][2:], node.top_shapes[0][2:])

    def weight_arrays(self, node: Node, bottoms: Sequence[AxisOrder], follower: Node | None) -> WeightArrays:
        bias = (flattened(node, node.param("bias"), "bias"),) if self.bias else ()
        return WeightArrays((convolution_kernel(node, node.param("weight")), *bias))

    def window_over(self, bottom: Shape) -> Window | None:
        return self.window

    def multiply_adds(self, bottoms: Shapes, tops: Shapes) -> int:
        return count(tops[0]) * bottoms[0][1] * count(self.window.kernel)


@dataclass(frozen=True)
class Deconvolution3D(Convolution3D):
    """The transpose of Convolution3D: weight C × num_output × kernel…, so sizes grow by the strides.

    Whether there is a bias says convolution_param, as nothing else of it is read (C3D 1.1: deconvolution3d_layer.cpp).
    """

    transposed: ClassVar[bool] = True

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        if not layer.proto.HasField("convolution3d_param"):
            raise LayerError("no convolution3d_param, in which Deconvolution3D has its fields; it was needed")
        return replace(super().parse(layer), bias=layer.proto.convolution_param.bias_term)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        _check_5d(bottoms[0])
        sizes = self.window.deconv_size(bottoms[0][2:])
        if min(sizes) < 1:
            raise LayerError(
                f"the output would be {format_shape(sizes)} (length × height × width); less pad or a larger kernel was needed"
            )
        return [(bottoms[0][0], self.num_output, *sizes)]

    def weight_shapes(self, bottoms: Shapes) -> Mapping[str, Shape]:
        weight = (bottoms[0][1], self.num_output, *self.window.kernel)
        return {**super().weight_shapes(bottoms), "weight": weight}

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        x, window = node.bottoms[0], self.window
        weight_diff = filter_diff(
            onnx, top_diffs[0], x, window, 1, image_dims=onnx.dims(node.tops[0]), places_dims=onnx.dims(x),
            what="weight_diff",
        )  # fmt: skip
        bottom_diff = onnx.op(
            "Conv", [top_diffs[0], onnx.weight("weight")], what="bottom_diff", kernel_shape=window.kernel,
            strides=window.stride, pads=window.pads,
        )  # fmt: skip
        if not self.bias:
            return Gradients((bottom_diff,), {"weight": weight_diff})
        bias_diff = class_sums(onnx, top_diffs[0], 5, 1, "bias_diff")
        bias_diff = onnx.reshape(bias_diff, node.param("bias").shape, what="bias_diff")
        return Gradients((bottom_diff,), {"weight": weight_diff, "bias": bias_diff})

    def padding(self, node: Node) -> Padding | None:
        return deconv_padding(self.window, node.bottom_shapes[0][2:])

    def weight_arrays(self, node: Node, bottoms: Sequence[AxisOrder], follower: Node | None) -> WeightArrays:
        bias = (flattened(node, node.param("bias"), "bias"),) if self.bias else ()
        return WeightArrays((convolution_kernel(node, node.param("weight"), outside="I", inside="O"), *bias))

    def multiply_adds(self, bottoms: Shapes, tops: Shapes) -> int:
        return count(bottoms[0]) * self.num_output * count(self.window.kernel)


def _as_3d(layer: LayerDef) -> Convolution3DParameter:
    """C3D 1.0's fields of convolution_param, in the form of C3D 1.1."""
    p = layer.proto.convolution_param
    _check_single_values(p)
    return Convolution3DParameter(
        num_output=p.num_output, bias_term=p.bias_term, kernel_depth=p.kernel_depth, filter_group=p.filter_group,
        kernel_size=p.kernel_size[0] if p.kernel_size else 0, stride=p.stride[0] if p.stride else 1,
        pad=p.pad[0] if p.pad else 0, temporal_stride=p.temporal_stride, temporal_pad=p.temporal_pad,
        weight_filler=p.weight_filler, bias_filler=p.bias_filler,
    )  # fmt: skip


def _as_pooling_3d(layer: LayerDef) -> Pooling3DParameter:
    """C3D 1.0's fields of pooling_param, in the form of C3D 1.1."""
    p = layer.proto.pooling_param
    _check_single_values(p)
    if p.pool == p.AVE_EXC_PAD:
        raise LayerError("pool is AVE_EXC_PAD, which C3D does not have; MAX or AVE was needed")
    return Pooling3DParameter(
        pool=METHODS[p.pool], kernel_depth=p.kernel_depth, kernel_size=(*p.kernel_size, 0)[0],
        stride=(*p.stride, 1)[0], pad=(*p.pad, 0)[0], temporal_stride=p.temporal_stride,
    )  # fmt: skip


def _check_single_values(p: ConvolutionParameter | PoolingParameter) -> None:
    for name, values in (("kernel_size", p.kernel_size), ("stride", p.stride), ("pad", p.pad)):
        if len(values) > 1:
            raise LayerError(f"{name} is given {len(values)} times; once was needed: height and width are alike")


def _check_window(window: Window) -> None:
    if min(window.kernel) < 1 or min(window.stride) < 1:
        raise LayerError(
            f"the kernel is {format_shape(window.kernel)}, the stride {format_shape(window.stride)} (length × "
            "height × width); each "
            "must be at least 1. kernel_size and kernel_depth are both required."
        )


@dataclass(frozen=True)
class Pooling3D(Layer):
    """The greatest value, or the average, of each window of N×C×length×height×width, sizes rounded up.

    Only AVE knows `pad`, and it counts: AVE divides by the part of the window that lies in the padded input. The fields
    are those of pooling3d_param (C3D 1.1), or of pooling_param where there is none (C3D 1.0: pool3d_layer.cpp).
    """

    in_place: ClassVar[bool] = False

    method: Method
    window: Window
    """Axes: length, height, width."""

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.pooling3d_param if layer.proto.HasField("pooling3d_param") else _as_pooling_3d(layer)
        method = METHODS[p.pool]
        if p.pad and method != "AVE":
            raise LayerError(f"pad is {p.pad} and pool {method}; Padding implemented only for average pooling.")
        window = Window(
            (p.kernel_depth, p.kernel_size, p.kernel_size), (p.temporal_stride, p.stride, p.stride), (0, p.pad, p.pad),
            (1, 1, 1),
        )  # fmt: skip
        _check_window(window)
        return cls(method, window)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        _check_5d(bottoms[0])
        window = self.window
        # c3d: no window is dropped, as the two-dimensional layer does
        spans = (size + 2 * window.pad[i] - window.kernel[i] for i, size in enumerate(bottoms[0][2:]))
        sizes = [-(-span // stride) + 1 for span, stride in zip(spans, window.stride, strict=True)]
        if min(sizes) < 1:
            raise LayerError(f"the output would be {format_shape(sizes)}; use a larger input or a smaller kernel")
        return [(*bottoms[0][:2], *sizes)]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        if self.method == "STOCHASTIC":
            raise LayerError("`pool: STOCHASTIC` has no CPU form in C3D either (Not Implemented Yet); use MAX or AVE")
        bottom, top = node.bottom_shapes[0], node.top_shapes[0]
        lower_pooling(onnx, self.method, self.window, bottom, top[2:], node.bottoms[0], node.tops)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        bottom, top = node.bottom_shapes[0], node.top_shapes[0]
        diff = pooling_diff(onnx, self.method, self.window, bottom, top[2:], node.bottoms[0], top_diffs[0])
        return Gradients((diff,))

    def padding(self, node: Node) -> Padding | None:
        return pool_padding(self.method, self.window, node.bottom_shapes[0][2:], node.top_shapes[0][2:])

    def window_over(self, bottom: Shape) -> Window | None:
        return self.window

    def multiply_adds(self, bottoms: Shapes, tops: Shapes) -> int:
        return count(tops[0]) * count(self.window.kernel)


@dataclass(frozen=True)
class NdConvolution(Convolution):
    """A Convolution whose window is given as shapes over all axes after the channels (video-caffe: cudnn_ndconv_layer.cpp)."""

    settings: ClassVar[str] = ""

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return super().parse(layer.with_proto(_with_window_lists(layer.proto)))


@dataclass(frozen=True)
class NdPooling(Pooling):
    """Pooling whose window is given as shapes over all axes after the channels (video-caffe: cudnn_ndpooling_layer.cpp)."""

    tops: ClassVar[Arity] = exactly(1)
    settings: ClassVar[str] = ""

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return super().parse(layer.with_proto(_with_window_lists(layer.proto)))


def _with_window_lists(proto: LayerParameter) -> LayerParameter:
    """The layer with kernel_shape, stride_shape and pad_shape as kernel_size, stride and pad, a value for each axis.

    Raises LayerError where they are not for the same number of axes.
    """
    written = LayerParameter()
    written.CopyFrom(proto)
    p = written.pooling_param if written.HasField("pooling_param") else written.convolution_param
    for shape, values in ((p.kernel_shape, p.kernel_size), (p.stride_shape, p.stride), (p.pad_shape, p.pad)):
        if shape.dim and len(shape.dim) != len(p.kernel_shape.dim):
            raise LayerError(
                f"a window of {len(p.kernel_shape.dim)} axes (kernel_shape) and {len(shape.dim)} values beside it; "
                "kernel_shape, and as many in stride_shape and pad_shape, were needed (Kernel and Pad shape don't match !)"
            )
        values.extend(shape.dim)
    return written
