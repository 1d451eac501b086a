"""caffe.io: the numbers of pycaffe with the skimage and scipy of 2017, its words, and hostile input."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from support.golden_cases import ROOT

import caffeconv.pycaffe as caffe
from caffeconv import CaffeconvError
from caffeconv.caffe_pb2 import BlobProto, Datum
from caffeconv.tensor.shape import FloatArray

SHAPE = {"data": (10, 3, 5, 4)}
random = np.random.default_rng(0)

# -- arrays and protobuf -----------------------------------------------------------------------------------------------

floats = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4), elements=st.floats(-9, 9, width=32)
)


@given(floats)
def test_blobs_come_back(values: FloatArray) -> None:
    blob = caffe.io.array_to_blobproto(values, diff=values + 1)
    np.testing.assert_array_equal(caffe.io.blobproto_to_array(blob), values)
    np.testing.assert_array_equal(caffe.io.blobproto_to_array(blob, return_diff=True), values + 1)
    (again,) = caffe.io.blobprotovector_str_to_arraylist(caffe.io.arraylist_to_blobprotovector_str([values]))
    np.testing.assert_array_equal(again, values)


def test_an_old_blob_has_four_axes() -> None:
    blob = BlobProto(num=1, channels=2, height=1, width=3, data=range(6))
    np.testing.assert_array_equal(caffe.io.blobproto_to_array(blob), np.arange(6).reshape(1, 2, 1, 3))


def test_a_mean_file_of_caffe() -> None:
    path = ROOT / "fixtures" / "goldens" / "layers" / "data_lmdb_mean_file"
    (file,) = path.rglob("*.binaryproto")
    blob = caffe.proto.caffe_pb2.BlobProto()
    blob.ParseFromString(file.read_bytes())
    assert caffe.io.blobproto_to_array(blob)[0].shape[0] == 3


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64])
def test_datums_come_back(dtype: type[np.generic]) -> None:
    values = np.arange(24).reshape(2, 3, 4).astype(dtype)
    datum = caffe.io.array_to_datum(values, label=7)
    assert (datum.label, bool(datum.data)) == (7, dtype is np.uint8)
    back = caffe.io.datum_to_array(datum)
    np.testing.assert_array_equal(back, values)
    assert back.flags.writeable
    assert not caffe.io.array_to_datum(values).HasField("label")


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            BlobProto(num=1, channels=2, height=1 << 20, width=1 << 20),
            "cannot reshape array of size 0 into shape 1×2×1048576",
        ),
        (BlobProto(data=[1, 2, 3], shape={"dim": [-1]}), "cannot reshape array of size 3 into shape -1"),
        (Datum(channels=1, height=2, width=2, data=b"abc"), "cannot reshape array of size 3 into shape 1×2×2"),
        (Datum(channels=-1, height=-2, width=2, float_data=[1, 2, 3, 4]), "cannot reshape array of size 4"),
        (Datum(encoded=True, data=b"\xff\xd8"), "it is an encoded picture, which cv2.imdecode reads"),
    ],
)
def test_damaged_messages(message: BlobProto | Datum, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        caffe.io.blobproto_to_array(message) if isinstance(message, BlobProto) else caffe.io.datum_to_array(message)


def test_a_datum_has_three_axes() -> None:
    with pytest.raises(ValueError, match=r"Incorrect array shape\."):
        caffe.io.array_to_datum(np.zeros((2, 2)))


# -- pictures ----------------------------------------------------------------------------------------------------------


def written(folder: Path, pixels: NDArray[np.uint8]) -> Path:
    cv2.imwrite(str(folder / "picture.png"), pixels)
    return folder / "picture.png"


def test_colour_is_red_first_and_alpha_is_dropped(tmp_path: Path) -> None:
    bgra = np.array([[[255, 51, 0, 9]]], np.uint8)
    for pixels in (bgra, np.ascontiguousarray(bgra[:, :, :3])):
        image = caffe.io.load_image(written(tmp_path, pixels))
        assert image.dtype == np.float32
        np.testing.assert_array_equal(image, np.array([[[0, 0.2, 1]]], np.float32))
        grey = caffe.io.load_image(written(tmp_path, pixels), color=False)
        np.testing.assert_allclose(grey, [[[0.2 * 0.7154 + 0.0721]]])


def test_grey_becomes_three_channels(tmp_path: Path) -> None:
    path = written(tmp_path, np.array([[51, 255]], np.uint8))
    np.testing.assert_array_equal(caffe.io.load_image(path), np.array([[[0.2] * 3, [1] * 3]], np.float32))
    assert caffe.io.load_image(path, color=False).shape == (1, 2, 1)


def test_pictures_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"nothing\.png: no such file; a picture was needed"):
        caffe.io.load_image(tmp_path / "nothing.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(Exception, match=r"text.png: not a readable picture \(10 bytes\)"):
        caffe.io.load_image(tmp_path / "text.png")


@pytest.mark.parametrize(("size", "crop"), [((6, 8), (4, 4)), ((7, 5), (4, 2)), ((4, 4), (4, 4)), ((5, 5), (2, 4))])
def test_ten_crops(size: tuple[int, int], crop: tuple[int, int]) -> None:
    images = [random.random((*size, 3)).astype(np.float32) for _ in range(2)]
    crops = caffe.io.oversample(images, crop)
    assert crops.shape == (20, *crop, 3)
    for i, image in enumerate(images):
        bottom, right = size[0] - crop[0], size[1] - crop[1]
        tops_lefts = [(0, 0), (0, right), (bottom, 0), (bottom, right), (int(bottom / 2), int(right / 2))]
        for j, (top, left) in enumerate(tops_lefts):
            want = image[top : top + crop[0], left : left + crop[1]]
            np.testing.assert_array_equal(crops[10 * i + j], want)
            np.testing.assert_array_equal(crops[10 * i + j + 5], want[:, ::-1])


@pytest.mark.parametrize(
    ("images", "crop", "words"),
    [
        ([], (2, 2), "there is none"),
        ([np.zeros((4, 4, 3)), np.zeros((5, 4, 3))], (2, 2), "there is 4×4×3, 5×4×3"),
        ([np.zeros((4, 4, 3))], (5, 2), "crops of 5×2 from pictures of 4×4"),
    ],
)
def test_what_oversample_refuses(images: list[FloatArray], crop: tuple[int, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        caffe.io.oversample(images, crop)


# -- Transformer -------------------------------------------------------------------------------------------------------


def full_transformer() -> caffe.io.Transformer:
    transformer = caffe.io.Transformer(SHAPE)
    transformer.set_transpose("data", (2, 0, 1))
    transformer.set_channel_swap("data", (2, 1, 0))
    transformer.set_raw_scale("data", 255)
    transformer.set_mean("data", np.array([104.0, 117.0, 123.0], np.float32))
    transformer.set_input_scale("data", 0.017)
    return transformer


def test_the_order_of_caffe() -> None:
    image = random.random((5, 4, 3)).astype(np.float32)
    kept = image.copy()
    got = full_transformer().preprocess("data", image)
    want = (image.transpose(2, 0, 1)[::-1] * 255 - np.array([104, 117, 123])[:, None, None]) * 0.017
    np.testing.assert_allclose(got, want, rtol=1e-5)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(image, kept)  # Caffe multiplies into the caller's array where nothing was copied
    np.testing.assert_allclose(full_transformer().deprocess("data", got[None]), image, atol=1e-6)


def test_it_resizes_first() -> None:
    image = random.random((9, 9, 3)).astype(np.float32)
    small = caffe.io.resize_image(image, (5, 4))
    np.testing.assert_array_equal(
        full_transformer().preprocess("data", image), full_transformer().preprocess("data", small)
    )


def test_grey_nets() -> None:
    transformer = caffe.io.Transformer({"data": (1, 1, 4, 4)})
    image = random.random((4, 4, 1)).astype(np.float32)
    transformer.set_transpose("data", (2, 0, 1))
    transformer.set_mean("data", np.full((4, 4), 0.5, np.float32))
    got = transformer.preprocess("data", image)
    np.testing.assert_allclose(got, image.transpose(2, 0, 1) - 0.5)
    np.testing.assert_allclose(transformer.deprocess("data", got[None]), image, atol=1e-7)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda t: t.preprocess("dat", np.zeros((5, 4, 3))), r"dat is not one of the net inputs: \{'data': \(10, 3, 5, 4\)\}"),
        (lambda t: t.set_transpose("data", (1, 0)),
         "Transpose order needs to have the same number of dimensions as the input."),
        (lambda t: t.set_channel_swap("data", (1, 0)),
         "Channel swap needs to have the same number of dimensions as the input channels."),
        (lambda t: t.set_mean("data", np.zeros(2)), "Mean channels incompatible with input."),
        (lambda t: t.set_mean("data", np.zeros((1, 3, 5, 4))), "Mean shape invalid"),
        (lambda t: t.set_mean("data", np.zeros((3, 256, 256))), "Mean shape incompatible with input shape."),
    ],
)  # fmt: skip
def test_what_it_refuses_in_caffes_words(call: object, words: str) -> None:
    assert callable(call)
    with pytest.raises(CaffeconvError, match=words) as caught:
        call(caffe.io.Transformer(SHAPE))
    assert isinstance(caught.value, ValueError) == ("Mean" in words)
