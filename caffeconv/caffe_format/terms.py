"""Caffe's own terms."""

from __future__ import annotations

from typing import Literal

Phase = Literal["TRAIN", "TEST"]


ExtraValue = int | float | str | list["ExtraValue"] | dict[str, "ExtraValue"]
"""A field that the schema lacks: a number, a word or string, a message, or a list where it is given several times."""
