"""Net.backward: Caffe's recorded gradients, which of them Caffe computes, and pycaffe's manners."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from support.golden_cases import Array, Case, cases, difference, forward, part, runs_in_a_net
from support.small_nets import write_net

import caffeconv
from caffeconv.conversion.load import load
from caffeconv.emit.backward import emit_backward
from caffeconv.ir.layer import Layer, Node
from caffeconv.ir.onnx_builder import OnnxBuilder
from caffeconv.layers import LAYERS
from caffeconv.layers.activations import Elementwise

RECORDED = [case for case in cases("layers", "nets", "fork") if case.about.get("backward") and runs_in_a_net(case)]
SCORES = np.random.default_rng(0).normal(0, 1, (4, 3)).astype(np.float32)
LABELS = np.array([0, 2, 1, 2], np.float32)


@pytest.mark.parametrize("case", RECORDED, ids=lambda c: c.name)
def test_recorded(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(case.folder)
    for record in case.records():
        net = caffeconv.Net(case.net, case.weights, allow_python=True, **case.state)
        forward(net, part(record, "in/"))
        seeds = case.about.get("top_diff", {})
        assert isinstance(seeds, dict)
        net.backward(**{blob: np.asarray(diff, np.float32) for blob, diff in seeds.items()})  # type: ignore[arg-type]
        problems = [difference(case, name, net.blobs[name].diff, want) for name, want in part(record, "diff/").items()]
        for name, want in part(record, "pdiff/").items():
            layer, index = name.rsplit("/", 1)
            problems.append(difference(case, name, net.params[layer][int(index)].diff, want))
        assert [problem for problem in problems if problem] == []


def layer(name: str, type_: str, bottoms: str, top: str, extra: str = "") -> str:
    names = "".join(f' bottom: "{bottom}"' for bottom in bottoms.split())
    return f'layer {{ name: "{name}" type: "{type_}"{names} top: "{top}" {extra} }}\n'


def net_of(folder: Path, layers: str, *, forced: bool = False, **inputs: Array) -> caffeconv.Net:
    """A net that has been run forward."""
    head = "force_backward: true\n" if forced else ""
    net = caffeconv.Net(write_net(folder, {name: values.shape for name, values in inputs.items()}, layers, head))
    forward(net, inputs)
    return net


def product(name: str, bottom: str, top: str, extra: str = "") -> str:
    filler = 'weight_filler { type: "gaussian" std: 0.5 }'
    return layer(name, "InnerProduct", bottom, top, f"inner_product_param {{ num_output: 3 {filler} }} {extra}")


LOSS = layer("loss", "SoftmaxWithLoss", "b y", "loss")
CHAIN = product("a", "x", "a") + product("b", "a", "b") + LOSS


def has_diff(net: caffeconv.Net) -> set[str]:
    blobs = {name for name, blob in net.blobs.items() if blob.diff.any()}
    return blobs | {f"{name}[{i}]" for name in net.params for i, p in enumerate(net.params[name]) if p.diff.any()}


PARAMS = {"a[0]", "a[1]", "b[0]", "b[1]"}
FROZEN = "param { lr_mult: 0 } param { lr_mult: 0 }"


@pytest.mark.parametrize(
    ("layers", "forced", "want"),
    [
        (CHAIN, False, {"loss", "a", "b", *PARAMS}),
        (CHAIN, True, {"loss", "a", "b", "x", *PARAMS}),
        (product("a", "x", "a", FROZEN) + product("b", "a", "b") + LOSS, False, {"loss", "b", "b[0]", "b[1]"}),
        (product("a", "x", "a", FROZEN) + product("b", "a", "b") + LOSS, True, {"loss", "a", "b", "x", *PARAMS}),
        (product("a", "x", "a") + product("b", "a", "b", FROZEN) + LOSS, False, {"loss", "a", "b", "a[0]", "a[1]"}),
        (product("a", "x", "a") + product("b", "a", "b", "propagate_down: false") + LOSS, False,
         {"loss", "b", "b[0]", "b[1]"}),
        (product("a", "x", "a", "propagate_down: true") + product("b", "a", "b") + LOSS, False,
         {"loss", "x", "a", "b", *PARAMS}),
        (CHAIN + layer("c", "Softmax", "a", "c"), False, {"loss", "a", "b", *PARAMS}),
        (product("a", "x", "a", FROZEN) + product("b", "a", "b", FROZEN) + LOSS, False, {"loss"}),
        # BatchNorm counts its statistics as learnt, and writes its bottom's diff whether asked or not
        (layer("n", "BatchNorm", "x", "n") + product("b", "n", "b") + LOSS, False,
         {"loss", "x", "n", "b", "b[0]", "b[1]"}),
        (layer("n", "BatchNorm", "x", "n", "param { lr_mult: 0 } " * 3) + product("b", "n", "b") + LOSS, False,
         {"loss", "b", "b[0]", "b[1]"}),
        (product("a", "x", "a") + layer("r", "ReLU", "a", "a") + product("b", "a", "b") + LOSS, False,
         {"loss", "a", "b", *PARAMS}),
    ],
)  # fmt: skip
def test_which_gradients_caffe_computes(tmp_path: Path, layers: str, forced: bool, want: set[str]) -> None:
    net = net_of(tmp_path, layers, forced=forced, x=SCORES, y=LABELS)
    net.backward()
    assert has_diff(net) == want


def test_gradients_of_parameters_add_up(tmp_path: Path) -> None:
    net = net_of(tmp_path, CHAIN, x=SCORES, y=LABELS)
    net.backward()
    once = net.params["a"][0].diff.copy()
    blob = net.blobs["a"].diff.copy()
    net.backward()
    np.testing.assert_allclose(net.params["a"][0].diff, 2 * once)
    np.testing.assert_array_equal(net.blobs["a"].diff, blob)
    net.clear_param_diffs()
    assert not net.params["a"][0].diff.any()
    net.backward()
    np.testing.assert_array_equal(net.params["a"][0].diff, once)


def test_parameters_learn(tmp_path: Path) -> None:
    net = net_of(tmp_path, CHAIN, x=SCORES, y=LABELS)
    losses = []
    for _ in range(20):
        losses.append(float(net.forward()["loss"]))
        net.clear_param_diffs()
        net.backward()
        for params in net.params.values():
            for param in params:
                param.data[...] -= 0.5 * param.diff
    assert losses[-1] < losses[0] / 2


def test_returns_the_gradients_of_the_inputs_and_those_asked_for(tmp_path: Path) -> None:
    net = net_of(tmp_path, CHAIN, forced=True, x=SCORES, y=LABELS)
    found = net.backward(diffs=["a"])
    assert found.keys() == {"x", "y", "a"}
    np.testing.assert_array_equal(found["a"], net.blobs["a"].diff)
    assert not found["y"].any()
    assert net.backward(end="b").keys() == {"a"}


def test_from_a_layer_in_the_middle(tmp_path: Path) -> None:
    net = net_of(tmp_path, CHAIN, forced=True, x=SCORES, y=LABELS)
    net.blobs["a"].diff[...] = net.blobs["a"].data
    weight = net.params["a"][0].data
    np.testing.assert_allclose(net.backward(start="a")["x"], net.blobs["a"].data @ weight, rtol=1e-5)
    assert not net.blobs["b"].diff.any()
    by_keyword = net.backward(start="a", a=np.ones((4, 3)))["x"]
    np.testing.assert_allclose(by_keyword, np.ones((4, 3)) @ weight, rtol=1e-5)


def test_what_a_part_does_not_come_to_stays(tmp_path: Path) -> None:
    net = net_of(tmp_path, CHAIN, forced=True, x=SCORES, y=LABELS)
    net.backward(diffs=["b"])
    kept = net.blobs["b"].diff.copy()
    assert kept.any()
    net.backward(start="a")
    np.testing.assert_array_equal(net.blobs["b"].diff, kept)


def test_a_given_gradient_replaces_the_loss_weight(tmp_path: Path) -> None:
    net = net_of(tmp_path, CHAIN, forced=True, x=SCORES, y=LABELS)
    assert float(net.blobs["loss"].diff) == 1
    once = net.backward()["x"].copy()
    np.testing.assert_allclose(net.backward(loss=-2)["x"], -2 * once, rtol=1e-5)
    assert float(net.blobs["loss"].diff) == -2
    np.testing.assert_allclose(net.backward()["x"], -2 * once, rtol=1e-5)


def test_the_last_forward_counts(tmp_path: Path) -> None:
    net = net_of(tmp_path, CHAIN, forced=True, x=SCORES, y=LABELS)
    first = net.backward()["x"].copy()
    net.forward(x=SCORES[::-1], y=LABELS[::-1])
    np.testing.assert_allclose(net.backward()["x"], first[::-1], rtol=1e-5)
    net.forward(x=SCORES[:2], y=LABELS[:2])
    np.testing.assert_allclose(net.backward()["x"], first[:2] * 2, rtol=1e-5)
    assert net.blobs["a"].diff.shape == (2, 3)


def test_in_place_backward_reads_what_later_layers_left(tmp_path: Path) -> None:
    x = np.array([[-3, 0.5, 3]], np.float32)
    clip = "clip_param { min: -1.0 max: 1.0 }"
    apart = net_of(tmp_path, layer("c", "Clip", "x", "c", clip), forced=True, x=x)
    np.testing.assert_array_equal(apart.backward(c=np.ones((1, 3)))["x"], [[0, 1, 0]])
    # in place the clipped values lie between the bounds
    inside = net_of(tmp_path, layer("c", "Clip", "x", "x", clip), forced=True, x=x)
    np.testing.assert_array_equal(inside.backward(x=np.ones((1, 3)))["x"], [[1, 1, 1]])
    # layers that keep a copy of their bottom do not mind
    scale = layer("s", "Scale", "x", "x", "scale_param { filler { value: 2 } }") + layer("c", "Clip", "x", "x", clip)
    kept = net_of(tmp_path, scale, forced=True, x=x)
    kept.backward(x=np.ones((1, 3)))
    np.testing.assert_array_equal(kept.params["s"][0].diff, x[0])


def test_infogain_runs_with_and_without_the_library(tmp_path: Path) -> None:
    layers = product("b", "x", "b") + layer("loss", "InfogainLoss", "b y h", "loss")
    h = np.random.default_rng(1).normal(0, 1, (3, 3)).astype(np.float32)
    inputs = {"x": SCORES, "y": LABELS, "h": h}
    path = write_net(tmp_path, {name: values.shape for name, values in inputs.items()}, layers)
    backward = emit_backward(load(path).graph, slice(0, None), seeded=(), wanted=("b",))
    model = backward.model.materialize()
    assert [(node.domain, node.name) for node in model.graph.node if node.op_type == "InfogainLossGrad"] == [
        ("caffeconv", "loss/bottom_diff")
    ]
    assert {function.name for function in model.functions} == {"InfogainLossGrad"}
    found = []
    for library in (False, True):
        options = onnxruntime.SessionOptions()
        if library:
            options.register_custom_ops_library(caffeconv.ops.library_path())
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        found.append(session.run([backward.blobs["b"]], inputs)[0])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-7)
    again = emit_backward(load(path).graph, slice(0, None), seeded=(), wanted=("b",)).model.materialize()
    assert again.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)


# -- what cannot be ----------------------------------------------------------------------------------------------------


def test_a_net_without_loss_needs_force_backward(tmp_path: Path) -> None:
    net = net_of(tmp_path, product("b", "x", "b"), x=SCORES)
    with pytest.raises(caffeconv.CaffeconvError, match="force_backward: true"):
        net.backward(b=np.ones((4, 3)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"a": np.ones((4, 3))}, "'a' is no output"),
        ({"loss": np.ones((2, 2))}, "the array is 2×2, the blob scalar"),
        ({"diffs": ["q"]}, "no blob 'q'"),
        ({"start": "q"}, "no layer 'q'"),
        ({"end": "q"}, "no layer 'q'"),
    ],
)
def test_wrong_arguments(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    net = net_of(tmp_path, CHAIN, x=SCORES, y=LABELS)
    with pytest.raises(caffeconv.CaffeconvError, match=message):
        net.backward(**arguments)  # type: ignore[arg-type]


LEARNT_LABELS = layer("q", "Bias", "y", "q", "bias_param { axis: 0 }")


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (product("b", "x", "b") + LEARNT_LABELS + layer("loss", "SoftmaxWithLoss", "b q", "loss"), "label inputs"),
        (product("b", "x", "b") + layer("loss", "SoftmaxWithLoss", "b y", "loss", "propagate_down: true " * 2),
         "label inputs"),
        (LEARNT_LABELS + layer("e", "Embed", "q", "e", "embed_param { num_output: 2 input_dim: 3 } loss_weight: 1"),
         "EmbedLayer input"),
        (product("b", "x", "b") + layer("t", "Threshold", "b", "t", "loss_weight: 1"), "Not Implemented Yet"),
        (product("b", "x", "b") + layer("t", "ArgMax", "b", "t", "loss_weight: 1"), "Not Implemented Yet"),
        (product("b", "x", "b") + layer("t", "Accuracy", "b y", "t", "loss_weight: 1"), "Not Implemented Yet"),
    ],
)  # fmt: skip
def test_refused(tmp_path: Path, layers: str, message: str) -> None:
    net = net_of(tmp_path, layers, x=SCORES, y=LABELS)
    with pytest.raises(caffeconv.CaffeconvError, match=message) as refusal:
        net.backward()
    assert ", line " in str(refusal.value)


def test_a_layer_without_a_rule_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Doubled(Elementwise):
        def lower(self, node: Node, onnx: OnnxBuilder) -> None:
            onnx.emit("Sum", node.bottoms * 2, node.tops)

    monkeypatch.setitem(LAYERS, "Doubled", Doubled)
    net = net_of(tmp_path, product("b", "x", "b") + layer("t", "Doubled", "b", "t", "loss_weight: 1"), x=SCORES)
    with pytest.raises(caffeconv.CaffeconvError, match=r"t \(Doubled\), line .*no rule for the gradient"):
        net.backward()


WITHOUT_GRADIENT = {
    "BatchToSpaceND",
    "Correlation",
    "DenseBlock",
    "Downsample",
    "FlowWarp",
    "ImResize",
    "Lstm",
    "Mean",
    "MultiStageMeanfield",
    "PointwiseSpatialAttention",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSumExp",
    "ReduceLogsumexp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "Resample",
    "ResizeBilinear",
    "ResizeNearestNeighbor",
    "SpaceToBatchND",
}
"""Types of forks whose gradient is not written yet; the set may only shrink."""


def test_every_layer_with_bottom_and_top_has_a_rule() -> None:
    silent = {name for name, kind in LAYERS.items() if kind.lower_gradient is Layer.lower_gradient}
    plain = {name for name, kind in LAYERS.items() if kind.lower_gradient is Elementwise.lower_gradient}
    silent |= {name for name in plain if LAYERS[name].bottom_diff is Elementwise.bottom_diff}  # type: ignore[attr-defined]
    assert {name for name in silent if not LAYERS[name].is_input} == WITHOUT_GRADIENT | {"DummyData", "HDF5Output"}


def test_prior_boxes_pass_nothing_on(tmp_path: Path) -> None:
    layers = layer("c", "Scale", "x", "c") + layer("p", "PriorBox", "c x", "p", "prior_box_param { min_size: 2 }")
    layers += layer("r", "Reduction", "p", "r", "loss_weight: 1")
    net = net_of(tmp_path, layers, x=np.ones((1, 2, 3, 3), np.float32))
    net.backward()
    assert has_diff(net) == {"p", "r"}


def test_learnt_h_is_refused(tmp_path: Path) -> None:
    h = layer("h", "Parameter", "", "h", "parameter_param { shape { dim: 3 dim: 3 } }")
    loss = layer("loss", "InfogainLoss", "b y h", "loss")
    net = net_of(tmp_path, product("b", "x", "b") + h + loss, x=SCORES, y=LABELS)
    with pytest.raises(caffeconv.CaffeconvError, match=r"loss \(InfogainLoss\).*infogain inputs"):
        net.backward()


def test_a_gradient_not_asked_for_is_lost_with_its_parameters(tmp_path: Path) -> None:
    net = net_of(tmp_path, CHAIN, x=SCORES, y=LABELS)
    net.backward()
    net.params["b"][0].data[...] += 1
    for _ in range(2):
        with pytest.raises(caffeconv.CaffeconvError, match=r"backward\(diffs=\['a'\]\)"):
            _ = net.blobs["a"].diff
    net.forward()
    net.backward(diffs=["a"])
    assert net.blobs["a"].diff.any()
