"""Sessions over parameters that stay where they are: no copies, nets of any size, files that change meanwhile."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from support.golden_cases import ROOT
from support.small_nets import write_net

import caffeconv
from caffeconv.cli import main
from caffeconv.conversion.load import load
from caffeconv.conversion.to_onnx import to_onnx
from caffeconv.emit.lazy_model import LazyModel
from caffeconv.errors import CaffeconvError
from caffeconv.net.snapshot import with_copied_weights
from caffeconv.runtime.session import Session, SharedModel
from caffeconv.runtime.shared_initializers import share_initializers
from caffeconv.tensor.param import Param
from caffeconv.tensor.param_values import ArrayValues

DIGITS = ROOT / "fixtures" / "digits"
NET, WEIGHTS = DIGITS / "deploy.prototxt", DIGITS / "digits.caffemodel"
PICTURES = np.random.default_rng(0).uniform(0, 255, (2, 1, 28, 28)).astype(np.float32)


def outline_of(net: Path = NET, weights: Path = WEIGHTS, *, held: bool = True) -> LazyModel:
    loaded = load(net, weights)
    loaded = with_copied_weights(loaded) if held else loaded
    return to_onnx(loaded, loaded.graph.outputs)


def test_large_parameters_are_lent_and_not_copied() -> None:
    outline = outline_of()
    shared = share_initializers(outline)
    model, values = shared.model, Session(shared, "cpu")._initializers
    large = {name: param.array() for name, param in outline.params.items() if param.array().nbytes >= 1 << 10}
    assert {"ip1/weight"} <= large.keys() < outline.params.keys()
    assert {value.data_ptr() for value in values} == {array.ctypes.data for array in large.values()}
    inside = {proto.name for proto in model.graph.initializer if proto.HasField("raw_data")}
    assert outline.params.keys() - inside == large.keys()
    assert model.ByteSize() < 20_000
    assert not any(proto.HasField("raw_data") for proto in outline.model.graph.initializer if proto.name in large)


def test_a_model_with_its_values_stays_as_it_is() -> None:
    model = outline_of().materialize()
    assert share_initializers(LazyModel(model, {})) == SharedModel(model, {})


@pytest.mark.parametrize("held", [True, False])
def test_the_numbers_are_those_of_the_whole_model(held: bool) -> None:
    outline = outline_of(held=held)
    whole, lent = (
        Session(model, "cpu").run({"data": PICTURES}) for model in (outline.materialize(), share_initializers(outline))
    )
    np.testing.assert_array_equal(whole["prob"], lent["prob"])


def test_values_in_another_order_are_put_right() -> None:
    outline = outline_of()
    turned = {
        name: replace(param, values=_fortran(param) if len(param.shape) == 2 else param.values)
        for name, param in outline.params.items()
    }
    found = Session(share_initializers(LazyModel(outline.model, turned)), "cpu").run({"data": PICTURES})
    np.testing.assert_array_equal(
        found["prob"], Session(share_initializers(outline), "cpu").run({"data": PICTURES})["prob"]
    )


def _fortran(param: Param) -> ArrayValues:
    return ArrayValues(np.asfortranarray(param.array()))


def test_a_weights_file_may_change_afterwards(tmp_path: Path) -> None:
    weights = tmp_path / "net.caffemodel"
    shutil.copy(WEIGHTS, weights)
    session = Session(share_initializers(outline_of(weights=weights, held=False)), "cpu")
    before = session.run({"data": PICTURES})["prob"]
    weights.write_bytes(b"")  # whoever still looked into the mapped file would die of it
    np.testing.assert_array_equal(session.run({"data": PICTURES})["prob"], before)


# -- beyond what one message holds ---------------------------------------------------------------------------------------


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message holds hardly anything, so that a small net is too large for it."""
    monkeypatch.setattr("caffeconv.emit.lazy_model.MOST_BYTES", 1000)
    with pytest.raises(CaffeconvError, match="one ONNX file holds at most"):
        caffeconv.convert(NET, WEIGHTS)


@pytest.mark.usefixtures("little_room")
def test_a_net_too_large_for_one_message_goes_forward_and_backward(tmp_path: Path) -> None:
    layers = 'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 9 } }'
    net = caffeconv.Net(write_net(tmp_path, {"x": (2, 99)}, layers, "force_backward: true\n"))
    weight = net.params["ip"][0].data
    weight[...] = np.random.default_rng(0).normal(0, 1, weight.shape)
    x = np.random.default_rng(1).normal(0, 1, (2, 99)).astype(np.float32)
    np.testing.assert_allclose(net.forward(x=x)["y"], x @ weight.T, rtol=1e-4, atol=1e-5)
    seed = np.random.default_rng(2).normal(0, 1, (2, 9)).astype(np.float32)
    np.testing.assert_allclose(net.backward(y=seed)["x"], seed @ weight, rtol=1e-4, atol=1e-5)
    weight *= 2  # the session has these very values, but may have packed them in its own way
    np.testing.assert_allclose(net.forward(x=x)["y"], x @ weight.T, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("little_room")
@pytest.mark.parametrize("arguments", [("--input", DIGITS / "7.png"), ("--profile", "--iterations", "2")])
def test_a_net_too_large_for_one_message_runs(arguments: tuple[str | Path, ...]) -> None:
    result = CliRunner().invoke(main, ["run", str(NET), str(WEIGHTS), *map(str, arguments)])
    assert result.exit_code == 0, result.stderr
