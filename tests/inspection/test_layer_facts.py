"""Layers of a net and of a model, in rows."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import helper
from support.graphs import Inputs, dense, graph_of, layer
from support.small_nets import write_net

import caffeconv
from caffeconv.inspection.layer_facts import LayerFacts, facts_of_file, facts_of_graph, facts_of_model

X: Inputs = {"x": (2, 3, 4, 4)}


def test_a_net_s_layers_and_what_they_cost(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, X, dense("fc", "x", 5) + layer("r", "ReLU", "fc", top="fc"))
    fc, relu = facts_of_graph(graph)
    assert fc == LayerFacts("fc", "InnerProduct", 2 * 5 * 48)
    assert (relu.name, relu.type) == ("r", "ReLU")


def test_nodes_beside_a_layer_are_its_own() -> None:
    names = ["conv/pad", "conv", "block/1/relu", "fc", "fc/flat", "fc/flat/shape", "a/b"]
    nodes = [helper.make_node(f"Op{i}", ["x"], [f"y{i}"], name) for i, name in enumerate(names)]
    model = helper.make_model(helper.make_graph(nodes, "net", [], []))
    assert facts_of_model(model) == [
        LayerFacts("conv", "Op1", None), LayerFacts("block/1/relu", "Op2", None), LayerFacts("fc", "Op3", None),
        LayerFacts("a/b", "Op6", None),
    ]  # fmt: skip


def test_a_model_in_a_file(tmp_path: Path) -> None:
    onnx.save(caffeconv.convert(write_net(tmp_path, X, dense("fc", "x", 5))), tmp_path / "model.onnx")
    (fc,) = facts_of_file(tmp_path / "model.onnx")
    assert (fc.name, fc.multiply_adds) == ("fc", None)
