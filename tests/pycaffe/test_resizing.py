"""Pictures in other sizes, with the numbers of the skimage and scipy of 2017."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

import caffeconv.pycaffe as caffe
from caffeconv.pycaffe import resizing
from caffeconv.tensor.shape import FloatArray

random = np.random.default_rng(0)
sizes = st.integers(1, 12)


@given(sizes, sizes, sizes, sizes, st.sampled_from([1, 3]))
def test_resize_is_skimages(height: int, width: int, new_height: int, new_width: int, channels: int) -> None:
    # skimage up to 0.14 (its warp over an affine map, mode "constant"), tried side by side with it, is scipy's grid mode
    image = random.random((height, width, channels))
    zooms = (new_height / height, new_width / width, 1)
    want = ndimage.zoom(image, zooms, order=1, mode="grid-constant", grid_mode=True)
    np.testing.assert_allclose(resizing.resize(image, new_height, new_width), want, atol=1e-12)


@given(sizes, sizes, sizes, sizes)
def test_other_channels_are_zoomed_as_scipy_does(height: int, width: int, new_height: int, new_width: int) -> None:
    image = random.random((height, width, 5)).astype(np.float32)
    want = ndimage.zoom(image, (new_height / height, new_width / width, 1), order=1)
    np.testing.assert_allclose(caffe.io.resize_image(image, (new_height, new_width)), want, atol=1e-6)


def test_what_is_enlarged_gets_dark_edges() -> None:
    image = np.array([[[10.0], [30.0]], [[50.0], [50.0]]], np.float32)
    resized = caffe.io.resize_image(image, (4, 4))
    # by hand: 10 is the least value, which stands beyond the edges; the corner lies a quarter of a pixel out
    np.testing.assert_allclose(resized[0, 3], 0.75 * 0.75 * 20 + 10)
    np.testing.assert_allclose(resized[1, 1], 0.75 * 0.75 * 10 + 0.1875 * (30 + 50) + 0.0625 * 50)


def test_flat_pictures_and_the_nearest_pixel() -> None:
    flat = caffe.io.resize_image(np.full((2, 3, 3), 7, np.uint8), (4, 5))
    assert (flat.dtype.name, flat.shape, set(flat.ravel().tolist())) == ("float32", (4, 5, 3), {7.0})
    image = np.arange(4, dtype=np.float32).reshape(2, 2, 1)
    np.testing.assert_array_equal(caffe.io.resize_image(image, (6, 2), interp_order=0)[:, 0, 0], [0, 0, 0, 2, 2, 2])


@pytest.mark.parametrize(
    ("picture", "dims", "order", "words"),
    [
        (np.zeros((4, 4)), (2, 2), 1, "the picture is 4×4; height × width × channels"),
        (np.zeros((0, 4, 3)), (2, 2), 1, "the picture is 0×4×3"),
        (np.zeros((4, 4, 3)), (0, 2), 1, "new_dims are 0×2; at least 1×1"),
        (np.zeros((4, 4, 3)), (2, 2), 3, "interp_order 3; 0 .nearest. or 1 .linear. was needed"),
    ],
)
def test_what_resize_refuses(picture: FloatArray, dims: tuple[int, int], order: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        caffe.io.resize_image(picture, dims, order)
