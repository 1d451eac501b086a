"""The archive of files on which caffeconv once ended badly: a folder a fault, and the commands that are run in it."""

from __future__ import annotations

import os
import re
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "fixtures" / "digits"
ARCHIVE = ROOT / "fixtures" / "hostile" / "faults.tar.xz"
DEPLOY = DIGITS / "deploy.prototxt"
NET = f"{DEPLOY} {DIGITS}/digits.caffemodel"
ONES = '{ name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 1 dim: 9 dim: 9 } } }'


@dataclass(frozen=True)
class Fault:
    """What is run in the folders whose names match: for each file of a pattern where a command has the word FILE."""

    folders: str
    commands: tuple[str, ...]
    files: str = ".*"
    prepare: Callable[[Path], object] = lambda folder: None

    def commands_in(self, folder: Path) -> list[str]:
        names = sorted(path.name for path in folder.iterdir() if re.fullmatch(self.files, path.name))
        return [
            re.sub(r"\bFILE\b", name, command)
            for command in self.commands
            for name in (names if re.search(r"\bFILE\b", command) else [""])
        ]


def _datum_database(folder: Path) -> None:
    import lmdb

    with lmdb.open(str(folder / "db"), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"0", (folder / "in.datum").read_bytes())
    _data_net(folder, "db")


def _data_net(folder: Path, source: str) -> None:
    data = f'data_param {{ source: "{source}" backend: LMDB batch_size: 1 }}'
    (folder / "n.prototxt").write_text(f'layer {{ name: "d" type: "Data" top: "data" top: "label" {data} }}')


def _database(folder: Path) -> None:
    shutil.copytree(DIGITS / "train_lmdb", folder / "train_lmdb")


def _pipe_in_database(folder: Path) -> None:
    (folder / "lm").mkdir()
    os.mkfifo(folder / "lm" / "data.mdb")
    _data_net(folder, "lm")


def _many_kernel_sizes(folder: Path) -> None:
    sizes = "kernel_size: 3 " * 100_000
    layer = (
        f'layer {{ name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param {{ num_output: 1 {sizes} }} }}'
    )
    (folder / "kernel_many.prototxt").write_text(f"layer {ONES} {layer}")


def _inputs(folder: Path) -> None:
    import h5py

    ones = np.ones((2, 1, 28, 28), np.float32)
    np.savez(folder / "x.npz", data=ones)
    np.save(folder / "m.npy", ones[0])
    (folder / "l.csv").write_text("".join(f"{DIGITS}/{i}.png,{i}\n" for i in range(10)))
    with h5py.File(folder / "in.h5", "w") as file:
        file["data"] = ones
    (folder / "l.txt").write_text("in.h5\n")


RUN_ARRAYS = (
    f"run {NET} --input x.npz -o x.npz",
    f"run {NET} --input {DIGITS}/0.png --labels l.csv -o l.csv",
    f"run {NET} --input {DIGITS}/0.png --mean m.npy -o m.npy",
    "run h5.prototxt --blobs r -o in.h5",
)
FAULTS = (
    Fault("array_.*|fuzz_matrix_(?!Value).*", ("make-h FILE -o H-FILE.binaryproto",), r".*\.(npy|npz|mat|csv|json|h5)"),
    Fault("fuzz_matrix_.*", ("make-h --hierarchy FILE -o H-FILE.binaryproto",), r".*\.tree"),
    Fault("tree_.*", ("make-h --hierarchy FILE -o H-FILE.binaryproto",), r".*\.txt"),
    Fault("caffemodel_.*", ("make-h FILE -o H-FILE.binaryproto",), r".*\.binaryproto"),
    Fault("caffemodel_.*", ("convert n.prototxt FILE -o o.onnx", "upgrade FILE -o u.caffemodel"), r".*\.caffemodel"),
    Fault("fuzz_convert_.*", ("convert FILE -o o.onnx",), r".*\.prototxt"),
    Fault("fuzz_(draft|prototxt)_.*", ("inspect FILE", "upgrade FILE --deploy -o u.prototxt"), r".*\.prototxt"),
    Fault("fuzz_inspect_.*", ("inspect in.prototxt in.caffemodel --html r.html",)),
    Fault("fuzz_datum_.*", ("run n.prototxt",), prepare=_datum_database),
    Fault("fuzz_hdf5w_.*", (f"inspect {DEPLOY} FILE --values", f"convert {DEPLOY} FILE -o o.onnx"), r".*\.h5"),
    Fault("fuzz_lmdb_.*", ("run n.prototxt",), prepare=lambda folder: _data_net(folder, "db")),
    Fault("fuzz_onnx_.*", (f"run FILE --input {DIGITS}/0.png",), r".*\.onnx"),
    Fault("onnx_.*|terminal_.*", ("run FILE --input x4.npy", "run FILE --input x=x4.npy"), r".*\.onnx"),
    Fault("hdf5_.*", ("inspect n.prototxt FILE", "convert n.prototxt FILE -o o.onnx"), r".*\.h5"),
    Fault("paths_mean_.*", ("run FILE",), r".*\.prototxt", _database),
    Fault("paths_.*", ("inspect FILE", "run FILE"), r".*\.prototxt"),
    Fault("prototxt_kernel_many", ("inspect FILE",), r".*\.prototxt", _many_kernel_sizes),
    Fault("prototxt_(?!kernel).*", ("inspect FILE",), r".*\.prototxt"),
    Fault("png_.*", (f"run {NET} --input FILE",), r".*\.png"),
    Fault("hdf5output_.*", ("run o.prototxt",), prepare=lambda folder: (folder / "victim.txt").write_text("precious")),
    Fault("lmdb_fifo", ("run n.prototxt",), prepare=_pipe_in_database),
    Fault("out_name_too_long", tuple(f"convert {NET} {more} -o {'a' * 300}.onnx" for more in ("", "--weights external"))),
    Fault("run_npy_h5_endless", (f"run {NET} --input FILE --blobs ip1 -o FILE.f.h5",), r".*\.np[yz]"),
    Fault("run_overwrites_its_input_array", RUN_ARRAYS, prepare=_inputs),
)  # fmt: skip
ELSEWHERE = {
    "protobuf_4.22": "benchmarks/versions.py installs it",
    "run_lmdb_while_another_writes": "a process that writes, test_a_database_that_another_process_writes",
    "source_truncated_during_run": "a source cut off meanwhile, test_a_source_that_is_cut_off_meanwhile",
    "stdout_closed": "a process of its own, test_a_closed_stdout",
}


def folder_names(archive: Path) -> list[str]:
    with tarfile.open(archive) as tar:
        names = {member.name.removeprefix("attack/") for member in tar if member.isdir()}
    return sorted(name for name in names - {"attack"} if "/" not in name)


def unpacked(archive: Path, target: Path) -> Path:
    """Lays the archive into a folder; returns the one that its folders lie in."""
    with tarfile.open(archive) as tar:
        tar.extractall(target, filter="data")
    return target / "attack" if (target / "attack").is_dir() else target


def commands(folder: Path) -> list[str]:
    """Lays into the folder what its commands need besides; returns these."""
    pipe = folder / "work" / "F" / "fifo"
    if not pipe.exists():
        pipe.parent.mkdir(parents=True)
        os.mkfifo(pipe)
    faults = [fault for fault in FAULTS if re.fullmatch(fault.folders, folder.name)]
    for fault in faults:
        fault.prepare(folder)
    return [command for fault in faults for command in fault.commands_in(folder)]
