"""Which parameters learn, how fast, and what the model of an iteration takes and gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.small_nets import net_text, run_model

from caffeconv.conversion.load import load
from caffeconv.emit.training_step import Learning, StepKind, emit_step, learned_params
from caffeconv.frontend.options import NetOptions
from caffeconv.ir.graph import Graph
from caffeconv.training.update_rules import SGD

PARAM = 'param { name: "w" lr_mult: 2 } param { name: "b" decay_mult: 0 }'
NET = (
    f'layer {{ name: "a" type: "InnerProduct" bottom: "x" top: "a" {PARAM} '
    'inner_product_param { num_output: 3 weight_filler { type: "constant" value: 1 } } }\n'
    'layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" param { name: "w" } param { name: "b" } '
    "inner_product_param { num_output: 3 } }\n"
    'layer { name: "n" type: "BatchNorm" bottom: "b" top: "n" }\n'
    'layer { name: "loss" type: "Reduction" bottom: "n" top: "loss" loss_weight: 1 reduction_param { operation: SUMSQ } }\n'
)
LEARNING = Learning(SGD(0.5), clip=0.25, decay=0.1)
WEIGHT, BIAS = ("a", "weight"), ("a", "bias")


@pytest.fixture
def graph(tmp_path: Path) -> Graph:
    path = tmp_path / "net.prototxt"
    path.write_text(net_text({"x": (4, 3)}, NET))
    return load(path, options=NetOptions("TRAIN")).graph


def test_each_parameter_learns_once(graph: Graph) -> None:
    learned = {param.key: (param.lr_mult, param.decay_mult) for param in learned_params(graph)}
    statistics = {("n", name): (0, 1) for name in ("mean", "variance", "scale_factor")}
    assert learned == {WEIGHT: (2, 1), BIAS: (1, 0), **statistics}


def test_a_whole_iteration(graph: Graph) -> None:
    resting = frozenset(("n", name) for name in ("mean", "variance", "scale_factor"))
    step = emit_step(graph, LEARNING, StepKind(), values=("loss",), resting=resting, tells_updates=True)
    assert set(step.params) == {WEIGHT, BIAS, *resting}
    assert set(step.histories) == set(step.history_inputs) == {(WEIGHT, 0), (BIAS, 0)}
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in step.model.model.graph.input
    }
    feeds = {name: np.random.default_rng(0).normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    outputs = run_model(step.model.materialize(), feeds)
    weight = feeds[next(name for name, key in step.param_inputs.items() if key == WEIGHT)]
    np.testing.assert_allclose(outputs[step.params[WEIGHT]], weight - outputs[step.updates[WEIGHT]], 1e-6)
    mean = feeds[next(name for name, key in step.param_inputs.items() if key == ("n", "mean"))]
    assert not np.allclose(outputs[step.params["n", "mean"]], mean)


def test_a_pass_that_only_adds(graph: Graph) -> None:
    step = emit_step(graph, LEARNING, StepKind(adds=True, updates=False))
    assert set(step.sums) == set(step.sum_inputs) == {WEIGHT, BIAS}
    assert set(step.params) == {("n", "mean"), ("n", "variance"), ("n", "scale_factor")}
    assert not step.histories


def test_an_update_alone_needs_no_data(graph: Graph) -> None:
    step = emit_step(graph, LEARNING, StepKind(runs=False), resting=frozenset({BIAS}))
    assert "x" not in {value.name for value in step.model.model.graph.input}
    assert set(step.params) >= {WEIGHT, BIAS}
    assert step.norm is not None


def test_clipping_leaves_the_direction(graph: Graph) -> None:
    rng = np.random.default_rng(1)
    results = []
    for clip in (-1.0, 0.25):
        step = emit_step(graph, Learning(SGD(0), clip=clip), StepKind(runs=False), tells_updates=True)
        feeds = {
            value.name: rng.normal(size=[d.dim_value for d in value.type.tensor_type.shape.dim]).astype(np.float32)
            for value in step.model.model.graph.input
        }
        rng = np.random.default_rng(1)
        feeds |= {
            name: np.full((3, 3) if key == WEIGHT else (3,), 2, np.float32)
            for key, name in step.sum_inputs.items()
            if key in (WEIGHT, BIAS)
        }
        feeds |= {name: np.zeros_like(feeds[name]) for key, name in step.sum_inputs.items() if key[0] == "n"}
        feeds["solver/rate"] = np.array(1, np.float32)
        outputs = run_model(step.model.materialize(), feeds)
        results.append((outputs[step.updates[WEIGHT]].ravel(), outputs[step.updates[BIAS]]))
    (weight, bias), (clipped_weight, clipped_bias) = results
    factor = 0.25 / np.sqrt(12 * 4)
    np.testing.assert_allclose(clipped_weight, weight * factor, 1e-5)
    np.testing.assert_allclose(clipped_bias, bias * factor, 1e-5)


def test_our_library_does_an_update_as_one_operator(graph: Graph) -> None:
    resting = frozenset(("n", name) for name in ("mean", "variance", "scale_factor"))
    step = emit_step(graph, Learning(SGD(0.5), decay=0.1), StepKind(), resting=resting, training_ops=True)
    kinds = [node.op_type for node in step.model.model.graph.node if node.domain == "caffeconv"]
    assert kinds == ["SGDUpdate", "SGDUpdate"]
    assert set(step.histories) == set(step.history_inputs) == {(WEIGHT, 0), (BIAS, 0)}
