"""What the system says of a file that cannot be opened or read, in one set of words for all that people name."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from caffeconv.caffe_format.foreign_files import what_folder
from caffeconv.errors import CaffeconvError


@contextmanager
def file_faults(path: Path, needed: str) -> Iterator[None]:
    """Makes CaffeconvErrors of the system's; needed: what the file was to be, with its article."""
    try:
        yield
    except FileNotFoundError:
        raise CaffeconvError(f"{path}: no such file; {needed} was needed{_similar(path)}") from None
    except IsADirectoryError:
        raise CaffeconvError(f"{path}: this is {what_folder(path)}; {needed} was needed") from None
    except OSError as error:
        raise CaffeconvError(f"{path}: cannot be read: {error.strerror}; {needed} was needed") from None


def _similar(path: Path) -> str:
    parent = path.parent
    names = [entry.name for entry in parent.iterdir() if entry.is_file()] if parent.is_dir() else []
    # a name without its suffix; else one that is near, of the same kind
    stems = {Path(name).stem: name for name in sorted(names, reverse=True) if Path(name).suffix == path.suffix}
    near = difflib.get_close_matches(path.stem, stems, 1)
    close = [name for name in sorted(names) if Path(name).stem == path.name]
    close += [stems[near[0]]] if near else difflib.get_close_matches(path.name, names, 1, 0.8)
    return f". Did you mean {parent / close[0]}?" if close else ""
