"""What a pass was made on."""

from __future__ import annotations

import numpy as np

from caffeconv.net.pass_state import ForwardPass, initial_state


def test_a_pass_writes_what_it_did_not_start_from() -> None:
    forward = ForwardPass(None, {"x": "x_2", "y": "y"}, {"x": np.zeros(1, np.float32)}, {}, 0)
    assert forward.writes("x"), "in place, by a layer"
    assert not ForwardPass(None, {"x": "x"}, {"x": np.zeros(1, np.float32)}, {}, 0).writes("x")


def test_a_state_of_another_shape_starts_from_zeros() -> None:
    states = {"h_in": np.ones((1, 2), np.float32)}
    assert initial_state(states, "h_in", [1, 2]) is states["h_in"]
    for name, dims in (("h_in", [1, 3]), ("c_in", [1, 2])):
        state = initial_state(states, name, dims)
        assert state.shape == tuple(dims)
        assert not state.any()
