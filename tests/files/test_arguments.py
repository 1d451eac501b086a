"""Arguments from Python: what means the same is taken, what means nothing is named as the caller wrote it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.databases import refused

from caffeconv.files import arguments


def test_one_of() -> None:
    assert arguments.one_of("phase", "test", ("TRAIN", "TEST")) == "TEST"
    for value in ("foo", 1, None):
        with refused(f"^`phase={value!r}`: 'TRAIN' or 'TEST' was needed$"):
            arguments.one_of("phase", value, ("TRAIN", "TEST"))


@pytest.mark.parametrize("value", [True, "5", 1.0, None, 0, -3])
def test_whole_number(value: object) -> None:
    assert arguments.whole_number("batch", np.int64(7), 1) == 7
    with refused(f"^`batch={value!r}`: a whole number, at least 1, was needed$"):
        arguments.whole_number("batch", value, 1)


def test_names() -> None:
    assert arguments.names("outputs", "prob") == ("prob",)
    assert arguments.names("outputs", iter(["a", "b"])) == ("a", "b")
    for value in (5, ["a", 5]):
        with refused("^`outputs=.*5.*`: a name or a list of names was needed$"):
            arguments.names("outputs", value)


def test_path() -> None:
    assert arguments.path("net", "a") == arguments.path("net", Path("a")) == Path("a")
    with refused("^`net=5`: a path was needed$"):
        arguments.path("net", 5)


def test_shapes() -> None:
    assert arguments.shapes("shapes", {"data": [1, np.int64(3)]}) == {"data": (1, 3)}
    with refused("a dict of blobs and shapes was needed"):
        arguments.shapes("shapes", [1, 2])
    for shape in ("1,3", 5, [1.5]):
        with refused("^`shapes={'data': .*}`: sizes as whole numbers were needed"):
            arguments.shapes("shapes", {"data": shape})
