"""Blobs that are one memory in Caffe: values, diffs and assignments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.graphs import layer
from support.small_nets import write_net

import caffeconv

BEHIND = (
    layer("a", "Power", "x", "power_param { shift: -3 }")
    + "{sharing}"
    + layer("r", "ReLU", "f", top="f")
    + layer("b", "Power", "a", "power_param { power: 2 shift: 1 }")
    + layer("sum_b", "Reduction", "b", "loss_weight: 1")
    + layer("sum_f", "Reduction", "f", "reduction_param { operation: SUM } loss_weight: 3")
)
SHARING = {
    "Flatten": layer("f", "Flatten", "a"),
    "Reshape": layer("f", "Reshape", "a", "reshape_param { shape { dim: 2 dim: 2 } }"),
    "Concat": layer("f", "Concat", "a"),
    "Slice": layer("f", "Slice", "a"),
    "Split": layer("f", "Split", "a"),
    "two of them": layer("g", "Flatten", "a") + layer("f", "Reshape", "g", "reshape_param { shape { dim: 4 } }"),
}
X = np.array([[1, 2, 3, 4]], np.float32)


def net_of(folder: Path, sharing: str, head: str = "force_backward: true\n") -> caffeconv.Net:
    return caffeconv.Net(write_net(folder, {"x": (1, 4)}, BEHIND.replace("{sharing}", sharing), head))


@pytest.mark.parametrize("sharing", SHARING.values(), ids=SHARING)
def test_in_place_behind(tmp_path: Path, sharing: str) -> None:
    net = net_of(tmp_path, sharing)
    net.forward(x=X)
    net.backward()
    # recorded from Caffe: a is f's memory, and b reads what ReLU left in it
    np.testing.assert_array_equal(net.blobs["a"].data.ravel(), [0, 0, 0, 1])
    np.testing.assert_array_equal(net.blobs["b"].data.ravel(), [1, 1, 1, 4])
    # diffs are none of that memory: b's goes to a as it was, past ReLU
    np.testing.assert_array_equal(net.blobs["f"].diff.ravel(), [0, 0, 0, 3])
    np.testing.assert_array_equal(net.blobs["a"].diff.ravel(), [2, 2, 2, 7])
    np.testing.assert_array_equal(net.blobs["x"].diff.ravel(), [2, 2, 2, 7])


def test_assignments(tmp_path: Path) -> None:
    net = net_of(tmp_path, SHARING["Reshape"])
    net.forward(x=X)
    net.blobs["f"].data[...] = 5
    np.testing.assert_array_equal(net.blobs["a"].data, np.full((1, 4), 5))
    np.testing.assert_array_equal(net.forward(start="b", blobs=["b"])["b"], np.full((1, 4), 36))
    np.testing.assert_array_equal(net.forward(end="a")["a"], X - 3)
    np.testing.assert_array_equal(net.blobs["f"].data, (X - 3).reshape(2, 2))


def test_an_input_is_written_over(tmp_path: Path) -> None:
    layers = layer("f", "Flatten", "x") + layer("r", "ReLU", "f", top="f")
    net = caffeconv.Net(write_net(tmp_path, {"x": (1, 4)}, layers))
    net.forward(x=X - 3)
    np.testing.assert_array_equal(net.blobs["x"].data.ravel(), [0, 0, 0, 1])
    net.blobs["x"].data[...] = 7
    np.testing.assert_array_equal(net.blobs["f"].data, np.full((1, 4), 7))


def test_diffs_that_are_one_memory(tmp_path: Path) -> None:
    layers = layer("a", "Power", "x") + layer("f", "Reshape", "a", "reshape_param { shape { dim: 4 } }")
    net = caffeconv.Net(write_net(tmp_path, {"x": (1, 4)}, layers, "force_backward: true\n"))
    net.forward(x=X)
    net.blobs["a"].diff[...] = 3
    np.testing.assert_array_equal(net.blobs["f"].diff, np.full(4, 3))
    np.testing.assert_array_equal(net.backward()["x"], np.full((1, 4), 3))


def test_several_writes(tmp_path: Path) -> None:
    layers = (
        layer("f", "Flatten", "x") + layer("r", "ReLU", "f", top="f")
        + layer("p", "Power", "f", "power_param { shift: 1 }", top="f")
    )  # fmt: skip
    net = caffeconv.Net(write_net(tmp_path, {"x": (1, 4)}, layers))
    net.forward(x=X - 3)
    np.testing.assert_array_equal(net.blobs["x"].data.ravel(), [1, 1, 1, 2])
    model = caffeconv.convert(tmp_path / "net.prototxt")
    assert [node.name for node in model.graph.node] == ["f", "r", "p/shifted", "p"]


def test_an_output_that_is_written_over_keeps_its_name(tmp_path: Path) -> None:
    layers = (
        layer("a", "Power", "x", "power_param { shift: -3 }") + layer("g", "Flatten", "a") + layer("f", "Flatten", "a")
        + layer("r", "ReLU", "f", top="f")
    )  # fmt: skip
    net = caffeconv.Net(write_net(tmp_path, {"x": (1, 4)}, layers))
    values = net.forward(x=X)
    assert sorted(values) == net.outputs == ["f", "g"]
    np.testing.assert_array_equal(values["g"].ravel(), [0, 0, 0, 1])
    model = caffeconv.convert(tmp_path / "net.prototxt")
    assert [output.name for output in model.graph.output] == ["f", "g"]


def test_what_others_see_of_it(tmp_path: Path) -> None:
    net = net_of(tmp_path, SHARING["Flatten"])
    assert net.layer_names == ["x", "a", "f", "r", "b", "sum_b", "sum_f"]
    assert len(net.layers) == 7
    net.save(tmp_path / "saved.caffemodel")
    assert caffeconv.inspect(tmp_path / "net.prototxt", tmp_path / "saved.caffemodel").ok
    model = caffeconv.convert(tmp_path / "net.prototxt", outputs=["f"])
    assert [node.name for node in model.graph.node][-2:] == ["f", "r"]  # and nothing that nobody reads
    assert "SharedMemory" not in (tmp_path / "saved.caffemodel").read_bytes().decode("latin-1")


def test_a_value_that_nobody_looks_at_is_not_made(tmp_path: Path) -> None:
    """Of sixty blobs in one memory, each written over in turn, every one is made anew once, not sixty times."""
    layers = "".join(
        layer(f"s{i}", "Split", f"s{i - 1}" if i else "x") + layer(f"r{i}", "ReLU", f"s{i}", top=f"s{i}")
        for i in range(60)
    )
    path = write_net(tmp_path, {"x": (1, 4)}, layers)
    assert len(caffeconv.convert(path, outputs="all").graph.node) < 200
    net = caffeconv.Net(path)
    net.forward(x=X - 2)
    for blob in ("s0", "s30", "s59"):
        np.testing.assert_array_equal(net.blobs[blob].data, [[0, 0, 1, 2]])
