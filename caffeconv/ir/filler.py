"""What parameters start from where no weights are given (caffe: filler.hpp)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from caffeconv.caffe_pb2 import FillerParameter
from caffeconv.errors import LayerError
from caffeconv.tensor.shape import FloatArray, Shape, count, format_shape

if TYPE_CHECKING:
    from caffeconv.ir.onnx_builder import OnnxBuilder

MOST_VALUES = 1 << 28
"""Values that one filler makes, at most: a gigabyte, more than twice what VGG's largest layer has."""
_TOGETHER = 1 << 20
_WRITTEN_OUT = 1 << 16
"""Values of a blob with one constant that stand in a model, at most."""
TYPES = ("constant", "gaussian", "positive_unitball", "uniform", "xavier", "msra", "bilinear")


@dataclass(frozen=True)
class Filler:
    """A FillerParameter. `constant`, `bilinear` give exactly Caffe's values; the rest draw from the same distribution."""

    type: str = "constant"
    value: float = 0.0
    low: float = 0.0
    high: float = 1.0
    mean: float = 0.0
    std: float = 1.0
    sparse: int = -1
    variance_norm: int = 0
    alpha: float = 0.0
    """happynear: the slope for x < 0 of the activation that follows, which msra then takes into account."""

    @classmethod
    def parse(cls, p: FillerParameter) -> Filler:
        if p.type not in TYPES:
            raise LayerError(f"Unknown filler name: {p.type} (in FillerParameter); {', '.join(TYPES)} are known")
        return cls(p.type, p.value, p.min, p.max, p.mean, p.std, p.sparse, p.variance_norm, p.alpha)

    @property
    def is_random(self) -> bool:
        return self.type not in ("constant", "bilinear")

    def fill(self, shape: Shape, rng: np.random.Generator) -> FloatArray:
        """float32 values of that shape; raises LayerError for a shape that it cannot fill."""
        if count(shape) > MOST_VALUES:
            raise LayerError(
                f"a filler for {format_shape(shape)} = {count(shape)} values; {MOST_VALUES} at most are made"
            )
        if self.type == "constant":
            return np.full(shape, self.value, np.float32)
        if self.type == "bilinear":
            return _bilinear(shape)
        if self.type == "uniform":
            return _drawn(lambda number: rng.uniform(self.low, self.high, number), shape)
        if self.type == "gaussian":
            return self._gaussian(shape, rng)
        if self.type == "positive_unitball":
            return _unit_balls(shape, rng)
        if self.type in ("xavier", "msra"):
            return self._scaled(shape, rng)
        raise LayerError(f"Unknown filler name: {self.type}")

    def _gaussian(self, shape: Shape, rng: np.random.Generator) -> FloatArray:
        values = _drawn(lambda number: rng.normal(self.mean, self.std, number), shape)
        if self.sparse >= 0 and shape:
            # caffe: GaussianFiller — each weight is kept with probability sparse / num_outputs
            for part in _parts(values.reshape(-1)):
                part *= rng.random(part.size) < self.sparse / shape[0]
        return values

    def _scaled(self, shape: Shape, rng: np.random.Generator) -> FloatArray:
        spread = self._spread(shape)
        if self.type == "xavier":
            return _drawn(lambda number: rng.uniform(-spread, spread, number), shape)
        return _drawn(lambda number: rng.normal(0, spread, number), shape)

    def _spread(self, shape: Shape) -> float:
        """xavier's bound √(3/n), msra's deviation √(2/n/(1+α²)); n is fan-in, fan-out or their mean."""
        total = count(shape)
        fan_in = total / shape[0] if shape and shape[0] else 1
        # caffe: fan_out = count / channels, of a blob seen as num × channels × …
        fan_out = total / shape[1] if len(shape) > 1 and shape[1] else total
        n = (fan_in, fan_out, (fan_in + fan_out) / 2)[self.variance_norm]
        return math.sqrt((3 if self.type == "xavier" else 2 / (1 + self.alpha * self.alpha)) / n)

    def lower(self, onnx: OnnxBuilder, shape: Shape, top: str) -> None:
        """Writes nodes that fill `top` anew in each pass; what is not random is a constant."""
        if self.type == "constant" and count(shape) > _WRITTEN_OUT:
            onnx.emit("Expand", [onnx.floats("value", self.value), onnx.ints("shape", shape)], [top])
        elif not self.is_random:
            values = self.fill(shape, np.random.default_rng(0))
            onnx.emit("Identity", [onnx.floats("filled", values)], [top])
        elif self.type in ("uniform", "xavier"):
            bound = self._spread(shape) if self.type == "xavier" else 0
            low, high = (self.low, self.high) if self.type == "uniform" else (-bound, bound)
            onnx.emit("RandomUniform", [], [top], shape=shape, low=low, high=high)
        elif self.type == "msra" or (self.type == "gaussian" and self.sparse < 0):
            mean, deviation = (self.mean, self.std) if self.type == "gaussian" else (0.0, self._spread(shape))
            onnx.emit("RandomNormal", [], [top], shape=shape, mean=mean, scale=deviation)
        elif self.type == "gaussian":
            drawn = onnx.op("RandomNormal", [], what="drawn", shape=shape, mean=self.mean, scale=self.std)
            chance = onnx.op("RandomUniform", [], what="chance", shape=shape)
            share = onnx.floats("share", self.sparse / shape[0] if shape else 1)
            mask = onnx.op("Cast", [onnx.op("Less", [chance, share], what="is_kept")], what="kept", to=1)
            onnx.emit("Mul", [drawn, mask], [top])
        else:  # positive_unitball: the values of each item add up to 1
            drawn = onnx.op("RandomUniform", [], what="drawn", shape=shape)
            axes = list(range(1, len(shape))) if len(shape) > 1 else None
            total = drawn if len(shape) == 1 else onnx.reduce("ReduceSum", drawn, axes, keepdims=True, what="total")
            onnx.emit("Div", [drawn, total], [top])


def _drawn(draw: Callable[[int], NDArray[np.float64]], shape: Shape) -> FloatArray:
    """Random numbers as float32, drawn some at a time: they are the same as drawn at once, in a third of the memory."""
    values = np.empty(count(shape), np.float32)
    for part in _parts(values):
        part[:] = draw(part.size)
    return values.reshape(shape)


def _parts(values: FloatArray, together: int = _TOGETHER) -> Iterator[FloatArray]:
    """Views of so many values, or rows, each."""
    return (values[start : start + together] for start in range(0, len(values), together))


def _unit_balls(shape: Shape, rng: np.random.Generator) -> FloatArray:
    """Numbers from 0 to 1, divided by the sum of their row."""
    rows = np.empty((shape[0] if shape else 1, count(shape, 1)), np.float32)
    for part in _parts(rows, max(1, _TOGETHER // max(1, rows.shape[1]))):
        drawn = rng.uniform(0, 1, part.shape)
        drawn /= drawn.sum(axis=1, keepdims=True)
        part[:] = drawn
    return rows.reshape(shape)


def _bilinear(shape: Shape) -> FloatArray:
    """Weights that upsample: (1-|x/f-c|)·(1-|y/f-c|) for every filter (caffe: BilinearFiller)."""
    if len(shape) != 4 or shape[2] != shape[3]:
        raise LayerError(
            f"a bilinear filler needs a blob of 4 axes with a square kernel; this one is {format_shape(shape)}"
        )
    width = shape[3]
    f = math.ceil(width / 2.0)
    c = np.float32((width - 1) / (2.0 * f))
    ramp = np.float32(1) - np.abs(np.arange(width, dtype=np.float32) / np.float32(f) - c)
    kernel: FloatArray = (ramp[None, :] * ramp[:, None]).astype(np.float32)
    filled: FloatArray = np.broadcast_to(kernel, shape).copy()
    return filled
