"""InfogainLoss over probabilities, as before April 2017: recognised, said, and computed when asked for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from support.small_nets import Array, session_of, write_net

import caffeconv
from caffeconv.cli import main
from caffeconv.errors import Diagnostic
from caffeconv.ir.definition import Infogain

LABELS = np.array([0, 2, 1, 2], np.float32)
H = np.array([[1, 0.5, 0], [0.25, 2, 0.5], [0, -0.5, 1]], np.float32)
INPUTS = {"x": (4, 3), "label": (4,), "H": (1, 1, 3, 3)}
SOFTMAX = 'layer { name: "soft" type: "Softmax" bottom: "x" top: "prob" }\n'
DROPOUT = 'layer { name: "drop" type: "Dropout" bottom: "prob" top: "prob" }\n'
SPLIT = 'layer { name: "split" type: "Split" bottom: "prob" top: "prob_0" top: "prob_1" }\n'
WARNING = "bottom 'prob' holds the probabilities of soft (Softmax); scores were needed: in Caffe 1.0 InfogainLoss"


def loss_layer(bottom: str) -> str:
    return f'layer {{ name: "loss" type: "InfogainLoss" bottom: "{bottom}" bottom: "label" bottom: "H" top: "loss" }}\n'


def softmax(x: NDArray[np.float64]) -> NDArray[np.float64]:
    grown = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(grown / grown.sum(axis=1, keepdims=True))


def loss_of(p: NDArray[np.float64]) -> float:
    """-Σ H[y, l]·log(max(p, 1e-20)) / N"""
    return float(-(H[LABELS.astype(int)] * np.log(np.maximum(p, 1e-20))).sum() / len(p))


def test_what_is_computed(tmp_path: Path) -> None:
    net = write_net(tmp_path, INPUTS, SOFTMAX + loss_layer("prob"))
    forms: tuple[Infogain | None, ...] = ("probabilities", "logits", None)
    sessions = [session_of(caffeconv.convert(net, infogain=form)) for form in forms]

    @given(arrays(np.float32, (4, 3), elements=st.floats(-60, 60, width=32)))
    def check(x: Array) -> None:
        once = softmax(x.astype(np.float64))
        twice = softmax(once)
        for session, p in zip(sessions, (once, twice, twice), strict=True):
            (loss,) = session.run(["loss"], {"x": x, "label": LABELS, "H": H[None, None]})
            np.testing.assert_allclose(loss, loss_of(p), rtol=1e-5, atol=1e-5)

    check()


def warnings_of(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Without the notes, which only -v shows."""
    return [diagnostic for diagnostic in diagnostics if diagnostic.severity != "note"]


def test_probabilities_that_are_given(tmp_path: Path) -> None:
    """A probability of 0 counts as 1e-20, and nothing is normalized."""
    net = caffeconv.Net(write_net(tmp_path, INPUTS, loss_layer("x")), infogain="probabilities")
    p = np.array([[1, 0, 0], [0.5, 0.5, 0], [2, 1e-30, 3], [0.2, 0.3, 0.4]], np.float32)
    loss = net.forward(x=p, label=LABELS, H=H[None, None])["loss"]
    np.testing.assert_allclose(loss, loss_of(p.astype(np.float64)), rtol=1e-6)
    assert warnings_of(net.diagnostics) == []


@pytest.mark.parametrize("between", ["", DROPOUT, SPLIT])
def test_a_doubtful_net_is_recognised(tmp_path: Path, between: str) -> None:
    bottom = "prob_1" if between == SPLIT else "prob"
    net = write_net(tmp_path, INPUTS, SOFTMAX + between + loss_layer(bottom))
    for diagnostics in (caffeconv.Net(net).diagnostics, caffeconv.inspect(net).diagnostics):
        (warning,) = warnings_of(diagnostics)
        assert (warning.severity, warning.layer) == ("warning", "loss")
        assert warning.where.startswith("loss (InfogainLoss), line ")
        assert warning.message.startswith(WARNING.replace("'prob'", f"'{bottom}'"))
        assert "before April 2017" in warning.hint
        assert "`infogain='probabilities'`" in warning.hint
    for form in ("logits", "probabilities"):
        assert warnings_of(caffeconv.Net(net, infogain=form).diagnostics) == []
        assert warnings_of(caffeconv.inspect(net, infogain=form).diagnostics) == []


def test_scores_are_no_reason_to_warn(tmp_path: Path) -> None:
    net = write_net(tmp_path, INPUTS, SOFTMAX + loss_layer("x"))
    assert warnings_of(caffeconv.inspect(net).diagnostics) == []


def test_commands(tmp_path: Path) -> None:
    caffeconv.make_h(H, tmp_path / "H.binaryproto")
    from_file = loss_layer("prob").replace('bottom: "H"', 'infogain_loss_param { source: "H.binaryproto" }')
    net = write_net(tmp_path, {"x": (4, 3), "label": (4,)}, SOFTMAX + from_file)
    for name, array in (("x", np.zeros((4, 3))), ("label", LABELS)):
        np.save(tmp_path / f"{name}.npy", array)
    commands = {
        "convert": ["-o", str(tmp_path / "out.onnx")],
        "inspect": [],
        "run": [f"--input={name}={tmp_path / name}.npy" for name in ("x", "label")],
    }
    for name, arguments in commands.items():
        for form in ((), ("--infogain", "logits"), ("--infogain", "probabilities")):
            result = CliRunner().invoke(main, [name, str(net), *arguments, *form])
            assert (name, result.exit_code) == (name, 0), result.stderr
            assert (WARNING in result.stderr) == (not form), name
    assert "invalid value for '--infogain'" in CliRunner().invoke(main, ["inspect", str(net), "--infogain", "x"]).stderr


@pytest.mark.parametrize(
    ("infogain", "bottom", "expected"),
    [
        (None, "prob", ["Input", "Softmax"]),
        ("logits", "x", ["Input", "Softmax", "Softmax"]),
        ("probabilities", "prob", ["Input", "Softmax"]),
        ("probabilities", "x", ["Input", "Softmax"]),
    ],
)
def test_what_deploy_leaves(tmp_path: Path, infogain: Infogain | None, bottom: str, expected: list[str]) -> None:
    """No second softmax over probabilities."""
    layers = SOFTMAX + loss_layer(bottom)
    net = caffeconv.Net(write_net(tmp_path, INPUTS, layers), deploy=True, infogain=infogain)
    assert [layer.type for layer in net._loaded.net.layers] == expected
