"""Trees of labels: both forms, the similarity that they give, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caffeconv import CaffeconvError
from caffeconv.infogain.hierarchy import LabelTree, read_hierarchy

TEXT = """
# what they have in common
animal
    pet
        cat
        dog  # barks
    horse
vehicle
    motor car
"""
SIMILARITIES = np.array([[1, 2 / 3, 0.4, 0], [2 / 3, 1, 0.4, 0], [0.4, 0.4, 1, 0], [0, 0, 0, 1]])


def read(folder: Path, content: str, name: str = "tree.txt", labels: list[str] | None = None) -> LabelTree:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return read_hierarchy(path, labels)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tree.txt", TEXT),
        ("tree.txt", TEXT.replace("    ", "\t")),
        ("tree.txt", "\ufeffthing\n" + "".join(f" {line}\n" for line in TEXT.splitlines())),
        ("tree.txt", "animal\n  horse=2\n  pet\n      dog = 1\n      cat =0\nvehicle\n motor car = 3"),
        ("tree.json", '{"animal": {"pet": {"cat": 0, "dog": 1}, "horse": 2}, "vehicle": {"motor car": 3}}'),
        ("tree.json", '{"animal": {"pet": ["cat", "dog"], "horse": null}, "vehicle": ["motor car"]}'),
        ("tree.JSON", '[[["cat", "dog"], "horse"], {"vehicle": ["motor car"]}]'),
        ("tree.json", '{"thing": {"all": [{"animal": [{"pet": ["cat", "dog"]}, "horse"], "vehicle": ["motor car"]}]}}'),
    ],
)
def test_forms(tmp_path: Path, name: str, content: str) -> None:
    tree = read(tmp_path, content, name)
    assert tree.names == ("cat", "dog", "horse", "motor car")
    np.testing.assert_allclose(tree.similarities(), SIMILARITIES, rtol=1e-6)


def test_labels_by_name(tmp_path: Path) -> None:
    tree = read(tmp_path, TEXT, labels=["motor car", "dog", "cat", "horse"])
    assert tree.names == ("motor car", "dog", "cat", "horse")
    np.testing.assert_allclose(tree.similarities()[1], [0, 1, 2 / 3, 0.4], rtol=1e-6)


def test_no_groups(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(tmp_path, "a\nb\nc\n").similarities(), np.eye(3))
    np.testing.assert_array_equal(read(tmp_path, "all\n a\n b\n").similarities(), np.eye(2))
    np.testing.assert_array_equal(read(tmp_path, "one").similarities(), [[1]])


PATHS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4).map(tuple), min_size=1, max_size=8, unique=True)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PATHS)
def test_similarity_is_that_of_the_last_common_ancestor(tmp_path: Path, paths: list[tuple[int, ...]]) -> None:
    """Class i lies under the groups `paths[i]`."""
    paths.sort()
    lines: list[str] = []
    before: tuple[int, ...] = ()
    for i, path in enumerate(paths):
        common = next(
            (k for k, (a, b) in enumerate(zip(path, before, strict=False)) if a != b), min(len(path), len(before))
        )
        lines += ["  " * (k + 1) + f"group {path[k]}" for k in range(common, len(path))]
        lines.append("  " * (len(path) + 1) + f"class {i}")
        before = path
    tree = read(tmp_path, "\n".join(["root", "  another class", *lines]))
    h = tree.similarities()[1:, 1:]
    for i, a in enumerate(paths):
        for k, b in enumerate(paths):
            shared = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))) + (
                i == k
            )
            assert h[i, k] == np.float32(2 * shared / (len(a) + len(b) + 2))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.txt", "", "t.txt: no class in it; a tree of labels was needed"),
        ("t.txt", "# nothing\n\n", "t.txt: no class in it"),
        ("t.txt", "a\n    b\n  c\n", "t.txt, line 3: 'c' is indented as no line above it in its group"),
        ("t.txt", "  a\nb\n", "t.txt, line 2: 'b' is indented as no line above"),
        ("t.txt", "a\n\tb\n        c\n", "t.txt, line 3: 'c': tabs and spaces mixed in its indentation"),
        ("t.txt", "a\n  = 3\n", "t.txt, line 2: no name before '='"),
        ("t.txt", "a = 0\n  b = 1\n", "t.txt, line 1: 'a' has a label, but members too; only classes have labels"),
        ("t.txt", "a = 0\nb\n", "t.txt, line 2: 'b' has no label, others do; all or none were needed"),
        ("t.txt", "a = 0\nb = 0\n", "t.txt, line 2: 'b' has label 0, as 'a' has already"),
        ("t.txt", "a = 0\nb = 2\n", "t.txt: no class has label 1; 0 to 1 were needed"),
        ("t.json", "", "t.json: not readable as JSON"),
        ("t.json", '{"a": ', "t.json: not readable as JSON"),
        ("t.json", "{}", "t.json: no class in it"),
        ("t.json", "3", 't.json: 3; a group ({"name": …} or ["class", …]), or for a class its label'),
        ("t.json", '{"a": {"b": true}}', "t.json: a: b: true; a group"),
        ("t.json", '{"a": -1}', "t.json: a: -1; a group"),
        ("t.json", '{"a": 1.5}', "t.json: a: 1.5; a group"),
        ("t.json", '{"a": "b"}', 't.json: a: "b"; a group'),
        ("t.json", '{"a": 0, "b": {"c": 0}}', "t.json: b: c: 'c' has label 0, as 'a' has already"),
        ("t.json", '{"a": 0, "a": 0}', "t.json: 'a' is there twice; one class of each name was needed"),
        ("t.json", '{"a": ["b", "c", "b"]}', "t.json: a: 'b' is there twice"),
        ("t.json", '{"a": {}, "b": null}', "t.json: a: no class in it; a group"),
        ("t.json", '{"a": [["b"], []]}', "t.json: a: no class in it; a group"),
        ("t.txt", "a\n  b\n  c\n    d\n  b\n", "t.txt, line 5: 'b' is there twice"),
        ("t.txt", "a\n  b\nc\na\n  d\n", "t.txt, line 4: 'a' is there twice"),
        ("t.txt", "a = x\nb = 1\n", "t.txt, line 1: 'a = x': a label, a whole number from 0 on, was needed after '='"),
        ("t.txt", "a = -1\n", "t.txt, line 1: 'a = -1': a label"),
        ("t.json", "[" * 100_000, "t.json: groups within groups without end"),
        ("t.json", '{"a":' * 100_000, "t.json: groups within groups without end"),
    ],
)
def test_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(CaffeconvError) as caught:
        read(tmp_path, content, name)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["cat", "dog", "horse"], "tree.txt, line 9: 'motor car' is none of the 3 labels"),
        (["cat", "dog", "horse", "motor car", "cow"], "tree.txt: no class 'cow', which is one of the labels"),
    ],
)
def test_labels_that_do_not_fit(tmp_path: Path, labels: list[str], message: str) -> None:
    with pytest.raises(CaffeconvError) as caught:
        read(tmp_path, TEXT, labels=labels)
    assert message in str(caught.value)
    with pytest.raises(CaffeconvError, match=r"line 2: 'a' is there twice; one class of each name was needed"):
        read(tmp_path, "a\na\n", labels=["a"])


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(CaffeconvError, match="no such file"):
        read_hierarchy(tmp_path / "tree.txt")
