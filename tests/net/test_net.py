"""Net in pycaffe's manner."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.golden_cases import GOLDENS, ROOT, forward
from support.small_nets import write_net

import caffeconv

DIGITS = ROOT / "fixtures" / "digits"


@pytest.fixture
def digits() -> caffeconv.Net:
    return caffeconv.Net(DIGITS / "deploy.prototxt", DIGITS / "digits.caffemodel")


def test_names_and_shapes(digits: caffeconv.Net) -> None:
    assert digits.inputs == ["data"]
    assert digits.outputs == ["prob"]
    assert digits.top_names["conv1"] == ["conv1"]
    assert digits.bottom_names["ip2"] == ["ip1"]
    assert digits.blobs["conv1"].shape == (1, 8, 24, 24)
    blob = digits.blobs["ip1"]
    assert (blob.num, blob.channels, blob.height, blob.width, blob.count) == (1, 64, 1, 1, 64)
    assert [param.shape for param in digits.params["conv1"]] == [(8, 1, 5, 5), (8,)]


def test_assign_into_an_input(digits: caffeconv.Net) -> None:
    x = np.random.default_rng(0).random((1, 1, 28, 28), "f4") * 255
    by_keyword = digits.forward(data=x)["prob"].copy()
    digits.blobs["data"].data[...] = 0
    assert not np.allclose(digits.forward()["prob"], by_keyword)
    digits.blobs["data"].data[...] = x
    np.testing.assert_array_equal(digits.forward()["prob"], by_keyword)


def test_a_blob_is_computed_when_read(digits: caffeconv.Net) -> None:
    x = np.full((1, 1, 28, 28), 9, np.float32)
    digits.forward(data=x)
    lazily = digits.blobs["conv2"].data.copy()
    np.testing.assert_array_equal(digits.forward(blobs=["conv2"], data=x)["conv2"], lazily)
    assert digits.forward(data=x * 2).keys() == {"prob"}
    assert not np.allclose(digits.blobs["conv2"].data, lazily)


def test_another_batch_size_reshapes(digits: caffeconv.Net) -> None:
    assert digits.forward(data=np.zeros((3, 1, 28, 28)))["prob"].shape == (3, 10)
    assert digits.blobs["conv1"].shape == (3, 8, 24, 24)
    digits.blobs["data"].reshape(2, 1, 28, 28)
    digits.reshape()
    assert digits.blobs["prob"].shape == (2, 10)


def test_surgery(digits: caffeconv.Net) -> None:
    x = np.full((1, 1, 28, 28), 50, np.float32)
    before = digits.forward(blobs=["ip2"], data=x)["ip2"].copy()
    digits.params["ip2"][0].data[...] *= 2
    bias = digits.params["ip2"][1].data
    np.testing.assert_allclose(digits.forward(blobs=["ip2"])["ip2"], 2 * (before - bias) + bias, rtol=1e-4, atol=1e-5)


def test_end(digits: caffeconv.Net) -> None:
    assert digits.forward(end="pool1", data=np.zeros((1, 1, 28, 28))).keys() == {"pool1"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda n: n.forward(dat=0), "the net has no input 'dat'; inputs: data"),
        (lambda n: n.forward(data=np.zeros((1, 3, 28, 28))), "the array is 1×3×28×28, the net needs 1×1×28×28"),
        (lambda n: n.forward(blobs=["nope"]), "the net has no blob 'nope'"),
        (lambda n: n.forward(end="nope"), "the net has no layer 'nope'"),
        (lambda n: n.blobs["conv1"].reshape(1, 2), "blob 'conv1' is no input"),
        (lambda n: (n.blobs["data"].reshape(1, 1, 20, 20), n.forward()), "ip1"),
    ],
)  # fmt: skip
def test_wrong_calls(digits: caffeconv.Net, call: object, message: str) -> None:
    assert callable(call)
    with pytest.raises(caffeconv.CaffeconvError) as caught:
        call(digits)
    assert message in str(caught.value)


@pytest.mark.parametrize("value", [3.0, -1.0, 255.0, np.nan])
def test_a_label_out_of_range_is_refused_before_the_run(tmp_path: Path, value: float) -> None:
    layer = 'layer { name: "l" type: "SoftmaxWithLoss" bottom: "x" bottom: "t" top: "l" }'
    net = caffeconv.Net(write_net(tmp_path, {"x": (2, 3), "t": (2,)}, layer))
    with pytest.raises(
        caffeconv.CaffeconvError, match=r"l \(SoftmaxWithLoss\).*label .* in blob 't' at \[1\] is out of range"
    ):
        net.forward(x=np.zeros((2, 3)), t=[0, value])


def test_state_starts_again_with_another_batch() -> None:
    folder = GOLDENS / "layers" / "lstm_carries_state"
    net = caffeconv.Net(folder / "net.prototxt", folder / "weights.caffemodel")
    feeds = {name: np.ones(net.blobs[name].shape, np.float32) for name in net.inputs}
    first = forward(net, feeds)
    second = forward(net, feeds)
    name = net.outputs[0]
    assert not np.allclose(first[name], second[name])


def test_an_input_written_in_place_holds_the_last_write(tmp_path: Path) -> None:
    layer = 'layer { name: "p" type: "Power" bottom: "x" top: "x" power_param { shift: 1 } }'
    net = caffeconv.Net(write_net(tmp_path, {"x": (2,)}, layer))
    net.forward(x=[1, 2])
    np.testing.assert_array_equal(net.blobs["x"].data, [2, 3])


def test_two_layers_of_one_name(tmp_path: Path) -> None:
    from support.small_nets import write_weights

    layers = (
        'layer { name: "l" type: "InnerProduct" bottom: "x" top: "a" inner_product_param { num_output: 2 bias_term: false } }'
        'layer { name: "l" type: "InnerProduct" bottom: "a" top: "b" inner_product_param { num_output: 3 bias_term: false '
        'weight_filler { type: "constant" value: 2 } } }'
    )
    weights = write_weights(tmp_path / "w.caffemodel", "l", [np.array([[1, 2, 3], [4, 5, 6]], np.float32)])
    net = caffeconv.Net(write_net(tmp_path, {"x": (1, 3)}, layers), weights)
    np.testing.assert_allclose(net.forward(x=[[1, 1, 1]])["b"], [[42, 42, 42]])
    assert list(net.params) == ["l", "l_2"]
