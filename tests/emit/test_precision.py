"""Which layers and values stay float32 in half precision."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from onnx import helper
from support.graphs import dense, graph_of, layer

from caffeconv.emit.precision import (
    PRECISION_KEY,
    Precision,
    float32_values,
    keep_float32,
    precision_of,
    read_precision,
)
from caffeconv.errors import CaffeconvError

ARG_MAX = (
    dense("fc", "x", 4)
    + layer("best", "ArgMax", "fc")
    + layer("copy", "Reshape", "best", "reshape_param { shape { dim: -1 } }")
)
LABELS = layer("flat", "Flatten", "label") + dense("fc", "x", 4) + layer("loss", "SoftmaxWithLoss", "fc flat")


def test_indices_are_followed_through_layers_that_only_move_values(tmp_path: Path) -> None:
    assert float32_values(graph_of(tmp_path, {"x": (2, 3)}, ARG_MAX)) == {"best", "copy"}
    assert float32_values(graph_of(tmp_path, {"x": (2, 3)}, dense("fc", "x", 4))) == frozenset()


def test_labels_are_followed_upwards(tmp_path: Path) -> None:
    values = float32_values(graph_of(tmp_path, {"x": (2, 3), "label": (2, 1)}, LABELS))
    assert {"label", "flat"} <= values
    assert values.isdisjoint({"x", "fc"})


def test_what_a_model_s_metadata_says(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, {"x": (2, 3), "label": (2, 1)}, LABELS)
    nodes = [
        helper.make_node("Identity", ["a"], [output], name)
        for name, output in (("fc", "fc"), ("loss", "loss"), ("loss/log", "l"))
    ]
    text = precision_of(graph, {"fc": "fc", "loss": "loss", "loss/log": "loss"}, nodes)
    precision = read_precision({PRECISION_KEY: text})
    assert precision.nodes == {"loss", "loss/log"}
    assert "label" in precision.values
    assert "flat" not in precision.values  # no node makes it, and it is no input


def test_more_nodes_that_stay_float32() -> None:
    metadata = {PRECISION_KEY: '{"nodes": ["b"], "values": ["x"]}', "other": ""}
    keep_float32(metadata, ["c", "a", "b"])
    assert metadata == {PRECISION_KEY: '{"nodes": ["a", "b", "c"], "values": ["x"]}', "other": ""}
    assert read_precision(metadata) == Precision(frozenset("abc"), frozenset("x"))


@pytest.mark.parametrize("text", [None, "", "5", "[]", json.dumps({"nodes": []})])
def test_models_that_do_not_say(text: str | None) -> None:
    metadata = {} if text is None else {PRECISION_KEY: text}
    with pytest.raises(
        CaffeconvError, match=r"does not say which layers have to stay float32 \(metadata caffeconv\.float32\)"
    ):
        read_precision(metadata)
