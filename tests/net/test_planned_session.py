"""Nets whose Python layers make other shapes than planned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.net_objects import KEEP, KEEP_LAYERS, ON_THE_CPU
from support.small_nets import write_net

from caffeconv.conversion.load import Loaded, load
from caffeconv.errors import ShapesChangedError
from caffeconv.frontend.options import NetOptions
from caffeconv.net.planned_session import GraphSessions, PlannedSession, replan, run_replanning, session_key

X = np.array([[1, 2, 3], [-1, 5, 6]], np.float32)


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    (tmp_path / "keep.py").write_text(KEEP)
    return load(write_net(tmp_path, {"x": (2, 3)}, KEEP_LAYERS), options=NetOptions(allow_python=True))


def failing(times: int) -> Callable[[], str]:
    """What succeeds after so many passes whose shapes were not those planned."""
    attempts: list[str] = []

    def run() -> str:
        attempts.append("")
        if len(attempts) <= times:
            raise ShapesChangedError("other shapes")
        return "outputs"

    return run


def test_a_pass_as_planned_is_not_planned_anew() -> None:
    assert run_replanning(lambda: "outputs", failing(9), 3) == "outputs"


def test_each_layer_may_make_other_shapes_once() -> None:
    assert run_replanning(failing(1), failing(2), 3) == "outputs"
    with pytest.raises(ShapesChangedError):
        run_replanning(failing(1), failing(3), 3)


@pytest.mark.parametrize("batch", [2, "keep", "dynamic"])
def test_rows_known_when_the_layer_has_run(loaded: Loaded, batch: int) -> None:
    session = PlannedSession(loaded, ("double",), ON_THE_CPU, batch=batch)
    for rows in (X, -X, np.abs(X), X):
        np.testing.assert_array_equal(session.run({"x": rows})["double"], 2 * rows[rows[:, 0] > 0])


def test_constants_are_fed_to_each_session(loaded: Loaded) -> None:
    session = PlannedSession(loaded, ("double",), ON_THE_CPU, batch="keep")
    session.bind_constants({"x": X})
    assert session.inputs == {}
    np.testing.assert_array_equal(session.run({})["double"], 2 * X[:1])


def test_a_graph_at_the_shapes_that_were_made_has_a_session_of_its_own(loaded: Loaded) -> None:
    sessions = GraphSessions(loaded, ON_THE_CPU, stateful=False)
    first = sessions.get(loaded.graph, ("double",))
    with pytest.raises(ShapesChangedError):
        first.run({"x": X})
    graph = replan(loaded.graph, {"x": (2, 3)})
    assert graph.shapes["double"] == (1, 3)
    assert session_key(graph) != session_key(loaded.graph)
    second = sessions.get(graph, ("double",))
    assert second is not first
    assert sessions.get(graph, ("double",)) is second
    np.testing.assert_array_equal(second.run({"x": X}, same_pass=True)["double"], 2 * X[:1])
    sessions.clear()
    assert len(sessions) == 0
