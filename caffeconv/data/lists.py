"""Files that list files."""

from __future__ import annotations

from pathlib import Path

from caffeconv.data.errors import SourceUnavailableError
from caffeconv.errors import CaffeconvError
from caffeconv.files.plain_file import read_plain


def read_list(path: Path) -> str:
    """The text of a file that a layer lists its files in; SourceUnavailableError where there is none."""
    try:
        return read_plain(path).decode("utf-8", "surrogateescape").replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError:
        raise SourceUnavailableError(
            f"Failed to open source file: {path}; a list of files was needed. "
            f"Caffe looks from the current folder, which is {Path.cwd()}"
        ) from None
    except OSError as error:
        raise CaffeconvError(f"{path}: cannot be read: {error.strerror}; a list of files was needed") from None
