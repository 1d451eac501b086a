"""The report of `inspect` as one page that needs nothing else: no network, no other file."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from caffeconv.caffe_format.prototxt_writer import message_text
from caffeconv.cli.show.kernels import first_kernels
from caffeconv.inspection.diagnose.edit import field_text, settings_of, written_fields
from caffeconv.inspection.diagnose.size_trace import describe_layer
from caffeconv.inspection.report_json import Json
from caffeconv.layers import LAYERS

if TYPE_CHECKING:
    from caffeconv.inspection.layer_report import LayerReport
    from caffeconv.inspection.report import Report
    from caffeconv.ir.layer import Node
    from caffeconv.tensor.param import Param

BINS = 40
MOST_VALUES = 200_000
"""As many values of a parameter go into its histogram, evenly picked."""
LEAST_GROUP = 3
_BADGES = {"fits": "", "does not fit": "bad", "no weights": "open", "fits in part": "open"}
"""Verdict → the badge's class in the style sheet."""


def to_html(report: Report, *, histograms: bool) -> str:
    """The page; with `histograms` the parameters' values are read."""
    page = files("caffeconv.cli.show").joinpath("page")
    data = json.dumps(_data(report, histograms=histograms), separators=(",", ":"))
    parts = {
        "STYLE": page.joinpath("inspect.css").read_text("utf-8"),
        "SCRIPT": page.joinpath("inspect.js").read_text("utf-8"),
        "DATA": data.replace("<", "\\u003c"),
        "TITLE": html.escape(report.net or "net"),
        "VERDICT": report.verdict,
        "BADGE": _BADGES[report.verdict],
    }
    text = page.joinpath("inspect.html").read_text("utf-8")
    return re.sub("|".join(parts), lambda match: parts[match.group()], text)


def _data(report: Report, *, histograms: bool) -> Json:
    data = report.as_json()
    by_name = {node.name: node for node in report.nodes}
    layers = [
        {
            **layer_json,
            "tops": layer_json["tops"] or [{"name": top, "shape": None} for top in _tops(layer)],
            "built": layer.name in by_name,
            "problems": [{"message": d.message, "hint": d.hint.replace("\n  ", "\n")} for d in layer.problems],
            "summary": describe_layer(layer.definition) if layer.definition else layer.type,
            "settings": _settings(layer),
            "written": _written(layer),
            "histograms": list(_histograms(by_name.get(layer.name))) if histograms else [],
        }
        for layer_json, layer in zip(data["layers"], report.layers, strict=True)
    ]  # fmt: skip
    diagnostics = [{**d, "hint": str(d["hint"]).replace("\n  ", "\n")} for d in data["diagnostics"]]
    blocks = groups([layer.name for layer in report.layers])
    kernels = first_kernels(report.nodes) if histograms else ("", "")
    fix = report.fixed_text if report.cures else ""
    return {
        **data, "layers": layers, "diagnostics": diagnostics, "advice": report.advice, "groups": blocks,
        "kernels": {"layer": kernels[0], "picture": kernels[1]}, "fixed_text": fix,
    }  # fmt: skip


def _tops(layer: LayerReport) -> tuple[str, ...]:
    return layer.definition.tops if layer.definition is not None else ()


def _settings(layer: LayerReport) -> str:
    """The fields that the prototxt gives, and those of the window that it leaves at their defaults."""
    kind = LAYERS.get(layer.type)
    if layer.definition is None or kind is None or not kind.settings:
        return ""
    names = {*written_fields(layer.definition), kind.channel_setting, *kind.size_settings}
    settings = {
        name: value for name, value in settings_of(layer.definition).items()
        if name in names
    }  # fmt: skip
    return ", ".join(f"{name}: {field_text(name, value)}" for name, value in settings.items())


def _written(layer: LayerReport) -> str:
    """The messages of settings as the prototxt has them, a field a line."""
    if layer.definition is None:
        return ""
    messages = ((field, value) for field, value in layer.definition.proto.ListFields() if field.name.endswith("_param"))
    return "\n".join(message_text(field.name, value) for field, value in messages)


def _histograms(node: Node | None) -> Iterator[Json]:
    for param in node.params if node is not None else ():
        if param.values is not None and not param.is_filled:
            yield _histogram(param)


def _histogram(param: Param) -> Json:
    # not as the net would have them: what does not fit its shape is shown too
    values = np.concatenate([np.empty(0, np.float32), *(block.ravel() for block in param.blocks())])
    values = values[:: max(1, values.size // MOST_VALUES)]
    values = values[np.isfinite(values)]
    if not values.size:
        return {"name": param.name, "low": 0.0, "high": 0.0, "counts": []}
    counts, edges = np.histogram(values.astype(np.float64), BINS)
    return {"name": param.name, "low": float(edges[0]), "high": float(edges[-1]), "counts": counts.tolist()}


def groups(names: Sequence[str]) -> list[Json]:
    """Runs of layers whose names begin alike, as ``res2a``, ``inception_3a/…``: name, first and last index."""
    stems = [_stem(name) for name in names]
    blocks: list[Json] = []
    start = 0
    for i in range(1, len(names) + 1):
        if i < len(names) and stems[i] == stems[start]:
            continue
        if stems[start] and i - start >= LEAST_GROUP and i - start < len(names):
            blocks.append({"name": stems[start], "first": start, "last": i - 1})
        start = i
    return blocks


def _stem(name: str) -> str:
    """What stands before the last ``/``; else the block in the name: ``stage0_block1``, ``block 2a``."""
    name = re.sub(r"^(relu|prelu|bn|batchnorm|scale|drop|dropout|norm)_(?=[a-z])", "", name, flags=re.IGNORECASE)
    if "/" in name:
        return name.rsplit("/", 1)[0]
    parts = re.findall(r"(?:block|unit|stage|layer|group)_?\d+[a-z]?", name)
    if parts:
        return "_".join(parts)
    match = re.match(r"(?:[a-z]+_?)?(?:res|scale|bn|conv|relu|pool|norm|drop|fire)?_?(\d+[a-z]?)", name, re.IGNORECASE)
    return f"block {match.group(1)}" if match else ""
