"""The report of `inspect` as JSON; docs/inspect.md describes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

from caffeconv.inspection.diagnose.edit import field_text

if TYPE_CHECKING:
    from caffeconv.inspection.diagnose import Cure
    from caffeconv.inspection.diff import LayerChange
    from caffeconv.inspection.report import LayerReport, Report
    from caffeconv.inspection.weights_listing import WeightsChange

VERSION = 1
Json = dict[str, object]


def to_json(report: Report) -> str:
    """The report as JSON."""
    import json

    return json.dumps({**report_json(report)}, indent=1)


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


def report_json(report: Report) -> ReportJson:
    """The report as what JSON knows: numbers, text, lists and objects."""
    return {
        "version": VERSION,
        "net": report.net,
        "ok": report.ok,
        "verdict": report.verdict,
        "unfilled": list(report.unfilled),
        "inputs": {name: list(shape) for name, shape in report.inputs.items()},
        "outputs": {name: list(shape) for name, shape in report.outputs.items()},
        "parameters": report.parameter_count,
        "multiply_adds": report.multiply_adds,
        "activation_bytes": report.activation_bytes,
        "peak_bytes": report.peak_bytes,
        "layers": [_layer(layer) for layer in report.layers],
        "diagnostics": [
            {"severity": d.severity, "where": d.where, "message": d.message, "hint": d.hint, "layer": d.layer}
            for d in report.diagnostics
        ],
        "cures": [_cure(cure) for cure in report.cures],
        "weights_fix": None if report.weights_fix is None else {
            "changes": list(report.weights_fix.changes), "keeps_numbers": report.weights_fix.keeps_numbers,
        },
    }  # fmt: skip


def _layer(layer: LayerReport) -> Json:
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


def _cure(cure: Cure) -> Json:
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


def changes_to_json(changes: Sequence[LayerChange] | Sequence[WeightsChange]) -> str:
    """What differs between two nets or two weights files, as JSON."""
    import json

    layers = [{"layer": change.name, "kind": change.kind, "changes": list(change.changes)} for change in changes]
    return json.dumps({"version": VERSION, "same": not layers, "layers": layers}, indent=1)
