"""Problems of one kind that are folded."""

from __future__ import annotations

import pytest

from caffeconv.cli.show.problems import MOST_OF_A_KIND, folded
from caffeconv.errors import Diagnostic, Severity


def problems(number: int, severity: Severity = "warning") -> list[Diagnostic]:
    return [Diagnostic(severity, "f", f"layer 'l{i}' has {i} blobs") for i in range(number)]


@pytest.mark.parametrize(("number", "lines"), [(MOST_OF_A_KIND, 6), (MOST_OF_A_KIND + 1, 7), (177, 7)])
def test_many_of_a_kind(number: int, lines: int) -> None:
    texts = [
        f"{severity}: {text}"
        for severity, text in folded([*problems(number), Diagnostic("error", "f", "another")], verbose=False)
    ]
    assert len(texts) == lines + 1
    assert texts[-1] == "error: f: another"
    assert (texts[6] == "warning: … and 171 more of this kind; -v lists them") == (number == 177)


def test_verbose_lists_all_and_notes() -> None:
    both = [*problems(20), *problems(1, "note")]
    assert len(list(folded(both, verbose=True))) == 21
    assert not any(severity == "note" for severity, _ in folded(both, verbose=False))
