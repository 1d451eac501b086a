"""Graphs at other input shapes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.graphs import Inputs, dense, graph_of, layer, net_of

from caffeconv.errors import CaffeconvError, InvalidNetError
from caffeconv.frontend.build import build
from caffeconv.frontend.reshape import checked_shapes, for_any_batch, grown, input_shapes, reshape_graph, with_batch

POOL = layer("pool", "Pooling", "x", "pooling_param { pool: MAX kernel_size: 2 stride: 2 }")
X: Inputs = {"x": (2, 3, 8, 8)}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.tuples(*[st.integers(2, 9)] * 4))
def test_as_if_built_so(tmp_path: Path, shape: tuple[int, int, int, int]) -> None:
    net = net_of(tmp_path, X, POOL + layer("a", "ReLU", "pool"))
    reshaped, built = reshape_graph(build(net), {"x": shape}), build(net, {"x": shape})
    assert reshaped.shapes == built.shapes
    for node, other in zip(reshaped.nodes, built.nodes, strict=True):
        assert (node.bottom_shapes, node.top_shapes) == (other.bottom_shapes, other.top_shapes)


def test_parameters_keep_their_shapes(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, X, dense("fc", "x", 7))
    assert reshape_graph(graph, {"x": (5, 3, 8, 8)}).nodes[1].params == graph.nodes[1].params
    message = "its parameter weight would be 7×243 for these input shapes, and no longer what the weights are, 7×192"
    with pytest.raises(InvalidNetError, match=r"^fc \(InnerProduct\), line 2: " + re.escape(message) + "$"):
        reshape_graph(graph, {"x": (2, 3, 9, 9)})


def test_shapes_of_inputs(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, {**X, "label": (2,)}, POOL)
    assert input_shapes(graph) == {"x": (2, 3, 8, 8), "label": (2,)}
    assert checked_shapes(graph, {"label": [4]}) == {"label": (4,)}
    with pytest.raises(
        CaffeconvError, match=r"^shape given for 'pool', which is no input of the net; inputs: label, x$"
    ):
        checked_shapes(graph, {"pool": (1, 2)})


def test_an_input_that_is_overwritten_is_known_by_its_blob(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, X, layer("a", "ReLU", "x", top="x"))
    assert input_shapes(reshape_graph(graph, {"x": (1, 3, 8, 8)})) == {"x": (1, 3, 8, 8)}


def test_a_batch_is_that_of_inputs_as_large_as_the_first(tmp_path: Path) -> None:
    graph = with_batch(graph_of(tmp_path, {**X, "label": (2,), "rois": (6, 5)}, POOL), 4)
    assert input_shapes(graph) == {"x": (4, 3, 8, 8), "label": (4,), "rois": (6, 5)}
    assert graph.shapes["pool"] == (4, 3, 4, 4)
    with pytest.raises(CaffeconvError, match=r"^`batch=0`: at least 1 was needed$"):
        with_batch(graph, 0)


def test_layers_that_name_the_batch_as_a_number_mean_the_batch(tmp_path: Path) -> None:
    rows = layer("rows", "Reshape", "x", "reshape_param { shape { dim: 2 dim: 192 } }")
    graph = graph_of(tmp_path, X, rows)
    with pytest.raises(InvalidNetError):
        reshape_graph(graph, {"x": (5, 3, 8, 8)})
    assert reshape_graph(for_any_batch(graph), {"x": (5, 3, 8, 8)}).shapes["rows"] == (5, 192)
    assert with_batch(graph, 5).shapes["rows"] == (5, 192)


def test_larger_pictures() -> None:
    assert grown({"x": (1, 3, 8, 9), "v": (1, 3, 4, 8, 9), "label": (1,)}, 10) == {
        "x": (1, 3, 18, 20), "v": (1, 3, 14, 19, 21), "label": (1,),
    }  # fmt: skip
