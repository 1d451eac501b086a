"""How long `caffeconv inspect` takes, whole process and peak memory: VGG-16 with its weights, a broken one, a long net.

The weights are files of the true size (VGG-16: 553 MB) that hold zeros. Prints for each case the median of five runs and
the first of the edits that are offered.

    python benchmarks/inspect_speed.py
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caffeconv.caffe_format.caffemodel_writer import write_caffemodel
from caffeconv.tensor.shape import Shape

RUNS = 5
COMMAND = [sys.executable, "-m", "caffeconv", "inspect", "--json"]


def input_layer(size: int) -> str:
    return (
        f'layer {{ name: "data" type: "Input" top: "data" '
        f"input_param {{ shape {{ dim: 1 dim: 3 dim: {size} dim: {size} }} }} }}\n"
    )


def conv(name: str, bottom: str, outputs: int) -> str:
    return (
        f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" '
        f"convolution_param {{ num_output: {outputs} kernel_size: 3 pad: 1 }} }}\n"
        f'layer {{ name: "relu_{name}" type: "ReLU" bottom: "{name}" top: "{name}" }}\n'
    )


def product(name: str, bottom: str, outputs: int) -> str:
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" '
        f"inner_product_param {{ num_output: {outputs} }} }}\n"
    )


def vgg16() -> tuple[str, dict[str, list[Shape]]]:
    """The net, and the shapes of its parameters."""
    text, bottom, channels, weights = input_layer(224), "data", 3, {}
    for block, (convs, outputs) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), 1):
        for i in range(1, convs + 1):
            name = f"conv{block}_{i}"
            text += conv(name, bottom, outputs)
            weights[name] = [(outputs, channels, 3, 3), (outputs,)]
            bottom, channels = name, outputs
        text += (
            f'layer {{ name: "pool{block}" type: "Pooling" bottom: "{bottom}" top: "pool{block}" '
            "pooling_param { kernel_size: 2 stride: 2 } }\n"
        )
        bottom = f"pool{block}"
    inputs = 512 * 7 * 7
    for name, outputs in (("fc6", 4096), ("fc7", 4096), ("fc8", 1000)):
        text += product(name, bottom, outputs)
        weights[name] = [(outputs, inputs), (outputs,)]
        bottom, inputs = name, outputs
    return text, weights


def long_net() -> tuple[str, dict[str, list[Shape]]]:
    """500 convolutions and a layer whose weights want another picture."""
    text = input_layer(32) + "".join(conv(f"conv{i}", f"conv{i - 1}" if i else "data", 8) for i in range(500))
    weights: dict[str, list[Shape]] = {f"conv{i}": [(8, 8 if i else 3, 3, 3), (8,)] for i in range(500)}
    return text + product("fc", "conv499", 4), {**weights, "fc": [(4, 8 * 900), (4,)]}


def write_zeros(path: Path, weights: Mapping[str, Sequence[Shape]]) -> None:
    """A caffemodel of these shapes."""
    layers = (
        (name, "", [(shape, np.zeros(shape, np.float32)) for shape in shapes]) for name, shapes in weights.items()
    )
    with path.open("wb") as file:
        write_caffemodel(file, "", layers)


@dataclass(frozen=True)
class Case:
    name: str
    text: str
    weights: Mapping[str, Sequence[Shape]]


def run(case: Case, folder: Path) -> str:
    net, file = folder / "net.prototxt", folder / "weights.caffemodel"
    net.write_text(case.text)
    write_zeros(file, case.weights)
    seconds, output = [], b""
    for _ in range(RUNS):
        start = time.perf_counter()
        output = subprocess.run([*COMMAND, str(net), str(file)], capture_output=True, check=False).stdout
        seconds.append(time.perf_counter() - start)
    cures = [cure["text"] for cure in json.loads(output)["cures"]]
    first = f"; first cure: {cures[0]}" if cures else ""
    return f"{case.name}: {file.stat().st_size / 1e6:.0f} MB of weights, {statistics.median(seconds):.2f} s{first}"


def main() -> None:
    text, weights = vgg16()
    pad = "pad: 0".join(text.rsplit("pad: 1", 1))
    cases = (
        Case("VGG-16", text, weights),
        Case("VGG-16, one pad wrong", pad, weights),
        Case("500 layers", *long_net()),
    )
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            print(run(case, Path(folder)), flush=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"peak resident memory of the largest of these processes: {peak / 1024:.0f} MB")


if __name__ == "__main__":
    main()
