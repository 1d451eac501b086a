"""States written and read again, and files that are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import caffeconv.caffe_pb2 as caffe_pb2
from caffeconv.errors import CaffeconvError
from caffeconv.training.solver_state import SolverState, check_history, read_state, write_state

ADAM = Path(__file__).parents[2] / "fixtures" / "solvers" / "adam"


@pytest.mark.parametrize("ending", ["", ".h5"])
@settings(max_examples=10, deadline=None)
@given(
    iteration=st.integers(0, 1 << 30),
    history=st.lists(arrays(np.float32, (2, 3)), max_size=3),
    kept=st.lists(st.dictionaries(st.text("a/é_", min_size=1), arrays(np.float32, (1, 2)), max_size=2), max_size=2),
)
def test_a_state_comes_back(
    tmp_path_factory: pytest.TempPathFactory, ending: str, iteration: int, history: list[np.ndarray],
    kept: list[dict[str, np.ndarray]],
) -> None:  # fmt: skip
    path = tmp_path_factory.mktemp("state") / f"s.solverstate{ending}"
    write_state(path, SolverState(iteration, "w.caffemodel", 4, tuple(history), tuple(kept)))
    state = read_state(path)
    assert (state.iteration, state.learned_net, state.current_step) == (iteration, "w.caffemodel", 4)
    for one, other in zip(state.history, history, strict=True):
        np.testing.assert_array_equal(one, other)
    assert [sorted(states) for states in state.kept_states] == [sorted(states) for states in kept]
    for one_net, other_net in zip(state.kept_states, kept, strict=True):
        for name, values in other_net.items():
            np.testing.assert_array_equal(one_net[name], values)


def test_the_message_is_caffes(tmp_path: Path) -> None:
    write_state(tmp_path / "s.solverstate", read_state(ADAM / "snap_iter_10.solverstate"))
    ours, caffes = (
        caffe_pb2.SolverState.FromString(path.read_bytes())
        for path in (tmp_path / "s.solverstate", ADAM / "snap_iter_10.solverstate")
    )
    assert ours == caffes


@pytest.mark.parametrize("content", [b"\x08", b"\x22\x03abc", b"\x89HDF\r\n\x1a\n"])
def test_files_that_are_no_states(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "s.solverstate"
    path.write_bytes(content)
    with pytest.raises(CaffeconvError, match=r"s\.solverstate: "):
        read_state(path)


def test_a_history_of_another_shape_but_as_many_values_is_taken() -> None:
    state = SolverState(1, "", 0, (np.zeros((2, 3), np.float32),))
    check_history(Path("s"), state, [(6,)])
    with pytest.raises(CaffeconvError, match="history blob 0 has 6 values, the solver's parameter 5"):
        check_history(Path("s"), state, [(5,)])
