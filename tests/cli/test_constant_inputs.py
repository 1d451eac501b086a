"""`run --input` with an input that all items share, as InfogainLoss's H, beside inputs that have a row for each item."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import caffeconv
from caffeconv.cli import main

ITEMS = 40  # two batches of 16 and one of 8
NET = """
input: "score" input_shape { dim: 2 dim: 3 }
input: "label" input_shape { dim: 2 }
input: "H" input_shape { dim: 1 dim: 1 dim: 3 dim: 3 }
layer { name: "loss" type: "InfogainLoss" bottom: "score" bottom: "label" bottom: "H" top: "loss" }
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    Path("net.prototxt").write_text(NET)
    np.save("score.npy", random.standard_normal((ITEMS, 3), np.float32))
    np.save("label.npy", random.integers(0, 3, ITEMS).astype(np.float32))
    np.save("H.npy", random.random((3, 3), np.float32))


def run(*arguments: str, h: str | None = "H.npy", net: str = "net.prototxt") -> Result:
    inputs = ["--input", "score=score.npy", "--input", "label=label.npy", *(["--input", f"H={h}"] if h else [])]
    return CliRunner().invoke(main, ["run", net, *inputs, *arguments])


def expected() -> float:
    scores, labels, h = np.load("score.npy").astype(np.float64), np.load("label.npy").astype(int), np.load("H.npy")
    log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return float(-(h[labels] * log_p).sum() / ITEMS)


@pytest.mark.parametrize("name", ["H.npy", "H.npz", "H4.npy", "H.binaryproto"])
def test_h_serves_every_batch(name: str) -> None:
    h = np.load("H.npy")
    np.savez("H.npz", H=h)
    np.save("H4.npy", h.reshape(1, 1, 3, 3))
    made = CliRunner().invoke(main, ["make-h", "H.npy", "-q", "-o", "H.binaryproto"])
    assert made.exit_code == 0, made.stderr
    result = run("-o", "loss.npz", h=name)
    assert result.exit_code == 0, result.stderr
    assert np.load("loss.npz")["loss"] == pytest.approx(expected(), rel=1e-5)


def test_an_onnx_model() -> None:
    CliRunner().invoke(main, ["convert", "net.prototxt", "-o", "net.onnx"], catch_exceptions=False)
    assert run("-o", "loss.npz", net="net.onnx").exit_code == 0
    assert np.load("loss.npz")["loss"] == pytest.approx(expected(), rel=1e-5)


def test_profile() -> None:
    result = run("--profile", "--iterations", "1")
    assert result.exit_code == 0, result.stderr
    assert "InfogainLoss" in result.stdout


def test_h_that_is_missing_or_of_another_size() -> None:
    missing = run(h=None)
    assert missing.exit_code == 1
    assert "input 'H' has no source; give --input H=FILE" in missing.stderr
    np.save("H.npy", np.eye(4, dtype=np.float32))
    wrong = run()
    assert wrong.exit_code == 1
    assert "input 'H': the array is 4×4; 1×1×3×3 was needed" in wrong.stderr


def test_inputs_of_different_numbers_of_items_are_still_refused() -> None:
    np.save("label.npy", np.zeros(7, np.float32))
    result = run()
    assert result.exit_code == 1
    assert "different numbers of items (score: 40, label: 7)" in result.stderr


def test_held_inputs_are_inputs_no_more() -> None:
    from caffeconv.runtime.session import Session

    session = Session(caffeconv.convert("net.prototxt"))
    session.bind_constants({"H": np.load("H.npy").reshape(1, 1, 3, 3)})
    assert list(session.inputs) == ["score", "label"]
    feeds = {"score": np.load("score.npy"), "label": np.load("label.npy")}
    assert session.run(feeds)["loss"] == pytest.approx(expected(), rel=1e-5)


def test_h_that_a_data_layer_reads() -> None:
    assert CliRunner().invoke(main, ["make-h", "H.npy", "-q", "-o", "H_lmdb"]).exit_code == 0
    lines = NET.splitlines()
    lines[3] = 'layer { name: "h" type: "Data" top: "H" data_param { source: "H_lmdb" batch_size: 1 backend: LMDB } }'
    Path("data.prototxt").write_text("\n".join(lines))
    result = run("-o", "loss.npz", h=None, net="data.prototxt")
    assert result.exit_code == 0, result.stderr
    assert "caffeconv: H: 1×1×3×3 from H_lmdb, which layer 'h' reads\n" in result.stderr
    assert np.load("loss.npz")["loss"] == pytest.approx(expected(), rel=1e-5)
