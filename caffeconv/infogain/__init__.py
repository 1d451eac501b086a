"""Everything around the matrix H of an InfogainLoss layer: making it, counting for it, reading, checking, showing it.

`caffeconv.make_h` writes it. docs/infogain.md has the mathematics and the recipes.
"""

from __future__ import annotations

from caffeconv.infogain.balance import ClassCounts, class_weights
from caffeconv.infogain.counting import count_labels
from caffeconv.infogain.hierarchy import LabelTree, read_hierarchy
from caffeconv.infogain.matrices import (
    distances_between,
    from_distances,
    identity,
    smoothed,
    weighted,
    with_unit_rows,
)
from caffeconv.infogain.reading import read_matrix, read_numbers
from caffeconv.infogain.remarks import remarks

__all__ = [
    "ClassCounts", "LabelTree", "class_weights", "count_labels", "distances_between", "from_distances", "identity",
    "read_hierarchy", "read_matrix", "read_numbers", "remarks", "smoothed", "weighted", "with_unit_rows",
]  # fmt: skip
