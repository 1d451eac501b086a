"""The recipes of docs/training.md on the project's own digits: what fine-tuning, an H and soft labels are worth.

    python benchmarks/training_recipes.py [--seeds 5]

Every recipe runs the command line, as the page has it, on four fifths of fixtures/digits/train_lmdb; accuracies are those on
the last fifth. Each line gives medians over the seeds, with the lowest and highest. Two minutes on two cores.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import h5py
import lmdb
import numpy as np
from numpy.typing import NDArray

import caffeconv
from caffeconv.caffe_pb2 import Datum

DATABASE = Path(__file__).resolve().parents[1] / "fixtures" / "digits" / "train_lmdb"
SIDE, FRAME, BATCH = 28, 2, 32
RARE = (5, 6, 7, 8, 9)
Images = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Digits:
    """Pictures, N×1×28×28, values 0 to 1, and their classes."""

    images: Images
    labels: Labels

    def where(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> Digits:
        return Digits(self.images[chosen], self.labels[chosen])

    def of_classes(self, classes: Sequence[int]) -> Digits:
        return self.where(np.isin(self.labels, classes))

    def at_most(self, number: int, classes: Sequence[int]) -> Digits:
        """With no more than so many pictures of each of these classes."""
        kept = [np.flatnonzero(self.labels == c)[: number if c in classes else None] for c in range(10)]
        return self.where(np.sort(np.concatenate(kept)))

    def write(self, folder: Path) -> None:
        """train.h5, with `data`, `label` and `onehot`, and the list that names it."""
        with h5py.File(folder / "train.h5", "w") as file:
            file["data"] = self.images
            file["label"] = self.labels.astype(np.float32)
            file["onehot"] = np.eye(10, dtype=np.float32)[self.labels]
        (folder / "train.txt").write_text(f"{folder / 'train.h5'}\n")


def read_digits() -> tuple[Digits, Digits]:
    """Those to train with, and the last fifth."""
    images, labels = [], []
    with lmdb.open(str(DATABASE), readonly=True, lock=False) as database, database.begin() as transaction:
        for _, value in transaction.cursor():
            datum = Datum.FromString(value)
            picture = np.asarray(cv2.imdecode(np.frombuffer(datum.data, np.uint8), cv2.IMREAD_GRAYSCALE))
            images.append(picture[FRAME:-FRAME, FRAME:-FRAME][None] / 256)
            labels.append(datum.label)
    digits = Digits(np.array(images, np.float32), np.array(labels))
    cut = len(labels) * 4 // 5
    return digits.where(np.arange(cut)), digits.where(np.arange(cut, len(labels)))


# -- nets and commands -------------------------------------------------------------------------------------------------

SOFTMAX = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }'
INFOGAIN = (
    'layer { name: "loss" type: "InfogainLoss" bottom: "score" bottom: "label" top: "loss" '
    'infogain_loss_param { source: "H.binaryproto" } }'
)
SOFT_LABELS = f"""
layer {{ name: "ones" type: "DummyData" top: "ones" dummy_data_param {{
  shape {{ dim: {BATCH} dim: 10 }} data_filler {{ value: 1 }} }} }}
layer {{ name: "soft" type: "Eltwise" bottom: "onehot" bottom: "ones" top: "soft"
  eltwise_param {{ coeff: 0.9 coeff: 0.01 }} }}
layer {{ name: "p" type: "Softmax" bottom: "score" top: "p" }}
layer {{ name: "log" type: "Log" bottom: "p" top: "log" }}
layer {{ name: "product" type: "Eltwise" bottom: "soft" bottom: "log" top: "product" eltwise_param {{ operation: PROD }} }}
layer {{ name: "loss" type: "Reduction" bottom: "product" top: "loss" loss_weight: {-1 / BATCH} }}
"""


def layers(score: str, classes: int) -> str:
    """The digits' net from `data` to the blob `score`, its last layer under that name."""
    params = "param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 }"
    filler = 'weight_filler { type: "xavier" }'

    def conv(name: str, bottom: str, outputs: int) -> str:
        fields = f"convolution_param {{ num_output: {outputs} kernel_size: 5 {filler} }}"
        return (
            f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" {params} {fields} }}\n'
            f'layer {{ name: "{name}_pool" type: "Pooling" bottom: "{name}" top: "{name}_pool" '
            "pooling_param { pool: MAX kernel_size: 2 stride: 2 } }\n"
        )

    def product(name: str, bottom: str, top: str, outputs: int) -> str:
        fields = f"inner_product_param {{ num_output: {outputs} {filler} }}"
        return f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{top}" {params} {fields} }}\n'

    return (
        conv("conv1", "data", 8) + conv("conv2", "conv1_pool", 16) + product("ip1", "conv2_pool", "ip1", 64)
        + 'layer { name: "relu1" type: "ReLU" bottom: "ip1" top: "ip1" }\n' + product(score, "ip1", "score", classes)
    )  # fmt: skip


def train(
    folder: Path, digits: Digits, loss: str, *, iterations: int, seed: int, score: str = "ip2", classes: int = 10,
    weights: Path | None = None,
) -> Path:  # fmt: skip
    """Runs `caffeconv train` and gives the weights that it wrote."""
    digits.write(folder)
    onehot = 'top: "onehot"' if "onehot" in loss else ""
    data = (
        f'layer {{ name: "data" type: "HDF5Data" top: "data" top: "label" {onehot} '
        f'hdf5_data_param {{ source: "{folder / "train.txt"}" batch_size: {BATCH} shuffle: true }} }}\n'
    )
    (folder / "net.prototxt").write_text(
        data + layers(score, classes) + loss.replace('"H.binaryproto"', f'"{folder / "H.binaryproto"}"')
    )
    (folder / "solver.prototxt").write_text(
        f'net: "{folder / "net.prototxt"}" base_lr: 0.01 lr_policy: "poly" power: 1 momentum: 0.9 weight_decay: 0.0005 '
        f'max_iter: {iterations} snapshot_prefix: "{folder / "run"}" random_seed: {seed}'
    )
    more = [] if weights is None else ["--weights", str(weights)]
    run_caffeconv("train", str(folder / "solver.prototxt"), *more)
    return folder / f"run_iter_{iterations}.caffemodel"


def run_caffeconv(*arguments: str) -> str:
    """What the command prints on stdout; raises RuntimeError with its last words where it fails."""
    run = subprocess.run([sys.executable, "-m", "caffeconv", *arguments], capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(run.stderr.strip().splitlines()[-1])
    return run.stdout


def scores(folder: Path, weights: Path, digits: Digits, score: str = "ip2", classes: int = 10) -> Images:
    """The probabilities, N×classes."""
    shape = "x".join(map(str, digits.images.shape))
    inputs = (
        'layer { name: "in" type: "Input" top: "data" input_param { shape { '
        f"{' '.join(f'dim: {dim}' for dim in digits.images.shape)} }} }} }}\n"
    )
    path = folder / f"deploy_{shape}.prototxt"
    path.write_text(inputs + layers(score, classes) + 'layer { name: "p" type: "Softmax" bottom: "score" top: "p" }')
    return caffeconv.Net(path, weights).forward(data=digits.images)["p"]


# -- recipes -----------------------------------------------------------------------------------------------------------


def fine_tuning(folder: Path, digits: Digits, held_out: Digits, seed: int) -> dict[str, float]:
    """Digits 5 to 9, ten pictures of each, with and without what a net has learned from digits 0 to 4."""
    first, target = digits.of_classes(range(5)), digits.of_classes(RARE).at_most(10, RARE)
    test = held_out.of_classes(RARE)
    old = train(folder, first, SOFTMAX, iterations=300, seed=seed, classes=5)
    old = old.replace(folder / "old.caffemodel")
    few = Digits(target.images, target.labels - 5)
    results = {}
    for iterations in (20, 100):
        for name, weights in (("from fillers", None), ("--weights old.caffemodel", old)):
            new = train(
                folder, few, SOFTMAX, iterations=iterations, seed=seed, score="ip2_new", classes=5, weights=weights
            )
            chosen = scores(folder, new, test, "ip2_new", 5).argmax(axis=1) + 5
            results[f"accuracy after {iterations} iterations, {name}"] = float((chosen == test.labels).mean())
    return results


def imbalance(folder: Path, digits: Digits, held_out: Digits, seed: int) -> dict[str, float]:
    """Digits 5 to 9 with 6 pictures each, 0 to 4 with all of theirs: recall with and without H."""
    unequal = digits.at_most(6, RARE)
    counts = np.bincount(unequal.labels, minlength=10)
    results = {}
    for balance in ("", "median-frequency", "inverse-frequency", "effective-number"):
        if balance:
            text = ",".join(map(str, counts))
            run_caffeconv("make-h", "--counts", text, "--balance", balance, "-o", str(folder / "H.binaryproto"))
        weights = train(folder, unequal, INFOGAIN if balance else SOFTMAX, iterations=300, seed=seed)
        chosen = scores(folder, weights, held_out).argmax(axis=1)
        right = chosen == held_out.labels
        is_rare = np.isin(held_out.labels, RARE)
        name = balance or "SoftmaxWithLoss"
        results[f"recall of rare classes, {name}"] = float(right[is_rare].mean())
        results[f"recall of the others, {name}"] = float(right[~is_rare].mean())
    return results


def smoothing(folder: Path, digits: Digits, held_out: Digits, seed: int) -> dict[str, float]:
    """Hard labels, labels smoothed by H, and by DummyData and Eltwise: accuracy, and how sure the net is."""
    run_caffeconv("make-h", "--identity", "10", "--smooth", "0.1", "-o", str(folder / "H.binaryproto"))
    results, probabilities = {}, {}
    for name, loss in (("hard labels", SOFTMAX), ("H", INFOGAIN), ("DummyData, Eltwise", SOFT_LABELS)):
        weights = train(folder, digits, loss, iterations=300, seed=seed)
        probabilities[name] = p = scores(folder, weights, held_out)
        results[f"accuracy, {name}"] = float((p.argmax(axis=1) == held_out.labels).mean())
        results[f"mean greatest probability, {name}"] = float(p.max(axis=1).mean())
    difference = np.abs(probabilities["H"] - probabilities["DummyData, Eltwise"]).max()
    results["greatest difference of the two ways"] = float(difference)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    seeds = range(parser.parse_args().seeds)
    digits, held_out = read_digits()
    print(f"{len(digits.labels)} pictures to train with, {len(held_out.labels)} held out")
    recipes: tuple[Callable[[Path, Digits, Digits, int], dict[str, float]], ...] = (fine_tuning, imbalance, smoothing)
    for recipe in recipes:
        print(f"\n{recipe.__doc__}")
        with tempfile.TemporaryDirectory() as folder:
            runs = [recipe(Path(folder), digits, held_out, seed) for seed in seeds]
        for name in runs[0]:
            values = [run[name] for run in runs]
            print(f"  {name:60} {statistics.median(values):.3f}  ({min(values):.3f} to {max(values):.3f})")


if __name__ == "__main__":
    main()
