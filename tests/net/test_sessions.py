"""The graph at the inputs' shapes, and which sessions run it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.net_objects import KEEP, KEEP_LAYERS, NetObjects, net_objects

from caffeconv.errors import InvalidNetError
from caffeconv.net.pass_state import ForwardPass
from caffeconv.passes.subgraph import last_writes
from caffeconv.tensor.shape import FloatArray


@pytest.fixture
def net(tmp_path: Path) -> NetObjects:
    return net_objects(tmp_path)


def whole_pass(net: NetObjects, x: FloatArray) -> ForwardPass:
    return ForwardPass(None, last_writes(net.sessions.graph.nodes), {"x": x}, {}, net.sessions.params_version)


def test_shapes_follow_when_the_graph_is_asked_for(net: NetObjects) -> None:
    calls: list[str] = []
    net.sessions.on_reshape.append(lambda: calls.append("reshape"))
    net.sessions.reshape_input("x", (5, 3))
    assert calls == []
    assert net.sessions.graph.shapes["double"] == (5, 2)
    assert net.sessions.graph.shapes["ip"] == (5, 2)
    assert calls == ["reshape"]


def test_shapes_that_do_not_go_together(net: NetObjects) -> None:
    net.sessions.reshape_input("x", (2, 4))
    with pytest.raises(InvalidNetError, match="ip"):
        net.sessions.update_shapes()
    net.sessions.reshape_input("x", (2, 3))
    net.sessions.update_shapes()


def test_one_session_for_the_same_values_and_shapes(net: NetObjects) -> None:
    sessions = net.sessions
    first = sessions.forward_session(sessions.graph, ("double",))
    assert sessions.forward_session(sessions.graph, ("double",)) is first
    assert sessions.forward_session(sessions.graph, ("ip",)) is not first
    sessions.reshape_input("x", (1, 3))
    assert sessions.forward_session(sessions.graph, ("double",)) is not first
    assert len(sessions) == 3


def test_sessions_for_other_parameters_are_dropped(net: NetObjects) -> None:
    sessions = net.sessions
    weight = net.params["ip"][0].data
    session = sessions.forward_session(sessions.graph, ("ip",))
    sessions.drop_outdated()
    assert sessions.forward_session(sessions.graph, ("ip",)) is session
    weight[...] = 1
    sessions.drop_outdated()
    assert len(sessions) == 0
    values, _ = sessions.run(whole_pass(net, np.ones((2, 3), np.float32)), ["ip"])
    np.testing.assert_array_equal(values["ip"], [[3, 3], [3, 3]])


def test_inputs_alone_need_no_session(net: NetObjects) -> None:
    x = np.ones((2, 3), np.float32)
    values, states = net.sessions.run(whole_pass(net, x), ["x"])
    assert values["x"] is x
    assert states == {}
    assert len(net.sessions) == 0


def test_backward_models_without_anything_to_give_have_no_session(net: NetObjects) -> None:
    entry = net.sessions.backward_session(slice(3, 4), (), ["ip"])
    assert entry.session is None
    assert entry.model.reached == {"double"}
    entry = net.sessions.backward_session(slice(0, 4), (), ["ip"])
    assert entry.session is not None
    assert list(entry.model.blobs) == ["ip"]
    assert net.sessions.backward_session(slice(0, 4), (), ["ip"]) is entry


def test_shapes_that_python_layers_make_are_planned_anew(tmp_path: Path) -> None:
    (tmp_path / "keep.py").write_text(KEEP)
    net = net_objects(tmp_path, KEEP_LAYERS)
    calls: list[str] = []
    net.sessions.on_replan.append(lambda: calls.append("replan"))
    x = np.array([[1, 2, 3], [-1, 5, 6]], np.float32)
    values, _ = net.sessions.run(whole_pass(net, x), ["double"])
    np.testing.assert_array_equal(values["double"], [[2, 4, 6]])
    assert calls
    assert net.sessions.graph.shapes["rows"] == (1, 3)
