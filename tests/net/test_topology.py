"""What the layers of a net say of its blobs and passes."""

from __future__ import annotations

from pathlib import Path

from support.net_objects import CHAIN, KEEP, KEEP_LAYERS, net_objects

from caffeconv.net.blobs import NetLayer
from caffeconv.net.topology import blob_kinds, blob_loss_weights, layer_objects, order_reasons

SOFTMAX = 'layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }'


def test_kinds_and_loss_weights(tmp_path: Path) -> None:
    nodes = net_objects(tmp_path, CHAIN + SOFTMAX).loaded.graph.nodes
    assert blob_kinds(nodes)["prob"] == "probabilities"
    weights = blob_loss_weights(nodes)
    assert {blob: weight for blob, weight in weights.items() if weight} == {"loss": 3}
    assert weights.keys() == {"x", "ip", "double", "loss", "prob"}


def test_layers_and_the_users_own_objects(tmp_path: Path) -> None:
    (tmp_path / "keep.py").write_text(KEEP)
    nodes = net_objects(tmp_path, KEEP_LAYERS).loaded.graph.nodes
    layers = layer_objects(nodes, {})
    assert layers["double"] == NetLayer("Power", [])
    assert type(layers["keep"]).__name__ == "Keep"


def test_passes_that_have_to_go_through_one_net(tmp_path: Path) -> None:
    lstm = (
        'layer { name: "lstm" type: "LSTM" bottom: "x" bottom: "cont" top: "y" recurrent_param { num_output: 2 } }'
    )  # fmt: skip
    nodes = net_objects(tmp_path, lstm, {"x": (1, 2, 3), "cont": (1, 2)}).loaded.graph.nodes
    assert order_reasons(nodes, ["out"]) == {
        "out": "writes what it is given to a file",
        "lstm": "keeps its state from one pass to the next",
    }
