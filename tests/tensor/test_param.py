"""Parameters and their values: in a file, in memory, from a filler, computed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from caffeconv.tensor.param import Param
from caffeconv.tensor.param_values import (
    ArrayValues,
    DerivedValues,
    FileValues,
    FillerValues,
    Location,
    ParamValues,
)
from caffeconv.tensor.shape import FloatArray, Shape

NUMBERS = np.arange(6, dtype=np.float32)


class TwoBlocks:
    """A blob of a file, which gives its values in two pieces."""

    shape: Shape = (6,)
    legacy = False
    count = 6

    def __init__(self, offset: int | None) -> None:
        self.offset = offset

    def array(self) -> FloatArray:
        return NUMBERS

    def blocks(self) -> Iterator[FloatArray]:
        yield from (NUMBERS[:4], NUMBERS[4:])


ALL = {
    "file": FileValues(Path("w.caffemodel"), TwoBlocks(100)),
    "packed otherwise": FileValues(Path("w.caffemodel"), TwoBlocks(None)),
    "filler": FillerValues(NUMBERS.copy),
    "array": ArrayValues(NUMBERS.reshape(3, 2)),
    "derived": DerivedValues(lambda: NUMBERS * 1),
    "derived from a filler": DerivedValues(lambda: NUMBERS * 1, from_filler=True),
}


@pytest.mark.parametrize("values", ALL.values(), ids=ALL)
def test_a_parameter_has_its_values_in_its_shape_and_in_blocks(values: ParamValues) -> None:
    param = Param("weight", (2, 3), values)
    np.testing.assert_array_equal(param.array(), NUMBERS.reshape(2, 3))
    blocks = list(param.blocks())
    assert [block.ndim for block in blocks] == [1] * len(blocks)
    np.testing.assert_array_equal(np.concatenate(blocks), NUMBERS)


def test_a_file_gives_its_blocks_one_by_one() -> None:
    assert [block.size for block in ALL["file"].blocks()] == [4, 2]


def test_only_packed_values_of_a_file_have_a_location() -> None:
    assert {name: values.location for name, values in ALL.items() if values.location is not None} == {
        "file": Location(Path("w.caffemodel"), 100)
    }


def test_a_filler_is_known_by_what_made_the_values_and_not_by_what_they_are_called() -> None:
    filled = {
        name for name, values in ALL.items() if Param("w", (6,), values, source="filler_net.caffemodel").is_filled
    }
    assert filled == {"filler", "derived from a filler"}
    assert not Param("w", (6,)).is_filled


def test_blocks_of_an_array_in_another_order_come_in_c_order() -> None:
    values = ArrayValues(np.asfortranarray(NUMBERS.reshape(2, 3)))
    np.testing.assert_array_equal(np.concatenate(list(values.blocks())), NUMBERS)


def test_an_array_is_not_copied() -> None:
    assert np.shares_memory(Param("w", (2, 3), ArrayValues(NUMBERS)).array(), NUMBERS)


def test_a_parameter_without_values_says_so() -> None:
    with pytest.raises(RuntimeError, match="parameter weight has not been bound"):
        Param("weight", (2, 3)).array()
    with pytest.raises(RuntimeError, match="parameter weight has not been bound"):
        Param("weight", (2, 3)).blocks()
