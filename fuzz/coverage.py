"""Which lines of caffeconv inputs reach."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import TraceFunction

PACKAGE = str(Path(__file__).resolve().parents[1] / "caffeconv")


class Lines:
    """Lines of the package's files that traced calls ran; `str` says how many of those in the functions' files."""

    def __init__(self) -> None:
        self._reached = defaultdict[str, set[int]](set)

    @contextmanager
    def traced(self) -> Iterator[None]:
        sys.settrace(self._enter)
        try:
            yield
        finally:
            sys.settrace(None)

    def _enter(self, frame: FrameType, event: str, argument: object) -> TraceFunction | None:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        lines = self._reached[frame.f_code.co_filename]

        def step(frame: FrameType, event: str, argument: object) -> TraceFunction:
            if event == "line":
                lines.add(frame.f_lineno)
            return step

        return step

    def write(self, path: Path) -> None:
        path.write_text(json.dumps({name: sorted(lines) for name, lines in self._reached.items()}))

    def add(self, path: Path) -> None:
        """What another process wrote, where it did."""
        if path.exists():
            for name, lines in json.loads(path.read_text()).items():
                self._reached[name].update(lines)

    def __str__(self) -> str:
        reached = sum(map(len, self._reached.values()))
        there = sum(len(_lines_in_functions(Path(name))) for name in self._reached)
        share = f" ({100 * reached // there} %)" if there else ""
        return f"{reached} of {there} lines reached in {len(self._reached)} modules{share}"


def _lines_in_functions(path: Path) -> set[int]:
    """What stands outside functions runs at the import, whatever the input."""

    def of(code: CodeType) -> set[int]:
        inner = [part for part in code.co_consts if isinstance(part, CodeType)]
        own = (
            {line for _, _, line in code.co_lines() if line} - {code.co_firstlineno}
            if code.co_name != "<module>"
            else set()
        )
        return own.union(*map(of, inner))

    return of(compile(path.read_text(), str(path), "exec"))
