"""Layer types of single forks: BN, Axpy, ReLU6, ReLUX, SeLu, Mish, ConvolutionDepthwise and Local."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from caffeconv.caffe_pb2 import BNParameter, ConvolutionParameter, LocalParameter
from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.filler import Filler
from caffeconv.ir.layer import Arity, Gradients, Layer, Node, Settings, exactly
from caffeconv.layers.convolution import Convolution, conv_window, picks
from caffeconv.layers.elementwise import Elementwise
from caffeconv.layers.gradients import class_sums, like_bottom, spread_windows, sum_over, times
from caffeconv.layers.kernels import PerChannel, batch_normalization, moved
from caffeconv.layers.normalization import centred_and_deviation, centred_diff, lower_mean_variance
from caffeconv.tensor.axis_order import Arrangement
from caffeconv.tensor.param import Param
from caffeconv.tensor.shape import FloatArray, Shape, Shapes, by_x, count
from caffeconv.tensor.weight_array import Fact, Kernel, Kernels
from caffeconv.tensor.window import Padding, Window, conv_padding

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder

# -- BN ----------------------------------------------------------------------------------------------------------------

_SEGNET = {"scale_filler", "shift_filler", "bn_mode"}
_PSPNET = {"slope_filler", "bias_filler", "momentum", "eps", "frozen"}
SEGNET_EPS = 1e-9
SELU_ALPHA, SELU_LAMBDA = 1.6732632423543772, 1.0507009873554805


@dataclass(frozen=True)
class BN(Layer):
    """y = slope · (x - mean) / √(variance + eps) + bias, per channel: two layers of one name.

    SegNet's (caffe-segnet: bn_layer.cpp) has the parameters scale and shift, 1×C×1×1 each. LEARN, the default, takes
    mean and (biased) variance of this batch, in TEST too, with eps 1e-9; INFERENCE takes none, y = scale · x + shift.
    The top has 4 axes. PSPNet's (PSPNet: bn_layer.cpp) has slope, bias, mean and variance, 1×C×1×1 each; in TRAIN,
    unless `frozen`, mean and (biased) variance are those of the batch. The fields of bn_param tell one from the other.
    """

    keeps_bottoms: ClassVar[bool] = True
    keeps_places: ClassVar[bool] = True
    keeps_float32: ClassVar[bool] = True

    segnet: bool
    statistics: Literal["stored", "batch", "none"]
    eps: float
    slope_filler: Filler
    bias_filler: Filler
    variance: float
    """What the stored variance starts from."""

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.bn_param
        given = {field.name for field, _ in p.ListFields()}
        segnet, pspnet = sorted(given & _SEGNET), sorted(given & _PSPNET)
        if p.icnet:
            raise LayerError("icnet: true changes what BN computes, and no source says how; that is not supported")
        if segnet and pspnet:
            raise LayerError(f"{segnet[0]} is of SegNet's BN, {pspnet[0]} of PSPNet's; fields of one were needed")
        if not segnet and not pspnet:
            raise LayerError(
                "bn_param does not tell whose BN this is; add `bn_param { bn_mode: LEARN }` (or INFERENCE) for "
                "SegNet's with 2 parameters, `bn_param { frozen: false }` for PSPNet's with 4"
            )
        if segnet:
            learns = p.bn_mode == BNParameter.LEARN
            fillers = Filler.parse(p.scale_filler), Filler.parse(p.shift_filler)
            return cls(True, "batch" if learns else "none", SEGNET_EPS, *fillers, 0.0)
        stored = p.frozen or layer.phase == "TEST"
        fillers = Filler.parse(p.slope_filler), Filler.parse(p.bias_filler)
        return cls(False, "stored" if stored else "batch", p.eps, *fillers, 1.0 if p.frozen else 0.0)

    @property
    def names(self) -> tuple[str, str]:
        """What the factor and the summand are called."""
        return ("scale", "shift") if self.segnet else ("slope", "bias")

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        bottom = bottoms[0]
        if not 2 <= len(bottom) <= 4:
            raise LayerError(f"the bottom is {by_x(bottom)}; 2 to 4 axes were needed")
        return [(*bottom, *([1] * (4 - len(bottom))))] if self.segnet else [bottom]

    def weight_shapes(self, bottoms: Shapes) -> Mapping[str, Shape]:
        names = self.names if self.segnet else (*self.names, "mean", "variance")
        return dict.fromkeys(names, (1, bottoms[0][1], 1, 1))

    def fillers(self) -> Mapping[str, Filler]:
        factor, summand = self.names
        return {factor: self.slope_filler, summand: self.bias_filler, "variance": Filler(value=self.variance)}

    def multiply_adds(self, bottoms: Shapes, tops: Shapes) -> int:
        return count(bottoms[0])

    def kernels(self, node: Node, bottoms: Sequence[Arrangement], follower: Node | None) -> Kernels:
        gamma, beta = (PerChannel.of(node, name) for name in self.names)
        if self.segnet:
            arrays: tuple[Kernel, ...] = gamma.kernel("gamma", bottoms[0]), beta.kernel("beta", bottoms[0])
        else:
            mean, variance = (PerChannel.of(node, name) for name in ("mean", "variance"))
            arrays = batch_normalization(gamma, beta, mean, variance, bottoms[0])
        facts: dict[str, Fact] = {} if self.statistics == "none" else {"epsilon": self.eps}
        note = "Caffe takes mean and variance of the batch here" if self.statistics == "batch" else ""
        return Kernels(arrays, facts, (note,) if note else ())

    def channel_affine(self, node: Node) -> tuple[FloatArray, FloatArray] | None:
        if self.statistics == "batch" or len(node.top_shapes[0]) != len(node.bottom_shapes[0]):
            return None
        factor, summand = (node.param(name).array().reshape(-1).astype(np.float64) for name in self.names)
        if self.statistics == "stored":
            mean, variance = (node.param(name).array().reshape(-1) for name in ("mean", "variance"))
            factor = factor / np.sqrt(variance.astype(np.float64) + self.eps)
            summand = summand - mean * factor
        return factor.astype(np.float32), summand.astype(np.float32)

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        x, rank = node.bottoms[0], len(node.top_shapes[0])
        if len(node.bottom_shapes[0]) != rank:
            x = onnx.reshape(x, onnx.dims(node.tops[0]))
        channels = node.bottom_shapes[0][1]
        if self.statistics == "stored":
            names = (*self.names, "mean", "variance")
            weights = [onnx.weight(name, (channels,)) for name in names]
            onnx.emit("BatchNormalization", [x, *weights], node.tops, epsilon=self.eps)
            return
        if self.statistics == "batch":
            normalized = f"{node.tops[0]}/normalized"
            lower_mean_variance(onnx, x, [axis for axis in range(rank) if axis != 1], self.eps, normalized)
            x = normalized
        factor, summand = (onnx.weight(name, (channels, *([1] * (rank - 2)))) for name in self.names)
        onnx.emit("Add", [onnx.op("Mul", [x, factor], what="scaled"), summand], node.tops)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        x, rank, channels = node.bottoms[0], len(node.top_shapes[0]), node.bottom_shapes[0][1]
        if len(node.bottom_shapes[0]) != rank:
            x = onnx.reshape(x, onnx.dims(node.tops[0]))
        spread = (channels, *([1] * (rank - 2)))
        diff = onnx.op("Mul", [top_diffs[0], onnx.weight(self.names[0], spread)], what="scaled_diff")
        if self.statistics == "batch":
            axes = [axis for axis in range(rank) if axis != 1]
            centred, deviation = centred_and_deviation(onnx, x, axes, self.eps)
            x = onnx.op("Div", [centred, deviation], what="normalized")
            diff = centred_diff(onnx, diff, x, deviation, axes)
        elif self.statistics == "stored":
            mean, variance = (onnx.weight(name, spread) for name in ("mean", "variance"))
            guarded = onnx.op("Add", [variance, onnx.floats("eps", self.eps)], what="guarded")
            deviation = onnx.op("Sqrt", [guarded], what="deviation")
            x = onnx.op("Div", [onnx.op("Sub", [x, mean], what="centred"), deviation], what="normalized")
            diff = onnx.op("Div", [diff, deviation], what="bottom_diff")
        product = onnx.op("Mul", [top_diffs[0], x], what="diff_x")
        factor, summand = self.names
        sums = {factor: product, summand: top_diffs[0]}
        params = {
            name: onnx.reshape(
                class_sums(onnx, value, rank, 1, f"{name}_sum"), (1, channels, 1, 1), what=f"{name}_diff"
            )
            for name, value in sums.items()
        }
        return Gradients((like_bottom(onnx, node, diff),), params)


# -- without parameters ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Axpy(Layer):
    """top = a · x + y, a number a for each channel of each picture (SENet: axpy_layer.cpp).

    Bottoms: a N×C (or N×C×1×1), x N×C×…, y as x.
    """

    bottoms: ClassVar[Arity] = exactly(3)
    in_place: ClassVar[bool] = False

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls()

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        factor, x, y = bottoms
        if x != y:
            raise LayerError(f"x (bottom[1]) is {by_x(x)}, y (bottom[2]) is {by_x(y)}; one shape was needed")
        if len(x) < 2 or factor[:2] != x[:2] or count(factor, 2) != 1:
            raise LayerError(
                f"a (bottom[0]) is {by_x(factor)}, x (bottom[1]) is {by_x(x)}; for a {by_x(x[:2])}, one number for "
                "each channel, was needed"
            )
        return [x]

    def multiply_adds(self, bottoms: Shapes, tops: Shapes) -> int:
        return count(tops[0])

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        _, x, y = node.bottoms
        onnx.emit("Add", [onnx.op("Mul", [self._factor(node, onnx), x], what="scaled"), y], node.tops)

    def _factor(self, node: Node, onnx: OnnxBuilder) -> str:
        factor = node.bottoms[0]
        spread = (*onnx.dims(factor)[:2], *([1] * (len(node.bottom_shapes[1]) - 2)))
        return factor if spread == onnx.dims(factor) else onnx.reshape(factor, spread, what="factor")

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        product = onnx.op("Mul", [top_diffs[0], node.bottoms[1]], what="diff_x")
        total = sum_over(onnx, product, range(2, len(node.bottom_shapes[1])), "factor_diff")
        factor_diff = like_bottom(onnx, node, total, shape=node.bottom_shapes[1][:2])
        x_diff = onnx.op("Mul", [top_diffs[0], self._factor(node, onnx)], what="x_diff")
        return Gradients((factor_diff, x_diff, top_diffs[0]))


@dataclass(frozen=True)
class ReLU6(Elementwise):
    """y = min(max(x, 0) + negative_slope · min(x, 0), 6) (MobileNet-YOLO: relu6_layer.cpp; others have no slope)."""

    negative_slope: float

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls(layer.proto.relu6_param.negative_slope)

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        most = onnx.floats("most", 6)
        if self.negative_slope == 0:
            onnx.emit("Clip", [node.bottoms[0], onnx.floats("least", 0), most], node.tops)
            return
        leaky = onnx.op("LeakyRelu", node.bottoms, alpha=self.negative_slope, what="leaky")
        onnx.emit("Min", [leaky, most], node.tops)

    def bottom_diff(self, node: Node, onnx: OnnxBuilder, diff: str) -> str:
        zero = onnx.floats("zero", 0)
        below = zero if self.negative_slope == 0 else times(onnx, diff, self.negative_slope, "negative_diff")
        positive = onnx.op("Where", [onnx.op("Greater", [node.bottoms[0], zero]), diff, below], what="positive_diff")
        capped = onnx.op("Less", [node.bottoms[0], onnx.floats("most", 6)], what="below_most")
        return onnx.op("Where", [capped, positive, zero], what="bottom_diff")


@dataclass(frozen=True)
class ReLUX(Elementwise):
    """y = min(max(x, 0), maximal_value) + negative_slope · min(x, 0) (py-RFCN-priv: relux_layer.cpp)."""

    negative_slope: float
    maximal_value: float

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.relux_param
        if p.maximal_value < 0:
            raise LayerError(f"maximal_value is {p.maximal_value:g}; maximal_value must be non-negative.")
        return cls(p.negative_slope, p.maximal_value)

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        limits = [onnx.floats("zero", 0), onnx.floats("maximal_value", self.maximal_value)]
        if self.negative_slope == 0:
            onnx.emit("Clip", [node.bottoms[0], *limits], node.tops)
            return
        positive = onnx.op("Clip", [node.bottoms[0], *limits], what="positive")
        negative = onnx.op("Min", [node.bottoms[0], limits[0]], what="negative")
        sloped = onnx.op("Mul", [negative, onnx.floats("negative_slope", self.negative_slope)], what="sloped")
        onnx.emit("Add", [positive, sloped], node.tops)

    def bottom_diff(self, node: Node, onnx: OnnxBuilder, diff: str) -> str:
        zero = onnx.floats("zero", 0)
        below = zero if self.negative_slope == 0 else times(onnx, diff, self.negative_slope, "negative_diff")
        capped = onnx.op("Less", [node.bottoms[0], onnx.floats("maximal_value", self.maximal_value)], what="below_most")
        above = onnx.op("Where", [capped, diff, zero], what="above_diff")
        return onnx.op("Where", [onnx.op("Greater", [node.bottoms[0], zero]), above, below], what="bottom_diff")


@dataclass(frozen=True)
class SeLu(Elementwise):
    """y = λ · x for x > 0, else λ · α · (exp x - 1); λ 1.0507…, α 1.6733… (py-RFCN-priv: selu_layer.cpp)."""

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.emit("Selu", node.bottoms, node.tops, alpha=SELU_ALPHA, gamma=SELU_LAMBDA)

    def bottom_diff(self, node: Node, onnx: OnnxBuilder, diff: str) -> str:
        # by the top, as ELU's: λ·α·exp x = y + λ·α
        curve = onnx.op("Add", [node.tops[0], onnx.floats("depth", SELU_LAMBDA * SELU_ALPHA)], what="curve")
        positive = onnx.op("Greater", [node.bottoms[0], onnx.floats("zero", 0)], what="positive")
        slope = onnx.op("Where", [positive, onnx.floats("lambda", SELU_LAMBDA), curve], what="slope")
        return times(onnx, diff, slope)


@dataclass(frozen=True)
class Mish(Elementwise):
    """y = x · tanh(log(1 + exp x)) (darknet and its ports to Caffe: mish_layer.cpp)."""

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.emit("Mul", [node.bottoms[0], self._gate(node, onnx)], node.tops)

    def _gate(self, node: Node, onnx: OnnxBuilder) -> str:
        return onnx.op("Tanh", [onnx.op("Softplus", node.bottoms)], what="gate")

    def bottom_diff(self, node: Node, onnx: OnnxBuilder, diff: str) -> str:
        gate = self._gate(node, onnx)
        open_part = onnx.op("Sub", [onnx.floats("one", 1), onnx.op("Mul", [gate, gate])], what="open_part")
        gate_slope = onnx.op("Mul", [open_part, onnx.op("Sigmoid", node.bottoms)], what="gate_slope")
        moved_part = onnx.op("Mul", [node.bottoms[0], gate_slope], what="moved_part")
        return times(onnx, diff, onnx.op("Add", [gate, moved_part], what="slope"))


# -- convolutions ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ConvolutionDepthwise(Layer):
    """A convolution with one filter for each channel: N×C×H×W → N×C×H'×W'; weight C×1×kernel, bias C.

    `num_output` and `group` are not read: both are the number of channels (sp2823/caffe: conv_dw_layer.cpp).
    """

    settings: ClassVar[str] = "convolution_param"
    size_settings: ClassVar[tuple[str, ...]] = Convolution.size_settings
    param_axes: ClassVar[Mapping[str, str]] = {"weight": "channels × 1 × kernel_h × kernel_w", "bias": "channels"}

    param: ConvolutionParameter

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls(layer.proto.convolution_param)

    @classmethod
    def implied_settings(cls, layer: LayerDef, bottoms: Shapes, stored: Shapes) -> Sequence[Settings]:
        return ({"kernel_size": stored[0][2:], "bias_term": len(stored) > 1},) if stored and len(stored[0]) > 2 else ()

    @classmethod
    def implied_channels(cls, layer: LayerDef, bottoms: Shapes, stored: Shapes) -> int | None:
        return stored[0][0] if stored else None

    def window_over(self, bottom: Shape) -> Window | None:
        return self.grouped([bottom]).window(bottom)

    def size_formulas(self, bottom: Shape) -> tuple[str, ...]:
        return self.grouped([bottom]).size_formulas(bottom)

    def grouped(self, bottoms: Shapes) -> Convolution:
        """The same as a Convolution, which it is once the number of channels is known."""
        if len(bottoms[0]) != 4:
            raise LayerError(f"the bottom is {by_x(bottoms[0])}; N×C×H×W was needed")
        channels, p = bottoms[0][1], self.param
        if channels < 1:
            raise LayerError(f"the bottom is {by_x(bottoms[0])}; at least one channel was needed")
        fillers = Filler.parse(p.weight_filler), Filler.parse(p.bias_filler)
        return Convolution(channels, channels, 1, p.bias_term, p, *fillers)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        return self.grouped(bottoms).top_shapes(bottoms)

    def weight_shapes(self, bottoms: Shapes) -> Mapping[str, Shape]:
        return self.grouped(bottoms).weight_shapes(bottoms)

    def fillers(self) -> Mapping[str, Filler]:
        return {"weight": Filler.parse(self.param.weight_filler), "bias": Filler.parse(self.param.bias_filler)}

    def multiply_adds(self, bottoms: Shapes, tops: Shapes) -> int:
        return self.grouped(bottoms).multiply_adds(bottoms, tops)

    def padding(self, node: Node) -> Padding | None:
        return self.grouped(node.bottom_shapes).padding(node)

    def kernels(self, node: Node, bottoms: Sequence[Arrangement], follower: Node | None) -> Kernels:
        return self.grouped(node.bottom_shapes).kernels(node, bottoms, follower)

    def absorb(self, node: Node, factor: FloatArray, shift: FloatArray) -> tuple[Param, ...] | None:
        return self.grouped(node.bottom_shapes).absorb(node, factor, shift)

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        self.grouped(node.bottom_shapes).lower(node, onnx)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        return self.grouped(node.bottom_shapes).lower_gradient(node, onnx, top_diffs, propagate_down)


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
            window = conv_window(layer.proto.convolution_param, 2)
        if p.num_output < 1:
            raise LayerError(f"num_output is {p.num_output}; at least 1 was needed")
        return cls(p.num_output, p.bias_term, window, Filler.parse(p.weight_filler), Filler.parse(p.bias_filler))

    def places(self, bottom: Shape) -> Shape:
        """H', W'."""
        return self.window.conv_size(bottom[2:])

    def window_over(self, bottom: Shape) -> Window | None:
        return self.window

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        bottom = bottoms[0]
        if len(bottom) != 4:
            raise LayerError(f"the bottom is {by_x(bottom)}; N×C×H×W was needed")
        for name, size, kernel in zip(("height", "width"), bottom[2:], self.window.kernel, strict=True):
            if size < kernel:
                raise LayerError(f"the bottom is {by_x(bottom)}, the kernel {by_x(self.window.kernel)}; {name} smaller "
                                 "than kernel size")  # fmt: skip
        places = self.places(bottom)
        if min(places) < 1:
            raise LayerError(f"the output would be {by_x(places)}; use a larger input or a smaller kernel_size")
        return [(bottom[0], self.num_output, *places)]

    def weight_shapes(self, bottoms: Shapes) -> Mapping[str, Shape]:
        places = count(self.places(bottoms[0]))
        weight = (self.num_output, 1, bottoms[0][1] * count(self.window.kernel), places)
        return {"weight": weight, "bias": (1, 1, self.num_output, places)} if self.bias else {"weight": weight}

    def fillers(self) -> Mapping[str, Filler]:
        return {"weight": self.weight_filler, "bias": self.bias_filler}

    def multiply_adds(self, bottoms: Shapes, tops: Shapes) -> int:
        return bottoms[0][0] * count(self.weight_shapes(bottoms)["weight"])

    def padding(self, node: Node) -> Padding | None:
        return conv_padding(self.window, node.bottom_shapes[0][2:], node.top_shapes[0][2:])

    def kernels(self, node: Node, bottoms: Sequence[Arrangement], follower: Node | None) -> Kernels:
        channels, kernel, places = node.bottom_shapes[0][1], self.window.kernel, self.places(node.bottom_shapes[0])
        weight = moved(
            node, node.param("weight"), "kernel", (4, 2, 3, 1, 0),
            "O×1×(I·kernel_h·kernel_w)×places → places×(kernel_h·kernel_w·I)×O",
            view=(self.num_output, channels, *kernel, count(places)),
            shape=(count(places), count(kernel) * channels, self.num_output),
        )  # fmt: skip
        if not self.bias:
            return Kernels((weight,))
        view = (self.num_output, *places)
        bias = moved(node, node.param("bias"), "bias", (1, 2, 0), "1×1×O×(H·W) → H×W×O", view=view)
        return Kernels((weight, bias))

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
            strides=window.stride, dilations=window.dilation, pads=window.pad * 2, group=channels,
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


def _local_window(p: LocalParameter) -> Window:
    kernel = (p.kernel_h, p.kernel_w) if p.HasField("kernel_h") or p.HasField("kernel_w") else (p.kernel_size,) * 2
    stride = (p.stride_h, p.stride_w) if p.HasField("stride_h") or p.HasField("stride_w") else (p.stride,) * 2
    pad = (p.pad_h, p.pad_w) if p.HasField("pad_h") or p.HasField("pad_w") else (p.pad,) * 2
    if min(kernel) < 1 or min(stride) < 1:
        raise LayerError(f"kernel_size is {by_x(kernel)}, stride {by_x(stride)}; each must be at least 1")
    return Window(kernel, stride, pad, (1, 1))
