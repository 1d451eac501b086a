"""Matrices and lists of numbers, from every form of file, and what is refused."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from caffeconv import CaffeconvError
from caffeconv.caffe_pb2 import BlobProto, BlobShape
from caffeconv.infogain.reading import read_blob, read_matrix, read_numbers


@pytest.mark.parametrize(
    ("proto", "shape"),
    [
        (BlobProto(data=[1, 2], shape=BlobShape(dim=[2])), (2,)),
        (BlobProto(data=[1, 2], num=1, channels=2, height=1, width=1), (1, 2, 1, 1)),
        (BlobProto(double_data=[1, 2], shape=BlobShape(dim=[1, 2])), (1, 2)),
        (BlobProto(raw_data=np.array([1, 2], np.float16).tobytes(), raw_data_type="FLOAT16", shape={"dim": [2]}), (2,)),
        (BlobProto(data=[1, 2], diff=[3, 4], shape=BlobShape(dim=[2])), (2,)),
    ],
)
def test_forms_of_a_blob(tmp_path: Path, proto: BlobProto, shape: tuple[int, ...]) -> None:
    path = tmp_path / "mean.binaryproto"
    path.write_bytes(proto.SerializeToString())
    np.testing.assert_array_equal(read_blob(path), np.reshape([1, 2], shape))


def test_unpacked_numbers(tmp_path: Path) -> None:
    path = tmp_path / "old.binaryproto"
    path.write_bytes(b"\x08\x01\x10\x01\x18\x01\x20\x02" + b"\x2d\0\0\x80\x3f" + b"\x2d\0\0\0\x40")
    np.testing.assert_array_equal(read_blob(path), [[[[1, 2]]]])


H = np.array([[1, 0.5], [-0.25, 1e-3]], np.float32)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("H.csv", "1,0.5\n-0.25,1e-3\n"),
        ("H.csv", "1 ; 0.5\r\n-0.25;1e-3"),
        ("H.txt", "# true label ↓\n\n1 0.5  # first\n\t-.25\t1E-3\n"),
        ("H.txt", "﻿1, 0.5\n-0.25 , 0.001"),
        ("H.tsv", "1\t0.5\n-0.25\t0.001"),
    ],
)
def test_tables(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8", newline="")
    np.testing.assert_array_equal(read_matrix(path), H)


def test_numpy_files(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", H.astype(np.float64))
    np.savez(tmp_path / "one.npz", anything=H)
    np.savez_compressed(tmp_path / "several.npz", other=H + 1, H=H)
    for name in ("a.npy", "one.npz", "several.npz"):
        np.testing.assert_array_equal(read_matrix(tmp_path / name), H)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("H.csv", b"1,0\n0,x\n", "H.csv, line 2: 'x' is not a number"),
        ("H.csv", b"1,0,\n0,1,\n", "H.csv, line 1: '' is not a number"),
        ("H.csv", b"# no\n1,0\n\n0,1,2\n", "H.csv, line 4: 3 numbers; 2, as in the lines above, were needed"),
        ("H.csv", b"1,0\n", "H.csv: the matrix is 1×2; L×L was needed"),
        ("H.csv", b"1,nan\n0,1", "H.csv: nan in row 0, column 1"),
        ("H.txt", b"", "H.txt: the matrix is 0; L×L was needed"),
        ("H.txt", b"\xff\xfe1", "is not a number"),
        ("H.npy", b"", "H.npy: not a readable array file"),
        ("H.npy", b"\x93NUMPY\x01\0v\0{'descr': 'O'", "H.npy: not a readable array file"),
        ("H.npz", b"PK\x03\x04", "H.npz: not a readable array file"),
        ("H.binaryproto", b"\x2a\x24\0", "H.binaryproto: a field of 36 bytes where 1 are left"),
        ("H.binaryproto", b"\x2a\x08" + bytes(8) + b"\x3a\x04\x0a\x02\x01\x02", "H.binaryproto: the matrix is 1×2"),
        ("H.h5", b"x", "H.h5: not readable as HDF5"),
        ("H.mat", b"x", "H.mat: not readable as a MATLAB file"),
        ("H.mat", b"MATLAB 5.0" + bytes(118), "H.mat: not readable as a MATLAB file"),
        (
            "H.xls",
            b"x",
            "H.xls: a file that ends in .xls; an array (.npy, .npz, .h5, .mat), a table (.csv, .tsv, .txt)",
        ),
        ("H", b"x", "H: a file that ends in nothing; an array"),
    ],
)
def test_hostile_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CaffeconvError) as caught:
        read_matrix(path)
    assert message in str(caught.value)


def test_archive_without_h(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", a=H, b=H)
    with pytest.raises(CaffeconvError, match=r"two\.npz: no array called 'H'; it has a, b"):
        read_matrix(tmp_path / "two.npz")


@pytest.mark.parametrize("name", ["H.csv", "H.npy", "H.npz", "H.binaryproto", "H.mat", "H.h5", "H.xls"])
def test_no_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(CaffeconvError, match="no such file"):
        read_matrix(tmp_path / name)


# -- HDF5 and MATLAB ---------------------------------------------------------------------------------------------------


def write_mat73(path: Path, **variables: NDArray[np.generic]) -> None:
    """As MATLAB's save(…, '-v7.3'): HDF5 behind 512 bytes of its own, columns one after another."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in variables.items():
            file[name] = values.T
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file".ljust(116))


@given(arrays(np.float32, st.integers(1, 4).map(lambda n: (n, n)), elements=st.floats(-9, 9, width=32)))
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=5
)  # a child process for each old .mat
def test_every_form_gives_the_same(tmp_path: Path, matrix: NDArray[np.float32]) -> None:
    np.savetxt(tmp_path / "H.csv", matrix, delimiter=",")
    np.save(tmp_path / "H.npy", matrix)
    with h5py.File(tmp_path / "H.h5", "w") as file:
        file["group/anything"] = matrix[None, None].astype(np.float64)
    with h5py.File(tmp_path / "several.hdf5", "w") as file:
        file["other"] = matrix + 1
        file["H"] = matrix
    write_mat73(tmp_path / "new.mat", H=matrix, other=matrix + 1)
    scipy.io.savemat(tmp_path / "old.mat", {"anything": matrix, "note": "about it"})
    scipy.io.savemat(tmp_path / "several.mat", {"other": matrix + 1, "H": matrix}, do_compression=True)
    for path in tmp_path.iterdir():
        np.testing.assert_array_equal(read_matrix(path), matrix)


def test_file_without_h(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["a"], file["b"], file["text"] = H, H, "x"
    scipy.io.savemat(tmp_path / "two.mat", {"a": H, "b": H})
    h5py.File(tmp_path / "none.h5", "w").close()
    for name, there in (("two.h5", "a, b"), ("two.mat", "a, b"), ("none.h5", "none")):
        with pytest.raises(CaffeconvError, match=rf"{name}: no .* of numbers called 'H'; it has {there}"):
            read_matrix(tmp_path / name)


def test_old_mat_without_scipy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scipy.io.savemat(tmp_path / "H.mat", {"H": H})
    (tmp_path / "scipy.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(
        CaffeconvError, match=r"only scipy reads; `pip install scipy`, or save it with save\(…, '-v7.3'\)"
    ):
        read_matrix(tmp_path / "H.mat")
    write_mat73(tmp_path / "H.mat", H=H)
    np.testing.assert_array_equal(read_matrix(tmp_path / "H.mat"), H)


# -- a number for each class -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("w.csv", "0.5,2,1e3\n"),
        ("w.txt", "0.5\n2  # rare\n\n1000\n"),
        ("w.csv", "0.5; 2; 1000"),
        ("w.tsv", "0.5\t2\t1000"),
    ],
)
def test_numbers(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    np.testing.assert_array_equal(read_numbers(tmp_path / name, "weights"), [0.5, 2, 1000])


def test_numbers_in_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", np.array([[3], [4]], np.int64))
    np.save(tmp_path / "one.npy", np.array(5))
    assert read_numbers(tmp_path / "w.npy", "weights").tolist() == [3, 4]
    assert read_numbers(tmp_path / "one.npy", "weights").tolist() == [5]


@pytest.mark.parametrize("text", ["1,2\n3,4\n", "", "# none\n"])
def test_no_list_of_numbers(tmp_path: Path, text: str) -> None:
    (tmp_path / "w.csv").write_text(text)
    with pytest.raises(CaffeconvError, match=r"w\.csv: .*; class weights, one for each class, were needed"):
        read_numbers(tmp_path / "w.csv", "class weights")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["H.npy", "H.csv", "H.h5"])
def test_numbers_that_no_float32_holds(tmp_path: Path, name: str) -> None:
    path, matrix = tmp_path / name, np.array([[1, 0], [1e300, 1]])
    if name == "H.npy":
        np.save(path, matrix)
    elif name == "H.csv":
        path.write_text("1,0\n1e300,1\n")
    else:
        with h5py.File(path, "w") as file:
            file["H"] = matrix
    with pytest.raises(CaffeconvError, match=r"in row 1, column 0 \(from 0\); finite numbers that fit a float32 were"):
        read_matrix(path)
