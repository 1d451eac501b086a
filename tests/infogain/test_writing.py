"""The matrix H as it is written: the bytes that Caffe writes, data for a third bottom, and what is refused."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from support.golden_cases import GOLDENS
from support.small_nets import write_net

import caffeconv
from caffeconv import CaffeconvError
from caffeconv.caffe_format.prototxt import parse_text
from caffeconv.caffe_pb2 import BlobProto, BlobShape, NetParameter
from caffeconv.infogain.reading import read_blob, read_matrix
from caffeconv.infogain.writing import form_of, layers_using, make_h

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


# -- as data for a third bottom ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["H.binaryproto", "H.h5", "H.HDF5", "H_lmdb", "H.lmdb"])
def test_nets_that_use_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The printed layers read what was written, and give the loss that H as an input gives."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    h, score, label = random.random((5, 5), np.float32), random.random((4, 5), np.float32), np.array([0, 3, 4, 1])
    make_h(h, name)
    inputs = {"score": (4, 5), "label": (4,)}
    loss = caffeconv.Net(write_net(tmp_path, inputs, layers_using(Path(name)))).forward(score=score, label=label)[
        "loss"
    ]
    bottoms = 'bottom: "score" bottom: "label" bottom: "H"'
    asked = f'layer {{ name: "loss" type: "InfogainLoss" {bottoms} top: "loss" }}'
    net = caffeconv.Net(write_net(tmp_path, {**inputs, "H": (1, 1, 5, 5)}, asked))
    np.testing.assert_array_equal(net.forward(score=score, label=label, H=h[None, None])["loss"], loss)


@pytest.mark.parametrize(("name", "kind"), [("H.h5", "HDF5Data"), ("H_lmdb", "Data")])
def test_layers_that_read_it(name: str, kind: str) -> None:
    net = NetParameter()
    parse_text(layers_using(Path(name)), net, name)
    assert [layer.type for layer in net.layer] == [kind, "InfogainLoss"]
    assert list(net.layer[1].bottom) == ["score", "label", *net.layer[0].top]
    assert not net.layer[1].HasField("infogain_loss_param")


def test_hdf5_is_as_caffe_wants_it(tmp_path: Path) -> None:
    """Float32, and the list of files beside it names the file as it was named here."""
    h = np.array([[1, 0.5], [0, 2]])
    make_h(h, tmp_path / "H.h5")
    with h5py.File(tmp_path / "H.h5") as file:
        assert {name: (data.shape, data.dtype) for name, data in file.items()} == {"H": ((1, 1, 2, 2), np.float32)}
    assert (tmp_path / "H.h5.txt").read_text() == f"{tmp_path}/H.h5\n"
    np.testing.assert_array_equal(read_matrix(tmp_path / "H.h5"), h)


def test_same_bytes_twice(tmp_path: Path) -> None:
    h = np.random.default_rng(0).random((40, 40), np.float32)
    for name, inside in (("H.h5", ""), ("H_lmdb", "data.mdb")):
        make_h(h, tmp_path / name)
        make_h(h, tmp_path / f"again_{name}")
        assert (tmp_path / name / inside).read_bytes() == (tmp_path / f"again_{name}" / inside).read_bytes()
    assert [file.name for file in (tmp_path / "H_lmdb").iterdir()] == ["data.mdb"]


def test_a_database_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "train_lmdb"
    path.mkdir()
    make_h(np.eye(2), path)
    before = (path / "data.mdb").read_bytes()
    with pytest.raises(CaffeconvError, match="train_lmdb: this is there already, and is not replaced; choose another"):
        make_h(np.eye(3), path)
    assert (path / "data.mdb").read_bytes() == before


@pytest.mark.parametrize("name", ["H.h5", "H_lmdb"])
def test_no_old_form_of_data(tmp_path: Path, name: str) -> None:
    with pytest.raises(CaffeconvError, match="only a binaryproto has an old form"):
        make_h(np.eye(2), tmp_path / name, legacy=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["H.npy", "H.csv", "H.TXT", "H.png", "H.onnx"])
def test_other_kinds_of_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(CaffeconvError, match=r"a name that ends in \.binaryproto, \.h5 or lmdb was needed"):
        make_h(np.eye(2), tmp_path / name)
    assert list(tmp_path.iterdir()) == []
    assert form_of(Path("H.dat")) == form_of(Path("H")) == "binaryproto"
