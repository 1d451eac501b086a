"""ReverseTime, ContinuationIndicator, Reverse and Transpose: what they make, and what they refuse."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from support.golden_cases import forward
from support.small_nets import Array, write_net

import caffeconv

F = np.float32


def top(folder: Path, layer: str, inputs: Mapping[str, Array]) -> Array:
    bottoms = "".join(f' bottom: "{name}"' for name in inputs)
    text = f'layer {{ name: "l" top: "y"{bottoms} {layer} }}'
    net = caffeconv.Net(write_net(folder, {name: values.shape for name, values in inputs.items()}, text))
    return forward(net, dict(inputs))["y"]


X: Array = np.arange(24, dtype=F).reshape(4, 2, 3)


@pytest.mark.parametrize("copies", [False, True])
def test_reverse_time(tmp_path: Path, copies: bool) -> None:
    lengths = np.array([3, 1], F)
    got = top(
        tmp_path, f'type: "ReverseTime" reverse_time_param {{ copy_remaining: {str(copies).lower()} }}',
        {"x": X, "lengths": lengths},
    )  # fmt: skip
    want = X.copy() if copies else np.zeros_like(X)
    want[:3, 0], want[:1, 1] = X[2::-1, 0], X[:1, 1]
    np.testing.assert_array_equal(got, want)


def test_reverse_along_two_axes(tmp_path: Path) -> None:
    np.testing.assert_array_equal(
        top(tmp_path, 'type: "Reverse" reverse_param { axis: 0 axis: -1 }', {"x": X}), X[::-1, :, ::-1]
    )


def test_reverse_turns_the_first_axis_where_none_is_named(tmp_path: Path) -> None:
    np.testing.assert_array_equal(top(tmp_path, 'type: "Reverse"', {"x": X}), X[::-1])


def test_continuation_indicator_follows_a_batch_of_any_size(tmp_path: Path) -> None:
    text = """layer { name: "l" type: "ContinuationIndicator" bottom: "x" top: "y"
        continuation_indicator_param { time_step: 3 } }
"""
    model = caffeconv.convert(write_net(tmp_path, {"x": (2, 5)}, text))
    (output,) = model.graph.output
    assert [dim.dim_param or dim.dim_value for dim in output.type.tensor_type.shape.dim] == [3, "batch"]


@pytest.mark.parametrize(
    ("layer", "bottoms", "message"),
    [
        ('type: "Transpose" transpose_param { dim: 0 dim: 0 dim: 1 }', 1, "every axis of the bottom was needed"),
        ('type: "Transpose" transpose_param { dim: 1 dim: 0 }', 1, "2 axes were needed"),
        ('type: "Reverse" reverse_param { axis: 0 axis: -3 }', 1, "names one twice"),
        ('type: "Reverse" reverse_param { axis: 3 }', 1, "3"),
        ('type: "ReverseTime"', 2, "2 lengths were needed"),
        ('type: "ContinuationIndicator"', 0, "the number of steps was needed"),
        ('type: "ContinuationIndicator" continuation_indicator_param { time_step: 2 }', 0, "number of sequences was needed"),
        (
            'type: "ContinuationIndicator" continuation_indicator_param { time_step: 2 batch_size: 1 }', 1,
            "one of them was needed",
        ),
        ('type: "ContinuationIndicator" continuation_indicator_param { time_step: 2 batch_size: 1 axis: 0 }', 0, "axis"),
    ],
)  # fmt: skip
def test_refused(tmp_path: Path, layer: str, bottoms: int, message: str) -> None:
    inputs = {"x": (4, 2, 3), "lengths": (3,)}
    names = "".join(f' bottom: "{name}"' for name in list(inputs)[:bottoms])
    with pytest.raises(caffeconv.CaffeconvError) as refusal:
        caffeconv.Net(write_net(tmp_path, inputs, f'layer {{ name: "l" top: "y"{names} {layer} }}'))
    assert message in str(refusal.value)
