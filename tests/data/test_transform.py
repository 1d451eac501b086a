"""The transformation against Caffe's loop, element by element, and what does not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.databases import pixels, refused, write_mean

from caffeconv.caffe_format.terms import Phase
from caffeconv.data.errors import SourceUnavailableError
from caffeconv.data.transform import Transform, read_mean


def apply(transform: Transform, item: NDArray[np.uint8], seed: int = 0) -> NDArray[np.float32]:
    return transform.load().apply(item, "db", np.random.default_rng(seed))


def slow(
    item: NDArray[np.uint8], crop: int, top: int, left: int, mean: NDArray[np.float32] | None, scale: float, *,
    mirrored: bool,
) -> NDArray[np.float32]:  # fmt: skip
    """DataTransformer::Transform as it stands."""
    channels, height, width = item.shape
    out_height, out_width = (crop, crop) if crop else (height, width)
    out = np.empty((channels, out_height, out_width), np.float32)
    for c in range(channels):
        for h in range(out_height):
            for w in range(out_width):
                element = np.float32(item[c, top + h, left + w])
                if mean is not None:
                    element -= mean[c, top + h, left + w] if mean.ndim == 3 else mean[c % len(mean)]
                out[c, h, out_width - 1 - w if mirrored else w] = element * np.float32(scale)
    return out


sizes = st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6))
scales = st.sampled_from([1.0, 0.5, 0.00390625, 0.017])


@given(sizes, st.data(), scales, st.sampled_from(["none", "one", "each", "image"]))
def test_agrees_with_the_loop(size: tuple[int, int, int], data: st.DataObject, scale: float, kind: str) -> None:
    item = pixels(*size)
    crop = data.draw(st.integers(0, min(size[1:])))
    values = np.random.default_rng(1).uniform(0, 255, size).astype(np.float32)
    mean = {"none": None, "one": values[0, 0, :1], "each": values[:, 0, 0], "image": values}[kind]
    transform = Transform(scale=scale, crop_size=crop)
    if mean is not None and mean.ndim == 1:
        transform = replace(transform, mean_values=tuple(map(float, mean)))
    transformer = transform.load()
    if kind == "image":
        transformer = replace(transformer, mean=values)  # as loaded from a file
    out = transformer.apply(item, "db")
    top, left = ((size[1] - crop) // 2, (size[2] - crop) // 2) if crop else (0, 0)
    np.testing.assert_array_equal(out, slow(item, crop, top, left, mean, scale, mirrored=False))


@given(st.integers(0, 1000), st.booleans(), st.sampled_from(["TRAIN", "TEST"]))
def test_random_ones_are_crops_and_mirrors(seed: int, mirror: bool, phase: Phase) -> None:
    item = pixels(2, 6, 5)
    transform = Transform(mirror=mirror, crop_size=3, mean_values=(100.0,), phase=phase)
    places = [(t, left) for t in range(4) for left in range(3)] if phase == "TRAIN" else [(1, 1)]
    mean = np.array([100], np.float32)
    possible = [
        slow(item, 3, t, left, mean, 1, mirrored=mirrored)
        for t, left in places
        for mirrored in ([False, True] if mirror else [False])
    ]
    out = apply(transform, item, seed)
    assert any(np.array_equal(out, other) for other in possible)
    np.testing.assert_array_equal(out, apply(transform, item, seed))


def test_every_place_and_both_sides_occur() -> None:
    item = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    transformer, random = Transform(mirror=True, crop_size=2, phase="TRAIN").load(), np.random.default_rng(0)
    seen = {tuple(transformer.apply(item, "db", random).ravel()) for _ in range(300)}
    assert len(seen) == 2 * 3 * 2


def test_mean_file_is_cut_as_the_item_is(tmp_path: Path) -> None:
    mean = np.random.default_rng(0).uniform(0, 255, (3, 6, 8)).astype(np.float32)
    path = write_mean(tmp_path / "mean.binaryproto", mean)
    transform = Transform(crop_size=3, mean_file=path, mirror=True, phase="TRAIN")
    item = pixels(3, 6, 8)
    random = np.random.default_rng(5)
    mirrored, top, left = bool(random.integers(2)), int(random.integers(4)), int(random.integers(6))
    np.testing.assert_array_equal(apply(transform, item, 5), slow(item, 3, top, left, mean, 1, mirrored=mirrored))


def test_what_does_not_fit(tmp_path: Path) -> None:
    item = pixels(3, 4, 5)
    with refused("db: 4×5 pixels; crop_size 5 needs at least 5×5"):
        apply(Transform(crop_size=5), item)
    with refused(r"db: 2 mean_value; Specify either 1 mean_value or as many as channels: 3"):
        apply(Transform(mean_values=(1, 2)), item)
    path = write_mean(tmp_path / "m.binaryproto", np.zeros((3, 5, 5), np.float32))
    with refused(r"db: the item is 3×4×5, the mean in .*m.binaryproto 3×5×5; the same size"):
        apply(Transform(mean_file=path, crop_size=2), item)
    with pytest.raises(SourceUnavailableError, match=r"none.binaryproto: File not found; .* or give mean_value"):
        apply(Transform(mean_file=tmp_path / "none.binaryproto"), item)
    with refused(r"resize_param belongs to a fork of Caffe and is not followed"):
        apply(Transform(foreign=("resize_param",)), item)


def test_damaged_mean(tmp_path: Path) -> None:
    path = write_mean(tmp_path / "m.binaryproto", np.zeros((3, 5, 5), np.float32))
    path.write_bytes(path.read_bytes()[:100])
    with refused(r"m.binaryproto: "):
        read_mean(path)


def test_guess(tmp_path: Path) -> None:
    assert Transform().guess_shape() is None
    assert Transform(crop_size=4).guess_shape() == (3, 4, 4)
    assert Transform(crop_size=4).guess_shape(1) == (1, 4, 4)
    assert Transform(crop_size=4, mean_values=(1.0,)).guess_shape() == (3, 4, 4)
    assert Transform(crop_size=4, mean_values=(1.0, 2.0)).guess_shape() == (2, 4, 4)
    assert Transform(crop_size=4, force_gray=True).guess_shape() == (1, 4, 4)
    assert Transform(crop_size=4, mean_file=tmp_path / "none").guess_shape() == (3, 4, 4)
    path = write_mean(tmp_path / "m.binaryproto", np.zeros((2, 5, 6), np.float32))
    assert Transform(crop_size=4, mean_file=path).guess_shape() == (2, 4, 4)
    assert Transform(mean_file=path).guess_shape() == (2, 5, 6)
