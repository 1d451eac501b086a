"""Passes over a part of a net, and what blobs hold after them: as Caffe's ForwardFromTo leaves them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.golden_cases import ROOT, Case, cases, difference, forward, part, runnable
from support.small_nets import write_net

import caffeconv
from caffeconv.net.net import Net

DIGITS = ROOT / "fixtures" / "digits"
X = np.arange(6, dtype=np.float32).reshape(2, 3)
RECORDED = [
    case
    for case in cases("nets", "layers")
    if runnable(case)
    and not (case.steps or case.about.get("random"))
    and case.name.startswith(("nets/", "layers/net_", "layers/bn_", "layers/slice_", "layers/lstm"))
]


def power(name: str, bottom: str, top: str, param: str) -> str:
    return f'layer {{ name: "{name}" type: "Power" bottom: "{bottom}" top: "{top}" power_param {{ {param} }} }}\n'


CHAIN = power("a", "x", "a", "shift: 1") + power("b", "a", "b", "scale: 2") + power("c", "b", "c", "scale: 10")
IN_PLACE = power("a", "x", "a", "shift: 1") + power("twice", "a", "a", "scale: 2") + power("b", "a", "b", "shift: 5")


def net_of(folder: Path, layers: str) -> Net:
    return Net(write_net(folder, {"x": (2, 3)}, layers))


@pytest.fixture
def digits() -> Net:
    return Net(DIGITS / "deploy.prototxt", DIGITS / "digits.caffemodel")


def clean_starts(net: Net) -> list[str]:
    """The layers from which a net can be run again: nothing that they and later ones read is overwritten by them."""
    found = []
    for place, name in enumerate(net.layer_names):
        rest = net.layer_names[place:]
        made: set[str] = set()
        read = set(net.inputs)
        for layer in rest:
            read |= set(net.bottom_names[layer]) - made
            made |= set(net.top_names[layer]) if net.bottom_names[layer] else set()
        if not read & made and not any(kind in layer.lower() for kind in ("lstm", "rnn") for layer in rest):
            found.append(name)
    return found


@pytest.mark.parametrize("case", RECORDED, ids=lambda c: c.name)
def test_from_any_layer_on_the_recorded_blobs_come_out(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(case.folder)
    record = next(case.records())
    net = Net(case.net, case.weights, **case.state)
    for name, values in part(record, "in/").items():
        net.blobs[name].reshape(*values.shape)
    forward(net, part(record, "in/"))
    starts = clean_starts(net)
    for start in starts[:: max(1, len(starts) // 3)]:
        net.forward(start=start)
        wanted = part(record, "blob/")
        assert [d for name, want in wanted.items() if (d := difference(case, name, net.blobs[name].data, want))] == []


def test_start_takes_what_was_assigned(tmp_path: Path) -> None:
    net = net_of(tmp_path, CHAIN)
    net.forward(x=X)
    net.blobs["a"].data[...] = 3
    np.testing.assert_array_equal(net.forward(start="b")["c"], np.full((2, 3), 60))
    np.testing.assert_array_equal(net.blobs["b"].data, np.full((2, 3), 6))
    np.testing.assert_array_equal(net.blobs["a"].data, np.full((2, 3), 3))


def test_start_before_any_forward_takes_zeros(tmp_path: Path) -> None:
    net = net_of(tmp_path, power("a", "x", "a", "shift: 1") + power("b", "a", "b", "shift: 7"))
    np.testing.assert_array_equal(net.forward(start="b")["b"], np.full((2, 3), 7))


def test_blobs_beyond_the_end_keep_what_they_held(tmp_path: Path) -> None:
    net = net_of(tmp_path, CHAIN)
    net.forward(x=X)
    assert net.forward(end="b", x=X + 100).keys() == {"b"}
    np.testing.assert_array_equal(net.blobs["c"].data, (X + 1) * 20)
    np.testing.assert_array_equal(net.blobs["a"].data, X + 101)


def test_a_blob_nobody_asked_for_is_that_of_its_own_pass(tmp_path: Path) -> None:
    net = net_of(tmp_path, CHAIN)
    net.forward(x=X)
    net.blobs["x"].data[...] = -1
    net.forward(start="c")
    np.testing.assert_array_equal(net.blobs["a"].data, X + 1)
    np.testing.assert_array_equal(net.blobs["b"].data, (X + 1) * 2)


def test_an_assigned_blob_outlives_the_reading_of_others(tmp_path: Path) -> None:
    net = net_of(tmp_path, CHAIN)
    net.forward(x=X)
    net.blobs["a"].data[...] = 3
    np.testing.assert_array_equal(net.blobs["b"].data, (X + 1) * 2)
    np.testing.assert_array_equal(net.blobs["a"].data, np.full((2, 3), 3))


def test_end_before_a_layer_in_place(tmp_path: Path) -> None:
    net = net_of(tmp_path, IN_PLACE)
    np.testing.assert_array_equal(net.forward(end="a", x=X)["a"], X + 1)
    np.testing.assert_array_equal(net.forward(start="twice", end="twice")["a"], (X + 1) * 2)
    np.testing.assert_array_equal(net.forward(start="twice")["b"], (X + 1) * 4 + 5)
    np.testing.assert_array_equal(net.forward(x=X)["b"], (X + 1) * 2 + 5)


def test_start_after_the_end_runs_nothing(tmp_path: Path) -> None:
    net = net_of(tmp_path, CHAIN)
    net.forward(x=X)
    net.blobs["x"].data[...] = 5
    np.testing.assert_array_equal(net.forward(start="c", end="a")["a"], X + 1)


def test_start_at_the_first_layer_that_is_no_input_goes_backward(tmp_path: Path) -> None:
    net = Net(write_net(tmp_path, {"x": (2, 3)}, CHAIN, "force_backward: true\n"))
    net.blobs["x"].data[...] = X
    net.forward(start="a")
    np.testing.assert_array_equal(net.backward(c=np.ones((2, 3)))["x"], np.full((2, 3), 20))
    net.forward(start="b")
    np.testing.assert_array_equal(net.backward(c=np.ones((2, 3)))["x"], np.full((2, 3), 20))


SQUARE = """
layer { name: "h" type: "Power" bottom: "x" top: "h" power_param { scale: 3 } }
layer { name: "y" type: "Power" bottom: "h" top: "y" power_param { power: 2 } }
"""


def test_backward_before_any_forward_runs_on_what_the_blobs_hold(tmp_path: Path) -> None:
    net = Net(write_net(tmp_path, {"x": (2, 3)}, SQUARE, "force_backward: true\n"))
    net.blobs["x"].data[...] = X
    net.blobs["y"].diff[...] = 1
    np.testing.assert_array_equal(net.backward()["x"], np.zeros((2, 3)))  # h holds 0 until something runs
    net.blobs["h"].data[...] = 5
    np.testing.assert_array_equal(net.backward()["x"], np.full((2, 3), 30))


def test_backward_after_a_part_runs_on_what_the_blobs_hold(tmp_path: Path) -> None:
    net = Net(write_net(tmp_path, {"x": (2, 3)}, SQUARE, "force_backward: true\n"))
    net.forward(x=X)
    net.blobs["h"].data[...] = 7
    net.forward(start="y")
    np.testing.assert_array_equal(net.backward(y=np.ones((2, 3)))["x"], np.full((2, 3), 42))
    assert net.blobs["y"].data.item(0) == 49


@pytest.mark.parametrize("given", [X, {"x": X}])
def test_arrays_by_position_are_told_where_they_belong(tmp_path: Path, given: object) -> None:
    net = net_of(tmp_path, CHAIN)
    with pytest.raises(caffeconv.CaffeconvError, match=r"given by their blobs' names: forward\(data=array\)"):
        net.forward(given)  # type: ignore[arg-type]


def test_start_with_another_shape_of_what_lies_before(tmp_path: Path) -> None:
    net = net_of(tmp_path, CHAIN)
    net.forward(x=X)
    net.forward(x=np.ones((5, 3)))
    assert net.forward(start="b")["c"].shape == (5, 3)


def test_data_layers_before_the_start_do_not_read(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["x"] = np.arange(4, dtype=np.float32).reshape(4, 1)
    (tmp_path / "list.txt").write_text(f"{tmp_path / 'data.h5'}\n")
    source = f'hdf5_data_param {{ source: "{tmp_path / "list.txt"}" batch_size: 1 }}'
    net = Net(write_net(tmp_path, {}, f'layer {{ name: "d" type: "HDF5Data" top: "x" {source} }}\n' + CHAIN))
    assert [float(net.forward()["c"].squeeze()) for _ in range(2)] == [20, 40]
    assert [float(net.forward(start="a")["c"].squeeze()) for _ in range(2)] == [40, 40]
    assert float(net.forward()["c"].squeeze()) == 60


def test_only_what_is_asked_for_is_computed(digits: Net) -> None:
    sessions = digits._sessions

    def made() -> list[object]:
        """The blobs that each session gives."""
        return [key[0] for key in sessions if isinstance(key, tuple)]

    digits.forward(data=np.ones((1, 1, 28, 28)))
    assert made() == [("prob",)]
    digits.blobs["ip1"].data  # noqa: B018 - reading it is what computes it
    assert made() == [("prob",), ("ip1",)]
    digits.forward()
    assert made()[-1] == ("prob", "ip1")
    number = len(sessions)
    digits.blobs["ip1"].data  # noqa: B018
    assert len(sessions) == number


def test_reading_every_blob_takes_two_passes(digits: Net) -> None:
    digits.forward(data=np.ones((1, 1, 28, 28)))
    number = len(digits._sessions)
    assert all(np.isfinite(blob.data).all() for blob in digits.blobs.values())
    assert len(digits._sessions) == number + 2


def test_what_was_read_is_that_of_the_last_pass(tmp_path: Path) -> None:
    net = net_of(tmp_path, CHAIN + power("d", "c", "d", "scale: 1"))
    for x in (X, X + 5, X * 3):
        net.forward(x=x)
        # the third of them comes with the second, and is not asked for by the next pass
        for blob, want in {"a": x + 1, "b": (x + 1) * 2, "c": (x + 1) * 20}.items():
            np.testing.assert_array_equal(net.blobs[blob].data, want)


def test_running_a_part_again_needs_nothing_new(digits: Net) -> None:
    digits.forward(data=np.ones((1, 1, 28, 28)))
    digits.forward(start="conv2")
    number = len(digits._sessions)
    digits.forward(start="conv2")
    assert len(digits._sessions) == number


def test_python_layers_and_a_pass_over_a_part(tmp_path: Path) -> None:
    """What an earlier pass of a Python layer led to is kept, although the layer has run again."""
    (tmp_path / "counting.py").write_text(COUNT)
    python = 'type: "Python" python_param { module: "counting" layer: "Count" }'
    layers = f'layer {{ name: "n" bottom: "x" top: "n" {python} }}\n' + power("t", "n", "t", "scale: 2")
    layers += power("u", "t", "u", "scale: 5") + power("v", "u", "v", "scale: 1")
    net = Net(write_net(tmp_path, {"x": (1,)}, layers), allow_python=True)
    assert float(net.forward()["v"][0]) == 10
    assert float(net.forward(start="n", end="n")["n"][0]) == 2
    assert {name: float(net.blobs[name].data[0]) for name in "tuv"} == {"t": 2, "u": 10, "v": 10}
    assert float(net.forward(start="t", end="u")["u"][0]) == 20
    assert {name: float(net.blobs[name].data[0]) for name in "ntuv"} == {"n": 2, "t": 4, "u": 20, "v": 10}


COUNT = """
import caffe


class Count(caffe.Layer):
    def setup(self, bottom, top):
        self.count = 0

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        self.count += 1
        top[0].data[...] = self.count
"""


def test_a_blob_read_after_surgery_is_refused_where_it_cannot_be_known(digits: Net) -> None:
    digits.forward(data=np.ones((1, 1, 28, 28)))
    digits.params["conv1"][0].data[...] = 0
    with pytest.raises(caffeconv.CaffeconvError, match=r"'conv1' was not computed by the last forward\(\)"):
        digits.blobs["conv1"].data  # noqa: B018
    assert np.ptp(digits.forward(blobs=["conv1"])["conv1"][0, 0]) == 0


def test_an_array_in_hand_stays_the_inputs_own(digits: Net) -> None:
    held = digits.blobs["data"].data
    digits.forward(data=np.full((1, 1, 28, 28), 9))
    assert held[0, 0, 0, 0] == 9
    held[...] = 0
    np.testing.assert_array_equal(digits.forward()["prob"], digits.forward(data=np.zeros((1, 1, 28, 28)))["prob"])


def test_an_input_overwritten_in_place_goes_on_from_there(tmp_path: Path) -> None:
    net = net_of(tmp_path, power("p", "x", "x", "shift: 1") + power("y", "x", "y", "scale: 1"))
    net.blobs["x"].data[...] = X
    net.forward()
    np.testing.assert_array_equal(net.forward()["y"], X + 2)


def test_callbacks_run_the_layers_one_at_a_time(digits: Net) -> None:
    x = np.random.default_rng(0).random((1, 1, 28, 28)).astype(np.float32) * 255
    whole = digits.forward(data=x)["prob"].copy()
    seen: list[tuple[str, int]] = []
    digits.before_forward(lambda i: seen.append(("before", i)))
    digits.after_forward(lambda i: seen.append(("after", i)))
    np.testing.assert_allclose(digits.forward(data=x)["prob"], whole, rtol=1e-5, atol=1e-7)
    assert seen == [(when, i) for i in range(10) for when in ("before", "after")]
    pool = digits.layer_names.index("pool1")
    digits.before_forward(lambda i: digits.blobs["conv1"].data.fill(0) if i == pool else None)
    changed = digits.forward(data=x)["prob"].copy()
    assert not digits.blobs["pool1"].data.any()
    assert not np.allclose(changed, whole)


def test_unknown_layers(digits: Net) -> None:
    for arguments in ({"start": "nope"}, {"end": "nope"}):
        with pytest.raises(caffeconv.CaffeconvError, match="the net has no layer 'nope'"):
            digits.forward(**arguments)
