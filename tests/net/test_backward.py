"""Which gradients a backward pass leaves, and those that are computed when they are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.net_objects import CHAIN, NetObjects, net_objects

from caffeconv.errors import CaffeconvError

X = np.arange(6, dtype=np.float32).reshape(2, 3)
ALL = slice(0, 4)


@pytest.fixture
def net(tmp_path: Path) -> NetObjects:
    """After a forward pass."""
    net = net_objects(tmp_path)
    net.forward.run(ALL, ["loss"], {"x": X})
    return net


def run(net: NetObjects, *wanted: str, span: slice = ALL, **top_diffs: float) -> None:
    net.backward.run(span, net.forward.pass_to_go_back(), wanted, top_diffs)


def test_before_any_pass_a_diff_is_the_loss_weight(net: NetObjects) -> None:
    assert net.backward.diff_of("loss").item() == 3
    assert not net.backward.diff_of("ip").any()


def test_diffs_are_those_of_the_loss(net: NetObjects) -> None:
    run(net, "ip")
    np.testing.assert_array_equal(net.backward.diff_of("ip"), np.full((2, 2), 6))
    np.testing.assert_array_equal(net.params["ip"][0].diff, [6 * X.sum(0)] * 2)
    run(net)
    np.testing.assert_array_equal(net.params["ip"][0].diff, [12 * X.sum(0)] * 2)


def test_a_gradient_to_start_from(net: NetObjects) -> None:
    run(net, "ip", loss=0.5)
    np.testing.assert_array_equal(net.backward.diff_of("ip"), np.full((2, 2), 1))
    with pytest.raises(CaffeconvError, match=r"backward\(ip=…\): a gradient can be given of loss; 'ip' is no output"):
        run(net, ip=1)
    with pytest.raises(CaffeconvError, match=r"backward\(loss=…\): the array is 2, the blob scalar"):
        net.backward.run(ALL, net.forward.pass_to_go_back(), (), {"loss": [1, 2]})


def test_a_diff_that_was_not_wanted_is_computed_when_it_is_read(net: NetObjects) -> None:
    run(net)
    np.testing.assert_array_equal(net.backward.diff_of("double"), np.full((2, 2), 3))
    np.testing.assert_array_equal(net.params["ip"][0].diff, [6 * X.sum(0)] * 2)


def test_parameters_that_changed_since_the_pass(net: NetObjects) -> None:
    weight = net.params["ip"][0].data
    run(net)
    weight += 1
    with pytest.raises(
        CaffeconvError, match=r"'double' was not computed by the last backward\(\), and parameters have"
    ):
        net.backward.diff_of("double")


def test_a_part_starts_from_what_the_diffs_hold(net: NetObjects) -> None:
    net.backward.diff_of("double")[...] = 1
    run(net, "ip", span=slice(1, 3))
    np.testing.assert_array_equal(net.backward.diff_of("ip"), np.full((2, 2), 2))


def test_another_shape_forgets_the_pass(net: NetObjects) -> None:
    run(net, "ip")
    net.forward.reshape_input("x", (1, 3))
    assert net.backward.diff_of("double").tolist() == [[0, 0]]
    assert net.backward.diff_of("ip").tolist() == [[0, 0]]


def test_nothing_goes_backward(tmp_path: Path) -> None:
    net = net_objects(tmp_path, CHAIN.replace("loss_weight: 3", ""))
    with pytest.raises(CaffeconvError, match="nothing goes backward in this net"):
        net.backward.check()
