"""What `--engine ray` costs and brings on one machine: the same features by one process, and by workers.

    python benchmarks/ray_workers.py [--items 4000] [--rounds 3] [--workers 1,2] [--blob fire9]

The database and the net are those of throughput.py. Each round runs all ways one after another, as the program itself, and
compares the files, byte for byte. Printed are medians: items/s from the first batch to the last, seconds from start to end
(which holds Ray's start), and the peak memory of the process that gathers the results.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from throughput import BATCH, make_database, net_text

PROGRAM = (
    "import resource, sys\nfrom caffeconv.cli import main\n"
    "try:\n    main(sys.argv[1:])\nfinally:\n"
    "    print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
)


@dataclass(frozen=True)
class Measured:
    """One run."""

    rate: float
    seconds: float
    megabytes: float
    digest: str


def measure(folder: Path, blob: str, engine: list[str]) -> Measured:
    out = folder / "features.npy"
    command = ["run", str(folder / "net.prototxt"), "--blobs", blob, "-o", str(out), "-v", *engine]
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *command], stderr=subprocess.PIPE, text=True, check=True,
        env={**os.environ, "RAY_ADDRESS": "local"},
    )  # fmt: skip
    seconds = time.perf_counter() - begun
    rate = re.search(r"([\d.]+) items/s", done.stderr)
    peak = re.search(r"peak (\d+)", done.stderr)
    assert rate is not None
    assert peak is not None
    digest = _digest(out)
    out.unlink()
    return Measured(float(rate[1]), seconds, int(peak[1]) / 1000, digest)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--blob", default="fire9")
    given = parser.parse_args()
    ways: dict[str, list[str]] = {"one process": []}
    for workers in given.workers.split(","):
        ways[f"ray, {workers} workers"] = ["--engine", "ray", "--workers", workers]
    with tempfile.TemporaryDirectory() as folder:
        make_database(Path(folder) / "db", given.items)
        (Path(folder) / "net.prototxt").write_text(net_text(Path(folder) / "db"))
        rounds = [
            {way: measure(Path(folder), given.blob, engine) for way, engine in ways.items()}
            for _ in range(given.rounds)
        ]
    digests = {measured.digest for one in rounds for measured in one.values()}
    print(f"{given.items} items in batches of {BATCH}, {os.cpu_count()} cores; files: {len(digests)} different")
    print(f"{'':16} {'items/s':>8} {'seconds':>8} {'MB':>6}   items/s ÷ one process")
    for way in ways:
        runs = [one[way] for one in rounds]
        ratio = statistics.median(one[way].rate / one["one process"].rate for one in rounds)
        rate, seconds = statistics.median(run.rate for run in runs), statistics.median(run.seconds for run in runs)
        print(f"{way:16} {rate:8.0f} {seconds:8.1f} {max(run.megabytes for run in runs):6.0f}   {ratio:.2f}")


if __name__ == "__main__":
    main()
