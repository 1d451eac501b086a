"""python -m fuzz --minutes N [HARNESS…]: fuzzes every reader in turn, and keeps what ended badly in fuzz/findings.

One input of twenty is traced: of the modules that these enter, the share of lines that they reach is told.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import resource
import signal
import tempfile
import time
import traceback
from contextlib import nullcontext
from pathlib import Path

from fuzz.coverage import Lines
from fuzz.harnesses import HARNESSES, Harness, run_quietly
from fuzz.mutate import mutated, mutated_text

FINDINGS = Path(__file__).with_name("findings")
SLOW = 10.0
"""Seconds of processor time that one input may take; at twice as many it is ended."""
LARGE = 1 << 30
"""Bytes by which one input may let the process grow."""
MOST_MEMORY = 1 << 33
"""Bytes that a process may map, so that a finding does not take the machine's memory."""
TOGETHER = 500
"""Inputs that one process reads."""
TRACED = 20
"""One input in so many is traced, as that takes several times as long."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("harness", nargs="*", metavar="HARNESS", help=", ".join(HARNESSES))
    arguments = parser.parse_args()
    names = arguments.harness or list(HARNESSES)
    for name in names:
        lines = Lines()
        executions, findings = _fuzz(name, 60 * arguments.minutes / len(names), arguments.seed, lines)
        print(f"{name}: {executions} executions, {findings} findings; {lines}", flush=True)


def _fuzz(name: str, seconds: float, seed: int, lines: Lines) -> tuple[int, int]:
    end, executions, findings = time.monotonic() + seconds, 0, set[str]()
    context = multiprocessing.get_context("spawn")
    while time.monotonic() < end:
        with tempfile.TemporaryDirectory() as folder:
            child = context.Process(target=_read_some, args=(name, seed, Path(folder), end))
            child.start()
            child.join(seconds + TOGETHER * SLOW)
            if child.is_alive():
                child.kill()
                child.join()
            executions += sum(1 for _ in Path(folder).glob("done-*"))
            lines.add(Path(folder) / "lines")
            findings |= _keep(name, Path(folder), child.exitcode)
        seed += 1
    return executions, len(findings)


def _read_some(name: str, seed: int, folder: Path, end: float) -> None:
    draw, harness = random.Random(seed), HARNESSES[name]
    seeds, lines = harness.files(), Lines()
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    for number in range(TOGETHER):
        if time.monotonic() > end:
            return
        source = draw.choice(seeds)
        path = folder / f"input{''.join(source.suffixes[-2:])}"
        is_text = source.suffix == ".prototxt" and draw.randrange(4)
        path.write_bytes((mutated_text if is_text else mutated)(source.read_bytes(), draw))
        with lines.traced() if number % TRACED == 0 else nullcontext():
            bad = _bad_end(harness, path)
        if bad:
            path.rename(folder / f"bad-{bad}{path.suffix}")
        (folder / f"done-{number}").touch()
        if number % TRACED == 0:
            lines.write(folder / "lines")
        path.unlink(missing_ok=True)


def _bad_end(harness: Harness, path: Path) -> str:
    """What was bad about it; empty for a good end."""
    start, size = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signal.setitimer(signal.ITIMER_PROF, 2 * SLOW)  # its signal ends the process
    bad = ""
    try:
        run_quietly(harness, path)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        bad = f"{type(error).__name__}-{Path(last.filename).name}-{last.lineno}"
    signal.setitimer(signal.ITIMER_PROF, 0)
    if time.process_time() - start > SLOW:
        bad = "slow"
    if 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - size) > LARGE:  # in KiB
        bad = "memory"
    return bad


def _keep(name: str, folder: Path, exit_code: int | None) -> set[str]:
    """Moves what ended badly; an input that is still there ended the process."""
    bad = list(folder.glob("bad-*"))
    if exit_code not in (0, None):
        bad += [path.rename(folder / f"bad-exit{exit_code}{path.suffix}") for path in folder.glob("input*")]
    target = FINDINGS / name
    for path in bad:
        target.mkdir(parents=True, exist_ok=True)
        (target / path.name.removeprefix("bad-")).write_bytes(path.read_bytes())
    return {path.name for path in bad}
