"""Whether a training that is killed and gone on with ends as one that was left alone, bit for bit.

    python benchmarks/training_kill_and_resume.py [--times 20] [--iterations 400]

The digits, with dropout and random crops, and a snapshot every 50 iterations: once undisturbed, then `--times` runs that
get SIGKILL at a random moment, some of them twice, and go on from their last snapshot with --resume-data.
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIGITS = ROOT / "fixtures" / "digits"
DROPOUT = 'layer { name: "drop" type: "Dropout" bottom: "ip1" top: "ip1" }\n'


def write_files(folder: Path, iterations: int) -> None:
    text = (DIGITS / "train_val.prototxt").read_text().replace('"train_lmdb"', f'"{DIGITS / "train_lmdb"}"')
    text = text.replace('"fixtures/', f'"{ROOT}/fixtures/')
    place = text.index("layer {", text.index('name: "relu1"'))
    (folder / "net.prototxt").write_text(text[:place] + DROPOUT + text[place:])
    (folder / "solver.prototxt").write_text(
        f'net: "{folder / "net.prototxt"}" type: "Adam" base_lr: 0.001 momentum: 0.9 lr_policy: "fixed"\n'
        f'max_iter: {iterations} snapshot: 50 snapshot_prefix: "s" test_iter: 1 test_interval: 70 solver_mode: CPU\n'
    )


def command(solver: Path, folder: Path) -> list[str]:
    states = {int(re.findall(r"\d+", path.name)[-1]): path for path in folder.glob("s_iter_*.solverstate")}
    going_on = ["--snapshot", str(states[max(states)]), "--resume-data"] if states else []
    return [sys.executable, "-m", "caffeconv", "train", str(solver), "-q", *going_on]


def run(solver: Path, folder: Path, kills: list[float]) -> int:
    """Runs to the end, with SIGKILL after so many seconds each time; how often it was killed."""
    folder.mkdir()
    killed = 0
    for seconds in [*kills, None]:
        process = subprocess.Popen(command(solver, folder), cwd=folder, stdout=subprocess.DEVNULL)
        try:
            if process.wait(seconds):
                raise SystemExit(f"{folder.name}: exit code {process.returncode}")
            return killed
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
    return killed


def results(folder: Path, iterations: int) -> list[bytes]:
    return [(folder / f"s_iter_{iterations}.{suffix}").read_bytes() for suffix in ("caffemodel", "solverstate")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--iterations", type=int, default=400)
    arguments = parser.parse_args()
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        write_files(work, arguments.iterations)
        start = time.monotonic()
        run(work / "solver.prototxt", work / "whole", [])
        seconds = time.monotonic() - start
        whole = results(work / "whole", arguments.iterations)
        equal = kills = 0
        for number in range(arguments.times):
            moments = [chance.uniform(0.1, 1) * seconds for _ in range(1 + number % 2)]
            folder = work / str(number)
            kills += run(work / "solver.prototxt", folder, moments)
            equal += results(folder, arguments.iterations) == whole
        print(f"{equal} of {arguments.times} runs, with {kills} kills, equal the undisturbed one ({seconds:.1f} s)")
        if equal != arguments.times:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
