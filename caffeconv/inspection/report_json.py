"""The report of `inspect` as JSON; docs/inspect.md describes it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Protocol, TypedDict

from caffeconv.errors import Diagnostic
from caffeconv.inspection.diagnose.edit import field_text
from caffeconv.inspection.diagnose.search import Cure
from caffeconv.inspection.layer_report import LayerReport

VERSION = 1
Json = dict[str, object]


class ReportJson(TypedDict):
    """What docs/inspect.md describes."""

    version: int
    net: str
    ok: bool
    verdict: str
    unfilled: list[str]
    inputs: dict[str, list[int]]
    outputs: dict[str, list[int]]
    parameters: int
    multiply_adds: int
    activation_bytes: int
    peak_bytes: int
    layers: list[Json]
    diagnostics: list[Json]
    cures: list[Json]
    weights_fix: Json | None


def layer_json(layer: LayerReport) -> Json:
    """A layer."""
    field = layer.receptive_field
    return {
        "name": layer.name,
        "type": layer.type,
        "line": layer.line,
        "bottoms": list(layer.bottoms),
        "tops": [{"name": name, "shape": list(shape)} for name, shape in layer.tops],
        "params": [{"name": name, "shape": list(shape)} for name, shape in layer.params],
        "parameters": layer.parameter_count,
        "multiply_adds": layer.multiply_adds,
        "activation_bytes": layer.activation_bytes,
        "receptive_field": None if field is None else {
            "size": list(field.size), "stride": [float(step) for step in field.stride],
        },
        "formulas": list(layer.formulas),
    }  # fmt: skip


def layer_to_json(layer: LayerReport, lines: Sequence[str]) -> str:
    """A layer, with the lines that explain it, as JSON."""
    return json.dumps({"version": VERSION, **layer_json(layer), "explanation": list(lines)}, indent=1)


def diagnostic_json(diagnostic: Diagnostic) -> Json:
    """A problem."""
    return asdict(diagnostic)


def cure_json(cure: Cure) -> Json:
    """A suggested fix."""
    return {
        "text": str(cure),
        "source": cure.source,
        "unfilled": list(cure.unfilled),
        "unused": list(cure.unused),
        "edits": [
            {"layer": edit.layer, "field": name, "from": field_text(name, old), "to": field_text(name, new)}
            for edit in cure.edits
            for (name, old), new in zip(edit.before.items(), edit.after.values(), strict=True)
        ],
    }


class Change(Protocol):
    """What differs in one layer."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> str: ...

    @property
    def changes(self) -> Sequence[str]: ...


def changes_to_json(changes: Sequence[Change]) -> str:
    """What differs between two nets or two weights files, as JSON."""
    layers = [{"layer": change.name, "kind": change.kind, "changes": list(change.changes)} for change in changes]
    return json.dumps({"version": VERSION, "same": not layers, "layers": layers}, indent=1)
