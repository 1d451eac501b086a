"""The onnxruntime that is there, or is not; which packages are installed is made up here."""

from __future__ import annotations

import re
import sys
from types import ModuleType

import pytest
from support.databases import refused

from caffeconv.errors import CaffeconvWarning
from caffeconv.runtime import install
from caffeconv.runtime.install import (
    both_installed,
    check_half,
    choose_providers,
    for_gradients,
    import_onnxruntime,
    missing_cuda,
)  # fmt: skip
from caffeconv.runtime.providers import CPU, CUDA, OPENVINO, ComputeOptions


def packages(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(install, "_version", lambda name: "1.20" if name in names else "")


def onnxruntime_with(*providers: str, whole: bool = True) -> ModuleType:
    module = ModuleType("onnxruntime")
    module.get_available_providers = lambda: list(providers)  # type: ignore[attr-defined]
    if whole:
        module.InferenceSession = object  # type: ignore[attr-defined]
    return module


def test_both_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    for names in ((), ("onnxruntime",), ("onnxruntime-gpu",), ("onnxruntime-openvino",)):
        packages(monkeypatch, *names)
        assert both_installed() == ""
    packages(monkeypatch, "onnxruntime", "onnxruntime-gpu")
    ort = onnxruntime_with(CPU)
    monkeypatch.setitem(sys.modules, "onnxruntime", ort)
    with pytest.warns(CaffeconvWarning, match="^onnxruntime and onnxruntime-gpu are both installed and overwrite"):
        assert import_onnxruntime() is ort
    packages(monkeypatch, "onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino")
    assert both_installed() == (
        " onnxruntime, onnxruntime-gpu and onnxruntime-openvino are all installed and overwrite each other's files. Keep "
        "one: pip uninstall -y onnxruntime onnxruntime-gpu onnxruntime-openvino && pip install onnxruntime-openvino (or "
        "onnxruntime or onnxruntime-gpu)"
    )


def test_none_or_a_broken_one(monkeypatch: pytest.MonkeyPatch) -> None:
    packages(monkeypatch)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with refused(
        r"^onnxruntime cannot be imported \(.*\); it is needed to run nets\. Install one: pip install 'caffeconv\[cpu\]'"
    ):
        import_onnxruntime()
    monkeypatch.setitem(sys.modules, "onnxruntime", onnxruntime_with(CPU, whole=False))
    with refused(r"^onnxruntime is broken\. Install it again\.$"):
        import_onnxruntime()
    packages(monkeypatch, "onnxruntime", "onnxruntime-gpu")
    with refused(r"^onnxruntime is broken\. onnxruntime and onnxruntime-gpu are both installed"):
        import_onnxruntime()


@pytest.mark.parametrize("gpu", [True, False])
def test_cuda_where_it_is(monkeypatch: pytest.MonkeyPatch, gpu: bool) -> None:
    monkeypatch.setattr(install, "missing_gpu", lambda index: "" if gpu and not index else f"no GPU {index}")
    ort = onnxruntime_with(CUDA, CPU)
    assert choose_providers("cpu", ort) == [CPU]
    assert choose_providers("auto", ort) == ([CUDA, CPU] if gpu else [CPU])
    with refused("^`provider='cuda:1'`: no GPU 1$"):
        choose_providers("cuda:1", ort)


def test_a_build_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    packages(monkeypatch, "onnxruntime")
    ort = onnxruntime_with("AzureExecutionProvider", CPU)
    reason = missing_cuda(ort, None)
    expected = f"this onnxruntime 1.20 has no CUDA provider (it has AzureExecutionProvider, {CPU}). Install the build "
    assert reason.startswith(expected)
    assert choose_providers("auto", ort) == [CPU]
    with refused("^" + re.escape(f"`provider='cuda'`: {reason}")):
        choose_providers("cuda", ort)


def test_openvino_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    packages(monkeypatch, "onnxruntime-openvino")
    monkeypatch.setattr(install, "missing_gpu", lambda index: "no GPU")
    ort = onnxruntime_with(OPENVINO, CPU)
    assert choose_providers("auto", ort) == choose_providers("openvino", ort) == [OPENVINO, CPU]
    assert choose_providers("cpu", ort) == [CPU]
    monkeypatch.setattr(install, "missing_gpu", lambda index: "")
    assert choose_providers("auto", onnxruntime_with(CUDA, OPENVINO, CPU)) == [CUDA, CPU]
    with refused("this onnxruntime 1.20 has no OpenVINO provider .* pip install 'caffeconv\\[openvino\\]'$"):
        choose_providers("openvino", onnxruntime_with(CPU))


@pytest.mark.parametrize(
    ("providers", "asked", "expected"),
    [((OPENVINO, CPU), "auto", "cpu"), ((OPENVINO, CPU), "openvino", "cpu"), ((CPU,), "auto", "auto")],
)
def test_gradients_do_without_openvino(
    monkeypatch: pytest.MonkeyPatch, providers: tuple[str, ...], asked: str, expected: str
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, "onnxruntime", onnxruntime_with(*providers))
    compute = for_gradients(ComputeOptions(asked, 2, nhwc=False, half=True))
    assert compute == ComputeOptions(expected, 2, nhwc=False, half=False)


def test_half_precision_is_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "missing_gpu", lambda index: "")
    packages(monkeypatch, "onnxruntime-gpu")
    monkeypatch.setitem(sys.modules, "onnxruntime", onnxruntime_with(CUDA, CPU))
    check_half("auto")
    with refused("^`half=True` is for CUDA: on the CPU onnxruntime turns half precision into float32 and back"):
        check_half("cpu")
