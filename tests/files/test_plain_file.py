"""Plain files are read; pipes, devices and names that no file can have are refused at once."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from caffeconv.errors import CaffeconvError
from caffeconv.files.plain_file import NotPlainFileError, PlainFile, read_plain, refuse_special, require_plain

READERS: tuple[Callable[[Path], object], ...] = (PlainFile, read_plain, require_plain, refuse_special)


@pytest.mark.parametrize("read", READERS)
def test_what_is_no_plain_file_is_refused_at_once(read: Callable[[Path], object], tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    link = tmp_path / "link"
    link.symlink_to(pipe)
    for path, kind in ((pipe, "a pipe"), (link, "a pipe"), (Path("/dev/zero"), "a device")):
        with pytest.raises(NotPlainFileError, match=re.escape(f"{path}: this is {kind}; a plain file was needed")):
            read(path)
    with pytest.raises(NotPlainFileError, match="a name with a NUL in it"):
        read(Path("a\0b"))


def test_a_missing_file_is_an_oserror_that_the_caller_words(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_plain(tmp_path / "none")
    with pytest.raises(NotPlainFileError, match=f"a name of {len(str(tmp_path)) + 301} characters"):
        read_plain(tmp_path / ("a" * 300))
    with pytest.raises(IsADirectoryError):
        read_plain(tmp_path)


def test_parts_of_a_file_and_windows_in_it(tmp_path: Path) -> None:
    content = bytes(range(256)) * 200
    (tmp_path / "f").write_bytes(content)
    file = PlainFile(tmp_path / "f")
    assert (len(file), file.read(10, 20), file.array(0, 3).tolist()) == (len(content), content[10:20], [0, 1, 2])
    for position in (0, 5, 16380, 3, len(content) - 1, len(content) - 30000):
        window, start = file.window(position)
        assert start <= position
        assert window[position - start :][:10] == content[position : position + 10]
    os.truncate(tmp_path / "f", 15)
    with pytest.raises(CaffeconvError, match=r"the file ends at byte 15 now, and had 51200 when it was opened"):
        file.read(10, 20)
