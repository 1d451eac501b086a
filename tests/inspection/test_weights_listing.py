"""Weights files that are listed, or compared, without a net."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result
from support.small_nets import write_weights

from caffeconv.caffe_format.caffemodel import read_caffemodel
from caffeconv.caffe_pb2 import BlobProto, LayerParameter, NetParameter, V0LayerParameter, V1LayerParameter
from caffeconv.cli import main
from caffeconv.inspection.weights_listing import compare_weights, list_weights

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["inspect", *map(str, arguments)])


def write(path: Path, net: NetParameter) -> Path:
    path.write_bytes(net.SerializeToString())
    return path


def legacy_blob() -> BlobProto:
    return BlobProto(num=1, channels=1, height=2, width=3, data=VALUES.ravel().tolist())


@pytest.mark.parametrize(
    ("net", "form", "kind", "storage"),
    [
        (NetParameter(layer=[LayerParameter(name="l", type="InnerProduct", blobs=[legacy_blob()])]),
         "caffemodel of today's form (V2), shapes as num, channels, height, width", "InnerProduct", "float"),
        (NetParameter(layers=[V1LayerParameter(name="l", type=V1LayerParameter.INNER_PRODUCT, blobs=[legacy_blob()])]),
         "caffemodel of the form of 2014 (V1), shapes as num, channels, height, width", "INNER_PRODUCT", "float"),
        (NetParameter(layers=[V1LayerParameter(layer=V0LayerParameter(name="l", type="innerproduct", blobs=[legacy_blob()]))]),
         "caffemodel of the form of 2013 (V0), shapes as num, channels, height, width", "innerproduct", "float"),
        (NetParameter(layer=[LayerParameter(name="l", type="Scale", blobs=[
            BlobProto(shape={"dim": [2, 3]}, double_data=VALUES.ravel().tolist())])]),
         "caffemodel of today's form (V2)", "Scale", "double"),
        (NetParameter(layer=[LayerParameter(name="l", type="Scale", blobs=[
            BlobProto(shape={"dim": [2, 3]}, raw_data=VALUES.astype("<f2").tobytes(), raw_data_type="FLOAT16")])]),
         "caffemodel of today's form (V2), raw data as NVIDIA Caffe writes it", "Scale", "half"),
    ],
    ids=["V2", "V1", "V0", "double", "half"],
)  # fmt: skip
def test_what_wrote_a_file(tmp_path: Path, net: NetParameter, form: str, kind: str, storage: str) -> None:
    listing = list_weights(read_caffemodel(write(tmp_path / "w.caffemodel", net)), values=True)
    (layer,) = listing.layers
    (blob,) = layer.blobs
    assert (listing.form, layer.type, blob.storage, blob.count) == (form, kind, storage, 6)
    assert blob.statistics is not None
    assert (blob.statistics.minimum, blob.statistics.maximum, blob.statistics.zeros) == (0, 5, 1)
    assert blob.statistics.deviation == pytest.approx(VALUES.std())


def test_weights_alone_on_the_command_line(tmp_path: Path) -> None:
    path = write_weights(tmp_path / "w.caffemodel", "ip", [np.array([[1.0, np.nan], [0.0, 3.0]], np.float32)])
    result = call(path, "--values")
    assert result.exit_code == 0
    assert "2×2" in result.stdout
    assert "25%, 1 NaN or ∞" in result.stdout
    assert json.loads(call(path, "--json").stdout)["layers"][0]["blobs"][0]["shape"] == [2, 2]
    with h5py.File(tmp_path / "w.caffemodel.h5", "w") as file:
        file["data/ip/0"] = VALUES
    assert "Caffe's HDF5" in call(tmp_path / "w.caffemodel.h5").stdout


def test_two_weights_files(tmp_path: Path) -> None:
    a = write_weights(tmp_path / "a.caffemodel", "ip", [VALUES, VALUES[0]])
    b = write_weights(tmp_path / "b.caffemodel", "ip", [VALUES, VALUES[0] + 0.25])
    c = write_weights(tmp_path / "c.caffemodel", "my_ip", [VALUES, VALUES[0]])
    assert call(a, a).stdout == "No blob differs.\n"
    assert call(a, b).stdout == "ip (differs)\n  blob 1: values differ by 0.25 at most, the greatest in A is 2\n"
    assert [change.kind for change in compare_weights(read_caffemodel(a), read_caffemodel(c))] == ["renamed"]
    d = write_weights(tmp_path / "d.caffemodel", "other", [VALUES.T])
    assert [change.kind for change in compare_weights(read_caffemodel(a), read_caffemodel(d))] == [
        "only in A", "only in B",
    ]  # fmt: skip


def test_old_shapes_are_the_same_without_the_ones_in_front(tmp_path: Path) -> None:
    new = write_weights(tmp_path / "new.caffemodel", "ip", [VALUES])
    layer = LayerParameter(name="ip", blobs=[legacy_blob()])
    old = write(tmp_path / "old.caffemodel", NetParameter(layer=[layer]))
    assert compare_weights(read_caffemodel(old), read_caffemodel(new)) == ()
