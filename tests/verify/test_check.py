"""Verification finds what is wrong with a model, and says with what it was compared."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from support.golden_cases import ROOT, Case, cases, runnable
from support.small_nets import write_net

import caffeconv
from caffeconv.conversion.load import Loaded, load
from caffeconv.conversion.to_onnx import choose_outputs, to_onnx
from caffeconv.emit.metadata import Preprocess
from caffeconv.emit.model_options import ModelOptions
from caffeconv.emit.passes.pipeline import run_onnx_passes
from caffeconv.frontend.options import NetOptions
from caffeconv.ir.layer import Node
from caffeconv.layers.activations import TanH
from caffeconv.passes import fold_affine
from caffeconv.tensor.param_values import DerivedValues
from caffeconv.verify import verify

NETS = [case for case in cases("nets", "fork") if runnable(case) and not case.steps]
DIGITS = ROOT / "fixtures" / "digits"


def of_case(case: Case) -> tuple[Loaded, NetOptions]:
    state = NetOptions(case.state["phase"], case.state["level"], case.state["stages"], dialect=case.state["dialect"])
    return load(case.net, case.weights, state), state


def digits() -> tuple[Loaded, ModelProto]:
    loaded = load(DIGITS / "deploy.prototxt", DIGITS / "digits.caffemodel")
    return loaded, to_onnx(loaded, choose_outputs(loaded.graph, None)).materialize()


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("case", NETS, ids=lambda c: c.name)
def test_nets_that_are_right(case: Case, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(case.folder)
    loaded, state = of_case(case)
    form = ModelOptions("nhwc" if layout == "nhwc" else "nchw")
    model = run_onnx_passes(to_onnx(loaded, choose_outputs(loaded.graph, None)).materialize(), form)
    found = verify(loaded, model, form, state, engine="self")
    assert [blob for blob in found.blobs if blob.verdict == "differs"] == []
    assert found.ok


def altered(model: ModelProto, name: str, part: float = 0.1) -> ModelProto:
    """The model with one number of a weight changed, by that part of the greatest."""
    wrong = ModelProto()
    wrong.CopyFrom(model)
    tensor = next(t for t in wrong.graph.initializer if t.name == name)
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] += np.abs(values).max() * part
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    return wrong


def test_an_altered_weight_is_found_where_it_is() -> None:
    loaded, model = digits()
    assert verify(loaded, model, engine="self").ok
    found = verify(loaded, altered(model, "conv2/weight"), engine="self")
    assert not found.ok
    assert found.first_wrong is not None
    assert found.first_wrong.layer == "conv2 (Convolution)"


def test_an_altered_weight_is_found_in_half_precision_too() -> None:
    loaded, model = digits()
    form = ModelOptions(half=True)
    assert verify(loaded, run_onnx_passes(model, form), form, engine="self").ok
    assert not verify(loaded, run_onnx_passes(altered(model, "conv2/weight", 2), form), form, engine="self").ok


def test_a_wrong_pass_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(case for case in NETS if case.name == "nets/cifar_full_bn")
    monkeypatch.chdir(case.folder)
    loaded, state = of_case(case)
    right = fold_affine._fold

    def wrong(*arguments: object) -> object:
        node = right(*arguments)  # type: ignore[arg-type]
        if not isinstance(node, Node):
            return node
        scaled = (DerivedValues(partial(np.multiply, param.array(), np.float32(1.01))) for param in node.params)
        return replace(node, params=tuple(replace(p, values=v) for p, v in zip(node.params, scaled, strict=True)))

    monkeypatch.setattr(fold_affine, "_fold", wrong)
    model = to_onnx(loaded, choose_outputs(loaded.graph, None)).materialize()
    assert not verify(loaded, model, options=state, engine="self").ok


def test_wrong_preprocessing_is_found() -> None:
    loaded, model = digits()
    told = ModelOptions(preprocess=Preprocess(np.array([7], "f4"), 0.5))
    done = ModelOptions(preprocess=Preprocess(np.array([8], "f4"), 0.5))
    assert verify(loaded, run_onnx_passes(model, told), told, engine="self").ok
    assert not verify(loaded, run_onnx_passes(model, done), told, engine="self").ok


def test_random_blobs_are_not_judged(tmp_path: Path) -> None:
    layers = (
        'layer { name: "d" type: "DummyData" top: "d" dummy_data_param { shape { dim: 4 } data_filler { type: "gaussian" } } }'
        'layer { name: "r" type: "ReLU" bottom: "x" top: "r" }'
    )
    loaded = load(write_net(tmp_path, {"x": (4,)}, layers))
    found = verify(loaded, to_onnx(loaded, choose_outputs(loaded.graph, None)).materialize(), engine="self")
    assert {blob.blob: blob.verdict for blob in found.blobs} == {"d": "not judged: random", "r": "ok"}


def test_a_steep_net_is_not_taken_for_a_wrong_one(tmp_path: Path) -> None:
    """A Softmax of scores about 10⁵ that lie close together makes much of a rounding, wherever that happens."""
    ip = (
        'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 10 '
        'weight_filler { type: "gaussian" mean: 1 std: 0.001 } } } layer { name: "p" type: "Softmax" bottom: "ip" top: "p" }'
    )
    loaded = load(write_net(tmp_path, {"x": (64, 3, 16, 16)}, ip))
    form = ModelOptions("nhwc")  # the sums of the InnerProduct are taken in another order
    model = run_onnx_passes(to_onnx(loaded, choose_outputs(loaded.graph, None)).materialize(), form)
    found = verify(loaded, model, form, engine="self")
    assert found.ok
    assert {blob.blob: blob.verdict for blob in found.blobs} == {"ip": "ok", "p": "ok: steep"}
    assert not verify(loaded, altered(model, "ip/weight"), form, engine="self").ok


def test_detections_may_come_in_another_order_and_no_others(tmp_path: Path) -> None:
    layer = (
        'layer { name: "d" type: "DetectionOutput" bottom: "loc" bottom: "conf" bottom: "prior" top: "d" '
        "detection_output_param { num_classes: 4 nms_param { nms_threshold: 1 } } }"
    )
    loaded = load(write_net(tmp_path, {"loc": (1, 12), "conf": (1, 12), "prior": (1, 2, 12)}, layer))
    model = to_onnx(loaded, choose_outputs(loaded.graph, None)).materialize()
    last = model.graph.node[-1]
    last.output[0] = "as_caffe"
    constants = {"last": [-1], "first": [-(2**31)], "axis": [2], "step": [-1]}
    model.graph.initializer.extend(helper.make_tensor(name, TensorProto.INT64, [1], v) for name, v in constants.items())
    model.graph.node.append(helper.make_node("Slice", ["as_caffe", *constants], ["d"]))
    (check,) = verify(loaded, model, engine="self").blobs
    assert (check.verdict, check.shape[2]) == ("ok: other order", 9)
    next(t for t in model.graph.initializer if t.name == "step").CopyFrom(
        helper.make_tensor("step", TensorProto.INT64, [1], [-2])
    )
    assert not verify(loaded, model, engine="self").ok


# -- other engines ------------------------------------------------------------------------------------------------------

PYCAFFE = '''
"""Stands for Caffe's own module: pycaffe's interface, over numbers that were made beforehand."""
import numpy as np
_caffe, TRAIN, TEST = object(), 0, 1
set_mode_cpu = lambda: None
class Blob:
    def __init__(self): self.data = np.zeros(1, "f4")
    def reshape(self, *shape): self.data = np.zeros(shape, "f4")
class Net:
    def __init__(self, net, phase):
        assert phase == TEST and "prototxt" in net
        self.blobs = {"x": Blob(), "t": Blob()}
    def copy_from(self, path): pass
    def reshape(self): pass
    def forward(self):
        self.blobs["t"].data = FUNCTION(self.blobs["x"].data)
'''


def fake_caffe(folder: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    (folder / "lib").mkdir()
    (folder / "lib" / "caffe.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(folder / "lib"))  # for the child
    monkeypatch.syspath_prepend(str(folder / "lib"))
    monkeypatch.delitem(sys.modules, "caffe", raising=False)


def tanh_net(folder: Path) -> tuple[Loaded, ModelProto]:
    loaded = load(write_net(folder, {"x": (2, 3)}, 'layer { name: "t" type: "TanH" bottom: "x" top: "t" }'))
    return loaded, to_onnx(loaded, choose_outputs(loaded.graph, None)).materialize()


def test_caffe_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_caffe(tmp_path, monkeypatch, PYCAFFE.replace("FUNCTION", "np.tanh"))
    found = verify(*tanh_net(tmp_path))
    assert (found.engine.name, found.ok, found.unfit) == ("caffe", True, ())


def test_a_wrong_lowering_is_found_by_caffe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_caffe(tmp_path, monkeypatch, PYCAFFE.replace("FUNCTION", "np.tanh"))
    monkeypatch.setattr(TanH, "lower", lambda self, node, onnx: onnx.emit("Sigmoid", node.bottoms, node.tops))
    found = verify(*tanh_net(tmp_path))
    assert found.first_wrong is not None
    assert found.first_wrong.blob == "t"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (
            "import os\nos.write(2, b'F1122 net.cpp:1] Check failed: a == b (1 vs. 2)\\n*** stack')\nos.abort()",
            "Check failed: a == b",
        ),
        ("_caffe = 0\n", "has no attribute 'set_mode_cpu'"),
        ("x = 1\n", "is not the pycaffe that comes with Caffe"),
        ("import os\nos.abort()", "ended with status -6"),
    ],
)
def test_a_caffe_that_fails_is_told_and_another_engine_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, why: str
) -> None:
    fake_caffe(tmp_path, monkeypatch, source)
    found = verify(*tanh_net(tmp_path))
    assert found.engine.name != "caffe"
    assert found.ok
    assert why in dict(found.unfit)["Caffe (pycaffe)"]


def test_what_lies_in_the_current_folder_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_caffe(tmp_path, monkeypatch, PYCAFFE.replace("FUNCTION", "np.tanh"))
    (tmp_path / "numpy.py").write_text("raise SystemExit('run')")
    monkeypatch.chdir(tmp_path)
    assert verify(*tanh_net(tmp_path), engine="caffe").ok


def test_an_engine_that_is_asked_for_and_missing() -> None:
    cv2 = pytest.importorskip("cv2")
    if hasattr(cv2.dnn, "readNetFromCaffe"):
        pytest.skip("this OpenCV has an importer for Caffe")
    with pytest.raises(caffeconv.CaffeconvError, match="has no importer for Caffe any more"):
        verify(*digits(), engine="opencv")


@pytest.mark.parametrize("name", ["nets/lenet", "nets/vgg", "nets/mobilenet", "nets/squeezenet"])
def test_opencv(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cv2 = pytest.importorskip("cv2")
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        pytest.skip("OpenCV 5 has no importer for Caffe")
    case = next(case for case in NETS if case.name == name)
    monkeypatch.chdir(case.folder)
    loaded, state = of_case(case)
    model = to_onnx(loaded, choose_outputs(loaded.graph, None)).materialize()
    found = verify(loaded, model, options=state, engine="opencv")
    assert found.ok
    wrong = next(
        t.name for t in model.graph.initializer if t.name.endswith("/weight") and t.data_type == TensorProto.FLOAT
    )
    assert not verify(loaded, altered(model, wrong), options=state, engine="opencv").ok
