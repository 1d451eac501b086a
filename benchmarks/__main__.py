"""All benchmarks by one command, one after the other.

    python -m benchmarks [--quick] [--only NAME…] [--write docs/measured.md] [-- OPTIONS of the only one]

Each is a script of its own that takes its contestants in turns and prints what it measured. --write keeps that, with the
machine, the versions and the date, as a page. Those that need something that is not here say so.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Part:
    """A script, and its arguments for a look instead of a measurement."""

    about: str
    quick: tuple[str, ...] = ()
    is_usual: bool = True
    """Whether it runs unless others are asked for by name."""


PARTS = {
    "startup": Part("what short commands cost, and `import caffeconv`", ("--rounds", "3")),
    "convert_cost": Part("convert beside a plain copy of the weights: time and memory", ("--rounds", "1")),
    "kernels_cost": Part("weights alone, for other frameworks", ("1",)),
    "engines": Part("latency beside OpenCV and OpenVINO", ("--quick",)),
    "overhead": Part("what a pass costs beyond onnxruntime's own, and very deep nets", ("--quick",)),
    "throughput": Part("`run` over an LMDB of JPEGs beside the bare session", ("--items", "300", "--rounds", "1")),
    "infogain": Part("the fused loss beside standard operators, numpy and torch", ("--rounds", "3")),
    "training": Part("an iteration of training beside PyTorch", ("--nets", "lenet", "--seconds", "1")),
    "inspect_speed": Part("inspect, with and without something to mend"),
    "inspect_mutants": Part("how many broken nets inspect mends, and how fast", ("20",)),
    "public_nets": Part("public detectors end to end", is_usual=False),
    "broken_nets": Part("what inspect says of mistakes that people make", is_usual=False),
    "providers": Part("onnxruntime's providers in turns, over folders of models", is_usual=False),
    "cuda_nets": Part("nets on a GPU; benchmarks/on_gpu.sh does all that needs one", is_usual=False),
    "other_frameworks": Part("our models in other frameworks", is_usual=False),
    "versions": Part("the lowest and the newest versions of everything", is_usual=False),
    "kill_and_resume": Part("runs killed at random, and resumed", is_usual=False),
    "training_kill_and_resume": Part("trainings killed at random, and resumed", is_usual=False),
    "training_recipes": Part("what docs/training.md says that training gives", is_usual=False),
    "ray_workers": Part("runs shared out by Ray", is_usual=False),
}
USUAL = [name for name, part in PARTS.items() if part.is_usual]


def machine() -> Iterator[str]:
    """What was measured on, and with."""
    model = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ""
    )
    flags = next((line for line in _lines("/proc/cpuinfo") if line.startswith("flags")), "")
    wide = [name for name in ("avx2", "avx512f", "avx512_vnni", "amx_int8") if f" {name}" in flags]
    yield f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}, {platform.system()}, {model or platform.machine()}, "
    yield f"{len(os.sched_getaffinity(0))} cores, {', '.join(wide)}; Python {platform.python_version()}"
    for package in ("caffeconv", "onnxruntime", "onnx", "numpy", "protobuf", "opencv-python-headless", "torch"):
        try:
            yield f", {package} {importlib.metadata.version(package)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    yield "."


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else []


def run(name: str, arguments: list[str]) -> tuple[str, float]:
    """What a part printed, which is shown meanwhile, and how long it took."""
    started, text = time.monotonic(), []
    command = [sys.executable, str(FOLDER / f"{name}.py"), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            text.append(line)
    if process.returncode:
        text.append(f"(ended with exit code {process.returncode})\n")
        print(text[-1])
    return "".join(text), time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"  {name:26} {part.about}" for name, part in PARTS.items()),
    )  # fmt: skip
    parser.add_argument(
        "--quick", action="store_true", help="small numbers: whether everything runs, not how fast it is"
    )
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=USUAL, metavar="NAME")
    parser.add_argument("--write", type=Path, metavar="PAGE.md")
    own, _, rest = (list(it) for it in _split(sys.argv[1:]))
    options = parser.parse_args(own)
    if rest and len(options.only) != 1:
        parser.error("options after -- are for one benchmark; name it with --only")
    page = ["# Measured", "", f"By `python -m benchmarks`. {''.join(machine())}", ""]
    print(page[2])
    for name in options.only:
        print(f"\n== {name}: {PARTS[name].about}", flush=True)
        text, seconds = run(name, [*(PARTS[name].quick if options.quick else ()), *rest])
        page += [f"## {name}: {PARTS[name].about}", "", "```text", text.strip(), "```", "", f"({seconds:.0f} s)", ""]
    if options.write is not None:
        options.write.write_text("\n".join(page), encoding="utf-8")


def _split(arguments: list[str]) -> tuple[list[str], list[str], list[str]]:
    """What stands before `--`, that, and what stands after it."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:at], arguments[at : at + 1], arguments[at + 1 :]


if __name__ == "__main__":
    main()
