"""Old MATLAB files, read in a process of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from caffeconv.errors import CaffeconvError
from caffeconv.infogain.reading import read_matrix

scipy_io = pytest.importorskip("scipy.io")


def test_a_damaged_file_ends_the_child_alone(tmp_path: Path) -> None:
    scipy_io.savemat(tmp_path / "H.mat", {"H": np.eye(3), "name": "text"})
    assert read_matrix(tmp_path / "H.mat").tolist() == np.eye(3).tolist()
    content = bytearray((tmp_path / "H.mat").read_bytes())
    content[150:190] = b"\xff" * 40
    (tmp_path / "H.mat").write_bytes(content)
    with pytest.raises(CaffeconvError, match=r"H\.mat: "):
        read_matrix(tmp_path / "H.mat")
