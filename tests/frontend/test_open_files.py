"""The net that a caffemodel carries: forks that reuse field numbers, and names that are no text."""

from __future__ import annotations

from pathlib import Path

import pytest

import caffeconv
from caffeconv import CaffeconvError
from caffeconv.caffe_format.caffemodel import read_binaryproto, read_caffemodel
from caffeconv.caffe_pb2 import LayerParameter, NetParameter, V1LayerParameter
from caffeconv.files.wire import encode_varint


def field(number: int, body: bytes) -> bytes:
    return encode_varint(number << 3 | 2) + encode_varint(len(body)) + body


def layer(name: bytes = b"n", *fields: bytes, number: int = 100) -> bytes:
    return field(number, field(1 if number == 100 else 4, name) + b"".join(fields))


def net_of(tmp_path: Path, content: bytes) -> NetParameter:
    path = tmp_path / "fork.caffemodel"
    path.write_bytes(content)
    return read_caffemodel(path).net()


CONVOLUTION = field(106, b"\x08\x04")
NO_MESSAGE = b"\x0f\xff"


def test_field_that_a_fork_uses_otherwise_is_left_out(tmp_path: Path) -> None:
    """150 is upsample_param in our schema; bytes that are no message break the layer, not the file."""
    other = layer(b"m", field(150, b"\x08\x02"))
    net = net_of(tmp_path, layer(b"n", CONVOLUTION, field(150, NO_MESSAGE), field(8, b"")) + other)
    assert net.layer[0] == LayerParameter(name="n", convolution_param={"num_output": 4}, include=[{}])
    assert net.layer[1].HasField("upsample_param")


def test_other_fields_of_forks_go_with_it(tmp_path: Path) -> None:
    """Where one number means something else, the others of that fork do as well."""
    net = net_of(tmp_path, layer(b"n", field(150, NO_MESSAGE), field(152, b"")))
    assert net.layer[0] == LayerParameter(name="n")


def test_bvlc_number_that_a_fork_uses_otherwise(tmp_path: Path) -> None:
    net = net_of(tmp_path, layer(b"n", CONVOLUTION, field(143, NO_MESSAGE)))
    assert net.layer[0] == LayerParameter(name="n", convolution_param={"num_output": 4})


def test_v1_layer(tmp_path: Path) -> None:
    names = field(1001, b"w")
    net = net_of(tmp_path, layer(b"n", names, field(1001, b"b"), field(10, b"\x08\x04"), number=2))
    assert net.layers[0] == V1LayerParameter(name="n", param=["w", "b"], convolution_param={"num_output": 4})


@pytest.mark.parametrize("number", [100, 2])
def test_layer_that_is_damaged(tmp_path: Path, number: int) -> None:
    include = field(8 if number == 100 else 32, NO_MESSAGE)
    with pytest.raises(CaffeconvError, match=r"fork\.caffemodel: the definition of layer 'n' inside does not parse"):
        net_of(tmp_path, layer(b"n", include, number=number))


def test_net_that_is_damaged(tmp_path: Path) -> None:
    with pytest.raises(CaffeconvError, match=r"fork\.caffemodel: the net definition inside does not parse"):
        net_of(tmp_path, layer() + field(6, NO_MESSAGE))


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    net = net_of(tmp_path, layer(b"\xe9t\xe9", field(3, b"\xe9"), field(4, b"ok"), field(6, field(1, b"\xff"))))
    assert net.layer[0] == LayerParameter(name="�t�", bottom=["�"], top=["ok"], param=[{"name": "�"}])


# -- single blobs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"1 0\n0 1\n", "this is text; a blob in binary form"),
        (b"\x08\x01\x10\x02", "0 numbers in it; a blob was needed"),
        (layer(), "0 numbers in it; a blob was needed"),
        (b"\x2a\x08" + bytes(8) + b"\x3a\x03\x0a\x01\x03", "2 numbers in it; 3 = 3 were needed"),
        (b"\x2a\x24" + bytes(20), "a field of 36 bytes where 20 are left at byte 0 of 22; a complete binaryproto"),
        (b"\x2a\x03" + bytes(3), "blob data that is no list of numbers"),
    ],
)
def test_hostile_binaryproto(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "H.binaryproto"
    path.write_bytes(content)
    with pytest.raises(CaffeconvError) as caught:
        read_binaryproto(path)
    assert f"{path}: " in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(("name", "message"), [("nowhere", "no such file"), (".", "this is a folder")])
def test_no_file(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(CaffeconvError, match=f"{message}; a blob \\(binaryproto\\) was needed"):
        read_binaryproto(tmp_path / name)


def test_unknown_types_are_told_beside_unknown_fields(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(
        'layer { name: "d" type: "SomeData" top: "x" }\n'
        'layer { name: "a" type: "Power" bottom: "x" top: "a" power_param { foo: 1 } }\n'
        'layer { name: "b" type: "Strange" bottom: "a" top: "b" }\n'
        'layer { name: "c" type: "Strange" bottom: "b" top: "c" }\n'
        'layer { name: "l" type: "MyLoss" bottom: "c" top: "l" }\n'
    )
    said = "Layer types that are not known either: "
    with pytest.raises(CaffeconvError) as error:
        caffeconv.convert(path)
    lines = "SomeData (line 1), Strange (line 3, the first of 2 layers), MyLoss (line 5)."
    assert str(error.value).endswith(said + lines)
    with pytest.raises(CaffeconvError) as error:
        caffeconv.Net(path, deploy=True)
    assert str(error.value).endswith(said + "Strange (line 3, the first of 2 layers).")


SOLVERS_FIELD = "param { lr_mult: 1 breadth_decay_mult: 2 }"
OF_DATA = 'layer { name: "d" type: "Data" top: "x" top: "t" data_param { batch_size: 1 shuffle_first: 3 } }\n'
OF_LOSS = 'layer { name: "l" type: "SoftmaxWithLoss" bottom: "y" bottom: "t" loss_param { temper: 2 } }\n'


def product(said: str = "") -> str:
    return f'layer {{ name: "ip" type: "InnerProduct" bottom: "x" top: "y" {said} inner_product_param {{ num_output: 2 }} }}\n'


@pytest.mark.parametrize(
    ("text", "deploy", "dropped"),
    [
        (product(SOLVERS_FIELD), False, "breadth_decay_mult"), (OF_DATA + product() + OF_LOSS, True, "shuffle_first, temper"),
    ],
)  # fmt: skip
def test_unknown_fields_that_change_no_result(tmp_path: Path, text: str, deploy: bool, dropped: str) -> None:
    """Those that only a solver reads, and those of layers that a deploy net has not, are told and left out."""
    net = tmp_path / "net.prototxt"
    net.write_text(text if deploy else 'input: "x" input_shape { dim: 1 dim: 3 }\n' + text)
    shapes = {"x": (1, 3)} if deploy else None
    report = caffeconv.inspect(net, deploy=deploy, shapes=shapes)
    told = [d.message for d in report.diagnostics if d.severity == "warning" and "dropped" in d.message]
    assert (report.ok, len(told)) == (True, len(dropped.split(", ")))
    assert all(any(name in words for words in told) for name in dropped.split(", "))
    caffeconv.convert(net, deploy=deploy, shapes=shapes)
    with pytest.raises(CaffeconvError, match=dropped.split(", ")[0]):
        caffeconv.convert(net, shapes=shapes, phase="TRAIN")
