"""What a user says of providers, and what onnxruntime and the user are told; the list of providers is made up here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from golden_cases import ROOT

import caffeconv
from caffeconv.cli import main
from caffeconv.runtime import session
from caffeconv.runtime.providers import CPU, CUDA, Device, Placement, layer_of, parse_provider, said

DIGITS = ROOT / "fixtures" / "digits"
NET, WEIGHTS = DIGITS / "deploy.prototxt", DIGITS / "digits.caffemodel"


class FakeSession:
    """Stands for onnxruntime's, keeps what it was made with, and runs on what `starts` says."""

    starts: Sequence[str] = (CUDA, CPU)

    def __init__(self, model: bytes, options: onnxruntime.SessionOptions, providers: object) -> None:
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
    return FakeSession


def asked(provider: str, *, nhwc: bool = False, threads: int | None = None) -> FakeSession:
    model = caffeconv.convert(NET, WEIGHTS)
    made = session.Session(model, provider, threads, nhwc=nhwc)._session
    assert isinstance(made, FakeSession)
    return made


@pytest.mark.parametrize(
    ("text", "device"),
    [("auto", Device("auto")), ("cpu", Device("cpu")), ("cuda", Device("cuda")), ("cuda:3", Device("cuda", 3))],
)
def test_providers_as_users_write_them(text: str, device: Device) -> None:
    assert parse_provider(text) == device


@pytest.mark.parametrize("text", ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CUDA", "cuda:99999"])
def test_what_is_no_provider(text: str) -> None:
    with pytest.raises(caffeconv.CaffeconvError, match="auto, cpu, cuda or cuda:N"):
        parse_provider(text)
    result = CliRunner().invoke(main, ["run", str(NET), "--provider", text])
    assert result.exit_code == 2
    assert "auto, cpu, cuda or cuda:N" in result.stderr


@pytest.mark.parametrize(
    ("provider", "nhwc", "expected"),
    [
        ("auto", False, [(CUDA, {}), (CPU, {})]),
        ("cuda", False, [(CUDA, {}), (CPU, {})]),
        ("cuda:1", True, [(CUDA, {"device_id": "1", "prefer_nhwc": "1"}), (CPU, {})]),
        ("auto", True, [(CUDA, {"prefer_nhwc": "1"}), (CPU, {})]),
    ],
)
def test_what_onnxruntime_is_told(cuda: type[FakeSession], provider: str, nhwc: bool, expected: object) -> None:
    made = asked(provider, nhwc=nhwc, threads=3)
    assert made.asked == expected
    assert made.options.intra_op_num_threads == 3
    assert made.options.get_session_config_entry("session.record_ep_graph_assignment_info") == "1"


def test_the_cpu_where_it_is_asked_for(cuda: type[FakeSession], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeSession, "starts", (CPU,))
    assert asked("cpu").asked == [(CPU, {})]


@pytest.mark.parametrize(("provider", "nhwc"), [("cuda", False), ("cuda:1", False), ("auto", True)])
def test_cuda_that_does_not_start_is_no_quiet_cpu(
    cuda: type[FakeSession], monkeypatch: pytest.MonkeyPatch, provider: str, nhwc: bool
) -> None:
    monkeypatch.setattr(FakeSession, "starts", (CPU,))
    with pytest.raises(caffeconv.CaffeconvError, match="has CUDA and could not start it"):
        asked(provider, nhwc=nhwc)
    assert asked("auto").get_providers() == [CPU]


def test_nhwc_is_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    result = CliRunner().invoke(main, ["run", str(NET), str(WEIGHTS), "--nhwc", "--input", str(DIGITS / "3.png")])
    assert result.exit_code == 1
    assert "--nhwc: the layout is chosen for CUDA alone" in result.stderr
    with pytest.raises(caffeconv.CaffeconvError, match="--nhwc"):
        caffeconv.Net(NET, WEIGHTS, nhwc=True)


def test_what_fell_back_is_said(cuda: type[FakeSession]) -> None:
    made = session.Session(caffeconv.convert(NET, WEIGHTS))
    placed = made.placements()
    assert placed is not None
    assert Placement("prob", "X", CPU) in placed
    owners = {place.node: layer_of(place.node, ["scale", "conv1", "ip1", "prob"]) or "" for place in placed}
    assert said(made.providers, placed, owners) == [
        f"providers: {CUDA}, {CPU}",
        f"2 of 4 layers run on {CUDA} whole",
        "on the CPU: ip1 (X)",
        "on the CPU: prob (X)",
    ]
    assert said([CUDA, CPU], None, {})[1] == "which nodes are on the CPU, this onnxruntime does not tell"


def test_threads_and_providers_of_a_net() -> None:
    net = caffeconv.Net(NET, WEIGHTS, provider="cpu", threads=1)
    assert net.forward(data=np.zeros((1, 1, 28, 28), np.float32))["prob"].shape == (1, 10)
    with pytest.raises(caffeconv.CaffeconvError, match="auto, cpu, cuda or cuda:N"):
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
