"""Rows of losses and outputs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from caffeconv.errors import CaffeconvError
from caffeconv.training.events import Iteration, NetTest, Output
from caffeconv.training.metrics_log import Rows, columns_of, open_log


def iteration(number: int, *, is_shown: bool = True) -> Iteration:
    outputs = [Output("loss", 1.5), Output("p", 1), Output("p", 2)]
    return Iteration(number, 1.5, 1.25, 0.1, 4, is_shown, 1.0, 2.0, 5, outputs)


def test_a_test_stands_in_the_row_of_its_iteration() -> None:
    rows: list[dict[str, float]] = []

    class Collected:
        def write(self, row: dict[str, float]) -> None:
            rows.append(row)

    log = Rows([Collected()])  # type: ignore[list-item] # a row that may be changed is a row
    for event in (NetTest(0, 0, [Output("accuracy", 0.5)], None), iteration(0), iteration(1, is_shown=False)):
        log.report(event)
    log.report(NetTest(2, 0, [Output("accuracy", 0.75)], 3.0))
    log.flush()
    assert rows == [
        {"iteration": 0, "test0/accuracy": 0.5, "seconds": 2.0, "lr": 0.1, "loss": 1.25, "train/loss": 1.5,
         "train/p[0]": 1, "train/p[1]": 2},
        {"iteration": 2, "test0/accuracy": 0.75, "test0/test_loss": 3.0},
    ]  # fmt: skip


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_log_goes_on(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"log{suffix}"
    columns = columns_of([{"loss": 1, "p": 2}, {"accuracy": 1}])
    for number in range(2):
        with open_log(path, columns, goes_on=number > 0) as writer:
            rows = Rows([writer])
            rows.report(iteration(number))
            lines = path.read_text().splitlines()
    if suffix == ".jsonl":
        assert [json.loads(line)["iteration"] for line in lines] == [0, 1]
    else:
        first, second = csv.DictReader(lines)
        assert (first["iteration"], second["train/p[1]"], second["test0/accuracy"]) == ("0", "2", "")


def test_other_names_are_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(CaffeconvError, match=r"log\.txt: a log's name ends in \.csv or \.jsonl"),
        open_log(tmp_path / "log.txt", [], goes_on=False),
    ):
        pass
