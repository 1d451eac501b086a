"""Layer types and fields of single forks against slow loops written from the forks' rules."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.small_nets import Array, run_model, run_net, write_net, write_weights

import caffeconv

few = settings(max_examples=20)
F = np.float32
seeds = st.integers(0, 2**32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("forks")


def layer(kind: str, bottoms: Sequence[str], extra: str = "", tops: Sequence[str] = ("y",), name: str = "l") -> str:
    names = "".join(f' bottom: "{b}"' for b in bottoms) + "".join(f' top: "{t}"' for t in tops)
    return f'layer {{ name: "{name}" type: "{kind}"{names} {extra} }}\n'


def normal(seed: int, *shape: int) -> Array:
    drawn: Array = np.random.default_rng(seed).normal(0, 2, shape).astype(F)
    return drawn


def close(got: Array, want: object, rtol: float = 2e-5, atol: float = 2e-5) -> None:
    want = np.asarray(want)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=rtol, atol=atol)


def refusal(folder: Path, layers: str, inputs: Mapping[str, tuple[int, ...]], phase: str = "TEST") -> str:
    with pytest.raises(caffeconv.CaffeconvError) as error:
        caffeconv.convert(write_net(folder, inputs, layers), phase="TRAIN" if phase == "TRAIN" else "TEST")
    assert str(error.value).startswith("l (")
    return str(error.value)


# -- regions -----------------------------------------------------------------------------------------------------------


def c_round(value: float) -> int:
    """Halves away from 0."""
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def regions(rng: np.random.Generator, pictures: int, size: tuple[int, int], scale: float) -> Array:
    """Regions in quarter pixels, some hanging over the edges, outside, or the wrong way round."""
    height, width = size
    rois = rng.uniform(-0.4, 1.4, (5, 5)) * np.array([1, width, height, width, height]) / scale
    rois = np.round(rois * 4) / 4
    rois[:, 0] = rng.integers(0, pictures, 5)
    rows: Array = rois.astype(F)
    return rows


scales = st.sampled_from([1 / 16, 0.25, 1.0, 0.3])


@few
@given(seeds, st.integers(1, 3), st.integers(3, 12), st.integers(3, 12), scales, st.data())
def test_roi_pooling(
    folder: Path, seed: int, pictures: int, height: int, width: int, scale: float, data: st.DataObject
) -> None:
    pooled_h, pooled_w = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 7))
    x = normal(seed, pictures, 2, height, width)
    rois = regions(np.random.default_rng(seed), pictures, (height, width), scale)
    want = np.zeros((5, 2, pooled_h, pooled_w), F)
    for r, (picture, *corners) in enumerate(rois):
        left, top, right, bottom = (c_round(float(F(corner) * F(scale))) for corner in corners)
        bin_h = F(max(bottom - top + 1, 1)) / F(pooled_h)
        bin_w = F(max(right - left + 1, 1)) / F(pooled_w)
        for i, j in itertools.product(range(pooled_h), range(pooled_w)):
            y = [min(max(int(edge) + top, 0), height) for edge in (np.floor(F(i) * bin_h), np.ceil(F(i + 1) * bin_h))]
            z = [min(max(int(edge) + left, 0), width) for edge in (np.floor(F(j) * bin_w), np.ceil(F(j + 1) * bin_w))]
            if y[1] > y[0] and z[1] > z[0]:
                want[r, :, i, j] = x[int(picture), :, y[0] : y[1], z[0] : z[1]].max(axis=(1, 2))
    said = f"roi_pooling_param {{ pooled_h: {pooled_h} pooled_w: {pooled_w} spatial_scale: {scale} }}"
    got = run_net(folder, layer("ROIPooling", ["x", "rois"], said), {"x": x, "rois": rois}, written_batch=1)["y"]
    np.testing.assert_array_equal(got, want)


@few
@given(seeds, st.integers(1, 3), st.integers(3, 12), st.integers(3, 12), scales, st.data())
def test_psroi_pooling(
    folder: Path, seed: int, pictures: int, height: int, width: int, scale: float, data: st.DataObject
) -> None:
    outputs, group = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
    x = normal(seed, pictures, outputs * group**2, height, width)
    rois = regions(np.random.default_rng(seed), pictures, (height, width), scale)
    want = np.zeros((5, outputs, group, group))
    for r, (picture, *corners) in enumerate(rois):
        left, top = (F(c_round(float(corner))) * F(scale) for corner in corners[:2])
        right, bottom = (F(c_round(float(corner)) + 1) * F(scale) for corner in corners[2:])
        bin_h = F(max(F(bottom - top), F(0.1))) / F(group)
        bin_w = F(max(F(right - left), F(0.1))) / F(group)
        for i, j in itertools.product(range(group), range(group)):
            edges = np.floor(F(F(i) * bin_h) + top), np.ceil(F(F(i + 1) * bin_h) + top)
            y = [min(max(int(edge), 0), height) for edge in edges]
            edges = np.floor(F(F(j) * bin_w) + left), np.ceil(F(F(j + 1) * bin_w) + left)
            z = [min(max(int(edge), 0), width) for edge in edges]
            if y[1] > y[0] and z[1] > z[0]:
                for d in range(outputs):
                    window = x[int(picture), (d * group + i) * group + j, y[0] : y[1], z[0] : z[1]]
                    want[r, d, i, j] = window.mean(dtype=np.float64)
    said = f"psroi_pooling_param {{ spatial_scale: {scale} output_dim: {outputs} group_size: {group} }}"
    got = run_net(folder, layer("PSROIPooling", ["x", "rois"], said), {"x": x, "rois": rois}, written_batch=1)["y"]
    close(got, want, rtol=1e-6, atol=1e-6)


def test_rounding_near_a_half_is_c_s(folder: Path) -> None:
    below = np.nextafter(F(0.5), F(0))  # below + 0.5 is 1 in float32, and yet it rounds to 0
    x = np.arange(16, dtype=F).reshape(1, 1, 4, 4)
    said = "psroi_pooling_param { spatial_scale: 1 output_dim: 1 group_size: 1 }"
    rois = np.array([[0, below, 0, below, 0], [0, 0.5, 0, 0.5, 0], [0, 1.5, 0, 1.5, 0], [0, 2.5, 0, 2.5, 0]], F)
    got = run_net(folder, layer("PSROIPooling", ["x", "rois"], said), {"x": x, "rois": rois})["y"]
    np.testing.assert_array_equal(got.ravel(), [0, 1, 2, 3])


def test_regions_may_have_four_axes(folder: Path) -> None:
    x, rois = normal(0, 1, 2, 6, 6), np.array([[0, 0, 0, 3, 3], [0, 1, 1, 5, 5]], F)
    said = "roi_pooling_param { pooled_h: 2 pooled_w: 2 }"
    flat = run_net(folder, layer("ROIPooling", ["x", "rois"], said), {"x": x, "rois": rois})["y"]
    deep = run_net(folder, layer("ROIPooling", ["x", "rois"], said), {"x": x, "rois": rois.reshape(2, 5, 1, 1)})["y"]
    np.testing.assert_array_equal(flat, deep)


# -- resampling --------------------------------------------------------------------------------------------------------


@few
@given(seeds, st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.integers(1, 4))
def test_upsample_with_one_bottom_repeats(folder: Path, seed: int, n: int, h: int, w: int, scale: int) -> None:
    x = normal(seed, n, 2, h, w)
    got = run_net(folder, layer("Upsample", ["x"], f"upsample_param {{ scale: {scale} }}"), {"x": x}, written_batch=2)
    np.testing.assert_array_equal(got["y"], x.repeat(scale, axis=2).repeat(scale, axis=3))


def test_upsample_with_one_bottom_does_nothing_by_default(folder: Path) -> None:
    x = normal(0, 1, 2, 3, 4)
    np.testing.assert_array_equal(run_net(folder, layer("Upsample", ["x"]), {"x": x})["y"], x)


@few
@given(seeds, st.integers(1, 3), st.integers(4, 9), st.integers(4, 9), st.sampled_from([(2, 2), (3, 2), (3, 1)]))
def test_upsample_puts_maxima_back(folder: Path, seed: int, n: int, h: int, w: int, window: tuple[int, int]) -> None:
    kernel, stride = window
    x = normal(seed, n, 2, h, w)
    layers = layer(
        "Pooling", ["x"], f"pooling_param {{ pool: MAX kernel_size: {kernel} stride: {stride} }}", ["p", "mask"], "pool"
    )
    layers += layer("Power", ["p"], "power_param { scale: 0.5 shift: 1 }", ["half"], "half")
    layers += layer("Upsample", ["half", "mask"], f"upsample_param {{ upsample_h: {h} upsample_w: {w} }}")
    got = run_net(folder, layers, {"x": x}, written_batch=2)
    want = np.zeros_like(x)
    for i, c in itertools.product(range(n), range(2)):
        for value, place in zip(got["half"][i, c].ravel(), got["mask"][i, c].ravel(), strict=True):
            want[i, c].flat[int(place)] = value
    np.testing.assert_array_equal(got["y"], want)


@pytest.mark.parametrize(
    ("said", "size"),
    [("scale: 2", (6, 8)), ("scale: 2 pad_out_h: true", (5, 8)), ("scale_h: 2 scale_w: 3 pad_out_h: true", (5, 12)),
     ("scale: 3 upsample_h: 5 upsample_w: 7", (5, 7))],
)  # fmt: skip
def test_sizes_of_unpooling(folder: Path, said: str, size: tuple[int, int]) -> None:
    x, mask = normal(0, 1, 1, 3, 4), np.arange(12, dtype=F).reshape(1, 1, 3, 4)
    got = run_net(folder, layer("Upsample", ["x", "mask"], f"upsample_param {{ {said} }}"), {"x": x, "mask": mask})["y"]
    assert got.shape == (1, 1, *size)
    np.testing.assert_array_equal(got.ravel()[:12], x.ravel())


@few
@given(seeds, st.integers(1, 3), st.integers(3, 8), st.integers(3, 8), st.data())
def test_interp(folder: Path, seed: int, n: int, h: int, w: int, data: st.DataObject) -> None:
    begin, end = data.draw(st.sampled_from([(0, 0), (-1, 0), (-1, -1), (0, -2)]))
    shrink, zoom = data.draw(st.sampled_from([(None, 2), (None, 3), (2, None), (3, None), (2, 3), (None, None)]))
    size = (data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9)))
    give_size = data.draw(st.booleans()) or (shrink is None and zoom is None)
    x = normal(seed, n, 2, h, w)
    kept = x[:, :, -begin : h + end, -begin : w + end]
    wanted = []
    for length, asked in zip(kept.shape[2:], size, strict=True):
        if give_size and (shrink is None) == (zoom is None):
            wanted.append(asked)
            continue
        length = (length - 1) // (shrink or 1) + 1
        wanted.append(length + (length - 1) * ((zoom or 1) - 1))
    said = f"pad_beg: {begin} pad_end: {end}" + (f" height: {size[0]} width: {size[1]}" if give_size else "")
    said += (f" shrink_factor: {shrink}" if shrink else "") + (f" zoom_factor: {zoom}" if zoom else "")
    got = run_net(folder, layer("Interp", ["x"], f"interp_param {{ {said} }}"), {"x": x}, written_batch=1)["y"]
    want = np.empty((n, 2, *wanted))
    for i, j in itertools.product(range(wanted[0]), range(wanted[1])):
        y = i * (kept.shape[2] - 1) / (wanted[0] - 1) if wanted[0] > 1 else 0.0
        z = j * (kept.shape[3] - 1) / (wanted[1] - 1) if wanted[1] > 1 else 0.0
        y0, z0 = int(y + 1e-9), int(z + 1e-9)
        y1, z1 = min(y0 + 1, kept.shape[2] - 1), min(z0 + 1, kept.shape[3] - 1)
        above = kept[:, :, y0, z0] * (1 - (z - z0)) + kept[:, :, y0, z1] * (z - z0)
        below = kept[:, :, y1, z0] * (1 - (z - z0)) + kept[:, :, y1, z1] * (z - z0)
        want[:, :, i, j] = above * (1 - (y - y0)) + below * (y - y0)
    close(got, want)


def test_interp_to_the_size_of_a_second_bottom(folder: Path) -> None:
    x, like = normal(0, 2, 3, 4, 5), normal(1, 1, 1, 7, 3)
    got = run_net(folder, layer("Interp", ["x", "like"]), {"x": x, "like": like})["y"]
    same = run_net(folder, layer("Interp", ["x"], "interp_param { height: 7 width: 3 }"), {"x": x})["y"]
    np.testing.assert_array_equal(got, same)


def darknet_reorg(x: Array, stride: int, *, reverse: bool) -> list[float]:
    """darknet's loops, over flat arrays."""
    batch, c, h, w = x.shape
    out_c, flat, out = c // stride**2, x.ravel(), [0.0] * x.size
    for b, k, j, i in itertools.product(range(batch), range(c), range(h), range(w)):
        here = i + w * (j + h * (k + c * b))
        offset = k // out_c
        column, row = i * stride + offset % stride, j * stride + offset // stride
        there = column + w * stride * (row + h * stride * (k % out_c + out_c * b))
        if reverse:
            out[there] = float(flat[here])
        else:
            out[here] = float(flat[there])
    return out


@few
@given(seeds, st.lists(st.integers(1, 3), min_size=4, max_size=4), st.integers(1, 3), st.booleans())
def test_reorg_is_darknets(folder: Path, seed: int, shape: list[int], stride: int, reverse: bool) -> None:
    n, c, h, w = shape
    x = normal(seed, n, c * stride**2, h * stride, w * stride)
    said = f"reorg_param {{ stride: {stride} reverse: {str(reverse).lower()} }}"
    got = run_net(folder, layer("Reorg", ["x"], said), {"x": x}, written_batch=2)["y"]
    factor = F(1 / stride) if reverse else F(stride)
    assert got.shape == (n, round(x.shape[1] * factor**2), round(x.shape[2] / factor), round(x.shape[3] / factor))
    np.testing.assert_array_equal(got.ravel(), np.array(darknet_reorg(x, stride, reverse=reverse), F))


@few
@given(seeds, st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.lists(st.integers(1, 3), max_size=2))
def test_shuffle_channel(folder: Path, seed: int, n: int, group: int, size: int, spatial: list[int]) -> None:
    x = normal(seed, n, group * size, *spatial)
    got = run_net(
        folder, layer("ShuffleChannel", ["x"], f"shuffle_channel_param {{ group: {group} }}"), {"x": x}, written_batch=1
    )["y"]
    want = np.empty_like(x)
    for g, i in itertools.product(range(group), range(size)):
        want[:, i * group + g] = x[:, g * size + i]
    np.testing.assert_array_equal(got, want.reshape(*x.shape, *[1] * (4 - x.ndim)))


def test_shuffle_channel_of_as_many_channels_as_there_are_items(tmp_path: Path) -> None:
    text = layer("CTCGreedyDecoder", ["x"], "ctc_decoder_param { }", ["labels"]) + layer("ShuffleChannel", ["labels"])
    path = write_net(tmp_path, {"x": (1, 2, 3)}, text)
    caffeconv.convert_to(tmp_path / "net.onnx", path)
    assert (tmp_path / "net.onnx").exists()


# -- BN ----------------------------------------------------------------------------------------------------------------

PSPNET = 'bn_param { slope_filler { type: "constant" value: 1 } eps: 0.25 FROZEN }'


Doubles = NDArray[np.float64]


def per_channel(x: Array, function: Callable[[Doubles, int], Doubles]) -> Doubles:
    """`function` of each channel's values and its number, put together again."""
    want = np.empty(x.shape)
    for c in range(x.shape[1]):
        want[:, c] = function(x[:, c].astype(np.float64), c)
    return want


def affine(values: Doubles, *numbers: object) -> Doubles:
    """factor · (values - mean) / √variance + summand; `numbers`: mean, variance, factor, summand."""
    mean, variance, factor, summand = (float(np.asarray(number).item()) for number in numbers)
    return factor * (values - mean) / math.sqrt(variance) + summand


@few
@given(seeds, st.integers(1, 3), st.integers(1, 4), st.lists(st.integers(1, 3), max_size=2), st.booleans())
def test_bn_of_segnet(folder: Path, seed: int, n: int, c: int, spatial: list[int], learns: bool) -> None:
    x, scale, shift = normal(seed, n, c, *spatial), normal(seed + 1, 1, c, 1, 1), normal(seed + 2, 1, c, 1, 1)
    weights = write_weights(folder / "bn.caffemodel", "l", [scale, shift])
    mode = "LEARN" if learns else "INFERENCE"
    got = run_net(folder, layer("BN", ["x"], f"bn_param {{ bn_mode: {mode} }}"), {"x": x}, weights=weights)["y"]

    def want(values: Doubles, c: int) -> Doubles:
        middle, spread = (values.mean(), values.var() + 1e-9) if learns else (0, 1)
        return affine(values, middle, spread, scale[0, c], shift[0, c])

    if learns:
        assume(all(values.std() > 0.1 for values in x.swapaxes(0, 1)))
    close(got, per_channel(x, want).reshape(*x.shape, *[1] * (4 - x.ndim)), rtol=1e-4, atol=1e-4)


@few
@given(seeds, st.integers(2, 3), st.integers(1, 4), st.sampled_from(["TEST", "TRAIN"]), st.booleans())
def test_bn_of_pspnet(folder: Path, seed: int, n: int, c: int, phase: str, frozen: bool) -> None:
    x = normal(seed, n, c, 2, 3)
    slope, bias, mean = (normal(seed + i, 1, c, 1, 1) for i in (1, 2, 3))
    variance = normal(seed + 4, 1, c, 1, 1) ** 2
    weights = write_weights(folder / "bn.caffemodel", "l", [slope, bias, mean, variance])
    said = PSPNET.replace("FROZEN", f"frozen: {str(frozen).lower()}")
    path = write_net(folder, {"x": x.shape}, layer("BN", ["x"], said))
    model = caffeconv.convert(path, weights, phase="TRAIN" if phase == "TRAIN" else "TEST")

    def want(values: Doubles, c: int) -> Doubles:
        stored = frozen or phase == "TEST"
        middle, spread = (mean[0, c], variance[0, c] + 0.25) if stored else (values.mean(), values.var() + 0.25)
        return affine(values, middle, spread, slope[0, c], bias[0, c])

    close(run_model(model, {"x": x})["y"], per_channel(x, want), rtol=1e-4, atol=1e-4)


def folds(folder: Path, behind: str, parameters: list[Array]) -> None:
    """Asserts that a layer goes into the convolution before it, and that nothing changes."""
    x = normal(0, 2, 3, 4, 4)
    conv = layer(
        "Convolution", ["x"], 'convolution_param { num_output: 5 kernel_size: 3 weight_filler { type: "xavier" } }',
        ["c"], "conv",
    )  # fmt: skip
    path = write_net(folder, {"x": x.shape}, conv + behind)
    weights = write_weights(folder / "bn.caffemodel", "l", parameters)
    folded, whole = caffeconv.convert(path, weights), caffeconv.convert(path, weights, fold=False)
    assert [node.op_type for node in folded.graph.node] == ["Conv"]
    assert [node.op_type for node in whole.graph.node] != ["Conv"]
    close(run_model(folded, {"x": x})["y"], run_model(whole, {"x": x})["y"], rtol=1e-4, atol=1e-4)


def test_bn_folds_into_the_convolution_before_it(folder: Path) -> None:
    parameters = [normal(i, 1, 5, 1, 1) for i in (1, 2, 3)]
    folds(folder, layer("BN", ["c"], "bn_param { bn_mode: INFERENCE }"), parameters[:2])
    folds(folder, layer("BN", ["c"], "bn_param { eps: 0.25 }"), [*parameters, normal(4, 1, 5, 1, 1) ** 2])
    flat = [normal(i, 5) for i in (1, 2, 3)]
    nvidia = [flat[0], normal(4, 5) ** 2, np.array([3], F), *flat[1:]]
    folds(folder, layer("BatchNorm", ["c"], "batch_norm_param { scale_bias: true }"), nvidia)


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ("", "does not tell whose BN"),
        ("bn_mode: LEARN eps: 0.1", "fields of one"),
        ("icnet: true bn_mode: LEARN", "icnet of PSPNet's"),
    ],
)
def test_bn_that_cannot_be_told(folder: Path, said: str, complaint: str) -> None:
    assert complaint in refusal(folder, layer("BN", ["x"], f"bn_param {{ {said} }}"), {"x": (1, 2, 3, 3)})


@few
@given(seeds, st.integers(2, 3), st.integers(1, 4), st.sampled_from(["TEST", "TRAIN"]), st.sampled_from([1e-6, 0.1]))
def test_batch_norm_with_nvidias_scale_and_bias(
    folder: Path, seed: int, n: int, c: int, phase: str, eps: float
) -> None:
    x, mean, scale, bias = normal(seed, n, c, 2, 3), *(normal(seed + i, c) for i in (1, 2, 3))
    variance = normal(seed + 4, c) ** 2 + F(0.01)
    weights = write_weights(folder / "bn.caffemodel", "l", [mean, variance, np.array([3], F), scale, bias])
    path = write_net(
        folder, {"x": x.shape}, layer("BatchNorm", ["x"], f"batch_norm_param {{ scale_bias: true eps: {eps} }}")
    )

    def want(values: Doubles, c: int) -> Doubles:
        middle, spread = (mean[c], variance[c]) if phase == "TEST" else (values.mean(), values.var())
        return affine(values, middle, spread + max(eps, 1e-5), scale[c], bias[c])

    for fold in (True, False):
        model = caffeconv.convert(path, weights, phase="TRAIN" if phase == "TRAIN" else "TEST", fold=fold)
        close(run_model(model, {"x": x})["y"], per_channel(x, want), rtol=1e-4, atol=1e-4)


# -- element by element ------------------------------------------------------------------------------------------------

ACTIVATIONS: dict[str, tuple[str, str, Callable[[float], float]]] = {
    "relu6": ("ReLU6", "", lambda x: min(max(x, 0), 6)),
    "relu6 slope": ("ReLU6", "relu6_param { negative_slope: 0.25 }", lambda x: min(x if x > 0 else 0.25 * x, 6)),
    "relu6 falling": ("ReLU6", "relu6_param { negative_slope: -2 }", lambda x: min(x if x > 0 else -2 * x, 6)),
    "relux": ("ReLUX", "", lambda x: min(max(x, 0), 6)),
    "relux slope": ("ReLUX", "relux_param { negative_slope: 0.5 maximal_value: 2 }",
                    lambda x: min(x, 2) if x > 0 else 0.5 * x),
    "relux falling": ("ReLUX", "relux_param { negative_slope: -2 maximal_value: 2 }",
                      lambda x: min(x, 2) if x > 0 else -2 * x),
    "selu": ("SeLu", "", lambda x: 1.0507009873554805 * (x if x > 0 else 1.6732632423543772 * math.expm1(x))),
    "mish": ("Mish", "", lambda x: x * math.tanh(math.log1p(math.exp(x)))),
}  # fmt: skip


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(folder: Path, name: str) -> None:
    kind, said, function = ACTIVATIONS[name]
    x = np.concatenate([np.linspace(-9, 9, 73), [0, 6, 2, 30, -30]]).astype(F).reshape(2, -1)
    got = run_net(folder, layer(kind, ["x"], said), {"x": x}, written_batch=1)["y"]
    close(got.ravel(), [function(float(value)) for value in x.ravel()], rtol=1e-5, atol=1e-6)


@few
@given(seeds, st.integers(1, 3), st.integers(1, 4), st.lists(st.integers(1, 3), max_size=2), st.booleans())
def test_axpy(folder: Path, seed: int, n: int, c: int, spatial: list[int], four_axes: bool) -> None:
    a = normal(seed, n, c, *([1, 1] if four_axes else []))
    x, y = normal(seed + 1, n, c, *spatial), normal(seed + 2, n, c, *spatial)
    got = run_net(folder, layer("Axpy", ["a", "x", "b"]), {"a": a, "x": x, "b": y}, written_batch=2)["y"]
    want = [[a[i, j].item() * x[i, j].astype(np.float64) + y[i, j] for j in range(c)] for i in range(n)]
    close(got, want)


@pytest.mark.parametrize("ratio", [0.5, 0.25])
def test_dropout_that_scales_in_test(folder: Path, ratio: float) -> None:
    x = normal(0, 2, 50)
    said = f"dropout_param {{ dropout_ratio: {ratio} scale_train: false }}"
    path = write_net(folder, {"x": x.shape}, layer("Dropout", ["x"], said))
    close(run_model(caffeconv.convert(path), {"x": x})["y"], (1 - ratio) * x.astype(np.float64))
    trained = run_model(caffeconv.convert(path, phase="TRAIN"), {"x": x})["y"]
    kept = trained != 0
    close(trained[kept], x[kept])
    assert 0 < kept.sum() < x.size


# -- convolutions ------------------------------------------------------------------------------------------------------


def everything(places: Sequence[slice | int]) -> tuple[slice | int, ...]:
    """These places of every item and channel."""
    return (slice(None), slice(None), *places)


def convolved(
    x: Array, weight: Array, bias: Array, stride: Sequence[int], pad: Sequence[int], dilation: Sequence[int]
) -> Doubles:
    """Any number of spatial axes; weight outputs × channels × kernel."""
    padded = np.pad(x.astype(np.float64), [(0, 0), (0, 0), *((p, p) for p in pad)])
    extent = [d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[2:], strict=True)]
    sizes = [(s - e) // t + 1 for s, e, t in zip(padded.shape[2:], extent, stride, strict=True)]
    rows = weight.reshape(len(weight), -1).astype(np.float64)
    want = np.empty((len(x), len(weight), *sizes))
    for place in itertools.product(*map(range, sizes)):
        window = [slice(i * t, i * t + e, d) for i, t, e, d in zip(place, stride, extent, dilation, strict=True)]
        values = padded[everything(window)].reshape(len(x), -1)
        want[everything(place)] = values @ rows.T + bias.ravel()
    return want


def depthwise(weight: Array) -> Array:
    """channels × 1 × kernel as channels × channels × kernel."""
    full = np.zeros((len(weight), len(weight), *weight.shape[2:]), F)
    for c in range(len(weight)):
        full[c, c] = weight[c, 0]
    return full


@few
@given(seeds, st.integers(1, 4), st.integers(1, 3), st.integers(1, 2), st.integers(0, 1), st.integers(1, 2))
def test_depthwise_convolutions(folder: Path, seed: int, c: int, k: int, s: int, p: int, d: int) -> None:
    x, weight, bias = normal(seed, 2, c, 6, 7), normal(seed + 1, c, 1, k, k), normal(seed + 2, c)
    weights = write_weights(folder / "dw.caffemodel", "l", [weight, bias])
    want = convolved(x, depthwise(weight), bias, (s, s), (p, p), (d, d))
    window = f"kernel_size: {k} stride: {s} pad: {p} dilation: {d}"
    for kind, outputs in (
        ("ConvolutionDepthwise", "num_output: 99"),  # it counts for nothing, and so does `group`
        ("ConvolutionDepthwise", ""),
        ("DepthwiseConvolution", f"num_output: {c} group: {c}"),
    ):
        said = layer(kind, ["x"], f"convolution_param {{ {outputs} {window} }}")
        close(run_net(folder, said, {"x": x}, weights=weights, written_batch=1)["y"], want)


def test_depthwise_convolution_folds_the_batch_norm_behind_it(folder: Path) -> None:
    x = normal(0, 2, 3, 5, 5)
    layers = layer("ConvolutionDepthwise", ["x"], 'convolution_param { kernel_size: 3 weight_filler { type: "msra" } }')
    layers += layer("Scale", ["y"], "scale_param { filler { value: 3 } bias_term: true }", ["z"], "scale")
    path = write_net(folder, {"x": x.shape}, layers)
    folded, whole = caffeconv.convert(path), caffeconv.convert(path, fold=False)
    assert [node.op_type for node in folded.graph.node] == ["Conv"]
    close(run_model(folded, {"x": x})["z"], run_model(whole, {"x": x})["z"])


@pytest.mark.parametrize(
    ("said", "dilation"), [("hole: 2", (2, 2)), ("hole_h: 2 hole_w: 1", (2, 1)), ("hole: 1", (1, 1))]
)
def test_hole_is_dilation(folder: Path, said: str, dilation: tuple[int, int]) -> None:
    x, weight = normal(0, 1, 2, 7, 8), normal(1, 3, 2, 3, 2)
    weights = write_weights(folder / "hole.caffemodel", "l", [weight])
    window = "num_output: 3 kernel_h: 3 kernel_w: 2 pad: 1 bias_term: false"
    layers = layer("Convolution", ["x"], f"convolution_param {{ {window} {said} }}")
    got = run_net(folder, layers, {"x": x}, weights=weights)
    close(got["y"], convolved(x, weight, np.zeros(3, F), (1, 1), (1, 1), dilation))


@few
@given(seeds, st.integers(1, 2), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.data())
def test_local(folder: Path, seed: int, n: int, c: int, k_h: int, k_w: int, stride: int, data: st.DataObject) -> None:
    pad, bias_term, outputs = data.draw(st.integers(0, 1)), data.draw(st.booleans()), data.draw(st.integers(1, 3))
    x = normal(seed, n, c, 4, 5)
    rows, columns = (4 + 2 * pad - k_h) // stride + 1, (5 + 2 * pad - k_w) // stride + 1
    weight = normal(seed + 1, outputs, 1, c * k_h * k_w, rows * columns)
    bias = normal(seed + 2, 1, 1, outputs, rows * columns)
    weights = write_weights(folder / "local.caffemodel", "l", [weight, bias][: 1 + bias_term])
    said = f"num_output: {outputs} stride: {stride} pad: {pad} bias_term: {str(bias_term).lower()} "
    said += f"kernel_size: {k_h}" if k_h == k_w else f"kernel_h: {k_h} kernel_w: {k_w}"
    layers = layer("Local", ["x"], f"local_param {{ {said} }}")
    got = run_net(folder, layers, {"x": x}, weights=weights, written_batch=1)
    padded = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    want = np.empty((n, outputs, rows, columns))
    for i, m, y, z in itertools.product(*map(range, want.shape)):
        window = padded[i, :, y * stride : y * stride + k_h, z * stride : z * stride + k_w].ravel()
        place = y * columns + z
        want[i, m, y, z] = window @ weight[m, 0, :, place] + (bias[0, 0, m, place] if bias_term else 0)
    close(got["y"], want, atol=1e-4)


C3D_CONV = ("convolution3d_param", "convolution_param")
C3D_POOL = ("pooling3d_param", "pooling_param")


@few
@given(seeds, st.sampled_from(C3D_CONV), st.integers(1, 2), st.integers(1, 2), st.integers(0, 1), st.integers(0, 1))
def test_convolution_3d(folder: Path, seed: int, name: str, stride: int, steps: int, pad: int, before: int) -> None:
    x, weight, bias = normal(seed, 2, 2, 4, 5, 6), normal(seed + 1, 4, 2, 2, 3, 3), normal(seed + 2, 1, 1, 1, 1, 4)
    weights = write_weights(folder / "c3d.caffemodel", "l", [weight, bias])
    said = f"num_output: 4 kernel_size: 3 kernel_depth: 2 stride: {stride} temporal_stride: {steps} pad: {pad} "
    said = layer("Convolution3D", ["x"], f"{name} {{ {said} temporal_pad: {before} filter_group: 2 }}")
    got = run_net(folder, said, {"x": x}, weights=weights, written_batch=1)["y"]
    want = convolved(x, weight, bias, (steps, stride, stride), (before, pad, pad), (1, 1, 1))
    close(got, want, atol=1e-4)


@few
@given(
    seeds, st.sampled_from(C3D_POOL), st.sampled_from(["MAX", "AVE"]), st.integers(1, 3), st.integers(1, 3),
    st.integers(1, 4), st.integers(1, 3), st.integers(0, 3),
)  # fmt: skip
def test_pooling_3d(
    folder: Path, seed: int, name: str, pool: str, size: int, depth: int, stride: int, steps: int, pad: int
) -> None:
    pad = pad if pool == "AVE" else 0
    x = normal(seed, 2, 2, 4, 5, 6)
    kernel, strides, pads = (depth, size, size), (steps, stride, stride), (0, pad, pad)
    sizes = [math.ceil((n + 2 * p - k) / s) + 1 for n, k, s, p in zip((4, 5, 6), kernel, strides, pads, strict=True)]
    want = np.empty((2, 2, *sizes))
    for place in itertools.product(*map(range, sizes)):
        window, divisor = [], 1
        for i, n, k, s, p in zip(place, (4, 5, 6), kernel, strides, pads, strict=True):
            start, stop = i * s - p, min(i * s - p + k, n + p)
            divisor *= stop - start
            window.append(slice(max(start, 0), max(min(stop, n), 0)))
        values = x[everything(window)].reshape(2, 2, -1)
        assume(divisor > 0)
        if pool == "MAX":
            assume(values.shape[2] > 0)
            want[everything(place)] = values.max(axis=2)
        else:
            want[everything(place)] = values.sum(axis=2) / divisor
    said = f"pool: {pool} kernel_size: {size} kernel_depth: {depth} stride: {stride} temporal_stride: {steps} "
    said += f"pad: {pad}"
    got = run_net(folder, layer("Pooling3D", ["x"], f"{name} {{ {said} }}"), {"x": x}, written_batch=1)["y"]
    close(got, want)


def test_a_window_beyond_the_input_averages_nothing(folder: Path) -> None:
    x = np.arange(16, dtype=F).reshape(1, 1, 4, 4)
    layers = layer("Pooling", ["x"], "pooling_param { pool: AVE kernel_size: 1 stride: 2 }")
    got = run_net(folder, layers, {"x": x})["y"]
    np.testing.assert_array_equal(got[0, 0], [[0, 2, np.nan], [8, 10, np.nan], [np.nan] * 3])


# -- all together ------------------------------------------------------------------------------------------------------

XAVIER = 'weight_filler { type: "xavier" }'
CHAIN = "".join(
    layer(kind, bottoms.split(), said, tops.split(), tops.split()[0])
    for kind, bottoms, tops, said in (
        ("ConvolutionDepthwise", "data", "a", f"convolution_param {{ kernel_size: 3 pad: 1 {XAVIER} }}"),
        ("BN", "a", "b", "bn_param { bn_mode: INFERENCE scale_filler { value: 2 } shift_filler { value: 1 } }"),
        ("ReLU6", "b", "c", ""),
        ("Pooling", "c", "d mask", "pooling_param { pool: MAX kernel_size: 2 stride: 2 }"),
        ("ShuffleChannel", "d", "e", "shuffle_channel_param { group: 2 }"),
        ("Upsample", "e mask", "f", "upsample_param { scale: 2 }"),
        ("Interp", "f", "g", "interp_param { zoom_factor: 2 pad_end: -1 }"),
        ("Reorg", "f", "h", "reorg_param { stride: 2 }"),
        ("Pooling", "f", "s", "pooling_param { pool: AVE global_pooling: true }"),
        ("Axpy", "s f a", "i", ""),
        ("Local", "d", "j", f"local_param {{ num_output: 3 kernel_size: 2 {XAVIER} }}"),
        ("Mish", "j", "k", ""),
        ("PSROIPooling", "f rois", "l", "psroi_pooling_param { spatial_scale: 0.5 output_dim: 1 group_size: 2 }"),
        ("ROIPooling", "f rois", "m", "roi_pooling_param { pooled_h: 2 pooled_w: 3 spatial_scale: 0.5 }"),
    )
)


def test_any_batch_gives_what_a_fixed_one_gives(folder: Path) -> None:
    path = write_net(folder, {"data": (1, 4, 6, 8), "rois": (1, 5)}, CHAIN)
    outputs = ["e", "f", "g", "h", "i", "k", "l", "m"]
    dynamic = caffeconv.convert(path, outputs=outputs)
    symbols = {o.name: o.type.tensor_type.shape.dim[0].dim_param for o in dynamic.graph.output}
    assert symbols == {**dict.fromkeys(outputs, "batch"), "l": "rois_0", "m": "rois_0"}
    for batch in (1, 2, 5):
        rng = np.random.default_rng(batch)
        rois = np.concatenate([rng.integers(0, batch, (3, 1)), rng.uniform(0, 16, (3, 4))], axis=1).astype(F)
        feeds = {"data": normal(batch, batch, 4, 6, 8), "rois": rois}
        shapes = {name: values.shape for name, values in feeds.items()}
        fixed = run_model(caffeconv.convert(path, outputs=outputs, batch="keep", shapes=shapes), feeds)
        for name, got in run_model(dynamic, feeds).items():
            close(got, fixed[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("opset", [13, 15, 18, 21])
def test_every_opset_computes_the_same(folder: Path, opset: int) -> None:
    path = write_net(folder, {"data": (2, 4, 6, 8), "rois": (3, 5)}, CHAIN)
    rois = np.array([[0, 0, 0, 9, 9], [1, 3.5, 2.5, 12, 7], [1, 20, 20, 30, 30]], F)
    feeds = {"data": normal(3, 2, 4, 6, 8), "rois": rois}
    usual = run_model(caffeconv.convert(path), feeds)
    for name, got in run_model(caffeconv.convert(path, opset=opset), feeds).items():
        close(got, usual[name], rtol=1e-6, atol=1e-6)


REFUSED = [
    ("ROIPooling", "roi_pooling_param { pooled_h: 2 }", {"x": (1, 1, 4, 4), "r": (2, 5)}, "both must be > 0"),
    ("ROIPooling", "roi_pooling_param { pooled_h: 2 pooled_w: 2 }", {"x": (1, 1, 4, 4), "r": (2, 4)}, "must == 5"),
    ("PSROIPooling", "psroi_pooling_param { spatial_scale: 1 output_dim: 2 group_size: 2 }",
     {"x": (1, 7, 4, 4), "r": (2, 5)}, "group_size = 8"),
    ("Upsample", "upsample_param { scale: 3 pad_out_h: true }", {"x": (1, 1, 2, 2), "m": (1, 1, 2, 2)}, "ill-defined"),
    ("Upsample", "upsample_param { scale_h: 2 }", {"x": (1, 1, 2, 2), "m": (1, 1, 2, 2)}, "scale_h & scale_w"),
    ("Upsample", "upsample_param { scale: 2 }", {"x": (1, 1, 2, 2), "m": (1, 1, 2, 3)}, "one shape was needed"),
    ("Upsample", "upsample_param { upsample_h: 4 upsample_w: 4 }", {"x": (1, 1, 2, 2)}, "second bottom"),
    ("Interp", "", {"x": (1, 1, 2, 2)}, "no size"),
    ("Interp", "interp_param { pad_beg: 1 zoom_factor: 2 }", {"x": (1, 1, 2, 2)}, "cropping"),
    ("Interp", "interp_param { pad_beg: -2 zoom_factor: 2 }", {"x": (1, 1, 2, 2)}, "height should be positive"),
    ("Reorg", "", {"x": (1, 4, 2, 2)}, "needs stride"),
    ("Reorg", "reorg_param { stride: 2 }", {"x": (1, 4, 3, 2)}, "multiples of the stride"),
    ("Reorg", "reorg_param { stride: 2 reverse: true }", {"x": (1, 6, 2, 2)}, "stride × stride = 4"),
    ("ShuffleChannel", "shuffle_channel_param { group: 4 }", {"x": (1, 6, 2, 2)}, "Wrong group size."),
    ("Axpy", "", {"a": (1, 3), "x": (1, 2, 4, 4), "b": (1, 2, 4, 4)}, "one number for each channel"),
    ("ReLUX", "relux_param { maximal_value: -1 }", {"x": (1, 2)}, "must be non-negative"),
    ("BatchReindex", "", {"x": (), "i": (2,)}, "axis 0 out of range for 0-D"),
    ("Filter", "", {"x": (), "i": (2, 1)}, "Each bottom should have the same 0th dimension"),
    ("Filter", "", {"x": (2,), "i": ()}, "Selector blob must have shape"),
    ("ArgMax", "", {"x": ()}, "axis 0 out of range for 0-D"),
    ("Local", "convolution_param { num_output: 1 kernel_size: 2 dilation: 0 }", {"x": (1, 1, 3, 9)}, "dilation is 0×0, which"),
    ("Local", "local_param { num_output: 1 kernel_size: 4 }", {"x": (1, 1, 3, 9)}, "height smaller than kernel size"),
    ("Convolution3D", "convolution3d_param { num_output: 3 kernel_size: 3 }", {"x": (1, 1, 4, 4, 4)}, "kernel_depth"),
    ("Pooling3D", "pooling3d_param { kernel_size: 2 kernel_depth: 2 pad: 1 }", {"x": (1, 1, 4, 4, 4)}, "average"),
    ("Pooling", "pooling_param { kernel_size: 2 kernel_depth: 2 }", {"x": (1, 1, 4, 4)}, "Pooling3D"),
    ("Convolution", "convolution_param { num_output: 1 kernel_size: 2 kernel_depth: 2 }", {"x": (1, 1, 4, 4)},
     "Convolution3D"),
    ("Convolution", "convolution_param { num_output: 1 kernel_size: 2 hole: 2 dilation: 2 }", {"x": (1, 1, 4, 4)},
     "names of one thing"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "said", "inputs", "complaint"), REFUSED)
def test_what_the_forks_refuse(
    folder: Path, kind: str, said: str, inputs: dict[str, tuple[int, ...]], complaint: str
) -> None:
    assert complaint in refusal(folder, layer(kind, list(inputs), said), inputs)
