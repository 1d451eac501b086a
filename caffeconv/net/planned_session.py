"""Sessions of nets whose Python layers may make other shapes in every pass."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeVar

from caffeconv.conversion.load import Loaded
from caffeconv.conversion.to_onnx import to_onnx
from caffeconv.errors import ShapesChangedError
from caffeconv.frontend.reshape import input_shapes, reshape_graph
from caffeconv.ir.graph import Graph
from caffeconv.net.lru import LruCache
from caffeconv.net.memory import session_size
from caffeconv.net.open_session import finish_model, open_session
from caffeconv.runtime.providers import ComputeOptions
from caffeconv.runtime.session import Feed, Session
from caffeconv.tensor.shape import FloatArray, Shape

Result = TypeVar("Result")
MAX_SESSIONS = 8
MAX_SESSION_BYTES = 2 << 30
"""What the sessions of a net may hold together, by `session_size`; the newest is kept whatever it holds."""


def run_replanning(run: Callable[[], Result], replan_and_run: Callable[[], Result], layers: int) -> Result:
    """What `run` gives; where Python layers make other shapes than planned, what `replan_and_run` gives.

    layers: of the net. Whenever one makes other shapes, one more of them has run, so that many attempts are enough.
    """
    attempt = run
    for _ in range(layers):
        try:
            return attempt()
        except ShapesChangedError:
            attempt = replan_and_run
    return attempt()


def replan(graph: Graph, shapes: Mapping[str, Shape]) -> Graph:
    """The graph at its inputs' shapes (blob → shape), and at those that Python layers have made in this pass."""
    host = graph.net.python_host
    assert host is not None, "only a Python layer's plan is ever outdated"
    host.learn_shapes()
    return reshape_graph(graph, shapes)


def session_key(graph: Graph) -> tuple[object, ...]:
    """What a session is made for: its inputs' shapes, and what the user's code decides."""
    code = ((node.top_shapes, node.layer.open_axis) for node in graph.nodes if node.layer.has_dynamic_shapes)
    return (*sorted(input_shapes(graph).items()), *code)


class GraphSessions:
    """A net's sessions: graph and values → session. Those that were used last are there, as far as memory allows.

    stateful: whether recurrent layers take and give their states.
    """

    def __init__(self, loaded: Loaded, compute: ComputeOptions, *, stateful: bool) -> None:
        self._loaded = loaded
        self._compute = compute
        self._stateful = stateful
        self._sessions: LruCache[Session] = LruCache(MAX_SESSIONS, MAX_SESSION_BYTES)

    def get(
        self, graph: Graph, values: tuple[str, ...], span: slice | None = None,
        with_params: Callable[[Graph], Graph] | None = None,
    ) -> Session:  # fmt: skip
        """The session that gives `values`, for these very shapes.

        span: which of the net's layers the graph has; None: all. with_params: puts in the parameters' values, where they
        are not those in the graph.
        """
        key = (values, span and (span.start, span.stop), session_key(graph))
        session = self._sessions.get(key)
        if session is None:
            size = session_size(graph)
            self._sessions.evict_for(size)
            graph = graph if with_params is None else with_params(graph)
            loaded = replace(self._loaded, bound=replace(self._loaded.bound, graph=graph))
            model = to_onnx(loaded, values, batch="keep", stateful=self._stateful)
            session = open_session(model, self._compute, python_host=graph.net.python_host)
            self._sessions.put(key, session, size)
        return session

    def clear(self) -> None:
        self._sessions.clear()

    def __iter__(self) -> Iterator[Hashable]:
        """(values, span, …) of each session, the one used longest ago first."""
        return iter(self._sessions)

    def __len__(self) -> int:
        return len(self._sessions)


class PlannedSession(Session):
    """A `Session` of a net; where a Python layer makes other shapes than planned, the net is planned anew for these.

    No layer runs twice in a pass for that.
    """

    def __init__(
        self, loaded: Loaded, outputs: Sequence[str], compute: ComputeOptions, *,
        batch: int | Literal["dynamic", "keep"],
    ) -> None:  # fmt: skip
        super().__init__(
            finish_model(to_onnx(loaded, outputs, batch=batch), compute), compute.provider, compute.threads,
            python_host=loaded.net.python_host, nhwc=compute.nhwc, needs_cuda=compute.half,
        )  # fmt: skip
        self._graph = loaded.graph
        self._values = tuple(outputs)
        self._sessions = GraphSessions(loaded, compute, stateful=False)

    def run(
        self, feeds: Mapping[str, Feed], outputs: Sequence[str] | None = None, *, same_pass: bool = False
    ) -> dict[str, FloatArray]:
        feeds = {**self._constants, **feeds}
        shapes = {name: values.shape for name, values in feeds.items()}
        run = super().run

        def replan_and_run() -> dict[str, FloatArray]:
            session = self._sessions.get(replan(self._graph, shapes), self._values)
            return session.run(feeds, outputs, same_pass=True)

        return run_replanning(
            lambda: run(feeds, outputs, same_pass=same_pass), replan_and_run, len(self._graph.nodes)
        )  # fmt: skip
