"""What parameters start from where no weights are given (caffe: filler.hpp)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from caffeconv.caffe_pb2 import FillerParameter
from caffeconv.ir import FloatArray, Shape, by_x, count
from caffeconv.layers.base import LayerError

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

    @classmethod
    def parse(cls, p: FillerParameter) -> Filler:
        if p.type not in TYPES:
            raise LayerError(f"Unknown filler name: {p.type} (in FillerParameter); {', '.join(TYPES)} are known")
        return cls(p.type, p.value, p.min, p.max, p.mean, p.std, p.sparse, p.variance_norm)

    @property
    def is_random(self) -> bool:
        return self.type not in ("constant", "bilinear")

    def fill(self, shape: Shape, rng: np.random.Generator) -> FloatArray:
        """float32 values of that shape; raises LayerError for a shape that it cannot fill."""
        if self.type == "constant":
            return np.full(shape, self.value, np.float32)
        if self.type == "bilinear":
            return _bilinear(shape)
        if self.type == "uniform":
            return rng.uniform(self.low, self.high, shape).astype(np.float32)
        if self.type == "gaussian":
            return self._gaussian(shape, rng)
        if self.type == "positive_unitball":
            values = rng.uniform(0, 1, shape)
            per_row = values.reshape(shape[0] if shape else 1, -1)
            balls: FloatArray = (per_row / per_row.sum(axis=1, keepdims=True)).reshape(shape).astype(np.float32)
            return balls
        if self.type in ("xavier", "msra"):
            return self._scaled(shape, rng)
        raise LayerError(f"Unknown filler name: {self.type}")

    def _gaussian(self, shape: Shape, rng: np.random.Generator) -> FloatArray:
        values = rng.normal(self.mean, self.std, shape)
        if self.sparse >= 0 and shape:
            # caffe: GaussianFiller — each weight is kept with probability sparse / num_outputs
            values *= rng.random(shape) < self.sparse / shape[0]
        drawn: FloatArray = values.astype(np.float32)
        return drawn

    def _scaled(self, shape: Shape, rng: np.random.Generator) -> FloatArray:
        total = count(shape)
        fan_in = total / shape[0] if shape and shape[0] else 1
        # caffe: fan_out = count / channels, of a blob seen as num × channels × …
        fan_out = total / shape[1] if len(shape) > 1 and shape[1] else total
        n = (fan_in, fan_out, (fan_in + fan_out) / 2)[self.variance_norm]
        if self.type == "xavier":
            scale = math.sqrt(3 / n)
            return rng.uniform(-scale, scale, shape).astype(np.float32)
        return rng.normal(0, math.sqrt(2 / n), shape).astype(np.float32)


def _bilinear(shape: Shape) -> FloatArray:
    """Weights that upsample: (1-|x/f-c|)·(1-|y/f-c|) for every filter (caffe: BilinearFiller)."""
    if len(shape) != 4 or shape[2] != shape[3]:
        raise LayerError(f"a bilinear filler needs a blob of 4 axes with a square kernel; this one is {by_x(shape)}")
    width = shape[3]
    f = math.ceil(width / 2.0)
    c = np.float32((width - 1) / (2.0 * f))
    ramp = np.float32(1) - np.abs(np.arange(width, dtype=np.float32) / np.float32(f) - c)
    kernel: FloatArray = (ramp[None, :] * ramp[:, None]).astype(np.float32)
    filled: FloatArray = np.broadcast_to(kernel, shape).copy()
    return filled
