"""What is said where onnxruntime is missing, doubled or without CUDA, and where a run fails."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from support.golden_cases import ROOT
from support.small_nets import write_net

import caffeconv
from caffeconv.cli import main
from caffeconv.runtime import install, session


def test_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(caffeconv.CaffeconvError, match=r"pip install 'caffeconv\[cpu\]'"):
        install.import_onnxruntime()


def test_two_distributions_that_broke_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.31.1")
    monkeypatch.delattr(onnxruntime, "InferenceSession")
    with pytest.raises(
        caffeconv.CaffeconvError,
        match="are all installed and overwrite",
    ):
        install.import_onnxruntime()


def test_two_distributions_that_still_work_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.31.1")
    with pytest.warns(RuntimeWarning, match="onnxruntime, onnxruntime-gpu and onnxruntime-openvino are all installed"):
        install.import_onnxruntime()


def test_the_program_shows_a_warning_as_its_own_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.31.1")
    digits = ROOT / "fixtures" / "digits"
    result = CliRunner().invoke(main, ["run", str(digits / "deploy.prototxt"), "--input", str(digits / "3.png")])
    assert (
        "caffeconv: warning: onnxruntime, onnxruntime-gpu and onnxruntime-openvino are all installed" in result.stderr
    )
    assert ".py:" not in result.stderr


def test_cuda_that_is_not_there() -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(caffeconv.CaffeconvError, match=r"has no CUDA provider.*pip install 'caffeconv\[gpu\]'"):
        install.choose_providers("cuda", onnxruntime)
    assert install.choose_providers("auto", onnxruntime) == ["CPUExecutionProvider"]


def test_no_model(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\xff\xff nothing")
    with pytest.raises(caffeconv.CaffeconvError, match=r"m\.onnx: onnxruntime cannot load it"):
        session.Session(path)


def test_a_failing_layer_is_named(tmp_path: Path) -> None:
    layer = 'layer { name: "emb" type: "Embed" bottom: "x" top: "y" embed_param { input_dim: 3 num_output: 2 } }'
    model = caffeconv.convert(write_net(tmp_path, {"x": (2,)}, layer))
    running = session.Session(model)
    with pytest.raises(caffeconv.CaffeconvError, match="emb"):
        running.run({"x": np.array([0, 7], np.float32)})
