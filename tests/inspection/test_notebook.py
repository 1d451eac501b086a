"""HTML of tables and lists."""

from __future__ import annotations

from caffeconv.inspection.notebook import MOST_ITEMS, MOST_ROWS, html_list, html_table


def test_what_is_long_is_cut_and_said() -> None:
    assert html_table(["a"], [["x"]] * (MOST_ROWS + 3)).count("<tr>") == MOST_ROWS + 2
    assert "… and 3 more" in html_table(["a"], [["x"]] * (MOST_ROWS + 3))
    assert "… and 2 more" in html_list("h", ["x"] * (MOST_ITEMS + 2))
    assert html_list("h", []) == ""


def test_text_is_no_markup() -> None:
    page = html_table(["<a>"], [["<b>", ["<c>", "d&"]]]) + html_list("<e>", ["<f>"])
    assert not any(f"<{letter}>" in page for letter in "abcef")
    assert "&lt;c&gt;<br>d&amp;" in page
