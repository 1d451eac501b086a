"""Whatever stands in place of JSON of ours is taken for what it is."""

from __future__ import annotations

import json

import pytest

from caffeconv.emit.metadata import LAYOUT_KEY, PREPROCESS_KEY, image_preprocessing, layouts
from caffeconv.emit.precision import PRECISION_KEY, read_precision
from caffeconv.errors import CaffeconvError
from caffeconv.files.foreign_json import MALFORMED
from caffeconv.runtime.label_checks import label_checks

TEXTS = (
    "",
    "[" * 100_000,
    '{"a":' * 100_000,
    "9" * 5000,
    "[1e999]",
    '{"x": Infinity}',
    "null",
    '"x"',
    "[[]]",
    "[null]",
)
PREPROCESS = {
    "input": "x", "order": "RGB", "net_order": "BGR", "size": [2, 2], "crop": [2, 2], "mean": [0], "scale": 1, "folded": [],
}  # fmt: skip


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:8])
def test_metadata_that_is_none_of_ours(text: str) -> None:
    layouts({LAYOUT_KEY: text})
    assert image_preprocessing({PREPROCESS_KEY: text}) is None
    assert label_checks({"caffeconv.labels": text}) == ()
    with pytest.raises(CaffeconvError, match="does not say which layers"):
        read_precision({PRECISION_KEY: text})


@pytest.mark.parametrize(("key", "value"), [("size", [float("inf"), 1]), ("mean", [10**400]), ("scale", 10**400)])
def test_numbers_beyond_all_sizes(key: str, value: object) -> None:
    assert image_preprocessing({PREPROCESS_KEY: json.dumps(PREPROCESS)}) is not None
    assert image_preprocessing({PREPROCESS_KEY: json.dumps({**PREPROCESS, key: value})}) is None
    with pytest.raises(MALFORMED):
        int(json.loads("1e999"))
