"""Values of parameters that still lie in a weights file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from caffeconv.tensor.param import Param
from caffeconv.tensor.shape import FloatArray, Shape


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


class Blob(Protocol):
    """A parameter blob of any weights file."""

    @property
    def shape(self) -> Shape: ...
    @property
    def legacy(self) -> bool: ...
    @property
    def count(self) -> int: ...
    @property
    def offset(self) -> int | None: ...
    def array(self) -> FloatArray: ...
    def blocks(self) -> Iterator[FloatArray]: ...
