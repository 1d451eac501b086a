"""Files that stay as they are while they are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from caffeconv.errors import CaffeconvError


@contextmanager
def unchanged(paths: Iterable[Path]) -> Iterator[None]:
    """Raises CaffeconvError where one of the files is written to while the block reads it: what was read is a mixture."""
    before = {path: _stamp(path) for path in paths}
    yield
    for path, stamp in before.items():
        if _stamp(path) != stamp:
            raise CaffeconvError(
                f"{path}: the file was changed while it was read; a file that stays as it is was needed. Run again; "
                "write a new file beside it and rename that, and readers have the one or the other"
            )


def _stamp(path: Path) -> tuple[int, ...] | None:
    if not path.is_file():
        return None
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
