"""Where the pixels of one blob lie in another, and the Crop that aligns the two."""

# ruff: noqa: C408 - dict(…), as scripts have it
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import caffeconv
from caffeconv.pycaffe import layers as L  # noqa: N812 - as scripts do
from caffeconv.pycaffe.coord_map import (
    AxisMismatchException,
    CoordMap,
    UndefinedMapException,
    coord_map,
    coord_map_from_to,
    crop,
)
from caffeconv.pycaffe.net_spec import Top


def top(result: object) -> Top:
    assert isinstance(result, Top)
    return result


def fcn(pad: int) -> tuple[Top, Top]:
    """An input, and the score of an FCN over it, scaled up again."""
    data = top(L.Input(shape=dict(dim=[1, 3, 40, 40])))
    x = data
    for _ in range(2):
        x = top(L.ReLU(L.Convolution(x, kernel_size=3, pad=pad if x is data else 1), in_place=True))
        x = top(L.Pooling(x, kernel_size=2, stride=2))
    score = L.Convolution(x, num_output=2, kernel_size=1)
    return data, top(L.Deconvolution(score, convolution_param=dict(num_output=2, kernel_size=8, stride=4)))


def test_crop_of_a_fully_convolutional_net() -> None:
    data, up = fcn(pad=10)
    cropped = crop(up, data)
    assert cropped.fn.params == {"crop_param": {"axis": 2, "offset": [11]}}
    # where a cropped pixel lies by its offset: one bright pixel comes out at the same place in both
    assert coord_map_from_to(cropped, data).shift == 0


def test_crop_that_cannot_be() -> None:
    data, up = fcn(pad=0)
    with pytest.raises(AssertionError, match="cannot crop negative offset"):
        crop(data, top(L.Convolution(data, kernel_size=3, pad=3)))
    with pytest.raises(caffeconv.CaffeconvError, match=r"scale mismatch on crop .a = \[0\.5"):
        crop(data, top(L.Pooling(data, kernel_size=2, stride=2)))
    with pytest.raises(caffeconv.CaffeconvError, match="cannot crop noninteger offset"):
        crop(data, top(L.Convolution(data, kernel_size=2)))
    with pytest.raises(RuntimeError, match="Could not compute map between tops"):
        crop(up, top(L.Input(shape=dict(dim=[1]))))
    with pytest.raises(caffeconv.CaffeconvError, match="kernel_h; a map needs kernel_size"):
        crop(data, top(L.Convolution(data, kernel_h=2)))


STEPS = st.builds(
    lambda axis, scale, shift: CoordMap(axis, np.array([scale]), np.array([shift])),
    st.sampled_from([None, 1]), st.sampled_from([0.25, 0.5, 1.0, 2.0]), st.integers(-8, 8).map(float),
)  # fmt: skip


def parts(step: CoordMap) -> tuple[int | None, float, float]:
    return step.axis, float(step.scale[0]), float(step.shift[0])


@given(STEPS, STEPS, STEPS)
def test_maps_are_a_group(a: CoordMap, b: CoordMap, c: CoordMap) -> None:
    assert parts(a.then(b).then(c)) == parts(a.then(b.then(c)))
    assert parts(a.then(a.inverse())) == (a.axis, 1, 0)
    assert parts(a.inverse().inverse()) == parts(a)


def test_maps_over_other_axes_do_not_go_together() -> None:
    with pytest.raises(AxisMismatchException, match="maps over axis 1 and axis 2 do not go together"):
        CoordMap(1).then(CoordMap(2))


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (L.Convolution(L.Input(), kernel_size=3, stride=2, pad=2), (1, 0.5, 0.5)),
        (L.Convolution(L.Input(), kernel_size=3, dilation=4, pad=2), (1, 1, -2)),
        (L.Deconvolution(L.Input(), convolution_param={"kernel_size": 4, "stride": 2, "pad": 1}), (1, 2, 0.5)),
        (L.ReLU(L.Input()), (None, 1, 0)),
        (L.Crop(L.Input(), L.Input(), crop_param={"axis": 2, "offset": [5]}), (1, 1, -5)),
    ],
)
def test_where_a_layer_s_top_lies_in_its_bottom(result: object, expected: tuple[int | None, float, float]) -> None:
    assert parts(coord_map(top(result).fn)) == expected


def test_layers_of_which_nothing_is_known() -> None:
    with pytest.raises(UndefinedMapException, match=r"^InnerProduct: it is not known where the pixels of its top lie"):
        coord_map(top(L.InnerProduct(L.Input())).fn)


def test_pycaffe_s_tuple() -> None:
    data = top(L.Input(shape=dict(dim=[1, 1, 9, 9])))
    axis, scale, shift = coord_map_from_to(top(L.Convolution(data, kernel_size=3)), data)
    assert [axis, *scale, *shift] == [1, 1, 1]
