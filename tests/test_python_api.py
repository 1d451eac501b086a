"""The package as a Python user meets it: names to complete, short reprs, and errors that name the wrong argument."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib.resources import files
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from support.databases import refused
from support.golden_cases import ROOT

import caffeconv
from caffeconv import infogain
from caffeconv.cli import main
from caffeconv.layers.base import Layer

convert: Callable[..., object] = caffeconv.convert
net: Callable[..., object] = caffeconv.Net
inspect: Callable[..., object] = caffeconv.inspect
"""Without their types, so that what mypy would refuse can be tried."""
NET, WEIGHTS = ROOT / "fixtures/digits/deploy.prototxt", ROOT / "fixtures/digits/digits.caffemodel"


def test_public_names() -> None:
    assert {name for name in dir(caffeconv) if not name.startswith("_")} == {
        "CaffeconvError", "CaffeconvWarning", "Diagnostic", "InvalidNetError", "Net", "Preprocess", "Report", "caffe_pb2",
        "convert", "convert_to", "infogain", "inspect", "layers", "make_h", "ops", "pycaffe", "quantize",
        "register_layer",
    }  # fmt: skip
    assert set(caffeconv.__all__) <= set(dir(caffeconv))
    assert (files(caffeconv) / "py.typed").is_file()


SWITCHES = (
    "deploy", "extended", "ignore_unknown_fields", "fully_convolutional", "allow_python", "values", "swap_channels", "half",
    "nhwc", "keep_io", "fold", "preprocess", "rgb", "reduce_range", "legacy", "diffs", "label_maps", "weighted",
)  # fmt: skip
WRONG: dict[str, Sequence[object]] = {
    **dict.fromkeys(SWITCHES, ("yes", 1, [True])),
    **dict.fromkeys(("net", "out", "path", "root", "output_dir", "place"), (3.5, b"x", ["a", 1])),
    **dict.fromkeys(("phase", "layout", "storage", "infogain", "provider", "pictures", "decay", "balance"), ("bogus", 3.5, ())),
    **dict.fromkeys(("level", "seed", "opset", "batch", "threads", "classes", "size"), (1.5, "many", 1 << 80)),
    **dict.fromkeys(("scale", "most_deviation", "sigma", "epsilon"), ("much", float("nan"), [])),
    **dict.fromkeys(("stages", "outputs", "blobs", "names"), (3.5, [1], {"a": 1})),
    **dict.fromkeys(("dialect", "name", "input", "output", "blob", "dataset", "what"), (3.5, [1], {"a": 1})),
    **dict.fromkeys(("array", "matrix", "distances", "positions", "counts", "weights_of_classes"), (None, "a", [[1], [1, 2]])),
    **dict.fromkeys(("mean", "labels", "data", "base"), ("a", [[1], [1, 2]], {"a": 1})),
    "weights": (3.5, [1], {1: 2}), "shapes": ("a", {"data": "x"}, {"data": 3}), "shape": ("a", 3.5, {1: 2}),
    "model": (None, "a", 3), "batches": (None, "a", [1]), "kind": (int, "a", None), "other": (None, "a", 3),
    "call": (None, "a", 3), "start": (3.5, [1], "bogus"), "end": (3.5, [1], "bogus"),
    "ignore_label": (1.5, "many"), "beta": ("much", [1]),
}  # fmt: skip
"""Parameter → values that it does not take."""
SAID_OTHERWISE = {
    "array": "H: ", "matrix": "H: ", "distances": "distances: ", "positions": "positions: ", "counts": "class counts: ",
    "base": "base: ", "data": "data=", "labels": "labels", "start": "no layer '", "end": "no layer '", "weights": "weights",
    "blobs": "blobs=[",
}  # fmt: skip
"""Parameter → how messages name it that are not of the form `name=value`."""
SAID_ELSEWHERE = {("backward", "diffs")}
"""Function and parameter with a test of its own."""
MODEL = caffeconv.convert(NET, WEIGHTS)
DIGITS = caffeconv.Net(NET, WEIGHTS)


PUBLIC: dict[str, tuple[Callable[..., object], dict[str, object]]] = {
    "convert": (convert, {"net": NET}), "convert_to": (caffeconv.convert_to, {"out": "never.onnx", "net": NET}),
    "inspect": (inspect, {"net": NET}), "Net": (net, {"net": NET}), "Preprocess": (caffeconv.Preprocess, {}),
    "quantize": (caffeconv.quantize, {"model": MODEL, "batches": [{"data": np.zeros((1, 1, 28, 28), np.float32)}]}),
    "make_h": (caffeconv.make_h, {"array": np.eye(2), "path": "never.binaryproto"}),
    "register_layer": (caffeconv.register_layer, {"kind": Layer}),
    "forward": (DIGITS.forward, {}), "backward": (DIGITS.backward, {}),
    "reshape_input": (DIGITS.reshape_input, {"blob": "data", "shape": (1, 1, 28, 28)}), "kind": (DIGITS.kind, {}),
    "save": (DIGITS.save, {"path": "never.caffemodel"}), "save_hdf5": (DIGITS.save_hdf5, {"path": "never.h5"}),
    "copy_from": (DIGITS.copy_from, {}), "load_hdf5": (DIGITS.load_hdf5, {}), "share_with": (DIGITS.share_with, {}),
    "set_input_arrays": (DIGITS.set_input_arrays, {"data": np.zeros(1), "labels": np.zeros(1)}),
    "before_forward": (DIGITS.before_forward, {}), "after_forward": (DIGITS.after_forward, {}),
    "class_weights": (infogain.class_weights, {"counts": [1, 2], "balance": "effective-number"}),
    "count_labels": (infogain.count_labels, {"place": "never"}), "identity": (infogain.identity, {}),
    "distances_between": (infogain.distances_between, {}), "read_matrix": (infogain.read_matrix, {}),
    "from_distances": (infogain.from_distances, {"distances": [[0, 1], [1, 0]]}),
    "read_hierarchy": (infogain.read_hierarchy, {"path": "never"}),
    "read_numbers": (infogain.read_numbers, {"path": "never", "what": "weights"}),
    "remarks": (infogain.remarks, {"matrix": np.eye(2, dtype=np.float32)}),
    "smoothed": (infogain.smoothed, {"matrix": np.eye(2), "epsilon": 0.1}),
    "weighted": (infogain.weighted, {"matrix": np.eye(2), "weights": [1, 2]}), "ClassCounts.of": (infogain.ClassCounts.of, {}),
    "with_unit_rows": (infogain.with_unit_rows, {}),
}  # fmt: skip
"""Public function → itself, and arguments that it takes. Its parameters are read from its signature: a new one needs a row of
`WRONG`."""


@pytest.mark.parametrize("function", PUBLIC)
def test_every_wrong_argument_is_named(function: str) -> None:
    """Whatever a parameter is given that it does not take: one error of ours, that says which parameter."""
    call, rest = PUBLIC[function]
    for parameter in signature(call).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD or (function, parameter.name) in SAID_ELSEWHERE:
            continue
        for value in WRONG[parameter.name]:
            with pytest.raises(caffeconv.CaffeconvError) as error:
                call(**{**rest, parameter.name: value})
            named = (f"`{parameter.name}=", SAID_OTHERWISE.get(parameter.name, "\0"))
            assert any(name in str(error.value) for name in named), (parameter.name, value, str(error.value))


def test_reprs_are_short() -> None:
    net, report = caffeconv.Net(NET, WEIGHTS), caffeconv.inspect(NET, WEIGHTS)
    assert repr(net) == "<Net 'digits', TEST: 10 layers, data 1×1×28×28 → prob 1×10>"
    assert repr(net.blobs["ip1"]) == "<blob ip1 1×64>"
    assert repr(net.params["ip2"]) == "[<parameter 10×64>, <parameter 10>]"
    assert repr(net.params).startswith("<parameters conv1: 8×1×5×5, 8; conv2: ")
    assert repr(report) == "<Report of 'digits': ok, 10 layers, 20522 parameters>"


MISFIT = """
name: "<b>net</b>" layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 dim: 28 dim: 28 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "a" convolution_param { num_output: 7 kernel_size: 5 } }
"""


def test_a_net_that_does_not_fit_its_weights(tmp_path: Path) -> None:
    """Problems and suggested fixes are short in print, whole as text, and safe in a notebook's HTML."""
    path = tmp_path / "net.prototxt"
    path.write_text(MISFIT)
    report = caffeconv.inspect(path, WEIGHTS)
    assert str(report.cures[0]) == "conv1 { num_output: 7 → 8 }"
    assert repr(report.cures[0]) == "<Cure: conv1 { num_output: 7 → 8 }>"
    assert repr(report.diagnostics[0]).startswith("<error: conv1 (Convolution), line 3 ")
    assert report.cures[0]._repr_html_() == "<pre>conv1 { num_output: 7 → 8 }</pre>"
    assert report.diagnostics[0]._repr_html_().startswith("<pre><b>error</b>: conv1 (Convolution), line 3 ")
    page = report._repr_html_()
    assert "&lt;b&gt;net&lt;/b&gt;" in page
    assert "<b>net</b>" not in page
    assert "<li><pre>conv1 { num_output: 7 → 8 }</pre></li>" in page
    assert "error: conv1 (Convolution), line 3 " in page


def test_a_report_in_a_notebook() -> None:
    row = "<td style='text-align: left'>conv1</td><td style='text-align: left'>Convolution</td>"
    page = caffeconv.inspect(NET, WEIGHTS)._repr_html_()
    assert row in page
    assert page.count("<tr>") == 11
    assert "1×8×24×24" in page


def test_a_report_as_json() -> None:
    report = caffeconv.inspect(NET, WEIGHTS)
    printed = CliRunner().invoke(main, ["inspect", str(NET), str(WEIGHTS), "--json"]).stdout
    assert report.to_json() + "\n" == printed
    assert json.loads(printed)["verdict"] == "fits"


def test_names_that_a_net_lacks() -> None:
    net = caffeconv.Net(NET, WEIGHTS)
    with refused("^no blob 'pro'; did you mean 'prob'\\? blobs: data, scaled, "):
        net.blobs["pro"]
    with refused("^no layer with parameters 'pool1'; layers with parameters: conv1, "):
        net.params["pool1"]
    assert net.params.get("pool1") is None
    assert net.blobs.get("pro") is None


def test_what_means_the_same() -> None:
    assert caffeconv.inspect(NET, phase="test").ok  # type: ignore[arg-type]
    assert caffeconv.convert(NET, WEIGHTS, outputs="prob").graph.output[0].name == "prob"
    assert len(caffeconv.convert(NET, WEIGHTS, outputs="ip1").graph.output) == 1
    assert "ip1" in caffeconv.Net(NET, WEIGHTS).forward(blobs="ip1")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: convert(NET, phase="foo"), "`phase='foo'`: 'TRAIN' or 'TEST' was needed"),
        (lambda: convert(NET, infogain="foo"), "`infogain='foo'`: 'logits' or 'probabilities' was needed"),
        (lambda: convert(NET, batch="many"), "`batch='many'`: 'dynamic', 'keep' or a number was needed"),
        (lambda: convert(NET, batch=0), "`batch=0`: a whole number, at least 1, was needed"),
        (lambda: convert(NET, half="yes"), "`half='yes'`: True or False was needed"),
        (lambda: caffeconv.Net(3), "`net=3`: a path was needed"),  # type: ignore[arg-type]
        (lambda: caffeconv.Net(NET).blobs["data"].reshape(1, "x"), "sizes as whole numbers were needed"),  # type: ignore[arg-type]
        (lambda: convert(NET, opset="x"), "`opset='x'`: a whole number"),
        (lambda: convert(NET, layout="foo"), "`layout='foo'`: 'nchw' or 'nhwc' was needed"),
        (lambda: convert(NET, shapes={"data": "1,1"}), "sizes as whole numbers were needed"),
        (lambda: convert(NET, seed=-1), "`seed=-1`: a whole number, at least 0, was needed"),
        (lambda: convert(NET, level="a"), "`level='a'`: a whole number"),
        (lambda: convert(NET, outputs=5), "`outputs=5`: a name or a list of names was needed"),
        (lambda: convert(NET, outputs="pro"), "the net has no blob 'pro'. Did you mean prob?"),
        (lambda: convert(NET, weights=5), "`weights=5`: a path was needed"),
        (lambda: convert(5), "`net=5`: a path was needed"),
        (lambda: convert(NET, preprocess="x"), "`preprocess='x'`: True or a caffeconv.Preprocess was needed"),
        (lambda: net(NET).forward(data="a"), "data='a': an array of numbers was needed"),  # type: ignore[attr-defined]
        (lambda: net(NET).forward(np.zeros(2)), "Arrays are given by their blobs' names: forward(data=array)"),  # type: ignore[attr-defined]
        (lambda: net(NET, WEIGHTS, threads=0), "`threads=0`: a whole number, at least 1, was needed"),
        (lambda: net(NET, WEIGHTS, provider=5), "`provider=5`: auto, cpu, openvino, cuda or cuda:N was needed"),
        (lambda: inspect(NET, stages=[1]), "`stages=[1]`: a name or a list of names was needed"),
    ],
)  # fmt: skip
def test_wrong_arguments(call: Callable[[], object], message: str) -> None:
    with pytest.raises(caffeconv.CaffeconvError) as error:
        call()
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("out", "storage", "message"),
    [
        ("x.caffemodel", None, "x.caffemodel: this writes ONNX models; a name that ends in .onnx was needed"),
        ("x.xyz", None, "a name that ends in .onnx was needed"),
        ("model", None, "a name that ends in .onnx was needed"),
        ("x.onnx", "foo", "`storage='foo'`: 'embed', 'external' or 'link' was needed"),
    ],
)
def test_files_that_are_no_models(tmp_path: Path, out: str, storage: str | None, message: str) -> None:
    with pytest.raises(caffeconv.CaffeconvError) as error:
        caffeconv.convert_to(tmp_path / out, NET, WEIGHTS, storage=storage)  # type: ignore[arg-type]
    assert message in str(error.value)
    assert not list(tmp_path.iterdir())
