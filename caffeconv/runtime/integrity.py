"""Whether the files that an ONNX model points into are still those that it was written for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from caffeconv.errors import CaffeconvError
from caffeconv.files.onnx_records import FileRecord, recorded_files
from caffeconv.files.plain_file import refuse_special
from caffeconv.files.sha256 import hashing

_REMEDY = "put the file back that was there, or convert again"


@contextmanager
def unchanged_files(model: Path) -> Iterator[None]:
    """Around the loading of a model of ours: raises CaffeconvError where a file that it points into is not the same.

    A missing file, or another size, is reported before the block; the SHA-256 is computed beside it and compared at its end.
    """
    records = {_inside(model, record.location): record for record in recorded_files(model)}
    for path, record in records.items():
        _check_size(model, path, record)
    with hashing(records) as hashes:
        yield
        for path, record in records.items():
            if hashes.of(path).sha256 != record.sha256:
                raise CaffeconvError(
                    f"{model}: its weights lie in {path}, which has changed since the model was written "
                    f"(SHA-256 {hashes.of(path).sha256[:12]}…; {record.sha256[:12]}… was needed): {_REMEDY}"
                )


def _inside(model: Path, location: str) -> Path:
    """The file, which has to lie in the model's folder or below, links followed, as onnxruntime wants it too."""
    path = model.parent / location
    try:
        is_inside = path.resolve().is_relative_to(model.parent.resolve())
    except (OSError, RuntimeError, ValueError):  # a circle of links, a NUL
        is_inside = False
    if not is_inside:
        raise CaffeconvError(f"{model}: its weights lie in {location!r}, outside the model's folder, and are not read")
    refuse_special(path)
    return path


def _check_size(model: Path, path: Path, record: FileRecord) -> None:
    if not path.is_file():
        raise CaffeconvError(f"{model}: its weights lie in {path}, and there is no such file: {_REMEDY}")
    size = path.stat().st_size
    if size != record.bytes:
        raise CaffeconvError(
            f"{model}: its weights lie in {path}, which has {size} bytes where {record.bytes} were needed: {_REMEDY}"
        )
