"""What data layers give beside `run --input`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from caffeconv.cli import main
from caffeconv.tensor.shape import FloatArray

H = 'input: "H" input_shape { dim: 1 dim: 1 dim: 3 dim: 3 }'
LOSS = 'layer { name: "loss" type: "InfogainLoss" bottom: "score" bottom: "label" bottom: "H" top: "loss" }'


def loss(scores: FloatArray, labels: FloatArray, h: FloatArray) -> float:
    log_p = scores - np.log(np.exp(scores.astype(np.float64)).sum(axis=1, keepdims=True))
    return float(-(h[labels.astype(int)] * log_p).sum() / len(labels))


def read_by(name: str, tops: Mapping[str, FloatArray]) -> str:
    """A layer that reads arrays, two items a batch."""
    with h5py.File(f"{name}.h5", "w") as file:
        for top, values in tops.items():
            file[top] = values
    Path(f"{name}.txt").write_text(f"{name}.h5\n")
    blobs = " ".join(f'top: "{top}"' for top in tops)
    return (
        f'layer {{ name: "{name}" type: "HDF5Data" {blobs} hdf5_data_param {{ source: "{name}.txt" batch_size: 2 }} }}'
    )


@pytest.fixture
def arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, FloatArray]:
    """Eight scores, three labels, which begin anew after the third, and H."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    made = {
        "score": random.standard_normal((8, 3), np.float32), "label": np.array([2, 0, 1], np.float32),
        "H": random.random((3, 3), np.float32),
    }  # fmt: skip
    np.save("score.npy", made["score"])
    np.save("H.npy", made["H"])
    return made


def test_data_of_other_layers_go_along_item_by_item(arrays: dict[str, FloatArray]) -> None:
    Path("net.prototxt").write_text(
        "\n".join(
            ['input: "score" input_shape { dim: 2 dim: 3 }', read_by("labels", {"label": arrays["label"]}), H, LOSS]
        )
    )
    inputs = ["--input=score=score.npy", "--input=H=H.npy"]
    result = CliRunner().invoke(main, ["run", "net.prototxt", *inputs, "-o", "loss.npz"])
    assert result.exit_code == 0, result.stderr
    assert "caffeconv: label: 8 from labels.txt, which layer 'labels' reads" in result.stderr
    expected = loss(arrays["score"], np.resize(arrays["label"], 8), arrays["H"])
    assert np.load("loss.npz")["loss"] == pytest.approx(expected, rel=1e-5)


def test_tops_of_one_layer_belong_together(arrays: dict[str, FloatArray]) -> None:
    layer = read_by("both", {"score": arrays["score"], "label": np.zeros(8, np.float32)})
    Path("net.prototxt").write_text("\n".join([layer, H, LOSS]))
    result = CliRunner().invoke(main, ["run", "net.prototxt", "--input=score=score.npy", "--input=H=H.npy"])
    assert (result.exit_code, "input 'label' has no source; give --input label=FILE" in result.stderr) == (1, True)
