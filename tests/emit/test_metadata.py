"""What a model's metadata says of layout, precision and preprocessing, and metadata that says something else."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from caffeconv.emit.metadata import (
    HALF_KEY,
    LAYOUT_KEY,
    PREPROCESS_KEY,
    ImagePreprocessing,
    image_preprocessing,
    is_half,
    layouts,
)

ENTRIES = {
    "input": "data", "order": "RGB", "net_order": "BGR", "size": [256, 250], "crop": [227, 227], "mean": [104, 117, 123],
    "scale": 0.5, "folded": ["order", "scale"],
}  # fmt: skip
IMAGES = ImagePreprocessing(
    "data", "RGB", "BGR", (256, 250), (227, 227), (104.0, 117.0, 123.0), 0.5, ("order", "scale")
)


def test_preprocessing() -> None:
    assert image_preprocessing({PREPROCESS_KEY: json.dumps(ENTRIES)}) == IMAGES
    of_picture = image_preprocessing({PREPROCESS_KEY: json.dumps({**ENTRIES, "mean": "3×256×250"})})
    assert of_picture == replace(IMAGES, mean="3×256×250")


@pytest.mark.parametrize("missing", ENTRIES)
def test_preprocessing_that_is_not_whole(missing: str) -> None:
    entries = {key: value for key, value in ENTRIES.items() if key != missing}
    assert image_preprocessing({PREPROCESS_KEY: json.dumps(entries)}) is None


@pytest.mark.parametrize(
    "text", ["", "[]", "5", json.dumps({**ENTRIES, "size": [1]}), json.dumps({**ENTRIES, "scale": "x"})]
)
def test_preprocessing_that_is_none(text: str) -> None:
    assert image_preprocessing({PREPROCESS_KEY: text}) is None
    assert image_preprocessing({}) is None


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (IMAGES, "RGB pictures of 256×250, uint8 (cropped to 227×227, less the mean 104, 117, 123, times 0.5, turned to BGR)"),
        (replace(IMAGES, crop=(256, 250), mean=(), scale=1, order="BGR"), "BGR pictures of 256×250, uint8"),
        (replace(IMAGES, crop=(256, 250), mean="3×256×250", scale=1), "RGB pictures of 256×250, uint8 (less the mean "
         "3×256×250, turned to BGR)"),
    ],
)  # fmt: skip
def test_preprocessing_in_words(images: ImagePreprocessing, text: str) -> None:
    assert str(images) == text


def test_layouts() -> None:
    assert layouts({LAYOUT_KEY: '{"data": "NHWC", "prob": "NHWC"}'}) == {"data": "NHWC", "prob": "NHWC"}
    assert [layouts(metadata) for metadata in ({}, {LAYOUT_KEY: "{"}, {LAYOUT_KEY: "[1]"})] == [{}, {}, {}]


def test_precision() -> None:
    assert [is_half(metadata) for metadata in ({HALF_KEY: "float16"}, {HALF_KEY: "float32"}, {})] == [
        True,
        False,
        False,
    ]
