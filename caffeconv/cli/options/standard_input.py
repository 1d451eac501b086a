"""`--input -`: one picture or array from stdin."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from caffeconv.errors import CaffeconvError

STDIN = "-"
_ARRAYS = {b"\x93NUMPY": ".npy", b"PK\x03\x04": ".npz"}
"""First bytes → suffix of the file that they stand in; all else is a picture."""


@contextmanager
def standard_input(inputs: Sequence[str]) -> Iterator[tuple[tuple[str, ...], Path | None]]:
    """The inputs, with a file that holds what stdin gave in the place of `-`; and that file, None where nobody asks for it.

    The file is gone when the block ends. Messages about it say "stdin". Raises a usage error where stdin is a terminal or
    is asked for twice, CaffeconvError where it gives nothing.
    """
    asking = [value for value in inputs if value.rpartition("=")[2] == STDIN]
    if not asking:
        yield tuple(inputs), None
        return
    if len(asking) > 1:
        raise click.UsageError(f"--input {' --input '.join(asking)}: stdin holds one picture or array, for one input")
    if sys.stdin.isatty():
        raise click.UsageError(
            f"--input {asking[0]}: stdin is the terminal; a picture or array was needed: … < picture.png"
        )
    with TemporaryDirectory(prefix="caffeconv-") as folder:
        file = _keep(Path(folder))
        try:
            yield tuple(value[: -len(STDIN)] + str(file) if value in asking else value for value in inputs), file
        except CaffeconvError as error:
            if str(file) not in str(error):
                raise
            raise CaffeconvError(str(error).replace(str(file), "stdin")) from error


def _keep(folder: Path) -> Path:
    content = sys.stdin.buffer.read()
    if not content:
        raise CaffeconvError("stdin: empty; a picture or an array (.npy, .npz) was needed")
    suffix = next((suffix for start, suffix in _ARRAYS.items() if content.startswith(start)), "")
    file = folder / f"stdin{suffix}"
    file.write_bytes(content)
    return file
