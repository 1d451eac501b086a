"""Detection of persons and their actions against SSD's loops and the published code's steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.small_nets import Array, run_model, write_net
from support.ssd_detections import F, Setting, decoded

import caffeconv

PERSONS = """layer { name: "p" type: "DetectionOutputExtended" bottom: "loc" bottom: "conf" bottom: "prior" top: "p"
    detection_output_param { num_classes: 2 share_location: true background_label_id: -1 code_type: CENTER_SIZE
        confidence_threshold: THRESHOLD nms_param { nms_threshold: 0.99 } } }
"""
ACTIONS = """layer { name: "a" type: "Python" bottom: "p" bottom: "a0" bottom: "a1" top: "a" python_param {
    module: "caffe.custom_layers.actions_detection_output_layer" layer: "ActionsDetectionOutputLayer"
    param_str: "{'num_anchors': 2PARAMETER, 'min_iou': 0.4}" } }
"""
SHAPES = {"loc": (2, 2, 3, 8), "conf": (2, 2, 3, 4), "prior": (1, 2, 48), "a0": (2, 2, 3, 4), "a1": (2, 2, 3, 4)}


def feeds() -> dict[str, Array]:
    rng = np.random.default_rng(3)
    values = {name: rng.random(shape).astype(F) for name, shape in SHAPES.items()}
    corner = rng.random((12, 2)).astype(F)
    values["prior"][0, 0] = np.concatenate([corner, corner + F(0.1)], axis=1).ravel()
    return values


def rows(v: dict[str, Array], threshold: float) -> list[list[float]]:
    setting = Setting(2, True, 0, "CENTER_SIZE", False, None, 0.99, None, 1, -1)
    result = []
    for n in range(2):
        scores = v["conf"][n].reshape(12, 2)[:, 1]
        for i in np.argsort(-scores, kind="stable"):
            prior, variance = v["prior"].reshape(2, 12, 4)[:, i]
            box = decoded(setting, prior, variance, v["loc"][n].reshape(12, 4)[i])
            if scores[i] > threshold:
                result.append([n, 1, scores[i], *box, i % 2, i // 2 % 3, i // 6])
    return result


@pytest.mark.parametrize("threshold", [0.5, 2])
def test_rows_say_their_place_and_its_action(tmp_path: Path, threshold: float) -> None:
    v = feeds()
    text = PERSONS.replace("THRESHOLD", str(threshold)) + ACTIONS.replace("PARAMETER", "")
    got = run_model(caffeconv.convert(write_net(tmp_path, SHAPES, text), outputs=["p", "a"]), v)
    persons = np.array(rows(v, threshold) or [[n, *[-1] * 9] for n in range(2)], F)
    np.testing.assert_allclose(got["p"][0, 0], persons, rtol=1e-5, atol=1e-6)
    actions = []
    for row in persons:
        confidences = (v["a0"], v["a1"])[int(row[7])][int(row[0]), int(row[9]), int(row[8])]
        actions.append([row[0], confidences.argmax(), row[2], confidences.max(), *row[3:7]])
    np.testing.assert_allclose(got["a"][0, 0], np.array(actions, F), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PERSONS.replace("num_classes: 2", "num_classes: 3"), "Number of main classes must be 2"),
        (PERSONS.replace("share_location: true", "share_location: false"), "share_location is false"),
        (PERSONS.replace('bottom: "loc"', 'bottom: "prior"'), "N×H×W×(anchors·4) was needed"),
        (PERSONS + ACTIONS.replace("PARAMETER", "0"), "20 of one shape"),
        (PERSONS + ACTIONS.replace("PARAMETER", ", 'use_nms': True"), "without use_nms was needed"),
        (PERSONS + ACTIONS.replace("'num_anchors'", "'anchors'"), "'num_anchors': 4"),
        (PERSONS + ACTIONS.replace('bottom: "p"', 'bottom: "a0"'), "rows of 10 numbers"),
    ],
)
def test_refusals(tmp_path: Path, text: str, message: str) -> None:
    text = text.replace("THRESHOLD", "0").replace("PARAMETER", "")
    report = caffeconv.inspect(write_net(tmp_path, SHAPES, text))
    assert any(message in d.message for d in report.diagnostics)
