"""An ONNX file's records of the files that its tensors lie in, read without the onnx package or the file's graph."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from caffeconv.errors import CaffeconvError
from caffeconv.files.foreign_json import MALFORMED
from caffeconv.files.plain_file import PlainFile
from caffeconv.files.wire import BYTES, Scan

FILES_KEY = "caffeconv.files"
_METADATA_PROPS, _KEY, _VALUE = 14, 1, 2


@dataclass(frozen=True)
class FileRecord:
    """A file that a model points into: where it lies from the model's folder, and its content."""

    location: str
    bytes: int
    sha256: str


def record_text(records: Iterable[FileRecord]) -> str:
    """The records as they stand under FILES_KEY in a model's metadata."""
    return json.dumps([asdict(record) for record in records], ensure_ascii=False)


def recorded_files(path: Path) -> tuple[FileRecord, ...]:
    """The records in a model's metadata; none of a file that has none, or is no ONNX model."""
    try:
        texts = [value for key, value in _metadata(path) if key == FILES_KEY]
        records = [record for text in texts for record in json.loads(text)]
        return tuple(FileRecord(str(r["location"]), int(r["bytes"]), str(r["sha256"])) for r in records)
    except (OSError, CaffeconvError, *MALFORMED):
        return ()


def _metadata(path: Path) -> Iterator[tuple[str, str]]:
    source = PlainFile(path)
    scan = Scan(source, path, "ONNX model")
    for number, wire, _, start, end in scan.fields(0, len(source)):
        if number == _METADATA_PROPS and wire == BYTES:
            entry = {inner: scan.text(*span) for inner, _, _, *span in scan.fields(start, end)}
            yield entry.get(_KEY, ""), entry.get(_VALUE, "")
