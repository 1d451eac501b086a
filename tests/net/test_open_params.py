"""Sessions whose parameters are inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.small_nets import write_net

import caffeconv
from caffeconv.caffe_format.terms import Phase
from caffeconv.net.open_params import draw
from caffeconv.net.pass_state import Noise

BATCH_NORM = (
    'layer { name: "bn" type: "BatchNorm" bottom: "x" top: "y" batch_norm_param { moving_average_fraction: 0.9 } }'
)


def test_noise_is_the_same_each_time() -> None:
    one = draw(Noise(1, 5), "layer/noise_in", (3, 4))
    np.testing.assert_array_equal(one, draw(Noise(1, 5), "layer/noise_in", (3, 4)))
    for other in (Noise(2, 5), Noise(1, 6)):
        assert (one != draw(other, "layer/noise_in", (3, 4))).all()
    assert ((one >= 0) & (one < 1)).all()


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
def test_a_size_that_values_decide_is_never_guessed(tmp_path: Path, phase: Phase) -> None:
    """ArgMax over what Filter leaves of four items looked at four of three."""
    layers = (
        'layer { name: "f" type: "Filter" bottom: "x" bottom: "s" top: "kept" }'
        'layer { name: "a" type: "ArgMax" bottom: "kept" top: "a" argmax_param { axis: 0 } }'
    )
    path = write_net(tmp_path, {"x": (4, 2), "s": (4, 1)}, layers)
    with pytest.raises(caffeconv.CaffeconvError, match="ArgMax along the batch axis needs to know the batch size"):
        caffeconv.Net(path, phase=phase).forward(x=np.zeros((4, 2)), s=np.array([[1], [1], [1], [0]]))


def test_training_moves_the_running_averages(tmp_path: Path) -> None:
    # real Caffe's numbers
    net = caffeconv.Net(write_net(tmp_path, {"x": (4, 1)}, BATCH_NORM), phase="TRAIN")
    net.forward(x=np.array([[1], [2], [3], [4]]))
    mean, variance, factor = (blob.data for blob in net.params["bn"])
    np.testing.assert_allclose([mean[0], variance[0], factor[0]], [2.5, 5 / 3, 1], 1e-6)
    assert net.blobs["y"].data.shape == (4, 1)
    assert factor[0] == 1, "reading a blob is no pass"
    net.forward()
    np.testing.assert_allclose(factor, [1.9], 1e-6)
    net.save(tmp_path / "fresh.caffemodel")
    test = caffeconv.Net(tmp_path / "net.prototxt", tmp_path / "fresh.caffemodel")
    np.testing.assert_allclose(test.forward(x=np.full((4, 1), 2.5))["y"], 0, atol=1e-5)


def test_training_moves_the_averages_of_nvidias_layer(tmp_path: Path) -> None:
    # caffe: NVIDIA's BatchNormLayer::Forward_cpu copies twice, then averages
    text = BATCH_NORM.replace("moving", "eps: 0.01 scale_bias: true moving")
    net = caffeconv.Net(write_net(tmp_path, {"x": (4, 3, 2, 2)}, text), phase="TRAIN")
    rng = np.random.default_rng(0)
    mean, variance = np.zeros(3), np.zeros(3)
    for number in range(4):
        x = rng.normal(number, 2, (4, 3, 2, 2)).astype(np.float32)
        net.forward(x=x)
        share = 1 if number < 2 else 0.1
        mean += share * (x.mean((0, 2, 3)) - mean)
        variance += share * (x.var((0, 2, 3)) + 0.01 - variance)
        np.testing.assert_allclose(net.params["bn"][0].data, mean, 1e-5)
        np.testing.assert_allclose(net.params["bn"][1].data, variance, 1e-5)
    assert net.params["bn"][2].data == 1


def test_parameters_that_change_again_and_again_need_no_new_session(tmp_path: Path) -> None:
    layers = (
        'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 1 bias_term: false } }'
        + BATCH_NORM.replace('"x"', '"y"').replace('top: "y"', 'top: "z"')
    )
    net = caffeconv.Net(write_net(tmp_path, {"x": (1, 2)}, layers))
    weight, factor = net.params["ip"][0].data, net.params["bn"][2].data
    net.params["bn"][1].data[...] = 1
    factor[...] = 1
    for number in range(1, 7):
        weight[...] = number
        np.testing.assert_allclose(net.forward(x=np.ones((1, 2)))["z"], [[2 * number]], 1e-4)
    entries = {id(net._sessions.forward_session(net._sessions.graph, ("z",))) for _ in range(3)}
    weight[...] = 9
    net.forward()
    assert entries == {id(net._sessions.forward_session(net._sessions.graph, ("z",)))}


def test_forward_and_backward_drop_the_same(tmp_path: Path) -> None:
    layers = (
        'layer { name: "drop" type: "Dropout" bottom: "x" top: "y" }\n'
        'layer { name: "loss" type: "Reduction" bottom: "y" top: "loss" loss_weight: 1 }'
    )
    net = caffeconv.Net(write_net(tmp_path, {"x": (4, 50)}, layers, "force_backward: true\n"), phase="TRAIN")
    net.forward(x=np.ones((4, 50)))
    net.backward()
    np.testing.assert_array_equal(net.blobs["x"].diff, net.blobs["y"].data)
    first = net.blobs["y"].data.copy()
    net.forward()
    assert not np.array_equal(first, net.blobs["y"].data)
    assert 0.3 < (first == 0).mean() < 0.7


@pytest.mark.parametrize("shape", [(1, 2, 1, 3), (2, 2, 1, 3)])
def test_a_scales_diff_is_overwritten_where_caffe_does_so(tmp_path: Path, shape: tuple[int, ...]) -> None:
    layers = (
        'layer { name: "s" type: "Scale" bottom: "x" top: "y" scale_param { filler { type: "constant" value: 1 } } }\n'
        'layer { name: "loss" type: "Reduction" bottom: "y" top: "loss" loss_weight: 1 }'
    )
    net = caffeconv.Net(write_net(tmp_path, {"x": shape}, layers, "force_backward: true\n"))
    diffs = []
    for _ in range(2):
        net.forward(x=np.ones(shape))
        net.backward()
        diffs.append(net.params["s"][0].diff.copy())
    np.testing.assert_allclose(diffs[1], diffs[0] * (1 if shape[0] == 1 else 2))


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
def test_a_pass_that_computes_nothing(tmp_path: Path, phase: Phase) -> None:
    layers = 'layer { name: "a" type: "AbsVal" bottom: "x" top: "y" } layer { name: "s" type: "Silence" bottom: "y" }'
    net = caffeconv.Net(write_net(tmp_path, {"x": (2, 3)}, layers), phase=phase)
    assert net.forward(x=np.full((2, 3), -4)) == {}
    np.testing.assert_array_equal(net.blobs["y"].data, np.full((2, 3), 4))
