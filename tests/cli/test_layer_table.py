"""The table of layers at every width: no word is broken, shapes stay whole, costs give way first."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from support.golden_cases import ROOT

import caffeconv
from caffeconv.cli.show.layer_table import elided, print_layers, table_lines
from caffeconv.inspection.layer_report import LayerReport

LAYERS = caffeconv.inspect(ROOT / "fixtures" / "digits" / "deploy.prototxt").layers


def layer(name: str, tops: Sequence[str] = ("y",), bottoms: Sequence[str] = ("x",)) -> LayerReport:
    shapes = tuple((top, (1, 1024, 256, 256)) for top in tops)
    return LayerReport(name, "Convolution", 1, tuple(bottoms), shapes, (("weight", (1024, 3, 7, 7)),), 10, 20, 30)


@pytest.mark.parametrize(
    ("width", "headings"),
    [
        (None, "layer type bottoms tops parameters params mult-adds memory rec. field"),
        (103, "layer type bottoms tops parameters params mult-adds memory rec. field"),
        (92, "layer type bottoms tops parameters params mult-adds memory"),
        (80, "layer type bottoms tops parameters params"), (60, "layer type tops parameters"),
    ],
)  # fmt: skip
def test_columns_give_way(width: int | None, headings: str) -> None:
    lines = table_lines(LAYERS, width)
    assert lines[0].split() == headings.split()
    assert width is None or max(map(len, lines)) <= width
    words = set(" ".join(lines).split())
    assert {"Convolution", "InnerProduct", "1×16×4×4", "16×8×5×5", "64×256"} <= words


def test_long_names_lose_their_middle() -> None:
    lines = table_lines(
        [layer(f"inception_4a/branch_{i}/3x3_reduce", [f"inception_4a/{i}/output"]) for i in range(3)], 80
    )
    assert max(map(len, lines)) <= 80
    assert lines[1].split()[0] == "incepti…_reduce"
    assert all("1×1024×256×256" in line and "1024×3×7×7" in line for line in lines[1:])
    assert "inception_4a/branch_2/3x3_reduce" in table_lines([layer("inception_4a/branch_2/3x3_reduce")])[1]


@pytest.mark.parametrize("width", [60, 80, None])
def test_a_layer_with_more_bottoms_than_tops_and_parameters_is_printed(
    width: int | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("caffeconv.cli.show.layer_table.terminal_width", lambda: width)
    print_layers([layer("joined", bottoms=("a" * 30, "b" * 30, "c" * 30))])
    assert len(capsys.readouterr().out.splitlines()) == (4 if width is None else 2)


def test_nothing_is_lost_where_nothing_can_fit() -> None:
    lines = table_lines([layer("a" * 100, ["b" * 100, "c"])], 20)
    assert all(shape in "\n".join(lines) for shape in ("1×1024×256×256", "1024×3×7×7"))
    assert lines[2].split() == ["c", "1×1024×256×256"]


@pytest.mark.parametrize(
    ("name", "length", "text"),
    [("abcdefghij", 5, "ab…ij"), ("abcde", 5, "abcde"), ("abcdef", 4, "ab…f"), ("abc", None, "abc")],
)
def test_elided(name: str, length: int | None, text: str) -> None:
    assert elided(name, length) == text


def test_names_are_visible() -> None:
    assert "\\u001b[2J" in table_lines([layer("\x1b[2J")])[1]
