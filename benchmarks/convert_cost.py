"""What `caffeconv convert` costs beside a plain copy of the weights file: whole process, time and memory.

Makes a VGG-16 and a ResNet-50 with random weights (553 and 102 MB), the size of Caffe's own, in a temporary folder, and
runs `cp` and each way to store weights in turn, round by round; ratios are taken within a round. With --large also a net
of 5 GiB, with its weights in HDF5, which is then run. What it made is removed at the end.

    python benchmarks/convert_cost.py [--rounds N] [--large] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caffeconv.caffe_format.caffemodel_writer import WrittenBlob, write_layer
from caffeconv.conversion.load import load
from caffeconv.tensor.shape import FloatArray, Shape

GIB = 1 << 30


@dataclass(frozen=True)
class Cost:
    """One run of one process."""

    seconds: float
    rss: float
    """Peak resident memory, MB."""
    anonymous: float
    """Peak anonymous memory, MB, looked at every few milliseconds."""


@dataclass(frozen=True)
class Way:
    """A command to be timed, and the files that it makes."""

    name: str
    command: tuple[str, ...]
    made: str


# -- nets --------------------------------------------------------------------------------------------------------------


def layer(name: str, kind: str, bottoms: Sequence[str], top: str, settings: str = "") -> str:
    named = " ".join(f'bottom: "{bottom}"' for bottom in bottoms)
    return f'layer {{ name: "{name}" type: "{kind}" {named} top: "{top}" {settings} }}\n'


def picture_input() -> str:
    return layer("data", "Input", [], "data", "input_param { shape { dim: 1 dim: 3 dim: 224 dim: 224 } }")


def vgg16() -> str:
    """VGG-16 as its authors' deploy.prototxt has it."""
    text, below = picture_input(), "data"
    for block, (channels, depth) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)], 1):
        for i in range(1, depth + 1):
            name = f"conv{block}_{i}"
            settings = f"convolution_param {{ num_output: {channels} pad: 1 kernel_size: 3 }}"
            text += layer(name, "Convolution", [below], name, settings) + layer(
                f"relu{block}_{i}", "ReLU", [name], name
            )
            below = name
        pool = f"pool{block}"
        text += layer(pool, "Pooling", [below], pool, "pooling_param { pool: MAX kernel_size: 2 stride: 2 }")
        below = pool
    for i, outputs in ((6, 4096), (7, 4096), (8, 1000)):
        text += layer(f"fc{i}", "InnerProduct", [below], f"fc{i}", f"inner_product_param {{ num_output: {outputs} }}")
        below = f"fc{i}"
        if i < 8:
            text += layer(f"relu{i}", "ReLU", [below], below) + layer(f"drop{i}", "Dropout", [below], below)
    return text + layer("prob", "Softmax", [below], "prob")


def resnet50() -> str:
    """ResNet-50 as its authors' deploy.prototxt has it: BatchNorm and Scale after every convolution."""
    text = picture_input() + unit("conv1", "data", 64, 7, stride=2, relu=True)
    text += layer("pool1", "Pooling", ["conv1"], "pool1", "pooling_param { pool: MAX kernel_size: 3 stride: 2 }")
    below = "pool1"
    for stage, (width, depth) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)], 2):
        for i in range(depth):
            name, stride = f"res{stage}{'abcdef'[i]}", 2 if i == 0 and stage > 2 else 1
            shortcut = below
            if i == 0:
                shortcut = f"{name}_branch1"
                text += unit(shortcut, below, 4 * width, 1, stride=stride, relu=False)
            text += unit(f"{name}_branch2a", below, width, 1, stride=stride, relu=True)
            text += unit(f"{name}_branch2b", f"{name}_branch2a", width, 3, stride=1, relu=True)
            text += unit(f"{name}_branch2c", f"{name}_branch2b", 4 * width, 1, stride=1, relu=False)
            text += layer(name, "Eltwise", [shortcut, f"{name}_branch2c"], name)
            text += layer(f"{name}_relu", "ReLU", [name], name)
            below = name
    text += layer("pool5", "Pooling", [below], "pool5", "pooling_param { pool: AVE kernel_size: 7 stride: 1 }")
    text += layer("fc1000", "InnerProduct", ["pool5"], "fc1000", "inner_product_param { num_output: 1000 }")
    return text + layer("prob", "Softmax", ["fc1000"], "prob")


def unit(name: str, below: str, outputs: int, kernel: int, *, stride: int, relu: bool) -> str:
    """Convolution, BatchNorm and Scale, and perhaps ReLU."""
    window = f"kernel_size: {kernel} stride: {stride} pad: {kernel // 2} bias_term: false"
    text = layer(name, "Convolution", [below], name, f"convolution_param {{ num_output: {outputs} {window} }}")
    text += layer(f"bn_{name}", "BatchNorm", [name], name)
    text += layer(f"scale_{name}", "Scale", [name], name, "scale_param { bias_term: true }")
    return text + layer(f"{name}_relu", "ReLU", [name], name) if relu else text


def large(outputs: int, depth: int) -> str:
    """A chain of InnerProduct layers, all of one size."""
    text = layer("data", "Input", [], "data", f"input_param {{ shape {{ dim: 1 dim: {outputs} }} }}")
    for i in range(depth):
        settings = f"inner_product_param {{ num_output: {outputs} bias_term: false }}"
        text += layer(f"fc{i}", "InnerProduct", ["data" if i == 0 else f"fc{i - 1}"], f"fc{i}", settings)
    return text


# -- weights -----------------------------------------------------------------------------------------------------------


def random_values(shape: Shape, name: str, rng: np.random.Generator) -> FloatArray:
    """Small numbers; positive where they stand for variances, 1 for BatchNorm's scale factor."""
    if name == "scale_factor":
        return np.ones(shape, np.float32)
    values: FloatArray = rng.standard_normal(shape, np.float32) * np.float32(0.01)
    return np.abs(values) + np.float32(0.5) if name == "variance" else values


def write_caffemodel(net: Path, out: Path) -> None:
    """A caffemodel with random weights that carries the net too, as Caffe writes it."""
    rng = np.random.default_rng(0)
    with out.open("wb") as file:
        for node in load(net).graph.nodes:
            blobs = [WrittenBlob.of(p.shape, random_values(p.shape, p.name, rng)) for p in node.params]
            write_layer(file, node.definition.proto.SerializeToString(), blobs)


def write_large_hdf5(outputs: int, depth: int, out: Path) -> None:
    """Weights that leave what goes through the net as it is, up to a shift by one place in each layer."""
    import h5py

    with h5py.File(out, "w") as file:
        for i in range(depth):
            weight = file.create_dataset(f"data/fc{i}/0", (outputs, outputs), "<f4")
            for start in range(0, outputs, 1024):
                rows = np.zeros((min(1024, outputs - start), outputs), np.float32)
                rows[np.arange(len(rows)), (start + np.arange(len(rows)) + 1) % outputs] = 1
                weight[start : start + len(rows)] = rows


# -- measuring ---------------------------------------------------------------------------------------------------------


def measured(command: Sequence[str]) -> Cost:
    """Runs a command to its end; the sampling of its memory costs it a little time on a machine with one core."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    rss = anonymous = 0.0
    while process.poll() is None:
        status = _status(process.pid)
        rss, anonymous = max(rss, status.get("VmHWM", 0)), max(anonymous, status.get("RssAnon", 0))
        time.sleep(0.004)
    seconds = time.perf_counter() - start
    if process.returncode:
        assert process.stderr is not None
        raise SystemExit(f"{' '.join(command)}: {process.stderr.read().decode()}")
    return Cost(seconds, rss / 1e3, anonymous / 1e3)


def _status(pid: int) -> dict[str, float]:
    """kB by name, from /proc; empty when the process has just gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {line.split(":")[0]: float(line.split()[1]) for line in lines if line.endswith(" kB")}


def rounds(ways: Sequence[Way], number: int, folder: Path) -> dict[str, list[Cost]]:
    costs: dict[str, list[Cost]] = {way.name: [] for way in ways}
    for _ in range(number):
        for way in ways:
            costs[way.name].append(measured(way.command))
            for path in folder.glob(way.made):
                path.unlink()
    return costs


def rows(costs: dict[str, list[Cost]]) -> Iterator[str]:
    copies = [cost.seconds for cost in costs["cp"]]
    for name, found in costs.items():
        seconds = statistics.median(cost.seconds for cost in found)
        ratio = statistics.median(cost.seconds / copy for cost, copy in zip(found, copies, strict=True))
        over = statistics.median(cost.seconds - 2 * copy for cost, copy in zip(found, copies, strict=True))
        rss, anonymous = max(cost.rss for cost in found), max(cost.anonymous for cost in found)
        yield f"| {name} | {seconds:.2f} | {ratio:.1f} | {over:.2f} | {rss:.0f} | {anonymous:.0f} |"


HEAD = (
    "| | s | ÷ cp | s beyond 2 × cp | peak resident, MB | peak anonymous, MB |",
    "|---|---:|---:|---:|---:|---:|",
)


def ways_to_store(net: Path, weights: Path, more: Sequence[Way]) -> list[Way]:
    folder = weights.parent
    run = (sys.executable, "-m", "caffeconv", "convert", str(net), str(weights), "-q", "-o")
    copy = Way("cp", ("cp", str(weights), str(folder / "copy")), "copy")
    stores = ("link", "external", "embed")
    return [
        copy, *(Way(s, (*run, str(folder / f"{s}.onnx"), "--weights", s), f"{s}.onnx*") for s in stores), *more
    ]  # fmt: skip


def compare(title: str, text: str, number: int, folder: Path) -> None:
    net, weights = folder / "net.prototxt", folder / "net.caffemodel"
    net.write_text(text)
    write_caffemodel(net, weights)
    print(f"\n{title}: {weights.stat().st_size / 1e6:.0f} MB\n")
    # further ways to write weights belong here, with the file that each makes
    more: list[Way] = []
    print("\n".join((*HEAD, *rows(rounds(ways_to_store(net, weights, more), number, folder)))))
    weights.unlink()


def convert_large(folder: Path) -> None:
    """5 GiB, converted with each file beside the other, and run."""
    outputs, depth = 1 << 14, 5
    net, weights = folder / "net.prototxt", folder / "net.caffemodel.h5"
    net.write_text(large(outputs, depth))
    write_large_hdf5(outputs, depth, weights)
    print(f"\n{depth} InnerProduct layers, weights in HDF5: {weights.stat().st_size / GIB:.2f} GiB\n")
    found = {}
    data = folder / "x.npy"
    values = np.arange(outputs, dtype=np.float32)[None]
    np.save(data, values)
    for storage in ("external", "link"):
        model, result = folder / f"{storage}.onnx", folder / "y.npz"
        command = (sys.executable, "-m", "caffeconv", "convert", str(net), str(weights), "-q", "-o", str(model))
        found[f"convert, {storage}"] = measured((*command, *(("--weights", "link") if storage == "link" else ())))
        run = (sys.executable, "-m", "caffeconv", "run", str(model), "--input", str(data), "-o", str(result), "-q")
        found[f"run, {storage}"] = measured(run)
        with np.load(result) as results:
            assert np.array_equal(results[f"fc{depth - 1}"], np.roll(values, -depth, axis=1))
        for path in folder.glob(f"{storage}.onnx*"):
            path.unlink()
    print("| | s | peak resident, MB | peak anonymous, MB |\n|---|---:|---:|---:|")
    for name, cost in found.items():
        print(f"| {name} | {cost.seconds:.1f} | {cost.rss:.0f} | {cost.anonymous:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--large", action="store_true", help="the net of 5 GiB, too: takes 10 GiB of disk")
    parser.add_argument("--folder", type=Path, help="where to make the files; by default the system's place for them")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as made:
        folder = Path(made)
        compare("VGG-16", vgg16(), given.rounds, folder)
        compare("ResNet-50, BatchNorm and Scale after each convolution", resnet50(), given.rounds, folder)
        if given.large:
            convert_large(folder)


if __name__ == "__main__":
    main()
