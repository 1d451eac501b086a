"""Arrays in .npy and .npz files, and files that claim what they do not hold."""

from __future__ import annotations

import io
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.databases import refused

from caffeconv.data.array_files import read_array
from caffeconv.errors import CaffeconvError


def npy(values: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(values))
    return buffer.getvalue()


def npz(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def header(shape: str) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def test_arrays_come_back(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(npy(np.asfortranarray([[1, 2], [3, 4]])))
    assert read_array(tmp_path / "a.npy", "x").tolist() == [[1, 2], [3, 4]]
    path = npz(tmp_path / "a.npz", x=npy([1.5]), y=npy([2]))
    assert (read_array(path, "x").tolist(), read_array(path, "y").tolist()) == ([1.5], [2])
    with refused(r"a\.npz: no array called 'z'; it has x, y"):
        read_array(path, "z")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (header("(10000000000,)"), "0 bytes of values; 40000000000 were needed for 10000000000 float32"),
        (header("(99999999999999999999,)"), "0 bytes of values"),
        (header("(-5,)"), "holds float32; numbers were needed"),
        (header("(3,"), "not a readable array file: "),
        (npy(["text"]), "holds <U4; numbers were needed"),
        (b"\x93NUMPY\x09\x00", "not a readable array file: |version 9.0"),
        (b"", "not a readable array file: "),
    ],
)
def test_a_claim_is_held_against_the_file(content: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with refused(rf"^{tmp_path}/a\.npy: ({problem})"):
        read_array(tmp_path / "a.npy", "x")
    with refused(rf"^{tmp_path}/a\.npz.*({problem})"):
        read_array(npz(tmp_path / "a.npz", x=content), "x")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4))
def test_damage_raises_nothing_else(tmp_path: Path, damage: list[tuple[int, bytes]]) -> None:
    for path in (npz(tmp_path / "a.npz", x=npy(np.arange(20.0))), tmp_path / "a.npy"):
        content = bytearray(path.read_bytes() if path.suffix == ".npz" else npy(np.arange(20.0)))
        for position, some in damage:
            at = position % len(content)
            content[at : at + len(some)] = some
        path.write_bytes(content)
        with suppress(CaffeconvError):
            read_array(path, "x")
