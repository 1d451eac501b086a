"""Why a layer that could be folded into the one before it was not."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from support.small_nets import write_net

from caffeconv.cli import main
from caffeconv.conversion.load import load
from caffeconv.conversion.to_onnx import choose_outputs, to_onnx
from caffeconv.errors import Diagnostic

PRODUCT = 'layer { name: "m" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 2 } }'
SCALE = 'layer { name: "s" type: "Scale" bottom: "y" top: "z" }'
SHARED = PRODUCT.replace("inner_product_param", 'param { name: "w" } inner_product_param')


def reasons(net: Path, outputs: list[str] | None = None) -> list[str]:
    loaded = load(net)
    notes: list[Diagnostic] = []
    to_onnx(loaded, choose_outputs(loaded.graph, outputs), notes=notes)
    return [f"{note.layer}: {note.message}" for note in notes if "not folded" in note.message]


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        (PRODUCT + SCALE + 'layer { name: "r" type: "ReLU" bottom: "y" top: "w" }', "2 layers read what m makes"),
        ('layer { name: "m" type: "ReLU" bottom: "x" top: "y" }' + SCALE, "m (ReLU) has no weights that could take it up"),
        (
            SHARED + SHARED.replace('"m"', '"n"').replace('"y"', '"v"') + SCALE,
            "m shares its parameters with another layer",
        ),
    ],
    ids=["two_readers", "no_weights", "shared"],
)  # fmt: skip
def test_the_reason(layers: str, reason: str, tmp_path: Path) -> None:
    net = write_net(tmp_path, {"x": (1, 3)}, layers)
    assert reasons(net) == [f"s: not folded into the layer before it: {reason}"]


def test_an_output_in_between(tmp_path: Path) -> None:
    net = write_net(tmp_path, {"x": (1, 3)}, PRODUCT + SCALE)
    assert reasons(net, ["y", "z"]) == ["s: not folded into the layer before it: what m makes is an output"]
    assert reasons(net) == []


def test_only_v_tells(tmp_path: Path) -> None:
    net = write_net(tmp_path, {"x": (1, 3)}, 'layer { name: "m" type: "ReLU" bottom: "x" top: "y" }' + SCALE)
    told = {
        flags: "not folded"
        in CliRunner().invoke(main, ["convert", str(net), "-o", str(tmp_path / "m.onnx"), *flags]).stderr
        for flags in ((), ("-v",))
    }
    assert told == {(): False, ("-v",): True}
