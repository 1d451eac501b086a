"""Classes of items, one after another, and how often they are those of the items' list."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from support.databases import refused

from caffeconv.cli.show.classes import (
    Classified,
    ClassRule,
    Prediction,
    Tally,
    predictions,
    print_table,
    refuse_other_outputs,
)
from caffeconv.inference.output_batches import OutputBatch
from caffeconv.tensor.shape import FloatArray

SCORES = np.array([[0.25, 0.5, 0.25], [1, 0, 0]], np.float32)
NAMES = ("a.png", "b.png", "c.png", "d.png")
WHAT = Classified(NAMES.__getitem__, [1, 2, 0, 0], ("cat", "dog"), 2)


def batch(*items: int, **blobs: FloatArray) -> OutputBatch:
    return OutputBatch(0, np.array(items), blobs, np.ones(len(items), np.bool_), {}, ())


def test_the_best_of_each_item() -> None:
    first, second = predictions([batch(0, 3, prob=SCORES)], WHAT, Tally(2))
    assert first == Prediction("a.png", "prob", (0.5, 0.25), (1, 0), ("dog", "cat"), 1)
    assert second == Prediction("d.png", "prob", (1.0, 0.0), (0, 1), ("cat", "dog"), 0)


def test_rows_and_json() -> None:
    prediction = Prediction("a.png", "prob", (0.5, float("nan")), (1, 2), ("dog", ""), 1)
    assert WHAT.header == ["item", "output", "rank", "class", "score", "label", "own_class"]
    assert list(prediction.rows()) == [
        ["a.png", "prob", "1", "1", "0.5", "dog", "1"], ["a.png", "prob", "2", "2", "nan", "", "1"],
    ]  # fmt: skip
    assert json.dumps(prediction.as_json()) == (
        '{"item": "a.png", "output": "prob", "own_class": 1, "classes": [{"class": 1, "score": 0.5, "label": "dog"}, '
        '{"class": 2, "score": null, "label": ""}]}'
    )
    plain = replace(prediction, labels=(), own=None)
    assert replace(WHAT, labels=(), own=None).header == ["item", "output", "rank", "class", "score"]
    assert next(plain.rows()) == ["a.png", "prob", "1", "1", "0.5"]
    assert plain.as_json()["classes"] == [{"class": 1, "score": 0.5}, {"class": 2, "score": None}]


def test_only_the_first_output_is_counted() -> None:
    tally = Tally(2)
    list(predictions([batch(0, 1, prob=SCORES, aux=SCORES), batch(2, prob=SCORES[:1], aux=SCORES[1:])], WHAT, tally))
    assert (tally.items, tally.first, tally.among) == (3, 1, 2)
    assert str(tally) == ("prob: 1 of 3 items come out first as their list says (33.33%), 2 among the best 2 (66.67%)")
    list(predictions([batch(0, prob=SCORES[:1])], replace(WHAT, own=None), none := Tally(2)))
    assert none.items == 0


@pytest.mark.parametrize(
    ("values", "kind", "is_classes"),
    [
        (SCORES, "", True), (SCORES[:, :, None, None], "", True), (SCORES * 3, "", False), (SCORES * 3, "probabilities", True),
        (SCORES, "loss", False), (SCORES[:, :, None].repeat(2, 2), "probabilities", False),
        (SCORES[:1], "probabilities", False),
    ],
)  # fmt: skip
def test_which_outputs_are_classes(values: FloatArray, kind: str, is_classes: bool) -> None:
    assert ClassRule(lambda _: kind).is_classification(batch(0, 1, prob=values)) == is_classes


@pytest.mark.parametrize(
    ("values", "kind", "labels", "is_classes"),
    [
        (SCORES * 3, "", (), True), (SCORES[:, :, None, None] * 3, "", (), True), (SCORES[:, :1], "", (), False),
        (SCORES * 3, "", ("a", "b", "c"), True), (SCORES * 3, "", ("a", "b"), False), (SCORES, "loss", (), False),
        (SCORES[:, :, None].repeat(2, 2) * 3, "", (), False),
    ],
)  # fmt: skip
def test_scores_are_classes_where_these_are_asked_for(
    values: FloatArray, kind: str, labels: tuple[str, ...], is_classes: bool
) -> None:
    rule = ClassRule(lambda _: kind, labels, wants_classes=True)
    assert rule.is_classification(batch(0, 1, fc8=values)) == is_classes


def test_as_many_labels_as_classes() -> None:
    with refused("^`labels=…`: 2 names, and output 'prob' has 3 classes; a name for each was needed$"):
        ClassRule(lambda _: "", ("cat", "dog")).is_classification(batch(0, 1, prob=SCORES))


def test_other_outputs_are_refused() -> None:
    refuse_other_outputs(ClassRule(lambda _: ""), batch(0, 1, prob=SCORES), "--format")
    with refused(
        "^--format: output 'fc' is 2×3, and not the probabilities of classes, nor are all outputs detections; "
    ):
        refuse_other_outputs(ClassRule(lambda _: ""), batch(0, 1, prob=SCORES, fc=SCORES * 3), "--format")


def test_a_table_of_many_parts_has_one_heading(capsys: pytest.CaptureFixture[str]) -> None:
    tally = print_table(
        [batch(prob=SCORES[:0]), batch(0, prob=SCORES[:1]), batch(1, prob=SCORES[1:])], replace(WHAT, top_k=1)
    )
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [
        ["item", "prob", "class", "label"], ["a.png", "0.5000", "1", "dog"], ["b.png", "1.0000", "0", "cat"],
    ]  # fmt: skip
    assert lines[1].index("0.5000") == lines[2].index("1.0000")
    assert (tally.items, tally.first) == (2, 1)
