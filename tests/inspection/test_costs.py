"""What a net costs, and what each place of a blob sees."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from support.golden_cases import GOLDENS
from support.small_nets import write_net

import caffeconv
from caffeconv.inspection.costs import ReceptiveField, receptive_fields
from caffeconv.inspection.explain import explain

ALEXNET = GOLDENS / "nets" / "alexnet"


def test_receptive_fields() -> None:
    report = caffeconv.inspect(ALEXNET / "net.prototxt")
    fields = receptive_fields(report.nodes)
    assert fields["pool1"] == ReceptiveField((13, 13), (Fraction(6), Fraction(6)))
    assert fields["pool5"].stride == (Fraction(24), Fraction(24))
    assert "fc8" not in fields


@pytest.mark.parametrize(
    ("kind", "param", "want"),
    [
        ("ReLU", "", (1, 1)),
        ("LRN", "", (1, 1)),
        ("LRN", "lrn_param { norm_region: WITHIN_CHANNEL }", (5, 5)),
        ("Permute", "permute_param { order: 0 order: 1 order: 3 order: 2 }", None),
        ("Reshape", "reshape_param { shape { dim: 0 dim: 0 dim: 4 dim: 9 } }", None),
        ("MVN", "", None),
        ("Python", 'python_param { module: "m" layer: "L" }', None),
    ],
)
def test_what_a_place_sees_is_left_out_where_it_is_not_known(
    kind: str, param: str, want: tuple[int, int] | None, tmp_path: Path
) -> None:
    net = write_net(tmp_path, {"x": (1, 2, 6, 6)}, f'layer {{ name: "l" type: "{kind}" bottom: "x" top: "y" {param} }}')
    report = caffeconv.inspect(net, shapes={"y": (1, 2, 6, 6)} if kind == "Python" else None)
    field = report.layers[1].receptive_field
    assert report.layers[1].tops
    assert (field.size if field else None) == want
    assert "depends on the whole input" not in "\n".join(explain(report.nodes, "l"))


def test_memory_with_reuse(tmp_path: Path) -> None:
    layer = 'layer {{ name: "{1}" type: "AbsVal" bottom: "{0}" top: "{1}" }}'.format
    net = write_net(tmp_path, {"a": (2, 10)}, layer("a", "b") + layer("b", "c") + layer("c", "d"))
    report = caffeconv.inspect(net)
    assert (report.activation_bytes, report.peak_bytes) == (320, 160)
    assert caffeconv.inspect(net, batch=4).peak_bytes == 320
    relu = 'layer { name: "r" type: "ReLU" bottom: "a" top: "a" }'
    assert caffeconv.inspect(write_net(tmp_path, {"a": (2, 10)}, relu)).peak_bytes == 80
