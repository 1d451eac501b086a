"""Iterations that fail, and what is computed late; whole runs are in training/test_solver.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.small_nets import write_net

from caffeconv.emit.training_step import Learning
from caffeconv.errors import CaffeconvError
from caffeconv.net.net import Net
from caffeconv.training.update_rules import SGD, Adam

LAYERS = (
    'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" '
    'inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }\n'
    'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }'
)
RATE = {"rate": 0.5}


@pytest.fixture
def net(tmp_path: Path) -> Net:
    net = Net(write_net(tmp_path, {"x": (2, 4), "label": (2,)}, LAYERS), phase="TRAIN")
    net.blobs["x"].data[...] = np.arange(8).reshape(2, 4)
    net.blobs["label"].data[...] = [1, 2]
    return net


def test_a_step_that_fails_changes_nothing(net: Net) -> None:
    stepper, weight = net.stepper(Learning(SGD(0.9))), net.params["ip"][0].data
    stepper.step(RATE, ["loss"])
    before = weight.copy()
    net.blobs["label"].data[...] = 7
    with pytest.raises(CaffeconvError, match="label"):
        stepper.step(RATE, ["loss"])
    np.testing.assert_array_equal(weight, before)


@pytest.mark.parametrize("read_before", [False, True])
def test_diffs_are_what_was_subtracted(net: Net, read_before: bool) -> None:
    stepper = net.stepper(Learning(Adam(0.9, 0.99, 1e-8)))
    scalars = {**RATE, "correction": 0.7}
    blob = net.params["ip"][0]
    if read_before:
        assert not blob.diff.any()
    for _ in range(2):
        before = blob.data.copy()
        stepper.step(scalars, ["loss"])
        np.testing.assert_allclose(before - blob.data, blob.diff, 1e-4, 1e-7)


def test_histories_are_kept_and_taken(net: Net) -> None:
    stepper = net.stepper(Learning(SGD(0.9)))
    stepper.step(RATE, [])
    histories = [values.copy() for values in stepper.histories]
    assert histories[0].any()
    stepper.set_histories([values * 0 for values in histories])
    assert not any(values.any() for values in stepper.histories)
