"""Results of items as CSV, JSON lines or one JSON list."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caffeconv.cli.show.records import lines_of, number_or_null, write_lines
from caffeconv.inference.result_files import csv_text

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@dataclass(frozen=True)
class Named:
    """A record of two rows."""

    name: str

    def rows(self) -> Iterator[Sequence[str]]:
        yield from ([self.name, "1"], [self.name, "2"])

    def as_json(self) -> Mapping[str, object]:
        return {"item": self.name}


@given(st.lists(TEXTS))
def test_csv_comes_back(names: list[str]) -> None:
    text = "".join(lines_of(map(Named, names), ["item", "rank"], "csv"))
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert rows == [["item", "rank"], *([csv_text(name), rank] for name in names for rank in ("1", "2"))]


@pytest.mark.parametrize("name", ["=1+1", "+x", "-x", "@SUM(A1)", "\t=1"])
def test_no_cell_is_a_formula(name: str) -> None:
    assert csv_text(name) == f"'{name}"
    assert [csv_text(text) for text in ("-1.5", "a=1", "")] == ["-1.5", "a=1", ""]


@given(st.lists(TEXTS))
def test_json_comes_back(names: list[str]) -> None:
    items = [{"item": name} for name in names]
    assert json.loads("".join(lines_of(map(Named, names), [], "json"))) == items
    assert [json.loads(line) for line in lines_of(map(Named, names), [], "jsonl")] == items


def test_text() -> None:
    records = [Named("a,b"), Named("größe")]
    assert list(lines_of(records, ["item", "rank"], "csv")) == [
        "item,rank\n", '"a,b",1\n', '"a,b",2\n', "größe,1\n", "größe,2\n",
    ]  # fmt: skip
    assert "".join(lines_of(records, [], "json")) == '[\n{"item": "a,b"},\n{"item": "größe"}\n]\n'
    assert list(lines_of(records, [], "jsonl")) == ['{"item": "a,b"}\n', '{"item": "größe"}\n']
    assert ["".join(lines_of([], ["item"], kind)) for kind in ("json", "jsonl", "csv")] == ["[]\n", "", "item\n"]


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl"])
def test_each_record_is_written_before_the_next_is_made(kind: str) -> None:
    steps: list[str] = []

    def records() -> Iterator[Named]:
        for name in ("first", "second"):
            steps.append(name)
            yield Named(name)

    for line in lines_of(records(), ["item"], kind):  # type: ignore[arg-type]
        steps.append(line)
    first_line = next(i for i, step in enumerate(steps) if "first" in step and step != "first")
    assert first_line < steps.index("second")


def test_numbers_that_json_lacks() -> None:
    assert [number_or_null(value) for value in (0.5, float("nan"), float("inf"), -float("inf"))] == [
        0.5,
        None,
        None,
        None,
    ]


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    def lines() -> Iterator[str]:
        yield "größe\n"
        raise RuntimeError

    (tmp_path / "out.csv").write_text("before")
    with pytest.raises(RuntimeError):
        write_lines(lines(), tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "before"
    write_lines(["größe\n", "2\n"], tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == "größe\n2\n".encode()
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]
