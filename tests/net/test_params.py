"""What the parameters of a net are now: handed out, changed, shared, copied."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.net_objects import CHAIN, net_objects
from support.small_nets import write_weights

from caffeconv.errors import CaffeconvError, InvalidNetError
from caffeconv.frontend.open_files import read_weights

SHARED = "\n".join(
    f'layer {{ name: "{name}" type: "InnerProduct" bottom: "x" top: "{name}" param {{ name: "w" }} '
    "inner_product_param { num_output: 2 bias_term: false } }"
    for name in "ab"
)
KEY = ("ip", "weight")


def test_layers_with_parameters_have_blobs(tmp_path: Path) -> None:
    params = net_objects(tmp_path).params
    assert list(params) == ["ip"]
    (weight,) = params["ip"]
    assert weight.shape == weight.diff.shape == (2, 3)
    assert params["ip"][0] is weight
    with pytest.raises(KeyError):
        params["double"]


def test_what_is_assigned_is_in_the_graph(tmp_path: Path) -> None:
    net = net_objects(tmp_path)
    net.params["ip"][0].data[0, 0] = 9
    (param,) = next(node for node in net.params.apply(net.loaded.graph).nodes if node.name == "ip").params
    np.testing.assert_array_equal(param.array(), [[9, 2, 2], [2, 2, 2]])


def test_the_version_changes_with_the_values(tmp_path: Path) -> None:
    params = net_objects(tmp_path).params
    params.refresh()
    data = params["ip"][0].data
    params.refresh()
    assert params.version == 0, "reading is no change"
    data += 1
    params.refresh()
    params.refresh()
    assert params.version == 1


def test_layers_that_share_a_parameter_have_one_blob(tmp_path: Path) -> None:
    params = net_objects(tmp_path, SHARED).params
    assert params["a"][0] is params["b"][0]


def test_diffs_add_up_whether_they_were_looked_at_or_not(tmp_path: Path) -> None:
    params = net_objects(tmp_path).params
    ones = np.ones((2, 3), np.float32)
    params.add_diffs({KEY: ones.copy()})
    diff = params["ip"][0].diff
    params.add_diffs({KEY: ones.copy()})
    np.testing.assert_array_equal(diff, 2 * ones)
    params.clear_diffs()
    assert not diff.any()


def test_copying_from_a_file_reaches_what_was_handed_out(tmp_path: Path) -> None:
    net = net_objects(tmp_path)
    data = net.params["ip"][0].data
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    file = read_weights(write_weights(tmp_path / "w.caffemodel", "ip", [values]))
    assert net.params.copy_from(file, net.loaded.graph) == ()
    np.testing.assert_array_equal(data, values)
    assert net.params.version == 1


def test_a_file_that_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    net = net_objects(tmp_path)
    file = read_weights(write_weights(tmp_path / "w.caffemodel", "ip", [np.zeros((5, 5), np.float32)]))
    with pytest.raises(InvalidNetError, match="ip"):
        net.params.copy_from(file, net.loaded.graph)
    assert (net.params["ip"][0].data == 2).all()
    assert net.params.version == 0


def test_two_stores_share_values_and_not_diffs(tmp_path: Path) -> None:
    params, others = net_objects(tmp_path).params, net_objects(tmp_path).params
    params.share_with(others)
    others["ip"][0].data[...] = 7
    assert (params["ip"][0].data == 7).all()
    others["ip"][0].diff[...] = 1
    assert not params["ip"][0].diff.any()


def test_other_shapes_are_not_shared(tmp_path: Path) -> None:
    params = net_objects(tmp_path).params
    others = net_objects(tmp_path, CHAIN.replace("num_output: 2", "num_output: 4")).params
    with pytest.raises(
        CaffeconvError, match=r"'ip'; shape mismatch\.  Source param shape is 4 3 .*; target .* is 2 3 "
    ):
        params.share_with(others)
