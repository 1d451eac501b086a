"""BN (PSPNet, SegNet and DeconvNet: bn_layer.cpp) and CuDNNBatchNorm (GENet: cudnn_batch_norm_layer.cpp)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from caffeconv.caffe_pb2 import BNParameter
from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.filler import Filler
from caffeconv.ir.layer import Arity, Gradients, Layer, Node
from caffeconv.layers.gradient_ops import class_sums, like_bottom, times
from caffeconv.layers.normalization import batch_statistics, centred_and_deviation, centred_diff
from caffeconv.layers.weight_layouts import PerChannel, batch_normalization
from caffeconv.tensor.axis_order import AxisOrder
from caffeconv.tensor.shape import FloatArray, Shape, Shapes, count, format_shape
from caffeconv.tensor.weight_array import Fact, WeightArray, WeightArrays

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder

_SEGNET = {"scale_filler", "shift_filler", "bn_mode"}


_PSPNET = {"slope_filler", "bias_filler", "momentum", "eps", "frozen"}


_OF_AVERAGES = {"var_eps", "moving_average", "decay", "sync_forward", "axis"}
"""Of the BN that JULE-Caffe, CaffeMex_v2 and TSN's first fork have."""


SEGNET_EPS = 1e-9
CUDNN_LEAST_EPS = 1e-5  # cuDNN: CUDNN_BN_MIN_EPSILON


@dataclass(frozen=True)
class BN(Layer):
    """y = slope · (x - mean) / √(variance + eps) + bias, per channel: layers of several forks.

    SegNet's, DeconvNet's and ndsb's have the parameters scale and shift, 1×C×1×1 each. LEARN, the default, takes mean and
    (biased) variance of this batch, in TEST too, with eps 1e-9; a second and a third top hold them, 1×C×1×1. INFERENCE
    takes none, y = scale · x + shift. The top has 4 axes. PSPNet's, yjxiong's and ICNet's have slope, bias, mean and
    variance, 1×C×1×1 each; in TRAIN, unless `frozen`, mean and (biased) variance are those of the batch. JULE-Caffe's,
    CaffeMex_v2's and TSN's first are the same with SegNet's fillers, `var_eps`, and in TEST the batch's statistics with
    `moving_average: false`. The fields of bn_param tell one from the other, or else the number of blobs in the weights file.
    """

    tops: ClassVar[Arity] = Arity(1, 3)
    takes_any_vector: ClassVar[bool] = True
    keeps_bottoms: ClassVar[bool] = True
    computes_in_float32: ClassVar[bool] = True
    is_pointwise: ClassVar[bool] = True
    running_statistics: ClassVar[frozenset[str]] = frozenset(("mean", "variance"))

    segnet: bool
    statistics: Literal["stored", "batch", "none"]
    eps: float
    slope_filler: Filler
    bias_filler: Filler
    variance: float
    """What the stored variance starts from."""
    statistics_tops: int = 0
    """How many tops hold the batch's mean and variance."""
    momentum: float | None = None
    """How much of the stored mean and variance stays in a pass that takes those of its batch; None: they stay as they are."""
    learns: bool = True
    """Whether slope and bias have gradients."""

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.bn_param
        fields = {field.name for field, _ in p.ListFields()}
        segnet, pspnet = sorted(fields & _SEGNET), sorted(fields & _PSPNET)
        if p.icnet:
            pspnet.append("icnet")
        elif p.HasField("icnet"):
            segnet.append("icnet: false")
        averages = sorted(fields & _OF_AVERAGES)
        if averages == ["moving_average"] and pspnet and p.moving_average:
            averages = []  # yjxiong's before `frozen`: what others always do
        if averages and (pspnet or p.HasField("bn_mode")):
            raise LayerError(f"{averages[0]} beside {(*pspnet, 'bn_mode')[0]}; fields of one fork's BN were needed")
        if averages or (segnet and "bn_mode" not in fields and len(layer.stored_shapes or ()) == 4):
            return cls._of_averages(layer, p)
        if segnet and pspnet:
            raise LayerError(f"{segnet[0]} is of SegNet's BN, {pspnet[0]} of PSPNet's; fields of one were needed")
        if not segnet and not pspnet:
            number = 4 if layer.dialect == "tsn" else len(layer.stored_shapes or ())
            if number not in (2, 4):
                raise LayerError(
                    "bn_param does not tell whose BN this is; add `bn_param { bn_mode: LEARN }` (or INFERENCE) for "
                    "SegNet's with 2 parameters, `bn_param { frozen: false }` for PSPNet's with 4"
                )
            return cls._of_segnet(layer, p) if number == 2 else cls._of_pspnet(layer, p)
        return cls._of_segnet(layer, p) if segnet else cls._of_pspnet(layer, p)

    @classmethod
    def _of_segnet(cls, layer: LayerDef, p: BNParameter) -> Self:
        learns = p.bn_mode == BNParameter.LEARN
        if len(layer.tops) > 1 and not learns:
            raise LayerError(f"{len(layer.tops)} tops; INFERENCE makes 1, as it takes no mean and no variance")
        fillers = Filler.parse(p.scale_filler), Filler.parse(p.shift_filler)
        return cls(True, "batch" if learns else "none", SEGNET_EPS, *fillers, 0.0, len(layer.tops) - 1)

    @classmethod
    def _of_averages(cls, layer: LayerDef, p: BNParameter) -> Self:
        if len(layer.tops) > 1:
            raise LayerError(f"{len(layer.tops)} tops; the BN that has 4 parameters produces 1 top blob(s) as output.")
        if p.axis != 1:
            raise LayerError(f"axis is {p.axis}; this BN is known for `axis: 1` only")
        stored = layer.phase == "TEST" and p.moving_average
        fillers = Filler.parse(p.scale_filler), Filler.parse(p.shift_filler)
        # CaffeMex_v2: `decay` is the share of what is stored; the others: that of the batch
        mex = p.HasField("sync_forward")
        share = (p.decay if mex else 1 - p.decay) if layer.phase == "TRAIN" else None
        return cls(False, "stored" if stored else "batch", p.var_eps, *fillers, 1.0 if mex else 0.0, momentum=share)

    @classmethod
    def _of_pspnet(cls, layer: LayerDef, p: BNParameter) -> Self:
        if len(layer.tops) > 1:
            raise LayerError(f"{len(layer.tops)} tops; the BN that has 4 parameters produces 1 top blob(s) as output.")
        stored = p.frozen or layer.phase == "TEST"
        fillers = Filler.parse(p.slope_filler), Filler.parse(p.bias_filler)
        variance = 1.0 if p.frozen else 0.0
        return cls(
            False, "stored" if stored else "batch", p.eps, *fillers, variance, momentum=p.momentum, learns=not p.frozen
        )

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        bottom = bottoms[0]
        if not 2 <= len(bottom) <= 4:
            raise LayerError(f"the bottom is {format_shape(bottom)}; 2 to 4 axes were needed")
        if not self.segnet:
            return [bottom]
        return [(*bottom, *([1] * (4 - len(bottom)))), *[(1, bottom[1], 1, 1)] * self.statistics_tops]

    def weight_shapes(self, bottoms: Shapes) -> Mapping[str, Shape]:
        names = self.names if self.segnet else (*self.names, "mean", "variance")
        return dict.fromkeys(names, (1, bottoms[0][1], 1, 1))

    @property
    def names(self) -> tuple[str, str]:
        """What the factor and the summand are called."""
        return ("scale", "shift") if self.segnet else ("slope", "bias")

    def fillers(self) -> Mapping[str, Filler]:
        factor, summand = self.names
        return {factor: self.slope_filler, summand: self.bias_filler, "variance": Filler(value=self.variance)}

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
            x = self._normalized_by_batch(node, onnx, x)
        factor, summand = (onnx.weight(name, (channels, *([1] * (rank - 2)))) for name in self.names)
        onnx.emit("Add", [onnx.op("Mul", [x, factor], what="scaled"), summand], node.tops[:1])

    def _normalized_by_batch(self, node: Node, onnx: OnnxBuilder, x: str) -> str:
        axes = [axis for axis in range(len(node.top_shapes[0])) if axis != 1]
        normalized = f"{node.tops[0]}/normalized"
        centred, deviation = centred_and_deviation(onnx, x, axes, self.eps)
        onnx.emit("Div", [centred, deviation], [normalized])
        if onnx.open_params and self.momentum is not None:
            self._move_averages(onnx, x, axes, self.momentum)
        if self.statistics_tops:
            onnx.reduce("ReduceMean", x, axes, keepdims=True, to=node.tops[1])
        if self.statistics_tops > 1:
            square = onnx.op("Mul", [centred, centred], what="square")
            onnx.reduce("ReduceMean", square, axes, keepdims=True, to=node.tops[2])
        return normalized

    def _move_averages(self, onnx: OnnxBuilder, x: str, axes: list[int], momentum: float) -> None:
        """momentum · stored + (1 - momentum) · the batch's, whose variance is the biased one."""
        for name, value in zip(("mean", "variance"), batch_statistics(onnx, x, axes), strict=True):
            aged = times(onnx, onnx.weight(name), momentum, f"aged_{name}")
            added = times(onnx, onnx.reshape(value, (1, -1, 1, 1), what=f"batch_{name}"), 1 - momentum, f"added_{name}")
            onnx.change_param(name, onnx.op("Add", [aged, added], what=f"moved_{name}"))

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
        if not self.learns:
            return Gradients((like_bottom(onnx, node, diff),))
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

    def channel_affine(self, node: Node) -> tuple[FloatArray, FloatArray] | None:
        if self.statistics == "batch" or len(node.top_shapes[0]) != len(node.bottom_shapes[0]):
            return None
        factor, summand = (node.param(name).array().reshape(-1).astype(np.float64) for name in self.names)
        if self.statistics == "stored":
            mean, variance = (node.param(name).array().reshape(-1) for name in ("mean", "variance"))
            factor = factor / np.sqrt(variance.astype(np.float64) + self.eps)
            summand = summand - mean * factor
        return factor.astype(np.float32), summand.astype(np.float32)

    def weight_arrays(self, node: Node, bottoms: Sequence[AxisOrder], follower: Node | None) -> WeightArrays:
        gamma, beta = (PerChannel.of(node, name) for name in self.names)
        if self.segnet:
            arrays: tuple[WeightArray, ...] = gamma.kernel("gamma", bottoms[0]), beta.kernel("beta", bottoms[0])
        else:
            mean, variance = (PerChannel.of(node, name) for name in ("mean", "variance"))
            arrays = batch_normalization(gamma, beta, mean, variance, bottoms[0])
        facts: dict[str, Fact] = {} if self.statistics == "none" else {"epsilon": self.eps}
        note = "Caffe takes mean and variance of the batch here" if self.statistics == "batch" else ""
        return WeightArrays(arrays, facts, (note,) if note else ())

    def multiply_adds(self, bottoms: Shapes, tops: Shapes) -> int:
        return count(bottoms[0])


@dataclass(frozen=True)
class CuDNNBatchNorm(BN):
    """y = scale · (x - mean) / √(variance + eps) + bias, per channel, eps at least 1e-5.

    Parameters: scale, bias, mean and variance, 1×C×1×1 each. In TRAIN, unless `frozen`, mean and (biased) variance are those
    of the batch.
    """

    tops: ClassVar[Arity] = Arity(1, 1)

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.cudnn_batch_norm_param
        stored = p.frozen or layer.phase == "TEST"
        scale_filler = Filler.parse(p.scale_filler) if p.HasField("scale_filler") else Filler(value=1.0)
        fillers = scale_filler, Filler.parse(p.bias_filler)
        return cls(
            False, "stored" if stored else "batch", max(p.eps, CUDNN_LEAST_EPS), *fillers, 1.0 if p.frozen else 0.0
        )

    @property
    def names(self) -> tuple[str, str]:
        return "scale", "bias"
