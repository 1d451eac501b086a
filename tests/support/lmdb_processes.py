"""What the tests of LMDB let another process do. A process that is spawned imports its function by name: test modules,
which pytest imports by their path, have none that it could find.
"""

from __future__ import annotations

from pathlib import Path

import lmdb

from caffeconv.data.records import open_records


def replace_all(path: str) -> None:
    """Writes both records anew, twenty times."""
    with lmdb.open(path, map_size=1 << 24) as environment:
        for _ in range(20):
            with environment.begin(write=True) as transaction:
                transaction.put(b"a", b"new")
                transaction.put(b"b", b"new")


def read_all(path: str) -> dict[bytes, bytes]:
    return dict(open_records(Path(path), "LMDB"))
