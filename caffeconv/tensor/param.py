"""One parameter blob of a layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from caffeconv.tensor.param_values import ParamValues
from caffeconv.tensor.shape import FloatArray, Shape

ParamKey = tuple[str, str]
"""A parameter: the layer that owns it, and its name there."""


@dataclass(frozen=True)
class Param:
    """One parameter blob of a layer: its shape and, once bound, its values."""

    name: str
    shape: Shape
    values: ParamValues | None = None
    owner: tuple[str, str] | None = None
    """(layer, parameter) that owns a shared blob, None for a blob of the layer's own."""
    shared: bool = False
    """Whether another layer uses this blob too."""
    source: str = ""
    """Where the values come from, to be read by people: a file's name, or the filler's."""

    def key_in(self, layer: str) -> ParamKey:
        """The key of the parameter that stands in this layer: the owner's, where it is shared."""
        return self.owner or (layer, self.name)

    @property
    def is_filled(self) -> bool:
        """Whether a filler made the values, and no weights file gave any."""
        return self.values is not None and self.values.is_filled

    def array(self) -> FloatArray:
        """The values, float32, shaped as `shape`; raises RuntimeError for a parameter that has not been bound."""
        return self._bound_values().array().reshape(self.shape)

    def blocks(self) -> Iterator[FloatArray]:
        """The values one block after another, 1-D float32; raises RuntimeError as `array` does."""
        return self._bound_values().blocks()

    def _bound_values(self) -> ParamValues:
        if self.values is None:
            raise RuntimeError(f"parameter {self.name} has not been bound")
        return self.values
