"""Whole runs against BVLC Caffe's: parameters, outputs, rates, histories, tests, the log, resumed runs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from support.small_nets import Array

from caffeconv import caffe_pb2
from caffeconv.errors import CaffeconvError
from caffeconv.net.net import Net
from caffeconv.runtime.providers import ComputeOptions
from caffeconv.training.events import Event, Iteration, NetTest, log_lines
from caffeconv.training.solver import Action, Solver
from caffeconv.training.solver_file import read_solver
from caffeconv.training.solver_state import read_state, write_state

CASES = Path(__file__).parents[2] / "fixtures" / "solvers"
RUNS = sorted(path.parent.name for path in CASES.glob("*/trace.npz"))
CPU = ComputeOptions("cpu", 1, nhwc=False, half=False)


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Copies a case to where the test runs, and goes there."""

    def copy(name: str) -> Path:
        shutil.copytree(CASES / name, tmp_path, dirs_exist_ok=True)
        monkeypatch.chdir(tmp_path)
        return tmp_path

    return copy


def solver_of(
    folder: Path, events: list[Event] | None = None, action: Callable[[], Action | None] = lambda: None
) -> Solver[Net]:  # fmt: skip
    info = json.loads((folder / "case.json").read_text())
    solver = Solver(
        read_solver(folder / "solver.prototxt"),
        lambda source, options: Net.of_source(source, options, CPU),
        (lambda event: None) if events is None else events.append,
        action,
    )
    if not info.get("weights_by_solver") and (folder / "init.caffemodel").exists():
        solver.net.copy_from("init.caffemodel")
    if info.get("inputs"):
        arrays = dict(np.load("inputs.npz"))
        if info["inputs"] == "blobs":
            for blob, values in arrays.items():
                solver.net.blobs[blob].data[...] = values
        else:
            solver.net.set_input_arrays(arrays["data"], arrays["label"])
    return solver


def assert_close(actual: Array, expected: Array, what: str) -> None:
    scale = max(1e-3, float(np.nanmax(np.abs(expected), initial=0)))
    np.testing.assert_allclose(actual, expected, 2e-4, 2e-5 * scale, err_msg=what)


def params_in(trace: dict[str, Array], start: str = "param/") -> Iterator[tuple[str, int, Array]]:
    for name, values in trace.items():
        if name.startswith(start):
            layer, _, index = name.removeprefix(start).rpartition("/")
            yield layer, int(index), values


@pytest.mark.parametrize("name", RUNS)
def test_every_iteration_is_caffes(name: str, case: Callable[[str], Path]) -> None:
    folder = case(name)
    info, trace = json.loads((folder / "case.json").read_text()), dict(np.load(folder / "trace.npz"))
    solver = solver_of(folder)
    last = info["iters"]
    for iteration in range(last):
        assert solver.lr == pytest.approx(trace["lr"][iteration], rel=1e-6)
        solver.step(1)
        for layer, index, values in params_in(trace):
            assert_close(solver.net.params[layer][index].data, values[iteration + 1], f"{layer} {iteration}")
        for blob in info["outputs"]:
            assert_close(solver.net.blobs[blob].data, trace[f"out/{blob}"][iteration], f"{blob} {iteration}")
        if iteration in (0, last - 1):
            for layer, index, update in params_in(trace, f"update/{iteration + 1}/"):
                assert_close(solver.net.params[layer][index].diff, update, f"what {layer} {index} was changed by")
    state = read_state(Path(solver.snapshot().state))
    assert (state.iteration, state.current_step) == (last, trace["current_step"])
    for i, values in enumerate(state.history):
        assert_close(values, trace[f"history/{i}"], f"history {i}")


@pytest.mark.parametrize(
    "name", ["sgd_momentum_decay", "average_loss", "test_net", "bn_test_net", "resume", "iter_size_3"]
)
def test_the_log_is_caffes(name: str, case: Callable[[str], Path]) -> None:
    folder, events = case(name), list[Event]()
    solver_of(folder, events).solve()
    lines = [f"I {line.source.split(':')[0]}] {line.text}" for event in events for line in log_lines(event)]
    ours = [re.sub(r"\(.* iter/s, .*s/", "(* iter/s, *s/", line) for line in lines]
    caffes = [
        line for line in (folder / "train.log").read_text().splitlines()
        if "caffe.cpp" not in line and "Finetuning" not in line
    ]  # fmt: skip
    for line, expected in zip(ours, caffes, strict=True):
        words, expected_words = line.split(), expected.split()
        assert len(words) == len(expected_words), (line, expected)
        for word, expected_word in zip(words, expected_words, strict=True):
            if word != expected_word:  # six digits of numbers that agree up to rounding
                assert float(word.strip("(),")) == pytest.approx(float(expected_word.strip("(),")), rel=2e-3), line


@pytest.mark.parametrize("name", ["resume", "resume_adadelta"])
def test_a_resumed_run_goes_on_from_caffes_state(name: str, case: Callable[[str], Path]) -> None:
    folder = case(name)
    trace = dict(np.load(folder / "trace.npz"))
    solver = solver_of(folder)
    solver.restore("snap_iter_5.solverstate")
    solver.step(5)
    for layer, index, values in params_in(trace):
        resumed = trace.get(f"resumed/param/{layer}/{index}")
        assert_close(solver.net.params[layer][index].data, (values if resumed is None else resumed)[-1], layer)


@pytest.mark.parametrize("name", ["adam", "bn_scale"])
@pytest.mark.parametrize("ending", ["", ".h5"])
def test_caffes_own_snapshots_are_read(name: str, ending: str, case: Callable[[str], Path]) -> None:
    folder = case(name)
    trace = dict(np.load(folder / "trace.npz"))
    solver = solver_of(folder)
    solver.restore(f"snap_iter_10.solverstate{ending}")
    assert solver.iter == 10
    for layer, index, values in params_in(trace):
        np.testing.assert_allclose(solver.net.params[layer][index].data, values[-1], 1e-6)


def test_with_data_sought_a_resumed_run_equals_one_without_a_break(case: Callable[[str], Path]) -> None:
    folder = case("lmdb")
    whole = solver_of(folder)
    whole.step(7)
    whole.snapshot()
    whole.step(3)
    resumed = solver_of(folder)
    resumed.restore("snap_iter_7.solverstate")
    resumed.seek_data()
    resumed.step(3)
    for layer, blobs in whole.net.params.items():
        for one, other in zip(blobs, resumed.net.params[layer], strict=True):
            np.testing.assert_array_equal(one.data, other.data)


RECURRENT = """
net_param {
  layer { name: "data" type: "DummyData" top: "x" top: "go_on" top: "wanted"
    dummy_data_param { shape { dim: 2 dim: 3 dim: 4 } shape { dim: 2 dim: 3 } shape { dim: 2 dim: 3 dim: 5 }
      data_filler { value: 0.5 } data_filler { value: 1 } data_filler { value: 0.25 } } }
  layer { name: "lstm" type: "LSTM" bottom: "x" bottom: "go_on" top: "y"
    recurrent_param { num_output: 5 weight_filler { type: "gaussian" std: 0.5 } } }
  layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "wanted" top: "loss" } }
base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 snapshot_prefix: "snap" random_seed: 1 max_iter: 10 solver_mode: CPU
"""


def recurrent_solver(folder: Path, more: str = "") -> Solver[Net]:
    (folder / "solver.prototxt").write_text(RECURRENT + more)
    file = read_solver(folder / "solver.prototxt")
    return Solver(file, lambda source, options: Net.of_source(source, options, CPU))


@pytest.mark.parametrize("ending", ["", ".h5"])
def test_a_resumed_run_has_what_layers_keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    monkeypatch.chdir(tmp_path)
    whole, resumed, restarted = (
        recurrent_solver(tmp_path, "snapshot_format: HDF5" if ending else "") for _ in range(3)
    )
    whole.step(4)
    whole.snapshot()
    whole.step(3)
    for solver in (resumed, restarted):
        solver.restore(f"snap_iter_4.solverstate{ending}")
    resumed.seek_data()
    for solver in (resumed, restarted):
        solver.step(3)
    weights = [solver.net.params["lstm"][0].data for solver in (whole, resumed, restarted)]
    np.testing.assert_array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2]), "as in Caffe, where a resumed run begins anew"


def test_a_state_of_caffe_does_not_say_what_layers_keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    solver = recurrent_solver(tmp_path)
    solver.step(1)
    solver.snapshot()
    state = read_state(Path("snap_iter_1.solverstate"))
    write_state(Path("caffe.solverstate"), replace(state, kept_states=()))
    solver.restore("caffe.solverstate")
    with pytest.raises(
        CaffeconvError, match="layers that keep a state from pass to pass, and the snapshot does not hold"
    ):
        solver.seek_data()


def test_arrays_that_were_handed_out_stay_the_parameters_own(case: Callable[[str], Path]) -> None:
    solver, other = solver_of(case("sgd_momentum_decay")), solver_of(case("sgd_momentum_decay"))
    layer = next(iter(solver.net.params))
    held = solver.net.params[layer][0].data
    solver.step(3)
    other.step(3)
    assert held is solver.net.params[layer][0].data
    np.testing.assert_array_equal(held, other.net.params[layer][0].data)
    held[...] = 0
    solver.step(1)
    assert not np.array_equal(held, other.net.params[layer][0].data)


def test_blobs_and_diffs_between_steps_are_those_of_the_last_pass(case: Callable[[str], Path]) -> None:
    folder = case("sgd_plain")
    solver, other = solver_of(folder), solver_of(folder)
    blobs = list(solver.net.blobs)
    solver.step(2)
    other.step(1)
    other.net.forward()
    other.net.backward()
    for blob in blobs:
        np.testing.assert_allclose(solver.net.blobs[blob].data, other.net.blobs[blob].data, 1e-5, 1e-6, err_msg=blob)
        np.testing.assert_allclose(solver.net.blobs[blob].diff, other.net.blobs[blob].diff, 1e-5, 1e-6, err_msg=blob)


def test_a_stop_ends_after_the_iteration_with_a_snapshot(case: Callable[[str], Path]) -> None:
    folder, events = case("sgd_plain"), list[Event]()
    solver = solver_of(folder, events, lambda: "stop" if sum(isinstance(e, Iteration) for e in events) == 4 else None)
    solver.solve()
    assert solver.iter == 4
    assert solver.stopped
    assert (folder / "snap_iter_4.solverstate").exists()


@pytest.mark.parametrize("name", ["sgd_momentum_decay", "shared_params", "adam"])
def test_a_snapshot_with_diffs_holds_the_last_update(name: str, case: Callable[[str], Path]) -> None:
    folder = case(name)
    with (folder / "solver.prototxt").open("a") as file:
        file.write("snapshot_diff: true")
    solver = solver_of(folder)
    solver.solve()
    weights = caffe_pb2.NetParameter.FromString((folder / f"snap_iter_{solver.iter}.caffemodel").read_bytes())
    layers = {layer.name: layer.blobs for layer in weights.layer}
    solver.net.save_hdf5("diffs.caffemodel.h5", diffs=True)
    updates = list(params_in(dict(np.load(folder / "trace.npz")), f"update/{solver.iter}/"))
    assert updates
    with h5py.File("diffs.caffemodel.h5") as file:
        for layer, index, update in updates:
            blob = layers[layer][index]
            assert_close(np.reshape(blob.diff, blob.shape.dim), update, f"{layer} {index}")
            assert_close(file[f"diff/{layer}/{index}"][()], update, f"{layer} {index}")
    Net("net.prototxt", "diffs.caffemodel.h5")


def test_callbacks_may_change_gradients(case: Callable[[str], Path]) -> None:
    solver = solver_of(case("sgd_plain"))
    before = {layer: blobs[0].data.copy() for layer, blobs in solver.net.params.items()}
    calls: list[str] = []

    def forget() -> None:
        calls.append("gradients")
        for blobs in solver.net.params.values():
            for blob in blobs:
                blob.diff[...] = 0

    solver.add_callback(lambda: calls.append("start"), forget)
    solver.step(1)
    assert calls == ["start", "gradients"]
    for layer, values in before.items():
        np.testing.assert_array_equal(solver.net.params[layer][0].data, values)


def test_one_update_by_hand_is_one_step(case: Callable[[str], Path]) -> None:
    folder = case("sgd_momentum_decay")
    solver, other = solver_of(folder), solver_of(folder)
    solver.step(1)
    other.net.forward()
    other.net.backward()
    other.apply_update()
    for layer, blobs in solver.net.params.items():
        np.testing.assert_allclose(other.net.params[layer][0].data, blobs[0].data, 1e-6)


def test_passes_of_an_iteration_equal_one_of_larger_batches(case: Callable[[str], Path]) -> None:
    folder = case("sgd_plain")
    text = (folder / "net.prototxt").read_text()
    batch = int(re.search(r"batch_size: (\d+)", text)[1])  # type: ignore[index]
    single = solver_of(folder)
    (folder / "net.prototxt").write_text(text.replace(f"batch_size: {batch}", "batch_size: 1"))
    solver = solver_of(folder)
    many = Solver(
        replace(solver.file, iter_size=batch), lambda source, options: Net.of_source(source, options, CPU)
    )  # fmt: skip
    many.net.copy_from("init.caffemodel")
    for each in (single, many):
        each.step(2)
    for layer, blobs in single.net.params.items():
        np.testing.assert_allclose(many.net.params[layer][0].data, blobs[0].data, 1e-4, 1e-6)


def test_a_state_of_another_net_changes_nothing(case: Callable[[str], Path]) -> None:
    solver = solver_of(case("sgd_plain"))
    shutil.copytree(CASES / "adam", "other")
    with pytest.raises(CaffeconvError, match=r"history blobs, the solver has .*Incorrect length of history blobs"):
        solver.restore("other/snap_iter_10.solverstate")
    assert solver.iter == 0


def test_tests_share_the_parameters(case: Callable[[str], Path]) -> None:
    events = list[Event]()
    solver = solver_of(case("test_net"), events)
    solver.step(5)
    assert [event.iteration for event in events if isinstance(event, NetTest)] == [4]
    layer = next(iter(solver.net.params))
    assert solver.test_nets[0].params[layer][0].data is solver.net.params[layer][0].data
