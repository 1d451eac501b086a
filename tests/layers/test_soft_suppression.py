"""deepdetect's soft suppression against a slow loop over its queue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small_nets import run_model, write_net
from support.ssd_detections import Setting, assert_rows, detections, problem

import caffeconv

few = settings(max_examples=12)
F = np.float32
seeds = st.integers(0, 2**32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("detection")


@few
@given(
    seeds, st.sampled_from([0.2, 0.45, 0.7, 1.0]), st.sampled_from([0.1, 0.5, 2.0]), st.sampled_from([1.0, 0.8]),
    st.sampled_from([None, 5]), st.sampled_from([-1, 4]),
)  # fmt: skip
def test_every_row_is_deepdetects(
    folder: Path, seed: int, nms: float, theta: float, eta: float, top_k: int | None, keep: int
) -> None:
    s = Setting(3, True, 0, "CORNER", False, 0.1, nms, top_k, eta, keep, theta)
    feeds = problem(s, seed, 2, 9)
    feeds["conf"] += np.linspace(0, 0.1, feeds["conf"].size, dtype=F).reshape(feeds["conf"].shape)  # no ties
    path = write_net(folder, {name: values.shape for name, values in feeds.items()}, s.layer())
    got = run_model(caffeconv.convert(path, batch="keep"), feeds)["det"]
    assert_rows(got, detections(s, feeds["loc"], feeds["conf"], feeds["prior"]))


def test_boxes_without_area_may_come_twice(folder: Path) -> None:
    s = Setting(2, True, 0, "CORNER", False, 0.1, 0.5, None, 1.0, -1, 0.5)
    edges = np.tile(np.array([0.5, 0.5, 0.5, 0.5], F), 3)
    feeds = {
        "loc": np.zeros((1, 12), F), "conf": np.array([[0, 0.9, 0, 0.7, 0, 0.5]], F),
        "prior": np.stack([edges, edges])[None],
    }  # fmt: skip
    path = write_net(folder, {name: values.shape for name, values in feeds.items()}, s.layer())
    got = run_model(caffeconv.convert(path, batch="keep"), feeds)["det"]
    np.testing.assert_array_equal(got[0, 0, :, 2], detections(s, feeds["loc"], feeds["conf"], feeds["prior"])[:, 2])
