"""What is fuzzed: a reader, and the files that it starts from."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import caffeconv
from caffeconv.caffe_format.caffemodel import read_binaryproto, read_caffemodel
from caffeconv.caffe_format.hdf5 import read_hdf5_weights
from caffeconv.data.array_files import read_array
from caffeconv.data.datum import read_datum
from caffeconv.data.lmdb_pages import LmdbFile
from caffeconv.infogain.hierarchy import read_hierarchy
from caffeconv.infogain.reading import read_matrix
from caffeconv.runtime.session import Session

ROOT = Path(__file__).resolve().parents[1]
LARGEST = 200_000


@dataclass(frozen=True)
class Harness:
    """`run` reads a file in a folder of its own; `seeds` are patterns below the project's folder."""

    run: Callable[[Path], object]
    seeds: tuple[str, ...]

    def files(self) -> list[Path]:
        paths = [path for pattern in self.seeds for path in sorted(ROOT.glob(pattern)) if path.is_file()]
        return [path for path in paths if path.stat().st_size <= LARGEST]


def _weights(path: Path) -> None:
    file = read_caffemodel(path)
    for layer in file.layers:
        for blob in layer.blobs:
            if blob is not None:
                blob.array()
    file.net()


def _hdf5(path: Path) -> None:
    for layer in read_hdf5_weights(path).layers:
        for blob in layer.blobs:
            if blob is not None and blob.count < 1 << 24:
                blob.array()


def _lmdb(path: Path) -> None:
    file = LmdbFile(path)
    snapshot = file.snapshot()
    if snapshot is not None:
        for _, value in file.pages(snapshot).starting_at(0):
            with contextlib.suppress(caffeconv.CaffeconvError):
                read_datum(value, "record")


def _command(*words: str) -> Callable[[Path], None]:
    from click.testing import CliRunner

    from caffeconv.cli import main

    def run(path: Path) -> None:
        result = CliRunner().invoke(main, [word.replace("FILE", str(path)) for word in words])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception

    return run


_ARRAYS = ("fixtures/hostile/arrays/*.np[yz]", "fixtures/goldens/layers/a*/*.npz")
_NETS = ("fixtures/goldens/*/*/net.prototxt", "fixtures/hostile/prototxt/*.prototxt")
HARNESSES = {
    "caffemodel": Harness(_weights, ("fixtures/goldens/**/*.caffemodel", "fixtures/hostile/weights/*.caffemodel")),
    "binaryproto": Harness(lambda path: read_binaryproto(path).array(), ("fixtures/**/*.binaryproto",)),
    "hdf5": Harness(_hdf5, ("fixtures/**/*.caffemodel.h5", "fixtures/hostile/hdf5_weights/*.h5")),
    "arrays": Harness(lambda path: read_array(path, "H"), _ARRAYS),
    "matrix": Harness(read_matrix, ("fixtures/hostile/arrays/*.np[yz]", "fixtures/digits/labels.txt")),
    "tree": Harness(read_hierarchy, ("fixtures/hostile/trees/*.tree",)),
    "datum": Harness(lambda path: read_datum(path.read_bytes(), "record"), ("fixtures/hostile/pictures/*.datum",)),
    "lmdb": Harness(_lmdb, ("fixtures/**/data.mdb",)),
    "onnx": Harness(lambda path: Session(path, "cpu"), ("fixtures/hostile/onnx/*.onnx",)),
    "prototxt": Harness(_command("inspect", "FILE", "-q"), _NETS),
    "upgrade": Harness(_command("upgrade", "FILE", "-o", "FILE.new.prototxt", "-q"), ("fixtures/goldens/*/*/net.prototxt",)),
    "convert": Harness(_command("convert", "FILE", "-o", "FILE.onnx", "-q"), ("fixtures/goldens/layers/*/net.prototxt",)),
}  # fmt: skip


def run_quietly(harness: Harness, path: Path) -> None:
    """Runs it; a CaffeconvError is a good end."""
    with contextlib.suppress(caffeconv.CaffeconvError), contextlib.redirect_stdout(io.StringIO()):
        harness.run(path)
