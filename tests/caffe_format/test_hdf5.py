"""Weights that Caffe saved as HDF5."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from caffeconv.caffe_format import hdf5
from caffeconv.caffe_format.hdf5 import HDF5Blob, read_hdf5_weights
from caffeconv.errors import CaffeconvError
from caffeconv.files.hdf5 import is_hdf5

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3) / 4


def write(path: Path, **datasets: NDArray[np.generic] | str) -> Path:
    """A file with these under /data; ``conv__0`` is blob 0 of layer conv."""
    with h5py.File(path, "w") as file:
        file.create_group("data")
        for name, values in datasets.items():
            file[f"data/{name.replace('__', '/')}"] = values
    return path


def test_layers_and_blobs(tmp_path: Path) -> None:
    path = write(tmp_path / "net.h5", conv__0=WEIGHT, conv__1=np.array([1, 2], np.int32), fc__0=WEIGHT.astype(">f8"))
    file = read_hdf5_weights(path)
    assert [(layer.name, len(layer.blobs), layer.may_leave_out) for layer in file.layers] == [
        ("conv", 2, True), ("fc", 1, True),
    ]  # fmt: skip
    weight, bias, other = (blob for layer in file.layers for blob in layer.blobs if blob is not None)
    assert [(blob.shape, blob.count, blob.legacy) for blob in (weight, bias)] == [((2, 3), 6, False), ((2,), 2, False)]
    for blob, values in ((weight, WEIGHT.ravel()), (bias, [1, 2]), (other, WEIGHT.ravel())):
        np.testing.assert_array_equal(blob.array(), values)
        assert blob.array().dtype == np.float32


def test_an_offset_only_where_the_file_holds_plain_float32(tmp_path: Path) -> None:
    path = write(tmp_path / "net.h5", a__0=WEIGHT, b__0=WEIGHT.astype(np.float64), c__0=np.zeros(0, np.float32))
    with h5py.File(path, "r+") as file:
        file.create_dataset("data/e/0", data=WEIGHT, compression="gzip")
    plain, *others = (layer.blobs[0] for layer in read_hdf5_weights(path).layers)
    assert plain is not None
    assert plain.offset is not None
    np.testing.assert_array_equal(np.fromfile(path, "<f4", 6, offset=plain.offset), WEIGHT.ravel())
    assert [blob and blob.offset for blob in others] == [None] * 3


def test_a_blob_may_be_left_out(tmp_path: Path) -> None:
    (layer,) = read_hdf5_weights(write(tmp_path / "net.h5", fc__1=WEIGHT, fc__note=WEIGHT)).layers
    assert [blob and blob.shape for blob in layer.blobs] == [None, (2, 3)]


@given(st.lists(st.integers(1, 4), max_size=4).map(tuple), st.integers(1, 12))
def test_blocks_are_the_values_in_order(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, ...], most: int
) -> None:
    values = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
    path = write(tmp_path_factory.mktemp("blocks") / "net.h5", x__0=values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hdf5, "BLOCK", most)
        blocks = list(HDF5Blob(path, b"x", 0, shape, None).blocks())
    assert max(block.size for block in blocks) <= most
    np.testing.assert_array_equal(np.concatenate(blocks), values.ravel())


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("conv", WEIGHT, "/data/conv is no group of blobs"),
        ("conv__0", "text", "/data/conv/0 holds no numbers"),
        ("conv__1001", WEIGHT, "/data/conv/1001: no layer has so many parameters"),
    ],
)
def test_what_is_no_weights(tmp_path: Path, name: str, values: NDArray[np.float32] | str, message: str) -> None:
    path = write(tmp_path / "net.h5", **{name: values})
    with pytest.raises(CaffeconvError, match=f"^{re.escape(f'{path}: {message}')}$"):
        read_hdf5_weights(path)


def test_values_in_another_file_are_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "net.h5", a__0=WEIGHT)
    with h5py.File(path, "r+") as file:
        file["data/d/0"] = h5py.ExternalLink(str(write(tmp_path / "other.h5", x=WEIGHT)), "data/x")
    with pytest.raises(CaffeconvError, match=f"^{path}: /data/d/0 is a link into another file, which is not followed"):
        read_hdf5_weights(path)


def test_other_files(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["label"] = WEIGHT
    with pytest.raises(CaffeconvError, match="no group /data in it; weights that Caffe saved as HDF5 were needed"):
        read_hdf5_weights(tmp_path / "other.h5")
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(CaffeconvError, match=r"text\.h5: not readable as HDF5"):
        read_hdf5_weights(tmp_path / "text.h5")
    assert [is_hdf5(tmp_path / name) for name in ("other.h5", "text.h5", "none.h5")] == [True, False, False]
