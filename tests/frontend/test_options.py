"""When a net is the one that Caffe itself would test."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from caffeconv.frontend.options import NetOptions

CHANGES: dict[str, object] = {
    "phase": "TRAIN", "level": 1, "stages": ("deploy",), "deploy": True, "extended": True, "infogain": "logits",
    "allow_python": True, "dialect": "ssd",
}  # fmt: skip
"""A value of each option that makes another net."""
SAME_NET: dict[str, object] = {
    "shapes": {"data": (1, 3, 8, 8)}, "ignore_unknown_fields": True, "seed": 5, "fully_convolutional": True,
    "outputs": ("prob",), "root": "a", "output_dir": "b",
}  # fmt: skip


def test_every_option_is_known_here() -> None:
    assert {field.name for field in fields(NetOptions)} == {*CHANGES, *SAME_NET}
    assert NetOptions().keeps_net


@pytest.mark.parametrize("name", SAME_NET)
def test_options_that_keep_the_layers(name: str) -> None:
    assert replace(NetOptions(), **{name: SAME_NET[name]}).keeps_net  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CHANGES)
def test_options_that_change_the_layers(name: str) -> None:
    assert not replace(NetOptions(), **{name: CHANGES[name]}).keeps_net  # type: ignore[arg-type]
    assert not replace(NetOptions(**SAME_NET), **{name: CHANGES[name]}).keeps_net  # type: ignore[arg-type]
