"""What files other than nets hold, as text and as JSON."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from caffeconv.cli.show.console import echo, visible
from caffeconv.inspection.report_json import VERSION
from caffeconv.tensor.shape import format_shape

if TYPE_CHECKING:
    from caffeconv.cli.show.layer_table import Column
    from caffeconv.inspection.data_listing import ArrayListing, DatabaseListing, DatasetListing
    from caffeconv.inspection.weights_listing import BlobListing, WeightsChange, WeightsListing

MOST_LABELS = 20


def print_weights(listing: WeightsListing) -> None:
    """A row for each blob, then what the file is."""
    from caffeconv.cli.show.layer_table import fitting, lines_of, terminal_width

    columns = fitting(functools.partial(_blob_columns, listing), terminal_width())
    for row in range(-1, len(columns[0].cells)):
        for line in lines_of(columns, row):
            echo(line)
    layers = [layer for layer in listing.layers if layer.blobs]
    net = f", net '{listing.net}'" if listing.net else ""
    echo(
        f"{listing.path}: {listing.form}{net}: {len(layers)} layers with parameters of {len(listing.layers)}, "
        f"{listing.parameter_count:,} values"
    )


def _blob_columns(listing: WeightsListing, longest: int | None) -> list[Column]:
    """The table of blobs, with names of at most so many characters; statistics go first where there is no room."""
    from caffeconv.cli.show.layer_table import Column, elided

    rows = [(layer, i, blob) for layer in listing.layers for i, blob in enumerate(layer.blobs)]

    def name(text: str, i: int) -> list[str]:
        return [elided(visible(text), longest)] if i == 0 else []

    columns = [
        Column("layer", [name(layer.name, i) for layer, i, _ in rows]),
        Column("type", [name(layer.type, i) for layer, i, _ in rows]),
        Column("blob", [[_blob_text(blob)] for *_, blob in rows]),
        Column("values", [[str(blob.count)] for *_, blob in rows], 5, right=True),
    ]
    statistics = [_statistics(blob) for *_, blob in rows]
    if any(statistics):
        headings = (("min", 1), ("mean", 3), ("max", 2), ("deviation", 6), ("zeros", 4))
        for k, (heading, rank) in enumerate(headings):
            columns.append(Column(heading, [list(each[k : k + 1]) for each in statistics], rank, right=True))
    return columns


def _blob_text(blob: BlobListing) -> str:
    return format_shape(blob.shape) + ("" if blob.storage == "float" else f" ({blob.storage})")


def _statistics(blob: BlobListing) -> Sequence[str]:
    values = blob.statistics
    if values is None:
        return ()
    zeros = f"{values.zeros / blob.count:.0%}" + (f", {values.not_finite} NaN or ∞" if values.not_finite else "")
    return (*(f"{v:.4g}" for v in (values.minimum, values.mean, values.maximum, values.deviation)), zeros)


def weights_to_json(listing: WeightsListing) -> str:
    """The listing as JSON: `version`, `file`, `net`, `form`, `parameters`, `layers`."""
    return json.dumps(
        {
            "version": VERSION, "file": str(listing.path), "net": listing.net, "form": listing.form,
            "parameters": listing.parameter_count, "layers": [asdict(layer) for layer in listing.layers],
        },
        indent=1,
    )  # fmt: skip


def print_weights_changes(changes: Sequence[WeightsChange]) -> None:
    """The layers in which two weights files differ."""
    for change in changes:
        echo(f"{change.name} ({change.kind})")
        for line in change.changes:
            echo(f"  {line}")
    if not changes:
        echo("No blob differs.")


def print_database(listing: DatabaseListing) -> None:
    """Records, keys, shapes and labels."""
    total = f"{listing.records} records" if listing.records is not None else "records"
    echo(f"{listing.path}: {'LMDB' if listing.backend == 'LMDB' else 'LevelDB'}, {total}")
    echo(f"keys: {', '.join(listing.first_keys)}" + (", …" if listing.looked_at > len(listing.first_keys) else ""))
    echo(f"of the first {listing.looked_at} records:")
    for content, number in listing.contents.items():
        echo(f"  {number} × {content}")
    for line in _label_lines(listing.labels):
        echo(f"  {line}")


def print_datasets(path: object, datasets: Sequence[DatasetListing]) -> None:
    """The datasets of an HDF5 file, rows along axis 0."""
    echo(f"{path}: HDF5, {len(datasets)} datasets")
    for each in datasets:
        echo(f"  {each.name}: {format_shape(each.shape)} {each.dtype}")
        for line in _label_lines(each.labels):
            echo(f"    {line}")


def _label_lines(labels: Mapping[int, int]) -> Iterator[str]:
    if not labels:
        return
    counts = ", ".join(f"{label}: {number}" for label, number in list(labels.items())[:MOST_LABELS])
    rest = len(labels) - MOST_LABELS
    yield f"{len(labels)} labels, {min(labels)} to {max(labels)}: {counts}" + (f", and {rest} more" if rest > 0 else "")


def print_array(listing: ArrayListing) -> None:
    """A mean with its channels, a matrix H as numbers, any other blob with its range."""
    values = listing.values
    echo(
        f"{listing.path}: one blob of {format_shape(listing.shape)}, {values.size} values from {values.min():.6g} to "
        f"{values.max():.6g}, mean {values.mean(dtype='f8'):.6g}"
    )
    if listing.channel_means:
        echo(f"mean of each channel: {', '.join(f'{mean:.6g}' for mean in listing.channel_means)}")
    if listing.matrix is not None:
        from caffeconv.cli.show.console import make_console
        from caffeconv.infogain.picture import lines_of

        console = make_console()
        for line in lines_of(listing.matrix, (), console.width if console.is_terminal else None):
            console.print(line, soft_wrap=True)


def listing_to_json(listing: DatabaseListing | ArrayListing) -> str:
    """A database's or a blob's listing as JSON."""
    import numpy as np

    content = {name: value for name, value in asdict(listing).items() if not isinstance(value, np.ndarray)}
    return json.dumps({"version": VERSION, **content}, indent=1, default=str)
