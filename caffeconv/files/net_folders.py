"""Where the words of a net may lead: what it names is read, or written, in these folders only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from caffeconv.errors import CaffeconvError
from caffeconv.files.database_folders import database_in
from caffeconv.files.plain_file import refuse_special


@dataclass(frozen=True)
class NetFolders:
    """The folders that belong to a net."""

    directory: Path
    """The prototxt's, where files are looked for that are not there as seen from the current folder."""
    root: Path | None = None
    """The folder that every file the net names has to lie in or below; None: files may lie anywhere."""
    output: Path | None = None
    """The folder that the net may write in or below; None: it may not write."""

    def find(self, name: str) -> Path:
        """A file or folder that the net names, as Caffe looks it up (from here), else beside the prototxt.

        It may be missing. Raises CaffeconvError where it is a pipe, a device or the like, or lies outside `root`.
        """
        path, beside = Path(name), self.directory / name
        refuse_special(path)
        found = beside if not path.exists() and beside.exists() else path
        refuse_special(found)
        if self.root is not None and not all(_is_below(path, self.root) for path in (found, *_database_files(found))):
            raise CaffeconvError(f"{name}: it lies outside `root={str(self.root)!r}`, and is not read")
        return found

    def to_write(self, name: str) -> Path:
        """Where a file lies that the net wants to write: a name without a folder lies in `output`.

        Raises CaffeconvError where the net may not write, or the file would lie outside `output`, or is there and no file.
        """
        if self.output is None:
            raise CaffeconvError(
                f"the net wants to write {name}; nothing that a net names is written, unless a folder for that is given: "
                "`output_dir='.'`"
            )
        path = self.output / name
        refuse_special(path)
        if not _is_below(path, self.output):
            raise CaffeconvError(f"{name}: it lies outside `output_dir={str(self.output)!r}`, and is not written")
        return path


def _database_files(folder: Path) -> Iterator[Path]:
    """What a database is read from, whose library opens it by itself; nothing of a folder of other files."""
    if database_in(folder) is not None:
        yield from folder.iterdir()


def _is_below(path: Path, folder: Path) -> bool:
    """Whether a path leads into a folder, all links followed."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a circle of links
        return False
