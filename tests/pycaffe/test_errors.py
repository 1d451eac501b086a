"""Scripts catch pycaffe's exceptions, and users of caffeconv its own."""

from __future__ import annotations

import pytest

from caffeconv.errors import CaffeconvError
from caffeconv.pycaffe.errors import PycaffeRuntimeError, PycaffeTypeError, PycaffeValueError, TrainingError


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (PycaffeValueError, ValueError), (PycaffeRuntimeError, RuntimeError), (PycaffeTypeError, TypeError),
        (TrainingError, NotImplementedError),
    ],
)  # fmt: skip
def test_caught_as_either(kind: type[CaffeconvError], builtin: type[Exception]) -> None:
    for expected in (builtin, CaffeconvError):
        with pytest.raises(expected, match=r"^why$"):
            raise kind("why")
