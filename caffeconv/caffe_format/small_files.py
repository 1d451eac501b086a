"""Files that are read whole: texts, and whatever else people write by hand."""

from __future__ import annotations

from pathlib import Path

from caffeconv.caffe_format.file_faults import file_faults
from caffeconv.errors import CaffeconvError
from caffeconv.files.plain_file import PlainFile

MAX_BYTES = 256 << 20


def read_bytes(path: Path, what: str) -> bytes:
    """A whole plain file's bytes; CaffeconvError with what to try where that fails."""
    with file_faults(path, what):
        file = PlainFile(path)
        if len(file) > MAX_BYTES:
            raise CaffeconvError(f"{path}: {len(file)} bytes are too many for {what}")
        return file.read(0, len(file))
