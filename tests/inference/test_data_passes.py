"""Runs of nets over their data: Caffe's batches, and shards that make up the whole."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.databases import pixels, raw, write_lmdb
from support.golden_cases import ROOT, Array

import caffeconv
from caffeconv.inference.data_passes import DatasetRunner, own_data
from caffeconv.inference.features import row_blocks

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


def test_one_round_and_how_the_last_batch_goes_on(here: Path) -> None:
    net = net_of(here, LOSSES)
    runner = DatasetRunner(own_data(net), ["label"], threads=2)
    assert (runner.leading, runner.total) == ("source", 3)
    passes = [(one.number, one.blobs["label"].tolist(), one.counted.tolist()) for one in runner]
    assert passes == [
        (0, [0, 1, 2, 3], [True] * 4), (1, [4, 0, 1, 2], [True] * 4), (2, [3, 4, 0, 1], [True, True, False, False]),
    ]  # fmt: skip
    assert len(list(DatasetRunner(own_data(net), ["label"], passes=7))) == 7


def gathered(net: caffeconv.Net, start: int, stop: int) -> Array:
    (layer,) = net.sources
    runner = DatasetRunner(
        own_data(net), ["ip1"], begin={layer: start}, first=start // 3, most=math.ceil((stop - start) / 3)
    )
    return np.concatenate([chunk.rows["ip1"].copy() for chunk in row_blocks(runner)])


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 3), max_size=3))
def test_shards_make_up_the_whole(cuts: list[int]) -> None:
    net = caffeconv.Net(ROOT / "fixtures/digits/train_val.prototxt", ROOT / "fixtures/digits/digits.caffemodel")
    (source,) = net.sources.values()
    source.batch_size = 3
    whole = gathered(net, 0, 10)
    edges = [0, *sorted(3 * cut for cut in cuts), 10]
    shards = [gathered(net, a, b) for a, b in pairwise(edges) if a < b]
    np.testing.assert_array_equal(np.concatenate(shards), whole)
    assert whole.shape == (10, 64)


def test_state_is_carried_on(here: Path) -> None:
    """A net that keeps something gives the same from the middle on, where that is handed to it."""
    clip = (
        'layer { name: "cont" type: "DummyData" top: "cont" dummy_data_param { '
        "shape { dim: 4 dim: 1 } data_filler { value: 1 } } }"
    )
    lstm = (
        'layer { name: "flat" type: "Reshape" bottom: "data" top: "flat" reshape_param { shape { dim: 4 dim: 1 dim: 9 } } }'
        f'{clip} layer {{ name: "lstm" type: "LSTM" bottom: "flat" bottom: "cont" top: "lstm" recurrent_param {{ '
        'num_output: 3 weight_filler { type: "uniform" min: -0.01 max: 0.01 } } }'
    )
    net = net_of(here, DATA + lstm)
    whole = []
    for one in DatasetRunner(own_data(net), ["lstm"]):
        whole.append((one.blobs["lstm"].copy(), one.positions, net.states))
    other = net_of(here, DATA + lstm)
    other.states = whole[0][2]
    rest = [one.blobs["lstm"].copy() for one in DatasetRunner(own_data(other), ["lstm"], begin=whole[0][1], first=1)]
    np.testing.assert_array_equal(rest, [values for values, _, _ in whole[1:]])
    fresh = [
        one.blobs["lstm"].copy()
        for one in DatasetRunner(own_data(net_of(here, DATA + lstm)), ["lstm"], begin=whole[0][1], first=1)
    ]
    assert not np.array_equal(fresh, rest)


def test_a_pass_computes_with_the_parameters_as_they_are(here: Path) -> None:
    (here / "net.prototxt").write_text(LOSSES)
    net = caffeconv.Net(here / "net.prototxt")
    feeds = {"data": np.ones((4, 1, 3, 3), np.float32)}
    before = net.run(feeds, ["ip"])["ip"].copy()
    net.params["ip"][0].data[...] *= 2
    np.testing.assert_allclose(net.run(feeds, ["ip"])["ip"], 2 * before, rtol=1e-6)
