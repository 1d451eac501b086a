"""Half precision: close to float32, valid, and float32 where the layers say so."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto
from support.golden_cases import Array, Case, cases, part, runnable
from support.small_nets import session_of, write_net, write_weights

import caffeconv
from caffeconv.emit.passes.float16 import to_half
from caffeconv.errors import Diagnostic

RUN = [case for case in cases("layers", "nets", "fork") if runnable(case) and not case.steps]
KINDS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def run(model: ModelProto, feeds: dict[str, Array]) -> dict[str, Array]:
    session = session_of(model)
    used = {i.name: np.asarray(feeds[i.name], KINDS[i.type]) for i in session.get_inputs()}
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, used), strict=True))


@pytest.mark.parametrize("keep_io", [False, True])
@pytest.mark.parametrize("case", RUN, ids=lambda c: c.name)
def test_goldens(case: Case, keep_io: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(case.folder)
    feeds = part(next(case.records()), "in/")
    shapes = {name: values.shape for name, values in feeds.items()} if case.reshaped else None
    plain = caffeconv.convert(case.net, case.weights, outputs="all", shapes=shapes, **case.state)
    half = to_half(plain, keep_io=keep_io)
    onnx.checker.check_model(half, full_check=True)
    want, got = run(plain, feeds), run(half, feeds)
    for name, values in want.items():
        assert got[name].shape == values.shape
        if case.about.get("random"):
            continue
        limit = 1e-3 + 1e-2 * np.abs(values[np.isfinite(values)]).max(initial=0)
        with np.errstate(invalid="ignore"):
            near = (np.abs(got[name].astype("f8") - values) <= limit) | (got[name] == values)
        beyond = np.abs(values) > np.finfo(np.float16).max  # what half has no number for
        assert (near | np.isnan(values) | beyond).all(), name
    if keep_io:
        assert {v.type.tensor_type.elem_type for v in (*half.graph.input, *half.graph.output)} <= {FLOAT}


def types(model: ModelProto) -> dict[str, int]:
    return {v.name: v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)}


def held(model: ModelProto) -> dict[str, int]:
    return {tensor.name: tensor.data_type for tensor in model.graph.initializer}


IP = (
    'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" '
    'inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }'
)


def test_weights_take_half_the_room(tmp_path: Path) -> None:
    plain = caffeconv.convert(write_net(tmp_path, {"x": (1, 3)}, IP))
    half = caffeconv.convert(tmp_path / "net.prototxt", half=True)
    assert held(plain) == {"ip/weight": FLOAT, "ip/bias": FLOAT}
    assert held(half) == {"ip/weight": HALF, "ip/bias": HALF}
    assert types(half) == {"x": HALF, "ip": HALF}
    assert types(caffeconv.convert(tmp_path / "net.prototxt", half=True, keep_io=True)) == {"x": FLOAT, "ip": FLOAT}
    assert not [node for node in half.graph.node if node.op_type == "Cast"]


def test_losses_and_labels_stay_float32(tmp_path: Path) -> None:
    layers = (
        IP + 'layer { name: "s" type: "Slice" bottom: "l" top: "l1" top: "l2" slice_param { axis: 1 } }'
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "l1" top: "loss" }'
        'layer { name: "e" type: "Embed" bottom: "l2" top: "e" embed_param { input_dim: 5000 num_output: 2 '
        'weight_filler { type: "gaussian" } } }'
    )
    net = write_net(tmp_path, {"x": (2, 3), "l": (2, 2, 1, 1)}, layers)
    half = caffeconv.convert(net, half=True)
    assert types(half) == {"x": HALF, "l": FLOAT, "loss": FLOAT, "e": HALF}
    assert held(half)["e/weight"] == HALF
    # 4099 is no half: 4096 or 4100 would be picked
    feeds = {"x": np.ones((2, 3), "f4"), "l": np.array([[0, 4099], [1, 4097]], "f4").reshape(2, 2, 1, 1)}
    want = run(caffeconv.convert(net), feeds)["e"]
    np.testing.assert_allclose(run(half, feeds)["e"], want, rtol=1e-3)


def test_statistics_stay_float32_and_what_only_moves_between_them(tmp_path: Path) -> None:
    layers = (
        'layer { name: "n" type: "MVN" bottom: "x" top: "n" } layer { name: "f" type: "Flatten" bottom: "n" top: "f" }'
        'layer { name: "p" type: "Softmax" bottom: "f" top: "p" }'
    )
    half = caffeconv.convert(write_net(tmp_path, {"x": (1, 2, 3, 4)}, layers), half=True)
    casts = [(node.input[0], node.output[0]) for node in half.graph.node if node.op_type == "Cast"]
    assert casts == [("x", "x/float32"), ("p/float32", "p")]


def test_a_value_is_cast_once(tmp_path: Path) -> None:
    layers = "".join(
        f'layer {{ name: "{name}" type: "Softmax" bottom: "ip" top: "{name}" }}' for name in ("p", "q")
    )  # fmt: skip
    half = caffeconv.convert(write_net(tmp_path, {"x": (1, 3)}, IP + layers), half=True)
    assert [node.input[0] for node in half.graph.node if node.op_type == "Cast"].count("ip") == 1


def test_weights_beyond_half_keep_their_layers_float32_and_are_told_once(tmp_path: Path) -> None:
    layers = "".join(IP.replace('"ip"', f'"{top}"').replace('"x"', f'"{x}"') for x, top in ("xa", "ab", "bc"))
    net, file = write_net(tmp_path, {"x": (1, 2)}, layers), tmp_path / "w.caffemodel"
    blobs = [np.array([[7e4, 1], [1, 1]], "f4"), np.zeros(2, "f4")]
    file.write_bytes(b"".join(write_weights(tmp_path / name, name, blobs).read_bytes() for name in "ab"))
    notes: list[Diagnostic] = []
    half = to_half(caffeconv.convert(net, file), notes=notes)
    assert [held(half)[f"{layer}/weight"] for layer in "abc"] == [FLOAT, FLOAT, HALF]
    most = "values beyond ±65504, the most that half precision has"
    assert [note.message for note in notes] == [f"a/weight and 1 other tensors: {most}; float32 stay: a, b"]


@pytest.mark.parametrize(
    ("weight", "severity", "said"),
    [
        ([[1e-9, 1], [3e-8, 0]], "note", r"1 weights of 1 tensors, most in ip/weight, become 0 in half precision"),
        ([[1e-9, -1e-9], [0, 0]], "warning", r"^2 weights of .* below 3e-08; nothing is left of ip/weight$"),
        ([[6e-8, 1], [1, 0]], "", ""),
    ],
)
def test_weights_that_half_precision_makes_0_are_told_once(
    tmp_path: Path, weight: list[list[float]], severity: str, said: str
) -> None:
    net, notes = write_net(tmp_path, {"x": (1, 2)}, IP), list[Diagnostic]()
    weights = write_weights(tmp_path / "w.caffemodel", "ip", [np.array(weight, "f4"), np.zeros(2, "f4")])
    to_half(caffeconv.convert(net, weights), notes=notes)
    assert [note.severity for note in notes] == ([severity] if severity else [])
    assert not said or re.search(said, notes[0].message)


def test_parameters_that_both_read(tmp_path: Path) -> None:
    """A parameter shared by a layer of each kind is there twice; one that only halves read keeps its name."""
    share = (
        'param { name: "w" } inner_product_param { num_output: 2 bias_term: false weight_filler { type: "xavier" } }'
    )
    layers = (
        f'layer {{ name: "a" type: "InnerProduct" bottom: "x" top: "a" {share} }}'
        f'layer {{ name: "b" type: "InnerProduct" bottom: "a" top: "b" {share} }}'
    )
    half = caffeconv.convert(write_net(tmp_path, {"x": (1, 2)}, layers), half=True)
    assert held(half) == {"a/weight": HALF}


def test_a_model_that_does_not_say_what_stays_float32() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[1] x) => (float[1] y) { y = Relu (x) }'
    )
    with pytest.raises(caffeconv.CaffeconvError, match="does not say which layers have to stay float32"):
        to_half(model)


def test_recurrent_layers_are_half_within(tmp_path: Path) -> None:
    layers = (
        'layer { name: "l" type: "LSTM" bottom: "x" bottom: "c" top: "h" recurrent_param { num_output: 2 '
        'weight_filler { type: "xavier" } } }'
    )
    net = write_net(tmp_path, {"x": (3, 1, 2), "c": (3, 1)}, layers)
    half = caffeconv.convert(net, half=True)
    assert set(held(half).values()) <= {HALF, TensorProto.INT64}
    feeds = {
        "x": np.random.default_rng(0).standard_normal((3, 1, 2)).astype("f4"),
        "c": np.array([[0], [1], [1]], "f4"),
    }
    np.testing.assert_allclose(run(half, feeds)["h"], run(caffeconv.convert(net), feeds)["h"], atol=2e-3)
