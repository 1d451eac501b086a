"""What was passed over is named once, lines of lists before items."""

from __future__ import annotations

import numpy as np

from caffeconv.inference.corrupt_items import CorruptItems
from caffeconv.inference.output_batches import OutputBatch


def test_each_is_named_once() -> None:
    skipped = [("b", "a"), (), ("a", "c")]
    batches = [OutputBatch(i, np.arange(1), {}, np.ones(1, np.bool_), {}, texts) for i, texts in enumerate(skipped)]
    corrupt = CorruptItems()
    corrupt.lines.append("line 3")
    assert list(corrupt.collect(batches)) == batches
    assert corrupt.messages == ["line 3", "b", "a", "c"]
