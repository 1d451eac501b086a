"""Keeps what was used last, as far as a number and a size allow."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Value = TypeVar("Value")


@dataclass(frozen=True)
class _Entry(Generic[Value]):
    value: Value
    size: int


class LruCache(Generic[Value]):
    """At most `most` things, of `most_bytes` together; the one whose use is longest ago goes first.

    The newest is always kept, however large.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._entries: dict[Hashable, _Entry[Value]] = {}  # in the order of their last use

    def get(self, key: Hashable) -> Value | None:
        """What is kept under `key`, which counts as a use; None where nothing is."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return None
        self._entries[key] = entry
        return entry.value

    def evict_for(self, size: int) -> None:
        """Lets go of what would not fit beside `size` bytes more; before these are taken, so that both never coexist."""
        total = sum(entry.size for entry in self._entries.values())
        for key in list(self._entries):
            if len(self._entries) < self._most and total + size <= self._most_bytes:
                return
            total -= self._entries.pop(key).size

    def put(self, key: Hashable, value: Value, size: int) -> None:
        """Keeps `value`, of about `size` bytes, under `key`."""
        self.evict_for(size)
        self._entries[key] = _Entry(value, size)

    def keep(self, still_good: Callable[[Value], bool]) -> None:
        """Lets go of everything else."""
        self._entries = {key: entry for key, entry in self._entries.items() if still_good(entry.value)}

    def clear(self) -> None:
        self._entries.clear()

    def __iter__(self) -> Iterator[Hashable]:
        """The keys, the one used longest ago first."""
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
