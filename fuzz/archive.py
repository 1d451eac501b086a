"""python -m fuzz.archive [ARCHIVE]: runs what once ended badly, each command in a process of its own with limits.

A good end is a result or a message, within ten seconds of processor time and a gigabyte, that leaves no file half written
and none changed. The archive of the fixtures unless another one is named; its folders that need other versions or another
process, or that no command is known for, are listed.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import h5py  # noqa: F401  what commands import is there before the clock runs
import lmdb  # noqa: F401
import onnx  # noqa: F401
import onnxruntime  # noqa: F401

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # support is a package of the tests

from support.fault_archive import ARCHIVE, ELSEWHERE, commands, unpacked

from caffeconv.cli import main as caffeconv_main

SECONDS = 10.0
KIB = 1 << 20
"""A gigabyte, in the unit of the kernel's maximum resident set."""


@dataclass(frozen=True)
class End:
    code: int
    """The exit code; the negative number of the signal that ended it."""
    seconds: float
    kib: int
    said: str

    @property
    def fault(self) -> str:
        """Empty for a good end."""
        if self.code not in (0, 1):
            return f"exit code {self.code}"
        if self.code == 1 and not re.search("error: |does not fit", self.said):
            return "no message"
        if "Traceback" in self.said or re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", self.said):
            return "a traceback, or control characters"
        if self.seconds > SECONDS:
            return f"{self.seconds:.1f} s"
        return f"{self.kib / KIB:.1f} GB" if self.kib > KIB else ""


def end_of(command: str, folder: Path) -> End:
    """Runs a command of caffeconv in a folder, in a child of this process."""
    said = folder.with_name(f"{folder.name}.said")
    child = os.fork()
    if not child:
        _run(command, folder, said)
    _, status, usage = os.wait4(child, 0)
    seconds = usage.ru_utime + usage.ru_stime
    return End(os.waitstatus_to_exitcode(status), seconds, usage.ru_maxrss, said.read_text(errors="replace"))


def _run(command: str, folder: Path, said: Path) -> None:
    code = 99
    try:
        os.chdir(folder)
        output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
        caffeconv_main(command.split(), standalone_mode=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fuzz.archive", description=__doc__)
    parser.add_argument("archive", nargs="?", type=Path, default=ARCHIVE)
    parser.add_argument("--verbose", action="store_true", help="what each command said")
    arguments = parser.parse_args()
    runs = faults = 0
    with tempfile.TemporaryDirectory() as name:
        for folder in sorted(path for path in unpacked(arguments.archive, Path(name)).iterdir() if path.is_dir()):
            lines = commands(folder)
            if not lines:
                print(f"{folder.name}: not run here: {ELSEWHERE.get(folder.name, 'no command is known for it')}")
            for line in lines:
                end = end_of(line, folder)
                runs += 1
                faults += bool(end.fault)
                if end.fault or arguments.verbose:
                    print(
                        f"{folder.name}: {line}: {end.fault or 'well'}, {end.seconds:.2f} s\n{end.said[-500:]}",
                        flush=True,
                    )
    print(f"{runs} runs, {faults} bad ends")
    sys.exit(faults > 0)


if __name__ == "__main__":
    main()
