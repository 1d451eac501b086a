"""What changed between two nets, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from google.protobuf.message import Message

from caffeconv.caffe_format.prototxt_writer import field_value
from caffeconv.inspection.layer_report import LayerReport
from caffeconv.inspection.report import Report
from caffeconv.tensor.shape import Shape, format_shape

Kind = Literal["only in A", "only in B", "differs"]


@dataclass(frozen=True)
class LayerChange:
    """One layer that is not the same in both nets."""

    name: str
    kind: Kind
    changes: tuple[str, ...]
    """``convolution_param.pad: 1 → 0``, ``top conv1: 1×64×56×56 → 1×64×54×54``."""


def compare(a: Report, b: Report) -> tuple[LayerChange, ...]:
    """The layers that differ, in the order of `b`, with those that only `a` has where they stand there."""
    layers_b = {layer.name: layer for layer in reversed(b.layers)}
    layers_a = {layer.name: layer for layer in reversed(a.layers)}
    changes = [_layer_change(layer, layers_b.get(layer.name)) for layer in a.layers]
    changes += [
        LayerChange(layer.name, "only in B", (f"type {layer.type}", *_tops(layer)))
        for layer in b.layers if layer.name not in layers_a
    ]  # fmt: skip
    return tuple(change for change in changes if change is not None)


def _tops(layer: LayerReport) -> Iterator[str]:
    yield from (f"top {name}: {format_shape(shape)}" for name, shape in layer.tops)


def _layer_change(a: LayerReport, b: LayerReport | None) -> LayerChange | None:
    if b is None:
        return LayerChange(a.name, "only in A", (f"type {a.type}", *_tops(a)))
    changes: list[str] = []
    if a.definition is not None and b.definition is not None:
        changes += field_changes(a.definition.proto, b.definition.proto)
    changes += _shape_changes("top", dict(a.tops), dict(b.tops))
    changes += _shape_changes("parameter", dict(a.params), dict(b.params))
    return LayerChange(a.name, "differs", tuple(changes)) if changes else None


def _shape_changes(what: str, a: Mapping[str, Shape], b: Mapping[str, Shape]) -> Iterator[str]:
    for name in dict.fromkeys((*a, *b)):
        if a.get(name) != b.get(name):
            old, new = (format_shape(side[name]) if name in side else "none" for side in (a, b))
            yield f"{what} {name}: {old} → {new}"


def field_changes(a: Message, b: Message, path: str = "") -> Iterator[str]:
    """The fields in which two messages of one type differ: ``pooling_param.stride: 2 → 1``."""
    fields_a = {field.name: (field, value) for field, value in a.ListFields()}
    fields_b = {field.name: (field, value) for field, value in b.ListFields()}
    for name in dict.fromkeys((*fields_a, *fields_b)):
        field, _ = fields_a.get(name) or fields_b[name]
        if name == "blobs" or (name in fields_a and name in fields_b and fields_a[name][1] == fields_b[name][1]):
            continue
        old, new = getattr(a, name), getattr(b, name)
        if isinstance(old, Message) and name in fields_a and name in fields_b:
            yield from field_changes(old, new, f"{path}{name}.")
            continue
        was = field_value(field, old) if name in fields_a else "not given"
        now = field_value(field, new) if name in fields_b else "not given"
        yield f"{path}{name}: {was} → {now}"
