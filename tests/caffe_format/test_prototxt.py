"""The text reader against protobuf's own, and its messages."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from support.golden_cases import GOLDENS

from caffeconv import CaffeconvError, caffe_pb2
from caffeconv.caffe_format.prototxt import parse_text, read_prototxt

NETS = sorted(path for name in ("layers", "nets", "fork") for path in (GOLDENS / name).glob("*/net.prototxt"))


def parse(text: str) -> caffe_pb2.NetParameter:
    net = caffe_pb2.NetParameter()
    parse_text(text, net, "net.prototxt")
    return net


@pytest.mark.parametrize("path", NETS, ids=lambda p: p.parent.name)
def test_reads_what_protobuf_reads(path: Path) -> None:
    theirs = text_format.Parse(path.read_text(), caffe_pb2.NetParameter())
    assert read_prototxt(path).net == theirs


@given(
    st.text(alphabet=st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=20),
    st.floats(width=32, allow_nan=False),
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
    st.booleans(),
)
def test_round_trip(name: str, number: float, size: int, dims: list[int], flag: bool) -> None:
    net = caffe_pb2.NetParameter(name=name, force_backward=flag)
    layer = net.layer.add(name=name, type="Power")
    layer.power_param.shift = number
    layer.convolution_param.num_output = size
    net.input_shape.add().dim.extend(dims)
    assert parse(text_format.MessageToString(net)) == net
    assert parse(text_format.MessageToString(net, as_one_line=True, use_short_repeated_primitives=True)) == net


def test_every_spelling() -> None:
    net = parse(
        """# a comment
        name: 'it''s' "\\x41\\102\\n"; layer < name: "a" power_param: { shift: -1.5e1f scale: inf } >,
        layer { name: "b" type: "Pooling" pooling_param { pool: 1 global_pooling: t kernel_size: 0x10 pad: 010 } }
        input_dim: [1, 2,3]
        """
    )
    assert net.name == "itsAB\n"
    assert net.layer[0].power_param.shift == -15
    assert math.isinf(net.layer[0].power_param.scale)
    pool = net.layer[1].pooling_param
    assert (pool.pool, pool.global_pooling, *pool.kernel_size, *pool.pad) == (pool.AVE, True, 16, 8)
    assert list(net.input_dim) == [1, 2, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('layer { name: "a"', "net.prototxt:1:18: expected a field name or `}`, found the end of the file"),
        ("layer { name: 3 }", 'expected a string in quotes ("…"), found `3`'),
        ("layer { name: x }", 'expected a string in quotes ("…"), found `x`'),
        ('name: "a" name: "b"', 'Non-repeated field "name" is specified multiple times'),
        (
            "layer { pooling_param { pool: MAXX } }",
            "pool: expected MAX, AVE, STOCHASTIC, AVE_EXC_PAD, AVE_TF (did you mean MAX?), found `MAXX`",
        ),
        ("layer { pooling_param { pad: -1 } }", "pad: expected an integer in 0…4294967295"),
        ("layer { pooling_param { pad: 1.5 } }", "pad: expected an integer, found `1.5`"),
        ("layer { pooling_param { pad: 5000000000 } }", "pad: expected an integer in 0…4294967295"),
        ("layer { power_param { shift: two } }", "shift: expected a number, found `two`"),
        ("force_backward: yes", "force_backward: expected true or false, found `yes`"),
        ("layer: 3", "expected `{`, found `3`"),
        ("name = 3", "this is not text format"),
        ("}", "expected a field name, found `}`"),
        ('name: "a\nb"', "this is not text format"),
        ("bogus { " * 100, "messages nested more than 64 deep"),
        ("layer { clip_param { min: 1 } }", "required fields are missing: layer[0].clip_param.max"),
    ],
)
def test_faults(text: str, message: str) -> None:
    with pytest.raises(CaffeconvError) as caught:
        parse(text)
    assert message in str(caught.value)


def test_unknown_fields_are_listed_together(tmp_path: Path) -> None:
    net = tmp_path / "net.prototxt"
    net.write_text(
        'name: "n"\nlayer {\n  convolution_param {\n    kernel: 3\n    my_param { a: [1, 2] b < c: "x" "y" > }\n  }\n'
        '  name: "conv"\n  type: "Convolution"\n}\nbogus: -1\n'
    )
    with pytest.raises(CaffeconvError) as caught:
        read_prototxt(net)
    lines = str(caught.value).splitlines()
    assert lines[1].strip().startswith("line 4: layer 'conv': ConvolutionParameter has no field named `kernel`")
    assert "kernel" in lines[1].split("did you mean")[1]
    assert lines[2].strip().startswith("line 5: layer 'conv': ConvolutionParameter has no field named `my_param`")
    assert lines[3].strip().startswith("line 10: NetParameter has no field named `bogus`")
    assert "`ignore_unknown_fields=True`" in lines[4]
    source = read_prototxt(net, ignore_unknown_fields=True)
    assert [unknown.field for unknown in source.dropped] == ["kernel", "my_param", "bogus"]
    assert source.net.layer[0].name == "conv"
    assert source.lines == (2,)


def test_binary_is_no_prototxt(tmp_path: Path) -> None:
    model = tmp_path / "net.prototxt"
    model.write_bytes(
        caffe_pb2.NetParameter(name="x" * 9, layer=[caffe_pb2.LayerParameter(name="a\0")]).SerializeToString()
    )
    with pytest.raises(CaffeconvError, match="looks like a caffemodel: give the prototxt first"):
        read_prototxt(model)


def test_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "deploy.prototxt").write_text("")
    with pytest.raises(CaffeconvError, match=r"no such file.*Did you mean .*deploy\.prototxt"):
        read_prototxt(tmp_path / "deplyo.prototxt")


@given(st.text(max_size=200))
def test_anything_is_read_or_refused(text: str) -> None:
    try:
        parse(text)
    except CaffeconvError as error:
        assert str(error).startswith("net.prototxt")  # noqa: PT017 - most inputs raise nothing
