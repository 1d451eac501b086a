"""Names of classes, from a list and from SSD's labelmap."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.databases import refused

from caffeconv.inference.class_names import read_class_names

LABELMAP = """# a map
item { name: "none_of_the_above" label: 0 display_name: "background" }
item { name: "n1" label: 3 display_name: "cat" }
item { name: "dog" label: 1 }
"""


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cat\ndog\n", ["cat", "dog"]), ("\ufeffcat\r\ndog\r\n\r\n", ["cat", "dog"]), ("a\n\nb", ["a", "", "b"]),
        ("items\nitem", ["items", "item"]), (LABELMAP, ["background", "dog", "", "cat"]),
    ],
)  # fmt: skip
def test_names(tmp_path: Path, text: str, names: list[str]) -> None:
    path = tmp_path / "labels.txt"
    path.write_text(text, "utf-8")
    assert read_class_names(path) == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no names; class names, one a line, or a labelmap were needed"),
        ("\n \n", "holds no names"),
        ('item { name: "a" label: -1 }', r"labels -1 to -1; 0 to 1048575 are possible"),
        ('item { name: "a" label: 2000000000 }', r"labels 2000000000 to 2000000000; 0 to 1048575 are possible"),
    ],
)
def test_files_without_names(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "labels.txt"
    path.write_text(text)
    with refused(message):
        read_class_names(path)
