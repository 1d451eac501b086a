"""Writes the matrix H of an InfogainLoss layer: as the binaryproto that `source` names, or as data for its bottom."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from numpy.typing import ArrayLike

from caffeconv.caffe_format.caffemodel_writer import WrittenBlob
from caffeconv.caffe_format.prototxt_writer import net_to_text
from caffeconv.caffe_pb2 import (
    DataParameter,
    Datum,
    HDF5DataParameter,
    InfogainLossParameter,
    LayerParameter,
    NetParameter,
)
from caffeconv.errors import CaffeconvError
from caffeconv.files import arguments
from caffeconv.files.atomic import PathLike, refuse_filled_folder, whole_file, whole_file_in_parts, whole_folder
from caffeconv.infogain.reading import HDF5
from caffeconv.tensor.shape import FloatArray

Form = Literal["binaryproto", "HDF5", "LMDB"]

_OTHERS = (".npy", ".npz", ".csv", ".tsv", ".txt", ".mat", ".png", ".jpg", ".json", ".prototxt", ".caffemodel", ".onnx")


def make_h(array: ArrayLike, path: PathLike, *, legacy: bool = False) -> None:
    """Writes H in the form that the name asks for; it appears whole or not at all.

    - A binaryproto, for `infogain_loss_param { source: … }`: byte for byte what Caffe's
      `caffe.io.array_to_blobproto(H.reshape(1, 1, L, L))` gives.
    - .h5 or .hdf5: one record for an HDF5Data layer, and beside it PATH.txt, the list of files that such a layer reads.
    - A name that ends in lmdb: an LMDB of one record for a Data layer, in a folder that must not be there yet.

    Args:
        array: H, L×L or 1×1×L×L, row = true label, column = predicted class; written as float32.
        path: the file or folder to write.
        legacy: binaryproto with num, channels, height, width instead of a shape, for a Caffe from before 2015.

    Raises:
        CaffeconvError: the array is not a square matrix of finite numbers, or the file cannot be written.
    """
    from caffeconv.infogain.matrices import checked

    matrix = checked(array)
    path = arguments.path("path", path)
    arguments.truth("legacy", legacy)
    form = check_place(path, legacy=legacy)
    if form == "HDF5":
        _write_hdf5(matrix, path)
    elif form == "LMDB":
        _write_lmdb(matrix, path)
    else:
        blob = WrittenBlob.of((1, 1, *matrix.shape), matrix, legacy=legacy)
        with whole_file(path) as file:
            blob.write(file)


def check_place(path: Path, *, legacy: bool) -> Form:
    """The form in which H will be written there; CaffeconvError where the name says already that it cannot be."""
    form = form_of(path)
    if legacy and form != "binaryproto":
        raise CaffeconvError(f"{path}: only a binaryproto has an old form; a name that ends in .binaryproto was needed")
    if form == "LMDB":
        refuse_filled_folder(path)
    return form


def form_of(path: Path) -> Form:
    """The form in which H is written to a file of that name; CaffeconvError for a name of another kind of file."""
    kind = path.suffix.lower()
    if kind in HDF5:
        return "HDF5"
    if path.name.lower().endswith("lmdb"):
        return "LMDB"
    if kind in _OTHERS:
        raise CaffeconvError(
            f"{path}: H is written as a binaryproto, as HDF5 or as LMDB; "
            "a name that ends in .binaryproto, .h5 or lmdb was needed"
        )
    return "binaryproto"


def files_of(path: Path) -> tuple[Path, ...]:
    """The files or folders that writing H to `path` makes."""
    return (path, _list_beside(path)) if form_of(path) == "HDF5" else (path,)


def layers_using(path: Path) -> str:
    """The prototxt of the layers that read an H written to `path`: the loss, and what gives its third bottom."""
    form = form_of(path)
    loss = LayerParameter(name="loss", type="InfogainLoss", bottom=["score", "label"], top=["loss"])
    if form == "binaryproto":
        loss.infogain_loss_param.CopyFrom(InfogainLossParameter(source=str(path)))
        return net_to_text(NetParameter(layer=[loss]))
    loss.bottom.append("H")
    h = LayerParameter(name="H", top=["H"])
    if form == "HDF5":
        h.type = "HDF5Data"
        h.hdf5_data_param.CopyFrom(HDF5DataParameter(source=str(_list_beside(path)), batch_size=1))
    else:
        h.type = "Data"
        h.data_param.CopyFrom(DataParameter(source=str(path), batch_size=1, backend=DataParameter.LMDB))
    return net_to_text(NetParameter(layer=[h, loss]))


def _list_beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.txt")


def _write_hdf5(matrix: FloatArray, path: Path) -> None:
    import h5py

    with whole_file_in_parts(path) as file, whole_file(_list_beside(path)) as list_file:
        with h5py.File(file, "w") as h5:
            h5.create_dataset("H", data=matrix[None, None], dtype="<f4")
        # caffe: looked up from the current folder, as `source` is
        list_file.write(f"{path}\n".encode())


def _write_lmdb(matrix: FloatArray, path: Path) -> None:
    import lmdb

    size = len(matrix)
    record = Datum(channels=1, height=size, width=size, float_data=matrix.ravel().tolist()).SerializeToString()
    with whole_folder(path) as folder:
        try:
            with (
                lmdb.open(str(folder), map_size=2 * len(record) + (1 << 20), lock=False) as environment,
                environment.begin(write=True) as transaction,
            ):
                transaction.put(b"00000000", record)
        except lmdb.Error as error:
            raise CaffeconvError(f"{path}: could not be written: {error}") from None
