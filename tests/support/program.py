"""The caffeconv under test in a process of its own.

Python looks for modules first beside the script that it runs, or in the current folder for ``-m`` and ``-c``. The tests' own
may be a source tree that is not built, so neither of these is used.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import caffeconv

PACKAGES = Path(caffeconv.__file__).resolve().parents[1]
"""The folder that the package under test lies in."""


def environment(**more: str) -> dict[str, str]:
    """This process's variables, with which another one imports the package under test."""
    return {**os.environ, "PYTHONPATH": str(PACKAGES), **more}


def script(folder: Path, code: str) -> list[str]:
    """The start of a command that runs `code`, which is put into a folder."""
    path = folder / "program.py"
    path.write_text(code)
    return [sys.executable, str(path)]


def program() -> list[str]:
    """The start of a caffeconv command."""
    installed = Path(sys.executable).with_name("caffeconv")
    return [str(installed)] if installed.exists() else [sys.executable, "-m", "caffeconv"]


def heed_ctrl_c() -> None:
    """For `preexec_fn`: Ctrl-C ends the process, also where the tests run in the background, which it passes by."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
