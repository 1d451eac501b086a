"""What becomes of results that a file's format has no word for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from caffeconv.inference.result_files import write_results


def test_json_holds_null_for_what_is_no_number(tmp_path: Path) -> None:
    values = np.array([[1, np.nan], [-np.inf, 2.5]], np.float32)
    write_results(tmp_path / "r.json", {"a": values}, ["x", "y"])

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    blobs = json.loads((tmp_path / "r.json").read_text(), parse_constant=refuse)["blobs"]
    assert blobs["a"] == {"shape": [2, 2], "data": [[1.0, None], [None, 2.5]]}
