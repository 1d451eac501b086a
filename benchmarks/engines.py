"""How long well-known nets take: our models on onnxruntime beside other engines, in turns.

    python benchmarks/engines.py [--nets NAME…] [--batches 1 8] [--threads 2] [--seconds 6] [--quick]
        [--python OpenCV=/path/to/python --python OpenVINO=… --python openvino-provider=…] [--plot FILE.svg]

Each engine runs in a process of its own, OpenCV and OpenVINO also in an environment of their own (`opencv-python-headless<5`
reads Caffe's files; `onnxruntime-openvino` is no neighbour of `onnxruntime`). The processes take turns of a few passes; a
ratio is that of the medians. Engines that are not installed, or cannot run a net, are named. Nets at their published sizes
with random weights (benchmarks/classic_nets.py).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from classic_nets import NETS, QUICK, example_inputs, write_net

import caffeconv

OURS = "onnxruntime"
ENGINES = (OURS, "openvino-provider", "OpenCV", "OpenVINO")
CHILD = Path(__file__).with_name("engine_child.py")
TURN = 3
"""Passes of one engine before the next one's turn; the first does not count, as threads of others may still spin."""


@dataclass
class Contestant:
    """An engine with one net, in its process."""

    process: subprocess.Popen[str]
    version: str = ""
    error: str = ""
    times: list[float] = field(default_factory=list)

    def ask(self, runs: int) -> list[float]:
        """Seconds of each of so many passes."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{runs}\n")
        self.process.stdin.flush()
        answer: list[float] = json.loads(self.process.stdout.readline())
        return answer


def start(engine: str, python: str, folder: Path, threads: int) -> Contestant:
    process = subprocess.Popen(
        [python, "-P", str(CHILD), engine, str(folder), str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    said = json.loads(line) if line.startswith("{") else {"error": "the process ended"}
    return Contestant(process, said.get("version", ""), said.get("error", ""))


def measure(name: str, batch: int, pythons: Mapping[str, str], threads: int, seconds: float) -> dict[str, Contestant]:
    """Engine → its times; those that cannot run the net have none."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        net, weights = write_net(name, batch, folder)
        caffeconv.convert_to(folder / "net.onnx", net, weights)
        np.savez(folder / "input.npz", allow_pickle=False, **example_inputs(name, batch))
        contestants = {engine: start(engine, python, folder, threads) for engine, python in pythons.items()}
        running = [it for it in contestants.values() if not it.error]
        end, rounds = time.monotonic() + seconds * len(running), 0
        while rounds < 3 or time.monotonic() < end:
            for contestant in running:
                contestant.times += contestant.ask(TURN + 1)[1:]
            rounds += 1
        for contestant in contestants.values():
            contestant.process.kill()
            contestant.process.wait()
    return contestants


def rows(name: str, batch: int, contestants: Mapping[str, Contestant]) -> str:
    """A line of the table: milliseconds, and how many times ours the others take."""
    medians = {engine: statistics.median(it.times) for engine, it in contestants.items() if it.times}
    ours = medians[OURS]
    cells = [f"{medians[OURS] * 1e3:.2f}"]
    for engine in ENGINES[1:]:
        cells.append(f"{medians[engine] * 1e3:.2f} ({medians[engine] / ours:.2f})" if engine in medians else "–")
    return f"| {name} | {batch} | {' | '.join(cells)} |"


def plot(ratios: Mapping[tuple[str, int], Mapping[str, float]], path: Path) -> None:
    """Bars of each engine's time over ours, as an SVG."""
    width, height, left = 18, 14, 150
    lines, y = [], 30
    colours = dict(zip(ENGINES, ("#2563eb", "#0d9488", "#d97706", "#7c3aed"), strict=True))
    for x, engine in enumerate(ENGINES[1:]):
        lines.append(f'<rect x="{left + 160 * x}" y="8" width="10" height="10" fill="{colours[engine]}"/>')
        lines.append(f'<text x="{left + 14 + 160 * x}" y="17">{engine}</text>')
    for (name, batch), by_engine in ratios.items():
        lines.append(f'<text x="{left - 8}" y="{y + 10}" text-anchor="end">{name}, {batch}</text>')
        for engine, ratio in by_engine.items():
            length = min(ratio, 6) * 80
            lines.append(
                f'<rect x="{left}" y="{y}" width="{length:.0f}" height="{height - 3}" fill="{colours[engine]}"/>'
            )
            lines.append(f'<text x="{left + length + 4:.0f}" y="{y + 10}">{ratio:.2f}</text>')
            y += height
        y += width - height + 4
    lines.append(f'<line x1="{left + 80}" y1="24" x2="{left + 80}" y2="{y}" stroke="#888" stroke-dasharray="3"/>')
    text = "\n".join(lines)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {y + 10}" font-family="sans-serif" font-size="11" '
        f'fill="#444">\n<title>Time of other engines over ours; more than 1: ours is faster</title>\n{text}\n</svg>\n'
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=list(NETS), default=list(NETS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=6, help="for each engine with each net")
    parser.add_argument("--python", action="append", default=[], metavar="ENGINE=PATH", help=", ".join(ENGINES))
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    parser.add_argument("--quick", action="store_true", help=f"{', '.join(QUICK)}, one second each")
    options = parser.parse_args(arguments)
    pythons = {OURS: sys.executable, "OpenCV": sys.executable, "OpenVINO": sys.executable}
    pythons |= dict(text.split("=", 1) for text in options.python)
    print("Milliseconds; in brackets: times ours.\n")
    print(f"| net | batch | caffeconv + onnxruntime | {' | '.join(ENGINES[1:])} |")
    print("|---|---:|" + "---:|" * len(ENGINES))
    ratios: dict[tuple[str, int], dict[str, float]] = {}
    problems: dict[str, str] = {}
    versions: dict[str, str] = {}
    for name in QUICK if options.quick else options.nets:
        for batch in options.batches:
            contestants = measure(name, batch, pythons, options.threads, 1 if options.quick else options.seconds)
            print(rows(name, batch, contestants), flush=True)
            ours = statistics.median(contestants[OURS].times)
            ratios[name, batch] = {
                engine: statistics.median(it.times) / ours
                for engine, it in contestants.items()
                if it.times and engine != OURS
            }
            problems |= {f"{engine}, {name}": it.error for engine, it in contestants.items() if it.error}
            versions |= {engine: it.version for engine, it in contestants.items() if it.version}
    print("\n" + ", ".join(f"{engine} {version}" for engine, version in versions.items()))
    for engine in ENGINES[1:]:
        values = [by_engine[engine] for by_engine in ratios.values() if engine in by_engine]
        if values:
            print(
                f"{engine}: median {statistics.median(values):.2f} times ours, {min(values):.2f} to {max(values):.2f}"
            )
    for where, error in problems.items():
        print(f"{where}: {error}")
    if options.plot is not None:
        plot(ratios, options.plot)


if __name__ == "__main__":
    main()
