"""Values of parameters that still lie in a weights file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caffeconv.ir import FloatArray
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
        return (np.ascontiguousarray(block, "<f4") for block in self.blob.blocks())
