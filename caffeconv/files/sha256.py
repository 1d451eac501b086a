"""SHA-256 of files, worked out beside whatever else goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# Each block costs a turn of the interpreter's lock, for which a busy main thread lets others wait 5 ms.
_BLOCK = 16 << 20


@dataclass(frozen=True)
class Digest:
    """What a file holds, in short."""

    bytes: int
    sha256: str


class Hashes:
    """The digests of some files; `of` waits for one."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._stop = threading.Event()
        # a pipe can be read once only, and not by us
        self._digests: dict[Path, Future[Digest]] = {path: Future() for path in paths if path.is_file()}
        self._thread = threading.Thread(target=self._work, name="sha256", daemon=True)

    def of(self, path: Path) -> Digest:
        """The digest of one of the files, or of any other; raises OSError where it cannot be read."""
        if path not in self._digests:
            return digest_of(path)
        return self._digests[path].result()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Gives up what is not done yet."""
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        for path, future in self._digests.items():
            try:
                future.set_result(digest_of(path, self._stop))
            except OSError as error:
                future.set_exception(error)


def digest_of(path: Path, stop: threading.Event | None = None) -> Digest:
    """The digest of a file; raises OSError where it cannot be read, InterruptedError where `stop` is set before the end."""
    import hashlib  # brings in OpenSSL

    digest, size = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        block = memoryview(bytearray(min(_BLOCK, path.stat().st_size or 1 << 16)))
        while count := file.readinto(block):
            if stop is not None and stop.is_set():
                raise InterruptedError(f"{path}: not read to its end")
            digest.update(block[:count])
            size += count
    return Digest(size, digest.hexdigest())


@contextmanager
def hashing(paths: Iterable[Path]) -> Iterator[Hashes]:
    """Digests of `paths`, of which the reading goes on in a thread of its own while the block runs."""
    hashes = Hashes(dict.fromkeys(paths))
    hashes.start()
    try:
        yield hashes
    finally:
        hashes.stop()
