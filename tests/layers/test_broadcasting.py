"""Arithmetic that broadcasts as numpy does, the scales of ChannelScale, and what the layers refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.small_nets import Array, run_model, write_net

import caffeconv

Shape = tuple[int, ...]


def run(folder: Path, layer: str, **inputs: Array) -> Array:
    bottoms = "".join(f' bottom: "{name}"' for name in inputs)
    shapes = {name: values.shape for name, values in inputs.items()}
    path = write_net(folder, shapes, f'layer {{ name: "l" top: "y" {layer}{bottoms} }}\n')
    return run_model(caffeconv.convert(path, batch="keep"), inputs)["y"]


def normal(*shape: int) -> Array:
    return np.random.default_rng(len(shape)).normal(0, 1, shape).astype(np.float32)


@pytest.mark.parametrize(
    ("first", "second"), [((2, 1, 4), (3, 1)), ((4,), (2, 3, 1)), ((2, 3), (2, 3)), ((2, 3, 4, 5), (1,))]
)
def test_add_sub_mul_div_broadcast(tmp_path: Path, first: Shape, second: Shape) -> None:
    a, b = normal(*first), normal(*second)
    for kind, want in {"Add": a + b, "Sub": a - b, "Mul": a * b, "Div": a / b}.items():
        got = run(tmp_path, f'type: "{kind}"', a=a, b=b)
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_global_scale_is_held_to_its_range(tmp_path: Path) -> None:
    x, unused = normal(2, 3, 2, 2), normal(2, 1, 2, 2)
    said = 'type: "ChannelScale" channel_scale_param { global_scale: true min_global_scale: 1.5 }'
    np.testing.assert_allclose(run(tmp_path, said, x=x, s=unused), 1.5 * x, rtol=1e-6)
    said = 'type: "ChannelScale" channel_scale_param { do_forward: false }'
    np.testing.assert_array_equal(run(tmp_path, said, x=x, s=unused), x)


@pytest.mark.parametrize(
    ("layer", "shapes", "complaint"),
    [
        ('type: "Add"', [(2, 3), (2, 4)], "aligned at the last axis"),
        ('type: "Mul" mul_param { mul_shape: 3 }', [(2, 3), (2, 3)], "a second bottom and mul_shape"),
        ('type: "ChannelScale"', [(2, 3, 2), (2, 3)], "a factor for each place"),
        ('type: "Pairwise"', [(2, 3), (2, 4)], "M×K and N×K were needed"),
        ('type: "Pairwise" pairwise_param { operation: PROD coeff: 1 coeff: 2 }', [(2, 3), (2, 3)], "for summation"),
    ],
)
def test_refusals(tmp_path: Path, layer: str, shapes: list[Shape], complaint: str) -> None:
    inputs = {f"x{i}": normal(*shape) for i, shape in enumerate(shapes)}
    with pytest.raises(caffeconv.CaffeconvError, match=complaint):
        run(tmp_path, layer, **inputs)


@pytest.mark.parametrize("fields", ["", "do_forward: false", "global_scale: true"])
@pytest.mark.parametrize("copied", [False, True])
def test_gradient_of_channel_scale_is_that_of_the_product(tmp_path: Path, fields: str, copied: bool) -> None:
    x, factors, diff = normal(2, 3, 2, 2), normal(2, 1, 2, 2), normal(2, 3, 2, 2)
    fields += f" do_backward_feature: {str(not copied).lower()} do_backward_scale: {str(not copied).lower()}"
    text = 'layer { name: "l" type: "ChannelScale" bottom: "x" bottom: "s" top: "y" '
    text += f"channel_scale_param {{ {fields} }} }}"
    net = caffeconv.Net(write_net(tmp_path, {"x": x.shape, "s": factors.shape}, text, "force_backward: true\n"))
    net.forward(x=x, s=factors)
    diffs = net.backward(y=diff)
    np.testing.assert_allclose(diffs["x"], diff if copied else diff * factors, rtol=1e-6)
    np.testing.assert_allclose(diffs["s"], 0 if copied else (diff * x).sum(1, keepdims=True), rtol=1e-5, atol=1e-6)
