"""What forward passes leave in a net's blobs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.net_objects import NetObjects, net_objects

from caffeconv.errors import CaffeconvError
from caffeconv.net.forward import Forward

X = np.arange(6, dtype=np.float32).reshape(2, 3)
IP = np.array([[6, 6], [24, 24]], np.float32)
ALL = slice(0, 4)


@pytest.fixture
def net(tmp_path: Path) -> NetObjects:
    return net_objects(tmp_path)


@pytest.fixture
def forward(net: NetObjects) -> Forward:
    return net.forward


def test_before_any_pass_all_is_zero(forward: Forward) -> None:
    assert forward.inputs == ["x"]
    assert list(forward.blobs) == ["x", "ip", "double", "loss"]
    assert forward.value_of("double").shape == forward.shape_of("double") == (2, 2)
    assert not forward.value_of("double").any()


def test_what_was_not_wanted_is_computed_when_it_is_read(net: NetObjects) -> None:
    net.forward.run(ALL, ["double"], {"x": X})
    assert len(net.sessions) == 1
    np.testing.assert_array_equal(net.forward.value_of("double"), 2 * IP)
    assert len(net.sessions) == 1
    np.testing.assert_array_equal(net.forward.value_of("ip"), IP)
    assert len(net.sessions) == 2
    net.forward.run(ALL, ["double"], {"x": X})
    number = len(net.sessions)
    net.forward.value_of("ip")
    assert len(net.sessions) == number, "a blob that was read once comes with each pass"


def test_what_was_not_wanted_is_of_the_inputs_at_the_pass(forward: Forward) -> None:
    forward.run(ALL, ["loss"], {"x": X})
    forward.value_of("x")[...] = 0
    np.testing.assert_array_equal(forward.value_of("ip"), IP)


def test_parameters_that_changed_since_the_pass(net: NetObjects) -> None:
    weight = net.params["ip"][0].data
    net.forward.run(ALL, ["loss"], {"x": X})
    weight += 1
    with pytest.raises(
        CaffeconvError, match=r"'ip' was not computed by the last forward\(\), and parameters have been"
    ):
        net.forward.value_of("ip")


def test_a_part_runs_on_what_the_blobs_hold(forward: Forward) -> None:
    forward.run(ALL, ["ip", "double"], {"x": X})
    forward.value_of("ip")[...] = 5
    forward.run(slice(2, 3), ["double"], {})
    np.testing.assert_array_equal(forward.value_of("double"), np.full((2, 2), 10))
    held = forward.pass_to_go_back()
    assert held.held
    np.testing.assert_array_equal(held.feeds["held/ip"], np.full((2, 2), 5))


def test_another_shape_forgets_what_was_computed(forward: Forward) -> None:
    assert forward.pass_to_go_back().held
    forward.run(ALL, ["double"], {"x": X})
    assert not forward.pass_to_go_back().held
    forward.reshape_input("x", (1, 3))
    assert forward.value_of("double").shape == (1, 2)
    assert forward.pass_to_go_back().held


@pytest.mark.parametrize("shape", [(-1, 3), (1 << 20, 1 << 20)])
def test_shapes_that_no_input_can_have(forward: Forward, shape: tuple[int, ...]) -> None:
    with pytest.raises(CaffeconvError, match="blob 'x' cannot be "):
        forward.reshape_input("x", shape)


def test_layers_one_at_a_time(forward: Forward) -> None:
    calls: list[tuple[str, int]] = []
    forward.before_layer.append(lambda place: calls.append(("before", place)))
    forward.after_layer.append(lambda place: calls.append(("after", place)))
    forward.run(slice(0, 3), ["double"], {"x": X})
    assert calls == [(when, place) for place in range(3) for when in ("before", "after")]
    np.testing.assert_array_equal(forward.value_of("double"), 2 * IP)


def test_a_pass_alone_leaves_the_blobs_as_they_were(forward: Forward) -> None:
    forward.run(ALL, ["double"], {"x": X})
    values = forward.run_alone({"x": X[:1]}, ["double", "x"])
    np.testing.assert_array_equal(values["double"], 2 * IP[:1])
    assert forward.value_of("double").shape == (1, 2)
    assert not forward.value_of("double").any()
    session = forward.session_alone(["double"])
    assert session is not None
    assert list(session.outputs) == ["double"]
    assert forward.session_alone(["x"]) is None
