"""The forms that a whole model can take, one after another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto
from support.small_nets import session_of, write_net

import caffeconv
from caffeconv.emit.metadata import HALF_KEY, LAYOUT_KEY, PREPROCESS_KEY, Preprocess
from caffeconv.emit.model_options import ModelOptions
from caffeconv.emit.passes.pipeline import run_onnx_passes
from caffeconv.errors import Diagnostic

CONV = """
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 2 kernel_size: 1 weight_filler { type: "constant" value: 1e5 } } }
"""
"""Each output is the sum of a pixel's channels, times 100000, which half precision cannot hold."""


@pytest.fixture
def model(tmp_path: Path) -> ModelProto:
    return caffeconv.convert(write_net(tmp_path, {"data": (1, 3, 2, 2)}, CONV))


def keys(model: ModelProto) -> set[str]:
    return {entry.key for entry in model.metadata_props} & {HALF_KEY, LAYOUT_KEY, PREPROCESS_KEY}


def input_of(model: ModelProto) -> tuple[int, list[int]]:
    """Type, and the sizes after the batch."""
    kind = model.graph.input[0].type.tensor_type
    return kind.elem_type, [dim.dim_value for dim in kind.shape.dim[1:]]


def test_plain_options_leave_the_model_itself(model: ModelProto) -> None:
    assert run_onnx_passes(model, ModelOptions(keep_io=True)) is model


@pytest.mark.parametrize(
    ("options", "kind", "sizes", "entries"),
    [
        (ModelOptions("nhwc"), TensorProto.FLOAT, [2, 2, 3], {LAYOUT_KEY}),
        (ModelOptions(half=True), TensorProto.FLOAT16, [3, 2, 2], {HALF_KEY}),
        (ModelOptions(half=True, keep_io=True), TensorProto.FLOAT, [3, 2, 2], {HALF_KEY}),
        (ModelOptions(preprocess=Preprocess(layout="nchw")), TensorProto.UINT8, [3, 2, 2], {PREPROCESS_KEY}),
        (ModelOptions("nhwc", half=True, preprocess=Preprocess()), TensorProto.UINT8, [2, 2, 3],
         {LAYOUT_KEY, HALF_KEY, PREPROCESS_KEY}),
    ],
)  # fmt: skip
def test_forms(model: ModelProto, options: ModelOptions, kind: int, sizes: list[int], entries: set[str]) -> None:
    before = model.SerializeToString()
    changed = run_onnx_passes(model, options)
    assert input_of(changed) == (kind, sizes)
    assert keys(changed) == entries
    assert model.SerializeToString() == before


@pytest.mark.parametrize("fold", [True, False])
def test_preprocessing_is_folded_unless_the_weights_are_to_stay(model: ModelProto, fold: bool) -> None:
    options = ModelOptions(preprocess=Preprocess(np.full(3, 2, np.float32), 0.5, layout="nchw"), fold=fold)
    changed = run_onnx_passes(model, options)
    kinds = [node.op_type for node in changed.graph.node]
    assert ("Sub" in kinds, "Mul" in kinds) == (not fold, not fold)
    (out,) = session_of(changed).run(None, {"data": np.full((1, 3, 2, 2), 4, np.uint8)})
    np.testing.assert_allclose(out, np.full((1, 2, 2, 2), 3e5), rtol=1e-6)


def test_notes_go_to_the_caller(model: ModelProto) -> None:
    notes: list[Diagnostic] = []
    run_onnx_passes(model, ModelOptions(half=True), notes)
    assert any("conv" in str(note) for note in notes)
    run_onnx_passes(model, ModelOptions(half=True))
