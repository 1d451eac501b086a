"""What `inspect` finds of one layer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from caffeconv.errors import Diagnostic
from caffeconv.inspection.costs import ReceptiveField
from caffeconv.ir.definition import LayerDef
from caffeconv.tensor.shape import Shape, format_shape


@dataclass(frozen=True, repr=False)
class LayerReport:
    """One layer: its blobs with their shapes (axis order as in Caffe), its parameters, and what it costs."""

    name: str
    type: str
    line: int | None
    bottoms: tuple[str, ...]
    tops: tuple[tuple[str, Shape], ...]
    params: tuple[tuple[str, Shape], ...]
    parameter_count: int
    """Numbers in parameters of the layer's own; shared ones count with their owner."""
    multiply_adds: int
    activation_bytes: int
    """Bytes that its tops take, float32; 0 where it works in place."""
    problems: tuple[Diagnostic, ...] = ()
    receptive_field: ReceptiveField | None = None
    """What a place of the first top sees of the input; None where it sees all of it, or that is no picture."""
    definition: LayerDef | None = None
    """The layer as the prototxt has it."""
    formulas: tuple[str, ...] = ()
    """How the first top's spatial sizes come about."""

    def __repr__(self) -> str:
        blobs = f"{', '.join(self.bottoms)} → {', '.join(named_shapes(self.tops))}"
        return f"<layer {self.name} ({self.type}): {blobs.strip()}>"


def named_shapes(blobs: Iterable[tuple[str, Shape]]) -> list[str]:
    """``data 1×3×224×224`` for each."""
    return [f"{name} {format_shape(shape)}" for name, shape in blobs]
