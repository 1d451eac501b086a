"""Whether a run that is killed and gone on with gives the bytes of one that was left alone.

    python benchmarks/kill_and_resume.py [--times 20] [--items 20000]

For each kind of file: one run undisturbed, then `--times` runs that get SIGKILL at a random moment, and go on with
--resume, killed once more in every second case. What is then there must be the same, byte for byte.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import lmdb
import numpy as np

from caffeconv.caffe_pb2 import Datum

ROOT = Path(__file__).resolve().parent.parent
DIGITS = ROOT / "fixtures" / "digits"


def make_database(path: Path, items: int) -> None:
    """Digits that are noise, 28×28."""
    noise = np.random.default_rng(0).integers(0, 256, (items, 784), np.uint8)
    with lmdb.open(str(path), map_size=1 << 30) as environment, environment.begin(write=True) as transaction:
        for i, pixels in enumerate(noise):
            datum = Datum(channels=1, height=28, width=28, data=pixels.tobytes())
            transaction.put(b"%010d" % i, datum.SerializeToString())


def command(database: Path, out: Path) -> list[str]:
    net = [str(DIGITS / "deploy.prototxt"), str(DIGITS / "digits.caffemodel")]
    blobs = ["--blobs", "ip1"] if out.suffix == ".npy" else ["--blobs", "ip1", "--blobs", "prob"]
    read = ["--input-db", str(database), "--batch-size", "10"]
    return [sys.executable, "-m", "caffeconv", "run", *net, *read, *blobs, "-o", str(out), "--resume", "-q"]


def content(out: Path) -> dict[str, bytes]:
    if out.is_file():
        return {"": out.read_bytes()}
    return {str(file.relative_to(out)): file.read_bytes() for file in sorted(out.rglob("*")) if file.is_file()}


def killed(arguments: list[str], after: float) -> bool:
    """Whether the process was still running, and got SIGKILL."""
    process = subprocess.Popen(arguments)
    time.sleep(after)
    running = process.poll() is None
    process.kill()
    process.wait()
    return running


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--items", type=int, default=20000)
    arguments = parser.parse_args()
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_database(folder / "db", arguments.items)
        for suffix in ("npy", "npz", "h5", "lmdb"):
            whole = folder / f"whole.{suffix}"
            begun = time.perf_counter()
            subprocess.run(command(folder / "db", whole), check=True)
            seconds = time.perf_counter() - begun
            same = kills = within = 0
            for i in range(arguments.times):
                out = folder / f"{i}.{suffix}"
                for _ in range(1 + i % 2):
                    if out.exists():  # the last one came too late
                        break
                    kills += killed(command(folder / "db", out), chance.uniform(0, seconds))
                    within += (folder / f"{out.name}.partial").exists()
                if not out.exists() or (folder / f"{out.name}.partial").exists():
                    subprocess.run(command(folder / "db", out), check=True)
                same += content(out) == content(whole)
                assert not (folder / f"{out.name}.partial").exists()
            print(
                f".{suffix}: {same} of {arguments.times} the same; {kills} kills, {within} with work begun", flush=True
            )


if __name__ == "__main__":
    main()
