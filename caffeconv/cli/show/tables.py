"""A run's results as tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from caffeconv.cli.show.console import make_console
from caffeconv.cli.show.elision import Elided
from caffeconv.tensor.shape import format_shape

Array = NDArray[np.float32]
MAX_VALUES = 12


def guess_kind(values: Array, items: int) -> str:
    """What an output of a model that does not say so looks like: detections, probabilities or nothing known."""
    if values.ndim == 4 and values.shape[:2] == (1, 1) and values.shape[3] == 7:
        return "detections"
    rows = values.reshape(len(values), -1) if values.ndim >= 2 and len(values) == items else None
    if rows is not None and rows.shape[1] > 1 and (rows >= 0).all() and np.allclose(rows.sum(axis=1), 1, atol=1e-3):
        return "probabilities"
    return ""


def _empty(*headings: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        numeric = heading in ("score", "class", "xmin", "ymin", "xmax", "ymax")
        table.add_column(Elided(heading), justify="right" if numeric else "left", no_wrap=numeric)
    return table


def classes(name: str, values: Array, items: Sequence[str], labels: Sequence[str], top_k: int) -> Table:
    """The `top_k` greatest values of each row, with their class numbers and names."""
    table = _empty("item", name, "class", *(["label"] if labels else []))
    for item, row in zip(items, values.reshape(len(items), -1), strict=True):
        for rank, index in enumerate(np.argsort(-row, kind="stable")[:top_k]):
            label = [Elided(labels[index])] if index < len(labels) else [""] if labels else []
            table.add_row(Elided(item) if rank == 0 else "", f"{row[index]:.4f}", str(index), *label)
    return table


def detections(name: str, values: Array, items: Sequence[str], labels: Sequence[str], threshold: float) -> Table:
    """Boxes with a score of at least `threshold`: xmin, ymin, xmax, ymax are fractions of the picture."""
    table = _empty("item", name, "score", "xmin", "ymin", "xmax", "ymax")
    for image, label, score, *box in values.reshape(-1, 7):
        if score < threshold or label < 0:
            continue
        item = items[int(image)] if 0 <= int(image) < len(items) else str(int(image))
        label_text = labels[int(label)] if int(label) < len(labels) else f"class {int(label)}"
        table.add_row(Elided(item), Elided(label_text), f"{score:.4f}", *(f"{edge:.4f}" for edge in box))
    if not table.row_count:
        table.add_row(f"nothing with a score of at least {threshold:g}")
    return table


def summary(name: str, values: Array) -> Table:
    """Shape, range and mean of a blob; all of its values where they are few."""
    table = _empty(name, "shape", "min", "mean", "max")
    if values.size == 0:
        table.add_row("", format_shape(values.shape), "", "", "")
        return table
    stats = (f"{function(values):.6g}" for function in (np.min, np.mean, np.max))
    table.add_row("", format_shape(values.shape), *stats)
    if values.size <= MAX_VALUES:
        table.add_row(" ".join(f"{value:.6g}" for value in values.ravel()), "", "", "", "")
    return table


def print_blobs(
    results: Mapping[str, Array], kind_of: Callable[[str, Array, int], str], items: Sequence[str], labels: Sequence[str],
    top_k: int, threshold: float,
) -> None:  # fmt: skip
    """Prints each blob as what it is: classes, detections, or a summary."""
    console = make_console()
    for name, values in results.items():
        kind = kind_of(name, values, len(items))
        if kind == "classes":
            console.print(classes(name, values, items, labels, top_k))
        elif kind == "detections":
            console.print(detections(name, values, items, labels, threshold))
        else:
            console.print(summary(name, values))
