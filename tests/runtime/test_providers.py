"""What a user says of providers, and what onnxruntime and the user are told; the list of providers is made up here."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from support.golden_cases import ROOT
from support.small_nets import write_net

import caffeconv
from caffeconv.cli import main
from caffeconv.runtime import install, session
from caffeconv.runtime.providers import (
    CPU,
    CUDA,
    OPENVINO,
    Device,
    Placement,
    Providers,
    layer_of,
    parse_provider,
    report_lines,
)

DIGITS = ROOT / "fixtures" / "digits"
NET, WEIGHTS = DIGITS / "deploy.prototxt", DIGITS / "digits.caffemodel"
EXACT = {"use_tf32": "0"}
"""Float32 as Caffe has it."""
TWICE = """
import caffe

class Twice(caffe.Layer):
    def setup(self, bottom, top):
        pass
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)
    def forward(self, bottom, top):
        top[0].data[...] = 2 * bottom[0].data
"""


class FakeSession:
    """Stands for onnxruntime's, keeps what it was made with, and runs on what `starts` says."""

    starts: Sequence[str] = (CUDA, CPU)

    def __init__(
        self, model: bytes, options: onnxruntime.SessionOptions, providers: object, enable_fallback: int
    ) -> None:  # fmt: skip
        assert not enable_fallback, "it prints to standard output"
        self.options, self.asked = options, providers

    def get_providers(self) -> list[str]:
        return list(self.starts)

    def get_provider_graph_assignment_info(self) -> list[object]:
        nodes = {CUDA: ["conv1", "scale/scaled", "ip1"], CPU: ["ip1/flatten", "prob"]}
        return [
            SimpleNamespace(
                ep_name=name, get_nodes=lambda held=held: [SimpleNamespace(name=n, op_type="X") for n in held]
            )
            for name, held in nodes.items()
        ]

    def get_inputs(self) -> list[object]:
        return []

    get_outputs = get_inputs

    def get_modelmeta(self) -> object:
        return SimpleNamespace(custom_metadata_map={})


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> type[FakeSession]:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["TensorrtExecutionProvider", CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", FakeSession)
    monkeypatch.setattr(FakeSession, "starts", (CUDA, CPU))
    for module in (install, session):
        monkeypatch.setattr(module, "missing_gpu", lambda index: "")
    return FakeSession


def asked(provider: str, *, nhwc: bool = False, threads: int | None = None) -> FakeSession:
    model = caffeconv.convert(NET, WEIGHTS)
    made = session.Session(model, provider, threads, nhwc=nhwc)._session
    assert isinstance(made, FakeSession)
    return made


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("auto", Device("auto")),
        ("cpu", Device("cpu")),
        ("openvino", Device("openvino")),
        ("cuda", Device("cuda")),
        ("cuda:3", Device("cuda", 3)),
    ],
)
def test_providers_as_users_write_them(text: str, device: Device) -> None:
    assert parse_provider(text) == device


@pytest.mark.parametrize("text", ["gpu", "cuda:", "cuda:-1", "cuda:x", "CUDA", "cuda:99999", "OpenVINO", "openvino:1"])
def test_what_is_no_provider(text: str) -> None:
    with pytest.raises(caffeconv.CaffeconvError, match="auto, cpu, openvino, cuda or cuda:N"):
        parse_provider(text)
    result = CliRunner().invoke(main, ["run", str(NET), "--provider", text])
    assert result.exit_code == 2
    assert "auto, cpu, openvino, cuda or cuda:N" in result.stderr


@pytest.mark.parametrize(
    ("provider", "nhwc", "expected"),
    [
        ("auto", False, [(CUDA, EXACT), (CPU, {})]),
        ("cuda", False, [(CUDA, EXACT), (CPU, {})]),
        ("cuda:1", True, [(CUDA, {**EXACT, "device_id": "1", "prefer_nhwc": "1"}), (CPU, {})]),
        ("auto", True, [(CUDA, {**EXACT, "prefer_nhwc": "1"}), (CPU, {})]),
    ],
)
def test_what_onnxruntime_is_told(cuda: type[FakeSession], provider: str, nhwc: bool, expected: object) -> None:
    made = asked(provider, nhwc=nhwc, threads=3)
    assert made.asked == expected
    assert made.options.intra_op_num_threads == 3
    assert made.options.get_session_config_entry("session.record_ep_graph_assignment_info") == "1"


@pytest.mark.parametrize("provider", ["auto", "openvino"])
def test_openvino_computes_in_float32(cuda: type[FakeSession], provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [OPENVINO, CPU])
    monkeypatch.setattr(cuda, "starts", (OPENVINO, CPU))
    options = {"device_type": "CPU", "precision": "FP32"}
    assert asked(provider).asked == [(OPENVINO, options), (CPU, {})]
    made = asked(provider, threads=3)
    assert made.asked == [(OPENVINO, {**options, "num_of_threads": "3"}), (CPU, {})]
    assert made.options.get_session_config_entry("session.record_ep_graph_assignment_info") == "1"
    assert asked("cpu").asked == [(CPU, {})]


def test_what_openvino_cannot_load_runs_on_onnxruntimes_kernels(
    cuda: type[FakeSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [OPENVINO, CPU])

    def failing(*arguments: object, providers: Providers, **options: int) -> FakeSession:
        if providers[0][0] == OPENVINO:
            raise RuntimeError(
                "[ONNXRuntimeError] Exception during initialization: basic_backend.cc:136\nno such rank\n\n"
            )
        return FakeSession(b"", arguments[1], providers, 0)

    monkeypatch.setattr(onnxruntime, "InferenceSession", failing)
    monkeypatch.setattr(cuda, "starts", (CPU,))
    with pytest.warns(
        caffeconv.CaffeconvWarning, match=r"^OpenVINO cannot load this net \(no such rank\); onnxruntime's"
    ):
        assert asked("openvino").asked == [(CPU, {})]


@pytest.mark.skipif(OPENVINO not in onnxruntime.get_available_providers(), reason="onnxruntime without OpenVINO")
def test_openvino_gives_the_same_numbers() -> None:
    pictures = np.random.default_rng(0).integers(0, 255, (3, 1, 28, 28)).astype(np.float32)
    nets = [caffeconv.Net(NET, WEIGHTS, provider=provider) for provider in ("cpu", "openvino")]
    for net in nets:
        net.forward(data=pictures)
    for blob in nets[0].blobs:
        np.testing.assert_allclose(nets[1].blobs[blob].data, nets[0].blobs[blob].data, 1e-4, 1e-4, err_msg=blob)


def test_the_cpu_where_it_is_asked_for(cuda: type[FakeSession], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeSession, "starts", (CPU,))
    assert asked("cpu").asked == [(CPU, {})]


@pytest.mark.parametrize(("provider", "nhwc"), [("cuda", False), ("cuda:1", False), ("auto", True)])
def test_cuda_that_does_not_start_is_no_quiet_cpu(
    cuda: type[FakeSession], monkeypatch: pytest.MonkeyPatch, provider: str, nhwc: bool
) -> None:
    monkeypatch.setattr(FakeSession, "starts", (CPU,))
    monkeypatch.setattr(session, "why_not_started", lambda ort: "libcublas.so: not there")
    with pytest.raises(caffeconv.CaffeconvError, match=r"could not start CUDA: libcublas\.so: not there\. Or say"):
        asked(provider, nhwc=nhwc)
    with pytest.warns(caffeconv.CaffeconvWarning, match=r"libcublas\.so: not there\. The CPU computes"):
        assert asked("auto").get_providers() == [CPU]


def test_what_is_made_for_cuda_does_not_run_on_the_cpu(
    cuda: type[FakeSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeSession, "starts", (CPU,))
    monkeypatch.setattr(session, "why_not_started", lambda ort: "libcublas.so: not there")
    with pytest.raises(caffeconv.CaffeconvError, match=r"could not start CUDA: libcublas\.so: not there\. Or say"):
        session.Session(caffeconv.convert(NET, WEIGHTS), "auto", needs_cuda=True)


def test_cuda_that_fails_says_why(cuda: type[FakeSession], monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(FakeSession):
        starts = (CPU,)

        def __init__(
            self, model: bytes, options: onnxruntime.SessionOptions, providers: Providers, enable_fallback: int
        ) -> None:  # fmt: skip
            super().__init__(model, options, providers, enable_fallback)
            if providers[0][0] == CUDA:
                raise RuntimeError(
                    "/a/b.cc:12 CUDA failure 35: the driver is too old ; GPU=-1 ; expr=cudaSetDevice(0);"
                )

    monkeypatch.setattr(onnxruntime, "InferenceSession", Failing)
    with pytest.raises(caffeconv.CaffeconvError, match=r"start CUDA: CUDA failure 35: the driver is too old\. Or say"):
        asked("cuda")
    with pytest.warns(caffeconv.CaffeconvWarning, match="CUDA failure 35: the driver is too old"):
        assert asked("auto").asked == [(CPU, {})]


def test_no_gpu(cuda: type[FakeSession], monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (install, session):
        monkeypatch.setattr(module, "missing_gpu", lambda index: f"no GPU {index}")
    monkeypatch.setattr(FakeSession, "starts", (CPU,))
    with pytest.raises(caffeconv.CaffeconvError, match=r"^`provider='cuda:1'`: no GPU 1$"):
        asked("cuda:1")
    made = session.Session(caffeconv.convert(NET, WEIGHTS))
    assert made.providers == [CPU]
    assert report_lines(made.providers, None, {}, made.why_not_cuda) == [
        f"providers: {CPU}", "not CUDA, which this onnxruntime has: no GPU None",
    ]  # fmt: skip


def test_the_library_with_cuda_kernels_is_the_one_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Registered in the session and told of Python layers: the two share what the library keeps."""
    real = onnxruntime.InferenceSession

    def on_the_cpu(model: bytes, options: onnxruntime.SessionOptions, **named: object) -> onnxruntime.InferenceSession:
        made = real(model, options, providers=[CPU])
        made.get_providers = lambda: [CUDA, CPU]
        return made

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", on_the_cpu)
    for module in (install, session):
        monkeypatch.setattr(module, "missing_gpu", lambda index: "")
    library = tmp_path / "library_with_cuda.so"
    shutil.copyfile(caffeconv.ops.library_path(), library)
    monkeypatch.setattr(caffeconv.ops, "cuda_library_path", lambda: str(library))
    (tmp_path / "twice.py").write_text(TWICE)
    layer = 'layer { name: "p" type: "Python" bottom: "x" top: "y" python_param { module: "twice" layer: "Twice" } }'
    net = caffeconv.Net(write_net(tmp_path, {"x": (2, 3)}, layer), allow_python=True)
    assert net.forward(x=np.ones((2, 3), np.float32))["y"].tolist() == [[2, 2, 2], [2, 2, 2]]
    assert str(library) in Path("/proc/self/maps").read_text()


def test_nhwc_is_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    result = CliRunner().invoke(main, ["run", str(NET), str(WEIGHTS), "--nhwc", "--input", str(DIGITS / "3.png")])
    assert result.exit_code == 1
    assert "--nhwc: the layout is chosen for CUDA alone" in result.stderr
    with pytest.raises(caffeconv.CaffeconvError, match="`nhwc=True`"):
        caffeconv.Net(NET, WEIGHTS, nhwc=True)


def test_what_fell_back_is_said(cuda: type[FakeSession]) -> None:
    made = session.Session(caffeconv.convert(NET, WEIGHTS))
    placed = made.placements()
    assert placed is not None
    assert Placement("prob", "X", CPU) in placed
    owners = {place.node: layer_of(place.node, ["scale", "conv1", "ip1", "prob"]) or "" for place in placed}
    assert report_lines(made.providers, placed, owners) == [
        f"providers: {CUDA}, {CPU}",
        f"2 of 4 layers run on {CUDA} whole",
        "on the CPU: ip1 (X)",
        "on the CPU: prob (X)",
    ]
    assert report_lines([CUDA, CPU], None, {})[1] == "which nodes are on the CPU, this onnxruntime does not tell"


def test_threads_and_providers_of_a_net() -> None:
    net = caffeconv.Net(NET, WEIGHTS, provider="cpu", threads=1)
    assert net.forward(data=np.zeros((1, 1, 28, 28), np.float32))["prob"].shape == (1, 10)
    with pytest.raises(caffeconv.CaffeconvError, match="auto, cpu, openvino, cuda or cuda:N"):
        caffeconv.Net(NET, WEIGHTS, provider="gpu")


@pytest.mark.parametrize(
    "arguments",
    [
        (NET, WEIGHTS, "--input", DIGITS / "3.png"), (NET, WEIGHTS, "--profile", "--iterations", "1"),
        (DIGITS / "train_val.prototxt", WEIGHTS, "--iterations", "1"),
    ],
)  # fmt: skip
def test_verbose_says_what_was_chosen(arguments: tuple[str | Path, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    command = ["run", *map(str, arguments), "--provider", "cpu"]
    assert f"caffeconv: providers: {CPU}" in CliRunner().invoke(main, [*command, "-v"]).stderr
    assert "providers" not in CliRunner().invoke(main, command).stderr


@pytest.mark.parametrize(
    ("node", "layer"),
    [
        ("conv1", "conv1"), ("conv1/weight_1d", "conv1"), ("conv1_nchwc", "conv1"), ("fused ip1", "ip1"),
        ("inception/1x1_nchwc", "inception/1x1"), ("inception/1x1/relu", "inception/1x1"), ("split_2", "split"),
        ("conv1_2", "conv1_2"), ("ReorderOutput_token_3", None), ("", None), ("other/conv1", None),
    ],
)  # fmt: skip
def test_nodes_and_their_layers(node: str, layer: str | None) -> None:
    assert layer_of(node, {"conv1", "conv1_2", "ip1", "inception/1x1", "split"}) == layer
