"""Nets on a real GPU: what is computed where, half precision, channels last. Left out where there is none.

The other tests leave the choice to `auto`, so that with onnxruntime-gpu and a GPU all of them compare CUDA with Caffe.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from support.golden_cases import ROOT, Array, Case, cases, difference, part, runnable

import caffeconv
from caffeconv.cli import main
from caffeconv.runtime.install import missing_cuda
from caffeconv.runtime.providers import CPU, CUDA
from caffeconv.runtime.session import Session

pytestmark = pytest.mark.cuda
DIGITS = ROOT / "fixtures" / "digits"
NET, WEIGHTS = DIGITS / "deploy.prototxt", DIGITS / "digits.caffemodel"
PICTURES = sorted(str(path) for path in DIGITS.glob("?.png"))
LOSSES = [case for case in cases("layers") if "InfogainLoss" in case.types and runnable(case) and not case.steps]


@pytest.fixture(autouse=True)
def gpu() -> None:
    if missing := missing_cuda(onnxruntime, None):
        pytest.skip(missing)


def probabilities(provider: str, *, nhwc: bool = False, half: bool = False) -> Array:
    net = caffeconv.Net(NET, WEIGHTS, provider=provider, nhwc=nhwc, half=half)
    pictures = np.random.default_rng(0).random((8, 1, 28, 28), np.float32)
    return net.forward(data=pictures)["prob"]


def test_a_net_as_on_the_cpu() -> None:
    on_cpu = probabilities(provider="cpu")
    np.testing.assert_allclose(probabilities(provider="cuda"), on_cpu, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(probabilities(provider="cuda:0", nhwc=True), on_cpu, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(probabilities(provider="cuda", half=True), on_cpu, rtol=2e-2, atol=2e-3)


@pytest.mark.parametrize("options", [(), ("--fp16",), ("--nhwc",)], ids=str)
def test_the_program_says_where_it_computes(options: tuple[str, ...]) -> None:
    result = CliRunner().invoke(
        main, ["run", str(NET), str(WEIGHTS), "--provider", "cuda", "-v", "--top-k", "1", "--format", "csv", *options,
               *(word for path in PICTURES for word in ("--input", path))],
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert f"providers: {CUDA}, {CPU}" in result.stderr


@pytest.mark.parametrize("case", LOSSES, ids=lambda case: case.name)
def test_infogain_loss_runs_on_the_gpu(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    if caffeconv.ops.cuda_library_path() is None:
        pytest.skip("the CUDA kernels are built where nvcc is on the PATH")
    monkeypatch.chdir(case.folder)
    for record in case.records():
        feeds = part(record, "in/")
        model = caffeconv.convert(case.net, case.weights, outputs="all", batch="keep", **case.state)
        session = Session(model, "cuda")
        placed = session.placements()
        if placed is not None:
            assert {place.provider for place in placed if place.op_type == "InfogainLoss"} == {CUDA}
        got = session.run({name: feeds[name].astype(np.float32) for name in session.inputs})
        want = {name: values for name, values in part(record, "blob/").items() if name not in session.inputs}
        assert [said for name, values in want.items() if (said := difference(case, name, got[name], values))] == []


def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(caffeconv.CaffeconvError, match="there is no GPU 999"):
        caffeconv.Net(NET, WEIGHTS, provider="cuda:999")


def test_a_label_out_of_range_is_named(tmp_path: Path) -> None:
    if caffeconv.ops.cuda_library_path() is None:
        pytest.skip("the CUDA kernels are built where nvcc is on the PATH")
    (tmp_path / "net.prototxt").write_text(
        'input: "x" input_shape { dim: 4 dim: 3 } input: "y" input_shape { dim: 4 }\n'
        'input: "h" input_shape { dim: 1 dim: 1 dim: 3 dim: 3 }\n'
        'layer { name: "loss" type: "InfogainLoss" bottom: "x" bottom: "y" bottom: "h" top: "loss" }'
    )
    session = Session(caffeconv.convert(tmp_path / "net.prototxt"), "cuda")
    session._label_checks = ()  # which would find it first
    feeds = {"x": np.zeros((4, 3), np.float32), "y": np.array([0, 1, 7, 2], np.float32),
             "h": np.eye(3, dtype=np.float32).reshape(1, 1, 3, 3)}  # fmt: skip
    with pytest.raises(caffeconv.CaffeconvError, match="label 7 at position 2"):
        session.run(feeds)
