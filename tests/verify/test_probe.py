"""Inputs to try a model with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from support.golden_cases import cases
from support.graphs import dense, graph_of, layer

from caffeconv.conversion.load import load
from caffeconv.emit.metadata import Preprocess
from caffeconv.verify.probe import prepared, probe


def test_the_probe_is_the_same_each_time_and_fits_labels() -> None:
    case = next(case for case in cases("nets") if case.name == "nets/segmentation_infogain")
    loaded = load(case.folder / case.net, case.folder / str(case.weights))
    one, other = probe(loaded.graph), probe(loaded.graph)
    for name, values in one.net.items():
        np.testing.assert_array_equal(values, other.net[name])
    pictures = next(values for values in one.net.values() if values.ndim == 4 and values.shape[1] == 3)
    assert (pictures.min(), pictures.max()) >= (0, 200)
    assert pictures.max() <= 255


def test_the_probe_prepares_as_caffe_does() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (2, 3, 9, 8)).astype(np.uint8)
    mean = np.random.default_rng(1).uniform(0, 255, (3, 9, 8)).astype("f4")
    values = prepared(pictures, Preprocess(mean, 0.5), (2, 3, 4, 4))
    expected = (pictures[:, ::-1, 2:6, 2:6].astype("f4") - mean[:, 2:6, 2:6]) * np.float32(0.5)
    np.testing.assert_array_equal(values, expected)


def test_inputs_are_such_as_the_net_might_be_given(tmp_path: Path) -> None:
    inputs = {"images": (2, 3, 20, 20), "features": (50, 40), "label": (50,)}
    loss = dense("fc", "features", 5) + layer("loss", "SoftmaxWithLoss", "fc label")
    graph = graph_of(tmp_path, inputs, loss + layer("r", "ReLU", "images"))
    values = probe(graph).net
    assert {name: array.shape for name, array in values.items()} == inputs
    assert set(values["label"].tolist()) == {0, 1, 2, 3, 4}
    assert abs(float(values["features"].mean())) < 0.1
    assert 0.9 < float(values["features"].std()) < 1.1
    np.testing.assert_array_equal(values["images"], np.round(values["images"]))


def test_images_of_the_size_that_the_model_takes(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, {"x": (2, 3, 4, 4), "y": (2, 3, 4, 4)}, layer("sum", "Eltwise", "x y"))
    preprocess = Preprocess(np.array([1, 2, 3], np.float32), 0.5, (9, 8), input="y")
    both = probe(graph, preprocess)
    assert {name: images.shape for name, images in both.model.items()} == {"y": (2, 3, 9, 8)}
    np.testing.assert_array_equal(both.net["y"], prepared(both.model["y"], preprocess, (2, 3, 4, 4)))
    typical = probe(graph, typical=preprocess)
    assert typical.model == {}
    np.testing.assert_array_equal(typical.net["y"], both.net["y"])
