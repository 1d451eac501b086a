"""Which Python runs another engine, and what is said where it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from caffeconv.conversion.load import load
from caffeconv.frontend.options import NetOptions
from caffeconv.verify.engines import PYTHON_VARIABLE, EngineUnfitError, Subject, engines

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "fixtures" / "digits"


def complaint() -> str:
    loaded = load(DIGITS / "deploy.prototxt", DIGITS / "digits.caffemodel")
    (caffe,) = engines("caffe")
    with pytest.raises(EngineUnfitError) as caught:
        caffe.run(Subject(loaded, loaded.graph, NetOptions()), {})
    return str(caught.value)


def test_another_python_says_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'ImportError: No module named caffe' >&2\nexit 1\n")
    monkeypatch.setenv(PYTHON_VARIABLE, str(python))
    assert complaint() == f"{python} cannot be run: Permission denied; a Python was needed"
    python.chmod(0o755)
    assert complaint() == "ImportError: No module named caffe"


def test_without_caffe_the_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PYTHON_VARIABLE, raising=False)
    assert complaint() == "there is no module caffe here; CAFFECONV_VERIFY_PYTHON=PATH names the Python that has it"
