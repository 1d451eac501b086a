"""What a script says once for the whole process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.small_nets import Array, write_net

import caffeconv.pycaffe as caffe
from caffeconv.pycaffe import mode


@pytest.fixture(autouse=True)
def fresh_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mode._PROCESS, "mode", mode.Mode())


def test_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    from caffeconv.runtime import install, session

    caffe.set_mode_cpu()
    caffe.set_device(0)
    assert mode.current().provider == "cpu"
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.warns(RuntimeWarning, match=r"nets compute on the CPU, as this onnxruntime .* has no CUDA provider"):
        caffe.set_mode_gpu()
    assert mode.current().provider == "cpu"
    for module in (install, session):
        monkeypatch.setattr(module, "missing_gpu", lambda index: "")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    caffe.set_mode_gpu()
    assert mode.current().provider == "cuda"
    caffe.set_device(1)
    assert mode.current().provider == "cuda:1"
    caffe.set_mode_cpu()
    assert mode.current().provider == "cpu"


def test_seed(tmp_path: Path) -> None:
    layer = (
        'layer { name: "i" type: "InnerProduct" bottom: "x" top: "y" '
        'inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }'
    )
    path = str(write_net(tmp_path, {"x": (1, 3)}, layer))

    def weights(seed: int) -> Array:
        caffe.set_random_seed(seed)
        return caffe.Net(path, caffe.TEST).params["i"][0].data

    np.testing.assert_array_equal(weights(3), weights(3))
    assert not np.array_equal(weights(3), weights(4))
