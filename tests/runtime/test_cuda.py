"""What is said of a driver, a GPU or CUDA's libraries that are not there; the driver is made up here."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from caffeconv.runtime import cuda

Count = ctypes.POINTER(ctypes.c_int)


def driver(gpus: int, status: int = 0) -> Callable[[str], object]:
    """Stands for ctypes.CDLL: a driver that finds so many GPUs, or answers with a status."""

    def count(where: ctypes._Pointer[ctypes.c_int]) -> int:
        ctypes.cast(where, Count).contents.value = gpus
        return 0

    return lambda name: SimpleNamespace(cuInit=lambda flags: status, cuDeviceGetCount=count)


@pytest.mark.parametrize(
    ("gpus", "status", "index", "said"),
    [
        (2, 0, None, ""),
        (2, 0, 1, ""),
        (2, 0, 2, "there is no GPU 2: the driver finds 2, counted from 0"),
        (0, 0, None, "the NVIDIA driver finds no GPU"),
        (0, 100, 0, "the NVIDIA driver finds no GPU"),
        (1, 803, None, "the NVIDIA driver does not start (CUDA error 803)"),
    ],
)
def test_what_the_driver_finds(
    monkeypatch: pytest.MonkeyPatch, gpus: int, status: int, index: int | None, said: str
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", driver(gpus, status))
    missing = cuda.missing_gpu(index)
    assert missing.startswith(said)
    assert bool(missing) == bool(said)


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_DRIVER", "libcaffeconv-no-such-driver.so.1")
    assert "no NVIDIA driver (libcaffeconv-no-such-driver.so.1 is not there)" in cuda.missing_gpu(None)


def test_libraries_are_loaded_in_silence(capsys: pytest.CaptureFixture[str]) -> None:
    cuda.load_libraries(ModuleType("onnxruntime"))  # one that is too old for it
    runtime = ModuleType("onnxruntime")
    called = []

    def preload_dlls() -> None:
        called.append(True)
        print("Failed to load libcublasLt.so.13")

    vars(runtime)["preload_dlls"] = preload_dlls
    for _ in range(3):
        cuda.load_libraries(runtime)
    assert called == [True]
    assert capsys.readouterr().out == ""


def test_the_library_that_is_missing_is_named(tmp_path: Path) -> None:
    runtime = ModuleType("onnxruntime")
    runtime.__file__ = str(tmp_path / "__init__.py")
    said = cuda.why_not_started(runtime)
    assert "cannot open shared object file" in said
    assert "pip install 'onnxruntime-gpu[cuda,cudnn]'" in said
