"""Blobs as Python layers see them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caffeconv.python_layers.blobs import Blob, BlobVec


@given(st.lists(st.integers(0, 4), max_size=5))
def test_zeros_of_its_shape(shape: list[int]) -> None:
    blob = Blob(*shape)
    assert blob.data.shape == blob.diff.shape == blob.shape == tuple(shape)
    assert blob.data.dtype == np.float32
    assert (blob.count, float(blob.data.sum())) == (blob.data.size, 0)


def test_data_and_diff_are_memory_of_their_own() -> None:
    blob = Blob(2, 3)
    blob.data[...] = 1
    blob.diff[0] = 2
    assert (blob.data.tolist(), blob.diff.tolist()) == ([[1, 1, 1]] * 2, [[2, 2, 2], [0, 0, 0]])


def test_what_it_holds_stays_as_far_as_there_is_room() -> None:
    blob = Blob(2, 3)
    blob.data[...] = np.arange(6).reshape(2, 3)
    blob.reshape(4)
    assert blob.data.tolist() == [0, 1, 2, 3]
    blob.reshape(3, 2)
    assert blob.data.tolist() == [[0, 1], [2, 3], [4, 5]]
    blob.reshape(7)
    assert blob.data.tolist() == [0] * 7


def test_axes_that_it_lacks_count_as_1() -> None:
    blob = Blob(5, 6)
    assert (blob.num, blob.channels, blob.height, blob.width) == (5, 6, 1, 1)
    blob.reshape()
    assert (blob.count, blob.num, blob.data.shape) == (1, 1, ())


def test_sizes_below_0() -> None:
    blob = Blob(2)
    with pytest.raises(ValueError, match=r"^reshape\(3, -1\): a blob's sizes are 0 or more$"):
        blob.reshape(3, -1)
    assert blob.shape == (2,)


def test_a_layer_s_parameters() -> None:
    blobs = BlobVec()
    blobs.add_blob(2, 3)
    blobs.add_blob(2)
    assert (len(blobs), [blob.shape for blob in blobs], blobs[-1] is blobs[1]) == (2, [(2, 3), (2,)], True)
