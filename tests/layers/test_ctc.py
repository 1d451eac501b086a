"""CTCGreedyDecoder against a slow loop written from the forks' rules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.small_nets import Array, run_net, write_net

import caffeconv

F = np.float32
T, N, C, L = 7, 3, 4, 5


def decoded(scores: Array, follows: Array | None, blank: int, merges: bool) -> list[list[int]]:
    """The classes that are left of each item."""
    items = []
    for n in range(scores.shape[1]):
        sequence: list[int] = []
        before = -1
        for t in range(scores.shape[0]):
            best = int(scores[t, n].argmax())
            if best != blank and not (merges and best == before):
                sequence.append(best)
            before = best
            if follows is not None and t + 1 < scores.shape[0] and follows[t + 1, n] == 0:
                break
        items.append(sequence)
    return items


def edits(a: list[int], b: list[int]) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        following = [i]
        for j, y in enumerate(b, 1):
            following.append(min(row[j] + 1, following[-1] + 1, row[j - 1] + (x != y)))
        row = following
    return row[-1]


def shares(sequences: list[list[int]], labels: Array) -> list[float]:
    """Each item's edits by the longer one's length; labels N×L."""
    targets = [[int(label) for label in row[: int((np.append(row, -1) < 0).argmax())]] for row in labels]
    return [edits(a, b) / max(len(a), len(b)) for a, b in zip(sequences, targets, strict=True)]


def padded(sequences: list[list[int]], steps: int) -> Array:
    rows = [sequence + [-1] * (steps - len(sequence)) for sequence in sequences]
    return np.array(rows, F).reshape(len(rows), steps, 1, 1)


def drawn(seed: int) -> tuple[Array, Array, Array]:
    """Scores T×N×C, indicators T×N, labels N×L."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(T, N, C)).astype(F)
    follows = (rng.random((T, N)) < 0.8).astype(F)
    labels = rng.integers(1, C, (N, L)).astype(F)
    labels[0, 3:] = -1
    labels[1] = -1
    labels[1, : len(decoded(scores, None, 0, True)[1])] = decoded(scores, None, 0, True)[1][:L]
    return scores, follows, labels


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("said", "blank", "merges"), [("", 0, True), ("blank_index: -1 ctc_merge_repeated: false", 3, False)]
)
def test_one_bottom(tmp_path: Path, seed: int, said: str, blank: int, merges: bool) -> None:
    scores, _, _ = drawn(seed)
    layer = f'layer {{ name: "l" type: "CTCGreedyDecoder" bottom: "x" top: "y" ctc_decoder_param {{ {said} }} }}'
    got = run_net(tmp_path, layer, {"x": scores})["y"]
    np.testing.assert_array_equal(got, padded(decoded(scores, None, blank, merges), T))


@pytest.mark.parametrize("seed", range(4))
def test_labels_of_caffe_ocr(tmp_path: Path, seed: int) -> None:
    scores, _, labels = drawn(seed)
    layer = 'layer { name: "l" type: "CTCGreedyDecoder" bottom: "x" bottom: "labels" top: "y" }'
    each = shares(decoded(scores, None, 0, True), labels)
    blanks = np.zeros((N, 1), F)
    labels = np.concatenate([labels[:, :1], blanks, labels[:, 1:]], axis=1)  # a blank among them counts for nothing
    got = run_net(tmp_path, layer, {"x": scores, "labels": labels})["y"]
    np.testing.assert_allclose(got.ravel(), [1 - np.mean(each), np.mean(np.array(each) == 0)], rtol=1e-5, atol=1e-6)
    assert got.shape == (1, 2, 1, 1)


def test_item_without_anything_is_not_right(tmp_path: Path) -> None:
    layer = 'layer { name: "l" type: "CTCGreedyDecoder" bottom: "x" bottom: "labels" top: "y" }'
    scores = np.zeros((2, 2, 3), F)
    scores[0, 1, 2] = 1
    got = run_net(tmp_path, layer, {"x": scores, "labels": np.array([[0, -1, 5], [2, 0, -1]], F)})["y"]
    np.testing.assert_array_equal(got.ravel(), [1, 0.5])


@pytest.mark.parametrize("seed", range(4))
def test_original_form(tmp_path: Path, seed: int) -> None:
    scores, follows, labels = drawn(seed)
    by_step = np.full((T, N), -1, F)
    by_step[:L] = labels.T
    layer = """layer { name: "l" type: "CTCGreedyDecoder" bottom: "x" bottom: "on" bottom: "labels"
        top: "y" top: "scores" top: "accuracy" }
layer { name: "m" type: "CTCGreedyDecoder" bottom: "x" bottom: "on" bottom: "labels" top: "y2" top: "accuracy2" }
layer { name: "n" type: "CTCGreedyDecoder" bottom: "x" bottom: "on" top: "y3" top: "scores3" }
"""
    got = run_net(tmp_path, layer, {"x": scores, "on": follows, "labels": by_step})
    sequences = decoded(scores, follows, C - 1, True)
    lengths = [int((np.append(follows[1:, n], 0) == 0).argmax()) + 1 for n in range(N)]
    totals = [-scores[: lengths[n], n].max(axis=1).sum() for n in range(N)]
    for name in ("y", "y2", "y3"):
        np.testing.assert_array_equal(got[name], padded(sequences, T))
    for name in ("scores", "scores3"):
        np.testing.assert_allclose(got[name], np.reshape(totals, (N, 1, 1, 1)), rtol=1e-5)
    for name in ("accuracy", "accuracy2"):
        np.testing.assert_allclose(got[name].ravel(), [1 - np.mean(shares(sequences, labels))], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("shapes", "tops", "said", "message"),
    [
        ({"x": (4, 2)}, 1, "", "3 axes were needed"),
        ({"x": (4, 2, 3)}, 2, "", "at most 1 were needed"),
        ({"x": (4, 2, 3)}, 1, "blank_index: 3", "one of 3 classes was needed"),
        ({"x": (4, 2, 3), "b": (3, 5)}, 1, "", "4×2 was needed"),
        ({"x": (4, 2, 3), "b": (2, 5)}, 2, "", "with labels the layer makes 1"),
        ({"x": (4, 2, 3), "b": (4, 2), "c": (2, 4)}, 1, "", "4×2 was needed (T×N)"),
    ],
)
def test_refused(tmp_path: Path, shapes: dict[str, tuple[int, ...]], tops: int, said: str, message: str) -> None:
    names = "".join(f' bottom: "{name}"' for name in shapes) + "".join(f' top: "y{i}"' for i in range(tops))
    layer = f'layer {{ name: "l" type: "CTCGreedyDecoder"{names} ctc_decoder_param {{ {said} }} }}'
    with pytest.raises(caffeconv.CaffeconvError) as refusal:
        caffeconv.Net(write_net(tmp_path, shapes, layer))
    assert message in str(refusal.value)
