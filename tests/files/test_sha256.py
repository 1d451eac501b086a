"""Digests of files, at once or while something else goes on."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from caffeconv.files import sha256
from caffeconv.files.sha256 import Digest, digest_of, hashing


def write(path: Path, content: bytes) -> Digest:
    path.write_bytes(content)
    return Digest(len(content), hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 64])
def test_files_of_any_number_of_blocks(tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sha256, "_BLOCK", 8)
    expected = write(tmp_path / "file", bytes(range(size)))
    assert digest_of(tmp_path / "file") == expected


def test_a_reader_that_is_stopped_gives_no_digest(tmp_path: Path) -> None:
    write(tmp_path / "file", b"content")
    stop = threading.Event()
    stop.set()
    with pytest.raises(InterruptedError, match="file: not read to its end"):
        digest_of(tmp_path / "file", stop)


def test_digests_beside_other_work(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a", b"a"), write(tmp_path / "b", b"bb")
    with hashing([tmp_path / "a", tmp_path / "a"]) as hashes:
        assert hashes.of(tmp_path / "a") == first
        assert hashes.of(tmp_path / "b") == second  # not among those that were named
        with pytest.raises(FileNotFoundError):
            hashes.of(tmp_path / "c")


def test_the_digest_is_that_of_the_file_as_it_was_first(tmp_path: Path) -> None:
    before = write(tmp_path / "a", b"before")
    with hashing([tmp_path / "a"]) as hashes:
        assert hashes.of(tmp_path / "a") == before
        write(tmp_path / "a", b"after")
        assert hashes.of(tmp_path / "a") == before


def test_a_pipe_is_left_to_its_reader(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with hashing([pipe]):  # would wait for a writer otherwise, and for ever
        pass


def test_no_thread_is_left_when_the_block_fails(tmp_path: Path) -> None:
    write(tmp_path / "a", b"a")
    with pytest.raises(KeyError), hashing([tmp_path / "a"]):
        raise KeyError
    assert "sha256" not in {thread.name for thread in threading.enumerate()}
