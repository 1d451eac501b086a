"""Values that are no finite numbers are counted."""

from __future__ import annotations

import numpy as np

from caffeconv.inference.non_finite import NonFiniteValues


def test_values_are_counted_over_all_batches() -> None:
    values = NonFiniteValues()
    values.add({"prob": np.array([[1, np.nan], [np.inf, -np.inf]], np.float32), "ip": np.zeros((2, 3), np.float32)})
    values.add({"prob": np.array([[1, 2]], np.float32), "ip": np.zeros((1, 3), np.float32)})
    assert list(values.messages) == ["blob 'prob': 3 of 6 values are NaN or infinite"]
