"""Old files written in today's form: they give the same net and the same numbers, and nothing is overwritten."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from support.golden_cases import GOLDENS, cases, runnable

import caffeconv
from caffeconv import CaffeconvError
from caffeconv.caffe_format.caffemodel import read_caffemodel
from caffeconv.caffe_format.prototxt import read_prototxt
from caffeconv.caffe_format.upgrade import upgrade_net
from caffeconv.caffe_pb2 import BlobProto, BlobShape, LayerParameter, NetParameter
from caffeconv.conversion.upgrade_file import todays_shape, upgrade_file
from caffeconv.frontend.options import NetOptions

LAYERS = GOLDENS / "layers"
OLD = [case for case in cases("layers") if case.folder.name.startswith(("v0_", "v1_", "bn_three", "weights_"))]


@pytest.mark.parametrize("case", OLD, ids=lambda case: case.folder.name)
def test_upgraded_files_give_the_same_model(case: object, tmp_path: Path) -> None:
    from support.golden_cases import Case

    assert isinstance(case, Case)
    if not runnable(case):
        pytest.skip("a layer of another kind")
    folder = tmp_path / "case"
    shutil.copytree(case.folder, folder)
    weights = case.weights and folder / case.weights
    before = caffeconv.convert(folder / case.net, weights, **case.state)
    upgrade_file(folder / case.net, tmp_path / "new.prototxt")
    shutil.copy(tmp_path / "new.prototxt", folder / case.net)
    if weights and weights.suffix == ".caffemodel":
        upgrade_file(weights, tmp_path / "new.caffemodel")
        shutil.copy(tmp_path / "new.caffemodel", weights)
    after = caffeconv.convert(folder / case.net, weights, **case.state)
    for model in (before, after):  # the hashes of the files differ
        del model.metadata_props[:]
    assert after == before


@pytest.mark.parametrize("path", sorted(LAYERS.glob("*/weights.caffemodel")), ids=lambda path: path.parent.name)
def test_caffemodel_in_todays_form(path: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.caffemodel"
    upgrade_file(path, new)
    net = NetParameter.FromString(new.read_bytes())
    assert not net.layers
    assert not net.input
    old, again = read_caffemodel(path), read_caffemodel(new)
    with_blobs = [layer for layer in again.layers if layer.blobs]
    for one, other in zip([layer for layer in old.layers if layer.blobs], with_blobs, strict=True):
        assert one.name == other.name
        for before, after in zip(one.blobs, other.blobs, strict=True):
            assert before is not None
            assert after is not None
            assert after.offset is not None
            np.testing.assert_array_equal(before.array(), after.array())
            assert [dim for dim in before.shape if dim != 1] == [dim for dim in after.shape if dim != 1]
    # once more changes nothing
    upgrade_file(new, tmp_path / "again.caffemodel")
    assert (tmp_path / "again.caffemodel").read_bytes() == new.read_bytes()


@pytest.mark.parametrize("name", ["v0_alex_padding", "v1_lenet", "weights_inline_blobs"])
def test_prototxt_once_more_changes_nothing(name: str, tmp_path: Path) -> None:
    one, two = tmp_path / "one.prototxt", tmp_path / "two.prototxt"
    upgrade_file(LAYERS / name / "net.prototxt", one)
    assert upgrade_file(one, two).notes == ("nothing to upgrade: this is today's form",)
    assert one.read_text() == two.read_text()
    assert read_prototxt(one).net == upgrade_net(read_prototxt(LAYERS / name / "net.prototxt")).net


def test_old_shapes_of_known_layers(tmp_path: Path) -> None:
    """Inner products were 1×1×N×K, biases 1×1×1×N; a layer that does not say so keeps its four numbers."""
    old = {"num": 1, "channels": 1, "height": 1, "width": 3, "data": [1, 2, 3]}
    net = NetParameter(
        layer=[
            LayerParameter(name="c", type="Convolution", bottom=["a"], blobs=[BlobProto(**old), BlobProto(**old)]),  # type: ignore[arg-type]
            LayerParameter(name="i", type="InnerProduct", blobs=[BlobProto(**old), BlobProto(**old)]),  # type: ignore[arg-type]
            LayerParameter(name="p", type="PReLU", blobs=[BlobProto(**old)]),  # type: ignore[arg-type]
        ]
    )
    (tmp_path / "old.caffemodel").write_bytes(net.SerializeToString())
    upgraded = upgrade_file(tmp_path / "old.caffemodel", tmp_path / "new.caffemodel")
    assert upgraded.notes == ("5 of 5 blobs had num, channels, height, width instead of a shape",)
    found = read_caffemodel(tmp_path / "new.caffemodel").layers
    shapes = [[(blob.shape, blob.legacy) for blob in layer.blobs if blob] for layer in found]
    assert shapes == [
        [((1, 1, 1, 3), False), ((3,), False)],
        [((1, 3), False), ((3,), False)],
        [((1, 1, 1, 3), True)],
    ]


@pytest.mark.parametrize(
    ("kind", "index", "legacy", "shape"),
    [
        ("Convolution", 0, (8, 3, 5, 5), (8, 3, 5, 5)),
        ("Deconvolution", 1, (1, 1, 1, 8), (8,)),
        ("InnerProduct", 0, (1, 1, 8, 75), (8, 75)),
        ("InnerProduct", 0, (8, 75, 1, 1), None),
        ("InnerProduct", 2, (1, 1, 1, 8), None),
        ("BN", 0, (1, 8, 1, 1), None),
        ("", 0, (1, 1, 1, 8), None),
    ],
)
def test_todays_shape(kind: str, index: int, legacy: tuple[int, ...], shape: tuple[int, ...] | None) -> None:
    assert todays_shape(kind, index, legacy) == shape


def test_other_numbers_are_told(tmp_path: Path) -> None:
    upgraded = upgrade_file(LAYERS / "weights_double" / "weights.caffemodel", tmp_path / "new.caffemodel")
    assert "5 of 5 blobs were not stored as packed float32" in upgraded.notes


def test_net_of_a_caffemodel(tmp_path: Path) -> None:
    path = LAYERS / "weights_v0_binary" / "weights.caffemodel"
    upgraded = upgrade_file(path, tmp_path / "net.prototxt")
    net = read_prototxt(tmp_path / "net.prototxt").net
    assert [(layer.name, layer.type) for layer in net.layer] == [
        ("conv", "Convolution"),
        ("fc1", "InnerProduct"),
        ("fc2", "InnerProduct"),
    ]
    assert f"this is the net that {path} carries, as it was when the weights were saved" in upgraded.notes


def test_fork_that_reuses_a_number(tmp_path: Path) -> None:
    """The weights of a layer whose own fields cannot be read are kept."""
    layer = LayerParameter(name="n", type="InnerProduct", blobs=[{"data": [1, 2], "shape": {"dim": [2]}}])
    body = layer.SerializeToString() + b"\xb2\x09\x02\x0f\xff"
    (tmp_path / "fork.caffemodel").write_bytes(b"\x0a\x01n\xa2\x06" + bytes([len(body)]) + body)
    upgrade_file(tmp_path / "fork.caffemodel", tmp_path / "new.caffemodel")
    assert NetParameter.FromString((tmp_path / "new.caffemodel").read_bytes()) == NetParameter(name="n", layer=[layer])


# -- what is said and refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ('name: "n" # comment', True),
        ("# comment\nname: 'a'", True),
        ('name: "#1"', False),
        ("name: '#\\'#'", False),
        ('name: "a\\"#"\n', False),
    ],
)
def test_comments_are_lost(tmp_path: Path, text: str, lost: bool) -> None:
    path = tmp_path / "old.prototxt"
    path.write_text(text)
    notes = upgrade_file(path, tmp_path / "new.prototxt").notes
    assert (f"the comments of {path} are lost; keep it" in notes) == lost


def test_dropped_fields_are_told(tmp_path: Path) -> None:
    path = tmp_path / "old.prototxt"
    path.write_text('layer { name: "n" new_field: 1 }')
    with pytest.raises(CaffeconvError, match="new_field"):
        upgrade_file(path, tmp_path / "new.prototxt")
    notes = upgrade_file(path, tmp_path / "new.prototxt", NetOptions(ignore_unknown_fields=True)).notes
    assert any(note.startswith("dropped: line 1: layer 'n'") and "new_field" in note for note in notes)


def short_blob() -> bytes:
    blob = BlobProto(data=[1, 2], shape={"dim": [3]})
    return NetParameter(layer=[LayerParameter(name="n", bottom=["a"], blobs=[blob])]).SerializeToString()


@pytest.mark.parametrize(
    ("source", "content", "out", "message"),
    [
        ("old.prototxt", b'name: "n"', "old.prototxt", "this is the input, and is not overwritten"),
        ("old.prototxt", b'name: "n"', "new.caffemodel", "is a prototxt, and becomes one"),
        ("old.prototxt", b'name: "n"', "no/new.prototxt", "there is no folder"),
        ("old.prototxt", b"layer {", "new.prototxt", "expected a field name"),
        ("old.prototxt", b'layers { layer { name: "n" type: "x" } }', "new.prototxt", "Unknown layer name: x"),
        ("old.caffemodel", b"\x0a\x01n\x00\x00", "new.caffemodel", "field number 0"),
        ("old.caffemodel", b"\x89HDF\r\n\x1a\n" + bytes(9), "new.caffemodel", "this is HDF5"),
        ("old.caffemodel", short_blob(), "new.caffemodel", "layer 'n', blob 0: 2 numbers for the shape 3 (3)"),
        (
            "old.caffemodel",
            b"\x0a\x01n" + NetParameter(layer=[{"name": "n"}]).SerializeToString(),
            "new.prototxt",
            "it holds weights, but no net to write",
        ),
    ],
)
def test_refused(tmp_path: Path, source: str, content: bytes, out: str, message: str) -> None:
    (tmp_path / source).write_bytes(content)
    with pytest.raises(CaffeconvError) as caught:
        upgrade_file(tmp_path / source, tmp_path / out)
    assert message in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [source]


@pytest.mark.parametrize(("name", "message"), [("nowhere", "no such file"), (".", "this is a folder")])
def test_no_file(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(CaffeconvError, match=message):
        upgrade_file(tmp_path / name, tmp_path / "new.prototxt")


# -- the deploy net ----------------------------------------------------------------------------------------------------

DEPLOY = NetOptions(deploy=True)
TRAINING = """
layers { name: "d" type: DATA top: "data" top: "label" data_param { source: "absent" batch_size: 8 }
  transform_param { crop_size: 5 mean_value: 1 mean_value: 2 mean_value: 3 } }
layers { name: "fc" type: INNER_PRODUCT bottom: "data" top: "fc" inner_product_param { num_output: 4 } }
layers { name: "aux" type: INNER_PRODUCT bottom: "data" top: "aux" include { phase: TRAIN }
  inner_product_param { num_output: 2 } }
layers { name: "silence" type: SILENCE bottom: "aux" include { phase: TRAIN } }
layers { name: "loss" type: SOFTMAX_LOSS bottom: "fc" bottom: "label" top: "loss" }
"""


def test_deploy_net(tmp_path: Path) -> None:
    """What is written is the net that `convert` makes of the training net on the way."""
    old, new = tmp_path / "train.prototxt", tmp_path / "deploy.prototxt"
    old.write_text(TRAINING)
    upgraded = upgrade_file(old, new, DEPLOY)
    assert upgraded.notes[-3:] == (
        "deploy net of phase TEST; inputs: data 1×3×5×5",
        "layers that are gone: aux, silence, loss",
        "layers that are new: prob (Softmax)",
    )
    text = new.read_text()
    assert text.startswith('layer {\n  name: "d"\n  type: "Input"\n')
    assert "phase" not in text
    models = [caffeconv.convert(old, deploy=True), caffeconv.convert(new)]
    for model in models:
        del model.metadata_props[:]
    assert models[0] == models[1]
    train = upgrade_file(old, new, NetOptions("TRAIN", deploy=True, shapes={"data": (2, 3, 7, 7)}))
    assert train.notes[-3] == "deploy net of phase TRAIN; inputs: data 2×3×7×7"
    assert [layer.name for layer in read_prototxt(new).net.layer] == ["d", "fc", "aux", "silence", "prob"]


def test_deploy_net_that_a_caffemodel_carries(tmp_path: Path) -> None:
    net = read_prototxt(GOLDENS / "layers" / "v1_infogain_loss" / "net.prototxt").net
    carried = tmp_path / "net.caffemodel"
    carried.write_bytes(net.SerializeToString())
    upgraded = upgrade_file(carried, tmp_path / "deploy.prototxt", DEPLOY)
    assert "layers that are gone: loss" in upgraded.notes
    assert [layer.type for layer in read_prototxt(upgraded.path).net.layer] == ["Input", "InnerProduct", "Softmax"]
    with pytest.raises(CaffeconvError, match=r"a deploy net is written as text; a name that ends in \.prototxt"):
        upgrade_file(carried, tmp_path / "deploy.caffemodel", DEPLOY)


def test_deploy_net_of_unknown_size(tmp_path: Path) -> None:
    old = tmp_path / "train.prototxt"
    old.write_text(TRAINING.replace("crop_size: 5 ", ""))
    with pytest.raises(CaffeconvError, match=r"`shapes=\{'data': "):
        upgrade_file(old, tmp_path / "deploy.prototxt", DEPLOY)
    assert list(tmp_path.iterdir()) == [old]


def test_stored_gradients_are_kept(tmp_path: Path) -> None:
    shape = BlobShape(dim=[2, 2])
    blobs = [
        BlobProto(shape=shape, data=[1, 2, 3, 4], diff=[5, 6, 7, 8]),
        BlobProto(num=1, channels=1, height=1, width=2, double_data=[1, 2], double_diff=[3, 4]),
        BlobProto(shape=shape, data=[1, 2, 3, 4]),
    ]
    net = NetParameter(layer=[LayerParameter(name="a", type="Scale", blobs=blobs)])
    (tmp_path / "old.caffemodel").write_bytes(net.SerializeToString())
    upgrade_file(tmp_path / "old.caffemodel", tmp_path / "new.caffemodel")
    new = NetParameter.FromString((tmp_path / "new.caffemodel").read_bytes())
    assert [list(blob.diff) for blob in new.layer[0].blobs] == [[5, 6, 7, 8], [3, 4], []]
    assert [list(blob.data) for blob in new.layer[0].blobs] == [[1, 2, 3, 4], [1, 2], [1, 2, 3, 4]]
