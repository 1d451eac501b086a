"""A net in a notebook."""

from __future__ import annotations

import numpy as np
from support.golden_cases import ROOT

from caffeconv.net.net import Net


def test_a_row_for_each_layer() -> None:
    page = Net(ROOT / "fixtures/digits/deploy.prototxt")._repr_html_()
    assert page.startswith("<p>&lt;Net &#x27;digits&#x27;, TEST: 10 layers, data 1×1×28×28 → prob 1×10&gt;</p><table>")
    assert page.count("<tr>") == 11
    cells = ["conv1", "Convolution", "scaled 1×1×28×28", "conv1 1×8×24×24", "8×1×5×5<br>8"]
    assert "".join(f"<td style='text-align: left'>{cell}</td>" for cell in cells) in page


def test_values_of_a_blob_and_of_a_parameter() -> None:
    net = Net(ROOT / "fixtures/digits/deploy.prototxt")
    net.blobs["data"].data[..., :14] = [np.nan, 2, 4] + [0] * 11
    page = net.blobs["data"]._repr_html_()
    assert page.startswith("<p>&lt;blob data 1×1×28×28&gt;</p><table>")
    cells = ["784", "0", "0.222222", "4", "92.6%", "28"]
    assert "".join(f"<td style='text-align: left'>{cell}</td>" for cell in cells) in page
    assert "<td style='text-align: left'>8</td>" in net.params["conv1"][1]._repr_html_()
