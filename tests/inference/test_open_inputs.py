"""Which source fills which input, and of what size its images are to be."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.databases import refused

from caffeconv.inference.open_inputs import Binding, bindings, input_size

INPUTS: dict[str, list[int | str]] = {"data": ["N", 3, 4, 5], "label": ["N"]}


def test_the_only_input_needs_no_name(tmp_path: Path) -> None:
    (only,) = bindings(["a.png"], {"data": INPUTS["data"]})
    assert only == Binding("data", Path("a.png"), "a.png")
    named = tmp_path / "x=y.png"
    named.touch()
    (odd,) = bindings([str(named)], {"data": INPUTS["data"]})
    assert odd.path == named


def test_inputs_by_name() -> None:
    assert [(b.blob, str(b.path)) for b in bindings(["label=l.npy", "data=a=b.png"], INPUTS)] == [
        ("label", "l.npy"), ("data", "a=b.png")
    ]  # fmt: skip
    with refused("`input=a.png`: the net has several inputs; name one: `input=BLOB=a.png`"):
        list(bindings(["a.png"], INPUTS))
    with refused("`input=dat=a.png`: the net has no input 'dat'; did you mean 'data'?"):
        list(bindings(["dat=a.png"], INPUTS))


@pytest.mark.parametrize(
    ("dims", "resize", "channels_last", "expected"),
    [
        (["N", 3, 4, 5], None, False, (3, (4, 5))),
        (["N", 4, 5, 3], None, True, (3, (4, 5))),
        (["N", 3, "H", "W"], (6, 7), False, (3, (6, 7))),
        ([1, 3, "H", 5], (6, 7), False, (3, (6, 5))),
    ],
)
def test_size_of_images(
    dims: list[int | str], resize: tuple[int, int] | None, channels_last: bool, expected: tuple[int, tuple[int, int]]
) -> None:
    binding = Binding("data", Path("a.png"), "a.png")
    assert input_size(binding, dims, resize, channels_last=channels_last) == expected


def test_inputs_that_take_no_images() -> None:
    binding = Binding("data", Path("a.png"), "a.png")
    with refused("`input=a.png`: input 'data' takes any height and width; .* `resize=480x640`"):
        input_size(binding, ["N", 3, "H", "W"], None, channels_last=False)
    with refused("a picture needs four axes"):
        input_size(binding, ["N", 3], None, channels_last=False)
