"""A mean as it is typed: values, or a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.databases import refused, write_mean

from caffeconv.data.mean import Mean


def test_values() -> None:
    mean = Mean("104,117.5,123")
    assert (mean.values, mean.file, str(mean)) == ((104, 117.5, 123), None, "104,117.5,123")
    assert mean.load().dtype == np.float32
    np.testing.assert_array_equal(mean.load(), [104, 117.5, 123])


@pytest.mark.parametrize("shape", [(3,), (3, 4, 5), (1, 3, 4, 5)])
def test_arrays(tmp_path: Path, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).normal(size=shape)
    np.save(tmp_path / "mean.npy", values)
    mean = Mean(str(tmp_path / "mean.npy"))
    assert mean.values == ()
    np.testing.assert_array_equal(mean.load(), values.astype(np.float32).reshape(shape[-3:]))


def test_binaryproto(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    np.testing.assert_array_equal(Mean(str(write_mean(tmp_path / "m.binaryproto", values))).load(), values)


def test_other_files(tmp_path: Path) -> None:
    np.save(tmp_path / "mean.npy", np.zeros((2, 3)))
    with refused(r"mean.npy: the mean is \(2, 3\); C values or C×H×W were needed"):
        Mean(str(tmp_path / "mean.npy")).load()
