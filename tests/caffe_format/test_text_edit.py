"""Edits in the user's own text: what does not change stays, letter for letter, and what is read again is the edited net."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caffeconv.caffe_format.prototxt import parse_text
from caffeconv.caffe_format.text_edit import LayerEdit, edited_text
from caffeconv.caffe_pb2 import LayerParameter, NetParameter

TEXT = """# my net
layer {
  name: 'c'   # the first
  type: "Convolution" bottom: "x" top: "c"
  convolution_param {
    num_output: 8 kernel_size: 3, kernel_size: 5
    # pad: 1
    stride: [1, 2]
  }
}
layer { name: "r" type: "ReLU" bottom: "c" top: "c" }  # in place
"""


def parse(text: str) -> NetParameter:
    net = NetParameter()
    parse_text(text, net, "text")
    return net


def after(edit: Callable[[LayerParameter], object], index: int = 0) -> str:
    """TEXT with one layer edited, which is checked to read as that."""
    net = parse(TEXT)
    layer = LayerParameter()
    layer.CopyFrom(net.layer[index])
    edit(layer)
    text = edited_text(TEXT, [LayerEdit(net.layer[index], (layer,))])
    assert text is not None
    assert parse(text).layer[index] == layer
    return text


@pytest.mark.parametrize(
    ("edit", "old", "new"),
    [
        (lambda layer: setattr(layer.convolution_param, "num_output", 16), "num_output: 8", "num_output: 16"),
        (lambda layer: setattr(layer, "name", "d"), "'c'", '"d"'),
        (lambda layer: layer.convolution_param.ClearField("num_output"), "num_output: 8 ", ""),
        (lambda layer: setattr(layer.convolution_param, "bias_term", False), "stride: [1, 2]\n",
         "stride: [1, 2]\n    bias_term: false\n"),
        (lambda layer: layer.convolution_param.pad.append(1), "stride: [1, 2]\n", "stride: [1, 2]\n    pad: 1\n"),
        (lambda layer: layer.convolution_param.stride.__setitem__(0, 3),
         "[1, 2]", "[3, 2]"),
        (lambda layer: layer.convolution_param.kernel_size.__delitem__(1), ", kernel_size: 5", ", "),
        (lambda layer: layer.convolution_param.kernel_size.append(7), "kernel_size: 5", "kernel_size: 5 kernel_size: 7"),
        (lambda layer: layer.scale_param.SetInParent(), "  }\n}", "  }\n  scale_param {  }\n}"),
    ],
    ids=["value", "name", "away", "more", "repeated", "in brackets", "one less", "one more", "block"],
)  # fmt: skip
def test_only_what_changes_changes(edit: Callable[[LayerParameter], object], old: str, new: str) -> None:
    text = after(edit)
    assert text == TEXT.replace(old, new)


def test_a_field_in_a_block_on_one_line() -> None:
    text = after(lambda layer: setattr(layer.relu_param, "negative_slope", 0.5), 1)
    assert 'top: "c" relu_param { negative_slope: 0.5 } }  # in place\n' in text


def test_layers_more_and_fewer() -> None:
    net = parse(TEXT)
    more = LayerParameter(name="s", type="Scale", bottom=["c"], top=["c"])
    text = edited_text(TEXT, [LayerEdit(net.layer[0], (net.layer[0], more)), LayerEdit(net.layer[1], ())])
    assert text is not None
    assert [layer.name for layer in parse(text).layer] == ["c", "s"]
    assert text.startswith(TEXT[: TEXT.index("layer { name")].rstrip())


@pytest.mark.parametrize(
    "text",
    ['input: "x" input_dim: 1 input_dim: 3 # RGB\ninput_dim: 8\n', 'input: "x" input_shape { dim: 1 dim: 3 dim: 8 }\n'],
)
def test_shapes_of_inputs_without_a_layer(text: str) -> None:
    before = LayerParameter(name="input", type="Input", top=["x"])
    before.input_param.shape.add().dim.extend((1, 3, 8))
    layer = LayerParameter()
    layer.CopyFrom(before)
    layer.input_param.shape[0].dim[2] = 9
    assert edited_text(text, [LayerEdit(before, (layer,))]) == text.replace("8", "9")


def test_what_is_not_foreseen_is_left_to_the_writer() -> None:
    net = parse(TEXT)
    twice = TEXT + TEXT
    assert edited_text(twice, [LayerEdit(net.layer[0], (LayerParameter(name="c"),))]) is None
    assert edited_text("layer { name: ", [LayerEdit(net.layer[0], ())]) is None


@given(st.lists(st.integers(0, 9), min_size=1, max_size=4), st.lists(st.integers(0, 9), min_size=1, max_size=4))
def test_repeated_values_read_back(old: list[int], new: list[int]) -> None:
    for spelling in (" ".join(f"dim: {dim}" for dim in old), f"dim: {old}"):
        text = f'layer {{ name: "r" reshape_param {{ shape {{ {spelling} }} }} }} # end\n'
        net = parse(text)
        layer = LayerParameter()
        layer.CopyFrom(net.layer[0])
        layer.reshape_param.shape.dim[:] = new
        changed = edited_text(text, [LayerEdit(net.layer[0], (layer,))])
        assert changed is not None
        assert parse(changed).layer[0] == layer
        assert changed.endswith(" # end\n")
