"""Arrays that change places."""

from __future__ import annotations

import numpy as np

from caffeconv.net.bound_arrays import SwappedArrays


def test_arrays_change_places() -> None:
    arrays = SwappedArrays({"a": (2,), "b": (3,)})
    first, spare = arrays["a"], arrays.spare("a")
    assert not first.any()
    spare[...] = 1
    arrays.swap(["a"])
    assert arrays["a"] is spare
    assert arrays.spare("a") is first
    assert [len(values) for values in arrays.values()] == [2, 3]


def test_arrays_of_others_are_taken() -> None:
    arrays: SwappedArrays[str] = SwappedArrays({})
    values = np.ones(4, np.float32)
    arrays.lay_out("a", values)
    assert arrays["a"] is values
    assert arrays.spare("a").shape == (4,)
    arrays.fill(2)
    assert (values == 2).all()
