"""Counts the labels of a data set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caffeconv.errors import CaffeconvError
from caffeconv.files import arguments
from caffeconv.files.atomic import PathLike
from caffeconv.infogain.balance import ClassCounts
from caffeconv.infogain.label_sources import Labels, LabelSource, open_labels
from caffeconv.infogain.matrices import MAX_CLASSES


def count_labels(
    place: PathLike, *, classes: int | None = None, ignore_label: int | None = None,
    label_maps: bool = False, dataset: str = "label",
) -> ClassCounts:  # fmt: skip
    """How often each class occurs among the labels of a data set.

    Args:
        place: an LMDB, LevelDB, HDF5 file or list of these, list of pictures, label pictures (see open_labels).
        classes: L; labels are 0…L-1. None: as many as the greatest label says.
        ignore_label: a label that is no class and does not count.
        label_maps: the records' values, or the listed pictures, are labels, one for each pixel.
        dataset: the name of the labels in HDF5 files.

    Raises:
        CaffeconvError: nothing to count there, something damaged, or a label outside 0…L-1, with its place.
    """
    path = arguments.path("place", place)
    arguments.truth("label_maps", label_maps)
    for name, value, least in (("classes", classes, 0), ("ignore_label", ignore_label, -(1 << 31))):
        if value is not None:
            arguments.whole_number(name, value, least)
    source = open_labels(path, label_maps=label_maps, dataset=arguments.name("dataset", dataset))
    return count(source, path, classes, ignore_label)


def count(
    source: LabelSource, place: Path, classes: int | None = None, ignore_label: int | None = None,
    advance: Callable[[int], None] = lambda items: None,
) -> ClassCounts:  # fmt: skip
    """As count_labels, from labels already opened; `advance` is called with the number of items, every few items."""
    tally = _Tally(classes, ignore_label)
    for labels in source:
        tally.add(labels)
        advance(len(labels.values))
    return tally.result(place)


class _Tally:
    """Counts in the making."""

    def __init__(self, classes: int | None, ignore_label: int | None) -> None:
        if classes is not None and not 1 <= classes <= MAX_CLASSES:
            raise CaffeconvError(f"`classes={classes}`: 1 to {MAX_CLASSES} were needed")
        self._classes = classes
        self._ignore_label = ignore_label
        self._counts = np.zeros(classes or 1, np.int64)
        self._around = np.zeros(classes or 1, np.int64)
        self._ignored = 0
        self._items = 0
        self._longest = 0

    def add(self, labels: Labels) -> None:
        values = self._as_integers(labels)
        self._items += len(values)
        self._longest = max(self._longest, values.shape[1])
        if values.shape[1] == 1:
            class_counts = self._count_classes(values[:, 0])
            self._around += class_counts
            return
        for item in values:
            class_counts = self._count_classes(item)
            self._around[class_counts > 0] += class_counts.sum()

    def _count_classes(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """Adds labels to the counts, which grow where need be, and gives how often each class is among these."""
        labels = values if self._ignore_label is None else values[values != self._ignore_label]
        self._ignored += values.size - labels.size
        class_counts = np.bincount(labels, minlength=len(self._counts)).astype(np.int64)
        growth = len(class_counts) - len(self._counts)
        if growth > 0:
            self._counts, self._around = np.pad(self._counts, (0, growth)), np.pad(self._around, (0, growth))
        self._counts += class_counts
        return class_counts

    def _as_integers(self, labels: Labels) -> NDArray[np.int64]:
        """The labels as whole numbers, all of which are classes or ignored; CaffeconvError names one that is not."""
        raw = labels.values
        if raw.dtype.kind == "f" and not np.isfinite(raw).all():
            raise self._label_error(labels, ~np.isfinite(raw))
        # caffe: static_cast<int>, which cuts off what is behind the point
        with np.errstate(invalid="ignore"):
            values = np.asarray(raw).astype(np.int64)
        limit = self._classes or MAX_CLASSES
        is_wrong = (values < 0) | (values >= limit)
        if self._ignore_label is not None:
            is_wrong &= values != self._ignore_label
        if is_wrong.any():
            raise self._label_error(labels, is_wrong)
        return values

    def _label_error(self, labels: Labels, is_wrong: NDArray[np.bool_]) -> CaffeconvError:
        i, j = (int(index) for index in np.argwhere(is_wrong)[0])
        value = float(labels.values[i, j])
        needed = f"0 to {(self._classes or MAX_CLASSES) - 1} were needed"
        hint = f". If it means no class: `ignore_label={int(value)}`" if np.isfinite(value) else ""
        return CaffeconvError(f"{labels.where(i, j)}: label {value:g}; {needed}{hint}")

    def result(self, place: Path) -> ClassCounts:
        total = int(self._counts.sum())
        if not total:
            reason = f"all {self._ignored} labels are ignored" if self._ignored else "no labels to count"
            raise CaffeconvError(f"{place}: {reason}; at least one that is a class was needed")
        counts = self._counts.astype(np.float64)
        # one label an item: a class is never with others, and its share is that of the whole set
        around = self._around if self._longest > 1 else np.where(self._counts > 0, total, 0)
        return ClassCounts(counts, around.astype(np.float64), self._ignored, self._items)
