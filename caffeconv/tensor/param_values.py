"""Values of a parameter wherever they lie: in a weights file, in memory, or nowhere until something computes them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from caffeconv.tensor.shape import FloatArray, Shape

BLOCK = 1 << 20
"""As many values are read, or copied, at once where a blob is taken in blocks."""


class Location(NamedTuple):
    """Where a file holds a parameter's values as contiguous little-endian float32."""

    path: Path
    offset: int
    """In bytes."""


class ParamValues(ABC):
    """The values of one parameter, float32; whoever reads them knows the shape."""

    @property
    def is_filled(self) -> bool:
        """Whether nothing but a filler made the values."""
        return False

    @property
    def location(self) -> Location | None:
        """Where a file holds the values as they are; None where none does."""
        return None

    @abstractmethod
    def array(self) -> FloatArray:
        """All values, float32, 1-D or of the parameter's shape; a view of what holds them where that is possible."""

    def blocks(self) -> Iterator[FloatArray]:
        """The values in blocks of at most BLOCK, 1-D float32, in C order, so that copies of them take little memory."""
        values = self.array().ravel()
        for start in range(0, values.size, BLOCK):
            yield values[start : start + BLOCK]


@dataclass(frozen=True, eq=False)
class FileValues(ParamValues):
    """Values that still lie in a weights file."""

    path: Path
    blob: Blob

    @property
    def location(self) -> Location | None:
        return None if self.blob.offset is None else Location(self.path, self.blob.offset)

    def array(self) -> FloatArray:
        return self.blob.array()

    def blocks(self) -> Iterator[FloatArray]:
        """As `ParamValues.blocks`, so that a large blob never lies in memory as a whole."""
        return self.blob.blocks()


@dataclass(frozen=True, eq=False)
class FillerValues(ParamValues):
    """Values that a filler makes each time that they are read, and always the same."""

    fill: Callable[[], FloatArray]

    @property
    def is_filled(self) -> bool:
        return True

    def array(self) -> FloatArray:
        return self.fill()


@dataclass(frozen=True, eq=False)
class ArrayValues(ParamValues):
    """Values in memory."""

    values: FloatArray

    def array(self) -> FloatArray:
        return self.values


@dataclass(frozen=True, eq=False)
class ObservedValues(ParamValues):
    """Values that may change later: whoever reads them is told of."""

    current: Callable[[], FloatArray]
    on_read: Callable[[], object]

    def array(self) -> FloatArray:
        self.on_read()
        return self.current()


@dataclass(frozen=True, eq=False)
class DerivedValues(ParamValues):
    """Values computed from those of other parameters each time that they are read, so that few lie in memory at once."""

    compute: Callable[[], FloatArray]
    from_filler: bool = False
    """Whether what they are computed from is nothing but a filler's values."""

    @property
    def is_filled(self) -> bool:
        return self.from_filler

    def array(self) -> FloatArray:
        return self.compute()


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
