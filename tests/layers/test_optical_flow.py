"""FlowNet2's layers beside their rules, written out place by place."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from support.small_nets import Array, run_model, write_net

import caffeconv


def run(folder: Path, layer: str, **bottoms: Array) -> Array:
    """What a layer makes of bottoms, in a model for any batch."""
    names = "".join(f' bottom: "{name}"' for name in bottoms)
    text = f'layer {{ name: "l" top: "y"{names} {layer} }}'
    net = write_net(folder, {name: (1, *values.shape[1:]) for name, values in bottoms.items()}, text)
    return run_model(caffeconv.convert(net), bottoms)["y"]


def values(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("kernel", "displacement", "stride", "step", "pad"),
    [(1, 2, 1, 1, 2), (3, 2, 1, 2, 3), (1, 3, 2, 2, 1), (3, 1, 2, 1, 0)],
)
@pytest.mark.parametrize("subtracts", [False, True])
def test_correlation(
    kernel: int,
    displacement: int,
    stride: int,
    step: int,
    pad: int,
    subtracts: bool,
    tmp_path: Path,
) -> None:
    a, b = values(2, 3, 9, 10), values(2, 3, 9, 10, seed=1)
    kind = "SUBTRACT" if subtracts else "MULTIPLY"
    y = run(
        tmp_path, f'type: "Correlation" correlation_param {{ kernel_size: {kernel} max_displacement: {displacement} '
        f"stride_1: {stride} stride_2: {step} pad: {pad} correlation_type: {kind} }}", a=a, b=b,
    )  # fmt: skip
    wide = [np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad))).astype(np.float64) for x in (a, b)]
    border = displacement + (kernel - 1) // 2
    rows, columns = (math.ceil((size + 2 * pad - 2 * border) / stride) for size in (9, 10))
    shifts = range(-(displacement // step), displacement // step + 1)
    want = np.zeros((2, len(shifts) ** 2, rows, columns))
    for channel, (dy, dx) in enumerate((dy, dx) for dy in shifts for dx in shifts):
        for i in range(rows):
            for j in range(columns):
                top, left = i * stride + displacement, j * stride + displacement
                first = wide[0][:, :, top : top + kernel, left : left + kernel]
                top, left = top + dy * step, left + dx * step
                second = wide[1][:, :, top : top + kernel, left : left + kernel]
                likeness = np.abs(first - second) if subtracts else first * second
                want[:, channel, i, j] = likeness.mean(axis=(1, 2, 3))
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("fill", "outside"), [("ZERO", 0.0), ("NOT_A_NUMBER", math.nan)])
def test_flow_warp(fill: str, outside: float, tmp_path: Path) -> None:
    x, flow = values(2, 3, 4, 5), 2 * values(2, 2, 4, 5, seed=1)
    flow[0, :, 0, 0] = 3.5, 2.5  # between the last rows; the last column is held
    flow[0, :, 0, 1] = -1, 0  # on the first column
    y = run(tmp_path, f'type: "FlowWarp" flow_warp_param {{ fill_value: {fill} }}', x=x, f=flow)
    want = np.full_like(x, outside)
    for n, i, j in np.ndindex(2, 4, 5):
        u, v = j + flow[n, 0, i, j], i + flow[n, 1, i, j]
        if not (0 <= u < 5 and 0 <= v < 4):
            continue
        left, top = int(u), int(v)
        right, bottom = min(left + 1, 4), min(top + 1, 3)
        a, b = u - left, v - top
        above = (1 - a) * x[n, :, top, left] + a * x[n, :, top, right]
        below = (1 - a) * x[n, :, bottom, left] + a * x[n, :, bottom, right]
        want[n, :, i, j] = (1 - b) * above + b * below
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-5)


def resampled(x: Array, size: tuple[int, int], kind: str, *, antialias: bool) -> Array:
    """The fork's kernel, place by place."""
    height, width = x.shape[2:]
    fx, fy = width / size[1], height / size[0]
    widens = antialias and (fx > 1 or fy > 1)

    def weight(d: float) -> float:
        d = abs(d)
        if kind == "LINEAR":
            return max(0.0, 1 - d)
        return d * d * (1.5 * d - 2.5) + 1 if d <= 1 else d * (d * (-0.5 * d + 2.5) - 4) + 2 if d < 2 else 0.0

    y = np.zeros((*x.shape[:2], *size))
    for i, j in np.ndindex(*size):
        at_x, at_y = j * fx + fy / 2 - 0.5, i * fy + fx / 2 - 0.5
        across = np.array([weight((at_x - k) / (fx if widens else 1)) for k in range(width)])
        down = np.array([weight((at_y - k) / (fy if widens else 1)) for k in range(height)])
        weights = np.outer(down, across)
        if weights.sum():
            y[:, :, i, j] = (x * weights).sum(axis=(2, 3)) / weights.sum()
    return y.astype(np.float32)


@pytest.mark.parametrize("size", [(3, 4), (12, 16), (4, 16), (7, 5)])
@pytest.mark.parametrize("kind", ["LINEAR", "CUBIC"])
@pytest.mark.parametrize("antialias", [False, True])
def test_resample(size: tuple[int, int], kind: str, antialias: bool, tmp_path: Path) -> None:
    x = values(2, 2, 6, 8)
    param = f"height: {size[0]} width: {size[1]} type: {kind} antialias: {str(antialias).lower()}"
    y = run(tmp_path, f'type: "Resample" resample_param {{ {param} }}', x=x)
    np.testing.assert_allclose(y, resampled(x, size, kind, antialias=antialias), rtol=1e-4, atol=1e-4)


def test_resample_to_the_nearest(tmp_path: Path) -> None:
    x = values(1, 2, 4, 6)
    y = run(tmp_path, 'type: "Resample" resample_param { factor: 0.5 type: NEAREST }', x=x)
    np.testing.assert_array_equal(y, x[:, :, 1::2, 1::2])  # at 0.5 and 2.5: C's round goes away from 0


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ('type: "Resample" resample_param { width: 3 height: 3 type: AREA }', "`type: AREA` has no rule in the fork"),
        ('type: "Resample" resample_param { width: 3 }', "width and height: both or none were needed"),
        (
            'type: "Resample" resample_param { width: 3 height: 8 type: NEAREST }',
            "the fork would read outside the bottom",
        ),
        ('type: "Correlation" bottom: "x" correlation_param { kernel_size: 2 max_displacement: 1 }', "an odd number"),
        (
            'type: "Correlation" bottom: "x" correlation_param { kernel_size: 1 max_displacement: 3 }',
            "don't fit in blob",
        ),
        ('type: "FlowWarp" bottom: "x"', "the flow is 1×1×4×4; 1×2×4×4 was needed"),
    ],
)
def test_refused(layer: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(caffeconv.CaffeconvError) as caught:
        run(tmp_path, layer, x=values(1, 1, 4, 4))
    assert message in str(caught.value)
