"""Checks labels before a run: Caffe reads outside its arrays for one out of range, and ONNX can refuse nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caffeconv.errors import CaffeconvError
from caffeconv.files.foreign_json import MALFORMED
from caffeconv.tensor.shape import FloatArray


@dataclass(frozen=True)
class LabelCheck:
    """An input whose values, truncated toward zero, must lie in 0…classes-1 or be `ignore_label`."""

    where: str
    input: str
    classes: int
    ignore_label: int | None

    def apply(self, feeds: Mapping[str, FloatArray | NDArray[np.uint8]]) -> None:
        """Raises CaffeconvError for the first label out of range, with its place."""
        if self.input not in feeds:
            return
        values = np.asarray(feeds[self.input])
        integers = np.trunc(values)
        is_wrong = ~((integers >= 0) & (integers < self.classes))
        if self.ignore_label is not None:
            is_wrong &= integers != self.ignore_label
        if not is_wrong.any():
            return
        index = tuple(int(i) for i in np.argwhere(is_wrong)[0])
        ignored = "" if self.ignore_label is None else f" (or ignore_label {self.ignore_label})"
        raise CaffeconvError(
            f"{self.where}: label {values[index]:g} in blob '{self.input}' at {list(index)} is out of range; "
            f"0 to {self.classes - 1}{ignored} was needed"
        )


def label_checks(metadata: Mapping[str, str]) -> tuple[LabelCheck, ...]:
    """The checks that a model of ours carries; none where its metadata is something else."""
    try:
        rules = json.loads(metadata.get("caffeconv.labels", "[]"))
        return tuple(_check(**rule) for rule in rules)
    except MALFORMED:
        return ()


def _check(where: object, input: object, classes: object, ignore_label: object) -> LabelCheck:  # noqa: A002 - its name
    """Raises TypeError for values of other types than ours have."""
    if not (isinstance(where, str) and isinstance(input, str) and type(classes) is int):
        raise TypeError("no check of labels")
    if ignore_label is not None and type(ignore_label) is not int:
        raise TypeError("no check of labels")
    return LabelCheck(where, input, classes, ignore_label)
