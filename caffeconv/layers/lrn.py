"""LRN (caffe: lrn_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Gradients, Layer, Node
from caffeconv.layers.gradient_ops import times
from caffeconv.layers.pooling import divisor_correction, pooling_diff
from caffeconv.tensor.shape import FloatArray, Shape, Shapes, count, format_shape
from caffeconv.tensor.window import Window

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder

MOST_BAND_CHANNELS, MOST_SLICES = 512, 9
"""LRN: up to so many channels, or with more terms than that, the sum over neighbours is a product by a band matrix."""


@dataclass(frozen=True)
class LRN(Layer):
    """Local response normalisation of N×C×H×W.

    ACROSS_CHANNELS: y = x · (k + alpha/size · Σ x² over `size` channels)^-beta.
    WITHIN_CHANNEL: y = x · (1 + alpha · average of x² over size×size places)^-beta; Caffe ignores k there, and the
    average is that of its AVE pooling.
    """

    propagates_always: ClassVar[bool] = True
    computes_in_float32: ClassVar[bool] = True
    is_pointwise: ClassVar[bool] = True

    size: int
    alpha: float
    beta: float
    k: float
    within: bool

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.lrn_param
        if p.local_size % 2 == 0:
            raise LayerError(f"local_size is {p.local_size}; LRN only supports odd values for local_size")
        return cls(p.local_size, p.alpha, p.beta, p.k, p.norm_region == p.WITHIN_CHANNEL)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        if len(bottoms[0]) != 4:
            raise LayerError(
                f"the bottom is {format_shape(bottoms[0])}; Input must have 4 axes, corresponding to (num, "
                "channels, height, width)"
            )
        return [bottoms[0]]

    def in_place_fault(self, bottoms: Shapes, tops: Shapes) -> str:
        if self.within:
            return super().in_place_fault(bottoms, tops)
        return "Caffe multiplies its power of the sum with itself there, and not with the bottom, which is gone by then"

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        x, scale = node.bottoms[0], self._scale(node, onnx)
        onnx.keep("scale", scale)
        if self.beta == 0.75:
            # onnxruntime's Pow is slow, and so is its LRN
            root = onnx.op("Sqrt", [scale], what="root")
            power = onnx.op("Mul", [root, onnx.op("Sqrt", [root], what="fourth_root")], what="power")
            onnx.emit("Div", [x, power], node.tops)
        else:
            power = onnx.op("Pow", [scale, onnx.floats("minus_beta", -self.beta)], what="power")
            onnx.emit("Mul", [x, power], node.tops)

    def _scale(self, node: Node, onnx: OnnxBuilder) -> str:
        """What is raised to -beta."""
        square = onnx.op("Mul", [node.bottoms[0], node.bottoms[0]], what="square")
        if self.within:
            average = self._plane_average(square, node, onnx)
            total = onnx.op("Mul", [average, onnx.floats("alpha", self.alpha)], what="weighted")
            return onnx.op("Add", [total, onnx.floats("one", 1)], what="scale")
        channels = node.bottom_shapes[0][1]
        if self._suits_band(channels):
            band = self._band(channels) * np.float32(self.alpha / self.size)
            operands = [square, onnx.floats("band", band), onnx.floats("k", np.full(channels, self.k))]
            return onnx.op("Conv", operands, what="scale")
        total = self._channel_sum(square, node, onnx)
        weighted = onnx.op("Mul", [total, onnx.floats("alpha_over_size", self.alpha / self.size)], what="weighted")
        return onnx.op("Add", [weighted, onnx.floats("k", self.k)], what="scale")

    def _suits_band(self, channels: int) -> bool:
        """Whether a 1×1 convolution sums up faster than slices, each of which is a pass over memory."""
        return self.size > 1 and (channels <= MOST_BAND_CHANNELS or self.size > MOST_SLICES or self.size > channels)

    def _band(self, channels: int) -> FloatArray:
        """Filters of 1×1, channels × channels: 1 where two channels are in one window."""
        index = np.arange(channels)
        near = np.abs(index[:, None] - index[None, :]) <= self.size // 2
        return near[:, :, None, None].astype(np.float32)  # type: ignore[no-any-return]

    def _window(self) -> Window:
        half = (self.size - 1) // 2
        return Window((self.size,) * 2, (1, 1), (half,) * 2, (1, 1))

    def _channel_sum(self, square: str, node: Node, onnx: OnnxBuilder) -> str:
        """Σ over `size` channels: a convolution with a band, or shifted slices of the padded values."""
        channels, half = node.bottom_shapes[0][1], self.size // 2
        if self.size == 1:
            return square
        if self._suits_band(channels):
            return onnx.op("Conv", [square, onnx.floats("band", self._band(channels))], what="sum")
        pads = onnx.ints("pads", [0, half, 0, 0, 0, half, 0, 0])
        padded = onnx.op("Pad", [square, pads], what="padded")
        axis = onnx.ints("channel_axis", [1])
        slices = [
            onnx.op("Slice", [padded, onnx.ints(f"from{i}", [i]), onnx.ints(f"to{i}", [i + channels]), axis])
            for i in range(self.size)
        ]
        return onnx.op("Sum", slices)

    def _plane_average(self, square: str, node: Node, onnx: OnnxBuilder) -> str:
        spatial = node.bottom_shapes[0][2:]
        window = self._window()
        average = onnx.op(
            "AveragePool", [square], kernel_shape=window.kernel, strides=window.stride, pads=window.pad * 2,
            count_include_pad=1,
        )  # fmt: skip
        factor = divisor_correction(window, spatial, window.pool_size(spatial))
        if (factor == 1).all():
            return average
        return onnx.op("Mul", [average, onnx.floats("window_share", factor)], what="average")

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        x, diff, scale, shape = node.bottoms[0], top_diffs[0], onnx.kept("scale"), node.bottom_shapes[0]
        power = onnx.op("Pow", [scale, onnx.floats("minus_beta", -self.beta)], what="power")
        direct = onnx.op("Mul", [diff, power], what="direct_diff")
        if self.within:
            y = onnx.op("Mul", [x, power], what="y")  # caffe: made of layers, none of which reads the top
            ratio = onnx.op("Div", [onnx.op("Mul", [diff, y], what="diff_y"), scale], what="ratio")
            window = self._window()
            spread = pooling_diff(onnx, "AVE", window, shape, window.pool_size(shape[2:]), x, ratio)
            factor = -2 * self.alpha * self.beta
        else:
            ratio = onnx.op("Div", [onnx.op("Mul", [diff, node.tops[0]], what="diff_y"), scale], what="ratio")
            spread = self._channel_sum(ratio, node, onnx)
            factor = -2 * self.alpha * self.beta / self.size
        others = times(onnx, onnx.op("Mul", [x, spread], what="x_spread"), factor, "others_diff")
        return Gradients((onnx.op("Add", [direct, others], what="bottom_diff"),))

    def window_over(self, bottom: Shape) -> Window | None:
        side, half = (self.size, self.size), (self.size // 2, self.size // 2)
        return Window(side, (1, 1), half, (1, 1)) if self.within else None

    def multiply_adds(self, bottoms: Shapes, tops: Shapes) -> int:
        return count(bottoms[0]) * self.size * (self.size if self.within else 1)
