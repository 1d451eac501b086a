"""A net as notebooks show it."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence

from caffeconv.inspection.notebook import html_table
from caffeconv.ir.definition import LayerDef
from caffeconv.net.blobs import ParamBlob
from caffeconv.tensor.shape import Shape, format_shape


def net_html(
    title: str, layers: Sequence[LayerDef], shape_of: Callable[[str], Shape], params: Mapping[str, Sequence[ParamBlob]]
) -> str:
    """The title, and a row for each layer with its blobs and its parameters."""

    def blobs(names: Sequence[str]) -> list[str]:
        return [f"{name} {format_shape(shape_of(name))}" for name in names]

    rows = [
        (
            layer.name, layer.type, blobs(layer.bottoms), blobs(layer.tops),
            [format_shape(blob.shape) for blob in params.get(layer.name, ())],
        )
        for layer in layers
    ]  # fmt: skip
    return f"<p>{html.escape(title)}</p>" + html_table(("layer", "type", "bottoms", "tops", "parameters"), rows)
