"""Which axes vary with the batch, with the pictures' size, or with values."""

from __future__ import annotations

from pathlib import Path

from support.graphs import Inputs, dense, graph_of, layer

from caffeconv.frontend.open_axes import dynamic_candidates, fixed_dims

X: Inputs = {"x": (2, 3, 8, 8)}
CONV = layer("c", "Convolution", "x", "convolution_param { num_output: 4 kernel_size: 3 }")


def test_one_input(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, X, CONV + dense("fc", "c", 7) + layer("mean", "Reduction", "fc"))
    assert list(dynamic_candidates(graph)) == [
        (
            {"x": (None, 3, 8, 8), "c": (None, 4, 6, 6), "fc": (None, 7), "mean": ()},
            {("x", 0): "batch", ("c", 0): "batch", ("fc", 0): "batch"},
            "x",
        )
    ]


def test_inputs_with_a_batch_of_their_own(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, {"x": (2, 3), "rois": (6, 5)}, layer("a", "ReLU", "x") + layer("b", "ReLU", "rois"))
    candidates = list(dynamic_candidates(graph))
    dims, symbols, which = candidates[0]
    assert dims == {"x": (None, 3), "a": (None, 3), "rois": (None, 5), "b": (None, 5)}
    assert symbols == {("x", 0): "batch", ("a", 0): "batch", ("rois", 0): "rois_0", ("b", 0): "rois_0"}
    assert which == "rois, x"
    assert [which for _, _, which in candidates[1:]] == ["x"]


def test_inputs_that_only_go_together(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, {"x": (2, 3), "y": (2, 3)}, layer("sum", "Eltwise", "x y"))
    (dims, symbols, which), *_ = dynamic_candidates(graph)
    assert (dims["sum"], which) == ((None, 3), "x, y")
    assert symbols == {("x", 0): "batch", ("y", 0): "batch", ("sum", 0): "batch"}


def test_a_size_that_follows_from_the_batch_has_no_name(tmp_path: Path) -> None:
    rows = layer("rows", "Reshape", "x", "reshape_param { shape { dim: -1 dim: 8 } }")
    ((dims, symbols, _),) = dynamic_candidates(graph_of(tmp_path, X, rows))
    assert dims["rows"] == (None, 8)
    assert symbols == {("x", 0): "batch"}


def test_no_batch_goes_together(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, X, layer("all", "Reshape", "x", "reshape_param { shape { dim: 384 } }"))
    assert list(dynamic_candidates(graph)) == []


def test_height_and_width(tmp_path: Path) -> None:
    ((dims, symbols, _),) = dynamic_candidates(graph_of(tmp_path, X, CONV), any_size=True)
    assert dims == {"x": (None, 3, None, None), "c": (None, 4, None, None)}
    assert symbols == {("x", 0): "batch", ("c", 0): "batch", ("x", 2): "height", ("x", 3): "width"}
    assert list(dynamic_candidates(graph_of(tmp_path, X, CONV + dense("fc", "c", 7)), any_size=True)) == []


def test_what_follows_from_values_is_open_in_a_fixed_graph(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, {"x": (4, 3), "keep": (4,)}, layer("f", "Filter", "x keep") + layer("g", "ReLU", "f"))
    assert fixed_dims(graph) == {"x": (4, 3), "keep": (4,), "f": (None, 3), "g": (None, 3)}
    plain = graph_of(tmp_path, X, CONV)
    assert fixed_dims(plain) == plain.shapes


def test_a_layer_that_wants_the_size_that_caffe_guesses(tmp_path: Path) -> None:
    layers = layer("f", "Filter", "x keep") + layer("g", "Reshape", "f", "reshape_param { shape { dim: 12 } }")
    dims = fixed_dims(graph_of(tmp_path, {"x": (4, 3), "keep": (4,)}, layers))
    assert dims == {"x": (4, 3), "keep": (4,), "f": (None, 3), "g": (12,)}
