"""Convolution and Deconvolution (caffe: base_conv_layer.cpp, conv_layer.cpp, deconv_layer.cpp), and Im2col."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from caffeconv.caffe_pb2 import ConvolutionParameter, InnerProductParameter, LayerParameter
from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.filler import Filler
from caffeconv.ir.layer import Arity, Gradients, Layer, Node, Setting, Settings, at_least
from caffeconv.layers.gradient_ops import class_sums, filled_like, filter_diff, spread_by_convolution, spread_windows
from caffeconv.layers.weight_layouts import convolution_kernel, flattened, transposed
from caffeconv.tensor.axis_order import AxisOrder, channels_last
from caffeconv.tensor.param import Param
from caffeconv.tensor.param_values import ArrayValues, DerivedValues
from caffeconv.tensor.shape import Dims, FloatArray, Shape, Shapes, canonical_axis, count, format_shape
from caffeconv.tensor.weight_array import Fact, WeightArray, WeightArrays
from caffeconv.tensor.window import (
    Padding,
    Window,
    WindowSetting,
    WindowSpec,
    conv_padding,
    deconv_padding,
    parse_sides,
    same_window,
)

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder


@dataclass(frozen=True)
class Convolution(Layer):
    """y = w ∗ x + b over the axes after the channels; one or more bottoms of one shape, a top for each.

    Bottom N×C×spatial…; weight num_output × C/group × kernel…; bias num_output; top N×num_output×spatial….
    """

    bottoms: ClassVar[Arity] = at_least(1)
    tops: ClassVar[Arity] = at_least(1)
    param_axes: ClassVar[Mapping[str, str]] = {
        "weight": "num_output × channels/group × kernel_h × kernel_w", "bias": "num_output",
    }  # fmt: skip
    settings: ClassVar[str] = "convolution_param"
    size_settings: ClassVar[tuple[str, ...]] = ("kernel_size", "stride", "pad", "dilation")
    channel_setting: ClassVar[str] = "num_output"

    num_output: int
    group: int
    axis: int
    bias: bool
    window: WindowSpec
    weight_filler: Filler
    bias_filler: Filler
    same: bool = False
    """Whether the padding is that of TensorFlow's SAME (Synopsys: `pad_type: 1`)."""

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.convolution_param
        if p.pad_type and cls.transposed:
            raise LayerError(
                "pad_type is not read by Deconvolution in Synopsys' fork; pad_l, pad_r, pad_t, pad_b were needed"
            )
        if p.num_output < 1:
            raise LayerError(f"num_output is {p.num_output}; at least 1 was needed")
        if p.group < 1 or p.num_output % p.group:
            raise LayerError(
                f"num_output {p.num_output} is not a multiple of group {p.group}; "
                "Number of output should be multiples of group."
            )
        if len(layer.bottoms) != len(layer.tops):
            raise LayerError(
                f"{len(layer.bottoms)} bottoms and {len(layer.tops)} tops; one top for each bottom was needed"
            )
        fillers = Filler.parse(p.weight_filler), Filler.parse(p.bias_filler)
        return cls(p.num_output, p.group, p.axis, p.bias_term, parse_window(p), *fillers, same=p.pad_type == 1)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        for i, bottom in enumerate(bottoms):
            if bottom != bottoms[0]:
                raise LayerError(
                    f"shape mismatch - bottom[0]: {format_shape(bottoms[0])} vs. bottom[{i}]: {format_shape(bottom)}; "
                    "All bottoms must have the same shape."
                )
        axis = self.channel_axis(bottoms[0])
        self.channels(bottoms[0])
        spatial = bottoms[0][axis + 1 :]
        window = self.window_over(bottoms[0])
        sizes = self.output_size(window, spatial)
        if any(size < 0 for size in sizes):
            raise LayerError(
                f"the output would be {format_shape(sizes)}: input {format_shape(spatial)}, kernel "
                f"{format_shape(window.kernel)}, "
                f"stride {format_shape(window.stride)}, pad {format_shape(window.pad)}, dilation "
                f"{format_shape(window.dilation)}. "
                "Use a larger input, more pad or a smaller kernel_size."
            )
        return [(*bottoms[0][:axis], self.num_output, *sizes)] * len(bottoms)

    def in_place_fault(self, bottoms: Shapes, tops: Shapes) -> str:
        window = self.window_over(bottoms[0])
        if {*window.kernel, *window.stride} <= {1} and not any(window.pads):
            return "with a 1×1 window Caffe multiplies the bottom as it lies, and writes over it meanwhile"
        return super().in_place_fault(bottoms, tops)

    def channel_axis(self, bottom: Shape) -> int:
        return canonical_axis(self.axis, len(bottom), bottom)

    def channels(self, bottom: Shape) -> int:
        channels = bottom[self.channel_axis(bottom)]
        if channels < 1:
            raise LayerError(f"the bottom is {format_shape(bottom)}; at least one channel was needed")
        if channels % self.group:
            raise LayerError(
                f"{channels} channels cannot be split into {self.group} groups (channels % group == {channels % self.group}); "
                f"a multiple of `group: {self.group}` was needed"
            )
        return channels

    def output_size(self, window: Window, spatial: Shape) -> Shape:
        return window.conv_size(spatial)

    def weight_shapes(self, bottoms: Shapes) -> Mapping[str, Shape]:
        inside, outside = self.num_output, self.channels(bottoms[0])
        if not self.transposed:
            inside, outside = outside, inside
        weight = (outside, inside // self.group, *self.window_over(bottoms[0]).kernel)
        return {"weight": weight, "bias": (self.num_output,)} if self.bias else {"weight": weight}

    def fillers(self) -> Mapping[str, Filler]:
        return {"weight": self.weight_filler, "bias": self.bias_filler}

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        axis = self.channel_axis(node.bottom_shapes[0])
        window, weight = self._window_and_weight(node, onnx)
        pads = window.pads if self.transposed else window.pads_over(node.bottom_shapes[0][axis + 1 :] or (1,))
        # not `self.bias`: a pass may have folded a bias into a layer without one
        weights = [weight, self.parameter(onnx, "bias")] if node.has_param("bias") else [weight]
        plain = axis == 1 and len(node.bottom_shapes[0]) > 2
        for bottom, top in zip(node.bottoms, node.tops, strict=True):
            x = bottom if plain else onnx.reshape(bottom, _as_batch(onnx, bottom, axis))
            y = top if plain else f"{top}/as_batch"
            onnx.emit(
                "ConvTranspose" if self.transposed else "Conv", [x, *weights], [y], kernel_shape=window.kernel,
                strides=window.stride, dilations=window.dilation, pads=pads, group=self.group,
            )  # fmt: skip
            if not plain:
                onnx.reshape(y, onnx.dims(top), to=top, what="back")

    def _window_and_weight(self, node: Node, onnx: OnnxBuilder) -> tuple[Window, str]:
        window = self.window_over(node.bottom_shapes[0])
        if window.kernel:
            return window.apart, summed_at_dilation_0(onnx, window, self.parameter(onnx, "weight"))
        # no spatial axis: a product over the channels alone, written as a 1×1 window
        weight = onnx.reshape(self.parameter(onnx, "weight"), (*node.params[0].shape, 1), what="weight_1d")
        return Window((1,), (1,), (0,), (1,)), weight

    def parameter(self, onnx: OnnxBuilder, name: str) -> str:
        """The parameter of that name, as the layer uses it."""
        return onnx.weight(name)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        axis = self.channel_axis(node.bottom_shapes[0])
        window, weight = self._window_and_weight(node, onnx)
        bottoms, weight_diffs, bias_diffs = [], [], []
        for bottom, top, top_diff in zip(node.bottoms, node.tops, top_diffs, strict=True):
            dims, top_dims = _as_batch(onnx, bottom, axis), _as_batch(onnx, top, axis)
            x, y_diff = bottom, top_diff
            if dims != onnx.dims(bottom):
                x, y_diff = onnx.reshape(x, dims, what="x"), onnx.reshape(y_diff, top_dims, what="y_diff")
            weight_diff, diff = self._diffs(onnx, window, weight, (x, dims), (y_diff, top_dims))
            if dims != onnx.dims(bottom):
                diff = onnx.reshape(diff, onnx.dims(bottom), what="bottom_diff")
            bottoms.append(diff)
            weight_diffs.append(weight_diff)
            bias_diffs.append(class_sums(onnx, y_diff, len(dims), 1, "bias_diff"))
        params = {"weight": _sum(onnx, weight_diffs, "weight_diff")}
        shape = node.params[0].shape
        if len(shape) == 2:
            params["weight"] = onnx.reshape(params["weight"], shape, what="weight_diff")
        elif window.kernel != shape[2:]:  # places that a dilation of 0 lays upon each other
            params["weight"] = onnx.op(
                "Expand", [params["weight"], onnx.ints("weight_shape", shape)], what="weight_diff"
            )
        return Gradients(bottoms, {**params, "bias": _sum(onnx, bias_diffs, "bias_diff")} if self.bias else params)

    def _diffs(
        self, onnx: OnnxBuilder, window: Window, weight: str, x: tuple[str, Dims], y_diff: tuple[str, Dims]
    ) -> tuple[str, str]:
        """The diffs of weight and bottom, given the bottom and the top's diff with their dims."""
        image, places = (y_diff, x) if self.transposed else (x, y_diff)
        weight_diff = filter_diff(
            onnx,
            image[0],
            places[0],
            window,
            self.group,
            image_dims=image[1],
            places_dims=places[1],
            what="weight_diff",
        )
        if self.transposed:
            diff = onnx.op(
                "Conv", [y_diff[0], weight], what="bottom_diff", kernel_shape=window.kernel, strides=window.stride,
                dilations=window.dilation, pads=window.pads, group=self.group,
            )  # fmt: skip
            return weight_diff, diff
        why = "the gradient of a convolution needs to know the sizes of its input"
        positions, size = onnx.fixed(y_diff[1][2:], why), onnx.fixed(x[1][2:], why)
        shape = (self.num_output, onnx.fixed(x[1][1:2], why)[0] // self.group)
        extent = {"positions": positions, "size": size}
        close = spread_by_convolution(
            onnx, y_diff[0], weight, window, self.group, **extent, shape=shape, what="bottom_diff"
        )
        return weight_diff, close or spread_windows(
            onnx, y_diff[0], weight, window, self.group, **extent, what="bottom_diff"
        )

    def fold_affine(self, node: Node, factor: FloatArray, shift: FloatArray) -> tuple[Param, ...] | None:
        if self.channel_axis(node.bottom_shapes[0]) != 1 or len(node.tops) != 1:
            return None
        return absorbed(node, factor, shift, self.output_axis_factor(node.param("weight").shape, factor))

    def output_axis_factor(self, weight: Shape, factor: FloatArray) -> FloatArray:
        """One factor for each output, shaped to be multiplied with the weight."""
        return factor.reshape(-1, *([1] * (len(weight) - 1)))

    def channel_axis_of(self, node: Node, bottom: int) -> int | None:
        return self.channel_axis(node.bottom_shapes[bottom])

    def axis_orders(self, node: Node, bottoms: Sequence[AxisOrder]) -> Sequence[AxisOrder] | None:
        if any(bottom.is_flattening for bottom in bottoms):
            return None
        return [channels_last(shape, self.channel_axis(node.bottom_shapes[0])) for shape in node.top_shapes]

    def padding(self, node: Node) -> Padding | None:
        axis = self.channel_axis(node.bottom_shapes[0]) + 1
        spatial, sizes = node.bottom_shapes[0][axis:], node.top_shapes[0][axis:]
        window = self.window_over(node.bottom_shapes[0])
        if not spatial:
            return None
        return deconv_padding(window, spatial) if self.transposed else conv_padding(window, spatial, sizes)

    def weight_arrays(self, node: Node, bottoms: Sequence[AxisOrder], follower: Node | None) -> WeightArrays:
        group: dict[str, Fact] = {"group": self.group} if self.group > 1 else {}
        bias = (flattened(node, node.param("bias"), "bias"),) if self.bias else ()
        return WeightArrays((self._kernel(node), *bias), group, self._notes(node))

    def is_depthwise(self, node: Node) -> bool:
        """Whether each channel has filters of its own, in as many dimensions as Keras knows that in."""
        shape = node.param("weight").shape
        return self.group > 1 and shape[1] == 1 and len(shape) in (3, 4)

    def _kernel(self, node: Node) -> WeightArray:
        weight = node.param("weight")
        if not self.is_depthwise(node):
            return convolution_kernel(node, weight, inside="I" if self.group == 1 else "I/group")
        outputs, _, *kernel = weight.shape
        spatial = "H×W" if len(kernel) == 2 else "W"
        # caffe: the filters of channel c follow one another, so output c·M + m is channel c's filter m
        return transposed(
            node, weight, "depthwise_kernel", (*range(2, len(kernel) + 2), 0, 1), f"(C·M)×1×{spatial} → {spatial}×C×M",
            view=(self.group, outputs // self.group, *kernel),
        )  # fmt: skip

    def _notes(self, node: Node) -> tuple[str, ...]:
        return ()

    def window_over(self, bottom: Shape) -> Window:
        spatial = bottom[self.channel_axis(bottom) + 1 :]
        window = self.window.over(len(spatial))
        return same_window(window, spatial) if self.same else window

    def size_formulas(self, bottom: Shape) -> tuple[str, ...]:
        window, spatial = self.window_over(bottom), bottom[self.channel_axis(bottom) + 1 :]
        formula = window.deconv_formula if self.transposed else window.conv_formula
        return tuple(formula(i, size) for i, size in enumerate(spatial))

    def multiply_adds(self, bottoms: Shapes, tops: Shapes) -> int:
        weights = count(self.weight_shapes(bottoms)["weight"])
        per_place = bottoms if self.transposed else tops
        axis = self.channel_axis(bottoms[0])
        return sum(weights * count(shape, 0, axis) * count(shape, axis + 1) for shape in per_place)

    @classmethod
    def implied_settings(cls, layer: LayerDef, bottoms: Shapes, stored: Shapes) -> Sequence[Settings]:
        if not stored or len(stored[0]) < 3:
            return ()
        outside, inside, *kernel = stored[0]
        settings: dict[str, Setting] = {"kernel_size": tuple(kernel), "bias_term": len(stored) > 1}
        channels = bottoms[0][1] if len(bottoms[0]) > 1 else 0
        if cls.transposed:
            outputs = count(stored[1]) if len(stored) > 1 else inside * layer.proto.convolution_param.group
            group = outputs // inside if inside and outputs % inside == 0 else 0
            settings["num_output"] = outputs
            if len(stored) == 1:
                known_group = layer.proto.convolution_param.num_output // inside if inside else 0
                group = known_group if known_group and outside % known_group == 0 else group
                settings["num_output"] = inside * group if group else outputs
        else:
            group = channels // inside if inside and channels % inside == 0 else 0
            settings["num_output"] = outside
        known = [settings]
        if group and outside % group == 0:
            known.insert(0, {**settings, "group": group})
        return known

    @classmethod
    def repairs(cls, layer: LayerDef, bottoms: Shapes) -> Sequence[Settings]:
        p, channels = layer.proto.convolution_param, bottoms[0][1] if len(bottoms[0]) > 1 else 0
        sides = max(p.kernel_h, p.kernel_w)
        if p.HasField("kernel_h") != p.HasField("kernel_w") or (p.kernel_size and sides):
            return [{"kernel_size": tuple(p.kernel_size) or (sides,)}]
        # a filter over all channels, or as many groups as divide both sides
        groups = [g for g in (1, p.group // 2, channels) if g and channels % g == 0 and p.num_output % g == 0]
        return [{"group": group} for group in dict.fromkeys(groups) if group != p.group]

    @classmethod
    def other_types(cls, layer: LayerDef, bottoms: Shapes, stored: Shapes) -> Sequence[LayerParameter]:
        if cls.transposed or not stored or len(stored[0]) != 2:
            return ()
        p, other = layer.proto.convolution_param, layer_like(layer, "InnerProduct")
        product = other.inner_product_param
        product.num_output = stored[0][0]
        if len(stored) < 2:
            product.bias_term = False
        copy_fillers(p, product)
        return (other,)

    @classmethod
    def implied_channels(cls, layer: LayerDef, bottoms: Shapes, stored: Shapes) -> int | None:
        if not stored or len(stored[0]) < 3:
            return None
        return stored[0][0] if cls.transposed else stored[0][1] * layer.proto.convolution_param.group


def layer_like(layer: LayerDef, kind: str) -> LayerParameter:
    """A layer of another type in this one's place: its name, bottoms, tops, rules and learning rates."""
    other = LayerParameter(name=layer.proto.name, type=kind, bottom=layer.bottoms, top=layer.tops)
    for name in ("include", "exclude", "param", "propagate_down"):
        getattr(other, name).extend(getattr(layer.proto, name))
    return other


def copy_fillers(
    source: ConvolutionParameter | InnerProductParameter, target: ConvolutionParameter | InnerProductParameter
) -> None:
    """Sets the fillers that `source` has in `target`, which has none."""
    if source.HasField("weight_filler"):
        target.weight_filler.CopyFrom(source.weight_filler)
    if source.HasField("bias_filler"):
        target.bias_filler.CopyFrom(source.bias_filler)


def _sum(onnx: OnnxBuilder, values: Sequence[str], what: str) -> str:
    return values[0] if len(values) == 1 else onnx.op("Sum", values, what=what)


def _as_batch(onnx: OnnxBuilder, value: str, axis: int) -> Dims:
    """The shape in which all axes before the channels are one, and there is at least one spatial axis."""
    dims = onnx.dims(value)
    before = dims[:axis]
    batch = None if None in before else count([dim for dim in before if dim is not None])
    return (batch, *dims[axis:], *([1] if len(dims) == axis + 1 else []))


def absorbed(node: Node, factor: FloatArray, shift: FloatArray, weight_factor: FloatArray) -> tuple[Param, ...]:
    """weight·factor, and bias·factor + shift, made where there was no bias; computed in float64.

    The weight is multiplied when its values are asked for, so that only one has to be in memory at a time.
    """
    weight = node.param("weight")

    def scale() -> FloatArray:
        out = np.empty(weight.shape, np.float32)
        return np.multiply(weight.array(), weight_factor, out=out, dtype=np.float64, casting="same_kind").ravel()

    bias = node.param("bias").array().astype(np.float64) if node.has_param("bias") else np.float64(0)
    folded_bias = (bias * factor + shift).astype(np.float32)
    return (
        replace(weight, values=DerivedValues(scale), source="folded"),
        Param("bias", folded_bias.shape, ArrayValues(folded_bias), source="folded"),
    )


@dataclass(frozen=True)
class Deconvolution(Convolution):
    """The transpose of Convolution: weight C × num_output/group × kernel…, so sizes grow by the stride."""

    transposed: ClassVar[bool] = True
    param_axes: ClassVar[Mapping[str, str]] = {
        "weight": "channels × num_output/group × kernel_h × kernel_w", "bias": "num_output",
    }  # fmt: skip

    def output_size(self, window: Window, spatial: Shape) -> Shape:
        return window.deconv_size(spatial)

    def output_axis_factor(self, weight: Shape, factor: FloatArray) -> FloatArray:
        # the weight is C × num_output/group × kernel…: rows of one group share that group's outputs
        by_group = np.repeat(factor.reshape(self.group, -1), weight[0] // self.group, axis=0)
        return by_group.reshape(*weight[:2], *([1] * (len(weight) - 2)))

    def _kernel(self, node: Node) -> WeightArray:
        outputs = "O" if self.group == 1 else "O/group"
        return convolution_kernel(node, node.param("weight"), outside="I", inside=outputs)

    def _notes(self, node: Node) -> tuple[str, ...]:
        if self.group == 1:
            return ()
        return (
            f"a deconvolution of {self.group} groups, for which Keras has no layer: for each group g, transpose-convolve "
            f"its input channels, of which there are {node.param('weight').shape[0] // self.group}, with that part of "
            "the kernel's last axis, and lay the results one after the other along the channels",
        )


@dataclass(frozen=True)
class Im2col(Layer):
    """Every window as a column: N×C×H×W → N×(C·kernel_h·kernel_w)×H'×W' (caffe: im2col_layer.cpp)."""

    propagates_always: ClassVar[bool] = True

    axis: int
    window: WindowSpec

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.convolution_param
        if p.pad_type:
            raise LayerError("pad_type is not known of Im2col; pad, or pad_h and pad_w, were needed")
        return cls(p.axis, parse_window(p))

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        axis = canonical_axis(self.axis, len(bottoms[0]), bottoms[0])
        if axis + 1 == len(bottoms[0]):
            raise LayerError(
                f"the bottom is {format_shape(bottoms[0])} with the channels on axis {axis}; at least one axis after them was "
                "needed (num_spatial_axes_ >= 1)"
            )
        window = self.window_over(bottoms[0])
        sizes = window.conv_size(bottoms[0][axis + 1 :])
        if any(size < 1 for size in sizes):
            raise LayerError(f"the output would be {format_shape(sizes)}; use a larger input or a smaller kernel_size")
        return [(*bottoms[0][:axis], bottoms[0][axis] * count(window.kernel), *sizes)]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        # a convolution whose filters are one-hot picks the windows' elements, whatever the number of axes
        axis = canonical_axis(self.axis, len(node.bottom_shapes[0]))
        channels = node.bottom_shapes[0][axis]
        window = self.window_over(node.bottom_shapes[0])
        weight, window = picks(onnx, window, channels), window.apart
        dims = _as_batch(onnx, node.bottoms[0], axis)
        y = onnx.op(
            "Conv", [onnx.reshape(node.bottoms[0], dims), weight], kernel_shape=window.kernel, strides=window.stride,
            dilations=window.dilation, pads=window.pads_over(dims[2:]), group=channels,
        )  # fmt: skip
        onnx.reshape(y, onnx.dims(node.tops[0]), to=node.tops[0], what="back")

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        if node.is_in_place:  # caffe: the bottom's diff is made 0 first, and is the top's
            return Gradients((filled_like(onnx, top_diffs[0], 0, "bottom_diff"),))
        axis = canonical_axis(self.axis, len(node.bottom_shapes[0]))
        window, channels = self.window_over(node.bottom_shapes[0]), node.bottom_shapes[0][axis]
        dims, top_dims = _as_batch(onnx, node.bottoms[0], axis), _as_batch(onnx, node.tops[0], axis)
        why = "the gradient of Im2col needs to know the sizes of its input"
        diff = spread_windows(
            onnx, onnx.reshape(top_diffs[0], top_dims, what="columns_diff"), picks(onnx, window, channels), window.apart,
            channels, positions=onnx.fixed(top_dims[2:], why), size=onnx.fixed(dims[2:], why), what="bottom_diff",
        )  # fmt: skip
        return Gradients((onnx.reshape(diff, onnx.dims(node.bottoms[0]), what="bottom_diff"),))

    def window_over(self, bottom: Shape) -> Window:
        return self.window.over(len(bottom) - canonical_axis(self.axis, len(bottom), bottom) - 1)


def picks(onnx: OnnxBuilder, window: Window, channels: int) -> str:
    """A filter for each element of the window and each channel that picks it."""
    filters = np.eye(count(window.kernel), dtype=np.float32).reshape(-1, 1, *window.kernel)
    filters = filters.sum(tuple(axis + 2 for axis in window.axes_at_dilation_0), keepdims=True)
    return onnx.floats("picks", np.tile(filters, (channels, 1, *([1] * len(window.kernel)))))


def summed_at_dilation_0(onnx: OnnxBuilder, window: Window, weight: str) -> str:
    """The weight for `window.apart`: elements that a dilation of 0 lays upon one place are added up."""
    axes = [axis + 2 for axis in window.axes_at_dilation_0]
    return onnx.reduce("ReduceSum", weight, axes, keepdims=True, what="summed_weight") if axes else weight


C3D_FIELDS = ("kernel_depth", "temporal_stride", "temporal_pad", "filter_group")


def parse_window(p: ConvolutionParameter) -> WindowSpec:
    """The window of a ConvolutionParameter; faults show when it is laid over axes, as in Caffe."""
    kernel = (p.kernel_h, p.kernel_w) if p.HasField("kernel_h") or p.HasField("kernel_w") else None
    stride = (p.stride_h, p.stride_w) if p.HasField("stride_h") or p.HasField("stride_w") else None
    pad = (p.pad_h, p.pad_w) if p.HasField("pad_h") or p.HasField("pad_w") else None
    fault = f'{", ".join(C3D_FIELDS)} are fields of C3D\'s Convolution3D; use `type: "Convolution3D"`'
    return WindowSpec(
        WindowSetting("kernel_size", tuple(p.kernel_size), kernel),
        WindowSetting("stride", tuple(p.stride), stride, 1),
        WindowSetting("pad", tuple(p.pad), pad, 0),
        _dilation(p),
        fault if any(p.HasField(name) for name in C3D_FIELDS) else "",
        parse_sides(p, ("pad",) * bool(p.pad) + ("pad_h/w",) * bool(p.pad_h or p.pad_w)),
    )


def _dilation(p: ConvolutionParameter) -> WindowSetting:
    """`dilation`, or DeepLab's older names for it: `hole`, or `hole_h` and `hole_w`."""
    by_axis = p.HasField("hole_h") or p.HasField("hole_w")
    if not by_axis and not p.HasField("hole"):
        return WindowSetting("dilation", tuple(p.dilation), default=1)
    if p.dilation or (by_axis and p.HasField("hole")):
        fault = "dilation, hole, and hole_h/hole_w are names of one thing; one of them was needed"
        return WindowSetting("hole", fault=fault)
    return WindowSetting("hole", height_width=(p.hole_h, p.hole_w)) if by_axis else WindowSetting("hole", (p.hole,))


def with_slopes(layer: LayerDef, bottoms: Shapes, stored: Shapes) -> Sequence[LayerParameter]:
    """The PReLU in a layer's place whose slopes are of the shapes `stored`: one of each channel, or one for all."""
    if len(stored) != 1 or count(stored[0]) not in (1, *bottoms[0][1:2]):
        return ()
    other = layer_like(layer, "PReLU")
    if count(stored[0]) == 1:
        other.prelu_param.channel_shared = True
    return (other,)
