"""A script in a process of its own: what it writes, and every way in which it can fail."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from caffeconv.errors import CaffeconvError
from caffeconv.files import limited_child
from caffeconv.files.limited_child import run_limited


def script(folder: Path, text: str) -> Path:
    (folder / "script.py").write_text(text)
    return folder / "script.py"


def test_what_the_script_writes(tmp_path: Path) -> None:
    assert run_limited(script(tmp_path, "import sys; print(sys.argv[1])"), "word", "a.mat") == b"word\n"


@pytest.mark.skipif(sys.platform == "win32", reason="no signals and limits there")
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("import os; os.kill(os.getpid(), 11)", "it is damaged, and ended the process that read it"),
        ("import sys; sys.exit('no array in it')", "no array in it"),
        ("bytearray(1 << 40)", "MemoryError"),
        ("import time; time.sleep(60)", "not read to its end after 1 seconds"),
    ],
)
def test_failures_are_messages(text: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(limited_child, "SECONDS", 1 if "sleep" in text else 30)
    with pytest.raises(CaffeconvError, match=f"^a.mat: .*{problem}"):
        run_limited(script(tmp_path, text), "", "a.mat")
