"""Weights that a net holds itself, so that nothing happens to it when somebody replaces the files that they came from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from caffeconv.convert import Loaded
from caffeconv.errors import CaffeconvError
from caffeconv.ir import Param


def holding_weights(loaded: Loaded) -> Loaded:
    """The net with copies of the weights that lie in mapped files; what fillers make is still made when needed."""
    nodes = tuple(
        replace(node, params=tuple(held(param) for param in node.params)) for node in loaded.bound.graph.nodes
    )
    return replace(loaded, bound=replace(loaded.bound, graph=replace(loaded.bound.graph, nodes=nodes)))


def held(param: Param) -> Param:
    """The parameter with a copy of what lies in a mapped file."""
    if param.values is None or param.source.startswith("filler "):
        return param
    values = np.array(param.values(), np.float32)
    return replace(param, values=lambda: values)


@contextmanager
def unchanged(paths: Iterable[Path]) -> Iterator[None]:
    """Raises CaffeconvError where one of the files is written to while the block reads it: what was read is a mixture."""
    before = {path: _stamp(path) for path in paths}
    yield
    for path, stamp in before.items():
        if _stamp(path) != stamp:
            raise CaffeconvError(
                f"{path}: the file was changed while it was read; a file that stays as it is was needed. Run again; "
                "write a new file beside it and rename that, and readers have the one or the other"
            )


def _stamp(path: Path) -> tuple[int, ...] | None:
    if not path.is_file():
        return None
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
