"""What is kept, and what goes first."""

from __future__ import annotations

import numpy as np
import pytest
from support.golden_cases import ROOT

import caffeconv
from caffeconv.net import planned_session
from caffeconv.net.lru import LruCache


def test_the_least_recently_used_goes_first() -> None:
    kept: LruCache[str] = LruCache(2, 100)
    kept.put("a", "A", 1)
    kept.put("b", "B", 1)
    assert kept.get("a") == "A"
    kept.put("c", "C", 1)
    assert [kept.get(key) for key in "abc"] == ["A", None, "C"]


def test_sizes_count() -> None:
    kept: LruCache[str] = LruCache(9, 100)
    for key in "abc":
        kept.put(key, key, 40)
    assert [kept.get(key) for key in "abc"] == [None, "b", "c"]
    kept.put("huge", "huge", 1000)
    assert [kept.get(key) for key in ("b", "c", "huge")] == [None, None, "huge"]
    kept.clear()
    assert len(kept) == 0


def test_a_net_keeps_few_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    digits = ROOT / "fixtures" / "digits"

    def sessions_after(sizes: list[int]) -> int:
        net = caffeconv.Net(digits / "deploy.prototxt", digits / "digits.caffemodel")
        for size in sizes:
            net.forward(data=np.zeros((size, 1, 28, 28), np.float32))
        return len(net._sessions)

    assert sessions_after([1, 2, 1, 2, 3]) == 3
    assert sessions_after(list(range(1, 20))) == planned_session.MAX_SESSIONS
    monkeypatch.setattr(planned_session, "MAX_SESSION_BYTES", 1)
    assert sessions_after([1, 2, 3]) == 1
