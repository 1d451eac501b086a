"""Which boxes DetectionOutput keeps, against slow loops written from SSD's rules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small_nets import run_model, write_net
from support.ssd_detections import Setting, assert_rows, detections, problem

import caffeconv

few = settings(max_examples=30)
F = np.float32
seeds = st.integers(0, 2**32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("detection")


@few
@given(seeds, st.sampled_from([0.6, 0.7, 0.9]), st.sampled_from([0.5, 0.8, 0.95]), st.sampled_from([None, 12]))
def test_a_threshold_that_sinks(folder: Path, seed: int, nms: float, eta: float, top_k: int | None) -> None:
    s = Setting(3, True, 0, "CORNER", False, 0.1, nms, top_k, eta, -1)
    feeds = problem(s, seed, 2, 30)
    feeds["loc"] /= 4
    feeds["prior"][:, 0] = np.tile([0.25, 0.25, 0.75, 0.75], 30)  # a crowd, so that much overlaps by half and more
    path = write_net(folder, {name: values.shape for name, values in feeds.items()}, s.layer())
    got = run_model(caffeconv.convert(path, batch="keep"), feeds)["det"]
    assert_rows(got, detections(s, feeds["loc"], feeds["conf"], feeds["prior"]))


def test_a_sinking_threshold_drops_more(folder: Path) -> None:
    kept = []
    for eta in (1.0, 0.8):
        s = Setting(2, True, 0, "CORNER", False, 0.1, 0.9, None, eta, -1)
        feeds = problem(s, 1, 1, 40)
        feeds["loc"] /= 8
        feeds["prior"][:, 0] = np.tile([0.25, 0.25, 0.75, 0.75], 40)
        path = write_net(folder, {name: values.shape for name, values in feeds.items()}, s.layer())
        kept.append(run_model(caffeconv.convert(path, batch="keep"), feeds)["det"].shape[2])
    assert kept[1] < kept[0] / 2


@pytest.mark.parametrize(("nms", "kept"), [(0.99, 1), (1.0, 3), (1.5, 3)])
def test_boxes_that_are_alike_overlap_by_one(folder: Path, nms: float, kept: int) -> None:
    s = Setting(2, True, 0, "CORNER", False, 0.1, nms, None, 1.0, -1)
    feeds = {
        "loc": np.zeros((1, 12), F), "conf": np.array([[0, 0.5, 0, 0.9, 0, 0.7]], F),
        "prior": np.tile(np.array([0.1, 0.2, 0.6, 0.9], F), 6).reshape(1, 2, 12),
    }  # fmt: skip
    path = write_net(folder, {name: values.shape for name, values in feeds.items()}, s.layer())
    got = run_model(caffeconv.convert(path, batch="keep"), feeds)["det"]
    np.testing.assert_array_equal(got[0, 0, :, 2], np.array([0.9, 0.7, 0.5], F)[:kept])


@pytest.mark.parametrize(("nms", "eta"), [(0.5, 1.0), (1.0, 0.5)])
def test_an_overlap_of_just_the_threshold_is_not_too_much(folder: Path, nms: float, eta: float) -> None:
    s = Setting(2, True, 0, "CORNER", False, 0.1, nms, None, eta, -1)
    edges = [0.25, 0.25, 0.75, 0.75, 0.25, 0.25, 0.5, 0.75, 0.25, 0.25, 0.625, 0.75]  # the second is half of the first
    feeds = {
        "loc": np.zeros((1, 12), F), "conf": np.array([[0, 0.9, 0, 0.7, 0, 0.5]], F),
        "prior": np.array([edges, edges], F)[None],
    }  # fmt: skip
    path = write_net(folder, {name: values.shape for name, values in feeds.items()}, s.layer())
    got = run_model(caffeconv.convert(path, batch="keep"), feeds)["det"]
    np.testing.assert_array_equal(got[0, 0, :, 2], np.array([0.9, 0.7], F))
