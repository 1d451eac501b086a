"""A net's graph at the shapes that its inputs have now, and the sessions that run it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from dataclasses import replace

from caffeconv.conversion.load import Loaded
from caffeconv.emit.backward import BackwardModel, emit_backward
from caffeconv.frontend.reshape import input_shapes, reshape_graph
from caffeconv.inspection.costs import session_bytes
from caffeconv.ir.graph import Graph
from caffeconv.net.lru import LruCache
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
from caffeconv.runtime.providers import ComputeOptions
from caffeconv.runtime.session import Session
from caffeconv.tensor.shape import FloatArray, Shape

Values = dict[str, FloatArray]
"""Blob, or value → float32."""


class SessionPool:
    """A net's graph, and sessions that run it with the parameters that it has now."""

    def __init__(self, loaded: Loaded, params: ParamStore, compute: ComputeOptions) -> None:
        self.on_reshape: list[Callable[[], None]] = []
        """Called when the inputs' shapes have changed, and all others with them."""
        self.on_replan: list[Callable[[], None]] = []
        """Called when Python layers have made other shapes than they had said."""
        self._graph = loaded.graph
        self._input_shapes: dict[str, Shape] = input_shapes(loaded.graph)
        self._params = params
        self._params_version = params.version
        self._compute = compute
        self._forward = GraphSessions(loaded, compute, stateful=True)
        self._backward: LruCache[tuple[Session | None, BackwardModel]] = LruCache(MAX_SESSIONS, MAX_SESSION_BYTES)

    def __iter__(self) -> Iterator[Hashable]:
        """(values, span, …) of each session for forward passes, the one used longest ago first."""
        return iter(self._forward)

    def __len__(self) -> int:
        return len(self._forward)

    # -- shapes ----------------------------------------------------------------------------------------------------

    def reshape_input(self, blob: str, shape: Shape) -> None:
        """Gives an input another shape; all others follow when the graph is asked for."""
        self._input_shapes[blob] = shape

    @property
    def graph(self) -> Graph:
        """The graph at the inputs' shapes; InvalidNetError where these do not go together."""
        self.update_shapes()
        return self._graph

    def update_shapes(self) -> None:
        """Makes the graph follow the inputs' shapes; InvalidNetError where these do not go together."""
        if self._input_shapes != input_shapes(self._graph):
            self._graph = reshape_graph(self._graph, self._input_shapes)
            for call in self.on_reshape:
                call()

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
        if self._params.version != self._params_version:
            self._params_version = self._params.version
            self._forward.clear()
            self._backward.clear()

    # -- running ---------------------------------------------------------------------------------------------------

    def run(self, forward: ForwardPass, blobs: Sequence[str]) -> tuple[Values, Values]:
        """The blobs, and the states that this pass leaves, by the input that takes them in the next one."""
        graph = self.graph_of(forward)
        inputs = set(graph.inputs)
        if all(forward.values[blob] in inputs for blob in blobs):
            return {blob: forward.feeds[forward.values[blob]] for blob in blobs}, dict(forward.states)

        def replan_and_run() -> tuple[Values, Values]:
            self._graph = replan(self._graph, self._input_shapes)
            for call in self.on_replan:
                call()
            return self._run(forward, self.graph_of(forward), blobs)

        return run_replanning(lambda: self._run(forward, graph, blobs), replan_and_run, len(graph.nodes))

    def _run(self, forward: ForwardPass, graph: Graph, blobs: Sequence[str]) -> tuple[Values, Values]:
        inputs = set(graph.inputs)
        values = {blob: forward.values[blob] for blob in blobs if forward.values[blob] not in inputs}
        session = self.forward_session(graph, tuple(values.values()), forward.span)
        states = {name: f"{name.removesuffix('_in')}_out" for name in session.inputs if name not in inputs}
        feeds = {name: forward.feeds[name] for name in session.inputs if name in inputs}
        feeds |= {name: initial_state(forward.states, name, session.inputs[name]) for name in states}
        outputs = session.run(feeds, [*values.values(), *states.values()], same_pass=True)
        results = {
            blob: outputs[values[blob]] if blob in values else forward.feeds[forward.values[blob]] for blob in blobs
        }
        return results, {**forward.states, **{name: outputs[output] for name, output in states.items()}}

    def forward_session(self, graph: Graph, values: tuple[str, ...], span: slice | None = None) -> Session:
        """What computes the values of the net's layers, or of those in `span`, which the graph consists of."""
        return self._forward.get(graph, values, span, self._params.apply)

    def backward_session(
        self, span: slice, seeds: Collection[str], blobs: Collection[str]
    ) -> tuple[Session | None, BackwardModel]:
        """The model that runs the layers `span` backward, and a session for it unless it has nothing to give.

        seeds: blobs whose diffs are fed. blobs: whose diffs are wanted, as far as they get any. Raises CaffeconvError as
        `emit_backward`.
        """
        self.drop_outdated()
        graph = self.graph
        key = (span.start, span.stop, tuple(sorted(seeds)), tuple(sorted(blobs)), session_key(graph))
        entry = self._backward.get(key)
        if entry is None:
            size = 2 * session_bytes(graph)  # values and diffs
            self._backward.evict_for(size)
            model = emit_backward(self._params.apply(graph), span, seeded=seeds, wanted=blobs)
            session = None
            if model.blobs or model.params:
                compute = replace(self._compute, half=False)
                session = open_session(model.model, compute, python_host=graph.net.python_host)
            entry = session, model
            self._backward.put(key, entry, size)
        return entry
