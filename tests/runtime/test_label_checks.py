"""Labels out of range are refused before a run."""

from __future__ import annotations

import re

import numpy as np
import pytest
from support.databases import refused

from caffeconv.runtime.label_checks import LabelCheck, label_checks

CHECK = LabelCheck("loss (SoftmaxWithLoss), line 9", "label", 3, None)
IGNORING = LabelCheck("loss (SoftmaxWithLoss), line 9", "label", 3, 255)


@pytest.mark.parametrize("label", [0, 2, 2.9, -0.9])
def test_labels_are_cut_off_as_caffe_does(label: float) -> None:
    CHECK.apply({"label": np.array([label], np.float32)})


@pytest.mark.parametrize("label", [3, -1, np.nan, np.inf, 255])
def test_labels_out_of_range(label: float) -> None:
    message = (
        f"loss (SoftmaxWithLoss), line 9: label {label:g} in blob 'label' at [1, 0] is out of range; 0 to 2 was needed"
    )
    with refused(f"^{re.escape(message)}$"):
        CHECK.apply({"label": np.array([[0, 1], [label, -7]], np.float32)})


def test_a_label_that_is_ignored() -> None:
    IGNORING.apply({"label": np.array([255, 0, 255.5], np.float32)})
    with refused(r"label 254 in blob 'label' at \[1\] is out of range; 0 to 2 \(or ignore_label 255\) was needed$"):
        IGNORING.apply({"label": np.array([255, 254], np.uint8)})


def test_inputs_that_are_not_fed_and_empty_ones() -> None:
    CHECK.apply({"data": np.array([9], np.float32)})
    CHECK.apply({"label": np.zeros((0, 1), np.float32)})


def test_the_checks_of_a_model() -> None:
    rule = '{"where": "loss (SoftmaxWithLoss), line 9", "input": "label", "classes": 3, "ignore_label": %s}'
    metadata = {"caffeconv.labels": f"[{rule % 'null'}, {rule % 255}]"}
    assert label_checks(metadata) == (CHECK, IGNORING)
    assert label_checks({}) == ()


@pytest.mark.parametrize("text", ["", "5", "[5]", '[{"where": "x"}]', '[{"other": 1}]'])
def test_metadata_that_is_something_else(text: str) -> None:
    assert label_checks({"caffeconv.labels": text}) == ()
