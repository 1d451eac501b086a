"""Reductions against numpy, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.small_nets import Array, run_model, write_net

import caffeconv

X: Array = np.random.default_rng(3).normal(0, 1, (2, 3, 4)).astype(np.float32)
RULES: dict[str, Callable[..., Array]] = {
    "ReduceSum": np.sum,
    "ReduceMean": np.mean,
    "ReduceMax": np.max,
    "ReduceMin": np.min,
    "ReduceProd": np.prod,
    "ReduceL1": lambda x, axis, keepdims: np.abs(x).sum(axis, keepdims=keepdims),
    "ReduceL2": lambda x, axis, keepdims: np.sqrt((x**2).sum(axis, keepdims=keepdims)),
    "ReduceLogsumexp": lambda x, axis, keepdims: np.log(np.exp(x).sum(axis, keepdims=keepdims)),
}


def run(folder: Path, kind: str, said: str) -> Array:
    message = f"reduce_{kind.removeprefix('Reduce').lower()}_param"
    layer = f'layer {{ name: "l" type: "{kind}" bottom: "x" top: "y" {message} {{ {said} }} }}\n'
    return run_model(caffeconv.convert(write_net(folder, {"x": X.shape}, layer), batch="keep"), {"x": X})["y"]


@pytest.mark.parametrize("kind", RULES)
def test_reductions(tmp_path: Path, kind: str) -> None:
    for said, axis, keepdims in (
        ("axis: 2 axis: 0", (0, 2), False), ("axis: -1 keepdims: true", 2, True), ("", None, False),
        ("keepdims: true", None, True),
    ):  # fmt: skip
        want = np.asarray(RULES[kind](X, axis=axis, keepdims=keepdims))
        if kind in ("ReduceL1", "ReduceL2"):  # there the axes stay unless it is said otherwise
            said = said.replace("axis", "axes").replace("true", "1") + ("" if keepdims else " keepdims: 0")
        got = run(tmp_path, kind, said)
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-6)


def test_an_axis_counts_once(tmp_path: Path) -> None:
    with pytest.raises(caffeconv.CaffeconvError, match="twice"):
        run(tmp_path, "ReduceMean", "axis: 1 axis: -2")


def test_gradient_of_gram(tmp_path: Path) -> None:
    x = np.random.default_rng(4).normal(size=(2, 3, 2, 4)).astype(np.float32)
    text = 'layer { name: "l" type: "Gram" bottom: "x" top: "y" }\n'
    net = caffeconv.Net(write_net(tmp_path, {"x": x.shape}, text, "force_backward: true\n"))
    net.forward(x=x)
    diff = np.random.default_rng(5).normal(size=(2, 3, 3, 1)).astype(np.float32)
    both = diff[..., 0] + diff[..., 0].transpose(0, 2, 1)
    want = np.einsum("nij,njp->nip", both, x.reshape(2, 3, 8)).reshape(x.shape) / 24
    np.testing.assert_allclose(net.backward(y=diff)["x"], want, rtol=1e-5, atol=1e-6)
