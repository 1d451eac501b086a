"""Pictures of --input that are damaged, and passed over where --skip-bad says so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from caffeconv.cli.commands.run_data import say_skipped
from caffeconv.errors import CaffeconvError

if TYPE_CHECKING:
    from caffeconv.inference.input_batches import Batch


@dataclass(frozen=True)
class CorruptItems:
    """What was passed over; filled while lists and pictures are read."""

    lines: list[str] = field(default_factory=list)
    """What is wrong with lines of a list, which are left out."""
    pictures: dict[int, str] = field(default_factory=dict)
    """Item → what is wrong with its picture."""

    def some_left(self, batches: Iterable[Batch], total: int) -> Iterator[Batch]:
        """The batches; CaffeconvError after the last one where all pictures were damaged."""
        yield from batches
        if len(self.pictures) == total:
            raise CaffeconvError(f"not one picture of --input can be used; the first: {self.pictures[0]}")

    def say(self) -> None:
        """Counts and lists everything."""
        say_skipped([*self.lines, *(self.pictures[i] for i in sorted(self.pictures))])
