"""When a model has the form that it has anyway."""

from __future__ import annotations

import pytest

from caffeconv.emit.metadata import Preprocess
from caffeconv.emit.model_options import ModelOptions


@pytest.mark.parametrize("options", [ModelOptions(), ModelOptions(keep_io=True), ModelOptions(fold=False)])
def test_options_that_only_matter_with_others_are_plain(options: ModelOptions) -> None:
    assert options.is_plain


@pytest.mark.parametrize(
    "options", [ModelOptions("nhwc"), ModelOptions(half=True), ModelOptions(preprocess=Preprocess())]
)
def test_another_form(options: ModelOptions) -> None:
    assert not options.is_plain
