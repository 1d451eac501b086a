"""NHWC models: the same numbers as NCHW's, with transposes at the edges alone, and none where they cancel."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto
from support.golden_cases import Array, Case, cases, difference, part, runnable
from support.small_nets import run_model, write_net

import caffeconv
from caffeconv.emit.metadata import layouts
from caffeconv.emit.passes.channels_last import to_nhwc

RUN = [case for case in cases("layers", "nets", "fork") if runnable(case) and not case.steps]


def orders(model: ModelProto) -> dict[str, str]:
    return layouts({entry.key: entry.value for entry in model.metadata_props})


def run_nhwc(model: ModelProto, feeds: dict[str, Array], *, optimise: bool = True) -> dict[str, Array]:
    """The outputs in NCHW, of inputs in NCHW: turned around outside of the model."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    last = orders(model)
    used = {i.name: feeds[i.name].astype("f4") for i in session.get_inputs()}
    turned = {name: np.moveaxis(values, 1, -1) if name in last else values for name, values in used.items()}
    results = zip([o.name for o in session.get_outputs()], session.run(None, turned), strict=True)
    return {name: np.moveaxis(values, -1, 1) if name in last else values for name, values in results}


@pytest.mark.parametrize("case", RUN, ids=lambda c: c.name)
def test_goldens(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(case.folder)
    record = next(case.records())
    feeds = part(record, "in/")
    shapes = {name: values.shape for name, values in feeds.items()} if case.reshaped else None
    plain = caffeconv.convert(case.net, case.weights, outputs="all", shapes=shapes, **case.state)
    model = to_nhwc(plain)
    onnx.checker.check_model(model, full_check=True)
    assert [i.name for i in model.graph.input] == [i.name for i in plain.graph.input]
    assert [o.name for o in model.graph.output] == [o.name for o in plain.graph.output]
    want = part(record, "blob/")
    got = run_nhwc(model, feeds)
    problems = [difference(case, name, values, want[name]) for name, values in got.items() if name in want]
    assert [problem for problem in problems if problem] == []
    kinds = {entry.key.removeprefix("caffeconv.kind."): entry.value for entry in plain.metadata_props}
    assert orders(model).keys() == {
        value.name for value in (*plain.graph.input, *plain.graph.output)
        if len(value.type.tensor_type.shape.dim) >= 4 and kinds.get(value.name) != "detections"
    }  # fmt: skip


@pytest.mark.parametrize("case", [c for c in RUN if c.folder.parent.name == "nets"], ids=lambda c: c.name)
def test_bit_by_bit(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without onnxruntime's own rewriting, only the order of a sum may change, and only in a Gemm that was reordered."""
    monkeypatch.chdir(case.folder)
    feeds = part(next(case.records()), "in/")
    plain = caffeconv.convert(case.net, case.weights, **case.state)
    want = run_nhwc(plain, feeds, optimise=False)
    got = run_nhwc(to_nhwc(plain), feeds, optimise=False)
    for name, values in want.items():
        np.testing.assert_array_equal(got[name], values)


def converted(folder: Path, inputs: dict[str, tuple[int, ...]], layers: str) -> ModelProto:
    return caffeconv.convert(write_net(folder, inputs, layers), layout="nhwc", fold=False)


def turns(model: ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node if node.op_type in ("Transpose", "Reshape"))


CONV = (
    'layer {{ name: "{0}" type: "Convolution" bottom: "{1}" top: "{0}" '
    'convolution_param {{ num_output: {2} kernel_size: {3} weight_filler {{ type: "xavier" }} }} }}'
)
IP = (
    'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" '
    'inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }'
)


def test_one_transpose_at_each_edge(tmp_path: Path) -> None:
    model = converted(tmp_path, {"x": (1, 3, 6, 5)}, CONV.format("a", "x", 4, 3) + CONV.format("b", "a", 2, 1))
    assert turns(model) == {"Transpose": 2}
    assert [d.dim_param or d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim] == ["batch", 4, 3, 2]


def test_a_reshape_where_only_ones_change_places(tmp_path: Path) -> None:
    model = converted(
        tmp_path, {"x": (1, 1, 6, 5)}, CONV.format("a", "x", 4, 6).replace("kernel_size: 6", "kernel_h: 6 kernel_w: 5")
    )
    assert turns(model) == {"Reshape": 2}


@pytest.mark.parametrize("flat", ["", 'layer { name: "f" type: "Flatten" bottom: "x" top: "f" }'])
def test_none_before_a_gemm_whose_rows_are_put_in_order(tmp_path: Path, flat: str) -> None:
    layers = flat + (IP.replace('bottom: "x"', 'bottom: "f"') if flat else IP)
    net = write_net(tmp_path, {"x": (2, 3, 4, 5)}, layers)
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype("f4")
    plain, model = caffeconv.convert(net), caffeconv.convert(net, layout="nhwc")
    assert "Transpose" not in turns(model)
    want = run_model(plain, {"x": x})["ip"]
    got = run_model(model, {"x": np.ascontiguousarray(x.transpose(0, 2, 3, 1))})["ip"]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    unordered = run_model(plain, {"x": np.ascontiguousarray(x.transpose(0, 2, 3, 1)).reshape(x.shape)})["ip"]
    assert not np.allclose(unordered, want, atol=1e-2)


def test_none_where_every_node_works_element_by_element(tmp_path: Path) -> None:
    layers = (
        'layer { name: "a" type: "Power" bottom: "x" top: "a" power_param { scale: 2 shift: 1 } }'
        'layer { name: "b" type: "TanH" bottom: "a" top: "b" }'
        'layer { name: "c" type: "Eltwise" bottom: "a" bottom: "b" top: "c" }'
    )
    assert not turns(converted(tmp_path, {"x": (2, 3, 4, 5)}, layers))
    # somebody who minds the order keeps the transposes
    assert turns(converted(tmp_path, {"x": (2, 3, 4, 5)}, layers + CONV.format("d", "b", 2, 1)))["Transpose"] == 3


def test_five_axes_and_three(tmp_path: Path) -> None:
    layers = 'layer { name: "p" type: "Pooling" bottom: "x" top: "p" pooling_param { kernel_size: 2 } }'
    net = write_net(tmp_path, {"x": (1, 2, 4, 6, 8)}, layers)
    model = caffeconv.convert(net, layout="nhwc", extended=True)
    assert orders(model) == {"x": "NDHWC", "p": "NDHWC"}
    relu = 'layer { name: "r" type: "ReLU" bottom: "x" top: "r" }'
    assert orders(converted(tmp_path, {"x": (1, 2, 4)}, relu)) == {}


def test_rows_of_detections_are_no_picture() -> None:
    folder = next(case.folder for case in RUN if case.name == "fork/ssd_mini")
    net = next(folder.glob("*.prototxt"))
    model = caffeconv.convert(net, folder / "weights.caffemodel", layout="nhwc")
    (output,) = (o for o in model.graph.output if o.name not in orders(model))
    assert output.type.tensor_type.shape.dim[3].dim_value == 7
