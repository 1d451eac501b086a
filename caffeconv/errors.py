"""What goes wrong: one exception for wrong input, and the record of one problem."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

NEAR = 0.85
"""How alike a name has to be to one that is offered in its place, from 0 to 1 (difflib's ratio): Convolution is not near
Correlation, pad_h is not near pad_l."""
_LONGEST, _MOST = 100, 3000
MOST_TOLD = 100
"""Problems that one message lists."""
Severity = Literal["error", "warning", "note"]


class CaffeconvError(Exception):
    """Wrong input. ``str()`` is the message a user sees: where: what is; what was needed; what to try."""


def near_name(name: str, names: Iterable[str]) -> str:
    """The name among `names` that was perhaps meant, upper and lower case alike; empty where none is near."""
    by_lower_case: dict[str, str] = {}
    for known in names:
        by_lower_case.setdefault(known.lower(), known)
    near = close_names(name.lower(), list(by_lower_case), 1, NEAR)
    return by_lower_case[near[0]] if near else ""


MOST_NAMES = 20
"""How many names a message lists."""


def close_names(name: str, names: Sequence[str], number: int = 1, cutoff: float = 0.6) -> list[str]:
    """difflib's close matches, best first; none where comparing would take long."""
    if len(name) > _LONGEST or len(names) > _MOST:
        return []
    return difflib.get_close_matches(name, [known for known in names if len(known) <= _LONGEST], number, cutoff)


def shortened(text: str) -> str:
    """A name as it stands in a message: of one that nobody would read to its end, the beginning."""
    return text if len(text) <= 2 * _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"


class CaffeconvWarning(RuntimeWarning):
    """Something is done differently from what was asked for."""


class ShapesChangedError(CaffeconvError):
    """A Python layer made other shapes than the model was made for."""


@dataclass(frozen=True, repr=False)
class Diagnostic:
    """One problem: where it is, what it is, and what to try."""

    severity: Severity
    where: str
    message: str
    hint: str = ""
    layer: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}\n  {self.hint}" if self.hint else text

    def __repr__(self) -> str:
        return f"<{self.severity}: {shortened(str(self).partition(chr(10))[0])}>"

    def _repr_html_(self) -> str:
        """As notebooks show it."""
        import html  # not for every start of the program

        return f"<pre><b>{self.severity}</b>: {html.escape(str(self))}</pre>"


class InvalidNetError(CaffeconvError):
    """Several problems found in one go, reported together."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        left_out = len(self.diagnostics) - MOST_TOLD
        more = [f"… and {left_out} more problems"] if left_out > 0 else []
        super().__init__("\n".join([*map(str, self.diagnostics[:MOST_TOLD]), *more]))


class UnknownNameError(CaffeconvError, KeyError):
    """A name that is not among those that there are; a KeyError too, as of any dict."""

    def __init__(self, what: str, name: object, names: Iterable[str]) -> None:
        known = list(names)
        near = near_name(name, known) if isinstance(name, str) else ""
        shown = ", ".join(known[:MOST_NAMES]) + (", …" if len(known) > MOST_NAMES else "")
        noun, space, rest = what.partition(" ")
        plural = f"{noun}s{space}{rest}"
        super().__init__(f"no {what} {name!r}; " + (f"did you mean {near!r}? " if near else "") + f"{plural}: {shown}")

    def __str__(self) -> str:  # KeyError would put it in quotes
        return str(self.args[0])


class LayerError(CaffeconvError):
    """A layer's own complaint: what is; what was needed; what to try. The caller adds where."""


class OutsideError(LayerError):
    """What a layer needs from outside the net is missing, unfit or not allowed: a module, a file. No edit of it helps."""
