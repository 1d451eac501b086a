"""What each type of solver makes of a gradient, as ONNX nodes (caffe: src/caffe/solvers/*_solver.cpp).

Written g: the gradient after clipping and decay, r: the parameter's learning rate, h: what is remembered. All of it is
float32, value by value; what is subtracted from the parameter is u.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from caffeconv.emit.training_step import Update
from caffeconv.layers.gradient_ops import times

if TYPE_CHECKING:
    from caffeconv.ir.onnx_builder import OnnxBuilder
    from caffeconv.training.solver_file import SolverFile

Factor = float | str


class Rule(ABC):
    """A type of solver."""

    histories: ClassVar[int] = 1
    remembers_unmoved: ClassVar[bool] = True
    is_one_operator: ClassVar[bool] = False
    scalars: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def lower(
        self, onnx: OnnxBuilder, gradient: str | None, histories: Sequence[str], rate: str | None,
        scalars: Mapping[str, str],
    ) -> Update:  # fmt: skip
        """As UpdateRule.lower."""

    def lower_whole(
        self, onnx: OnnxBuilder, value: str, gradient: str, histories: Sequence[str], rate: str, decay: float
    ) -> tuple[str, Update]:
        """As UpdateRule.lower_whole."""
        raise NotImplementedError(f"{type(self).__name__} has no operator of its own")

    def scalars_at(self, iteration: int) -> dict[str, float]:
        """The values of `scalars` in an iteration, from 0."""
        return {}


@dataclass(frozen=True)
class SGD(Rule):
    """h = momentum·h + r·g; u = h."""

    remembers_unmoved: ClassVar[bool] = False
    is_one_operator: ClassVar[bool] = True

    momentum: float

    def lower(
        self, onnx: OnnxBuilder, gradient: str | None, histories: Sequence[str], rate: str | None,
        scalars: Mapping[str, str],
    ) -> Update:  # fmt: skip
        speed = _weighted(onnx, (self.momentum, histories[0]), (rate, gradient), "speed")
        return Update(speed, (speed,))

    def lower_whole(
        self, onnx: OnnxBuilder, value: str, gradient: str, histories: Sequence[str], rate: str, decay: float
    ) -> tuple[str, Update]:
        scalars = [rate, onnx.floats("momentum", self.momentum), onnx.floats("decay", decay)]
        inputs = [value, gradient, histories[0], *scalars]
        following, speed = onnx.library_values("SGDUpdate", inputs, 2, what="sgd")
        return following, Update(speed, (speed,))


@dataclass(frozen=True)
class Nesterov(Rule):
    """h' = momentum·h + r·g; u = (1 + momentum)·h' - momentum·h."""

    remembers_unmoved: ClassVar[bool] = False

    momentum: float

    def lower(
        self, onnx: OnnxBuilder, gradient: str | None, histories: Sequence[str], rate: str | None,
        scalars: Mapping[str, str],
    ) -> Update:  # fmt: skip
        speed = _weighted(onnx, (self.momentum, histories[0]), (rate, gradient), "speed")
        step = _weighted(onnx, (1 + self.momentum, speed), (-self.momentum, histories[0]), "step")
        return Update(step, (speed,))


@dataclass(frozen=True)
class AdaGrad(Rule):
    """h = h + g²; u = r·g / (√h + delta)."""

    delta: float

    def lower(
        self, onnx: OnnxBuilder, gradient: str | None, histories: Sequence[str], rate: str | None,
        scalars: Mapping[str, str],
    ) -> Update:  # fmt: skip
        if gradient is None:
            return Update(None, (None,))
        total = onnx.op("Add", [histories[0], _square(onnx, gradient)], what="squares")
        return Update(_divided(onnx, gradient, total, rate, self.delta), (total,))


@dataclass(frozen=True)
class RMSProp(Rule):
    """h = rms_decay·h + (1 - rms_decay)·g²; u = r·g / (√h + delta)."""

    rms_decay: float
    delta: float

    def lower(
        self, onnx: OnnxBuilder, gradient: str | None, histories: Sequence[str], rate: str | None,
        scalars: Mapping[str, str],
    ) -> Update:  # fmt: skip
        square = None if gradient is None else _square(onnx, gradient)
        mean = _weighted(onnx, (self.rms_decay, histories[0]), (_rest(self.rms_decay), square), "squares")
        if gradient is None or mean is None:
            return Update(None, (mean,))
        return Update(_divided(onnx, gradient, mean, rate, self.delta), (mean,))


@dataclass(frozen=True)
class AdaDelta(Rule):
    """h = momentum·h + (1 - momentum)·g²; s = g·√((k + delta) / (h + delta)); k = momentum·k + (1 - momentum)·s²; u = r·s."""

    histories: ClassVar[int] = 2

    momentum: float
    delta: float

    def lower(
        self, onnx: OnnxBuilder, gradient: str | None, histories: Sequence[str], rate: str | None,
        scalars: Mapping[str, str],
    ) -> Update:  # fmt: skip
        rest = _rest(self.momentum)
        square = None if gradient is None else _square(onnx, gradient)
        squares = _weighted(onnx, (self.momentum, histories[0]), (rest, square), "squares")
        if gradient is None or squares is None:
            return Update(None, (squares, _weighted(onnx, (self.momentum, histories[1]), (rest, None), "steps")))
        delta = onnx.floats("delta", self.delta)
        guarded = [onnx.op("Add", [value, delta], what="guarded") for value in (histories[1], squares)]
        factor = onnx.op("Sqrt", [onnx.op("Div", guarded, what="quotient")], what="factor")
        step = onnx.op("Mul", [gradient, factor], what="step")
        steps = _weighted(onnx, (self.momentum, histories[1]), (rest, _square(onnx, step)), "steps")
        return Update(None if rate is None else times(onnx, step, rate, "update"), (squares, steps))


@dataclass(frozen=True)
class Adam(Rule):
    """m = β₁·m + (1 - β₁)·g; v = β₂·v + (1 - β₂)·g²; u = r·√(1 - β₂ᵗ)/(1 - β₁ᵗ) · m / (√v + delta); t counts from 1."""

    histories: ClassVar[int] = 2
    scalars: ClassVar[tuple[str, ...]] = ("correction",)

    momentum: float
    momentum2: float
    delta: float

    def lower(
        self, onnx: OnnxBuilder, gradient: str | None, histories: Sequence[str], rate: str | None,
        scalars: Mapping[str, str],
    ) -> Update:  # fmt: skip
        square = None if gradient is None else _square(onnx, gradient)
        mean = _weighted(onnx, (self.momentum, histories[0]), (_rest(self.momentum), gradient), "means")
        squares = _weighted(onnx, (self.momentum2, histories[1]), (_rest(self.momentum2), square), "squares")
        if rate is None or mean is None:
            return Update(None, (mean, squares))
        own_rate = times(onnx, rate, scalars["correction"], "corrected_rate")
        variance = squares if squares is not None else onnx.op("Mul", [histories[1], onnx.floats("none", 0)])
        return Update(_divided(onnx, mean, variance, own_rate, self.delta), (mean, squares))

    def scalars_at(self, iteration: int) -> dict[str, float]:
        # caffe: in float32, as everything else of the solver
        t, one = np.float32(iteration + 1), np.float32(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            beta, beta2 = np.float32(self.momentum) ** t, np.float32(self.momentum2) ** t
            return {"correction": float(np.sqrt(one - beta2) / (one - beta))}


def _rest(share: float) -> float:
    """1 - share, as float32 gives it."""
    return float(np.float32(1) - np.float32(share))


def _square(onnx: OnnxBuilder, value: str) -> str:
    return onnx.op("Mul", [value, value], what="square")


def _weighted(
    onnx: OnnxBuilder, first: tuple[Factor | None, str | None], second: tuple[Factor | None, str | None], what: str
) -> str | None:  # fmt: skip
    """a·x + b·y; None where both are 0. A term whose factor is 0 or None, or whose value is None, is left out."""
    terms = [
        times(onnx, value, factor, what)
        for factor, value in (first, second)
        if value is not None and factor is not None and factor != 0
    ]
    if not terms:
        return None
    return terms[0] if len(terms) == 1 else onnx.op("Add", terms, what=what)


def _divided(onnx: OnnxBuilder, value: str, squares: str, rate: str | None, delta: float) -> str | None:
    """rate · value / (√squares + delta); None where the rate is 0."""
    if rate is None:
        return None
    root = onnx.op("Add", [onnx.op("Sqrt", [squares], what="root"), onnx.floats("delta", delta)], what="guarded")
    return times(onnx, onnx.op("Div", [value, root], what="direction"), rate, "update")


RULES: Mapping[str, Callable[[SolverFile], Rule]] = {
    "AdaDelta": lambda file: AdaDelta(file.momentum, file.delta),
    "AdaGrad": lambda file: AdaGrad(file.delta),
    "Adam": lambda file: Adam(file.momentum, file.momentum2, file.delta),
    "Nesterov": lambda file: Nesterov(file.momentum),
    "RMSProp": lambda file: RMSProp(file.rms_decay, file.delta),
    "SGD": lambda file: SGD(file.momentum),
}
"""Caffe's names of the types (caffe: REGISTER_SOLVER_CLASS)."""
