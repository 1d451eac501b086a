"""What is fuzzed: a reader, and the files that it starts from."""

from __future__ import annotations

import contextlib
import io
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import plyvel

import caffeconv
from caffeconv.caffe_format.caffemodel import read_binaryproto, read_caffemodel
from caffeconv.caffe_format.hdf5 import read_hdf5_weights
from caffeconv.caffe_pb2 import Datum
from caffeconv.data.array_files import read_array
from caffeconv.data.datum import read_datum
from caffeconv.data.images import read_image
from caffeconv.data.lmdb_pages import LmdbFile
from caffeconv.data.records import open_records
from caffeconv.infogain.hierarchy import read_hierarchy
from caffeconv.infogain.reading import read_matrix
from caffeconv.runtime.session import Session
from caffeconv.training.learning_rate import check_policy, rate_at
from caffeconv.training.solver_file import check_snapshots, read_solver
from caffeconv.training.solver_state import read_state
from fuzz.mutate import mutated

ROOT = Path(__file__).resolve().parents[1]
LARGEST = 200_000
MOST_BLOBS = 1 << 28
"""Bytes of a net that is run: what a larger one may ask for, it asks of any engine."""


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


def _solver(path: Path) -> None:
    file = read_solver(path)
    check_policy(file)
    check_snapshots(file)
    for iteration in (0, 1, 1000, file.max_iter):
        rate_at(file, iteration, 0)


def _state(path: Path) -> None:
    read_state(path)


def _leveldb(path: Path) -> None:
    """A small database, one file of which is damaged as the bytes of `path` draw it."""
    folder, draw = path.with_name("leveldb"), random.Random(path.read_bytes())
    shutil.rmtree(folder, ignore_errors=True)
    with plyvel.DB(str(folder), create_if_missing=True, write_buffer_size=1 << 12) as database:
        for i in range(200):
            database.put(b"%08d" % i, Datum(channels=1, height=4, width=8, data=bytes(32)).SerializeToString())
    damaged = draw.choice(sorted(file for file in folder.iterdir() if file.name not in ("LOCK", "LOG")))
    damaged.write_bytes(mutated(damaged.read_bytes(), draw))
    for _, value in open_records(folder, "LEVELDB"):
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


def _net(path: Path) -> None:
    """A pass forward and one backward, where the net's blobs are not large."""
    report = caffeconv.inspect(path)
    if report.ok and report.peak_bytes < MOST_BLOBS:
        net = caffeconv.Net(path, phase="TRAIN")
        net.forward()
        net.backward()


def _train(path: Path) -> None:
    """Two iterations of a solver over the net."""
    if caffeconv.inspect(path, phase="TRAIN").peak_bytes < MOST_BLOBS:
        fields = 'base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 max_iter: 2 display: 1 snapshot_after_train: false'
        path.with_name("solver.prototxt").write_text(f'net: "{path}" {fields}')
        _command("train", str(path.with_name("solver.prototxt")), "-q")(path)


def _operators(path: Path) -> None:
    """A node of our library with the attributes and shapes that the file's bytes draw."""
    import onnx

    draw = random.Random(path.read_bytes())
    op, attributes, inputs = draw.choice(OPERATORS)
    sizes = (0, 1, 1, 2, 2, 3, 4, 5, 7, 64)
    numbers = (*sizes, -1, 1 << 15, (1 << 31) - 1, 1 << 31, 1 << 40, (1 << 63) - 1, -(1 << 63))
    values = [draw.choice(sizes if draw.randrange(4) else numbers) for _ in attributes]
    shapes = [[draw.choice(sizes) for _ in range(draw.choice((4, 4, 4, 4, 2, 0, 5)))] for _ in range(inputs)]
    node = onnx.helper.make_node(op, [f"x{i}" for i in range(inputs)], ["y"], domain="caffeconv")
    node.attribute.extend(
        onnx.helper.make_attribute(name, value) for name, value in zip(attributes, values, strict=True)
    )
    graph = onnx.helper.make_graph(
        [node], "operator",
        [onnx.helper.make_tensor_value_info(f"x{i}", onnx.TensorProto.FLOAT, shape) for i, shape in enumerate(shapes)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
    )  # fmt: skip
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("caffeconv", 1)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), path.with_suffix(".onnx"))
    random_values = np.random.default_rng(draw.randrange(1 << 32))
    session = Session(path.with_suffix(".onnx"), "cpu")
    session.run({f"x{i}": random_values.normal(0, 1, shape).astype(np.float32) for i, shape in enumerate(shapes)})


def _hdf5_data(path: Path) -> None:
    """Over a net with an HDF5Data layer."""
    source, net = path.with_name("list.txt"), path.with_name("net.prototxt")
    source.write_text(f"{path}\n")
    fields = f'hdf5_data_param {{ source: "{source}" batch_size: 2 }}'
    net.write_text(f'layer {{ name: "d" type: "HDF5Data" top: "data" top: "label" {fields} }}')
    _command("run", str(net), "-q")(path)


_WINDOW = ("kernel_h", "kernel_w", "stride_h", "stride_w", "pad_h", "pad_w")
_CONVOLUTION = (*_WINDOW, "dilation_h", "dilation_w", "group")
OPERATORS: tuple[tuple[str, tuple[str, ...], int], ...] = (
    ("ConvWeightGrad", _CONVOLUTION, 2),
    ("ConvBottomGrad", (*_CONVOLUTION, "height", "width"), 2),
    ("MaxPoolGrad", _WINDOW, 2),
    ("ReLUGrad", (), 3),
    ("InfogainLoss", ("axis", "has_ignore_label", "ignore_label"), 3),
)
"""Name, attributes, and how many inputs."""
_ARRAYS = ("fixtures/hostile/arrays/*.np[yz]", "fixtures/goldens/layers/a*/*.npz")
_NETS = ("fixtures/goldens/*/*/net.prototxt", "fixtures/hostile/prototxt/*.prototxt")
HARNESSES = {
    "caffemodel": Harness(_weights, ("fixtures/goldens/**/*.caffemodel", "fixtures/hostile/weights/*.caffemodel")),
    "binaryproto": Harness(lambda path: read_binaryproto(path).array(), ("fixtures/**/*.binaryproto",)),
    "hdf5": Harness(_hdf5, ("fixtures/**/*.caffemodel.h5", "fixtures/hostile/hdf5_weights/*.h5")),
    "hdf5_data": Harness(_hdf5_data, ("fixtures/solvers/*/data.h5",)),
    "pictures": Harness(
        lambda path: read_image(path, color=None), ("fixtures/digits/*.png", "fixtures/hostile/pictures/*.png")
    ),
    "arrays": Harness(lambda path: read_array(path, "H"), _ARRAYS),
    "matrix": Harness(read_matrix, ("fixtures/hostile/arrays/*.np[yz]", "fixtures/digits/labels.txt")),
    "solver": Harness(_solver, ("fixtures/solvers/*/solver.prototxt", "fixtures/digits/solver.prototxt")),
    "solver_state": Harness(_state, ("fixtures/solvers/*/*.solverstate", "fixtures/solvers/*/*.solverstate.h5")),
    "tree": Harness(read_hierarchy, ("fixtures/hostile/trees/*.tree",)),
    "datum": Harness(lambda path: read_datum(path.read_bytes(), "record"), ("fixtures/hostile/pictures/*.datum",)),
    "lmdb": Harness(_lmdb, ("fixtures/**/data.mdb",)),
    "leveldb": Harness(_leveldb, ("fixtures/digits/labels.txt",)),
    "onnx": Harness(lambda path: Session(path, "cpu"), ("fixtures/hostile/onnx/*.onnx",)),
    "prototxt": Harness(_command("inspect", "FILE", "-q"), _NETS),
    "upgrade": Harness(_command("upgrade", "FILE", "-o", "FILE.new.prototxt", "-q"), ("fixtures/goldens/*/*/net.prototxt",)),
    "convert": Harness(_command("convert", "FILE", "-o", "FILE.onnx", "-q"), ("fixtures/goldens/layers/*/net.prototxt",)),
    "net": Harness(_net, ("fixtures/goldens/layers/*/net.prototxt", "fixtures/goldens/fork/*/net.prototxt")),
    "train": Harness(_train, ("fixtures/goldens/layers/*/net.prototxt",)),
    "make_h": Harness(_command("make-h", "FILE", "-o", "FILE.binaryproto", "-q"), ("fixtures/hostile/arrays/*",)),
    "operators": Harness(_operators, ("fixtures/digits/labels.txt",)),
}  # fmt: skip


def run_quietly(harness: Harness, path: Path) -> None:
    """Runs it; a CaffeconvError is a good end."""
    with contextlib.suppress(caffeconv.CaffeconvError), contextlib.redirect_stdout(io.StringIO()):
        harness.run(path)
