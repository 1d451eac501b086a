"""Scores as caffe test has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.databases import pixels, raw, refused, write_lmdb

import caffeconv
from caffeconv.inference.data_passes import DatasetRunner, own_data
from caffeconv.inference.scores import Score, Scores

DATA = (
    'layer { name: "source" type: "Data" top: "data" top: "label" '
    'data_param { source: "db" backend: LMDB batch_size: 4 } }\n'
)
LOSSES = DATA + (
    'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 5 '
    'weight_filler { type: "gaussian" std: 0.01 } } }\n'
    'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" loss_weight: 0.5 }\n'
    'layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" top: "per_class" }\n'
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten items in the database db."""
    monkeypatch.chdir(tmp_path)
    write_lmdb(tmp_path / "db", {f"{i:03}": raw(pixels(1, 3, 3, seed=i), i % 5) for i in range(10)})
    return tmp_path


def net_of(folder: Path, text: str) -> caffeconv.Net:
    (folder / "net.prototxt").write_text(text)
    return caffeconv.Net(folder / "net.prototxt")


def test_scores_are_those_of_forward(here: Path) -> None:
    net = net_of(here, LOSSES)
    scores = Scores(net)
    batches = [scores.add(one.number, one.blobs) for one in DatasetRunner(own_data(net), scores.blobs, passes=5)]
    again = net_of(here, LOSSES)
    forwards = [{name: values.copy() for name, values in again.forward().items()} for _ in range(5)]
    means = {name: np.mean([forward[name] for forward in forwards], axis=0) for name in again.outputs}
    # caffe: Net::Init keeps what nobody reads in a std::set, so the outputs are in the order of the alphabet
    assert list(scores.names()) == ["accuracy", "loss", *(f"per_class[{i}]" for i in range(5))]
    want = np.concatenate([means[name].ravel() for name in again.outputs])
    np.testing.assert_allclose([score.mean for score in scores.means()], want, rtol=1e-6)
    np.testing.assert_allclose(scores.loss, 0.5 * means["loss"], rtol=1e-6)
    np.testing.assert_allclose(batches[2].values[1], forwards[2]["loss"])


def test_lines_are_caffes() -> None:
    # caffe: caffe.cpp, test()
    assert str(Score("accuracy", 0.98, 0.0)) == "accuracy = 0.98"
    assert str(Score("loss", 0.1234567, 1.0)) == "loss = 0.123457 (* 1 = 0.123457 loss)"
    assert str(Score("aux", 2.0, 0.3)) == "aux = 2 (* 0.3 = 0.6 loss)"


def test_an_output_that_changes_its_size_has_no_average(here: Path) -> None:
    write_lmdb(here / "sizes", {str(i): raw(pixels(1, 3, 3 + i)) for i in range(2)})
    text = DATA.replace('"db"', '"sizes"').replace("batch_size: 4", "batch_size: 1").replace('top: "label"', "")
    net = net_of(here, text + 'layer { name: "p" type: "Power" bottom: "data" top: "out" }')
    scores = Scores(net)
    with refused("output 'out' is 1×1×3×4 in this batch and 1×1×3×3 in the first"):
        for one in DatasetRunner(own_data(net), scores.blobs):
            scores.add(one.number, one.blobs)
