"""What is said of files that cannot be opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.databases import refused

from caffeconv.caffe_format.caffemodel import read_binaryproto, read_caffemodel
from caffeconv.caffe_format.small_files import read_bytes
from caffeconv.conversion.upgrade_file import upgrade_file
from caffeconv.training.solver_state import read_state

READERS: dict[str, Callable[[Path], object]] = {
    "a text": lambda path: read_bytes(path, "a text"),
    "a weights file (caffemodel)": read_caffemodel,
    "a blob (binaryproto)": read_binaryproto,
    "a solver's state (.solverstate)": read_state,
    "a prototxt or caffemodel": lambda path: upgrade_file(path, path.with_name("new.prototxt")),
}


@pytest.mark.parametrize("needed", READERS)
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("net.bim", r"no such file; {} was needed\. Did you mean .*net\.bin\?"),
        ("net", r"no such file; {} was needed\. Did you mean .*net\.bin\?"),
        ("nothing/at/all", "no such file; {} was needed$"),
        ("folder", "this is a folder.*; {} was needed"),
        ("net.bin/x", "cannot be read: Not a directory; {} was needed"),
        ("loop", "cannot be read: Too many levels of symbolic links; {} was needed"),
    ],
)
def test_one_set_of_words(tmp_path: Path, needed: str, name: str, said: str) -> None:
    (tmp_path / "net.bin").write_bytes(b"text")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    with refused(said.replace("{}", needed.replace("(", r"\(").replace(")", r"\)"))):
        READERS[needed](tmp_path / name)
