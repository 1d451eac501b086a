"""RCF's AutoCrop over the edge of its bottom, where its code reads what lies behind in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.small_nets import write_net

import caffeconv

NET = """
layer { name: "conv" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 2 kernel_size: 3 pad: 2
  dilation: 2 weight_filler { type: "xavier" } } }
layer { name: "crop" type: "AutoCrop" bottom: "c" bottom: "x" top: "y" }
"""


def test_auto_crop_reads_on(tmp_path: Path) -> None:
    """The dilation does not count, so that the offset is 1 and a row and a column are missing."""
    net = caffeconv.Net(write_net(tmp_path, {"x": (2, 1, 5, 7)}, NET))
    x = np.random.default_rng(0).normal(size=(2, 1, 5, 7)).astype(np.float32)
    blobs = net.forward(x=x, blobs=["c"])
    expected = np.append(blobs["c"].ravel()[8:], np.zeros(8, np.float32)).reshape(2, 2, 5, 7)
    np.testing.assert_array_equal(blobs["y"], expected)
    np.testing.assert_array_equal(blobs["y"][:, :, :4, :6], blobs["c"][:, :, 1:, 1:])


def test_auto_crop_tells_of_it(tmp_path: Path) -> None:
    report = caffeconv.inspect(write_net(tmp_path, {"x": (1, 1, 5, 7)}, NET))
    assert report.ok
    assert any("offset 1, 1 and 5×7 places go over its edge" in d.message for d in report.diagnostics)
    net = NET.replace("pad: 2", "pad: 3")
    assert not caffeconv.inspect(write_net(tmp_path, {"x": (1, 1, 5, 7)}, net)).diagnostics


def test_auto_crop_only_cuts(tmp_path: Path) -> None:
    with pytest.raises(caffeconv.CaffeconvError, match=r"bottom.1. is 1×1×5×7, larger than bottom.0., 1×2×3×5"):
        caffeconv.convert(write_net(tmp_path, {"x": (1, 1, 5, 7)}, NET.replace("pad: 2\n", "pad: 1\n")))
