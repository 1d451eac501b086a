"""Values of parameters that still lie in a weights file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from caffeconv.ir import FloatArray, Param
from caffeconv.read.caffemodel import Blob


@dataclass(frozen=True, eq=False)
class StoredValues:
    """A parameter's values in a weights file; called, it gives them: 1-D float32."""

    path: Path
    blob: Blob

    def __call__(self) -> FloatArray:
        return self.blob.array()

    @property
    def offset(self) -> int | None:
        """Byte offset in the file of contiguous little-endian float32 values; None where they are stored otherwise."""
        return self.blob.offset

    def blocks(self) -> Iterator[FloatArray]:
        """The values one block after another, 1-D float32, so that a large blob is never held whole."""
        return self.blob.blocks()


def value_blocks(param: Param) -> Iterator[FloatArray]:
    """A parameter's values, 1-D float32, one block after another where they come from a file."""
    if isinstance(param.values, StoredValues):
        yield from param.values.blocks()
    else:
        yield param.array().ravel()
