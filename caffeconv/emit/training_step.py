"""One iteration of a solver as an ONNX model: forward, backward, and what the gradients do to the parameters.

caffe: Solver::Step, SGDSolver::ApplyUpdate
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol

from caffeconv.emit.backward import BackwardWriter, open_inputs, plan_backward
from caffeconv.emit.debug_trace import TraceLine, write_trace
from caffeconv.frontend.open_axes import fixed_dims
from caffeconv.ir.graph import Graph
from caffeconv.ir.layer import Node
from caffeconv.layers.gradient_ops import times
from caffeconv.tensor.param import ParamKey
from caffeconv.tensor.shape import Dims, Shape

if TYPE_CHECKING:
    from caffeconv.emit.lazy_model import LazyModel
    from caffeconv.ir.onnx_builder import OnnxBuilder

RATE = "solver/rate"
"""The model's input for the learning rate, a scalar."""


# -- what learns -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LearnedParam:
    """A parameter that a solver keeps a history of (caffe: Net::learnable_params), also one that does not move."""

    key: ParamKey
    shape: Shape
    lr_mult: float
    decay_mult: float


def learned_params(graph: Graph) -> tuple[LearnedParam, ...]:
    """Every parameter once, in the order in which layers first have it."""
    multipliers = _multipliers(graph)
    return tuple(
        LearnedParam((node.name, param.name), param.shape, *multipliers[node.name, param.name])
        for node in graph.nodes
        for param in node.params
        if param.owner is None
    )


def _multipliers(graph: Graph) -> dict[ParamKey, tuple[float, float]]:
    """Parameter → lr_mult and decay_mult; of layers that share one, the first that names it decides."""
    found: dict[ParamKey, tuple[float | None, float | None]] = {}
    for node in graph.nodes:
        specs = node.definition.param_specs
        for i, param in enumerate(node.params):
            key = param.key_in(node.name)
            own = (specs[i].lr_mult, specs[i].decay_mult) if i < len(specs) else (None, None)
            if i >= len(specs) and param.name in node.layer.running_statistics:
                own = (0.0, None)  # caffe: BatchNormLayer::LayerSetUp
            first = found.get(key, (None, None))
            found[key] = tuple(a if a is not None else b for a, b in zip(first, own, strict=True))  # type: ignore[assignment]
    return {
        key: (1.0 if lr_mult is None else lr_mult, 1.0 if decay_mult is None else decay_mult)
        for key, (lr_mult, decay_mult) in found.items()
    }


# -- what a solver does with gradients ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Update:
    """What an update rule makes of a parameter's gradient: ONNX values shaped as it; None: all zero, or as before."""

    subtrahend: str | None
    """What is subtracted from the parameter."""
    histories: tuple[str | None, ...]


class UpdateRule(Protocol):
    """How a kind of solver turns gradients into updates (caffe: ComputeUpdateValue)."""

    @property
    def histories(self) -> int:
        """How many values are remembered for each value of a parameter."""

    @property
    def remembers_unmoved(self) -> bool:
        """Whether the histories of a parameter with lr_mult 0 take up its gradient, though it stays as it is."""

    @property
    def scalars(self) -> tuple[str, ...]:
        """Further inputs that change from iteration to iteration, scalars."""

    def lower(
        self, onnx: OnnxBuilder, gradient: str | None, histories: Sequence[str], rate: str | None,
        scalars: Mapping[str, str],
    ) -> Update:  # fmt: skip
        """Writes the update of one parameter.

        gradient: None where it is 0. rate: the parameter's own learning rate, a scalar; None where it is 0.
        """

    @property
    def is_one_operator(self) -> bool:
        """Whether our library has an operator that does all of an update, for `lower_whole`."""

    def lower_whole(
        self, onnx: OnnxBuilder, value: str, gradient: str, histories: Sequence[str], rate: str, decay: float
    ) -> tuple[str, Update]:
        """Writes decay (L2), update and subtraction as one operator of our library: the new value, and the update."""


@dataclass(frozen=True)
class Learning:
    """What a solver does with gradients, the same in every iteration."""

    rule: UpdateRule
    passes: int = 1
    """Forward and backward passes of an iteration, over whose gradients it takes the mean (iter_size)."""
    clip: float = -1.0
    """The longest that all gradients together may be (L2 norm of their sum over the passes); negative: any length."""
    decay: float = 0.0
    regularization: Literal["L1", "L2"] = "L2"


# -- the model ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StepModel:
    """A model that makes a forward and backward pass, and the update if it is an iteration's last one."""

    model: LazyModel
    param_inputs: Mapping[str, ParamKey]
    noise: Mapping[str, Shape]
    states: Mapping[str, str]
    """Input for what a layer keeps from pass to pass → the output that holds it afterwards."""
    params: Mapping[ParamKey, str]
    """Parameter → the output that holds its new values; others do not change."""
    sum_inputs: Mapping[ParamKey, str] = field(default_factory=dict)
    """Parameter → input for the sum of the gradients of earlier passes."""
    sums: Mapping[ParamKey, str] = field(default_factory=dict)
    """Parameter → the output that holds the sum of the gradients up to here; where the model makes no update."""
    history_inputs: Mapping[tuple[ParamKey, int], str] = field(default_factory=dict)
    histories: Mapping[tuple[ParamKey, int], str] = field(default_factory=dict)
    """(Parameter, number) → the output that holds the new history; others do not change."""
    updates: Mapping[ParamKey, str] = field(default_factory=dict)
    """Parameter → the output that holds what was subtracted, where that was wanted."""
    norm: str | None = None
    """The output that holds the gradients' length, where they are clipped."""
    reached: frozenset[str] = frozenset()
    """Every blob whose diff a layer makes."""
    trace: tuple[TraceLine, ...] = ()
    """What `debug_info` tells of the pass, where that was wanted."""


@dataclass(frozen=True)
class StepKind:
    """Which of an iteration's steps a model takes."""

    runs: bool = True
    """Whether it makes a forward and a backward pass; otherwise the gradients' sums are all that comes in."""
    adds: bool = False
    """Whether there are sums of earlier passes."""
    updates: bool = True
    """Whether it makes the update; otherwise it gives the sums."""
    traces: bool = False
    """Whether it tells what Caffe's `debug_info` does."""


def emit_step(
    graph: Graph, learning: Learning, kind: StepKind, *, values: Sequence[str] = (),
    resting: frozenset[ParamKey] = frozenset(), tells_updates: bool = False, training_ops: bool = False,
) -> StepModel:  # fmt: skip
    """The model of one pass of an iteration, of the whole net.

    Args:
        graph: bound, no pass run over it; parameters become inputs.
        values: values of the forward pass that are outputs too.
        resting: parameters whose histories are all zero: where they get no gradient either, nothing is computed.
        tells_updates: whether what is subtracted is an output too.
        training_ops: see OnnxBuilder.

    Raises CaffeconvError as `emit_backward`.
    """
    from caffeconv.emit.check import check_model
    from caffeconv.emit.model import finish_model, lower_graph

    graph = replace(graph, dims=fixed_dims(graph))
    builder = lower_graph(graph, stateful=True, open_params=True, training_ops=training_ops)
    writer = _StepWriter(graph, builder, learning)
    gradients = writer.gradients(kind)
    outputs: dict[str, Dims] = {value: graph.dims[value] for value in values}
    if kind.runs:
        outputs |= dict(builder.states.values())
    if kind.updates:
        writer.update(gradients, resting)
    elif kind.runs:
        writer.params |= dict(builder.changed_params.items())
        writer.sums = gradients
    outputs |= writer.outputs(tells_updates=tells_updates)
    graph = graph if kind.runs else replace(graph, inputs=())
    model = check_model(finish_model(graph, builder, outputs, more_inputs=writer.inputs))
    return StepModel(
        model, open_inputs(model, builder), builder.noise,
        {name: output for name, (output, _) in builder.states.items()} if kind.runs else {},
        writer.params, writer.sum_inputs, writer.sums, writer.history_inputs, writer.histories,
        writer.updates if tells_updates else {}, writer.norm, writer.reached, writer.trace,
    )  # fmt: skip


class _StepWriter:
    """Writes what follows the forward pass."""

    def __init__(self, graph: Graph, builder: OnnxBuilder, learning: Learning) -> None:
        self.inputs: dict[str, Dims] = {}
        """Inputs of the model that are neither blobs nor parameters."""
        self.sum_inputs: dict[ParamKey, str] = {}
        self.history_inputs: dict[tuple[ParamKey, int], str] = {}
        self.params: dict[ParamKey, str] = {}
        self.sums: dict[ParamKey, str] = {}
        self.histories: dict[tuple[ParamKey, int], str] = {}
        self.updates: dict[ParamKey, str] = {}
        self.norm: str | None = None
        self.reached: frozenset[str] = frozenset()
        self.trace: tuple[TraceLine, ...] = ()
        self._graph = graph
        self._onnx = builder
        self._learning = learning
        self._learned = {param.key: param for param in learned_params(graph)}
        self._owners = {(node.name, param.name): node for node in graph.nodes[::-1] for param in node.params}

    def outputs(self, *, tells_updates: bool) -> dict[str, Dims]:
        """The model's outputs, those of the forward pass aside."""
        by_param = [*self.params.items(), *self.sums.items(), *(self.updates.items() if tells_updates else ())]
        shapes: dict[str, Dims] = {value: self._learned[key].shape for key, value in by_param}
        shapes |= {value: self._learned[key].shape for (key, _), value in self.histories.items()}
        if self.norm is not None:
            shapes[self.norm] = ()
        shapes |= {value: () for line in self.trace for value in line.values}
        return shapes

    def _input(self, name: str, shape: Shape) -> str:
        value = self._onnx.new_name(name)
        self.inputs[value] = shape
        return value

    # -- gradients ---------------------------------------------------------------------------------------------------

    def gradients(self, kind: StepKind) -> dict[ParamKey, str]:
        """The sum of the gradients of all passes up to this one; parameters that never get one are left out."""
        if not kind.runs:
            self._onnx.changed_params.clear()
            self.sum_inputs = {key: self._sum_input(key) for key in self._learned}
            return dict(self.sum_inputs)
        backward = BackwardWriter(self._graph, self._onnx, {})
        steps = plan_backward(self._graph)
        backward.run_all(steps)
        diffs = backward.param_diffs()
        self.reached = frozenset(backward.blob_diffs())
        gradients = self._added(diffs, backward.overwritten) if kind.adds else diffs
        if kind.traces:
            self.trace = write_trace(self._graph, steps, backward, self._values(), gradients)
        return gradients

    def _added(self, diffs: Mapping[ParamKey, str], overwritten: Collection[ParamKey]) -> dict[ParamKey, str]:
        """The diffs of this pass added to the sums of earlier ones."""
        sums = {}
        for key, diff in diffs.items():
            if key not in overwritten:
                self.sum_inputs[key] = self._sum_input(key)
                self._resume(key)
                diff = self._onnx.op("Add", [self.sum_inputs[key], diff], what=f"{key[1]}_diff_sum")
            sums[key] = diff
        return sums

    def _values(self) -> dict[ParamKey, str]:
        """What every parameter holds in this pass."""
        values = {}
        for key in self._learned:
            self._resume(key)
            values[key] = self._onnx.weight(key[1])
        return values

    def _sum_input(self, key: ParamKey) -> str:
        return self._input(f"sum/{key[0]}/{key[1]}", self._learned[key].shape)

    def _resume(self, key: ParamKey) -> None:
        node: Node = self._owners[key]
        self._onnx.resume(node.name, node.tops, node.params)

    # -- updates -----------------------------------------------------------------------------------------------------

    def update(self, gradients: Mapping[ParamKey, str], resting: frozenset[ParamKey]) -> None:
        """Writes the update of every parameter (caffe: SGDSolver::ApplyUpdate)."""
        rate = self._input(RATE, ())
        scalars = {name: self._input(f"solver/{name}", ()) for name in self._learning.rule.scalars}
        factor = self._factor(gradients)
        for key, param in self._learned.items():
            self._resume(key)
            value = self._onnx.changed_params.get(key) or self._onnx.weight(key[1])
            if self._update_whole(param, value, gradients.get(key), rate, factor):
                continue
            gradient = self._regularized(param, value, gradients.get(key), factor)
            if param.lr_mult == 0 and not self._learning.rule.remembers_unmoved:
                gradient = None
            if gradient is not None or key not in resting:
                self._update(param, value, gradient, rate, scalars)
            elif key in self._onnx.changed_params:
                self.params[key] = value

    def _update(
        self, param: LearnedParam, value: str, gradient: str | None, rate: str, scalars: Mapping[str, str]
    ) -> None:  # fmt: skip
        key, name = param.key, param.key[1]
        own_rate = times(self._onnx, rate, param.lr_mult, f"{name}_rate") if param.lr_mult else None
        histories = self._new_histories(param)
        update = self._learning.rule.lower(self._onnx, gradient, histories, own_rate, scalars)
        self._take(param, histories, update)
        if update.subtrahend is not None:
            self.params[key] = self._onnx.op("Sub", [value, update.subtrahend], what=f"next_{name}")
        elif key in self._onnx.changed_params:
            self.params[key] = value

    def _update_whole(
        self, param: LearnedParam, value: str, gradient: str | None, rate: str, factor: str | float
    ) -> bool:
        """Writes the update as one operator, and says so, where our library has one for it."""
        onnx, learning, name = self._onnx, self._learning, param.key[1]
        if not (onnx.training_ops and learning.rule.is_one_operator and learning.regularization == "L2"):
            return False
        if gradient is None or not param.lr_mult:
            return False
        own_rate = times(onnx, rate, param.lr_mult, f"{name}_rate")
        gradient = times(onnx, gradient, factor, f"{name}_gradient")
        histories = self._new_histories(param)
        decay = learning.decay * param.decay_mult
        whole = learning.rule.lower_whole(onnx, value, gradient, histories, own_rate, decay)
        self.params[param.key], update = whole
        self._take(param, histories, update)
        return True

    def _new_histories(self, param: LearnedParam) -> list[str]:
        layer, name = param.key
        return [self._input(f"history/{i}/{layer}/{name}", param.shape) for i in range(self._learning.rule.histories)]

    def _take(self, param: LearnedParam, histories: Sequence[str], update: Update) -> None:
        self.history_inputs |= {(param.key, i): history for i, history in enumerate(histories)}
        self.histories |= {(param.key, i): new for i, new in enumerate(update.histories) if new is not None}
        if update.subtrahend is not None:
            self.updates[param.key] = update.subtrahend

    def _factor(self, gradients: Mapping[ParamKey, str]) -> str | float:
        """What each gradient is multiplied by: clipped by their common length first, then divided by the passes."""
        share = 1 / self._learning.passes if self._learning.passes else math.inf
        if self._learning.clip < 0 or not gradients:
            return share
        squares = []
        for key, gradient in gradients.items():
            self._resume(key)
            squares.append(self._onnx.reduce("ReduceSumSquare", gradient, None, keepdims=False, what="square_sum"))
        total = squares[0] if len(squares) == 1 else self._onnx.op("Sum", squares, what="square_sums")
        self.norm = self._onnx.op("Sqrt", [total], what="gradient_norm")
        clip = self._onnx.floats("clip", self._learning.clip)
        is_longer = self._onnx.op("Greater", [self.norm, clip], what="is_longer")
        quotient = self._onnx.op("Div", [clip, self.norm], what="clip_factor")
        factor = self._onnx.op("Where", [is_longer, quotient, self._onnx.floats("unclipped", 1)], what="factor")
        return times(self._onnx, factor, share, "clip_and_mean")

    def _regularized(
        self, param: LearnedParam, value: str, gradient: str | None, factor: str | float
    ) -> str | None:  # fmt: skip
        """The gradient as the update rule takes it; None where it is 0."""
        name, onnx = param.key[1], self._onnx
        if gradient is not None:
            gradient = times(onnx, gradient, factor, f"{name}_gradient")
        decay = self._learning.decay * param.decay_mult
        if not decay:
            return gradient
        direction = onnx.op("Sign", [value], what=f"{name}_sign") if self._learning.regularization == "L1" else value
        pull = times(onnx, direction, decay, f"{name}_decay")
        return pull if gradient is None else onnx.op("Add", [gradient, pull], what=f"{name}_regularized")
