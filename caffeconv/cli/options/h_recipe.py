"""What `caffeconv make-h` makes H of: where it starts from, and how its classes are weighted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from caffeconv.cli.options.net import note

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from caffeconv.infogain.balance import Balance, ClassCounts
    from caffeconv.infogain.matrices import Decay
    from caffeconv.tensor.shape import FloatArray


@dataclass(frozen=True)
class Start:
    """What H is before classes are weighted."""

    source: Path | None
    identity: int | None
    hierarchy: Path | None
    positions: str | None
    decay: Decay | None
    sigma: float | None

    @property
    def choices(self) -> Mapping[str, object]:
        return {
            "SOURCE": self.source, "--identity": self.identity, "--hierarchy": self.hierarchy,
            "--positions": self.positions,
        }  # fmt: skip

    @property
    def option_names(self) -> list[str]:
        return [name for name, value in self.choices.items() if value is not None]

    @property
    def files(self) -> Sequence[Path | None]:
        return self.source, self.hierarchy, _file(self.positions)

    def check(self) -> None:
        if len(self.option_names) > 1:
            raise click.UsageError(
                f"{' and '.join(self.option_names)} given; one of {', '.join(self.choices)} was needed"
            )
        if self.decay is not None and self.source is None and self.positions is None:
            raise click.UsageError("--from-distances without distances; SOURCE or --positions was needed")
        if self.sigma is not None and self.decay is None and self.positions is None:
            raise click.UsageError("--sigma is for --from-distances, which was not given")

    def matrix(self, names: Sequence[str]) -> tuple[FloatArray | None, Sequence[str]]:
        """H, and the names of its classes where these are known; None where only weights make it."""
        from caffeconv.infogain.hierarchy import read_hierarchy
        from caffeconv.infogain.matrices import distances_between, from_distances
        from caffeconv.infogain.matrices import identity as identity_matrix
        from caffeconv.infogain.reading import read_matrix

        if self.identity is not None:
            return identity_matrix(self.identity), names
        if self.hierarchy is not None:
            tree = read_hierarchy(self.hierarchy, names or None)
            return tree.similarities(), tree.names
        if self.positions is not None:
            positions = _numbers(self.positions, "--positions", "places of classes")
            return from_distances(distances_between(positions), self.decay or "exp", self.sigma), names
        if self.source is None:
            return None, names
        matrix = read_matrix(self.source)
        return matrix if self.decay is None else from_distances(matrix, self.decay, self.sigma), names


@dataclass(frozen=True)
class Weighing:
    """How much each class weighs."""

    class_weights: str | None
    counts: str | None
    place: Path | None
    balance: Balance | None
    beta: float | None
    classes: int | None
    ignore_label: int | None
    label_maps: bool
    dataset: str | None

    @property
    def choices(self) -> Mapping[str, object]:
        return {"--class-weights": self.class_weights, "--counts": self.counts, "--count-labels": self.place}

    @property
    def option_names(self) -> list[str]:
        return [name for name, value in self.choices.items() if value is not None]

    @property
    def files(self) -> Sequence[Path | None]:
        return _file(self.class_weights), _file(self.counts), self.place

    def check(self) -> None:
        if len(self.option_names) > 1:
            raise click.UsageError(
                f"{' and '.join(self.option_names)} given; one of {', '.join(self.choices)} was needed"
            )
        if self.balance is not None and self.counts is None and self.place is None:
            raise click.UsageError("--balance is for --counts or --count-labels, of which none was given")
        if self.beta is not None and self.balance != "effective-number":
            raise click.UsageError("--beta is for --balance effective-number, which was not given")
        counting_options = {
            "--classes": self.classes is not None, "--ignore-label": self.ignore_label is not None,
            "--label-maps": self.label_maps, "--dataset": self.dataset is not None,
        }  # fmt: skip
        for name, is_set in counting_options.items():
            if is_set and self.place is None:
                raise click.UsageError(f"{name} is for --count-labels, which was not given")

    def weights(self, size: int | None, *, quiet: bool, verbose: bool) -> NDArray[np.float64] | None:
        """A weight for each class, of which there are `size`, where that is known; None where none are wanted."""
        from caffeconv.infogain.balance import BETA, ClassCounts, class_weights, count_remarks

        if self.class_weights is not None:
            return _numbers(self.class_weights, "--class-weights", "class weights")
        if self.counts is not None:
            counts = ClassCounts.of(_numbers(self.counts, "--counts", "class counts"))
        elif self.place is not None:
            counts = self._count(self.place, size, quiet=quiet)
        else:
            return None
        beta = BETA if self.beta is None else self.beta
        weights = class_weights(counts, self.balance or "median-frequency", beta=beta)
        for remark in count_remarks(counts, weights):
            note(f"warning: {remark}", quiet=quiet)
        if verbose:
            for label, (number, weight) in enumerate(zip(counts.labels, weights, strict=True)):
                note(f"class {label}: {number:.10g} labels, weight {weight:.6g}", quiet=quiet)
        return weights

    def _count(self, place: Path, size: int | None, *, quiet: bool) -> ClassCounts:
        from caffeconv.cli.show.progress import progress
        from caffeconv.infogain.counting import count
        from caffeconv.infogain.label_sources import open_labels

        source = open_labels(place, label_maps=self.label_maps, dataset=self.dataset or "label")
        with progress(source.total, "counting labels", quiet=quiet) as advance:
            counts = count(source, place, self.classes or size, self.ignore_label, advance)
        ignored = f", {counts.ignored} ignored" if self.ignore_label is not None else ""
        note(f"{place}: {counts.labels.sum():.0f} labels in {counts.items} items{ignored}", quiet=quiet)
        return counts


def _file(value: str | None) -> Path | None:
    """The file that an option's value names, unless it is numbers."""
    return None if value is None or _as_numbers(value) is not None else Path(value)


def _as_numbers(text: str) -> list[float] | None:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        return None


def _numbers(value: str, option: str, what: str) -> NDArray[np.float64]:
    """The numbers in an option's value, or in the file that it names."""
    import numpy as np

    from caffeconv.infogain.reading import read_numbers

    numbers = _as_numbers(value)
    if numbers is not None:
        return np.array(numbers, np.float64)
    if not Path(value).exists():
        raise click.UsageError(
            f"{option} {value}: neither numbers separated by commas, e.g. 900,90,10, nor a file that is there"
        )
    return read_numbers(value, what)
