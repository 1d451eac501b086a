"""SSD's DetectionOutput as slow loops, and deepdetect's; boxes and scores to try it with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from support.small_nets import Array

F = np.float32
FLT_MAX = float(np.finfo(F).max)


@dataclass(frozen=True)
class Setting:
    """What a DetectionOutput layer says."""

    classes: int
    shared: bool
    background: int
    code: str
    in_target: bool
    threshold: float | None
    nms: float
    top_k: int | None
    eta: float
    keep: int
    theta: float | None = None
    """Of deepdetect's soft suppression."""

    def layer(self) -> str:
        top_k = "" if self.top_k is None else f"top_k: {self.top_k}"
        soft = "" if self.theta is None else f"soft_nms: true theta: {self.theta}"
        threshold = "" if self.threshold is None else f"confidence_threshold: {self.threshold}"
        return (
            'layer { name: "det" type: "DetectionOutput" bottom: "loc" bottom: "conf" bottom: "prior" top: "det" '
            f"detection_output_param {{ num_classes: {self.classes} share_location: {str(self.shared).lower()} "
            f"background_label_id: {self.background} code_type: {self.code} keep_top_k: {self.keep} "
            f"variance_encoded_in_target: {str(self.in_target).lower()} {threshold} "
            f"nms_param {{ nms_threshold: {self.nms} eta: {self.eta} {top_k} {soft} }} }} }}"
        )


def decoded(s: Setting, prior: Array, variance: Array, location: Array) -> Array:
    """One box, as DecodeBBox has it."""
    scaled = location if s.in_target else location * variance
    width, height = prior[2] - prior[0], prior[3] - prior[1]
    if s.code == "CORNER":
        return prior + scaled
    if s.code == "CORNER_SIZE":
        return prior + scaled * np.array([width, height, width, height], F)
    x = scaled[0] * width + (prior[0] + prior[2]) / F(2)
    y = scaled[1] * height + (prior[1] + prior[3]) / F(2)
    w, h = np.exp(scaled[2]) * width, np.exp(scaled[3]) * height
    return np.array([x - w / F(2), y - h / F(2), x + w / F(2), y + h / F(2)], F)


def area(box: Array) -> float:
    return 0.0 if box[2] < box[0] or box[3] < box[1] else float((box[2] - box[0]) * (box[3] - box[1]))


def overlap(a: Array, b: Array) -> float:
    """Intersection over union, in float32 as SSD has it."""
    if b[0] > a[2] or b[2] < a[0] or b[1] > a[3] or b[3] < a[1]:
        return 0.0
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    common = F(width * height)
    return float(common / F(F(F(area(a)) + F(area(b))) - common))


def survivors(s: Setting, boxes: list[Array], scores: Array) -> list[int]:
    """The priors that one class keeps, best first."""
    limit = F(-FLT_MAX if s.threshold is None else s.threshold)
    order = sorted((i for i, score in enumerate(scores) if score > limit), key=lambda i: -float(scores[i]))
    order = order if s.top_k is None or s.top_k < 0 else order[: s.top_k]
    threshold, kept = F(s.nms), list[int]()
    if s.theta is not None:
        return softly_kept(s, boxes, [(scores[i], i) for i in order])
    for i in order:
        if all(overlap(boxes[i], boxes[k]) <= threshold for k in kept):
            kept.append(i)
            if s.eta < 1 and threshold > 0.5:
                threshold = F(threshold * F(s.eta))
    return kept


def softly_kept(s: Setting, boxes: list[Array], queue: list[tuple[float, int]]) -> list[int]:
    """The priors that deepdetect's soft suppression keeps of a queue of scores and priors, as ApplySoftNMSFast has it."""
    threshold, kept = F(s.nms), list[int]()
    while queue:
        score, i = queue[0]
        stays = True
        for k in kept:
            share = overlap(boxes[i], boxes[k])
            queue.append((F(score * np.exp(-F(share * share) / F(s.theta or 1))), i))
            queue = sorted(queue[1:], key=lambda waiting: -waiting[0])
            stays = share <= threshold
            if not stays:
                break
        if stays:
            kept.append(i)
            if s.eta < 1 and threshold > 0.5:
                threshold = F(threshold * F(s.eta))
        queue = queue[1:]
    return kept


def detections(s: Setting, location: Array, confidence: Array, prior: Array) -> Array:
    """The top's rows."""
    edges, variances = prior[0].reshape(2, -1, 4)
    number, sets, rows = len(edges), 1 if s.shared else s.classes, []
    for picture in range(len(location)):
        offsets = location[picture].reshape(number, sets, 4)
        scores = confidence[picture].reshape(number, s.classes)
        found = []
        for label in range(s.classes):
            if label == s.background:
                continue
            own = 0 if s.shared else label
            boxes = [decoded(s, edges[i], variances[i], offsets[i, own]) for i in range(number)]
            for i in survivors(s, boxes, scores[:, label]):
                found.append((picture, label, scores[i, label], *boxes[i]))
        if -1 < s.keep < len(found):
            found = sorted(found, key=lambda row: -row[2])[: s.keep]
            found.sort(key=lambda row: (row[1], -row[2]))
        rows += found
    if not rows:
        rows = [(picture, *[-1] * 6) for picture in range(len(location))]
    return np.array(rows, F)


def problem(s: Setting, seed: int, pictures: int, number: int) -> dict[str, Array]:
    """Boxes on a coarse grid and scores in eighths, so that ties and overlaps right at the threshold come up."""
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 6, (number, 2)) / 8
    edges = np.concatenate([low, low + rng.integers(1, 5, (number, 2)) / 8], axis=1)
    variances = rng.choice([0.125, 0.25, 1], (number, 4))
    offsets = rng.integers(-4, 5, (pictures, number * (1 if s.shared else s.classes) * 4)) / 8
    scores = rng.integers(0, 9, (pictures, number * s.classes)) / 8
    prior = np.stack([edges.ravel(), variances.ravel()])[None]
    return {"loc": offsets.astype(F), "conf": scores.astype(F), "prior": prior.astype(F)}


def assert_rows(got: Array, want: Array) -> None:
    assert got.shape == (1, 1, len(want), 7)
    np.testing.assert_array_equal(got[0, 0, :, :3], want[:, :3])
    np.testing.assert_allclose(got[0, 0, :, 3:], want[:, 3:], rtol=1e-5, atol=1e-6)
