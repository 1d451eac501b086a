"""Files that list files, and where what they list is found."""

from __future__ import annotations

from pathlib import Path

from caffeconv.data.errors import SourceUnavailableError
from caffeconv.errors import CaffeconvError


def read_list(path: Path) -> str:
    """The text of a file that a layer lists its files in; SourceUnavailableError where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        raise SourceUnavailableError(
            f"Failed to open source file: {path}; a list of files was needed. "
            f"Caffe looks from the current folder, which is {Path.cwd()}"
        ) from None
    except OSError as error:
        raise CaffeconvError(f"{path}: cannot be read: {error.strerror}; a list of files was needed") from None


def find_listed(name: str, directory: Path) -> Path:
    """A file that a list names: as Caffe looks it up (from the current folder), else from `directory`."""
    path = Path(name)
    beside = directory / path
    return beside if not path.exists() and beside.exists() else path
