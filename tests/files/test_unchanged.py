"""Files that are written to while they are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from caffeconv.errors import CaffeconvError
from caffeconv.files.unchanged import unchanged


def write_longer(path: Path) -> None:
    path.write_text("longer than before")


def write_and_fail(path: Path) -> None:
    write_longer(path)
    raise ZeroDivisionError


def replace_by_its_like(path: Path) -> None:
    (path.parent / "new").write_bytes(path.read_bytes())
    (path.parent / "new").replace(path)


@pytest.mark.parametrize("change", [write_longer, replace_by_its_like, Path.unlink])
def test_a_change_is_refused_once_the_block_ends(tmp_path: Path, change: Callable[[Path], None]) -> None:
    path = tmp_path / "list.txt"
    path.write_text("before")
    message = "list.txt: the file was changed while it was read; a file that stays as it is was needed. Run again"
    with pytest.raises(CaffeconvError, match=message), unchanged([tmp_path / "other", path]):
        change(path)


def test_a_file_that_appears_is_a_change(tmp_path: Path) -> None:
    with pytest.raises(CaffeconvError, match="was changed"), unchanged([tmp_path / "new"]):
        (tmp_path / "new").write_text("")


def test_reading_and_changes_elsewhere_are_none(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("before")
    with unchanged(iter([path, tmp_path])):  # what is no file is not watched
        (tmp_path / "other").write_text(path.read_text())


def test_what_goes_wrong_inside_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("before")
    with pytest.raises(ZeroDivisionError), unchanged([path]):
        write_and_fail(path)
