"""Sources and sinks of a net's data layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.net_objects import net_objects

from caffeconv.errors import CaffeconvError
from caffeconv.net.data_layers import DataLayers

MEMORY = """
layer { name: "m" type: "MemoryData" top: "x" top: "label"
  memory_data_param { batch_size: 2 channels: 1 height: 1 width: 3 } }
layer { name: "out" type: "HDF5Output" bottom: "x" bottom: "label" hdf5_output_param { file_name: "FILE" } }
"""
DATA = np.arange(12, dtype=np.float32).reshape(4, 1, 1, 3)
LABELS = np.arange(4, dtype=np.float32)


@pytest.fixture
def data(tmp_path: Path) -> DataLayers:
    return net_objects(tmp_path, MEMORY.replace("FILE", "out.h5"), {}, output_dir=tmp_path).data


def test_what_a_net_has(data: DataLayers) -> None:
    assert list(data.sources) == ["m"]
    assert data.source_tops == {"x", "label"}
    assert list(data.sinks) == ["out"]
    assert data.sink_bottoms(["m", "out"]) == ["x", "label"]
    assert data.sink_bottoms(["m"]) == []


def test_sources_give_batch_after_batch(data: DataLayers) -> None:
    data.set_arrays("m", DATA, LABELS)
    needed = {"x", "label"}
    batches = [dict(data.next_batches({}, ["m"], needed)) for _ in range(3)]
    assert [batch["label"].ravel().tolist() for batch in batches] == [[0, 1], [2, 3], [0, 1]]
    assert dict(data.next_batches({}, [], needed)) == {}


def test_what_the_caller_gives_goes_before_what_is_read(data: DataLayers) -> None:
    given = {"x": DATA[2:], "label": np.array([7, 8], np.float32)}
    batch = dict(data.next_batches(given, [], {"x", "label"}))
    np.testing.assert_array_equal(batch["x"], given["x"])
    np.testing.assert_array_equal(batch["label"].ravel(), given["label"])
    with pytest.raises(CaffeconvError, match=r"^m \(MemoryData\), line 2: 'x' is missing"):
        list(data.next_batches({"label": LABELS[:2]}, [], {"x", "label"}))


def test_arrays_for_another_layer(data: DataLayers) -> None:
    with pytest.raises(CaffeconvError, match="only be called if the first layer is a MemoryDataLayer"):
        data.set_arrays("out", DATA, LABELS)
    with pytest.raises(CaffeconvError, match=r"^m \(MemoryData\)"):
        data.set_arrays("m", DATA[:, :, :, :2], LABELS)


def test_sinks_take_their_bottoms(data: DataLayers, tmp_path: Path) -> None:
    import h5py

    values = {"x": DATA[:2], "label": LABELS[:2]}
    data.write(["m"], values.__getitem__)
    assert not (tmp_path / "out.h5").exists()
    data.write(["out"], values.__getitem__)
    with h5py.File(tmp_path / "out.h5") as file:
        np.testing.assert_array_equal(file["data"], DATA[:2])
