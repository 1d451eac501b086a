"""Layers that divide by a norm: which fork's rule counts, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.golden_cases import forward
from support.small_nets import Array, write_net, write_weights

import caffeconv

F = np.float32


def normed(folder: Path, layer: str, x: Array, dialect: str | None = None, weights: Path | None = None) -> Array:
    """What a layer `layer { name: "n" … }` of type and fields `layer` makes of x."""
    text = f'layer {{ name: "n" bottom: "x" top: "y" {layer} }}'
    net = caffeconv.Net(write_net(folder, {"x": x.shape}, text), weights, dialect=dialect)
    return forward(net, {"x": x})["y"]


def over(x: Array, axes: tuple[int, ...]) -> Array:
    norms: Array = np.sqrt((x**2).sum(axis=axes, keepdims=True))
    return x / norms


@pytest.mark.parametrize(("dialect", "axes"), [("ultinous", (1,)), ("akrit2013", (1,)), ("retrieval", (1, 2, 3))])
def test_dialect_decides_what_l2norm_sums_over(tmp_path: Path, dialect: str, axes: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(F)
    np.testing.assert_allclose(normed(tmp_path, 'type: "L2Norm"', x, dialect), over(x, axes), rtol=1e-5)


def test_grn_divides_by_the_norm_of_each_place(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(F)
    wanted = x / np.sqrt((x**2).sum(axis=1, keepdims=True) + F(0.5))
    np.testing.assert_allclose(normed(tmp_path, 'type: "GRN" grn_param { bias: 0.5 }', x), wanted, rtol=1e-5)
    with pytest.raises(caffeconv.CaffeconvError, match="Bias must be >=0"):
        normed(tmp_path, 'type: "GRN" grn_param { bias: -1 }', x)


def test_grn_may_pass_its_diff_on(tmp_path: Path) -> None:
    text = 'layer { name: "n" type: "GRN" bottom: "x" top: "y" grn_param { dummy_backward: true } }'
    net = caffeconv.Net(write_net(tmp_path, {"x": (1, 2)}, text, "force_backward: true\n"))
    net.forward(x=np.array([[3, 4]], F))
    np.testing.assert_array_equal(net.backward(y=np.array([[5, 7]], F))["x"], [[5, 7]])


def test_l2norm_of_maps_is_refused_where_nothing_tells_the_fork(tmp_path: Path) -> None:
    x = np.ones((2, 3, 7, 7), F)
    with pytest.raises(caffeconv.CaffeconvError) as refusal:
        normed(tmp_path, 'type: "L2Norm"', x)
    for choice in ("2×3×7×7, 49 places", "`dialect='ultinous'`", "`dialect='akrit2013'`", "`dialect='retrieval'`"):
        assert choice in str(refusal.value)
    assert "to fix it" not in str(refusal.value)


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 1, 1)])
def test_l2norm_of_one_place_needs_no_choice(tmp_path: Path, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(size=shape).astype(F)
    got = normed(tmp_path, 'type: "L2Norm"', x)
    assert got.shape == shape
    np.testing.assert_allclose(got, over(x, (1,)), rtol=1e-5)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ('type: "L2Norm" l2norm_param { eps: 1e-8 l2_length: 2 }', "fields of one were needed"),
        ('type: "L2Norm" l2norm_param { l2_length: 0 }', "l2_length is 0; a number above 0 was needed"),
        ('type: "Normalize" normalize_param { coeff: 2 bp_norm: true }', "one was needed"),
        ('type: "Normalize" normalize_param { normalize_type: "L3" }', "normalize_type is L3; L1 or L2 was needed"),
        ('type: "Normalize" normalize_param { across_spatial: true }', "rename normalize_param"),
        ('type: "Normalize" norm_param { } normalize_param { coeff: 2 }', "one of them was needed"),
        ('type: "Normalize" norm_param { coeff: 2 }', "no field of SSD's norm_param"),
        ('type: "Normalize"', "`dialect='happynear'`"),
        ('type: "Normalization" normalization_param { norm: L1 }', "norm: L2 was needed"),
    ],
)
def test_refused(tmp_path: Path, layer: str, message: str) -> None:
    with pytest.raises(caffeconv.CaffeconvError) as refusal:
        normed(tmp_path, layer, np.ones((1, 2, 3, 3), F))
    assert message in str(refusal.value)


def test_l2norm_with_eps_is_refused_in_place(tmp_path: Path) -> None:
    text = 'layer { name: "n" type: "L2Norm" bottom: "x" top: "x" l2norm_param { eps: 1e-8 } }'
    with pytest.raises(caffeconv.CaffeconvError, match="its own bottom"):
        caffeconv.Net(write_net(tmp_path, {"x": (1, 2, 1, 1)}, text))


def test_regions_are_normed_in_place(tmp_path: Path) -> None:
    """Three poolings of the same regions, each followed by L2Norm in place."""
    maps = "".join(
        f"""layer {{ name: "roi{i}" type: "ROIPooling" bottom: "x{i}" bottom: "rois" top: "pool{i}"
                     roi_pooling_param {{ pooled_h: 2 pooled_w: 2 spatial_scale: {1 / 2**i} }} }}
layer {{ name: "norm{i}" type: "L2Norm" bottom: "pool{i}" top: "pool{i}" }}
"""
        for i in range(3)
    )
    inputs = {**{f"x{i}": (1, 3, size, size) for i, size in enumerate((16, 8, 4))}, "rois": (4, 5)}
    net = caffeconv.Net(write_net(tmp_path, inputs, maps), dialect="ultinous")
    rng = np.random.default_rng(0)
    feeds = {name: rng.uniform(0.1, 1, shape).astype(F) for name, shape in inputs.items()}
    feeds["rois"] = np.array([[0, 0, 0, 15, 15], [0, 2, 2, 9, 11], [0, 4, 0, 15, 7], [0, 1, 1, 6, 6]], F)
    tops = forward(net, feeds)
    for i in range(3):
        assert tops[f"pool{i}"].shape == (4, 3, 2, 2)
        np.testing.assert_allclose((tops[f"pool{i}"] ** 2).sum(axis=1), 1, rtol=1e-5)


def test_scale_in_the_weights_makes_normalize_ssds(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 2, 2)).astype(F)
    weights = write_weights(tmp_path / "w.caffemodel", "n", [np.array(2, F)])
    np.testing.assert_allclose(
        normed(tmp_path, 'type: "Normalize"', x, weights=weights), 2 * over(x, (1, 2, 3)), rtol=1e-5
    )


def test_second_top_of_normalize_has_the_norms(tmp_path: Path) -> None:
    text = 'layer { name: "n" type: "Normalize" bottom: "x" top: "y" top: "norm" }'
    x = np.random.default_rng(0).normal(size=(2, 3, 2, 2)).astype(F)
    tops = forward(caffeconv.Net(write_net(tmp_path, {"x": x.shape}, text)), {"x": x})
    np.testing.assert_allclose(tops["norm"], np.sqrt((x**2).sum(axis=1, keepdims=True) + 1e-6), rtol=1e-5)
    np.testing.assert_allclose(tops["y"], x / tops["norm"], rtol=1e-5)


def test_norms_of_places_have_eps_under_the_root(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 2, 2)).astype(F)
    rule = "norm_param { eps: 0.5 add_eps_before_sqrt: false"
    places = normed(tmp_path, f'type: "Normalize" {rule} across_spatial: false }}', x)
    np.testing.assert_allclose(places, x / np.sqrt((x**2).sum(axis=1, keepdims=True) + 0.5), rtol=1e-5)
    items = normed(tmp_path, f'type: "Normalize" {rule} }}', x)
    np.testing.assert_allclose(items, x / (np.sqrt((x**2).sum(axis=(1, 2, 3), keepdims=True)) + 0.5), rtol=1e-5)
