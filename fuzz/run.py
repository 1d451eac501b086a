"""python -m fuzz --minutes N [HARNESS…]: fuzzes every reader in turn, and keeps what ended badly in fuzz/findings.

One input of twenty is traced: of the modules that these enter, the share of lines that they reach is told.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import tempfile
import time
import traceback
from contextlib import nullcontext
from pathlib import Path

from fuzz.coverage import Lines
from fuzz.harnesses import HARNESSES, run_quietly
from fuzz.mutate import mutated

FINDINGS = Path(__file__).with_name("findings")
SLOW = 10.0
"""Seconds of one input, beyond which that is a finding."""
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
    for number in range(TOGETHER):
        if time.monotonic() > end:
            return
        source = draw.choice(seeds)
        path = folder / f"input{''.join(source.suffixes[-2:])}"
        path.write_bytes(mutated(source.read_bytes(), draw))
        start = time.monotonic()
        try:
            with lines.traced() if number % TRACED == 0 else nullcontext():
                run_quietly(harness, path)
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__}-{Path(last.filename).name}-{last.lineno}"
            path.rename(folder / f"bad-{kind}{path.suffix}")
        if time.monotonic() - start > SLOW:
            path.rename(folder / f"bad-slow{path.suffix}")
        (folder / f"done-{number}").touch()
        if number % TRACED == 0:
            lines.write(folder / "lines")
        path.unlink(missing_ok=True)


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
