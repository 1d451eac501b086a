"""Files that are read whole: texts, and whatever else people write by hand."""

from __future__ import annotations

import difflib
from pathlib import Path

from caffeconv.caffe_format.foreign_files import what_folder
from caffeconv.errors import CaffeconvError
from caffeconv.files.plain_file import PlainFile

MAX_BYTES = 256 << 20


def read_bytes(path: Path, what: str) -> bytes:
    """A whole plain file's bytes; CaffeconvError with what to try where that fails."""
    try:
        file = PlainFile(path)
        if len(file) > MAX_BYTES:
            raise CaffeconvError(f"{path}: {len(file)} bytes are too many for {what}")
        return file.read(0, len(file))
    except FileNotFoundError:
        raise CaffeconvError(f"{path}: no such file; {what} was needed{_similar(path)}") from None
    except IsADirectoryError:
        raise CaffeconvError(f"{path}: this is {what_folder(path)}; {what} was needed") from None
    except OSError as error:
        raise CaffeconvError(f"{path}: cannot be read: {error.strerror}; {what} was needed") from None


def _similar(path: Path) -> str:
    parent = path.parent
    names = [entry.name for entry in parent.iterdir() if entry.is_file()] if parent.is_dir() else []
    # a name without its suffix; else one that is near, of the same kind
    stems = {Path(name).stem: name for name in sorted(names, reverse=True) if Path(name).suffix == path.suffix}
    near = difflib.get_close_matches(path.stem, stems, 1)
    close = [name for name in sorted(names) if Path(name).stem == path.name]
    close += [stems[near[0]]] if near else difflib.get_close_matches(path.name, names, 1, 0.8)
    return f". Did you mean {parent / close[0]}?" if close else ""
