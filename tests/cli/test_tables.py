"""A run's results as tables."""

from __future__ import annotations

import numpy as np
import pytest
from rich.table import Table

from caffeconv.cli.show.classes import ClassRule
from caffeconv.cli.show.tables import classes, detections, guess_kind, print_blobs, summary
from caffeconv.tensor.shape import FloatArray

PROBABILITIES = np.array([[0.1, 0.7, 0.2], [0.5, 0, 0.5]], np.float32)
BOXES = np.array([[[[0, 1, 0.9, 0.1, 0.2, 0.3, 0.4], [1, 5, 0.6, 0, 0, 1, 1], [0, 1, 0.2, 0, 0, 1, 1],
                    [2, -1, 0.9, 0, 0, 1, 1], [7, 0, 0.9, 0, 0, 1, 1]]]], np.float32)  # fmt: skip


def cells(table: Table) -> list[tuple[str, ...]]:
    """Headings, then rows."""
    columns = [[str(column.header), *map(str, column.cells)] for column in table.columns]
    return list(zip(*columns, strict=True))


@pytest.mark.parametrize(
    ("values", "items", "kind"),
    [
        (PROBABILITIES, 2, "probabilities"), (PROBABILITIES, 3, ""), (PROBABILITIES * 2, 2, ""), (-PROBABILITIES, 2, ""),
        (np.ones((2, 1), np.float32), 2, ""), (PROBABILITIES[:, :, None, None], 2, "probabilities"),
        (BOXES, 2, "detections"), (np.ones(3, np.float32), 3, ""), (np.full((1, 2), np.nan, np.float32), 1, ""),
    ],
)  # fmt: skip
def test_what_values_look_like(values: FloatArray, items: int, kind: str) -> None:
    assert guess_kind(values, items) == kind


def test_the_greatest_classes() -> None:
    assert cells(classes("prob", PROBABILITIES, ["a", "b[x]"], ["cat", "dog"], 2)) == [
        ("item", "prob", "class", "label"), ("a", "0.7000", "1", "dog"), ("", "0.2000", "2", ""),
        ("b[x]", "0.5000", "0", "cat"), ("", "0.5000", "2", ""),
    ]  # fmt: skip
    assert cells(classes("prob", PROBABILITIES[:1], ["a"], [], 1)) == [("item", "prob", "class"), ("a", "0.7000", "1")]


def test_boxes() -> None:
    assert cells(detections("out", BOXES, ["a", "b", "c"], ["none", "cat"], 0.5)) == [
        ("item", "out", "score", "xmin", "ymin", "xmax", "ymax"),
        ("a", "cat", "0.9000", "0.1000", "0.2000", "0.3000", "0.4000"),
        ("b", "class 5", "0.6000", "0.0000", "0.0000", "1.0000", "1.0000"),
        ("7", "none", "0.9000", "0.0000", "0.0000", "1.0000", "1.0000"),
    ]
    assert cells(detections("out", BOXES, ["a"], [], 0.95))[1:] == [
        ("nothing with a score of at least 0.95", *[""] * 6)
    ]


def test_summaries() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert cells(summary("fc", values)) == [
        ("fc", "shape", "min", "mean", "max"), ("", "2×3", "0", "2.5", "5"), ("0 1 2 3 4 5", "", "", "", ""),
    ]  # fmt: skip
    assert cells(summary("fc", np.zeros((4, 4), np.float32)))[1:] == [("", "4×4", "0", "0", "0")]
    assert cells(summary("fc", values[:0]))[1:] == [("", "0×3", "", "", "")]


def test_each_blob_is_printed_as_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    blobs = {
        "prob": PROBABILITIES,
        "boxes": BOXES,
        "other": PROBABILITIES,
        "map": PROBABILITIES[:, :, None].repeat(2, 2),
    }
    kinds = {"other": "loss", "map": "probabilities"}
    rule = ClassRule(lambda name: kinds.get(name, ""))
    print_blobs(blobs, rule.kind, ["a[b]", "c"], [], 1, 0.5)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[:3] == [["item", "prob", "class"], ["a[b]", "0.7000", "1"], ["c", "0.5000", "0"]]
    assert [line[0] for line in lines if line[1:2] in (["score"], ["boxes"], ["shape"])] == ["item", "other", "map"]
