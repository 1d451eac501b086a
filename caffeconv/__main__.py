"""python -m caffeconv, and what the command `caffeconv` calls"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Runs the command line: exit code 130 on Ctrl-C, from the first import on."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)  # until a command runs, which may have something to say
    _open_closed_streams()
    from caffeconv.cli import main as run
    from caffeconv.cli.show.console import accept_every_character

    accept_every_character()
    run()


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _open_closed_streams() -> None:
    """Gives a stream that was closed (``>&-``) a place, so that no file that is opened takes it and gets what is printed."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != descriptor:
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
            setattr(sys, name, open(descriptor, "r" if name == "stdin" else "w"))  # noqa: PTH123, SIM115 - a descriptor


if __name__ == "__main__":
    main()
