"""Blobs as pycaffe's users see them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from caffeconv.net.blobs import NetBlob, ParamBlob


def test_a_net_blob_asks_for_what_is_in_it_now() -> None:
    values = {"x": np.zeros((2, 3), np.float32)}
    diffs = {"x": np.ones((2, 3), np.float32)}

    def reshape(blob: str, shape: Sequence[int]) -> None:
        values[blob] = np.zeros(tuple(shape), np.float32)

    blob = NetBlob("x", lambda name: values[name].shape, values.__getitem__, diffs.__getitem__, reshape)
    assert blob.data is values["x"]
    assert blob.diff is diffs["x"]
    blob.reshape(4, 5, 6)
    assert blob.data is values["x"]
    assert (blob.num, blob.channels, blob.height, blob.width, blob.count) == (4, 5, 6, 1, 120)


def test_a_parameter_without_axes() -> None:
    blob = ParamBlob(np.zeros((), np.float32), np.zeros((), np.float32))
    assert (blob.shape, blob.count, blob.num, blob.width) == ((), 1, 1, 1)
