"""How long an iteration of training takes, data in memory, and what of it is not onnxruntime's.

    python benchmarks/training.py [--threads 2] [--seconds 5] [--nets lenet cifar caffenet squeezenet]

SGD with momentum and weight decay; medians. Where PyTorch is installed, the same layers, loss and update in it, on as many
threads; and a script's own loop, which runs forward and backward and changes the parameters with numpy. All in turns of half
a second, whose beginning does not count: threads of the one before may still spin. Then the nodes on which onnxruntime spends
most of the iteration; and images/s with a Data layer over an LMDB of such pictures, uncompressed, and the most memory that a
process of its own takes for it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import lmdb
import numpy as np

from caffeconv.caffe_format.prototxt import NetSource
from caffeconv.caffe_pb2 import Datum
from caffeconv.frontend.options import NetOptions
from caffeconv.net.net import Net
from caffeconv.runtime.providers import ComputeOptions
from caffeconv.training.solver import Solver
from caffeconv.training.solver_file import read_solver

RATE, MOMENTUM, DECAY = 0.001, 0.9, 0.0005


@dataclass(frozen=True)
class Layer:
    """One layer of a chain: conv, max, ave, relu, lrn, fc, drop or fire, with its sizes."""

    kind: str
    outputs: int = 0
    kernel: int = 0
    stride: int = 1
    pad: int = 0
    group: int = 1


@dataclass(frozen=True)
class Chain:
    """A net: its input, its classes, and its layers."""

    shape: tuple[int, int, int, int]
    classes: int
    layers: tuple[Layer, ...]


def conv(outputs: int, kernel: int, stride: int = 1, pad: int = 0, group: int = 1) -> Layer:
    return Layer("conv", outputs, kernel, stride, pad, group)


def pool(kind: str, kernel: int, stride: int) -> Layer:
    return Layer(kind, kernel=kernel, stride=stride)


RELU, LRN, DROP = Layer("relu"), Layer("lrn"), Layer("drop")
FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
CHAINS = {
    "lenet": Chain((64, 1, 28, 28), 10, (
        conv(20, 5), pool("max", 2, 2), conv(50, 5), pool("max", 2, 2), Layer("fc", 500), RELU, Layer("fc", 10),
    )),
    "cifar": Chain((100, 3, 32, 32), 10, (
        conv(32, 5, pad=2), pool("max", 3, 2), RELU, conv(32, 5, pad=2), RELU, pool("ave", 3, 2), conv(64, 5, pad=2), RELU,
        pool("ave", 3, 2), Layer("fc", 64), Layer("fc", 10),
    )),
    "caffenet": Chain((16, 3, 227, 227), 1000, (
        conv(96, 11, 4), RELU, pool("max", 3, 2), LRN, conv(256, 5, pad=2, group=2), RELU, pool("max", 3, 2), LRN,
        conv(384, 3, pad=1), RELU, conv(384, 3, pad=1, group=2), RELU, conv(256, 3, pad=1, group=2), RELU,
        pool("max", 3, 2), Layer("fc", 4096), RELU, DROP, Layer("fc", 4096), RELU, DROP, Layer("fc", 1000),
    )),
    "squeezenet": Chain((16, 3, 227, 227), 1000, (
        conv(64, 3, 2), RELU, pool("max", 3, 2), *(Layer("fire", o, s) for s, o in FIRES[:2]), pool("max", 3, 2),
        *(Layer("fire", o, s) for s, o in FIRES[2:4]), pool("max", 3, 2), *(Layer("fire", o, s) for s, o in FIRES[4:]),
        DROP, conv(1000, 1), RELU, Layer("mean"),
    )),
}  # fmt: skip


# -- ours --------------------------------------------------------------------------------------------------------------


def prototxt(chain: Chain) -> str:
    """The chain as a net with SoftmaxWithLoss."""
    dims = " ".join(f"dim: {dim}" for dim in chain.shape)
    text = [
        f'layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {dims} }} }} }}',
        f'layer {{ name: "label" type: "Input" top: "label" input_param {{ shape {{ dim: {chain.shape[0]} }} }} }}',
    ]
    last = "data"
    for number, layer in enumerate(chain.layers):
        last = _write(text, layer, f"{layer.kind}{number}", last)
    text.append(f'layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "{last}" bottom: "label" top: "loss" }}')
    return "\n".join(text)


def _write(text: list[str], layer: Layer, name: str, bottom: str) -> str:
    filler = 'weight_filler { type: "xavier" }'

    def add(kind: str, top: str, fields: str, below: str = "") -> str:
        below = below or f'bottom: "{bottom}"'
        text.append(f'layer {{ name: "{top}" type: "{kind}" {below} top: "{top}" {fields} }}')
        return top

    def rectify(blob: str) -> str:
        text.append(f'layer {{ name: "{blob}_relu" type: "ReLU" bottom: "{blob}" top: "{blob}" }}')
        return blob

    def convolve(top: str, below: str, sizes: Layer) -> str:
        fields = f"num_output: {sizes.outputs} kernel_size: {sizes.kernel} stride: {sizes.stride} pad: {sizes.pad}"
        made = add(
            "Convolution", top, f"convolution_param {{ {fields} group: {sizes.group} {filler} }}", f'bottom: "{below}"'
        )
        return made if sizes is layer else rectify(made)

    if layer.kind == "conv":
        return convolve(name, bottom, layer)
    if layer.kind == "fire":
        squeezed = convolve(f"{name}_s", bottom, conv(layer.kernel, 1))
        parts = [convolve(f"{name}_{k}", squeezed, conv(layer.outputs, k, pad=k // 2)) for k in (1, 3)]
        return add("Concat", name, "", " ".join(f'bottom: "{part}"' for part in parts))
    sizes = f"kernel_size: {layer.kernel} stride: {layer.stride}"
    return {
        "max": lambda: add("Pooling", name, f"pooling_param {{ pool: MAX {sizes} }}"),
        "ave": lambda: add("Pooling", name, f"pooling_param {{ pool: AVE {sizes} }}"),
        "mean": lambda: add("Pooling", name, "pooling_param { pool: AVE global_pooling: true }"),
        "relu": lambda: rectify(bottom),
        "lrn": lambda: add("LRN", name, "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }"),
        "drop": lambda: add("Dropout", name, ""),
        "fc": lambda: add("InnerProduct", name, f"inner_product_param {{ num_output: {layer.outputs} {filler} }}"),
    }[layer.kind]()


def ours(chain: Chain, threads: int, folder: Path) -> Solver[Net]:
    """A solver over the chain, its inputs filled."""
    (folder / "net.prototxt").write_text(prototxt(chain))
    solver = solver_over(folder, threads)
    random = np.random.default_rng(0)
    solver.net.blobs["data"].data[...] = random.random(chain.shape, np.float32)
    solver.net.blobs["label"].data[...] = random.integers(0, chain.classes, chain.shape[0])
    return solver


def solver_over(folder: Path, threads: int) -> Solver[Net]:
    """A solver over the folder's net.prototxt."""
    (folder / "solver.prototxt").write_text(
        f'net: "{folder / "net.prototxt"}" base_lr: {RATE} momentum: {MOMENTUM} weight_decay: {DECAY} lr_policy: "fixed"'
    )
    compute = ComputeOptions("cpu", threads, nhwc=False, half=False)

    def make_net(source: NetSource, options: NetOptions) -> Net:
        return Net.of_source(source, options, compute)

    return Solver(read_solver(folder / "solver.prototxt"), make_net)


# -- PyTorch -----------------------------------------------------------------------------------------------------------


def torch_step(chain: Chain, threads: int) -> Callable[[], object] | None:
    """One iteration in PyTorch; None where it is not installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch
    from torch import nn

    class Fire(nn.Module):  # type: ignore[misc] # PyTorch has no types here
        def __init__(self, inputs: int, squeezed: int, outputs: int) -> None:
            super().__init__()
            self.squeeze = nn.Conv2d(inputs, squeezed, 1)
            self.expand = nn.ModuleList(nn.Conv2d(squeezed, outputs, k, padding=k // 2) for k in (1, 3))

        def forward(self, x: object) -> object:
            squeezed = torch.relu(self.squeeze(x))
            return torch.cat([torch.relu(expand(squeezed)) for expand in self.expand], 1)

    def modules() -> Iterator[object]:
        channels, is_flat = chain.shape[1], False
        for layer in chain.layers:
            if layer.kind == "conv":
                sizes = (layer.kernel, layer.stride, layer.pad)
                yield nn.Conv2d(channels, layer.outputs, *sizes, groups=layer.group)
                channels = layer.outputs
            elif layer.kind == "fire":
                yield Fire(channels, layer.kernel, layer.outputs)
                channels = 2 * layer.outputs
            elif layer.kind == "fc":
                if not is_flat:
                    yield nn.Flatten()
                is_flat = True
                yield nn.LazyLinear(layer.outputs)
            elif layer.kind == "mean":
                yield nn.AdaptiveAvgPool2d(1)
                yield nn.Flatten()
            else:
                yield {
                    "max": lambda at=layer: nn.MaxPool2d(at.kernel, at.stride, ceil_mode=True),
                    "ave": lambda at=layer: nn.AvgPool2d(at.kernel, at.stride, ceil_mode=True),
                    "relu": nn.ReLU, "lrn": lambda: nn.LocalResponseNorm(5, 1e-4, 0.75), "drop": nn.Dropout,
                }[layer.kind]()  # fmt: skip

    torch.set_num_threads(threads)
    net = nn.Sequential(*modules())
    x, labels = torch.rand(chain.shape), torch.randint(0, chain.classes, chain.shape[:1])
    net(x)
    optimizer = torch.optim.SGD(net.parameters(), RATE, MOMENTUM, weight_decay=DECAY)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), labels).backward()
        optimizer.step()

    return step


# -- measuring ---------------------------------------------------------------------------------------------------------


def own_loop(solver: Solver[Net]) -> Callable[[], object]:
    """An iteration as scripts write it themselves: backward, then plain SGD in numpy."""
    net = solver.net

    def step() -> None:
        net.clear_param_diffs()
        net.forward(["loss"])
        net.backward()
        for blobs in net.params.values():
            for blob in blobs:
                blob.data[...] -= RATE * blob.diff

    return step


TURN, SPIN = 0.5, 0.15
"""Seconds that a contestant goes on for, at least, and those at its beginning that do not count."""


def turn(call: Callable[[], object]) -> list[float]:
    """Seconds that calls take, without those of the first ones."""
    times: list[float] = []
    begin = time.perf_counter()
    call()
    while (start := time.perf_counter()) < begin + TURN or len(times) < 2:
        call()
        if start > begin + SPIN:
            times.append(time.perf_counter() - start)
    return times


def seconds_outside(solver: Solver[Net]) -> list[float]:
    """Of each iteration from now on, the seconds that it was not in onnxruntime; grows as the solver goes on."""
    (entry,) = solver._stepper._entries.values()
    iterate, run_session = solver._iterate, entry.run.run
    outside: list[float] = []

    def timed_run() -> None:
        start = time.perf_counter()
        run_session()
        outside[-1] -= time.perf_counter() - start

    def timed_iteration(first: int) -> None:
        start = time.perf_counter()
        outside.append(0.0)
        iterate(first)
        outside[-1] += time.perf_counter() - start

    patch.object(entry.run, "run", timed_run).start()
    patch.object(solver, "_iterate", timed_iteration).start()
    return outside


def slowest_nodes(solver: Solver[Net], threads: int) -> list[str]:
    """The nodes that take most of an iteration, in milliseconds."""
    import onnxruntime

    import caffeconv.ops

    (entry,) = solver._stepper._entries.values()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_profiling = True
    options.profile_file_prefix = str(Path(tempfile.mkdtemp()) / "step")
    options.register_custom_ops_library(caffeconv.ops.library_path())
    model = entry.model.model.model.SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    runs = 5
    feeds = {it.name: np.zeros(it.shape, np.float32) for it in session.get_inputs()}
    for _ in range(runs):
        session.run(None, feeds)
    times: Counter[str] = Counter()
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            times[f"{event['name'].removesuffix('_kernel_time')} ({event['args']['op_name']})"] += event["dur"]
    return [f"{microseconds / runs / 1000:8.2f} ms  {name}" for name, microseconds in times.most_common(6)]


def over_database(name: str, threads: int, seconds: float) -> None:
    """Trains over an LMDB, in a process of its own, and prints images/s and its memory."""
    call = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import training"
    command = [sys.executable, "-c", f"{call}; training.train_over_database({name!r}, {threads}, {seconds})"]
    subprocess.run(command, check=True)


def train_over_database(name: str, threads: int, seconds: float) -> None:
    chain = CHAINS[name]
    batch, channels, height, width = chain.shape
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        random = np.random.default_rng(0)
        with (
            lmdb.open(str(folder / "db"), map_size=1 << 32) as environment,
            environment.begin(write=True) as transaction,
        ):
            for i in range(8 * batch):
                data = random.integers(0, 256, channels * height * width, np.uint8).tobytes()
                datum = Datum(
                    channels=channels, height=height, width=width, data=data, label=int(random.integers(chain.classes))
                )
                transaction.put(b"%08d" % i, datum.SerializeToString())
        data_layer = (
            f'layer {{ name: "data" type: "Data" top: "data" top: "label" data_param {{ source: "{folder / "db"}" '
            f"backend: LMDB batch_size: {batch} }} transform_param {{ scale: 0.0039 }} }}"
        )
        text = prototxt(chain).split("\n", 2)[2]
        (folder / "net.prototxt").write_text(f"{data_layer}\n{text}")
        solver = solver_over(folder, threads)
        solver.step(2)
        rates: list[float] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end or len(rates) < 3:
            start = time.perf_counter()
            solver.step(4)
            rates.append(4 * batch / (time.perf_counter() - start))
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"  over an LMDB: {statistics.median(rates):.0f} images/s, {most:.0f} MB at most")


def measure(name: str, threads: int, seconds: float) -> None:
    chain = CHAINS[name]
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other_folder:
        solver = ours(chain, threads, Path(folder))
        solver.step(2)
        nodes = slowest_nodes(solver, threads)
        contestants: dict[str, Callable[[], object]] = {
            "ours": lambda: solver.step(1),
            "own loop": own_loop(ours(chain, threads, Path(other_folder))),
        }
        if (theirs := torch_step(chain, threads)) is not None:
            contestants["PyTorch"] = theirs
        times: dict[str, list[float]] = {contestant: [] for contestant in contestants}
        outside: list[float] = []
        outside_all = seconds_outside(solver)
        end = time.monotonic() + seconds
        while time.monotonic() < end or len(times["ours"]) < 8:
            for contestant, call in contestants.items():
                times[contestant] += (calls := turn(call))
                if contestant == "ours":
                    outside += outside_all[-len(calls) :]
    medians = {contestant: statistics.median(values) for contestant, values in times.items()}
    step = medians["ours"]
    share = statistics.median(outside) / step
    print(f"{name}, batch {chain.shape[0]}: {chain.shape[0] / step:.0f} images/s, {share:.1%} outside onnxruntime")
    for contestant, median in medians.items():
        print(f"{median * 1e3:8.2f} ms  {contestant}, {median / step:.2f} times ours")
    print("  of which:")
    print("\n".join(nodes))
    over_database(name, threads, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--nets", nargs="+", choices=list(CHAINS), default=list(CHAINS))
    arguments = parser.parse_args()
    for name in arguments.nets:
        measure(name, arguments.threads, arguments.seconds)


if __name__ == "__main__":
    main()
