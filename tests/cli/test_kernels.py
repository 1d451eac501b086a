"""Kernels as a picture."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.golden_cases import ROOT
from support.small_nets import write_net

from caffeconv.cli.show.kernels import first_kernels, sheet
from caffeconv.inspection.report import inspect

DIGITS = ROOT / "fixtures" / "digits"


def test_a_sheet() -> None:
    kernels = np.zeros((3, 1, 2, 2), np.float32)
    kernels[0, 0] = [[-1, 0], [1, 0]]
    picture = sheet(kernels)
    assert picture.shape == (2 * 30, 2 * 30, 1)
    assert [int(picture[y, x, 0]) for y, x in ((0, 0), (0, 14), (14, 0), (28, 0))] == [0, 128, 255, 255]
    assert (picture[30:58, :28] == 0).all()  # a kernel of one value


def test_the_first_convolution() -> None:
    layer, uri = first_kernels(inspect(DIGITS / "deploy.prototxt", DIGITS / "digits.caffemodel").nodes)
    assert layer == "conv1"
    content = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None
    assert image.shape[:2] == (3 * 32, 3 * 32)


@pytest.mark.parametrize(("channels", "kernel"), [(4, 3), (3, 1)])
def test_what_is_no_picture(tmp_path: Path, channels: int, kernel: int) -> None:
    settings = f"convolution_param {{ num_output: 2 kernel_size: {kernel} }}"
    layer = f'layer {{ name: "c" type: "Convolution" bottom: "x" top: "c" {settings} }}'
    assert first_kernels(inspect(write_net(tmp_path, {"x": (1, channels, 8, 8)}, layer)).nodes) == ("", "")


def test_without_weights() -> None:
    assert first_kernels(inspect(DIGITS / "deploy.prototxt").nodes) == ("", "")
