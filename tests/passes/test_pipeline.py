"""Passes change the graph, never the numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.small_nets import run_model, write_net

import caffeconv
from caffeconv.caffe_pb2 import BlobProto, BlobShape, LayerParameter, NetParameter

RNG = np.random.default_rng(3)
MAKERS = {
    "Convolution": "convolution_param { num_output: 6 kernel_size: 3 group: 2 bias_term: %s }",
    "Deconvolution": "convolution_param { num_output: 6 kernel_size: 2 group: 2 bias_term: %s }",
    "InnerProduct": "inner_product_param { num_output: 6 bias_term: %s }",
}
AFFINE = {
    "BatchNorm": "batch_norm_param { eps: 0.01 }",
    "Scale": "scale_param { bias_term: true }",
    "Bias": "",
}


def weights_for(net: Path, path: Path) -> Path:
    """Random weights of the right shapes."""
    proto = NetParameter()
    for layer, shapes in caffeconv.inspect(net).params.items():
        blobs = [
            BlobProto(shape=BlobShape(dim=shape), data=RNG.uniform(0.5, 2, int(np.prod(shape))).tolist())
            for shape in shapes
        ]
        proto.layer.append(LayerParameter(name=layer, blobs=blobs))
    path.write_bytes(proto.SerializeToString())
    return path


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(list(MAKERS)), st.booleans(),
    st.lists(st.sampled_from(list(AFFINE)), min_size=1, max_size=3), st.booleans(), st.booleans(),
)  # fmt: skip
def test_folding_keeps_the_numbers(
    tmp_path: Path, maker: str, bias: bool, chain: list[str], in_place: bool, dropout: bool
) -> None:  # fmt: skip
    layers = f'layer {{ name: "m" type: "{maker}" bottom: "x" top: "y0" {MAKERS[maker] % str(bias).lower()} }}'
    last = "y0"
    for i, kind in enumerate(chain):
        top = last if in_place else f"y{i + 1}"
        layers += f'layer {{ name: "a{i}" type: "{kind}" bottom: "{last}" top: "{top}" {AFFINE[kind]} }}'
        last = top
    if dropout:
        layers += f'layer {{ name: "d" type: "Dropout" bottom: "{last}" top: "{last}" }}'
    net = write_net(tmp_path, {"x": (2, 4, 5, 5)}, layers)
    weights = weights_for(net, tmp_path / "w.caffemodel")
    folded, plain = (caffeconv.convert(net, weights, fold=fold) for fold in (True, False))
    assert [node.name for node in folded.graph.node if node.op_type not in ("Flatten",)] == ["m"]
    assert len(plain.graph.node) > len(folded.graph.node)
    x = {"x": RNG.normal(size=(2, 4, 5, 5)).astype(np.float32)}
    (got,), (want,) = run_model(folded, x).values(), run_model(plain, x).values()
    np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-4)


def test_a_blob_that_somebody_else_reads_is_not_folded(tmp_path: Path) -> None:
    layers = (
        'layer { name: "m" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 2 } }'
        'layer { name: "s" type: "Scale" bottom: "y" top: "z" }'
        'layer { name: "r" type: "ReLU" bottom: "y" top: "w" }'
    )
    model = caffeconv.convert(write_net(tmp_path, {"x": (1, 3)}, layers))
    assert [node.op_type for node in model.graph.node] == ["Gemm", "Mul", "Relu"]


def test_an_output_is_not_folded_away(tmp_path: Path) -> None:
    layers = (
        'layer { name: "m" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 2 } }'
        'layer { name: "s" type: "Scale" bottom: "y" top: "z" }'
    )
    net = write_net(tmp_path, {"x": (1, 3)}, layers)
    assert [o.name for o in caffeconv.convert(net, outputs=["y", "z"]).graph.output] == ["y", "z"]
    assert [n.op_type for n in caffeconv.convert(net, outputs=["z"]).graph.node] == ["Gemm"]


def test_shared_weights_are_not_folded(tmp_path: Path) -> None:
    layers = "".join(
        f'layer {{ name: "m{i}" type: "InnerProduct" bottom: "x" top: "y{i}" param {{ name: "w" }} '
        f"inner_product_param {{ num_output: 2 bias_term: false }} }}"
        f'layer {{ name: "s{i}" type: "Scale" bottom: "y{i}" top: "z{i}" }}'
        for i in range(2)
    )
    model = caffeconv.convert(write_net(tmp_path, {"x": (1, 3)}, layers))
    assert [node.op_type for node in model.graph.node] == ["Gemm", "Mul", "Gemm", "Mul"]


@pytest.mark.parametrize("tail", ["", 'layer { name: "r" type: "ReLU" bottom: "y" top: "z" }'])
def test_a_dropout_of_an_input_keeps_both_names(tmp_path: Path, tail: str) -> None:
    net = write_net(tmp_path, {"x": (1, 3)}, 'layer { name: "d" type: "Dropout" bottom: "x" top: "y" }' + tail)
    model = caffeconv.convert(net)
    assert [i.name for i in model.graph.input] == ["x"]
    assert [o.name for o in model.graph.output] == ["z" if tail else "y"]
    x = np.array([[-1, 0, 2]], np.float32)
    np.testing.assert_array_equal(next(iter(run_model(model, {"x": x}).values())), np.maximum(x, 0) if tail else x)
