"""The names by which an interrupted run is known again, which have to stay when options are added."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from caffeconv.data.input_items import ArraySource
from caffeconv.data.mean import Mean
from caffeconv.frontend.options import NetOptions
from caffeconv.inference.request import DataOptions, ImageOptions, NetFiles, RunRequest
from caffeconv.inference.run_identity import reads_of, run_identity
from caffeconv.runtime.providers import ComputeOptions
from caffeconv.version import __version__

COMPUTE = ComputeOptions("cpu", 3, nhwc=False, half=False)
FILES = {"caffe.weights.name": "net.caffemodel", "caffe.weights.sha256": "0123"}
KNOWN = {
    "caffe.weights.sha256": "0123",
    "net state": "TEST, level 0, stages none",
    "shapes": "the net's",
    "provider, nhwc, half": "cpu, False, False",
    "fully_convolutional": "False",
    "caffeconv": __version__,
}


def test_names_and_words_stay() -> None:
    """A journal that a run of today leaves is read by a run of tomorrow: whoever changes this breaks --resume."""
    assert run_identity(FILES, NetOptions(), COMPUTE, {}) == KNOWN
    options = NetOptions("TRAIN", 2, ("a", "b"), {"data": (1, 3, 8, 8)}, fully_convolutional=True)
    assert run_identity(FILES, options, replace(COMPUTE, provider="cuda", half=True), {"data reads": "db"}) == {
        **KNOWN,
        "net state": "TRAIN, level 2, stages a, b",
        "shapes": "data (1, 3, 8, 8)",
        "provider, nhwc, half": "cuda, False, True",
        "fully_convolutional": "True",
        "data reads": "db",
    }


def test_what_came_later_is_named_only_where_it_is_used() -> None:
    assert run_identity(FILES, NetOptions(deploy=True, infogain="logits"), COMPUTE, {}) == {
        **KNOWN, "deploy": "True", "infogain": "logits"
    }  # fmt: skip


def test_what_does_not_change_the_numbers_is_not_named() -> None:
    options = NetOptions(ignore_unknown_fields=True, allow_python=True)
    assert run_identity(FILES, options, replace(COMPUTE, threads=1), {}) == KNOWN


def test_what_is_read_and_how(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(bytes(12))
    os.utime(path, (0, 0))
    request = RunRequest(
        files=NetFiles(net=Path("net.prototxt")), compute=COMPUTE, data=DataOptions(passes=7, skip_bad=True),
        images=ImageOptions(mean=Mean("104,117"), scale=0.5, resize=(4, 6), rgb=True),
    )  # fmt: skip
    source = ArraySource("data", path, np.zeros((3, 1), np.float32), 2)
    entries = {
        "data reads": f"{path}, 12 bytes, changed at 1970-01-01 00:00:00 UTC, in batches of 2",
        "passes": "7",
        "skip_bad": "True",
        "mean, scale": "104,117, 0.5",
    }
    assert reads_of(request, {"data": source}) == entries
    over_inputs = replace(request, inputs=("x.npy",))
    assert reads_of(over_inputs, {"data": source}) == {**entries, "resize, crop, rgb": "(4, 6), None, True"}
