"""Says where a session computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from caffeconv.cli.options.net import note

if TYPE_CHECKING:
    from caffeconv.runtime.session import Session


def say_placement(session: Session, layers: Callable[[], Sequence[str]]) -> None:
    """Which provider was chosen, and which of the `layers` fell back to the CPU."""
    from caffeconv.runtime.providers import layer_of, report_lines

    placements = session.placements()
    names = layers() if placements else []
    owners = {place.node: layer_of(place.node, names) or place.node for place in placements or ()}
    for line in report_lines(session.providers, placements, owners, session.why_not_cuda):
        note(line)
