"""A model of a fixed batch size gives a short last batch what it gives the same items in a full one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.databases import refused
from support.small_nets import write_net

import caffeconv
from caffeconv.inference.fixed_batch import FixedBatch, batch_size_of, fixed_batch_size
from caffeconv.runtime.session import Session

LAYERS = (
    'layer { name: "p" type: "Power" bottom: "x" top: "p" power_param { scale: 2 } }\n'
    'layer { name: "sum" type: "Reduction" bottom: "x" top: "sum" }\n'
)


def session(folder: Path, batch: int | str) -> Session:
    net = write_net(folder, {"x": (1, 3)}, LAYERS)
    return Session(caffeconv.convert(net, batch=batch))  # type: ignore[arg-type]


def test_batch_sizes(tmp_path: Path) -> None:
    fixed, dynamic = session(tmp_path, 4), session(tmp_path, "dynamic")
    assert (fixed_batch_size(fixed), fixed_batch_size(dynamic)) == (4, None)
    assert (batch_size_of(fixed, None), batch_size_of(fixed, 4)) == (4, 4)
    assert (batch_size_of(dynamic, None), batch_size_of(dynamic, 5)) == (16, 5)
    with refused("`batch_size=3`: the model's batch size is fixed at 4"):
        batch_size_of(fixed, 3)


@pytest.mark.parametrize("items", [1, 3, 4])
def test_rows_of_the_items_alone(tmp_path: Path, items: int) -> None:
    values = np.random.default_rng(0).normal(size=(items, 3)).astype(np.float32)
    model = FixedBatch(session(tmp_path, 4), 4)
    results = model.run({"x": values}, ["p"])
    np.testing.assert_array_equal(results["p"], 2 * values)
    assert (list(model.inputs), model.kind("p")) == (["x"], "")
