"""Outputs of batches, averaged over crops and put together, whatever the batches are."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from support.databases import refused
from support.golden_cases import Array

from caffeconv.inference.output_batches import OutputBatch, averaged, join


def output_batch(start: int, end: int, **blobs: Array) -> OutputBatch:
    return OutputBatch(0, np.arange(start, end), blobs, np.ones(end - start, np.bool_), {}, ())


@given(st.lists(st.integers(1, 7), min_size=1, max_size=12))
def test_means_do_not_depend_on_the_batches(sizes: list[int]) -> None:
    values = np.random.default_rng(1).normal(size=(sum(sizes), 2)).astype(np.float32)
    edges = np.cumsum([0, *sizes])
    batches = [output_batch(int(start), int(end), y=values[start:end]) for start, end in itertools.pairwise(edges)]
    means = list(averaged(batches, 5))
    whole = len(values) // 5
    assert [item for batch in means for item in batch.items] == list(range(whole))
    found = np.concatenate([batch.blobs["y"] for batch in means]) if means else np.zeros((0, 2))
    np.testing.assert_array_equal(found, values[: whole * 5].reshape(whole, 5, 2).mean(axis=1))


def test_averages_need_a_row_for_each_crop() -> None:
    scalar = [output_batch(0, 10, loss=np.ones((), np.float32))]
    with refused("a row for each crop was needed"):
        list(averaged(scalar, 10))


def test_what_was_passed_over_is_told_with_the_next_mean_or_alone() -> None:
    values = np.arange(6, dtype=np.float32)[:, None]
    batches = [
        OutputBatch(0, np.arange(3), {"y": values[:3]}, np.ones(3, np.bool_), {}, ["a"]),
        OutputBatch(1, np.array([3, 10, 11]), {"y": values[3:]}, np.ones(3, np.bool_), {}, ["b"]),
        OutputBatch(2, np.zeros(0, np.int64), {}, np.ones(0, np.bool_), {}, ["c"]),
    ]
    means = list(averaged(batches, 2))
    assert [batch.items.tolist() for batch in means] == [[0], [1, 5], []]
    assert [list(batch.skipped) for batch in means] == [["a"], ["b"], ["c"]]
    np.testing.assert_array_equal(np.concatenate([batch.blobs["y"] for batch in means[:2]]), [[0.5], [2.5], [4.5]])


def test_rows_are_put_together_and_values_of_a_batch_are_averaged() -> None:
    batches = [
        output_batch(0, 2, y=np.zeros((2, 3), np.float32), loss=np.float32(1) * np.ones(())),
        output_batch(2, 3, y=np.ones((1, 3), np.float32), loss=np.float32(4) * np.ones(())),
    ]
    results = join(batches, {})
    np.testing.assert_array_equal(results["y"], [[0, 0, 0], [0, 0, 0], [1, 1, 1]])
    assert results["loss"] == 2


def test_detections_count_from_the_first_item() -> None:
    box = np.array([[[[0, 1, 0.5, 0, 0, 1, 1]]]], np.float32)
    results = join([output_batch(0, 2, found=box), output_batch(2, 4, found=box)], {"found": "detections"})
    assert results["found"][0, 0, :, 0].tolist() == [0, 2]


def test_shapes_that_differ() -> None:
    batches = [output_batch(0, 1, y=np.zeros((1, size), np.float32)) for size in (2, 3)]
    with refused("output 'y' is 1×2 and 1×3 in different batches"):
        join(batches, {})
