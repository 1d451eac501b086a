"""Layers that change nothing are taken out, and blobs keep the names that somebody asks for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from support.graphs import Inputs, dense, graph_of, layer

from caffeconv.ir.graph import Graph
from caffeconv.passes.drop_identities import drop_identities

X: Inputs = {"x": (1, 3)}


def edges(graph: Graph) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    return [(node.name, node.bottoms, node.tops) for node in graph.nodes if not node.layer.is_input]


def dropped(graph: Graph, *outputs: str) -> Graph:
    return drop_identities(replace(graph, outputs=outputs), [])


def test_its_readers_read_what_it_read(tmp_path: Path) -> None:
    layers = dense("a", "x", 4) + layer("drop", "Dropout", "a") + dense("b", "drop", 2)
    assert edges(dropped(graph_of(tmp_path, X, layers), "b")) == [("a", ("x",), ("a",)), ("b", ("a",), ("b",))]


def test_a_row_of_them(tmp_path: Path) -> None:
    layers = dense("a", "x", 4) + layer("d", "Dropout", "a") + layer("e", "Dropout", "d") + layer("r", "ReLU", "e")
    assert edges(dropped(graph_of(tmp_path, X, layers), "r")) == [("a", ("x",), ("a",)), ("r", ("a",), ("r",))]


def test_an_output_is_made_by_the_layer_before(tmp_path: Path) -> None:
    layers = dense("a", "x", 4) + layer("r", "ReLU", "a") + layer("d", "Dropout", "a") + layer("e", "Dropout", "d")
    assert edges(dropped(graph_of(tmp_path, X, layers), "e", "r")) == [("a", ("x",), ("e",)), ("r", ("e",), ("r",))]


def test_two_names_of_one_value_stay_where_both_are_asked_for(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, X, dense("a", "x", 4) + layer("d", "Dropout", "a") + layer("e", "Dropout", "d"))
    assert edges(dropped(graph, "a", "e")) == [("a", ("x",), ("a",)), ("e", ("a",), ("e",))]
    assert edges(dropped(graph, "d", "e")) == [("a", ("x",), ("d",)), ("e", ("d",), ("e",))]


def test_an_input_keeps_its_name(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, X, layer("d", "Dropout", "x"))
    assert edges(dropped(graph, "d")) == [("d", ("x",), ("d",))]


def test_layers_that_change_something_stay(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, X, layer("r", "ReLU", "x") + layer("s", "Power", "r", "power_param { scale: 2 }"))
    assert edges(dropped(graph, "s")) == edges(graph)
