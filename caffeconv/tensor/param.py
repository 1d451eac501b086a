"""One parameter blob of a layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from caffeconv.tensor.shape import FloatArray, Shape


@dataclass(frozen=True)
class Param:
    """One parameter blob of a layer: its shape and, once bound, its values."""

    name: str
    shape: Shape
    values: Callable[[], FloatArray] | None = None
    owner: tuple[str, str] | None = None
    """(layer, parameter) that owns a shared blob, None for a blob of the layer's own."""
    shared: bool = False
    """Whether another layer uses this blob too."""
    source: str = ""
    """Where the values come from: a file's name, or the filler."""

    def array(self) -> FloatArray:
        """The values, float32, shaped as `shape`."""
        if self.values is None:
            raise RuntimeError(f"parameter {self.name} has not been bound")
        return self.values().reshape(self.shape)
