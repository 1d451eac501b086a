"""HDF5 files that lead into other files, or claim what they cannot hold, are refused; damage is one message."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caffeconv.errors import CaffeconvError
from caffeconv.files.hdf5 import hdf5_faults, numbers_in, open_hdf5


def external_link(file: h5py.File) -> None:
    file["g/x"] = h5py.ExternalLink("other.h5", "/x")


def link_to_external_link(file: h5py.File) -> None:
    external_link(file)
    file["x"] = h5py.SoftLink("/g/x")


def external_storage(file: h5py.File) -> None:
    file.create_dataset("x", (3,), np.float32, external=[("/etc/passwd", 0, 12)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((3,), np.float32)
    layout[:] = h5py.VirtualSource("other.h5", "x", (3,))
    file.create_virtual_dataset("x", layout)


def huge_chunk(file: h5py.File) -> None:
    file.create_dataset("x", (1 << 28,), np.float32, chunks=(1 << 28,), compression="gzip")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (external_link, "/g/x is a link into another file, which is not followed"),
        (link_to_external_link, "/g/x is a link into another file, which is not followed"),
        (external_storage, "dataset /x: its values lie in another file, which is not read"),
        (virtual, "dataset /x: its values lie in another file, which is not read"),
        (huge_chunk, "dataset /x: 1073741824 bytes of values, which a file of this size cannot hold"),
    ],
)
def test_what_leads_out_of_the_file_is_refused(make: Callable[[h5py.File], None], problem: str, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        make(file)
    with pytest.raises(CaffeconvError, match=f"^{path}[:,] {re.escape(problem)}"):
        numbers_in(open_hdf5(path), "x", path)


def test_own_links_and_datasets_are_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.arange(3.0)
        file["y"] = h5py.SoftLink("/x")
        file["words"] = "text"
        file["none"] = h5py.Empty("f4")
    with open_hdf5(tmp_path / "a.h5") as file:
        dataset = numbers_in(file, b"y", "a.h5")
        assert dataset is not None
        assert dataset[()].tolist() == [0, 1, 2]
        assert [numbers_in(file, name, "a.h5") for name in ("words", "none", "missing")] == [None] * 3


def test_no_other_file_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CaffeconvError, match="this is a pipe; a plain file was needed"):
        open_hdf5(tmp_path / "pipe")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = h5py.ExternalLink("pipe", "/x")
    with pytest.raises(CaffeconvError, match="/x is a link into another file"):
        open_hdf5(tmp_path / "a.h5")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4000), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4))
def test_damage_raises_nothing_else(tmp_path: Path, damage: list[tuple[int, bytes]]) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["data/ip/0"] = np.arange(6, dtype=np.float32)
        file.create_dataset("data/ip/1", data=np.arange(6), chunks=(2,), compression="gzip")
    content = bytearray(path.read_bytes())
    for position, some in damage:
        at = position % len(content)
        content[at : at + len(some)] = some
    path.write_bytes(content)
    with suppress(CaffeconvError), open_hdf5(path) as file, hdf5_faults(path):
        for name in ("data/ip/0", "data/ip/1"):
            if (dataset := numbers_in(file, name, path)) is not None and dataset.size < 1000:
                np.asarray(dataset[()], np.float32)
