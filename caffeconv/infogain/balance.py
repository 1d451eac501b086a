"""Class weights from how often each class occurs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caffeconv.errors import CaffeconvError
from caffeconv.files import arguments
from caffeconv.infogain.matrices import as_numbers
from caffeconv.infogain.remarks import short
from caffeconv.tensor.shape import format_shape

Balance = Literal["median-frequency", "inverse-frequency", "effective-number"]
BALANCES: tuple[Balance, ...] = ("median-frequency", "inverse-frequency", "effective-number")
BETA = 0.999


@dataclass(frozen=True)
class ClassCounts:
    """How often each of L classes occurs among the labels of a data set."""

    labels: NDArray[np.float64]
    """L numbers of labels; or shares, where only these are known."""
    around: NDArray[np.float64]
    """L numbers: all labels of those items (pictures) in which the class occurs, 0 for a class that occurs in none."""
    ignored: int = 0
    """Labels that were left out."""
    items: int = 0

    @classmethod
    def of(cls, counts: ArrayLike) -> ClassCounts:
        """From counts alone: as if every item held every class. CaffeconvError where they cannot be counts."""
        labels = as_numbers(counts, "class counts")
        if labels.ndim != 1 or not labels.size:
            raise CaffeconvError(f"class counts: {format_shape(labels.shape)} numbers; one for each class was needed")
        bad = np.flatnonzero(~(np.isfinite(labels) & (labels >= 0)))
        if bad.size:
            raise CaffeconvError(
                f"class counts: {labels[bad[0]]:g} for class {bad[0]} (from 0); a number of at least 0 was needed"
            )
        return cls(labels, np.where(labels > 0, labels.sum(), 0))


def class_weights(
    counts: ClassCounts | ArrayLike, balance: Balance = "median-frequency", *, beta: float = BETA
) -> NDArray[np.float64]:
    """L weights, greater for rarer classes; 0 for a class that never occurs.

    n are the numbers of labels of each class, N their sum, and C the number of classes that occur.

    - median-frequency: median(f)/f, f = n divided by the number of labels in those pictures in which the class occurs
      (Eigen and Fergus 2015, "Predicting Depth, Surface Normals and Semantic Labels with a Common Multi-Scale
      Convolutional Architecture", section 6.3.2). Where only n is known, or items have one label each, f = n/N.
    - inverse-frequency: N/(C·n), so that every class adds as much to the whole loss, and the mean weight of a label
      is 1 (King and Zeng 2001, "Logistic Regression in Rare Events Data"; scikit-learn calls it "balanced").
    - effective-number: 1/E with E = (1-βⁿ)/(1-β), scaled so that the weights add up to C (Cui, Jia, Lin, Song and
      Belongie 2019, "Class-Balanced Loss Based on Effective Number of Samples"). β = 0: no weighting; β → 1:
      inverse frequency.

    Raises CaffeconvError where no class occurs, or β is outside 0 ≤ β < 1.
    """
    if arguments.one_of("balance", balance, get_args(Balance)) == "effective-number":
        arguments.number("beta", beta)
    class_counts = counts if isinstance(counts, ClassCounts) else ClassCounts.of(counts)
    occurs = class_counts.labels > 0
    if not occurs.any():
        raise CaffeconvError("class counts: no class occurs; at least one label was needed")
    weights = np.zeros(class_counts.labels.shape)
    n = class_counts.labels[occurs]
    if balance == "median-frequency":
        frequencies = n / class_counts.around[occurs]
        weights[occurs] = np.median(frequencies) / frequencies
    elif balance == "inverse-frequency":
        weights[occurs] = n.sum() / (n.size * n)
    else:
        weights[occurs] = _effective(n, beta)
    return weights


def _effective(n: NDArray[np.float64], beta: float) -> NDArray[np.float64]:
    if not 0 <= beta < 1:
        raise CaffeconvError(f"`beta={beta:g}`: 0 or more, and less than 1, was needed, e.g. 0.999")
    if n.min() < 1:
        raise CaffeconvError(f"class counts: {n.min():g}; an effective number needs numbers of labels, not shares")
    # expm1: 1-βⁿ would lose its digits for β near 1
    with np.errstate(divide="ignore"):
        inverse = 1 / -np.expm1(n * np.log(beta))
    return np.asarray(inverse * (n.size / inverse.sum()), np.float64)


def count_remarks(counts: ClassCounts, weights: NDArray[np.float64]) -> tuple[str, ...]:
    """What about these counts, and the weights made of them, might not be meant. None of it is an error."""
    absent, present = np.flatnonzero(counts.labels == 0), np.flatnonzero(counts.labels > 0)
    notes = []
    if absent.size:
        labels = short(absent.tolist())
        one = f"class {labels} never occurs, so its weight is 0"
        notes.append(one if absent.size == 1 else f"classes {labels} never occur, so their weight is 0")
        last = int(present[-1])
        if present.size > 1 and last - int(present[-2]) > present.size:
            notes.append(f"label {last} stands apart from the others: if it means no class, add `ignore_label={last}`")
    if present.size == 1 and present[0] == 0:
        notes.append("the only label is 0: if the pictures themselves are maps of labels, add `label_maps=True`")
    n, w = counts.labels[present], weights[present]
    if w.max() <= w.min() * (1 + 1e-6) and n.max() > n.min() * 1.01:
        notes.append(
            "all classes weigh the same, though some are rarer: with a beta so small, "
            f"{n.min():g} labels are as good as {n.max():g}. Choose a greater `beta=…`, or inverse-frequency"
        )
    return tuple(notes)
