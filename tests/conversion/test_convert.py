"""What every model must be, whatever the net: valid, the same each time, right at every opset and batch size."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, shape_inference
from support.golden_cases import ROOT, Array, Case, cases, difference, part, runnable

import caffeconv

RUN = [case for case in cases("layers", "nets", "fork") if runnable(case) and not case.steps]


@pytest.fixture
def inside(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Case:
    """The case, with its folder as the current one."""
    case = request.param
    assert isinstance(case, Case)
    monkeypatch.chdir(case.folder)
    return case


every_case = pytest.mark.parametrize("inside", RUN, ids=lambda c: c.name, indirect=True)


def run(model: ModelProto, feeds: dict[str, Array]) -> dict[str, Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    inputs = {i.name for i in session.get_inputs()}
    return dict(
        zip(names, session.run(names, {k: v.astype("f4") for k, v in feeds.items() if k in inputs}), strict=True)
    )


def recorded(case: Case, model: ModelProto) -> None:
    for record in list(case.records())[:1]:
        results = run(model, part(record, "in/"))
        want = part(record, "blob/")
        problems = [difference(case, name, values, want[name]) for name, values in results.items() if name in want]
        assert [problem for problem in problems if problem] == []
        assert results


def input_shapes(case: Case) -> dict[str, tuple[int, ...]] | None:
    record = next(case.records())
    return {name: values.shape for name, values in part(record, "in/").items()} if case.reshaped else None


NEED_OPSET_16 = {"fork/multistagemeanfield_2"}
"""Cases whose layers add up scattered values, which ONNX has had since then."""


@every_case
@pytest.mark.parametrize("opset", [13, 18, 21])
def test_opsets(inside: Case, opset: int) -> None:
    if inside.name in NEED_OPSET_16 and opset < 16:
        with pytest.raises(caffeconv.CaffeconvError, match="`opset=16` or more"):
            caffeconv.convert(inside.net, inside.weights, opset=opset)
        return
    model = caffeconv.convert(inside.net, inside.weights, shapes=input_shapes(inside), opset=opset, **inside.state)
    assert model.opset_import[0].version == opset
    recorded(inside, model)


@every_case
def test_all_blobs_at_an_open_batch(inside: Case) -> None:
    model = caffeconv.convert(inside.net, inside.weights, outputs="all", shapes=input_shapes(inside), **inside.state)
    recorded(inside, model)


@every_case
def test_same_bytes_each_time(inside: Case) -> None:
    models = [caffeconv.convert(inside.net, inside.weights, outputs="all", **inside.state) for _ in range(2)]
    assert models[0].SerializeToString(deterministic=True) == models[1].SerializeToString(deterministic=True)


@every_case
def test_shape_inference_agrees(inside: Case) -> None:
    model = caffeconv.convert(inside.net, inside.weights, outputs="all", batch="keep", fold=False, **inside.state)
    onnx.checker.check_model(model, full_check=True)
    assert (model.producer_name, model.producer_version) == ("caffeconv", caffeconv.__version__)
    inferred = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    said = {value.name: value.type.tensor_type for value in model.graph.output}
    for value in [*inferred.graph.value_info, *inferred.graph.output]:
        if value.name not in said or not value.type.tensor_type.HasField("shape"):
            continue
        ours, theirs = said[value.name].shape.dim, value.type.tensor_type.shape.dim
        assert len(ours) == len(theirs), value.name
        for mine, other in zip(ours, theirs, strict=True):
            if mine.HasField("dim_value") and other.HasField("dim_value"):
                assert mine.dim_value == other.dim_value, value.name


@every_case
def test_a_larger_batch_is_what_a_net_of_that_size_gives(inside: Case) -> None:
    """Where the batch is open, the model gives for twice the items what the net gives when built for so many."""
    record = part(next(inside.records()), "in/")
    model = caffeconv.convert(inside.net, inside.weights, shapes=input_shapes(inside), **inside.state)
    open_inputs = {
        i.name
        for i in model.graph.input
        if i.type.tensor_type.shape.dim[:1] and i.type.tensor_type.shape.dim[0].dim_param
    }
    if not open_inputs or inside.about.get("random"):
        pytest.skip("the batch is fixed, or the net random")
    feeds = {k: np.concatenate([v, v[::-1]]) if k in open_inputs else v for k, v in record.items()}
    shapes = {name: values.shape for name, values in feeds.items()}
    fixed = caffeconv.convert(inside.net, inside.weights, shapes=shapes, batch="keep", **inside.state)
    got, want = run(model, feeds), run(fixed, feeds)
    problems = [difference(inside, name, got[name], values) for name, values in want.items()]
    assert [problem for problem in problems if problem] == []


def test_the_sources_are_named_in_the_model() -> None:
    import hashlib

    digits = ROOT / "fixtures" / "digits"
    net, weights = digits / "deploy.prototxt", digits / "digits.caffemodel"
    metadata = {entry.key: entry.value for entry in caffeconv.convert(net, weights).metadata_props}
    assert metadata["caffe.phase"] == "TEST"
    assert metadata["caffe.prototxt.sha256"] == hashlib.sha256(net.read_bytes()).hexdigest()
    assert metadata["caffe.weights.sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
