"""The items on which a model's ranges are measured: from pictures, arrays, a database, or the net's own data layers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from caffeconv.data.input_items import ImageSource
from caffeconv.errors import CaffeconvError
from caffeconv.files.database_folders import database_in
from caffeconv.frontend.options import NetOptions
from caffeconv.inference.data_passes import Dataset, DatasetRunner, own_data
from caffeconv.inference.engine import Say
from caffeconv.inference.fixed_batch import fixed_batch_size
from caffeconv.inference.open_inputs import open_inputs, set_batch_size
from caffeconv.inference.open_runner import open_net
from caffeconv.inference.request import RunRequest
from caffeconv.runtime.session import Session
from caffeconv.tensor.shape import FloatArray

BATCH = 8
"""Items a batch, where the model takes any number."""


@dataclass(frozen=True)
class CalibrationItems:
    """Batches for a model's inputs, and what is known of their items."""

    batches: tuple[Mapping[str, FloatArray], ...]
    labels: FloatArray | None
    """The class of each item, in order, where the data have one."""
    source: str


class _Echo:
    """Stands where a model stands, and gives what it is fed."""

    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()

    def kind(self, output: str) -> str:
        return ""

    def run(self, feeds: Mapping[str, FloatArray], outputs: Sequence[str]) -> Mapping[str, FloatArray]:
        return {name: values.copy() for name, values in feeds.items()}


def read_calibration_items(session: Session, request: RunRequest, most: int, say: Say) -> CalibrationItems:
    """Up to `most` items for the session's inputs, in the order of the data.

    request: its `inputs`, which may be pictures, lists, arrays, or the folder of one LMDB or LevelDB; without any the
    net's own data layers are read. Raises CaffeconvError where they do not fill the session's inputs.
    """
    if request.inputs and not _is_database(request.inputs[0]):
        inputs = open_inputs(session, request.inputs, request.images)
        set_batch_size(inputs, session, BATCH)
        dataset = Dataset(_Echo(), inputs.sources)
        source, constants = ", ".join(request.inputs), inputs.constants
        pictures = next((it for it in inputs.sources.values() if isinstance(it, ImageSource)), None)
        classes = pictures.images.classes if pictures is not None else None
    else:
        dataset, constants, classes = _own_or_database(request, say), {}, None
        source = ", ".join(it.name for it in dataset.sources.values())
    feeds = {**_items_of(dataset, most), **({"": np.array(classes, np.float32)} if classes else {})}
    missing = [name for name in session.inputs if name not in feeds and name not in constants]
    if missing:
        raise CaffeconvError(
            f"int8: nothing fills {', '.join(missing)}: {source or 'the net'} gives {', '.join(feeds) or 'nothing'}; "
            f"items for every input were needed, `calibrate=['{missing[0]}=SOURCE']`"
        )
    items = {name: values for name, values in feeds.items() if name in session.inputs}
    labels = _labels_among({name: values for name, values in feeds.items() if name not in session.inputs}, most)
    return CalibrationItems(tuple(_batches(items, fixed_batch_size(session))), labels, source)


def _is_database(place: str) -> bool:
    path = Path(place if Path(place).exists() else place.partition("=")[2] or place)
    return path.is_dir() and database_in(path) is not None


def _own_or_database(request: RunRequest, say: Say) -> Dataset:
    """The net with its data layers, or with the database instead of them."""
    database = request.inputs[0] if request.inputs else None
    options: NetOptions = replace(request.net, deploy=False, outputs=())
    own = replace(request, net=options, inputs=(), data=replace(request.data, input_db=database))
    try:
        return replace(own_data(open_net(own, say)), model=_Echo())
    except CaffeconvError as error:
        if database is not None:
            raise
        raise CaffeconvError(
            f"int8: the net's own data cannot be read ({error}); items to measure ranges on were needed: `calibrate=…` "
            "with pictures, a list of them, an array, or an LMDB"
        ) from None


def _items_of(dataset: Dataset, most: int) -> dict[str, FloatArray]:
    """Blob → the first items of its source."""
    chunks: dict[str, list[FloatArray]] = {}
    count = 0
    for batch in DatasetRunner(dataset, ()):
        for name, values in batch.blobs.items():
            is_per_item = values.ndim > 0 and len(values) == len(batch.counted)
            chunks.setdefault(name, []).append(values[batch.counted] if is_per_item else values)
        count += int(batch.counted.sum())
        if count >= most:
            break
    return {name: np.concatenate(parts)[:most] if parts[0].ndim else parts[0] for name, parts in chunks.items()}


def _labels_among(others: Mapping[str, FloatArray], most: int) -> FloatArray | None:
    """What looks like one class an item among the blobs that the model does not take."""
    for values in others.values():
        if len(values) and values.size == len(values) and (values == np.floor(values)).all():
            return values.reshape(-1)[:most]
    return None


def _batches(items: Mapping[str, FloatArray], fixed: int | None) -> Iterator[dict[str, FloatArray]]:
    """The items in batches of the model's size; of a fixed size only whole ones, unless there is none."""
    size, count = fixed or BATCH, min(len(values) for values in items.values())
    if fixed and count < fixed:
        yield {name: np.resize(values, (fixed, *values.shape[1:])) for name, values in items.items()}
        return
    for i in range(count // size if fixed else math.ceil(count / size)):
        yield {name: values[i * size : (i + 1) * size] for name, values in items.items()}
