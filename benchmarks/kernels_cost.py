"""What `caffeconv convert` to weights alone costs, against `cp` of the same caffemodel on the same disk.

Makes a VGG-16 with random weights (553 MB). Each round copies the file and converts it to each format, whole processes in
turn; ratios are taken within a round, medians over the rounds. Anonymous memory (what the process holds for itself,
beyond the mapped caffemodel) is sampled from /proc.

    python benchmarks/kernels_cost.py [ROUNDS] [FOLDER]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caffeconv.caffe_format.caffemodel_writer import write_caffemodel
from caffeconv.tensor.shape import FloatArray, Shape

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
DENSE = (4096, 4096, 1000)
FORMATS = ("safetensors", "npz", "h5")


@dataclass(frozen=True)
class Cost:
    """One process: seconds from start to end, and the most anonymous memory it held, in MB."""

    seconds: float
    anonymous: float


def layers() -> Iterator[tuple[str, str, tuple[Shape, ...], str]]:
    """Name, type, shapes of the parameters, and fields of VGG-16's layers."""
    channels = 3
    for stage, (outputs, number) in enumerate(STAGES, 1):
        for i in range(1, number + 1):
            fields = f"convolution_param {{ num_output: {outputs} kernel_size: 3 pad: 1 }}"
            yield f"conv{stage}_{i}", "Convolution", ((outputs, channels, 3, 3), (outputs,)), fields
            channels = outputs
        yield f"pool{stage}", "Pooling", (), "pooling_param { pool: MAX kernel_size: 2 stride: 2 }"
    inputs = channels * 7 * 7
    for i, outputs in enumerate(DENSE, 6):
        fields = f"inner_product_param {{ num_output: {outputs} }}"
        yield f"fc{i}", "InnerProduct", ((outputs, inputs), (outputs,)), fields
        inputs = outputs


def make_vgg16(folder: Path) -> tuple[Path, Path]:
    """Writes prototxt and caffemodel."""
    net, weights = folder / "vgg16.prototxt", folder / "vgg16.caffemodel"
    text = 'name: "VGG-16" layer { name: "data" type: "Input" top: "data" input_param { shape '
    text += "{ dim: 1 dim: 3 dim: 224 dim: 224 } } }\n"
    bottom = "data"
    for name, kind, _, fields in layers():
        text += f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{name}" {fields} }}\n'
        bottom = name
    net.write_text(text)
    chance = np.random.default_rng(2014)

    def filled(shape: Shape) -> FloatArray:
        return chance.random(shape, np.float32)

    stored = ((name, kind, [(shape, filled(shape)) for shape in shapes]) for name, kind, shapes, _ in layers())
    with weights.open("wb") as file:
        write_caffemodel(file, "VGG-16", stored)
    return net, weights


def measured(command: list[str]) -> Cost:
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    most = 0
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        try:
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
            most = max(most, int(fields.get("RssAnon", "0 kB").split()[0]))
        except OSError:
            break
        time.sleep(0.002)
    if process.wait() != 0:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    return Cost(time.perf_counter() - start, most / 1e3)


def main(rounds: int, folder: Path) -> None:
    net, weights = make_vgg16(folder)
    print(f"{weights.stat().st_size / 1e6:.0f} MB; {rounds} rounds")
    copies: list[Cost] = []
    found: dict[str, list[Cost]] = {name: [] for name in FORMATS}
    copy = folder / "copy"
    for _ in range(rounds):
        copies.append(measured(["cp", str(weights), str(copy)]))
        copy.unlink()
        for name, costs in found.items():
            out = folder / f"out.{name}"
            command = [sys.executable, "-m", "caffeconv", "convert", str(net), str(weights), "-o", str(out), "-q"]
            costs.append(measured(command))
            out.unlink()
    print(f"{'cp':>12}: {statistics.median(cost.seconds for cost in copies):.2f} s")
    for name, costs in found.items():
        seconds = statistics.median(cost.seconds for cost in costs)
        allowed = statistics.median(
            cost.seconds / (4 * cp.seconds + 0.6) for cost, cp in zip(costs, copies, strict=True)
        )
        memory = max(cost.anonymous for cost in costs)
        print(f"{name:>12}: {seconds:.2f} s, {allowed:.2f} × (4 × cp + 0.6 s), {memory:.0f} MB anonymous at most")


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as made:
        main(rounds, Path(made))
