"""Each rule against its formula in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from support.small_nets import Array, run_model

from caffeconv.ir.onnx_builder import OnnxBuilder
from caffeconv.training.update_rules import SGD, AdaDelta, AdaGrad, Adam, Nesterov, RMSProp, Rule

RATE, MOMENTUM, MOMENTUM2, DECAY, DELTA = 0.05, 0.9, 0.99, 0.95, 1e-4
STEPS = 4


@dataclass
class Formula:
    """What the rule subtracts, in float64, from a gradient to the next."""

    rule: str
    h: float = 0.0
    k: float = 0.0
    t: int = 0

    def __call__(self, g: float) -> float:
        self.t += 1
        return float(getattr(self, self.rule)(g))

    def sgd(self, g: float) -> float:
        self.h = MOMENTUM * self.h + RATE * g
        return self.h

    def nesterov(self, g: float) -> float:
        before = self.h
        return (1 + MOMENTUM) * self.sgd(g) - MOMENTUM * before

    def adagrad(self, g: float) -> float:
        self.h += g * g
        return RATE * g / (math.sqrt(self.h) + DELTA)

    def rmsprop(self, g: float) -> float:
        self.h = DECAY * self.h + (1 - DECAY) * g * g
        return RATE * g / (math.sqrt(self.h) + DELTA)

    def adadelta(self, g: float) -> float:
        self.h = MOMENTUM * self.h + (1 - MOMENTUM) * g * g
        step = g * math.sqrt((self.k + DELTA) / (self.h + DELTA))
        self.k = MOMENTUM * self.k + (1 - MOMENTUM) * step * step
        return RATE * step

    def adam(self, g: float) -> float:
        self.h = MOMENTUM * self.h + (1 - MOMENTUM) * g
        self.k = MOMENTUM2 * self.k + (1 - MOMENTUM2) * g * g
        correction = math.sqrt(1 - MOMENTUM2**self.t) / (1 - MOMENTUM**self.t)
        return RATE * correction * self.h / (math.sqrt(self.k) + DELTA)


RULES: dict[str, Rule] = {
    "sgd": SGD(MOMENTUM),
    "nesterov": Nesterov(MOMENTUM),
    "adagrad": AdaGrad(DELTA),
    "rmsprop": RMSProp(DECAY, DELTA),
    "adadelta": AdaDelta(MOMENTUM, DELTA),
    "adam": Adam(MOMENTUM, MOMENTUM2, DELTA),
}


def run_rule(rule: Rule, feeds: dict[str, Array], *, gradient: bool = True, rate: bool = True) -> dict[str, Array]:
    builder = OnnxBuilder(17, {}, open_params=True)
    builder.enter("layer", (), ())
    histories = [f"h{i}" for i in range(rule.histories)]
    update = rule.lower(
        builder, "g" if gradient else None, histories, "rate" if rate else None, {"correction": "correction"}
    )
    named = {"u": update.subtrahend, **{f"next{i}": value for i, value in enumerate(update.histories)}}
    outputs = [value for value in named.values() if value is not None]
    graph = helper.make_graph(
        builder.nodes, "rule",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, values.shape) for name, values in feeds.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in dict.fromkeys(outputs)],
        [
            helper.make_tensor(name, TensorProto.FLOAT, np.shape(value), np.ravel(value))
            for name, value in builder.initializers.items()
            if isinstance(value, np.ndarray)
        ],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    results = run_model(model, feeds)
    return {name: results[value] for name, value in named.items() if value is not None}


@pytest.mark.parametrize("name", RULES)
@settings(max_examples=5, deadline=None)
@given(gradients=st.lists(st.floats(-10, 10, width=32), min_size=STEPS, max_size=STEPS))
def test_rule_follows_its_formula(name: str, gradients: list[float]) -> None:
    rule, formula = RULES[name], Formula(name)
    histories = {f"h{i}": np.zeros(1, np.float32) for i in range(rule.histories)}
    for iteration, gradient in enumerate(gradients):
        scalars = {"rate": RATE, **rule.scalars_at(iteration)}
        feeds = {name: np.array(value, np.float32) for name, value in scalars.items()}
        outputs = run_rule(rule, {**histories, **feeds, "g": np.array([gradient], np.float32)})
        np.testing.assert_allclose(outputs["u"], [formula(gradient)], 2e-4, 1e-7)
        histories = {f"h{i}": outputs[f"next{i}"] for i in range(rule.histories)}


@pytest.mark.parametrize("name", ["adagrad", "rmsprop", "adadelta", "adam"])
def test_without_a_rate_a_rule_still_remembers(name: str) -> None:
    rule = RULES[name]
    feeds = {f"h{i}": np.ones(1, np.float32) for i in range(rule.histories)}
    outputs = run_rule(rule, {**feeds, "g": np.full(1, 2, np.float32)}, rate=False)
    assert "u" not in outputs
    assert all(outputs[f"next{i}"] != 1 for i in range(rule.histories))


def test_speed_stays_without_a_gradient() -> None:
    outputs = run_rule(SGD(MOMENTUM), {"h0": np.ones(1, np.float32)}, gradient=False)
    np.testing.assert_allclose(outputs["u"], [MOMENTUM])
