"""pycaffe, without Caffe: ``import caffeconv.pycaffe as caffe``.

What scripts and Python layers find is what Caffe 1.0's own module offers for running nets; docs/pycaffe.md says what
works and what differs.
"""

from __future__ import annotations

from caffeconv.caffe_pb2 import TEST, TRAIN
from caffeconv.layers import LAYERS
from caffeconv.net.blobs import NetBlob as Blob
from caffeconv.pycaffe import coord_map, io, proto
from caffeconv.pycaffe.classifier import Classifier
from caffeconv.pycaffe.detector import Detector
from caffeconv.pycaffe.mode import set_device, set_mode_cpu, set_mode_gpu, set_random_seed
from caffeconv.pycaffe.net import Net
from caffeconv.pycaffe.net_spec import NetSpec, layers, params, to_proto
from caffeconv.pycaffe.solvers import (
    AdaDeltaSolver,
    AdaGradSolver,
    AdamSolver,
    NesterovSolver,
    RMSPropSolver,
    SGDSolver,
    get_solver,
)  # fmt: skip
from caffeconv.python_layers.blobs import Layer

__version__ = "1.0.0"
"""Caffe's version, whose manners these are; scripts ask for it. That of caffeconv is caffeconv.__version__."""

__all__ = [
    "TEST", "TRAIN", "AdaDeltaSolver", "AdaGradSolver", "AdamSolver", "Blob", "Classifier", "Detector", "Layer",
    "NesterovSolver", "Net", "NetSpec", "RMSPropSolver", "SGDSolver", "coord_map", "get_solver", "has_nccl", "init_log", "io",
    "layer_type_list", "layers", "log", "params", "proto", "set_device", "set_mode_cpu", "set_mode_gpu",
    "set_random_seed", "to_proto",
]  # fmt: skip


def layer_type_list() -> list[str]:
    """The layer types that are known, in order."""
    return sorted(LAYERS)


def has_nccl() -> bool:
    """False: there are no several GPUs to exchange gradients between."""
    return False


def init_log(level: int = 0) -> None:
    """Does nothing: there is no log that would have to be started."""


def log(message: str) -> None:
    """Writes a message to Python's logger ``caffe``."""
    import logging

    logging.getLogger("caffe").info(message)
