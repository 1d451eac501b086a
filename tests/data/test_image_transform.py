"""One arithmetic for transform_param and for images that a user hands over: subtract, then multiply, in float32."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.databases import pixels, refused

from caffeconv.data.image_transform import ImageTransform
from caffeconv.data.images import resize
from caffeconv.data.input_images import image_transform


@given(
    st.sampled_from([1, 3]), st.integers(1, 6), st.integers(0, 5), st.sampled_from([1.0, 0.5, 0.00390625, 0.017, -3.0]),
    st.sampled_from(["none", "one", "each", "image"]), st.booleans(),
)  # fmt: skip
def test_subtracts_then_multiplies_in_float32(
    channels: int, crop: int, beyond: int, scale: float, kind: str, rgb: bool
) -> None:
    size = crop + beyond
    values = np.random.default_rng(crop).uniform(0, 255, (channels, size, size)).astype(np.float32)
    mean = {"none": None, "one": values[:1, 0, 0], "each": values[:, 0, 0], "image": values}[kind]
    image = pixels(size, size, channels, seed=beyond)
    transform = ImageTransform(None, (crop, crop), mean, scale, order="rgb" if rgb else "bgr")
    planes = image.transpose(2, 0, 1).astype(np.float32)
    window = (slice(None), *(slice(beyond // 2, beyond // 2 + crop),) * 2)
    expected = (planes[::-1] if rgb else planes)[window]
    if mean is not None:
        expected = expected - (mean[window] if kind == "image" else mean[:, None, None])
    expected = expected * np.float32(scale)
    assert transform.apply(transform.planes(image), "").tobytes() == expected.tobytes()
    assert transform.ten_crops(image, "")[4].tobytes() == expected.tobytes()


def test_images_that_a_user_hands_over_have_one_size_before_the_crop() -> None:
    image = pixels(9, 7, 3)
    for transform, size in (
        (image_transform(3, (4, 5)), (4, 5)),
        (image_transform(3, (4, 5), resize=(6, 8)), (6, 8)),
        (image_transform(3, (4, 5), mean=np.zeros((3, 7, 5), np.float32)), (7, 5)),
    ):
        assert transform.resize == size
        top, left = (size[0] - 4) // 2, (size[1] - 5) // 2
        expected = resize(image, *size).transpose(2, 0, 1)[:, top : top + 4, left : left + 5]
        np.testing.assert_array_equal(transform.apply(transform.planes(image), ""), expected)


def test_a_grey_mean_serves_every_channel() -> None:
    mean = np.random.default_rng(0).uniform(0, 255, (1, 4, 5)).astype(np.float32)
    transform = image_transform(3, (4, 5), mean=mean)
    image = pixels(4, 5, 3)
    np.testing.assert_array_equal(transform.apply(transform.planes(image), ""), image.transpose(2, 0, 1) - mean)


@pytest.mark.parametrize(
    ("channels", "size", "mean", "message"),
    [
        (2, (6, 6), (1,), "the net takes 2 channels; a picture has 1 or 3"),
        (3, (6, 6), (2,), "the mean has 2 channels, the net takes 3"),
        (3, (9, 9), (1,), "a picture of 8×8 cannot be cropped to the net's 9×9"),
        (3, (6, 6), (3, 7, 7), "the mean is 3×7×7, the picture 8×8 before the crop"),
    ],
)
def test_what_does_not_go_together(channels: int, size: tuple[int, int], mean: tuple[int, ...], message: str) -> None:
    with refused(message):
        image_transform(channels, size, resize=(8, 8), mean=np.zeros(mean, np.float32))
