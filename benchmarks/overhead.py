"""What caffeconv adds to onnxruntime's own time: a pass of a small net, and nets of many layers.

    python benchmarks/overhead.py [--quick]

A pass of LeNet, one picture, of `Net.forward` and of the session with the same model, in turns. Then nets of 100 to 10,000
layers: converting, inspecting and opening, per layer.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from classic_nets import example_inputs, write_net

import caffeconv


def microseconds(call: Callable[[], object], runs: int) -> float:
    """The median of some calls."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def small_net(folder: Path, rounds: int) -> None:
    net, weights = write_net("LeNet", 1, folder)
    ours = caffeconv.Net(net, weights, "TEST", provider="cpu", threads=1)
    feeds = example_inputs("LeNet", 1)
    ours.blobs["data"].data[...] = feeds["data"]
    caffeconv.convert_to(folder / "net.onnx", net, weights, batch="keep")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(folder / "net.onnx"), options, providers=["CPUExecutionProvider"])
    ours.forward()
    pairs = [
        (microseconds(ours.forward, 200), microseconds(lambda: session.run(None, feeds), 200)) for _ in range(rounds)
    ]
    net_time, session_time = (statistics.median(pair[i] for pair in pairs) for i in (0, 1))
    beyond = statistics.median(a - b for a, b in pairs)
    print(
        f"LeNet, one picture: Net.forward {net_time:.0f} µs, session {session_time:.0f} µs, {beyond:.0f} µs beyond it"
    )


def deep_net(layers: int) -> str:
    text = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 4 dim: 4 dim: 4 } } }\n'
    below = "data"
    for i in range(layers):
        kind, more = ("ReLU", "") if i % 2 else (
            "Convolution", "convolution_param { num_output: 4 kernel_size: 1 weight_filler { type: 'msra' } }"
        )  # fmt: skip
        text += f'layer {{ name: "l{i}" type: "{kind}" bottom: "{below}" top: "b{i}" {more} }}\n'
        below = f"b{i}"
    return text


def deep_nets(folder: Path, sizes: list[int]) -> None:
    print("| layers | convert, ms a layer | inspect | Net and one pass |\n|---:|---:|---:|---:|")
    for size in sizes:
        path = folder / f"deep{size}.prototxt"
        path.write_text(deep_net(size))
        cells = []
        for call in (
            lambda net: caffeconv.convert_to(folder / "deep.onnx", net),
            caffeconv.inspect,
            lambda net: caffeconv.Net(net, None, "TEST", provider="cpu").forward(
                data=np.ones((1, 4, 4, 4), np.float32)
            ),
        ):
            start = time.perf_counter()
            call(path)
            cells.append(f"{(time.perf_counter() - start) / size * 1e3:.3f}")
        print(f"| {size} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as place:
        small_net(Path(place), 3 if quick else 15)
        deep_nets(Path(place), [100, 300] if quick else [100, 1000, 3000, 10_000])


if __name__ == "__main__":
    main()
