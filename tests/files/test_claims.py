"""What a file claims to hold, against what it has."""

from __future__ import annotations

import pytest

from caffeconv.errors import CaffeconvError
from caffeconv.files.claims import LARGE, refuse_bomb


def test_only_what_is_large_and_packed_too_densely_is_refused() -> None:
    refuse_bomb(LARGE, 1, "a.npz")
    refuse_bomb(1 << 40, 1 << 34, "a.npz")
    with pytest.raises(
        CaffeconvError, match=r"^a.npz: 268435457 bytes of values packed into 1000; .* at least 2684354"
    ):
        refuse_bomb(LARGE + 1, 1000, "a.npz")
