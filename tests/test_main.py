"""What the command does before it is any command: Ctrl-C while it imports, streams that are closed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.program import environment, program

INTERRUPTED = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "WHERE":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
sys.argv = ["caffeconv", "inspect", "none.prototxt"]
from caffeconv.__main__ import main
main()
"""


@pytest.mark.parametrize("where", ["caffeconv.cli", "click", "caffeconv.cli.commands.inspect", "numpy"])
def test_ctrl_c_while_importing_ends_with_130_and_says_nothing(where: str, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", INTERRUPTED.replace("WHERE", where)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_a_closed_stream_is_no_error(closed: str, tmp_path: Path) -> None:
    command = f"{sys.executable} -m caffeconv --version {closed}"
    result = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, "Traceback" in result.stderr) == (0, False)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-16"])
def test_a_stdout_that_lacks_characters(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "n.prototxt").write_text(
        'layer { name: "μ" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 } } }'
    )
    for arguments in (
        ["inspect", "n.prototxt"],
        ["convert", "n.prototxt", "-o", "→.onnx"],
        ["run", "--help"],
        ["run", "→"],
    ):
        result = subprocess.run(
            [*program(), *arguments], cwd=tmp_path, capture_output=True, check=False,
            env=environment(PYTHONIOENCODING=encoding),
        )  # fmt: skip
        shown = (result.stdout + result.stderr).decode(encoding, "replace")
        assert "Traceback" not in shown
        if encoding != "utf-16" and arguments[0] == "inspect":
            assert "\\u03bc" in shown
            assert ("1x2" in shown) == (encoding == "ascii")
