"""Normalize, PriorBox and DetectionOutput against slow loops written from SSD's rules; axes that follow from values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small_nets import Array, input_layer, run_model, run_net, write_net, write_weights
from support.ssd_detections import Setting, assert_rows, detections, problem

import caffeconv

few = settings(max_examples=30)
F = np.float32
seeds = st.integers(0, 2**32)
FLT_MAX = float(np.finfo(F).max)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("detection")


# -- DetectionOutput ---------------------------------------------------------------------------------------------------


@st.composite
def settings_of(draw: st.DrawFn) -> Setting:
    classes, shared = draw(st.integers(1, 4)), draw(st.booleans())
    return Setting(
        classes, shared, draw(st.integers(0 if shared else -1, classes)),
        draw(st.sampled_from(["CORNER", "CENTER_SIZE", "CORNER_SIZE"])), draw(st.booleans()),
        draw(st.sampled_from([None, 0.0, 0.25, 0.5, 0.9])),
        draw(st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 0.7, 1.0, 1.5])),
        draw(st.sampled_from([None, -1, 0, 1, 3, 50])),
        draw(st.sampled_from([1.0, 1.0, 0.9, 0.5])),
        draw(st.sampled_from([-1, 0, 1, 5, 100])),
    )  # fmt: skip


@few
@given(settings_of(), seeds, st.integers(1, 3), st.integers(1, 12))
def test_every_row_is_ssds(folder: Path, s: Setting, seed: int, pictures: int, number: int) -> None:
    feeds = problem(s, seed, pictures, number)
    path = write_net(folder, {name: values.shape for name, values in feeds.items()}, s.layer())
    got = run_model(caffeconv.convert(path, batch="keep"), feeds)["det"]
    assert_rows(got, detections(s, feeds["loc"], feeds["conf"], feeds["prior"]))


USUAL = Setting(3, True, 0, "CENTER_SIZE", False, 0.25, 0.45, 20, 1.0, 10)


def test_a_picture_without_detections_beside_one_with_some_has_no_row(folder: Path) -> None:
    feeds = problem(USUAL, 0, 3, 8)
    feeds["conf"][1] = 0
    path = write_net(folder, {name: values.shape for name, values in feeds.items()}, USUAL.layer())
    got = run_model(caffeconv.convert(path, batch="keep"), feeds)["det"][0, 0]
    assert set(got[:, 0]) == {0, 2}
    feeds["conf"][:] = 0
    empty = run_model(caffeconv.convert(path, batch="keep"), feeds)["det"]
    np.testing.assert_array_equal(empty, [[[[0] + [-1] * 6, [1] + [-1] * 6, [2] + [-1] * 6]]])


@pytest.mark.parametrize("eta", [1.0, 0.8])
@pytest.mark.parametrize("opset", [13, 15, 18, 21])
def test_every_opset_finds_the_same(folder: Path, opset: int, eta: float) -> None:
    s = Setting(3, False, 0, "CENTER_SIZE", False, 0.25, 0.7, 20, eta, 10)
    feeds = problem(s, 5, 2, 20)
    path = write_net(folder, {name: values.shape for name, values in feeds.items()}, s.layer())
    got = run_model(caffeconv.convert(path, batch="keep", opset=opset), feeds)["det"]
    assert_rows(got, detections(s, feeds["loc"], feeds["conf"], feeds["prior"]))


SSD = """
layer { name: "norm" type: "Normalize" bottom: "data" top: "norm"
        norm_param { across_spatial: false channel_shared: false scale_filler { type: "constant" value: 4 } } }
layer { name: "loc" type: "Convolution" bottom: "norm" top: "loc"
        convolution_param { num_output: 16 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "loc_p" type: "Permute" bottom: "loc" top: "loc_p" permute_param { order: 0 order: 2 order: 3 order: 1 } }
layer { name: "loc_f" type: "Flatten" bottom: "loc_p" top: "loc_f" }
layer { name: "conf" type: "Convolution" bottom: "norm" top: "conf"
        convolution_param { num_output: 12 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "conf_p" type: "Permute" bottom: "conf" top: "conf_p"
        permute_param { order: 0 order: 2 order: 3 order: 1 } }
layer { name: "conf_r" type: "Reshape" bottom: "conf_p" top: "conf_r"
        reshape_param { shape { dim: 0 dim: -1 dim: 3 } } }
layer { name: "conf_s" type: "Softmax" bottom: "conf_r" top: "conf_s" softmax_param { axis: 2 } }
layer { name: "conf_f" type: "Flatten" bottom: "conf_s" top: "conf_f" }
layer { name: "prior" type: "PriorBox" bottom: "norm" bottom: "data" top: "prior" prior_box_param {
        min_size: 4 max_size: 7 aspect_ratio: 2 variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2 } }
layer { name: "det" type: "DetectionOutput" bottom: "loc_f" bottom: "conf_f" bottom: "prior" top: "det"
        detection_output_param { num_classes: 3 code_type: CENTER_SIZE keep_top_k: 15 confidence_threshold: 0.35
        nms_param { nms_threshold: 0.6 top_k: 40 eta: ETA } } }
"""


@pytest.mark.parametrize("eta", ["1", "0.9"])
def test_any_batch_gives_what_a_fixed_one_gives(folder: Path, eta: str) -> None:
    layers = SSD.replace("ETA", eta)
    path = write_net(folder, {"data": (2, 3, 6, 7)}, layers)
    dynamic = caffeconv.convert(path, outputs=["det", "prior", "conf_s"])
    sizes = {o.name: [d.dim_param or d.dim_value for d in o.type.tensor_type.shape.dim] for o in dynamic.graph.output}
    assert sizes == {"det": [1, 1, "det_2", 7], "prior": [1, 2, 672], "conf_s": ["batch", 168, 3]}
    for batch in (1, 2, 5):
        data = np.random.default_rng(batch).normal(size=(batch, 3, 6, 7)).astype(F)
        fixed = caffeconv.convert(path, outputs=["det"], batch=batch)
        got, want = run_model(dynamic, {"data": data})["det"], run_model(fixed, {"data": data})["det"]
        assert set(got[0, 0, :, 0]) == set(range(batch))
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("shapes", "change", "complaint"),
    [
        ({}, ("background_label_id: 0", "background_label_id: -1"), "background_label_id is -1 with share_location"),
        ({}, ("num_classes: 3", ""), "Must specify num_classes"),
        ({}, ("nms_threshold: 0.45", "nms_threshold: -1"), "nms_threshold must be non negative"),
        ({}, ("eta: 1.0", "eta: 0"), "eta is 0"),
        ({"loc": (2, 36)}, ("", ""), "as many pictures in both"),
        ({"loc": (1, 32)}, ("", ""), "Number of priors must match number of location predictions"),
        ({"conf": (1, 24)}, ("", ""), "Number of priors must match number of confidence predictions"),
        ({"prior": (1, 1, 36)}, ("", ""), "1×2×(priors·4), as PriorBox makes"),
    ],
)  # fmt: skip
def test_what_ssd_refuses(
    folder: Path, shapes: dict[str, tuple[int, ...]], change: tuple[str, str], complaint: str
) -> None:
    inputs = {"loc": (1, 36), "conf": (1, 27), "prior": (1, 2, 36), **shapes}
    path = write_net(folder, inputs, USUAL.layer().replace(*change) if change[0] else USUAL.layer())
    with pytest.raises(caffeconv.CaffeconvError, match="det \\(DetectionOutput\\), line 4") as error:
        caffeconv.convert(path)
    assert complaint in str(error.value)


# -- PriorBox ----------------------------------------------------------------------------------------------------------


def prior_boxes(
    rows: int, columns: int, picture: tuple[int, int], least: list[float], most: list[float], ratios: list[float],
    variances: list[float], steps: tuple[float, float] | None, offset: float, *, flip: bool, clip: bool,
) -> Array:  # fmt: skip
    """1 × 2 × size, place by place."""
    wanted = [1.0]
    for ratio in ratios:
        if all(abs(ratio - known) >= 1e-6 for known in wanted):
            wanted += [ratio, 1 / ratio] if flip else [ratio]
    height, width = picture
    step_y, step_x = steps or (height / rows, width / columns)
    edges = []
    for y in range(rows):
        for x in range(columns):
            for i, smallest in enumerate(least):
                side = int(smallest)
                sizes = [(side, side)]
                if most:
                    middle = (side * int(most[i])) ** 0.5
                    sizes.append((middle, middle))
                sizes += [(side * ratio**0.5, side / ratio**0.5) for ratio in wanted[1:]]
                for w, h in sizes:
                    centre_x, centre_y = (x + offset) * step_x, (y + offset) * step_y
                    edges += [(centre_x - w / 2) / width, (centre_y - h / 2) / height]
                    edges += [(centre_x + w / 2) / width, (centre_y + h / 2) / height]
    if clip:
        edges = [min(max(edge, 0), 1) for edge in edges]
    spread = variances if len(variances) == 4 else (variances or [0.1]) * 4
    return np.array([[edges, spread * (len(edges) // 4)]], F)


@few
@given(st.data())
def test_prior_boxes(folder: Path, data: st.DataObject) -> None:
    draw = data.draw
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    picture = draw(st.integers(8, 90)), draw(st.integers(8, 90))
    least = draw(st.lists(st.sampled_from([3.0, 8.0, 10.7, 16.0]), min_size=1, max_size=3))
    most = [size + draw(st.sampled_from([0.5, 3.25, 20.0])) for size in least] if draw(st.booleans()) else []
    ratios = draw(st.lists(st.sampled_from([1.0, 2.0, 0.5, 3.0, 1.5]), max_size=4))
    variances = draw(st.sampled_from([[], [0.3], [0.1, 0.1, 0.2, 0.2]]))
    image = draw(st.sampled_from([None, "size", "sides"]))
    steps = draw(st.sampled_from([None, "one", "two"]))
    flip, clip, offset = draw(st.booleans()), draw(st.booleans()), draw(st.sampled_from([0.5, 0.25, 0.0]))
    said = [*(f"min_size: {v}" for v in least), *(f"max_size: {v}" for v in most), f"offset: {offset}"]
    said += [*(f"aspect_ratio: {v}" for v in ratios), *(f"variance: {v}" for v in variances)]
    said += [f"flip: {str(flip).lower()}", f"clip: {str(clip).lower()}"]
    said += {"size": ["img_size: 32"], "sides": ["img_h: 24 img_w: 40"]}.get(image or "", [])
    said += {"one": ["step: 8"], "two": ["step_h: 6 step_w: 9.5"]}.get(steps or "", [])
    layer = (
        'layer { name: "p" type: "PriorBox" bottom: "feat" bottom: "data" top: "prior" '
        f"prior_box_param {{ {' '.join(said)} }} }}"
    )
    feeds = {"feat": np.zeros((2, 3, rows, columns), F), "data": np.zeros((2, 3, *picture), F)}
    got = run_net(folder, layer, feeds, written_batch=1)["prior"]
    size = {"size": (32, 32), "sides": (24, 40)}.get(image or "", picture)
    step = {"one": (8.0, 8.0), "two": (6.0, 9.5)}.get(steps or "")
    want = prior_boxes(rows, columns, size, least, most, ratios, variances, step, offset, flip=flip, clip=clip)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ("", "must provide min_size."),
        ("min_size: 4 max_size: 4", "max_size must be greater than min_size."),
        ("min_size: 4 max_size: 8 max_size: 9", "2 max_size for 1 min_size"),
        ("min_size: 4 variance: 0.1 variance: 0.2", "Must and only provide 4 variance"),
        ("min_size: 4 img_size: 9 img_h: 9 img_w: 9", "Either img_size or img_h/img_w"),
        ("min_size: 4 img_h: 9", "should be larger than 0"),
        ("min_size: 4 step: 0", "should be larger than 0"),
    ],
)
def test_prior_boxes_that_ssd_refuses(folder: Path, said: str, complaint: str) -> None:
    layer = f'layer {{ name: "p" type: "PriorBox" bottom: "a" bottom: "b" top: "c" prior_box_param {{ {said} }} }}'
    path = write_net(folder, {"a": (1, 1, 2, 2), "b": (1, 3, 8, 8)}, layer)
    with pytest.raises(caffeconv.CaffeconvError) as error:
        caffeconv.convert(path)
    assert complaint in str(error.value)


# -- Normalize ---------------------------------------------------------------------------------------------------------


@few
@given(
    seeds, st.lists(st.integers(1, 5), min_size=2, max_size=4), st.booleans(), st.booleans(),
    st.sampled_from([1e-10, 0.5]),
)  # fmt: skip
def test_normalize(folder: Path, seed: int, shape: list[int], across: bool, shared: bool, eps: float) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 3, shape).astype(F)
    scale = rng.normal(0, 2, () if shared else shape[1]).astype(F)
    layer = (
        'layer { name: "n" type: "Normalize" bottom: "x" top: "y" norm_param { '
        f"across_spatial: {str(across).lower()} channel_shared: {str(shared).lower()} eps: {eps} }} }}"
    )
    got = run_net(folder, layer, {"x": x}, weights=write_weights(folder / "w.caffemodel", "n", [scale]))["y"]
    want = np.empty(shape)
    for n in range(shape[0]):
        item = x[n].astype(np.float64).reshape(shape[1], -1)
        norm = np.full(item.shape[1], (item**2).sum()) if across else (item**2).sum(axis=0)
        factor = np.broadcast_to(scale, shape[1])[:, None]
        want[n] = (item / np.sqrt(norm + np.float64(F(eps))) * factor).reshape(shape[1:])
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-6)


def test_normalize_starts_from_one(folder: Path) -> None:
    x = np.array([[[[3.0]], [[4.0]]]], F)
    got = run_net(folder, 'layer { name: "n" type: "Normalize" bottom: "x" top: "y" }', {"x": x})["y"]
    np.testing.assert_allclose(got, x / 5, rtol=1e-6)


# -- axes whose size follows from values -------------------------------------------------------------------------------

CHOSEN = """
layer { name: "f" type: "Filter" bottom: "data" bottom: "on" top: "some" }
layer { name: "r" type: "Reshape" bottom: "some" top: "flat" reshape_param { shape { dim: 0 dim: -1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "flat" top: "ip"
        inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "s" type: "Softmax" bottom: "ip" top: "prob" }
"""


@pytest.mark.parametrize("batch", ["keep", "dynamic"])
@pytest.mark.parametrize("on", [[1, 0, 1, 1], [0, 1, 0, 0], [1, 1, 1, 1]])
def test_what_filter_passes_on_may_be_of_any_number(folder: Path, batch: str, on: list[int]) -> None:
    path = write_net(folder, {"data": (4, 2, 3), "on": (4, 1)}, CHOSEN)
    model = caffeconv.convert(path, outputs="all", batch="keep" if batch == "keep" else "dynamic")
    names = {o.name: o.type.tensor_type.shape.dim[0].dim_param for o in model.graph.output}
    assert names == {"some": "some_0", "flat": "flat_0", "ip": "ip_0", "prob": "prob_0"}
    data = np.arange(24, dtype=F).reshape(4, 2, 3)
    got = run_model(model, {"data": data, "on": np.array(on, F)[:, None]})
    np.testing.assert_array_equal(got["some"], data[np.array(on, bool)])
    assert got["prob"].shape == (sum(on), 2)


def test_a_later_layer_may_still_want_the_number_that_caffe_guesses(folder: Path) -> None:
    layers = CHOSEN + 'layer { name: "e" type: "Eltwise" bottom: "some" bottom: "data" top: "sum" }'
    path = write_net(folder, {"data": (4, 2, 3), "on": (4, 1)}, layers)
    data = np.arange(24, dtype=F).reshape(4, 2, 3)
    got = run_model(caffeconv.convert(path, outputs=["sum"]), {"data": data, "on": np.ones((4, 1), F)})["sum"]
    np.testing.assert_array_equal(got, 2 * data)


def test_inputs_that_need_not_go_together_have_batches_of_their_own(folder: Path) -> None:
    layers = (
        'layer { name: "a" type: "ReLU" bottom: "data" top: "a" }'
        'layer { name: "b" type: "ReLU" bottom: "rois" top: "b" }'
        'layer { name: "c" type: "Eltwise" bottom: "data" bottom: "like" top: "c" }'
    )
    path = folder / "apart.prototxt"
    path.write_text(input_layer("data", (1, 3)) + input_layer("rois", (1, 5)) + layers.replace("like", "data"))
    model = caffeconv.convert(path)
    names = {v.name: v.type.tensor_type.shape.dim[0].dim_param for v in (*model.graph.input, *model.graph.output)}
    assert names == {"data": "batch", "rois": "rois_0", "a": "batch", "b": "rois_0", "c": "batch"}
    path.write_text(input_layer("data", (1, 3)) + input_layer("like", (1, 3)) + layers.replace("rois", "like"))
    together = {v.type.tensor_type.shape.dim[0].dim_param for v in caffeconv.convert(path).graph.output}
    assert together == {"batch"}


def test_a_plane_too_large_for_many_pictures_still_has_a_dynamic_batch(folder: Path) -> None:
    layer = 'layer { name: "t" type: "Tile" bottom: "data" top: "t" tile_param { axis: 1 tiles: 64 } }'
    model = caffeconv.convert(write_net(folder, {"data": (1, 1, 1024, 1024)}, layer))
    assert model.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"
