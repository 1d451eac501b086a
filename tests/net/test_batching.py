"""Arrays cut into batches, and results put together again."""

from __future__ import annotations

import numpy as np
import pytest

from caffeconv.errors import CaffeconvError
from caffeconv.net.batching import BatchSplitter


def test_the_last_batch_is_filled_up_with_zeros() -> None:
    x = np.arange(5, dtype=np.float32)
    batches = [batch["x"].tolist() for batch in BatchSplitter({"x": x}, 2)]
    assert batches == [[0, 1], [2, 3], [4, 0]]


def test_results_of_the_zeros_are_left_out() -> None:
    splitter = BatchSplitter({"x": np.arange(5, dtype=np.float32)}, 2)
    results = [
        {"y": batch["x"], "crops": np.repeat(batch["x"], 3), "loss": np.float32(batch["x"].sum())} for batch in splitter
    ]
    joined = splitter.joined([{name: np.asarray(values) for name, values in result.items()} for result in results])
    assert joined["y"].tolist() == [0, 1, 2, 3, 4]
    assert joined["crops"].tolist() == np.repeat(np.arange(5), 3).tolist()
    assert joined["loss"].tolist() == [1, 5, 4], "one for each batch"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "none is given"),
        ({"x": np.zeros(0)}, "x has 0"),
        ({"x": np.zeros(2), "y": np.zeros(3)}, "x has 2, y has 3"),
        ({"x": np.float32(1)}, "x has 0"),
    ],
)
def test_arrays_that_are_not_equally_long(arrays: dict[str, float], message: str) -> None:
    given = {name: np.asarray(values, np.float32) for name, values in arrays.items()}
    with pytest.raises(
        CaffeconvError, match=f"equally many items, at least one, were needed, as blob=array; {message}"
    ):
        BatchSplitter(given, 2)
