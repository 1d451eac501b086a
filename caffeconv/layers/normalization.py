"""BatchNorm and MVN (caffe: batch_norm_layer.cpp, mvn_layer.cpp)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.filler import Filler
from caffeconv.ir.layer import Gradients, Layer, Node, Settings
from caffeconv.layers.gradient_ops import class_sums, like_bottom, times
from caffeconv.layers.weight_layouts import PerChannel, batch_normalization
from caffeconv.tensor.axis_order import AxisOrder
from caffeconv.tensor.param import Param
from caffeconv.tensor.param_values import ArrayValues
from caffeconv.tensor.shape import FloatArray, Shape, Shapes, count, format_shape
from caffeconv.tensor.weight_array import Fact, WeightArrays

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder

NVIDIA_LEAST_EPS = 1e-5
_PASSES = "passes"
"""What NVIDIA's layer counts: the batches that it has normalized."""


@dataclass(frozen=True)
class BatchNorm(Layer):
    """y = (x - mean_c) / √(variance_c + eps), per channel (axis 1).

    Parameters: mean C, variance C, and a scale factor (1) by which both are to be divided. In TRAIN, unless
    `use_global_stats` says otherwise, mean and (biased) variance are those of the batch.

    NVIDIA's `scale_bias`, or either filler, adds the parameters scale and bias, C each: y = scale · … + bias. eps is
    then at least 1e-5, TEST always takes the stored statistics, TRAIN the batch's, and the third parameter counts for
    nothing (NVIDIA/caffe: batch_norm_layer.cpp). Where the weights file has the blobs of NVIDIA's 0.15 (scale, bias, mean,
    variance, a counter), they are taken in that order. Synopsys' `add_eps_before_sqrt: false` divides by √variance + eps.
    """

    propagates_always: ClassVar[bool] = True
    running_statistics: ClassVar[frozenset[str]] = frozenset(("mean", "variance", "scale_factor"))
    keeps_bottoms: ClassVar[bool] = True
    computes_in_float32: ClassVar[bool] = True
    is_pointwise: ClassVar[bool] = True
    takes_any_vector: ClassVar[bool] = True
    param_axes: ClassVar[Mapping[str, str]] = {
        "mean": "channels", "variance": "channels", "scale_factor": "the number that mean and variance are divided by",
        "scale": "channels", "bias": "channels", "counter": "batches seen",
    }  # fmt: skip
    settings: ClassVar[str] = "batch_norm_param"
    completed_by: ClassVar[str] = "Scale"

    eps: float
    use_global_stats: bool
    scale_bias: bool
    scale_filler: Filler
    bias_filler: Filler
    average_fraction: float = 0.999
    """By what the averages are multiplied before a batch's statistics are added."""
    scale_first: bool = False
    """Whether the parameters stand in the order of NVIDIA's 0.15."""
    eps_after_root: bool = False

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.batch_norm_param
        scale_filler = Filler.parse(p.scale_filler) if p.HasField("scale_filler") else Filler(value=1.0)
        fillers = scale_filler, Filler.parse(p.bias_filler)
        has_fillers = p.HasField("scale_filler") or p.HasField("bias_filler")
        scale_first = _is_scale_first(layer.stored_shapes or (), has_fillers=has_fillers or p.scale_bias)
        if p.scale_bias or has_fillers or scale_first:
            if not p.add_eps_before_sqrt:
                raise LayerError("add_eps_before_sqrt is of Synopsys' BatchNorm, scale and bias are of NVIDIA's")
            return cls(
                max(p.eps, NVIDIA_LEAST_EPS),
                layer.phase == "TEST",
                True,
                *fillers,
                p.moving_average_fraction,
                scale_first,
            )
        for spec in layer.param_specs:
            lr_mult = 1.0 if spec.lr_mult is None else spec.lr_mult
            if lr_mult != 0:
                raise LayerError(
                    f"lr_mult is {lr_mult:g}; Cannot configure batch normalization statistics as layer parameters. "
                    "Set `lr_mult: 0`, or leave `param` out."
                )
        global_stats = p.use_global_stats if p.HasField("use_global_stats") else layer.phase == "TEST"
        fraction = p.moving_average_fraction
        return cls(p.eps, global_stats, False, *fillers, fraction, eps_after_root=not p.add_eps_before_sqrt)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        if not bottoms[0]:
            raise LayerError("the bottom has no axis; at least one was needed")
        if self.scale_bias and len(bottoms[0]) < 2:
            raise LayerError(f"the bottom is {format_shape(bottoms[0])}; with scale_bias at least 2 axes were needed")
        return [bottoms[0]]

    def weight_shapes(self, bottoms: Shapes) -> Mapping[str, Shape]:
        channels = 1 if len(bottoms[0]) == 1 else bottoms[0][1]
        if self.scale_first:
            return {**dict.fromkeys(("scale", "bias", "mean", "variance"), (channels,)), "counter": (1,)}
        shapes: dict[str, Shape] = {"mean": (channels,), "variance": (channels,), "scale_factor": (1,)}
        return {**shapes, "scale": (channels,), "bias": (channels,)} if self.scale_bias else shapes

    def fillers(self) -> Mapping[str, Filler]:
        if not self.scale_bias:
            return {}
        counted = {} if self.scale_first else {"scale_factor": Filler(value=1.0)}
        return {**counted, "scale": self.scale_filler, "bias": self.bias_filler}

    def state_shapes(self, bottoms: Shapes) -> Mapping[str, Shape]:
        return {_PASSES: (1,)} if self.scale_bias and not self.use_global_stats else {}

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        rank = len(node.bottom_shapes[0])
        if not self.use_global_stats:
            axes = [0] if rank == 1 else [axis for axis in range(rank) if axis != 1]
            normalized = f"{node.tops[0]}/normalized" if self.scale_bias else node.tops[0]
            parts = centred_and_deviation(onnx, node.bottoms[0], axes, self.eps, eps_after_root=self.eps_after_root)
            onnx.emit("Div", parts, [normalized])
            if onnx.open_params:
                move = self._move_nvidia_averages if self.scale_bias else self._move_averages
                move(node, onnx, axes)
            if self.scale_bias:
                spread = (node.bottom_shapes[0][1], *([1] * (rank - 2)))
                scaled = onnx.op("Mul", [normalized, onnx.weight("scale", spread)], what="scaled")
                onnx.emit("Add", [scaled, onnx.weight("bias", spread)], node.tops)
            return
        if rank == 1 or self.eps_after_root:
            mean, deviation = self._mean_and_deviation(node, onnx)
            centred = onnx.op("Sub", [node.bottoms[0], mean], what="centred")
            onnx.emit("Div", [centred, deviation], node.tops)
            return
        if node.has_param("scale"):  # NVIDIA's, or of a Scale layer that was folded into this one
            affine = [onnx.weight("scale"), onnx.weight("bias")]
        else:
            channels = node.params[0].shape
            affine = [onnx.floats("ones", np.ones(channels)), onnx.floats("zeros", np.zeros(channels))]
        statistics = self._stored_statistics(node, onnx)
        onnx.emit("BatchNormalization", [node.bottoms[0], *affine, *statistics], node.tops, epsilon=self.eps)

    def _move_averages(self, node: Node, onnx: OnnxBuilder, axes: list[int]) -> None:
        """Adds the batch's statistics to the running ones (caffe: BatchNormLayer::Forward_cpu)."""
        bottom, channels = node.bottom_shapes[0], node.param("mean").shape
        items = count(bottom) // count(channels)
        mean, square = batch_statistics(onnx, node.bottoms[0], axes)
        # the stored variance is the unbiased one
        variance = times(onnx, square, items / (items - 1) if items > 1 else 1.0, "unbiased")
        for name, added in (("mean", mean), ("variance", variance), ("scale_factor", onnx.floats("one_batch", [1]))):
            aged = times(onnx, onnx.weight(name), self.average_fraction, f"aged_{name}")
            value = added if name == "scale_factor" else onnx.reshape(added, channels, what=f"batch_{name}")
            onnx.change_param(name, onnx.op("Add", [aged, value], what=f"moved_{name}"))

    def _move_nvidia_averages(self, node: Node, onnx: OnnxBuilder, axes: list[int]) -> None:
        """The batch's statistics, eps within the variance, from the third pass on averaged with those before.

        caffe: NVIDIA's BatchNormLayer::Forward_cpu; the number of passes is not in a weights file, and starts at 0.
        """
        channels = node.param("mean").shape
        passes, one = onnx.state(_PASSES, (1,)), onnx.floats("one_pass", [1])
        onnx.keep_state(passes, onnx.op("Add", [passes, one], what="passes"))
        is_early = onnx.op("LessOrEqual", [passes, one], what="is_early")
        share = onnx.op("Where", [is_early, one, onnx.floats("share", [1 - self.average_fraction])], what="batch_share")
        stored_share = onnx.op("Sub", [one, share], what="stored_share")
        mean, square = batch_statistics(onnx, node.bottoms[0], axes)
        variance = onnx.op("Add", [square, onnx.floats("eps", self.eps)], what="guarded_variance")
        for name, of_batch in (("mean", mean), ("variance", variance)):
            added = onnx.op(
                "Mul", [onnx.reshape(of_batch, channels, what=f"batch_{name}"), share], what=f"added_{name}"
            )
            aged = onnx.op("Mul", [onnx.weight(name), stored_share], what=f"aged_{name}")
            onnx.change_param(name, onnx.op("Add", [aged, added], what=f"moved_{name}"))

    def _stored_statistics(self, node: Node, onnx: OnnxBuilder) -> tuple[str, str]:
        """Mean and variance, C each, with the scale factor applied."""
        if not onnx.open_params:
            mean, variance = self.statistics(node)
            return onnx.floats("mean", mean), onnx.floats("variance", variance)
        if self.scale_bias:
            return onnx.weight("mean"), onnx.weight("variance")
        factor, zero = onnx.weight("scale_factor"), onnx.floats("no_statistics", 0)
        inverse = onnx.op("Div", [onnx.floats("one", 1), factor], what="inverse_factor")
        is_empty = onnx.op("Equal", [factor, zero], what="is_empty")
        share = onnx.op("Where", [is_empty, zero, inverse], what="share")
        return times(onnx, onnx.weight("mean"), share, "mean"), times(onnx, onnx.weight("variance"), share, "variance")

    def _mean_and_deviation(self, node: Node, onnx: OnnxBuilder) -> tuple[str, str]:
        """The stored mean, and that by which x - mean is divided, in a shape that broadcasts."""
        rank = len(node.bottom_shapes[0])
        spread = (-1, *([1] * (rank - 2))) if rank > 1 else (1,)
        if not onnx.open_params:
            stored_mean, stored_variance = self.statistics(node)
            deviation = self._stored_deviation(stored_variance).reshape(spread)
            return onnx.floats("means", stored_mean.reshape(spread)), onnx.floats("deviations", deviation)
        mean, variance = (onnx.reshape(value, spread) for value in self._stored_statistics(node, onnx))
        eps = onnx.floats("eps", self.eps)
        if self.eps_after_root:
            return mean, onnx.op("Add", [onnx.op("Sqrt", [variance], what="root"), eps], what="deviation")
        return mean, onnx.op("Sqrt", [onnx.op("Add", [variance, eps], what="guarded")], what="deviation")

    def _stored_deviation(self, variance: FloatArray) -> FloatArray:
        """By what x - mean is divided, per channel."""
        eps = variance.dtype.type(self.eps)
        deviation: FloatArray = np.sqrt(variance) + eps if self.eps_after_root else np.sqrt(variance + eps)
        return deviation

    def statistics(self, node: Node) -> tuple[FloatArray, FloatArray]:
        """Mean and variance, C each, with the scale factor applied."""
        if self.scale_bias:
            return node.param("mean").array(), node.param("variance").array()
        factor = node.param("scale_factor").array()[0]
        # caffe: scale factor 0 means "no statistics yet"
        scale = np.float32(0) if factor == 0 else np.float32(1) / factor
        return node.param("mean").array() * scale, node.param("variance").array() * scale

    def doubtful_values(self, node: Node) -> str:
        factor = None if self.scale_bias or not self.use_global_stats else node.param("scale_factor")
        if factor is None or factor.is_filled or factor.array()[0] != 0:
            return ""
        growth = 1 / math.sqrt(self.eps) if self.eps > 0 else math.inf
        return (
            "the scale factor in the weights is 0: no statistics were gathered, so mean and variance count as 0, and values "
            f"grow {growth:.3g} times"
        )

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        diff, rank = top_diffs[0], len(node.bottom_shapes[0])
        spread = (-1, *([1] * (rank - 2))) if rank > 1 else (1,)
        params: dict[str, str] = {}
        if self.scale_bias:
            channels = onnx.fixed(onnx.dims(node.bottoms[0])[1:2], "the number of channels")
            params = self._affine_diffs(node, onnx, diff, spread)
            diff = onnx.op("Mul", [diff, onnx.weight("scale", (*channels, *spread[1:]))], what="scaled_diff")
        if self.use_global_stats:
            _, deviation = self._mean_and_deviation(node, onnx)
            return Gradients((onnx.op("Div", [diff, deviation], what="bottom_diff"),), params)
        normalized, deviation_value, axes = self._normalized(node, onnx)
        diff = centred_diff(onnx, diff, normalized, deviation_value, axes)
        return Gradients((diff,), params)

    def _normalized(self, node: Node, onnx: OnnxBuilder) -> tuple[str, str, list[int]]:
        """(x - mean) / deviation, the deviation, and the axes over which both were taken."""
        rank = len(node.bottom_shapes[0])
        axes = [0] if rank == 1 else [axis for axis in range(rank) if axis != 1]
        centred, deviation = centred_and_deviation(
            onnx, node.bottoms[0], axes, self.eps, eps_after_root=self.eps_after_root
        )
        return onnx.op("Div", [centred, deviation], what="normalized"), deviation, axes

    def _affine_diffs(self, node: Node, onnx: OnnxBuilder, diff: str, spread: Sequence[int]) -> dict[str, str]:
        rank = len(node.bottom_shapes[0])
        if self.use_global_stats:
            mean, deviation = self._mean_and_deviation(node, onnx)
            centred = onnx.op("Sub", [node.bottoms[0], mean], what="centred")
            normalized = onnx.op("Div", [centred, deviation], what="normalized")
        else:
            normalized, _, _ = self._normalized(node, onnx)
        product = onnx.op("Mul", [diff, normalized], what="diff_x")
        return {
            "scale": class_sums(onnx, product, rank, 1, "scale_diff"), "bias": class_sums(onnx, diff, rank, 1, "bias_diff")
        }  # fmt: skip

    def channel_affine(self, node: Node) -> tuple[FloatArray, FloatArray] | None:
        if not self.use_global_stats or len(node.bottom_shapes[0]) < 2:
            return None
        mean, variance = self.statistics(node)
        factor = 1 / self._stored_deviation(variance.astype(np.float64))
        summand = -mean * factor
        if self.scale_bias:
            scale, bias = (node.param(name).array().astype(np.float64) for name in ("scale", "bias"))
            factor, summand = factor * scale, summand * scale + bias
        return factor.astype(np.float32), summand.astype(np.float32)

    def fold_affine(self, node: Node, factor: FloatArray, shift: FloatArray) -> tuple[Param, ...] | None:
        if not self.use_global_stats or self.eps_after_root or len(node.bottom_shapes[0]) < 2:
            return None
        scale, bias = factor.astype(np.float64), shift.astype(np.float64)
        if node.has_param("scale"):
            bias = node.param("bias").array() * scale + bias
            scale = node.param("scale").array() * scale
        others = [param for param in node.params if param.name not in ("scale", "bias")]
        folded = [
            Param(name, values.shape, ArrayValues(values.astype(np.float32)), source="folded")
            for name, values in (("scale", scale), ("bias", bias))
        ]
        return (*others, *folded)

    def is_spatially_uniform(self, node: Node) -> bool:
        return len(node.bottom_shapes[0]) > 1

    def fuses_with(self, node: Node, follower: Node) -> bool:
        return not self.scale_bias and follower.layer.factor_and_summand(follower) is not None

    def weight_arrays(self, node: Node, bottoms: Sequence[AxisOrder], follower: Node | None) -> WeightArrays:
        gamma = beta = None
        if self.scale_bias:
            gamma, beta = PerChannel.of(node, "scale"), PerChannel.of(node, "bias")
        elif follower is not None:
            factors = follower.layer.factor_and_summand(follower) or (None, None)
            gamma, beta = (PerChannel.of(follower, param.name) if param else None for param in factors)
        mean, variance = self._statistic(node, "mean", 0), self._statistic(node, "variance", 1)
        facts: dict[str, Fact] = {"epsilon": 0.0 if self.eps_after_root else self.eps}
        note = "" if self.use_global_stats else "Caffe takes mean and variance of the batch here, not those stored"
        arrays = batch_normalization(gamma, beta, mean, variance, bottoms[0])
        return WeightArrays(arrays, facts, (note,) if note else ())

    def _statistic(self, node: Node, name: str, index: int) -> PerChannel:
        """Mean or variance, with the scale factor applied."""
        stored = PerChannel.of(node, name)
        if self.scale_bias:
            return stored
        factor = PerChannel.of(node, "scale_factor")
        sources = (*stored.sources, *factor.sources)
        if self.eps_after_root and name == "variance":
            words = "(√(variance ÷ scale_factor) + eps)²"
            return PerChannel(
                stored.channels, sources, words, lambda: self._stored_deviation(self.statistics(node)[1]) ** 2
            )
        return PerChannel(stored.channels, sources, f"{name} ÷ scale_factor", lambda: self.statistics(node)[index])

    def multiply_adds(self, bottoms: Shapes, tops: Shapes) -> int:
        return count(bottoms[0])

    @classmethod
    def implied_settings(cls, layer: LayerDef, bottoms: Shapes, stored: Shapes) -> Sequence[Settings]:
        return ({"scale_bias": len(stored) == 5},) if len(stored) in (3, 5) else ()

    @classmethod
    def implied_channels(cls, layer: LayerDef, bottoms: Shapes, stored: Shapes) -> int | None:
        return count(stored[0]) if stored else None


def _is_scale_first(stored: Shapes, *, has_fillers: bool) -> bool:
    """Whether a file's blobs are those of NVIDIA's 0.15. With one channel they look like those of 0.16 with fillers."""
    if len(stored) != 5:
        return False
    sizes = [count(shape) for shape in stored]
    return sizes[0] == sizes[1] == sizes[2] == sizes[3] and sizes[4] == 1 and (sizes[2] != 1 or not has_fillers)


def batch_statistics(onnx: OnnxBuilder, x: str, axes: list[int]) -> tuple[str, str]:
    """Mean and biased variance over `axes`, which stay as axes of 1."""
    mean = onnx.reduce("ReduceMean", x, axes, keepdims=True, what="mean")
    centred = onnx.op("Sub", [x, mean], what="centred")
    square = onnx.op("Mul", [centred, centred], what="square")
    return mean, onnx.reduce("ReduceMean", square, axes, keepdims=True, what="variance")


def centred_and_deviation(
    onnx: OnnxBuilder, x: str, axes: list[int], eps: float, *, eps_after_root: bool = False
) -> tuple[str, str]:
    """x - mean and √(variance + eps), or √variance + eps, both taken over `axes`."""
    mean = onnx.reduce("ReduceMean", x, axes, keepdims=True, what="mean")
    centred = onnx.op("Sub", [x, mean], what="centred")
    square = onnx.op("Mul", [centred, centred], what="square")
    variance = onnx.reduce("ReduceMean", square, axes, keepdims=True, what="variance")
    if eps_after_root:
        root = onnx.op("Sqrt", [variance], what="root")
        return centred, onnx.op("Add", [root, onnx.floats("eps", eps)], what="deviation")
    guarded = onnx.op("Add", [variance, onnx.floats("eps", eps)], what="guarded")
    return centred, onnx.op("Sqrt", [guarded], what="deviation")


def centred_diff(onnx: OnnxBuilder, diff: str, y: str, deviation: str, axes: list[int]) -> str:
    """The bottom's diff where y = (x - mean) / deviation: (d - mean d - y · mean(d · y)) / deviation."""
    product = onnx.op("Mul", [diff, y], what="diff_y")
    slant = onnx.op("Mul", [y, onnx.reduce("ReduceMean", product, axes, keepdims=True, what="slope")], what="slant")
    level = onnx.reduce("ReduceMean", diff, axes, keepdims=True, what="mean_diff")
    own = onnx.op("Sub", [onnx.op("Sub", [diff, level], what="level_diff"), slant], what="own_diff")
    return onnx.op("Div", [own, deviation], what="bottom_diff")


@dataclass(frozen=True)
class MVN(Layer):
    """y = (x - mean) / (deviation + eps) over H×W, or C×H×W with `across_channels`; the top always has 4 axes.

    Synopsys' `add_eps_before_sqrt` divides by √(variance + eps).
    """

    propagates_always: ClassVar[bool] = True
    computes_in_float32: ClassVar[bool] = True
    is_pointwise: ClassVar[bool] = True

    normalize_variance: bool
    across_channels: bool
    eps: float
    eps_under_root: bool = False

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.mvn_param
        return cls(p.normalize_variance, p.across_channels, p.eps, p.add_eps_before_sqrt)

    def in_place_fault(self, bottoms: Shapes, tops: Shapes) -> str:
        return ""  # the axes that the top has more are of size 1, and change nothing when it is the bottom again

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        if len(bottoms[0]) > 4:
            raise LayerError(
                f"the bottom is {format_shape(bottoms[0])}; at most 4 axes were needed (num, channels, height, width)"
            )
        return [(*bottoms[0], *([1] * (4 - len(bottoms[0]))))]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        centred = self._centred(node, onnx, node.tops[0] if not self.normalize_variance else None)
        if self.normalize_variance:
            onnx.keep("deviation", self._deviation(onnx, centred))
            onnx.emit("Div", [centred, onnx.kept("deviation")], node.tops)

    @property
    def _axes(self) -> list[int]:
        return [1, 2, 3] if self.across_channels else [2, 3]

    def _centred(self, node: Node, onnx: OnnxBuilder, top: str | None = None) -> str:
        x = node.bottoms[0]
        if len(node.bottom_shapes[0]) != 4:
            x = onnx.reshape(x, onnx.dims(node.tops[0]))
        mean = onnx.reduce("ReduceMean", x, self._axes, keepdims=True, what="mean")
        if top is None:
            return onnx.op("Sub", [x, mean], what="centred")
        onnx.emit("Sub", [x, mean], [top])
        return top

    def _deviation(self, onnx: OnnxBuilder, centred: str) -> str:
        square = onnx.op("Mul", [centred, centred], what="square")
        variance = onnx.reduce("ReduceMean", square, self._axes, keepdims=True, what="variance")
        if self.eps_under_root:
            guarded = onnx.op("Add", [variance, onnx.floats("eps", self.eps)], what="guarded")
            return onnx.op("Sqrt", [guarded], what="deviation")
        # caffe: eps is added to the deviation, not to the variance
        return onnx.op("Add", [onnx.op("Sqrt", [variance]), onnx.floats("eps", self.eps)], what="deviation")

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        if self.normalize_variance:
            # caffe: as if eps were 0, but for the divisor
            rule = self._diff_in_place if node.is_in_place else centred_diff
            diff = rule(onnx, top_diffs[0], node.tops[0], onnx.kept("deviation"), self._axes)
        else:
            level = onnx.reduce("ReduceMean", top_diffs[0], self._axes, keepdims=True, what="mean_diff")
            diff = onnx.op("Sub", [top_diffs[0], level], what="level_diff")
        return Gradients((like_bottom(onnx, node, diff),))

    @staticmethod
    def _diff_in_place(onnx: OnnxBuilder, diff: str, y: str, deviation: str, axes: list[int]) -> str:
        """What Caffe leaves in place, where it reads the top's diff after having written over it.

        With m = y · mean(d · y) it is -2 · (m + Σ m) / deviation.
        """
        product = onnx.op("Mul", [diff, y], what="diff_y")
        slant = onnx.op("Mul", [y, onnx.reduce("ReduceMean", product, axes, keepdims=True, what="slope")], what="slant")
        level = onnx.reduce("ReduceSum", slant, axes, keepdims=True, what="slant_sum")
        own = times(onnx, onnx.op("Add", [slant, level], what="own_diff"), -2.0, "own_diff")
        return onnx.op("Div", [own, deviation], what="bottom_diff")

    @property
    def mixes_positions(self) -> bool:
        return True
