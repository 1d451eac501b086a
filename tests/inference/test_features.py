"""Rows of each pass, as they go into a file of features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.databases import refused

from caffeconv.inference import features
from caffeconv.inference.checkpoint import Checkpoint
from caffeconv.inference.features import RowBlock, write_features

RUN = {"net": "a"}


def block(start: int, end: int) -> RowBlock:
    rows = np.arange(start, end, dtype=np.float32)[:, None]
    return RowBlock(end - start, {"x": rows}, {"data": end}, [f"bad {start // 4}"], {"h": rows[-1:]})


def test_rows_and_where_the_run_goes_on(tmp_path: Path) -> None:
    checkpoint = Checkpoint.create(tmp_path / "x.npy", RUN, ["x"])
    told: list[int] = []
    write_features(checkpoint, [block(0, 2), block(2, 4), block(4, 5)], told.append)
    assert np.load(tmp_path / "x.npy").tolist() == [[0], [1], [2], [3], [4]]
    assert sum(told) == 5
    journal = checkpoint.journal
    assert (journal.passes, journal.items, journal.positions, list(journal.skipped)) == (
        3,
        5,
        {"data": 5},
        ["bad 0", "bad 1"],
    )


@pytest.mark.parametrize(("seconds", "told"), [(0.0, [2, 2, 0]), (1e9, [4])])
def test_items_are_told_of_once_they_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, told: list[int]
) -> None:
    monkeypatch.setattr(features, "_COMMIT_EVERY", seconds)
    calls: list[int] = []
    write_features(Checkpoint.create(tmp_path / "x.npy", RUN, ["x"]), [block(0, 2), block(2, 4)], calls.append)
    assert calls == told


def test_what_was_added_before_a_refusal_counts(tmp_path: Path) -> None:
    checkpoint = Checkpoint.create(tmp_path / "x.npy", RUN, ["x"])
    other = RowBlock(1, {"x": np.zeros((1, 3), np.float32)})
    with refused("blob 'x' has rows of 3 now and had 1 before; one size was needed for all rows of a file"):
        write_features(checkpoint, [block(0, 2), other, block(2, 4)], lambda items: None)
    assert (checkpoint.journal.items, checkpoint.states()["h"].tolist()) == (2, [[1]])
    assert not (tmp_path / "x.npy").exists()
    write_features(checkpoint, [block(2, 4)], lambda items: None)
    assert np.load(tmp_path / "x.npy").tolist() == [[0], [1], [2], [3]]
