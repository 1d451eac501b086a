"""A parameter's values, wherever they lie."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from caffeconv.tensor.param_values import ArrayValues, DerivedValues, FileValues, FillerValues, Location
from caffeconv.tensor.shape import FloatArray, Shape


@dataclass(frozen=True)
class StoredBlob:
    """Six values that come in two blocks."""

    offset: int | None
    shape: Shape = (2, 3)
    legacy: bool = False
    count: int = 6

    def array(self) -> FloatArray:
        return np.arange(6, dtype=np.float32)

    def blocks(self) -> Iterator[FloatArray]:
        yield from np.split(self.array(), 2)


@pytest.mark.parametrize(
    ("offset", "location"), [(8, Location(Path("w.bin"), 8)), (0, Location(Path("w.bin"), 0)), (None, None)]
)
def test_where_a_file_holds_values_as_they_are(offset: int | None, location: Location | None) -> None:
    assert FileValues(Path("w.bin"), StoredBlob(offset)).location == location


def test_blocks_of_a_file_are_the_file_s_own() -> None:
    values = FileValues(Path("w.bin"), StoredBlob(None))
    assert [block.tolist() for block in values.blocks()] == [[0, 1, 2], [3, 4, 5]]
    assert values.array().tolist() == [0, 1, 2, 3, 4, 5]
    assert not values.is_filled


def test_an_array_is_one_block_in_c_order() -> None:
    array = np.arange(6, dtype=np.float32).reshape(3, 2).T
    values = ArrayValues(array)
    assert [block.tolist() for block in values.blocks()] == [[0, 2, 4, 1, 3, 5]]
    assert values.array() is array
    assert (values.location, values.is_filled) == (None, False)


@pytest.mark.parametrize("from_filler", [True, False])
def test_values_are_computed_each_time(from_filler: bool) -> None:
    calls: list[int] = []

    def compute() -> FloatArray:
        calls.append(1)
        return np.full((2, 2), len(calls), np.float32)

    values = DerivedValues(compute, from_filler)
    assert (values.is_filled, values.location, calls) == (from_filler, None, [])
    assert [block.tolist() for block in values.blocks()] == [[1, 1, 1, 1]]
    assert values.array().tolist() == [[2, 2], [2, 2]]


def test_a_filler_s_values_are_filled() -> None:
    values = FillerValues(lambda: np.ones(3, np.float32))
    assert (values.is_filled, values.location, values.array().tolist()) == (True, None, [1, 1, 1])
