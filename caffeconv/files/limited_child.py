"""Runs a script over bytes that are not trusted, in a short-lived process that has limits and writes no file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from caffeconv.errors import CaffeconvError

SECONDS = 60
_LIMITS = """
import sys
sys.path[:] = [folder for folder in sys.path if folder]  # not the current folder: what lies there is not to be run
try:
    import resource
except ImportError:  # Windows has no limits
    pass
else:
    for name, most in (("AS", 3 << 30), ("CPU", 60), ("FSIZE", 0), ("CORE", 0)):
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))
"""


def run_limited(script: Path, argument: str, where: object) -> bytes:
    """What a script writes to standard output; `where` names in messages what it reads.

    Raises CaffeconvError where it fails, with the last line of its complaint, is ended by a signal, or takes too long.
    """
    command = [sys.executable, "-c", _LIMITS + script.read_text(encoding="utf-8"), argument]
    # each thread of its own would reserve memory
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        child = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False, env=environment)
    except subprocess.TimeoutExpired:
        raise CaffeconvError(f"{where}: not read to its end after {SECONDS} seconds; a whole file was needed") from None
    if child.returncode < 0:
        raise CaffeconvError(f"{where}: it is damaged, and ended the process that read it; a whole file was needed")
    if child.returncode:
        lines = child.stderr.decode("utf-8", "replace").strip().splitlines()
        raise CaffeconvError(f"{where}: {lines[-1] if lines else 'not readable'}")
    return child.stdout
