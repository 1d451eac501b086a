"""The matrix H: the bytes that Caffe writes, every form it is read from, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from golden_cases import GOLDENS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from caffeconv import CaffeconvError
from caffeconv.caffe_pb2 import BlobProto, BlobShape
from caffeconv.make_h import from_distances, from_frequencies, identity, make_h, read_blob, read_matrix, remarks

MATRICES = st.integers(1, 5).flatmap(
    lambda size: arrays(np.float32, (size, size), elements=st.floats(-1e9, 1e9, width=32))
)
IN_ONE_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


# -- writing -----------------------------------------------------------------------------------------------------------


def test_bytes_of_caffe(tmp_path: Path) -> None:
    """caffe.io.array_to_blobproto(np.eye(3).reshape(1, 1, 3, 3)).SerializeToString()"""
    path = tmp_path / "H.binaryproto"
    make_h(np.eye(3), path)
    one, zero = b"\0\0\x80\x3f", bytes(4)
    numbers = (one + zero * 3) * 2 + one
    assert path.read_bytes() == bytes.fromhex("2a24") + numbers + bytes.fromhex("3a060a0401010303")
    make_h(np.eye(3), path, legacy=True)
    assert path.read_bytes() == bytes.fromhex("0801100118032003" + "2a24") + numbers


@IN_ONE_FOLDER
@given(MATRICES, st.booleans())
def test_same_bytes_as_protobuf(tmp_path: Path, matrix: NDArray[np.float32], legacy: bool) -> None:
    path = tmp_path / "H.binaryproto"
    size = len(matrix)
    make_h(matrix, path, legacy=legacy)
    proto = BlobProto(data=matrix.ravel())
    if legacy:
        proto.num, proto.channels, proto.height, proto.width = 1, 1, size, size
    else:
        proto.shape.CopyFrom(BlobShape(dim=[1, 1, size, size]))
    assert path.read_bytes() == proto.SerializeToString()
    np.testing.assert_array_equal(read_blob(path), matrix[None, None])
    np.testing.assert_array_equal(read_matrix(path), matrix)


def test_files_that_caffe_reads(tmp_path: Path) -> None:
    """The old form comes out byte for byte as in the golden cases, of which Caffe read each."""
    same = 0
    for path in sorted(GOLDENS.glob("layers/infogain_*/*.binaryproto")):
        make_h(read_matrix(path), tmp_path / "again", legacy=True)
        same += (tmp_path / "again").read_bytes() == path.read_bytes()
    assert same >= 15


@IN_ONE_FOLDER
@given(MATRICES)
def test_other_ways_to_give_it(tmp_path: Path, matrix: NDArray[np.float32]) -> None:
    path = tmp_path / "H.binaryproto"
    for array in (matrix.tolist(), matrix[None, None], np.asfortranarray(matrix), matrix.astype(np.float64)):
        make_h(array, path)
        np.testing.assert_array_equal(read_matrix(path), matrix)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3)), "H: the matrix is 2×3; L×L was needed"),
        (np.zeros(4), "H: the matrix is 4; L×L was needed"),
        (np.zeros((2, 1, 3, 3)), "H: the matrix is 2×1×3×3; L×L was needed"),
        (np.zeros((0, 0)), "H: the matrix is 0×0; L×L was needed"),
        (3.0, "H: the matrix is scalar; L×L was needed"),
        ([[1, 2], [3]], "H: its rows have different lengths"),
        ([["a"]], "H: values of type <U1; real numbers were needed"),
        ([[1j]], "H: values of type complex128; real numbers were needed"),
        ([[None]], "H: values of type object; real numbers were needed"),
        ([[1, 0], [np.nan, 1]], "H: nan in row 1, column 0 (from 0); finite numbers"),
        ([[1, np.inf], [0, 1]], "H: inf in row 0, column 1"),
        ([[1e300]], "H: 1e+300 in row 0, column 0 (from 0); finite numbers that fit a float32 were needed"),
    ],
)
def test_array_that_is_no_h(tmp_path: Path, array: object, message: str) -> None:
    with pytest.raises(CaffeconvError) as caught:
        make_h(array, tmp_path / "H.binaryproto")  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


# -- reading -----------------------------------------------------------------------------------------------------------


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
        (
            "H.mat",
            b"x",
            "H.mat: a file that ends in .mat; an array (.npy, .npz), a table (.csv, .txt) or a .binaryproto",
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


@pytest.mark.parametrize("name", ["H.csv", "H.npy", "H.npz", "H.binaryproto", "H.mat"])
def test_no_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(CaffeconvError, match="no such file"):
        read_matrix(tmp_path / name)


# -- making ------------------------------------------------------------------------------------------------------------


def test_from_frequencies() -> None:
    counts = [900, 90, 10]
    h = from_frequencies(counts)
    assert h.dtype == np.float32
    np.testing.assert_array_equal(h, np.diag(np.diag(h)))
    weights = np.diag(h) * counts
    np.testing.assert_allclose(weights, np.full(3, 1000 / 3), rtol=1e-6)
    np.testing.assert_array_equal(from_frequencies([5, 5]), identity(2))


def test_from_distances() -> None:
    h = from_distances([0, 1, 3], 2)
    np.testing.assert_allclose(h.sum(axis=1), 1, rtol=1e-6)
    assert h[0, 0] > h[0, 1] > h[0, 2]
    np.testing.assert_allclose(h[0, 1] / h[0, 0], np.exp(-0.5), rtol=1e-6)
    np.testing.assert_array_equal(from_distances([0, 1, 2], 1e-3), identity(3))


@pytest.mark.parametrize("counts", [[], [1, 0], [1, -2], [float("nan")], [float("inf")]])
def test_impossible_frequencies(counts: list[float]) -> None:
    with pytest.raises(CaffeconvError, match="a number above 0 for each class was needed"):
        from_frequencies(counts)


@pytest.mark.parametrize(
    ("positions", "spread"), [([], 1), ([0, float("nan")], 1), ([0, 1], 0), ([0, 1], float("nan"))]
)
def test_impossible_distances(positions: list[float], spread: float) -> None:
    with pytest.raises(CaffeconvError, match="finite numbers, and a spread above 0, were needed"):
        from_distances(positions, spread)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([[2, 1], [1, 2]], []),
        ([[1, 0], [0, 1]], ["H is the identity"]),
        ([[1, 2], [0, 1]], ["H is not symmetric"]),
        ([[0, 0], [0, 1]], ["row 0 of H has only zeros"]),
        ([[0, 0], [0, 0]], ["rows 0, 1 of H have only zeros"]),
        ([[1, -1], [-1, 1]], ["rows 0, 1 of H have negative numbers"]),
        ([[0, 0], [-1, 1]], ["H is not symmetric", "row 0 of H has only zeros", "row 1 of H has negative numbers"]),
    ],
)
def test_remarks(rows: list[list[float]], expected: list[str]) -> None:
    found = remarks(np.array(rows, np.float32))
    assert len(found) == len(expected)
    for remark, start in zip(found, expected, strict=True):
        assert remark.startswith(start)
