"""Values that are no finite numbers are counted as they pass by."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from caffeconv.tensor import non_finite
from caffeconv.tensor.non_finite import count_non_finite, counted


@pytest.mark.parametrize("piece", [1, 4, 1000])
def test_values_are_counted_in_every_shape(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(non_finite, "_PIECE", piece)
    values = np.zeros((2, 3, 5), np.float32)
    values[0, 0, 0], values[1, 2, 4], values[1, 0, 2] = np.nan, np.inf, -np.inf
    assert count_non_finite(values) == 3
    assert count_non_finite(values.T) == 3
    assert count_non_finite(np.float32(np.nan).reshape(())) == 1
    assert count_non_finite(np.empty((0, 2), np.float32)) == 0


def test_blocks_pass_by_unchanged() -> None:
    blocks, numbers = [np.array([1, np.nan], np.float32), np.array([np.inf], np.float32)], Counter[str]()
    assert [id(block) for block in counted(blocks, "w", numbers)] == [id(block) for block in blocks]
    assert numbers == {"w": 2}
    assert not list(counted([], "none", numbers))
    assert set(numbers) == {"w"}
