"""DenseBlock (caffe_ocr: DenseBlock_layer.cpp)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.filler import Filler
from caffeconv.ir.layer import Layer, Node
from caffeconv.tensor.shape import Shape, Shapes, count, format_shape

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder

EPS = 1e-5
STATISTICS = ("scaler", "bias", "mean", "variance")


@dataclass(frozen=True)
class DenseBlock(Layer):
    """numTransition times batch normalisation, ReLU and a convolution to growthRate channels, joined to what came in.

    Bottom N×C×H×W, top N×(C + numTransition·growthRate)×H×W. With use_BC a convolution of size 1 to 4·growthRate channels,
    another normalisation and another ReLU stand before the convolution. Filters are turned by 180 degrees: the fork
    convolves, where Caffe's Convolution correlates. Only TEST, with the stored statistics.

    Parameters, numTransition of each: filters; scalers, biases, means and variances 1×c×1×1; with use_BC also filters of
    size 1 and the four of their channels; at last a number by which all means and variances are divided.
    """

    in_place: ClassVar[bool] = False
    takes_any_vector: ClassVar[bool] = True

    transitions: int
    growth: int
    kernel: tuple[int, int]
    bottleneck: bool
    filter_filler: Filler
    scaler_filler: Filler
    bias_filler: Filler

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.denseblock_param
        if layer.phase != "TEST":
            raise LayerError(
                "in TRAIN a DenseBlock normalises by the batch, for which there is no rule; TEST was needed"
            )
        if p.numTransition < 1 or p.growthRate < 1:
            raise LayerError(
                f"numTransition is {p.numTransition}, growthRate {p.growthRate}; at least 1 each was needed"
            )
        if (p.conv_verticalStride, p.conv_horizentalStride) != (1, 1):
            raise LayerError("a stride other than 1 makes maps that cannot be joined to the bottom; 1 was needed")
        if (p.filter_H, p.filter_W) != (2 * p.pad_h + 1, 2 * p.pad_w + 1) or p.pad_h < 0 or p.pad_w < 0:
            raise LayerError(
                f"filter_H × filter_W is {p.filter_H}×{p.filter_W} with pads {p.pad_h} and {p.pad_w}; maps of the bottom's "
                f"size were needed, so filters of 2 · pad + 1"
            )
        fillers = (Filler.parse(f) for f in (p.Filter_Filler, p.BN_Scaler_Filler, p.BN_Bias_Filler))
        return cls(p.numTransition, p.growthRate, (p.filter_H, p.filter_W), p.use_BC, *fillers)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        x = bottoms[0]
        if len(x) != 4:
            raise LayerError(f"the bottom is {format_shape(x)}; 4 axes were needed (N×C×H×W)")
        return [(x[0], x[1] + self.transitions * self.growth, *x[2:])]

    def weight_shapes(self, bottoms: Shapes) -> Mapping[str, Shape]:
        widths = [bottoms[0][1] + i * self.growth for i in range(self.transitions)]
        middle = 4 * self.growth
        shapes: dict[str, Shape] = {}
        for i, width in enumerate(widths):
            shapes[f"filter_{i}"] = (self.growth, middle if self.bottleneck else width, *self.kernel)
        for name in STATISTICS:
            shapes |= {f"{name}_{i}": (1, width, 1, 1) for i, width in enumerate(widths)}
        if self.bottleneck:
            shapes |= {f"filter_bc_{i}": (middle, width, 1, 1) for i, width in enumerate(widths)}
            for name in STATISTICS:
                shapes |= {f"{name}_bc_{i}": (1, middle, 1, 1) for i in range(self.transitions)}
        return {**shapes, "factor": (1,)}

    def fillers(self) -> Mapping[str, Filler]:
        kinds = {"filter": self.filter_filler, "scaler": self.scaler_filler, "bias": self.bias_filler}
        suffixes = ("", "_bc") if self.bottleneck else ("",)
        return {f"{name}{s}_{i}": kinds[name] for name in kinds for s in suffixes for i in range(self.transitions)}

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        x = node.bottoms[0]
        pads = [(size - 1) // 2 for size in self.kernel] * 2
        for i in range(self.transitions):
            values = self._activated(node, onnx, x, f"_{i}")
            if self.bottleneck:
                weight = onnx.weight(f"filter_bc_{i}")
                values = onnx.op("Conv", [values, weight], what=f"narrow_{i}", kernel_shape=(1, 1))
                values = self._activated(node, onnx, values, f"_bc_{i}")
            turned = onnx.floats(f"filter_{i}_turned", onnx.values(f"filter_{i}")[:, :, ::-1, ::-1])
            grown = onnx.op("Conv", [values, turned], what=f"grown_{i}", kernel_shape=self.kernel, pads=pads)
            if i < self.transitions - 1:
                x = onnx.op("Concat", [x, grown], what=f"joined_{i}", axis=1)
            else:
                onnx.emit("Concat", [x, grown], node.tops, axis=1)

    def _activated(self, node: Node, onnx: OnnxBuilder, x: str, suffix: str) -> str:
        """x after normalisation by the statistics of that suffix, and ReLU."""
        factor = onnx.values("factor")[0]
        # caffe: factor 0 means "no statistics yet"
        share = np.float32(0) if factor == 0 else np.float32(1) / factor
        channels = count(node.param(f"scaler{suffix}").shape)
        affine = [onnx.weight(f"{name}{suffix}", (channels,)) for name in ("scaler", "bias")]
        statistics = [
            onnx.floats(f"own_{name}{suffix}", onnx.values(f"{name}{suffix}").reshape(-1) * share)
            for name in ("mean", "variance")
        ]
        normed = onnx.op("BatchNormalization", [x, *affine, *statistics], what=f"normed{suffix}", epsilon=EPS)
        return onnx.op("Relu", [normed], what=f"active{suffix}")

    def multiply_adds(self, bottoms: Shapes, tops: Shapes) -> int:
        filters = [count(shape) for name, shape in self.weight_shapes(bottoms).items() if name.startswith("filter")]
        return bottoms[0][0] * count(bottoms[0], 2) * sum(filters)
