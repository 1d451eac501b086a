"""What was passed over because it is corrupt: lines of lists, images, records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from caffeconv.inference.output_batches import OutputBatch


@dataclass(frozen=True)
class CorruptItems:
    """Messages that name what was passed over, filled while lists and items are read."""

    lines: list[str] = field(default_factory=list)
    """What is wrong with lines of lists, which are left out."""
    _items: dict[str, None] = field(default_factory=dict)

    def collect(self, batches: Iterable[OutputBatch]) -> Iterator[OutputBatch]:
        """The batches, as they come; what was passed over on the way to each is kept here, once."""
        for batch in batches:
            self._items.update(dict.fromkeys(batch.skipped))  # a later epoch meets the same items again
            yield batch

    @property
    def messages(self) -> list[str]:
        """All of them: lines first, then items in order."""
        return [*self.lines, *self._items]
