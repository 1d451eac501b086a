"""Weights that are written in the form that a net takes as it is: the numbers are those of the net that they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from support.small_nets import Array, blob, net_text

import caffeconv
from caffeconv.caffe_pb2 import LayerParameter, NetParameter
from caffeconv.cli import main

RNG = np.random.default_rng(3)
Blobs = Mapping[str, Sequence[Array]]


def random(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


def write(
    folder: Path, name: str, inputs: Mapping[str, tuple[int, ...]], layers: str, blobs: Blobs
) -> tuple[Path, Path]:
    net, weights = folder / f"{name}.prototxt", folder / f"{name}.caffemodel"
    net.write_text(net_text(inputs, layers))
    protos = [LayerParameter(name=layer, blobs=[blob(array) for array in arrays]) for layer, arrays in blobs.items()]
    weights.write_bytes(NetParameter(layer=protos).SerializeToString())
    return net, weights


def outputs(net: Path, weights: Path, x: Array) -> NDArray[np.float32]:
    (values,) = caffeconv.Net(net, weights).forward(data=x).values()
    return np.asarray(values)


def layer(name: str, kind: str, bottom: str, fields: str = "") -> str:
    return f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{name}" {fields} }}\n'


MEAN, VARIANCE, FACTOR, SCALE, BIAS = random(4), random(4) ** 2 + 1, np.array([2], "f4"), random(4), random(4)
BVLC = layer("bn", "BatchNorm", "data") + layer("sc", "Scale", "bn", "scale_param { bias_term: true }")
NVIDIA = layer("bn", "BatchNorm", "data", "batch_norm_param { scale_bias: true }")
BVLC_BLOBS = {"bn": [MEAN, VARIANCE, FACTOR], "sc": [SCALE, BIAS]}
NVIDIA_BLOBS = {"bn": [MEAN / 2, VARIANCE / 2, FACTOR, SCALE, BIAS]}
GROUPED = layer("c", "Convolution", "data", "convolution_param { num_output: 6 kernel_size: 3 group: 2 }")
DENSE = GROUPED.replace("group: 2", "")
CONV = {"c": [random(6, 2, 3, 3), random(6)]}
IP, TURNED = (
    layer("ip", "InnerProduct", "data", f"inner_product_param {{ num_output: 3 {more} }}")
    for more in ("", "transpose: true")
)
PRODUCT, PRODUCT_BIAS = random(3, 100), random(3)
IP_BLOBS = {"ip": [PRODUCT, PRODUCT_BIAS]}
OLD_BLOBS = {"ip": [PRODUCT.reshape(1, 1, 3, 100), PRODUCT_BIAS.reshape(1, 1, 1, 3)]}
PAIR = IP + layer("score", "InnerProduct", "ip", "inner_product_param { num_output: 2 }")
PAIR_BLOBS = {**IP_BLOBS, "score": [random(2, 3), random(2)]}
NEW_NAMES = PAIR.replace('"ip"', '"hidden"').replace('"score"', '"classes"')
CASES: dict[str, tuple[str, Blobs, str, Blobs]] = {
    "BVLC's statistics and Scale for NVIDIA's layer": (BVLC, BVLC_BLOBS, NVIDIA, BVLC_BLOBS),
    "NVIDIA's layer for BVLC's two": (NVIDIA, NVIDIA_BLOBS, BVLC, NVIDIA_BLOBS),
    "groups for a dense layer": (GROUPED, CONV, DENSE, CONV),
    "turned round": (IP, IP_BLOBS, TURNED, IP_BLOBS),
    "ones in front": (IP, IP_BLOBS, IP, OLD_BLOBS),
    "other names": (PAIR, PAIR_BLOBS, NEW_NAMES, PAIR_BLOBS),
}
"""The trained net and its weights; a net that is the same, and weights that it does not take."""


@pytest.mark.parametrize("name", CASES)
def test_the_net_as_it_is_computes_what_was_trained(name: str, tmp_path: Path) -> None:
    trained, trained_blobs, other, blobs = CASES[name]
    inputs, x = {"data": (1, 4, 5, 5)}, random(1, 4, 5, 5)
    before = outputs(*write(tmp_path, "trained", inputs, trained, trained_blobs), x)
    net, weights = write(tmp_path, "other", inputs, other, blobs)
    fixed = tmp_path / "fixed.caffemodel"
    CliRunner().invoke(main, ["inspect", str(net), str(weights), "--fix-weights", str(fixed)])
    np.testing.assert_allclose(outputs(net, fixed, x), before, rtol=1e-4, atol=1e-5)
    report = caffeconv.inspect(net, fixed)
    assert (report.verdict, report.advice) == ("fits", "")


def test_a_grey_first_layer_is_said_to_be_another_net(tmp_path: Path) -> None:
    fields = "convolution_param { num_output: 2 kernel_size: 3 }"
    colour = random(2, 3, 3, 3)
    net, weights = write(
        tmp_path, "grey", {"data": (1, 1, 5, 5)}, layer("c", "Convolution", "data", fields), {"c": [colour, random(2)]}
    )
    report = caffeconv.inspect(net, weights)
    assert report.weights_fix is not None
    assert not report.weights_fix.keeps_numbers
    assert "another net than the trained one" in report.advice
    (stored,) = report.weights_fix.file.layers
    assert stored.blobs[0] is not None
    np.testing.assert_allclose(
        stored.blobs[0].array().reshape(2, 1, 3, 3), colour.sum(axis=1, keepdims=True), rtol=1e-6
    )


FIRST = "convolution_param { num_output: 2 kernel_size: 3 }"
COLOUR = {
    "filters": (layer("c", "Convolution", "data", FIRST), {"c": [random(2, 3, 3, 3), random(2)]}),
    "a product": (IP, {"ip": [random(3, 75), random(3)]}),
    "statistics before the filters": (
        layer("bn", "BatchNorm", "data", "") + layer("p", "Power", "bn", "power_param { shift: 1 }")
        + layer("c", "Convolution", "p", FIRST),
        {"bn": [random(3), random(3) ** 2, np.ones(1, np.float32)], "c": [random(2, 3, 3, 3), random(2)]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COLOUR)
def test_weights_for_pictures_of_the_other_order(name: str, tmp_path: Path) -> None:
    text, blobs = COLOUR[name]
    net, weights = write(tmp_path, "n", {"data": (1, 3, 5, 5)}, text, blobs)
    x, fixed = random(1, 3, 5, 5), tmp_path / "fixed.caffemodel"
    arguments = ["inspect", str(net), str(weights), "--fix-weights", str(fixed), "--swap-channels"]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    np.testing.assert_allclose(
        outputs(net, fixed, np.ascontiguousarray(x[:, ::-1])), outputs(net, weights, x), rtol=1e-5, atol=1e-6
    )
    report = caffeconv.inspect(net, weights, swap_channels=True)
    assert report.weights_fix is not None
    assert "in reverse order of the picture's channels" in report.weights_fix.changes[0]
    assert not report.weights_fix.keeps_numbers


@pytest.mark.parametrize(
    ("text", "channels", "message"),
    [
        (layer("c", "Convolution", "data", FIRST), 4, "no layer takes weights and reads pictures of three channels"),
        (layer("r", "Reshape", "data", "reshape_param { shape { dim: 1 dim: 75 } }"), 3, "takes the pictures apart"),
    ],
)
def test_channels_that_cannot_be_reversed(text: str, channels: int, message: str, tmp_path: Path) -> None:
    blobs = {"c": [random(2, channels, 3, 3), random(2)]}
    net, weights = write(tmp_path, "n", {"data": (1, channels, 5, 5)}, text, blobs)
    with pytest.raises(caffeconv.CaffeconvError, match=message):
        caffeconv.inspect(net, weights, swap_channels=True)


def test_nothing_is_written_where_no_other_form_helps(tmp_path: Path) -> None:
    net, weights = write(tmp_path, "n", {"data": (1, 4, 5, 5)}, IP, {"ip": [random(5, 100), random(5)]})
    out = tmp_path / "out.caffemodel"
    result = CliRunner().invoke(main, ["inspect", str(net), str(weights), "--fix-weights", str(out)])
    assert result.exit_code == 1
    assert "no other form of the weights" in result.stderr
    assert not out.exists()
