"""DeformableConvolution: a convolution whose taps are moved, place by place, by offsets that the net computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from caffeconv.caffe_pb2 import DeformableConvolutionParameter, LayerParameter
from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.filler import Filler
from caffeconv.ir.layer import NO_GRADIENT, Arity, Gradients, Node, Settings, exactly
from caffeconv.layers.bilinear_sampling import sampled
from caffeconv.layers.convolution import Convolution
from caffeconv.tensor.param import Param
from caffeconv.tensor.shape import FloatArray, Shape, Shapes, format_shape
from caffeconv.tensor.window import Window, WindowSetting, WindowSpec

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder


@dataclass(frozen=True)
class DeformableConvolution(Convolution):
    """y = w ∗ x + b over taps that are moved (unsky/Deformable-ConvNets-caffe: deformable_conv_layer.cu).

    Bottoms: x N×C×H×W, offsets N×(2·kh·kw·deformable_group)×H×W, for each group of channels and each tap, row by row, dy
    and dx. A tap is 0 where not 0 ≤ y < H and 0 ≤ x < W; else it is bilinear, with the last row and column held. The
    top has to be H×W too: the fork has offsets for the bottom's places and reads them for the top's.
    """

    bottoms: ClassVar[Arity] = exactly(2)
    tops: ClassVar[Arity] = exactly(1)
    in_place: ClassVar[bool] = False
    computes_in_float32: ClassVar[bool] = True
    settings: ClassVar[str] = "deformable_convolution_param"

    deformable_group: int = 1

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.deformable_convolution_param
        if p.num_output < 1:
            raise LayerError(f"num_output is {p.num_output}; at least 1 was needed")
        if p.group < 1 or p.num_output % p.group:
            raise LayerError(f"num_output is {p.num_output}; a multiple of `group: {p.group}` was needed")
        if p.axis not in (1, -3):
            raise LayerError(f"axis is {p.axis}; 1 was needed, as the bottoms are N×C×H×W")
        if p.deformable_group < 1:
            raise LayerError(f"deformable_group is {p.deformable_group}; at least 1 was needed")
        fillers = Filler.parse(p.weight_filler), Filler.parse(p.bias_filler)
        return cls(p.num_output, p.group, 1, p.bias_term, _window(p), *fillers, deformable_group=p.deformable_group)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        x, offsets = bottoms
        if len(x) != 4 or len(offsets) != 4:
            raise LayerError(
                f"the bottoms are {format_shape(x)} and {format_shape(offsets)}; N×C×H×W was needed of both"
            )
        (top,) = super().top_shapes([x])
        if x[1] % self.deformable_group:
            raise LayerError(f"{x[1]} channels; a multiple of `deformable_group: {self.deformable_group}` was needed")
        taps = int(np.prod(self.window_over(x).kernel))
        needed = (x[0], 2 * taps * self.deformable_group, *x[2:])
        if offsets != needed:
            raise LayerError(
                f"the offsets are {format_shape(offsets)}; {format_shape(needed)} was needed, 2 for each of {taps} taps and "
                f"`deformable_group: {self.deformable_group}`, and of the first bottom's height and width"
            )
        if top[2:] != x[2:]:
            raise LayerError(
                f"the top would be {format_shape(top[2:])} and the offsets are {format_shape(x[2:])} (height × width); one "
                "size was needed, as with stride 1 and a pad of half the kernel"
            )
        return [top]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        num = onnx.dims(node.bottoms[0])[0]
        sizes = onnx.fixed(
            onnx.dims(node.bottoms[0])[1:], "a DeformableConvolution needs to know the size of its input"
        )
        channels, size = sizes[0], sizes[1:]
        window, groups, places = self.window_over(node.bottom_shapes[0]), self.deformable_group, size[0] * size[1]
        taps = window.kernel[0] * window.kernel[1]
        planes = onnx.reshape(node.bottoms[0], (num, groups, channels // groups, places), what="planes")
        moves = onnx.reshape(node.bottoms[1], (num, groups, taps, 2, places), what="moves")
        coordinates = []
        for axis, start in enumerate(_tap_starts(window, size)):
            move = onnx.op("Gather", [moves, onnx.ints(f"axis_{axis}", axis)], axis=3, what="move")
            coordinate = onnx.op("Add", [move, onnx.floats(f"start_{axis}", start)], what="coordinate")
            coordinates.append(onnx.reshape(coordinate, (num, groups, 1, taps * places), what="coordinate"))
        columns = sampled(onnx, planes, (coordinates[0], coordinates[1]), size, outside=0)
        inside = channels // self.group * taps
        columns = onnx.reshape(columns, (num, self.group, inside, places), what="columns")
        weight = onnx.weight("weight", (1, self.group, self.num_output // self.group, inside))
        product = onnx.op("MatMul", [weight, columns], what="product")
        if not node.has_param("bias"):
            onnx.reshape(product, onnx.dims(node.tops[0]), to=node.tops[0])
            return
        product = onnx.reshape(product, onnx.dims(node.tops[0]), what="places")
        onnx.emit("Add", [product, onnx.weight("bias", (1, self.num_output, 1, 1))], node.tops)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        raise LayerError(NO_GRADIENT)

    def fold_affine(self, node: Node, factor: FloatArray, shift: FloatArray) -> tuple[Param, ...] | None:
        return None

    @classmethod
    def implied_settings(cls, layer: LayerDef, bottoms: Shapes, stored: Shapes) -> Sequence[Settings]:
        return ()

    @classmethod
    def repairs(cls, layer: LayerDef, bottoms: Shapes) -> Sequence[Settings]:
        return ()

    @classmethod
    def other_types(cls, layer: LayerDef, bottoms: Shapes, stored: Shapes) -> Sequence[LayerParameter]:
        return ()

    @classmethod
    def implied_channels(cls, layer: LayerDef, bottoms: Shapes, stored: Shapes) -> int | None:
        group = layer.proto.deformable_convolution_param.group
        return stored[0][1] * group if stored and len(stored[0]) == 4 else None

    def float32_values(self, node: Node) -> frozenset[str]:
        return frozenset(node.bottoms[1:])


def _tap_starts(window: Window, size: Shape) -> Sequence[FloatArray]:
    """Where each tap of each place lies before it is moved, rows and columns: taps × places, float32."""
    tap = np.indices(window.kernel).reshape(2, -1, 1)
    place = np.indices(size).reshape(2, 1, -1)
    axes = zip(tap, place, window.stride, window.pad, window.dilation, strict=True)
    return [(p * stride - pad + t * dilation).astype(np.float32) for t, p, stride, pad, dilation in axes]


def _window(p: DeformableConvolutionParameter) -> WindowSpec:
    def by_axis(height: str, width: str) -> tuple[int, int] | None:
        has_any = p.HasField(height) or p.HasField(width)
        return (getattr(p, height), getattr(p, width)) if has_any else None

    return WindowSpec(
        WindowSetting("kernel_size", tuple(p.kernel_size), by_axis("kernel_h", "kernel_w")),
        WindowSetting("stride", tuple(p.stride), by_axis("stride_h", "stride_w"), 1),
        WindowSetting("pad", tuple(p.pad), by_axis("pad_h", "pad_w"), 0),
        WindowSetting("dilation", tuple(p.dilation), default=1),
    )
