"""Sessions of nets whose Python layers may make other shapes in every pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

from caffeconv.conversion.load import Loaded
from caffeconv.conversion.to_onnx import to_onnx
from caffeconv.errors import ShapesChangedError
from caffeconv.frontend.reshape import reshape_graph
from caffeconv.inspection.costs import session_bytes
from caffeconv.ir.graph import Graph
from caffeconv.net.lru import LruCache
from caffeconv.runtime.providers import Provider
from caffeconv.runtime.session import Feed, Session
from caffeconv.tensor.shape import FloatArray, Shape

_MOST_SESSIONS, _MOST_BYTES = 8, 2 << 30


class PlannedSession(Session):
    """A `Session` of a net; where a Python layer makes other shapes than planned, the net is planned anew for these.

    No layer runs twice in a pass for that.
    """

    def __init__(
        self, loaded: Loaded, outputs: Sequence[str], provider: Provider, threads: int | None, *,
        batch: int | Literal["dynamic", "keep"], nhwc: bool, half: bool,
    ) -> None:  # fmt: skip
        code = loaded.net.python_host
        outline = to_onnx(loaded, outputs, batch=batch)
        super().__init__(outline, provider, threads, python_host=code, nhwc=nhwc, half=half)
        self._loaded, self._values = loaded, tuple(outputs)
        self._make = partial(Session, provider=provider, threads=threads, python_host=code, nhwc=nhwc, half=half)
        self._planned: LruCache[Session] = LruCache(_MOST_SESSIONS, _MOST_BYTES)

    def run(
        self, feeds: Mapping[str, Feed], outputs: Sequence[str] | None = None, *, same_pass: bool = False
    ) -> dict[str, FloatArray]:
        feeds = {**self._held, **feeds}
        try:
            return super().run(feeds, outputs, same_pass=same_pass)
        except ShapesChangedError:
            pass
        shapes = {name: values.shape for name, values in feeds.items()}
        for _ in self._loaded.graph.nodes:  # each time one more layer has run
            try:
                return self._for_what_was_made(shapes).run(feeds, outputs, same_pass=True)
            except ShapesChangedError:
                continue
        return self._for_what_was_made(shapes).run(feeds, outputs, same_pass=True)

    def _for_what_was_made(self, shapes: Mapping[str, Shape]) -> Session:
        """A session for the inputs' shapes, and those that Python layers have made in this pass."""
        code = self._loaded.net.python_host
        assert code is not None, "only a Python layer's plan is ever outdated"
        code.learn_shapes()
        graph = reshape_graph(self._loaded.graph, shapes)
        key = (*sorted(shapes.items()), *_made_by_code(graph))
        session = self._planned.get(key)
        if session is None:
            size = session_bytes(graph)
            self._planned.evict_for(size)
            loaded = replace(self._loaded, bound=replace(self._loaded.bound, graph=graph))
            session = self._make(to_onnx(loaded, self._values, batch="keep"))
            self._planned.put(key, session, size)
        return session


def _made_by_code(graph: Graph) -> tuple[object, ...]:
    return tuple((node.top_shapes, node.layer.open_axis) for node in graph.nodes if node.layer.has_dynamic_shapes)
