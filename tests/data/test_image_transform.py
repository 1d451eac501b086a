"""A layer's transform_param and the options of pictures are one arithmetic: subtract, then multiply, in float32."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from support.databases import pixels

from caffeconv.data import input_images, transform
from caffeconv.data.images import channels_first


@given(
    st.sampled_from([1, 3]), st.integers(1, 6), st.integers(0, 5), st.sampled_from([1.0, 0.5, 0.00390625, 0.017, -3.0]),
    st.sampled_from(["none", "one", "each", "image"]), st.booleans(),
)  # fmt: skip
def test_both_forms_give_the_same_bits(
    channels: int, crop: int, beyond: int, scale: float, kind: str, rgb: bool
) -> None:
    size = crop + beyond
    values = np.random.default_rng(crop).uniform(0, 255, (channels, size, size)).astype(np.float32)
    mean = {"none": None, "one": values[:1, 0, 0], "each": values[:, 0, 0], "image": values}[kind]
    image = pixels(size, size, channels, seed=beyond)
    options = input_images.Transform(channels, (crop, crop), (size, size), mean, scale, rgb)
    param = transform.Transform(scale=scale, crop_size=crop)
    if mean is not None and mean.ndim == 1:
        param = transform.Transform(scale=scale, crop_size=crop, mean_values=tuple(map(float, mean)))
    layer = transform.Transformer(param)
    if kind == "image":
        layer._mean = values  # as loaded from a file
    planes = channels_first(image)[::-1] if rgb else channels_first(image)
    assert options.apply(image).tobytes() == layer.apply(planes, "db").tobytes()
