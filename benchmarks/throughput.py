"""Whether reading keeps up with computing: `caffeconv run` over an LMDB of JPEGs beside the bare session.

    python benchmarks/throughput.py [--items 5000] [--rounds 3] [--memory] [--threads N]

Makes an LMDB of encoded 256×256 pictures and a net like SqueezeNet v1.1 with random weights. Each round runs, in turn:
the session alone, fed with one batch from memory again and again; OpenCV's decoding alone, of pictures in memory; reading,
decoding and transforming; and the net over the LMDB. "possible": what cores that never stand still would reach of the
session alone if nothing but OpenCV's decoding came in addition. --memory
measures, in processes of their own, the peak memory of features of 2,000 and of 20,000 records.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import cv2
import lmdb
import numpy as np
from numpy.typing import NDArray

from caffeconv import Net
from caffeconv.caffe_pb2 import Datum
from caffeconv.data.prefetch import Prefetcher, default_threads
from caffeconv.inference.data_passes import DatasetRunner, own_data

BATCH, CROP = 32, 227


def conv(name: str, bottom: str, outputs: int, kernel: int, more: str = "") -> str:
    return (
        f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" convolution_param {{ '
        f'num_output: {outputs} kernel_size: {kernel} {more} weight_filler {{ type: "xavier" }} }} }}\n'
        f'layer {{ name: "{name}/relu" type: "ReLU" bottom: "{name}" top: "{name}" }}\n'
    )


def pool(name: str, bottom: str) -> str:
    return (
        f'layer {{ name: "{name}" type: "Pooling" bottom: "{bottom}" top: "{name}" '
        "pooling_param { pool: MAX kernel_size: 3 stride: 2 } }\n"
    )


def fire(name: str, bottom: str, squeeze: int, expand: int) -> str:
    inner = f"{name}/squeeze1x1"
    return (
        conv(inner, bottom, squeeze, 1)
        + conv(f"{name}/expand1x1", inner, expand, 1)
        + conv(f"{name}/expand3x3", inner, expand, 3, "pad: 1")
        + f'layer {{ name: "{name}" type: "Concat" bottom: "{name}/expand1x1" bottom: "{name}/expand3x3" top: "{name}" }}\n'
    )


def net_text(database: Path) -> str:
    """A net with the layers of SqueezeNet v1.1, and a Data layer."""
    return (
        f'name: "squeezenet" layer {{ name: "data" type: "Data" top: "data" top: "label" data_param {{ source: '
        f'"{database}" backend: LMDB batch_size: {BATCH} }} transform_param {{ crop_size: {CROP} mean_value: 104 '
        "mean_value: 117 mean_value: 123 } }\n"
        + conv("conv1", "data", 64, 3, "stride: 2")
        + pool("pool1", "conv1")
        + fire("fire2", "pool1", 16, 64)
        + fire("fire3", "fire2", 16, 64)
        + pool("pool3", "fire3")
        + fire("fire4", "pool3", 32, 128)
        + fire("fire5", "fire4", 32, 128)
        + pool("pool5", "fire5")
        + fire("fire6", "pool5", 48, 192)
        + fire("fire7", "fire6", 48, 192)
        + fire("fire8", "fire7", 64, 256)
        + fire("fire9", "fire8", 64, 256)
        + conv("conv10", "fire9", 1000, 1)
        + 'layer { name: "pool10" type: "Pooling" bottom: "conv10" top: "pool10" '
        "pooling_param { pool: AVE global_pooling: true } }\n"
        'layer { name: "accuracy" type: "Accuracy" bottom: "pool10" bottom: "label" top: "accuracy" }\n'
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "pool10" bottom: "label" top: "loss" }\n'
    )


def make_database(path: Path, items: int) -> list[bytes]:
    """Pictures with the detail of photographs: smooth noise of several sizes, as JPEG of quality 90, 35 kB or so each."""
    random = np.random.default_rng(0)
    contents = []
    for _ in range(64):
        layers = [
            cv2.resize(random.normal(0, 30, (s, s, 3)), (256, 256), interpolation=cv2.INTER_CUBIC) for s in (4, 32, 128)
        ]
        picture = np.clip(128 + sum(layers), 0, 255).astype(np.uint8)
        contents.append(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    with lmdb.open(str(path), map_size=1 << 32) as environment, environment.begin(write=True) as transaction:
        for i in range(items):
            datum = Datum(data=contents[i % 64], encoded=True, label=int(random.integers(1000)))
            transaction.put(b"%010d" % i, datum.SerializeToString())
    print(f"{items} JPEGs of {statistics.mean(map(len, contents)) / 1000:.0f} kB")
    return contents


def bare(net: Net, batches: int) -> float:
    """Items/s of the session alone."""
    feeds = {"data": np.random.default_rng(0).normal(0, 50, (BATCH, 3, CROP, CROP)).astype(np.float32),
             "label": np.zeros(BATCH, np.float32)}  # fmt: skip
    begun = time.perf_counter()
    for _ in range(batches):
        net.run(feeds, net.outputs)
    return batches * BATCH / (time.perf_counter() - begun)


def opencv(pictures: list[bytes], items: int, threads: int) -> float:
    """Items/s of OpenCV's decoding alone."""
    encoded = [np.frombuffer(content, np.uint8) for content in pictures]
    share = [encoded[i % len(encoded)] for i in range(items // threads)]
    begun = time.perf_counter()
    with ThreadPoolExecutor(threads) as workers:
        for worker in [workers.submit(_decode_all, share) for _ in range(threads)]:
            worker.result()
    return len(share) * threads / (time.perf_counter() - begun)


def _decode_all(pictures: list[NDArray[np.uint8]]) -> None:
    for picture in pictures:
        cv2.imdecode(picture, cv2.IMREAD_UNCHANGED)


def decoding(net: Net, batches: int, threads: int) -> float:
    """Items/s of reading, decoding and transforming alone."""
    source = net.sources["data"]
    source.seek(0)
    begun = time.perf_counter()
    with ThreadPoolExecutor(threads) as workers, Prefetcher(source, workers, 4 * threads) as prefetcher:
        for _ in range(batches):
            prefetcher.next_batch()
    return batches * BATCH / (time.perf_counter() - begun)


def over_data(net: Net, batches: int, threads: int) -> tuple[float, float]:
    """Items/s of the net over the LMDB, and the share of the time spent waiting."""
    runner = DatasetRunner(own_data(net), net.outputs, passes=batches, threads=threads)
    for _ in runner:
        pass
    return runner.throughput.items / runner.throughput.seconds, runner.throughput.waited / runner.throughput.seconds


def compare(items: int, rounds: int, threads: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pictures = make_database(Path(folder) / "db", items)
        path = Path(folder) / "net.prototxt"
        path.write_text(net_text(Path(folder) / "db"))
        net = Net(path)
        bare(net, 2)
        print(f"{'bare':>8} {'OpenCV':>8} {'decoder':>8} {'run':>8} items/s   run ÷ bare  possible  waiting")
        ratios, decoders, rates = [], [], []
        bounds = []  # what was reached of what cores that never stand still would give
        for _ in range(rounds):
            batches = items // BATCH
            alone, decoder = bare(net, batches), decoding(net, batches, threads)
            jpegs = opencv(pictures, batches * BATCH, threads)
            rate, waiting = over_data(net, batches, threads)
            ratios.append(rate / alone)
            decoders.append(decoder)
            rates.append(rate)
            bounds.append(rate * (1 / alone + 1 / decoder))
            possible = 1 / (1 + alone / jpegs)
            rates_text = f"{alone:8.1f} {jpegs:8.1f} {decoder:8.1f} {rate:8.1f}"
            print(f"{rates_text} {'':9} {rate / alone:10.3f} {possible:9.3f} {waiting:8.1%}")
        ratio = statistics.median(ratios)
        if ratio >= 0.9:
            verdict = f"{1 - ratio:.1%} slower than the bare session (at most 10 %)"
        elif statistics.median(bounds) >= 0.95:
            verdict = f"{1 - ratio:.1%} slower; every core is busy, as decoding and computing share them"
        elif statistics.median(rates) >= 0.9 * statistics.median(decoders):
            verdict = "decoder saturated"
        else:
            verdict = f"{1 - ratio:.1%} slower than the bare session, and the decoder has room: MISSED"
        print(f"median of {rounds}, {threads} threads: {verdict}")


def memory_of(process: subprocess.Popen[bytes]) -> dict[str, int]:
    """The most that a process takes while it runs, in kB: memory of its own, and pages of files that it maps."""
    most = {"RssAnon": 0, "RssFile": 0}
    while process.poll() is None:
        with suppress(OSError):
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in most:
                    most[name] = max(most[name], int(value.split()[0]))
        time.sleep(0.02)
    return most


def measure_memory(items: int) -> None:
    """Features of that many records, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        make_database(Path(folder) / "db", items)
        path = Path(folder) / "net.prototxt"
        path.write_text(
            net_text(Path(folder) / "db").split('layer { name: "conv1"')[0]
            + conv("conv1", "data", 16, 3, "stride: 4").replace('"conv1/relu"', '"relu"')
            + pool("pool1", "conv1")
        )
        command = [sys.executable, "-m", "caffeconv", "run", str(path), "--blobs", "pool1", "-q"]
        most = memory_of(subprocess.Popen([*command, "-o", str(Path(folder) / "features.npy")]))
        size = (Path(folder) / "features.npy").stat().st_size >> 20
        print(
            f"{items} records, {size} MB of features: {most['RssAnon'] >> 10} MB of its own at most, "
            f"{most['RssFile'] >> 10} MB of mapped files (the database's pages, which the system takes back when it likes)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--memory", action="store_true")
    arguments = parser.parse_args()
    if arguments.memory:
        for items in (2000, 20000):
            measure_memory(items)
    else:
        compare(arguments.items, arguments.rounds, arguments.threads)


if __name__ == "__main__":
    main()
