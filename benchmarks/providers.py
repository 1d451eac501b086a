"""How long forward passes take with each provider that the installed onnxruntime has.

    python benchmarks/providers.py [--threads 2] [--batches 1 8] FOLDER…

Each folder holds a `deploy.prototxt` and a `weights.caffemodel`. The providers take turns of a few passes, of which the first
does not count; medians in milliseconds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import onnxruntime

import caffeconv
from caffeconv.runtime.providers import CPU, CUDA, OPENVINO

PROVIDERS = {CPU: "cpu", OPENVINO: "openvino", CUDA: "cuda"}
ROUNDS, PASSES = 6, 5


def measure(folder: Path, providers: list[str], batch: int, threads: int) -> dict[str, float]:
    """Provider → median of its passes, in milliseconds."""
    nets = {
        provider: caffeconv.Net(
            folder / "deploy.prototxt", folder / "weights.caffemodel", provider=provider, threads=threads
        )
        for provider in providers
    }
    for net in nets.values():
        blob = net.blobs[net.inputs[0]]
        blob.reshape(batch, *blob.shape[1:])
        blob.data[...] = np.random.default_rng(0).normal(0, 50, blob.shape)
    times: dict[str, list[float]] = {provider: [] for provider in providers}
    for _ in range(ROUNDS):
        for provider, net in nets.items():
            for number in range(PASSES + 1):
                start = time.perf_counter()
                net.forward()
                if number:
                    times[provider].append(time.perf_counter() - start)
    return {provider: statistics.median(values) * 1e3 for provider, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    arguments = parser.parse_args()
    available = onnxruntime.get_available_providers()
    providers = [word for name, word in PROVIDERS.items() if name in available]
    print(f"onnxruntime {onnxruntime.__version__}: {', '.join(providers)}")
    for folder in arguments.folders:
        for batch in arguments.batches:
            medians = measure(folder, providers, batch, arguments.threads)
            print(f"{folder.name:24} batch {batch:3}", *(f"{p} {ms:8.2f} ms" for p, ms in medians.items()), flush=True)


if __name__ == "__main__":
    main()
