"""NetSpec: the prototxt that pycaffe writes for the same lines, and what it says to mistakes."""

# ruff: noqa: C408 - dict(…), as scripts have it
from __future__ import annotations

import copy

import numpy as np
import pytest
from google.protobuf import text_format
from google.protobuf.message import Message
from support.golden_cases import Case, cases

import caffeconv.pycaffe as caffe
from caffeconv.caffe_format.prototxt_writer import net_to_text
from caffeconv.caffe_pb2 import NetParameter
from caffeconv.pycaffe import layers as L  # noqa: N812 - as scripts do
from caffeconv.pycaffe import params as P  # noqa: N812
from caffeconv.pycaffe.net_spec import Function, Top, assign_proto, param_name_dict


def top(made: object) -> Top:
    assert isinstance(made, Top)
    return made


LENET = """
layer { name: "data" type: "Data" top: "data" top: "label" transform_param { scale: 0.003921569 }
  data_param { source: "mnist_lmdb" batch_size: 64 backend: LMDB } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 20 kernel_size: 5 weight_filler { type: "xavier" } } }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "relu1" type: "ReLU" bottom: "pool1" top: "pool1" }
layer { name: "classes" type: "InnerProduct" bottom: "pool1" top: "score" param { lr_mult: 1 } param { lr_mult: 2 }
  inner_product_param { num_output: 10 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" loss_weight: 2
  include { phase: TRAIN } }
"""


def test_the_lenet_of_the_tutorial() -> None:
    n = caffe.NetSpec()
    n.data, n.label = L.Data(  # type: ignore[misc]
        batch_size=64, backend=P.Data.LMDB, source="mnist_lmdb", transform_param=dict(scale=1.0 / 255), ntop=2
    )
    n.conv1 = L.Convolution(n.data, kernel_size=5, num_output=20, weight_filler=dict(type="xavier"))
    n.pool1 = L.Pooling(n.conv1, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    n.relu1 = L.ReLU(n.pool1, in_place=True)
    n.score = L.InnerProduct(n.relu1, num_output=10, param=[dict(lr_mult=1), dict(lr_mult=2)], name="classes")
    n.loss = L.SoftmaxWithLoss(n.score, n.label, loss_weight=2, include=dict(phase=caffe.TRAIN))
    assert " ".join(net_to_text(n.to_proto()).split()) == " ".join(LENET.split())


def test_names_that_nobody_gave() -> None:
    x = top(L.DummyData(shape=dict(dim=[1, 2])))
    y = top(L.ReLU(L.ReLU(x)))
    net = y.to_proto()
    assert [(layer.name, *layer.bottom, *layer.top) for layer in net.layer] == [
        ("DummyData1", "DummyData1"),
        ("ReLU1", "DummyData1", "ReLU1"),
        ("ReLU2", "ReLU1", "ReLU2"),
    ]
    assert caffe.to_proto(y, x) == net


def test_a_layer_without_tops() -> None:
    n = caffe.NetSpec()
    n.x = L.DummyData(shape=dict(dim=[1]))
    n.quiet = L.Silence(n.x, ntop=0)
    assert [(layer.name, list(layer.top)) for layer in n.to_proto().layer] == [("x", ["x"]), ("quiet", [])]


def test_fields_of_other_messages_and_lists() -> None:
    deconvolution = top(L.Deconvolution(L.Input(), convolution_param=dict(num_output=1, kernel_size=[3, 5])))
    assert deconvolution.to_proto().layer[1].convolution_param.kernel_size == [3, 5]
    relu = top(L.ReLU(L.Input(shape=[dict(dim=[1, 2]), dict(dim=(3,))]), negative_slope=0.5)).to_proto()
    assert relu.layer[1].relu_param.negative_slope == 0.5
    assert [list(shape.dim) for shape in relu.layer[0].input_param.shape] == [[1, 2], [3]]
    assert param_name_dict()["ReLU"] == "relu"
    proto = NetParameter()
    assign_proto(proto, "input", "data")
    assign_proto(proto, "layer", [dict(name="a", convolution_param=dict(num_output=np.int64(3)))])
    assert list(proto.input) == ["data"]
    assert proto.layer[0].convolution_param.num_output == 3


def test_a_spec_is_a_mapping_too() -> None:
    n = caffe.NetSpec()
    n["a-b"] = L.DummyData(shape=dict(dim=[1]))
    assert (n.keys(), n.vals(), list(n)) == (["a-b"], [n["a-b"]], ["a-b"])
    n.update("a-b", dict(shape=dict(dim=[7])))
    assert n.to_proto().layer[0].dummy_data_param.shape[0].dim == [7]
    n.c = n["a-b"]
    del n["a-b"]
    assert n.keys() == ["c"]
    del n.c
    assert not n.keys()
    copy.copy(n)


@pytest.mark.parametrize(
    ("made", "kind", "words"),
    [
        (lambda: L.ReLU("data"), TypeError, "ReLU input 0 is not a Top .type is <class 'str'>."),
        (lambda: L.ReLU(L.Input(), ntop=-1), TypeError, "ntop is -1"),
        (lambda: top(L.Convolution(num_outputs=3)).to_proto(), Exception,
         "Convolution: convolution_param and the layer itself have no field named 'num_outputs'"),
        (lambda: top(L.Nothing(x=3)).to_proto(), Exception, "Nothing: the layer has no field named 'x'"),
        (lambda: top(L.Convolution(num_output="x")).to_proto(), TypeError, "Convolution: num_output='x': "),
        (lambda: P.Pooling.MEDIAN, AttributeError, "params.Pooling.MEDIAN: Caffe's schema has no such value"),
        (lambda: caffe.NetSpec().nope, AttributeError, "the net has no blob 'nope' yet; it has none"),
        (lambda: setattr(caffe.NetSpec(), "x", L.Data(ntop=2)), TypeError, "x: 2 tops; a name for each was needed"),
    ],
)  # fmt: skip
def test_mistakes(made: object, kind: type[Exception], words: str) -> None:
    assert callable(made)
    with pytest.raises(kind, match=words):
        made()


# -- coord_map ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("nets"), ids=lambda c: c.name)
def test_recorded_nets_said_by_a_spec(case: Case) -> None:
    """A net that a spec says layer by layer is the net itself."""
    want = text_format.Parse((case.folder / case.net).read_text(), NetParameter())
    n, made = caffe.NetSpec(), dict[str, Top]()
    for layer in want.layer:
        fields = said(layer)
        in_place = list(layer.top) == list(layer.bottom)
        params = {key: value for key, value in fields.items() if key not in ("type", "bottom", "top")}
        bottoms = tuple(made[name] for name in layer.bottom)
        function = Function(layer.type, bottoms, {**params, "ntop": len(layer.top), "in_place": in_place})
        for blob, result in zip(layer.top, function.tops, strict=True):
            made[blob] = result
            n[layer.name if in_place else blob] = result
        if not layer.top:
            n[layer.name] = function
    assert list(n.to_proto().layer) == list(want.layer)


def said(message: Message) -> dict[str, object]:
    """A message as the dict that stands for it in a spec."""
    found: dict[str, object] = {}
    for field, value in message.ListFields():
        if isinstance(value, Message):
            found[field.name] = said(value)
        elif isinstance(value, (str, bytes, int, float)):
            found[field.name] = value
        else:
            found[field.name] = [said(one) if isinstance(one, Message) else one for one in value]
    return found
