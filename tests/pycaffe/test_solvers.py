"""Training is refused."""

from __future__ import annotations

import pytest

import caffeconv.pycaffe as caffe


def test_training_is_refused() -> None:
    for make in (caffe.SGDSolver, caffe.AdamSolver, caffe.NesterovSolver, caffe.get_solver):
        with pytest.raises(
            NotImplementedError, match=r"solver\.prototxt: caffeconv runs trained nets and does not train"
        ):
            make("solver.prototxt")
