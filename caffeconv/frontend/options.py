"""Which form of a net is wanted."""

from __future__ import annotations

from dataclasses import dataclass

from caffeconv.caffe_format.terms import Phase
from caffeconv.ir.definition import Infogain
from caffeconv.python_layers.host import AllowPython


@dataclass(frozen=True)
class State:
    """Caffe's NetState as the caller gives it: the phase, the level, and stages that are added to the net's own."""

    phase: Phase = "TEST"
    level: int = 0
    stages: tuple[str, ...] = ()
    extended: bool = False
    """Whether layers may do what Caffe refuses, where that has one clear meaning (5-D pooling)."""
    deploy: bool = False
    """Whether the net is wanted in its deploy form, without data layers, labels and losses."""
    infogain: Infogain | None = None
    """What InfogainLoss layers are given; None: scores, as in Caffe 1.0, with a warning where that is doubtful."""
    allow_python: AllowPython = False
