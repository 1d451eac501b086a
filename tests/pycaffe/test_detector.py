"""caffe.Detector: windows of pictures, and the context around them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from support.small_nets import write_net, write_weights

import caffeconv
import caffeconv.pycaffe as caffe

COLOUR = """
layer { name: "p" type: "Pooling" bottom: "data" top: "p" pooling_param { pool: AVE global_pooling: true } }
"""


@pytest.fixture
def colour_net(tmp_path: Path) -> str:
    write_weights(tmp_path / "none.caffemodel", "nothing", [])
    return str(write_net(tmp_path, {"data": (2, 3, 8, 8)}, COLOUR))


def test_detector_windows(tmp_path: Path, colour_net: str) -> None:
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[2:12, 5:25] = (255, 51, 0)  # blue, green, red
    cv2.imwrite(str(tmp_path / "p.png"), pixels)
    detector = caffe.Detector(
        colour_net, str(tmp_path / "none.caffemodel"), mean=np.array([1.0, 2, 3]), raw_scale=10, channel_swap=(2, 1, 0)
    )
    inside, outside = (2, 5, 12, 25), (13, 0, 20, 30)
    detections = detector.detect_windows([(str(tmp_path / "p.png"), [inside, outside, inside])])
    assert [(d["window"], d["filename"]) for d in detections] == [
        (w, str(tmp_path / "p.png")) for w in (inside, outside, inside)
    ]
    np.testing.assert_allclose(detections[0]["prediction"].ravel(), [10 - 1, 2 - 2, 0 - 3], atol=1e-5)
    np.testing.assert_allclose(detections[1]["prediction"].ravel(), [-1, -2, -3])
    assert detector.detect_windows([]) == []
    with pytest.raises(caffeconv.CaffeconvError, match=r"window \(5, 5, 5, 9\) has no pixels in a picture of 20×30"):
        detector.detect_windows([(tmp_path / "p.png", [(5, 5, 5, 9)])])


def test_detector_context(tmp_path: Path, colour_net: str) -> None:
    mean = np.array([0.5, 1, 2], np.float32)
    detector = caffe.Detector(
        colour_net, str(tmp_path / "none.caffemodel"), mean=np.tile(mean[:, None, None], (1, 8, 8)), raw_scale=10,
        channel_swap=(2, 1, 0), context_pad=2,
    )  # fmt: skip
    image = np.full((16, 16, 3), 0.7, np.float32)
    middle = detector.crop(image, (6, 6, 9, 9))
    np.testing.assert_allclose(middle, np.full((8, 8, 3), 0.7), atol=1e-6)
    # at the picture's corner two pixels of context lie outside: the mean, red first and before raw_scale
    corner = detector.crop(image, (0, 0, 3, 3))
    np.testing.assert_allclose(corner[0, 0], mean[::-1] / 10)
    np.testing.assert_allclose(corner[7, 7], [0.7] * 3, atol=1e-6)
    assert detector.transformer.preprocess("data", corner)[:, 0, 0] == pytest.approx([0, 0, 0], abs=1e-6)


def test_selective_search_says_what_is_missing(tmp_path: Path, colour_net: str) -> None:
    detector = caffe.Detector(colour_net, str(tmp_path / "none.caffemodel"))
    with pytest.raises(caffeconv.CaffeconvError, match="selective_search_ijcv_with_python, a MATLAB program"):
        detector.detect_selective_search(["a.png"])
