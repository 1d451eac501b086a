"""What short commands cost: processor seconds of whole processes, medians, in turns.

    python benchmarks/startup.py [--rounds 11]

"Beyond Python" is what is left when a process that does nothing is taken away.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from classic_nets import write_net

import caffeconv

CALL = "import sys; from caffeconv.__main__ import main; main()"


def cost(command: Sequence[str], folder: Path) -> float:
    """Processor seconds of a process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-P", *command], cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(caffeconv.__file__).parent.parent)},
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def commands(folder: Path) -> dict[str, list[str]]:
    """What is timed; makes the nets."""
    for name, file in (("LeNet", "lenet"), ("GoogLeNet", "googlenet"), ("ResNet-50", "resnet50")):
        (folder / file).mkdir()
        net, weights = write_net(name, 1, folder / file)
        caffeconv.convert_to(folder / file / "net.onnx", net, weights)
    import numpy as np

    np.save(folder / "picture.npy", np.zeros((1, 3, 224, 224), np.float32))
    bare = (
        "import numpy, onnxruntime as o; s = o.InferenceSession('resnet50/net.onnx', providers=['CPUExecutionProvider']); "
        "s.run(None, {'data': numpy.load('picture.npy')})"
    )
    resnet = ["resnet50/net.prototxt", "resnet50/net.caffemodel"]
    return {
        "python": ["-c", "pass"],
        "import caffeconv": ["-c", "import caffeconv"],
        "--version": ["-c", CALL, "--version"],
        "--help": ["-c", CALL, "--help"],
        "inspect LeNet": ["-c", CALL, "inspect", "lenet/net.prototxt", "lenet/net.caffemodel"],
        "inspect GoogLeNet": ["-c", CALL, "inspect", "googlenet/net.prototxt", "googlenet/net.caffemodel"],
        "convert LeNet": ["-c", CALL, "convert", "lenet/net.prototxt", "lenet/net.caffemodel", "-o", "x.onnx"],
        "run ResNet-50": ["-c", CALL, "run", *resnet, "--input", "picture.npy", "--provider", "cpu"],
        "run ResNet-50 as ONNX": [
            "-c",
            CALL,
            "run",
            "resnet50/net.onnx",
            "--input",
            "picture.npy",
            "--provider",
            "cpu",
        ],
        "bare onnxruntime, ResNet-50": ["-c", bare],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        asked = commands(folder)
        times: dict[str, list[float]] = {name: [] for name in asked}
        for _ in range(rounds + 1):
            for name, command in asked.items():
                times[name].append(cost(command, folder))
    nothing = statistics.median(times["python"][1:])
    print("| | s of CPU | beyond Python |\n|---|---:|---:|")
    for name, values in times.items():
        median = statistics.median(values[1:])
        print(f"| {name} | {median:.3f} | {median - nothing:.3f} |")


if __name__ == "__main__":
    main()
