"""A net's graph at the shapes that its inputs have now, and the sessions that run it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from caffeconv.conversion.load import Loaded
from caffeconv.emit.backward import BackwardModel, emit_backward
from caffeconv.frontend.reshape import input_shapes, reshape_graph
from caffeconv.ir.graph import Graph
from caffeconv.net.lru import LruCache
from caffeconv.net.memory import session_size
from caffeconv.net.open_params import NO_INPUTS, OpenForward, OpenInputs, open_forward, takes_training_ops
from caffeconv.net.open_session import open_session
from caffeconv.net.params import ParamStore
from caffeconv.net.pass_state import ForwardPass, initial_state
from caffeconv.net.planned_session import (
    MAX_SESSION_BYTES,
    MAX_SESSIONS,
    GraphSessions,
    replan,
    run_replanning,
    session_key,
)
from caffeconv.passes.subgraph import extract_subgraph
from caffeconv.runtime.install import for_gradients
from caffeconv.runtime.providers import ComputeOptions
from caffeconv.runtime.session import Session
from caffeconv.tensor.param import ParamKey
from caffeconv.tensor.shape import FloatArray, Shape

Values = dict[str, FloatArray]
"""Blob, or value → float32."""


Result = TypeVar("Result")
MOST_CHANGES = 4
"""After how many changes of parameters these become inputs: fewer are surgery, after which kernels that pack them are
faster; who changes them again and again is training."""


@dataclass(frozen=True)
class BackwardSession:
    """A model that runs backward, and a session for it unless it has nothing to give."""

    session: Session | None
    model: BackwardModel
    inputs: OpenInputs


class SessionPool:
    """A net's graph, and sessions that run it with the parameters that it has now."""

    def __init__(self, loaded: Loaded, params: ParamStore, compute: ComputeOptions) -> None:
        self.on_reshape: list[Callable[[], None]] = []
        """Called when the inputs' shapes have changed, and all others with them."""
        self.on_replan: list[Callable[[], None]] = []
        """Called when Python layers have made other shapes than they had said."""
        self._graph = loaded.graph
        self._input_shapes: dict[str, Shape] = input_shapes(loaded.graph)
        self._was_reshaped = False
        self._params = params
        self._params_version = params.version
        self._compute = compute
        self._forward = GraphSessions(loaded, compute, stateful=True)
        self._open_forward: LruCache[OpenForward] = LruCache(MAX_SESSIONS, MAX_SESSION_BYTES)
        self._backward: LruCache[BackwardSession] = LruCache(MAX_SESSIONS, MAX_SESSION_BYTES)
        # what is drawn anew has to be the same forward and backward, so it comes in as the parameters do
        samples = any(node.layer.is_random and not node.layer.is_input for node in loaded.graph.nodes)
        self._opens_params = samples or (loaded.graph.net.phase == "TRAIN" and not compute.half)
        self._changes = 0
        """How often parameters have changed after sessions had been made of them."""

    def __iter__(self) -> Iterator[Hashable]:
        """(values, span, …) of each session for forward passes, the one used longest ago first."""
        return iter(self._forward)

    def __len__(self) -> int:
        return len(self._forward) + len(self._open_forward)

    @property
    def compute(self) -> ComputeOptions:
        """Where and how to compute."""
        return self._compute

    # -- shapes ----------------------------------------------------------------------------------------------------

    def reshape_input(self, blob: str, shape: Shape) -> None:
        """Gives an input another shape; all others follow when the graph is asked for."""
        self._input_shapes[blob] = shape
        self._was_reshaped = True

    @property
    def graph(self) -> Graph:
        """The graph at the inputs' shapes; InvalidNetError where these do not go together."""
        self.update_shapes()
        return self._graph

    def update_shapes(self) -> None:
        """Makes the graph follow the inputs' shapes; InvalidNetError where these do not go together."""
        if not self._was_reshaped:
            return
        if self._input_shapes != input_shapes(self._graph):
            self._graph = reshape_graph(self._graph, self._input_shapes)
            for call in self.on_reshape:
                call()
        self._was_reshaped = False

    def graph_of(self, forward: ForwardPass) -> Graph:
        """The layers that a pass runs."""
        if forward.span is None:
            return self.graph
        return extract_subgraph(
            self.graph, forward.span, {value: array.shape for value, array in forward.feeds.items()}
        )

    # -- parameters ------------------------------------------------------------------------------------------------

    @property
    def params_version(self) -> int:
        """`ParamStore.version` of the parameters that the sessions hold."""
        return self._params_version

    def drop_outdated(self) -> None:
        """Forgets the sessions that hold other parameters than the net does now."""
        self._params.refresh()
        if self._params.version == self._params_version:
            return
        self._params_version = self._params.version
        if not self._opens_params:
            self._changes += bool(len(self._forward) or len(self._backward))
            self._forward.clear()
            self._backward.clear()
            if self._changes >= MOST_CHANGES:
                self.open_params()
        else:
            self._open_forward.keep(lambda entry: not entry.inputs.fixed)
            self._backward.keep(lambda entry: not entry.inputs.fixed)

    @property
    def opens_params(self) -> bool:
        """Whether parameters are inputs of all sessions."""
        return self._opens_params

    def open_params(self) -> None:
        """From now on parameters are inputs of all sessions, so that none has to be made again when they change."""
        if not self._opens_params and not self._compute.half:
            self._opens_params = True
            self._forward.clear()
            self._backward.clear()

    # -- running ---------------------------------------------------------------------------------------------------

    def run(self, forward: ForwardPass, blobs: Sequence[str], *, again: bool = False) -> tuple[Values, Values]:
        """The blobs, and the states that this pass leaves, by the input that takes them in the next one.

        again: whether the pass has been run before, and changes no parameters now.
        """
        graph = self.graph_of(forward)
        inputs = set(graph.inputs)
        learns = self._opens_params and not again and any(not node.layer.is_input for node in graph.nodes)
        if not learns and all(forward.values[blob] in inputs for blob in blobs):
            return _as_fed(forward, blobs)
        return self.replanning(lambda: self._run(forward, self.graph_of(forward), blobs, again=again))

    def replanning(self, run: Callable[[], Result]) -> Result:
        """What `run` gives; it is called again with another graph where Python layers make other shapes than planned."""

        def replan_and_run() -> Result:
            self._graph = replan(self._graph, self._input_shapes)
            for call in self.on_replan:
                call()
            return run()

        return run_replanning(run, replan_and_run, len(self._graph.nodes))

    def _run(
        self, forward: ForwardPass, graph: Graph, blobs: Sequence[str], *, again: bool
    ) -> tuple[Values, Values]:  # fmt: skip
        inputs = set(graph.inputs)
        values = {blob: forward.values[blob] for blob in blobs if forward.values[blob] not in inputs}
        entry = self._forward_entry(graph, tuple(values.values()), forward.span)
        session, own = entry.session, {*inputs, *entry.inputs.params, *entry.inputs.noise}
        if session is None:
            return _as_fed(forward, blobs)
        states = {name: f"{name.removesuffix('_in')}_out" for name in session.inputs if name not in own}
        feeds = {name: forward.feeds[name] for name in session.inputs if name in inputs}
        feeds |= {name: initial_state(forward.states, name, session.inputs[name]) for name in states}
        feeds |= entry.inputs.feeds(session, self._params, forward.params, forward.noise)
        changed = {} if again else entry.changed
        names = [*values.values(), *states.values(), *changed.values()]
        outputs = session.run(feeds, names, same_pass=True) if names else {}
        for key, output in changed.items():
            self._params.values_of(key)[...] = outputs[output]
        results = {
            blob: outputs[values[blob]] if blob in values else forward.feeds[forward.values[blob]] for blob in blobs
        }
        return results, {**forward.states, **{name: outputs[output] for name, output in states.items()}}

    def forward_session(self, graph: Graph, values: tuple[str, ...], span: slice | None = None) -> Session | None:
        """What computes the values of the net's layers, or of those in `span`, which the graph consists of.

        None where that is nothing.
        """
        return self._forward_entry(graph, values, span).session

    def _forward_entry(self, graph: Graph, values: tuple[str, ...], span: slice | None) -> OpenForward:
        if not self._opens_params:
            return OpenForward(self._forward.get(graph, values, span, self._params.apply), NO_INPUTS, {})
        key = (values, span and (span.start, span.stop), session_key(graph))
        entry = self._open_forward.get(key)
        if entry is None:
            size = session_size(graph)
            self._open_forward.evict_for(size)
            entry = open_forward(graph, values, self._params, self._compute)
            self._open_forward.put(key, entry, size)
        return entry

    def backward_session(
        self, span: slice, seeds: Collection[str], blobs: Collection[str], *, held: bool = False
    ) -> BackwardSession:
        """The model that runs the layers `span` backward, and a session for it unless it has nothing to give.

        seeds: blobs whose diffs are fed. held: whether all values are. blobs: whose diffs are wanted, as far as they get
        any. Raises CaffeconvError as `emit_backward`.
        """
        self.drop_outdated()
        graph = self.graph
        key = (span.start, span.stop, tuple(sorted(seeds)), tuple(sorted(blobs)), held, session_key(graph))
        entry = self._backward.get(key)
        if entry is None:
            size = session_size(graph, with_diffs=True)
            self._backward.evict_for(size)
            entry = self._make_backward(graph, span, seeds, blobs, held=held)
            self._backward.put(key, entry, size)
        return entry

    def _make_backward(
        self, graph: Graph, span: slice, seeds: Collection[str], blobs: Collection[str], *, held: bool
    ) -> BackwardSession:
        read: set[ParamKey] = set()
        bound = self._params.apply(graph, read.add if self._opens_params else None)
        model = emit_backward(
            bound, span, seeded=seeds, wanted=blobs, open_params=self._opens_params, held=held,
            training_ops=takes_training_ops(self._compute),
        )  # fmt: skip
        session = None
        if model.blobs or model.params:
            session = open_session(model.model, for_gradients(self._compute), python_host=graph.net.python_host)
        noise = {name: shape for name, shape in model.noise.items() if session is not None and name in session.inputs}
        return BackwardSession(session, model, OpenInputs(model.param_inputs, noise, frozenset(read)))


def _as_fed(forward: ForwardPass, blobs: Sequence[str]) -> tuple[Values, Values]:
    """What a pass gives that computes nothing: inputs, and the states as they were."""
    return {blob: forward.feeds[forward.values[blob]] for blob in blobs}, dict(forward.states)
