"""Values that are no finite numbers: a net whose weights or inputs do not belong to it gives them, and nothing else says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from caffeconv.tensor.non_finite import count_non_finite
from caffeconv.tensor.shape import FloatArray


@dataclass(frozen=True)
class NonFiniteValues:
    """How many values of each blob are NaN or infinite."""

    _numbers: Counter[str] = field(default_factory=Counter)
    _sizes: Counter[str] = field(default_factory=Counter)

    def add(self, blobs: Mapping[str, FloatArray]) -> None:
        for name, values in blobs.items():
            self._sizes[name] += values.size
            self._numbers[name] += count_non_finite(values)

    @property
    def messages(self) -> Iterator[str]:
        """One for each blob that has such values."""
        for name, number in self._numbers.items():
            if number:
                yield f"blob '{name}': {number} of {self._sizes[name]} values are NaN or infinite"
