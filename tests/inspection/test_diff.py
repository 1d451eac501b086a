"""What changed between two nets."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result
from google.protobuf import text_format
from support.golden_cases import GOLDENS

import caffeconv
from caffeconv.caffe_pb2 import LayerParameter
from caffeconv.cli import main
from caffeconv.inspection.diff import compare, field_changes

ALEXNET = GOLDENS / "nets" / "alexnet"


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["inspect", *map(str, arguments)])


def test_two_nets(tmp_path: Path) -> None:
    text = (ALEXNET / "net.prototxt").read_text()
    other = tmp_path / "other.prototxt"
    other.write_text(text.replace("num_output: 10 ", "num_output: 12 ").replace('"prob"', '"probability"'))
    changes = compare(caffeconv.inspect(ALEXNET / "net.prototxt"), caffeconv.inspect(other))
    assert [(change.name, change.kind) for change in changes] == [
        ("fc8", "differs"), ("prob", "only in A"), ("probability", "only in B"),
    ]  # fmt: skip
    assert "inner_product_param.num_output: 10 → 12" in changes[0].changes
    assert "parameter weight: 10×24 → 12×24" in changes[0].changes
    result = call(ALEXNET / "net.prototxt", other)
    assert result.exit_code == 0
    assert "  inner_product_param.num_output: 10 → 12\n" in result.stdout
    assert call(other, other).stdout.endswith("No layer differs.\n")
    assert json.loads(call(ALEXNET / "net.prototxt", other, "--json").stdout)["layers"][0]["layer"] == "fc8"


def test_a_net_that_cannot_be_built_is_compared_with_exit_code_1(tmp_path: Path) -> None:
    broken = tmp_path / "broken.prototxt"
    broken.write_text((ALEXNET / "net.prototxt").read_text().replace('"InnerProduct"', '"Nothing"', 1))
    for arguments in ((ALEXNET / "net.prototxt", broken), (broken, broken, "--json")):
        assert call(*arguments).exit_code == 1


def field_lines(a: str, b: str) -> list[str]:
    """The changes between two layers as text."""
    before, after = (text_format.Parse(text, LayerParameter()) for text in (a, b))
    return list(field_changes(before, after))


def test_fields_at_any_depth() -> None:
    assert field_lines('name: "a"', 'name: "a"') == []
    assert field_lines(
        'name: "p" pooling_param { pool: MAX stride: 2 }', 'name: "p" bottom: "x" pooling_param { pool: AVE kernel_size: 3 }'
    ) == [
        "pooling_param.pool: MAX → AVE", "pooling_param.stride: [2] → not given", "pooling_param.kernel_size: not given → [3]",
        'bottom: not given → ["x"]',
    ]  # fmt: skip


def test_values_of_parameters_are_no_change() -> None:
    assert field_lines("blobs { data: 1 } loss_weight: 1", "blobs { data: 2 } loss_weight: 2") == [
        "loss_weight: [1] → [2]"
    ]
