"""Problems of a net as lines: many of one kind folded into a few and their number."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from caffeconv.errors import Diagnostic, Severity

MOST_OF_A_KIND = 6
_OF_ONE_PLACE = re.compile(r"'[^']*'|\d+")


def folded(diagnostics: Sequence[Diagnostic], *, verbose: bool) -> Iterator[tuple[Severity, str]]:
    """Severity and text of each problem, and one for those of a kind that are left out; all of them, and notes, with `verbose`.

    Problems are of one kind where they differ in names and numbers only.
    """
    shown = [d for d in diagnostics if verbose or d.severity != "note"]
    totals, counts = Counter(map(_kind, shown)), Counter[tuple[str, str]]()
    for diagnostic in shown:
        kind = _kind(diagnostic)
        counts[kind] += 1
        more = totals[kind] - MOST_OF_A_KIND
        if verbose or more <= 1 or counts[kind] <= MOST_OF_A_KIND:
            yield diagnostic.severity, str(diagnostic)
        elif counts[kind] == MOST_OF_A_KIND + 1:
            yield diagnostic.severity, f"… and {more} more of this kind; -v lists them"


def _kind(diagnostic: Diagnostic) -> tuple[str, str]:
    return diagnostic.severity, _OF_ONE_PLACE.sub("", diagnostic.message)
