"""Which nets read data of their own, and what an ONNX model has settled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.databases import pixels, raw, refused, write_lmdb
from support.golden_cases import ROOT
from support.small_nets import write_net

import caffeconv
from caffeconv.frontend.options import NetOptions
from caffeconv.inference.open_runner import open_model, open_net, reads_own_data
from caffeconv.inference.request import DataOptions, ImageOptions, NetFiles, RunRequest
from caffeconv.runtime.providers import ComputeOptions

DIGITS = ROOT / "fixtures" / "digits"
COMPUTE = ComputeOptions("cpu", 1, nhwc=False, half=False)


def silent(line: str) -> None:
    return


def request(net: Path, *weights: Path) -> RunRequest:
    return RunRequest(files=NetFiles(net=net, weights=weights), compute=COMPUTE)


def test_nets_with_data_of_their_own() -> None:
    assert reads_own_data(DIGITS / "train_val.prototxt", NetOptions())
    assert not reads_own_data(DIGITS / "deploy.prototxt", NetOptions())
    assert not reads_own_data(DIGITS / "train_val.prototxt", NetOptions(deploy=True))


def test_what_an_onnx_model_has_settled(tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    caffeconv.convert_to(model, DIGITS / "deploy.prototxt", DIGITS / "digits.caffemodel")
    plain = request(model)
    assert list(open_model(plain, silent).session.outputs) == ["prob"]
    for more, message in (
        (replace(plain, blobs=("ip1",)), "leave WEIGHTS, `blobs=…`, `shapes=…` and `crop=…` out"),
        (replace(plain, images=ImageOptions(crop=(3, 3))), "leave WEIGHTS, `blobs=…`, `shapes=…` and `crop=…` out"),
        (replace(plain, net=NetOptions(fully_convolutional=True)), "an ONNX model stays as it is"),
        (replace(plain, net=NetOptions(infogain="logits")), "leave `infogain=…` out"),
        (request(tmp_path / "none.onnx"), "none.onnx: no such file"),
    ):
        with refused(message):
            open_model(more, silent)


def test_a_net_without_outputs(tmp_path: Path) -> None:
    layers = 'layer { name: "a" type: "AbsVal" bottom: "x" top: "y" } layer { name: "s" type: "Silence" bottom: "y" }'
    plain = request(write_net(tmp_path, {"x": (2, 3)}, layers))
    with refused("the net has no output, as each blob is the bottom of a layer"):
        open_model(plain, silent)
    for blobs in (("y",), ("all",)):
        assert list(open_model(replace(plain, blobs=blobs), silent).session.outputs) == ["y"]


def test_blobs_are_given_besides_the_outputs() -> None:
    plain = request(DIGITS / "deploy.prototxt", DIGITS / "digits.caffemodel")
    assert list(open_model(replace(plain, blobs=("ip1",)), silent).session.outputs) == ["prob", "ip1"]
    cropped = replace(plain, images=ImageOptions(crop=(28, 28)))
    assert open_model(cropped, silent).session.inputs["data"][2:] == [28, 28]


@pytest.mark.parametrize("place", ["db", "data=db"])
def test_a_database_fills_an_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_lmdb(tmp_path / "db", {str(i): raw(pixels(1, 28, 28, seed=i)) for i in range(3)})
    plain = request(DIGITS / "deploy.prototxt", DIGITS / "digits.caffemodel")
    net = open_net(replace(plain, data=DataOptions(input_db=place, batch_size=2)), silent)
    (source,) = net.sources.values()
    assert (source.count_items(), source.batch_size, net.inputs) == (3, 2, [])
    with refused("nothing fills data"):
        open_net(plain, silent)
