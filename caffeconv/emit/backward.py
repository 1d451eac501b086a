"""The backward pass as an ONNX model: which diffs Caffe computes (caffe: Net::Init), and the nodes that do it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from caffeconv.emit.held_values import graph_of_held_values, held_value
from caffeconv.errors import CaffeconvError, LayerError
from caffeconv.frontend.open_axes import fixed_dims
from caffeconv.ir.graph import Graph
from caffeconv.ir.layer import Gradients, Node
from caffeconv.layers.gradient_ops import filled_like
from caffeconv.tensor.param import ParamKey
from caffeconv.tensor.shape import Dims, Shape

if TYPE_CHECKING:
    from caffeconv.emit.lazy_model import LazyModel
    from caffeconv.ir.onnx_builder import OnnxBuilder


# -- which diffs -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BackwardStep:
    """A layer in the backward pass: whether it runs, and which bottoms' and parameters' diffs it computes."""

    node: Node
    runs: bool
    bottoms: tuple[bool, ...]
    params: tuple[bool, ...]

    @property
    def passes_on(self) -> tuple[bool, ...]:
        """Which bottoms' diffs are passed on."""
        return (True,) * len(self.bottoms) if self.node.layer.propagates_always else self.bottoms


def loss_weights(node: Node) -> tuple[float, ...]:
    """By how much each top counts in the net's loss; that is its diff (caffe: Layer::SetLossWeights)."""
    weights = node.definition.loss_weights or (node.layer.first_loss_weight,)
    return (*weights, *([0.0] * len(node.tops)))[: len(node.tops)]


def goes_backward(graph: Graph) -> bool:
    """Whether anything goes backward in this net: it has a loss, or `force_backward`."""
    return _forced(graph) or any(any(loss_weights(node)) for node in graph.nodes)


def _forced(graph: Graph) -> bool:
    return any(node.definition.force_backward for node in graph.nodes)


def plan_backward(graph: Graph) -> tuple[BackwardStep, ...]:
    """What every layer computes in the backward pass, in the order of the layers (caffe: Net::Init)."""
    steps = _without_detours(_what_learns(graph))
    if not _forced(graph):
        return steps
    return tuple(
        replace(
            step, runs=True, params=(True,) * len(step.params),
            bottoms=tuple(
                propagates or i not in (*step.node.layer.never_forced, *step.node.layer.without_diff)
                for i, propagates in enumerate(step.bottoms)
            ),
        )
        for step in steps
    )  # fmt: skip


def _what_learns(graph: Graph) -> list[BackwardStep]:
    """From the inputs on: a value needs a diff where a parameter whose lr_mult is not 0 lies below it."""
    diff_values: set[str] = set()
    steps = []
    for node in graph.nodes:
        specs = node.definition.param_specs
        # caffe: looks at the prototxt only, so BatchNorm's statistics count as learnt unless it says `lr_mult: 0`
        params = tuple(i >= len(specs) or specs[i].lr_mult != 0 for i in range(len(node.params)))
        below = tuple(value in diff_values and i not in node.layer.without_diff for i, value in enumerate(node.bottoms))
        runs = any(params) or any(below)
        if runs:
            diff_values.update(node.tops)
        steps.append(BackwardStep(node, runs, node.definition.propagate_down or below, params))
    return steps


def _without_detours(steps: Sequence[BackwardStep]) -> tuple[BackwardStep, ...]:
    """From the losses back: a layer runs where its tops lead to a loss and a diff of one of them is needed."""
    under_loss: set[str] = set()
    read_values: set[str] = set()
    diff_values: set[str] = set()
    result = []
    for step in reversed(steps):
        node, weights = step.node, loss_weights(step.node)
        contributes = any(weights) or not under_loss.isdisjoint(node.tops)
        refused = all(
            top in read_values and top not in diff_values and not weight
            for top, weight in zip(node.tops, weights, strict=True)
        )
        if not contributes or (step.runs and refused):
            step = replace(step, runs=False, bottoms=(False,) * len(step.bottoms))
        if contributes:
            under_loss.update(value for i, value in enumerate(node.bottoms) if i not in node.layer.without_diff)
        read_values.update(node.bottoms)
        diff_values.update(value for value, propagates in zip(node.bottoms, step.bottoms, strict=True) if propagates)
        result.append(step)
    return tuple(reversed(result))


def open_tops(steps: Iterable[BackwardStep]) -> dict[str, str]:
    """Blob → value of those tops whose diff no layer makes: the caller does, or it is the loss weight."""
    running = [step for step in steps if step.runs and step.node.layer.stands_in_net]
    diff_values = {
        value
        for step in running
        for value, passes_on in zip(step.node.bottoms, step.passes_on, strict=True)
        if passes_on
    }  # fmt: skip
    return {blob: value for step in running for blob, value in _tops(step.node) if value not in diff_values}


def _tops(node: Node) -> Iterable[tuple[str, str]]:
    """(blob, value) of every top; one that the prototxt leaves out is called as its value."""
    return zip((*node.definition.tops, *node.tops[len(node.definition.tops) :]), node.tops, strict=True)


# -- the model ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BackwardModel:
    """A model that runs a net forward and backward."""

    model: LazyModel
    seeds: Mapping[str, str]
    """Blob whose diff the caller gives → the model's input for it."""
    blobs: Mapping[str, str]
    """Blob → the output that holds its diff, of those that were wanted and get one."""
    params: Mapping[ParamKey, str]
    """Parameter → the output that holds its diff; what sharing layers add is in it."""
    reached: frozenset[str]
    """Every blob whose diff a layer makes."""
    overwritten: frozenset[ParamKey] = frozenset()
    """Parameters whose diff takes the place of what was added up before."""
    param_inputs: Mapping[str, ParamKey] = field(default_factory=dict)
    """Where parameters are open: the model's input → the parameter that it holds."""
    noise: Mapping[str, Shape] = field(default_factory=dict)
    """The model's input → its shape, for numbers in [0, 1) that were drawn for the forward pass."""


def emit_backward(
    graph: Graph, span: slice, *, seeded: Collection[str], wanted: Collection[str], open_params: bool = False,
    held: bool = False, training_ops: bool = False,
) -> BackwardModel:  # fmt: skip
    """The model that gives the diffs of the blobs `wanted`, and of all parameters of which Caffe computes one.

    graph: bound, no pass run over it. span: the layers that run backward. seeded: blobs among `open_tops` whose diff is
    an input, shaped as the blob; the others' is their loss weight, or 0. held: every value is an input too, `held_value`,
    and no layer runs forward but for what its own gradient needs. open_params, training_ops: see OnnxBuilder. Raises
    CaffeconvError where a layer that must run has no rule for its gradient, or Caffe refuses it.
    """
    from caffeconv.emit.check import check_model
    from caffeconv.emit.model import finish_model, lower_graph

    graph = replace(graph, dims=fixed_dims(graph))
    steps = plan_backward(graph)[span]
    forward = graph_of_held_values(graph) if held else graph
    builder = lower_graph(forward, stateful=True, open_params=open_params, training_ops=training_ops)
    seeds = {blob: value for blob, value in open_tops(steps).items() if blob in seeded}
    backward = BackwardWriter(graph, builder, seeds, held=held)
    backward.run_all(steps)
    outputs: dict[str, Dims] = {}
    diffs = backward.blob_diffs()
    blobs = {blob: builder.as_output(diffs[blob], f"diff/{blob}") for blob in diffs if blob in wanted}
    outputs |= {name: graph.dims[graph.net.last_value.get(blob, blob)] for blob, name in blobs.items()}
    params = {key: builder.as_output(value, f"diff/{key[0]}/{key[1]}") for key, value in backward.param_diffs().items()}
    outputs |= {name: backward.owned_shapes[key] for key, name in params.items()}
    model = check_model(finish_model(forward, builder, outputs, more_inputs=backward.seed_dims))
    return BackwardModel(
        model, backward.seeds, blobs, params, frozenset(diffs), frozenset(backward.overwritten),
        open_inputs(model, builder), builder.noise,
    )  # fmt: skip


def open_inputs(model: LazyModel, builder: OnnxBuilder) -> dict[str, ParamKey]:
    """The model's inputs that hold parameters, each with its parameter; none where these are not open."""
    names = {value.name for value in model.model.graph.input}
    return {name: key for name, key in builder.param_keys.items() if name in names}


class BackwardWriter:
    """The diffs of values and parameters, while the layers run backward one after another."""

    def __init__(self, graph: Graph, builder: OnnxBuilder, seeded: Mapping[str, str], *, held: bool = False) -> None:
        self.builder = builder
        self.params: dict[ParamKey, list[str]] = {}
        self.overwritten: set[ParamKey] = set()
        self.bottom_diffs: dict[tuple[str, int], str] = {}
        """(Layer, bottom) → the diff that the layer gave it."""
        self.seeds = {blob: builder.new_name(f"seed/{blob}") for blob in seeded}
        self.seed_dims = {self.seeds[blob]: graph.dims[value] for blob, value in seeded.items()}
        self.owned_shapes = {
            (node.name, param.name): param.shape for node in graph.nodes[::-1] for param in node.params
        }
        self._graph = graph
        self._seeded = frozenset(seeded.values())
        self._reader_diffs = {value: [self.seeds[blob]] for blob, value in seeded.items()}
        """Value → the diffs from its readers, the last one first."""
        self._total: dict[str, str] = {}
        last = graph.net.last_value
        values = [(blob, value) for node in graph.nodes for blob, value in _tops(node)]
        self._own_values = {value: held_value(value) if held else value for _, value in values}
        """Value → what holds it in this model."""
        self._last_values = {value: self._own_values[last.get(blob, value)] for blob, value in values}

    def run_all(self, steps: Sequence[BackwardStep]) -> None:
        """Writes the nodes of the layers that run, the last one first."""
        for step in reversed(steps):
            if step.runs:
                self.run(step)

    def run(self, step: BackwardStep) -> None:
        """Writes the nodes of one layer; one that no diff arrives at adds nothing to those below."""
        node = step.node
        self.builder.resume(node.name, node.tops, node.params)
        tops = [self._top_diff(node, i) for i in range(len(node.tops))]
        # code of the user's may make diffs of nothing
        if not (any(tops) or node.layer.has_dynamic_shapes) or not (node.bottoms or node.params):
            return
        diffs = [
            diff or filled_like(self.builder, top, 0, "no_diff") for diff, top in zip(tops, node.tops, strict=True)
        ]
        try:
            gradients = node.layer.lower_gradient(self._with_last_values(node), self.builder, diffs, step.bottoms)
        except LayerError as error:
            raise CaffeconvError(f"{node.definition.where}: {error}") from None
        self._collect(step, gradients)

    def _top_diff(self, node: Node, index: int) -> str | None:
        """The sum of what the value's readers, the caller or its loss weight give."""
        value, weight = node.tops[index], loss_weights(node)[index]
        diffs = self._reader_diffs.get(value, [])[::-1]
        if weight and value not in self._seeded:
            diffs = [filled_like(self.builder, value, weight, "loss_weight"), *diffs]
        if diffs:
            self._total[value] = self._sum(diffs)
        return self._total.get(value)

    def _with_last_values(self, node: Node) -> Node:
        """The node with the values that Caffe's Backward finds in its blobs: what the last write in place left there."""
        found = self._own_values if node.layer.keeps_bottoms else self._last_values
        bottoms = tuple(found[value] for value in node.bottoms)
        return replace(node, bottoms=bottoms, tops=tuple(self._last_values[value] for value in node.tops))

    def _collect(self, step: BackwardStep, gradients: Gradients) -> None:
        for i, (value, diff, passes_on) in enumerate(
            zip(step.node.bottoms, gradients.bottoms, step.passes_on, strict=True)
        ):
            if diff and passes_on:
                self.bottom_diffs[step.node.name, i] = diff
                self._reader_diffs.setdefault(value, []).append(diff)
        for param, learns in zip(step.node.params, step.params, strict=True):
            if param.name not in gradients.params or not (learns or step.node.layer.propagates_always):
                continue
            key = param.key_in(step.node.name)
            diff, owned = gradients.params[param.name], self.owned_shapes[key]
            if owned != param.shape:  # caffe: PERMISSIVE sharing takes the same numbers in another shape
                diff = self.builder.reshape(diff, owned, what="shared_diff")
            if param.name in gradients.overwritten:
                self.params.pop(key, None)
                self.overwritten.add(key)
            self.params.setdefault(key, []).append(diff)

    def total_of(self, value: str) -> str | None:
        """The diff of a value whose layer ran, the sum of what its readers gave."""
        return self._total.get(value)

    def param_diffs(self) -> dict[ParamKey, str]:
        """Parameter → its diff."""
        return {key: self._sum(diffs) for key, diffs in self.params.items()}

    def blob_diffs(self) -> dict[str, str]:
        """Blob → its diff, where a layer makes one; in place that of the first state, which Caffe writes last."""
        diffs: dict[str, str] = {}
        for node in self._graph.nodes:
            self.builder.resume(node.name, node.tops, node.params)
            for blob, value in _tops(node):
                reader_diffs = self._reader_diffs.get(value, [])
                if not reader_diffs or value in self._seeded:
                    continue
                if value not in self._total:  # the layer itself does not run
                    self._total[value] = self._sum(reader_diffs[::-1])
                diffs.setdefault(blob, self._total[value])
        return diffs

    def _sum(self, values: Sequence[str]) -> str:
        return values[0] if len(values) == 1 else self.builder.op("Sum", values, what="diff_sum")
