"""caffe.Net as pycaffe makes and calls it; parameters saved, copied and shared."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from support.golden_cases import ROOT, Case, cases, difference, part, runs_in_a_net
from support.small_nets import Array, write_net, write_weights

import caffeconv
import caffeconv.pycaffe as caffe
from caffeconv.net.blobs import NetLayer

DIGITS = ROOT / "fixtures" / "digits"
NET, WEIGHTS = str(DIGITS / "deploy.prototxt"), str(DIGITS / "digits.caffemodel")
LAYERS = ROOT / "fixtures" / "goldens" / "layers"


@pytest.fixture
def net() -> caffe.Net:
    return caffe.Net(NET, WEIGHTS, caffe.TEST)


def picture(digit: int) -> Array:
    """1×1×28×28, 0 to 255, as the net wants it."""
    grey = cv2.imread(str(DIGITS / f"{digit}.png"), cv2.IMREAD_GRAYSCALE)
    assert grey is not None
    return cv2.resize(grey, (28, 28)).astype(np.float32)[None, None]


# -- Caffe's numbers ---------------------------------------------------------------------------------------------------

RECORDED = [
    case
    for case in cases("nets", "layers")
    if runs_in_a_net(case)
    and not (case.steps or case.about.get("random") or case.about.get("memory_data"))
    and case.name.startswith(
        ("nets/", "layers/rule_", "layers/weights_", "layers/python_", "layers/v1_", "layers/data_lmdb_r")
    )
]


@pytest.mark.parametrize("case", RECORDED, ids=lambda c: c.name)
def test_recorded_nets_in_pycaffes_way(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(case.folder)
    monkeypatch.syspath_prepend(str(case.folder))
    phase = {"TRAIN": caffe.TRAIN, "TEST": caffe.TEST}[case.state["phase"]]
    for record in case.records():
        net = caffe.Net(
            case.net, phase, level=case.state["level"], stages=list(case.state["stages"]), weights=case.weights
        )
        for name, values in part(record, "in/").items():
            net.blobs[name].reshape(*values.shape)
            net.blobs[name].data[...] = values
        net.reshape()
        net.forward()
        found = {name: net.blobs[name].data for name in part(record, "blob/")}
        assert [
            d for name, want in part(record, "blob/").items() if (d := difference(case, name, found[name], want))
        ] == []
    sys.modules.pop("pylayers", None)


def test_memory_data(monkeypatch: pytest.MonkeyPatch) -> None:
    (case,) = (case for case in cases("layers") if case.folder.name == "memorydata")
    (record,) = case.records()
    net = caffe.Net(str(case.folder / case.net), caffe.TEST)
    inputs = part(record, "in/")
    data, labels = (inputs[name] for name in net.top_names[net.layer_names[0]])
    net.set_input_arrays(data, labels.ravel())
    for step in range(case.steps):
        net.forward()
        for name, want in part(record, f"step{step}/").items():
            assert difference(case, name, net.blobs[name].data, want) is None
    net.set_input_arrays(data, labels)  # begins anew
    net.forward()
    for name, want in part(record, "step0/").items():
        assert difference(case, name, net.blobs[name].data, want) is None


def test_set_input_arrays_needs_a_memory_data_layer(net: caffe.Net) -> None:
    words = "set_input_arrays may only be called if the first layer is a MemoryDataLayer"
    with pytest.raises(caffeconv.CaffeconvError, match=words):
        net.set_input_arrays(np.zeros((1, 1, 28, 28)), np.zeros(1))
    case = LAYERS / "memorydata"
    with pytest.raises(caffeconv.CaffeconvError, match=r"MemoryData.*needed"):
        caffe.Net(str(case / "net.prototxt"), caffe.TEST).set_input_arrays(np.zeros((3, 1, 1, 1)), np.zeros(3))


# -- making one --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "made",
    [
        lambda: caffe.Net(NET, WEIGHTS, caffe.TEST),
        lambda: caffe.Net(NET, 1, weights=WEIGHTS),
        lambda: caffe.Net(NET, caffe.TEST, 0, None, WEIGHTS),
        lambda: caffe.Net(network_file=NET, phase=caffe.TEST, weights=WEIGHTS, level=0, stages=["deploy"]),
        lambda: caffe.Net(Path(NET), Path(WEIGHTS), np.int64(1)),
        lambda: caffe.Net(NET, WEIGHTS, phase=caffe.TEST),
    ],
)
def test_forms(made: object) -> None:
    assert callable(made)
    net = made()
    assert isinstance(net, caffeconv.Net)
    net.blobs["data"].data[...] = picture(3)
    assert net.forward()["prob"].argmax() == 3


@pytest.mark.parametrize(
    ("arguments", "keywords", "kind", "words"),
    [
        ((NET,), {}, TypeError, "phase is missing; caffe.TEST"),
        ((NET, WEIGHTS), {}, TypeError, "phase is missing"),
        ((NET, 2), {}, TypeError, "phase is 2"),
        ((NET, WEIGHTS, WEIGHTS), {}, TypeError, "phase is '"),
        ((NET, 1), {"weights": 3}, TypeError, "weights is 3; the path"),
        ((NET, 1), {"level": "x"}, TypeError, "level is 'x'"),
        ((NET, 1), {"stages": 5}, TypeError, "stages is 5"),
        ((NET, WEIGHTS, 1), {"weights": WEIGHTS}, TypeError, "one of them twice"),
        ((NET, WEIGHTS, 1, 2), {}, TypeError, "too many arguments"),
        (("no.prototxt", 1), {}, RuntimeError, "Could not open file no.prototxt"),
        ((NET, "no.caffemodel", 1), {}, RuntimeError, "Could not open file no.caffemodel"),
    ],
)
def test_wrong_forms(
    arguments: tuple[object, ...], keywords: dict[str, object], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words) as caught:
        caffe.Net(*arguments, **keywords)  # type: ignore[call-overload]
    assert isinstance(caught.value, caffeconv.CaffeconvError)


def test_names(net: caffe.Net) -> None:
    assert (net.inputs, net.outputs, net.name) == (["data"], ["prob"], "digits")
    assert list(net.blobs)[:3] == ["data", "scaled", "conv1"] == net._blob_names[:3]
    assert list(net._layer_names) == list(net.layer_dict)
    assert [layer.type for layer in net.layers][:3] == ["Input", "Power", "Convolution"]  # type: ignore[attr-defined]
    layer = net.layer_dict["conv1"]
    assert isinstance(layer, NetLayer)
    assert [blob.data.shape for blob in layer.blobs] == [(8, 1, 5, 5), (8,)]
    assert (net.top_names["ip1"], net.bottom_names["relu1"]) == (["ip1"], ["ip1"])
    assert list(net.params) == ["conv1", "conv2", "ip1", "ip2"]
    weight = net.params["ip2"][0]
    assert (weight.num, weight.channels, weight.height, weight.width, weight.count) == (10, 64, 1, 1, 640)
    with pytest.raises(AttributeError):
        weight.data = 3  # type: ignore[misc, assignment]


def test_shapes_that_no_blob_has(net: caffe.Net) -> None:
    for shape in ((1, 1, -1, 28), (1, 1, 200_000_000, 200_000), (0, 1, 1 << 20, 1 << 20)):
        with pytest.raises(caffeconv.CaffeconvError, match=r"blob 'data' cannot be .*at most 2147483647 values"):
            net.blobs["data"].reshape(*shape)
    assert net.blobs["data"].shape == (1, 1, 28, 28)


def test_loss_weights() -> None:
    case = ROOT / "fixtures" / "goldens" / "layers" / "net_losses_summed"
    net = caffe.Net(case / "net.prototxt", case / "weights.caffemodel", caffe.TEST)
    weights = {name: weight for name, weight in net.blob_loss_weights.items() if weight}
    assert weights == pytest.approx({"l1": 1, "l2": 0.3, "l3": 1})
    record = next(Case(case, {}).records())
    for name, values in part(record, "in/").items():
        net.blobs[name].data[...] = values
    net.forward()
    total = sum(weight * float(net.blobs[name].data) for name, weight in weights.items())
    np.testing.assert_allclose(total, record["total_loss"], rtol=1e-4)


# -- calling it --------------------------------------------------------------------------------------------------------


def test_inputs_are_all_given_or_none(tmp_path: Path) -> None:
    layer = 'layer { name: "s" type: "Eltwise" bottom: "a" bottom: "b" top: "s" }'
    net = caffe.Net(str(write_net(tmp_path, {"a": (2, 1), "b": (2, 1)}, layer)), caffe.TEST)
    with pytest.raises(Exception, match=r"Input blob arguments do not match net inputs\. Given: a; the net's: a, b"):
        net.forward(a=np.ones((2, 1)))
    with pytest.raises(Exception, match="Input is not batch sized: 'b' has 3 items, the net takes 2"):
        net.forward(a=np.ones((2, 1)), b=np.ones((3, 1)))
    np.testing.assert_array_equal(net.forward(a=np.ones((2, 1)), b=np.ones((2, 1)))["s"], [[2], [2]])


def test_forward_all(net: caffe.Net) -> None:
    pictures = np.concatenate([picture(digit) for digit in range(5)])
    net.blobs["data"].reshape(2, 1, 28, 28)
    found = net.forward_all(blobs=["ip1"], data=pictures)
    assert {name: values.shape for name, values in found.items()} == {"prob": (5, 10), "ip1": (5, 64)}
    assert found["prob"].argmax(1).tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(Exception, match=r"arrays of equally many items, at least one, were needed.*none is given"):
        net.forward_all()
    with pytest.raises(Exception, match="data has 0"):
        net.forward_all(data=pictures[:0])


def test_forward_backward_all(tmp_path: Path) -> None:
    layers = 'layer { name: "p" type: "Power" bottom: "x" top: "y" power_param { scale: 3 } }'
    net = caffe.Net(str(write_net(tmp_path, {"x": (2, 1)}, layers, "force_backward: true\n")), caffe.TEST)
    x = np.arange(5, dtype=np.float32)[:, None]
    blobs, diffs = net.forward_backward_all(x=x, y=x + 1)
    np.testing.assert_array_equal(blobs["y"], 3 * x)
    np.testing.assert_array_equal(diffs["x"], 3 * (x + 1))


def test_a_loss_gives_one_value_a_batch(tmp_path: Path) -> None:
    loss = 'layer { name: "l" type: "EuclideanLoss" bottom: "x" bottom: "t" top: "l" }'
    net = caffe.Net(str(write_net(tmp_path, {"x": (2, 1), "t": (2, 1)}, loss)), caffe.TEST)
    found = net.forward_all(x=np.full((3, 1), 2), t=np.zeros((3, 1)))
    np.testing.assert_allclose(found["l"], [2, 1])


def test_backward_callbacks_are_refused(net: caffe.Net) -> None:
    for register in (net.before_backward, net.after_backward):
        with pytest.raises(caffeconv.CaffeconvError, match="a backward pass runs as one piece"):
            register(print)


# -- parameters in files -----------------------------------------------------------------------------------------------


def test_saved_and_read_again(net: caffe.Net, tmp_path: Path) -> None:
    net.params["ip2"][1].data[...] += np.arange(10)
    want = net.forward(data=picture(4))["prob"].copy()
    net.save(str(tmp_path / "new.caffemodel"))
    net.save_hdf5(str(tmp_path / "new.caffemodel.h5"))
    for file in ("new.caffemodel", "new.caffemodel.h5"):
        again = caffe.Net(NET, str(tmp_path / file), caffe.TEST)
        np.testing.assert_array_equal(again.forward(data=picture(4))["prob"], want)
    itself = caffeconv.Net(tmp_path / "new.caffemodel")
    np.testing.assert_array_equal(itself.forward(data=picture(4))["prob"], want)


def test_what_a_saved_file_holds(net: caffe.Net, tmp_path: Path) -> None:
    net.save(tmp_path / "new.caffemodel")
    saved = caffe.proto.caffe_pb2.NetParameter.FromString((tmp_path / "new.caffemodel").read_bytes())
    assert saved.name == "digits"
    assert [layer.name for layer in saved.layer] == net.layer_names
    conv1 = saved.layer[2]
    assert (conv1.type, list(conv1.bottom), list(conv1.top), conv1.phase) == (
        "Convolution",
        ["scaled"],
        ["conv1"],
        caffe.TEST,
    )
    assert conv1.convolution_param.kernel_size == [5]
    np.testing.assert_array_equal(caffe.io.blobproto_to_array(conv1.blobs[0]), net.params["conv1"][0].data)
    net.save_hdf5(tmp_path / "new.h5")
    with h5py.File(tmp_path / "new.h5") as file:
        assert set(file["data"]) == set(net.layer_names)
        assert file["data/conv1/0"].dtype == np.float32
        assert file["data/conv1/0"].shape == (8, 1, 5, 5)


@pytest.mark.parametrize("name", ["net_shared_weight_only", "net_shared_permissive", "prelu_shared"])
def test_shared_parameters_survive_a_file(name: str, tmp_path: Path) -> None:
    (case,) = (case for case in cases("layers") if case.folder.name == name)
    record = next(case.records())
    net = caffe.Net(str(case.folder / case.net), caffe.TEST, weights=str(case.folder / str(case.weights)))
    for save, file in ((net.save, "s.caffemodel"), (net.save_hdf5, "s.h5")):
        save(tmp_path / file)
        again = caffe.Net(str(case.folder / case.net), caffe.TEST)
        again.copy_from(str(tmp_path / file))
        again.forward(**part(record, "in/"))  # type: ignore[arg-type]
        for blob, want in part(record, "blob/").items():
            assert difference(case, blob, again.blobs[blob].data, want) is None
    with h5py.File(tmp_path / "s.h5") as file_:
        owned = sum(len(file_["data"][layer]) for layer in file_["data"])
    assert owned == len({blob.data.ctypes.data for blobs in net.params.values() for blob in blobs})


def test_copy_from_leaves_what_the_file_lacks(net: caffe.Net, tmp_path: Path) -> None:
    held = net.params["conv1"][0].data
    other = np.full((10, 64), 0.5, np.float32)
    net.params["ip1"][0].data[...] = 7
    net.copy_from(str(write_weights(tmp_path / "w.caffemodel", "ip2", [other, np.zeros(10, np.float32)])))
    np.testing.assert_array_equal(net.params["ip2"][0].data, other)
    assert (net.params["ip1"][0].data == 7).all()
    net.copy_from(WEIGHTS)
    assert net.params["conv1"][0].data is held
    assert net.forward(data=picture(3))["prob"].argmax() == 3


def test_copy_from_reaches_arrays_in_hand_and_the_next_forward(net: caffe.Net) -> None:
    held = net.params["ip2"][0].data
    want, right = net.forward(data=picture(3))["prob"].copy(), held.copy()
    held[...] = 0
    assert not np.allclose(net.forward()["prob"], want)
    net.copy_from(WEIGHTS)
    np.testing.assert_array_equal(held, right)
    np.testing.assert_array_equal(net.forward()["prob"], want)


def test_copy_from_what_does_not_fit_changes_nothing(net: caffe.Net, tmp_path: Path) -> None:
    before = net.params["ip2"][0].data.copy()
    file = tmp_path / "w.caffemodel"
    write_weights(file, "ip2", [np.zeros((10, 64), np.float32), np.zeros(9, np.float32)])
    with pytest.raises(caffeconv.CaffeconvError, match="Cannot copy param 1 weights from layer 'ip2'; shape mismatch"):
        net.copy_from(str(file))
    np.testing.assert_array_equal(net.params["ip2"][0].data, before)
    file.write_bytes(Path(WEIGHTS).read_bytes()[:5000])
    with pytest.raises(caffeconv.CaffeconvError, match=r"w\.caffemodel"):
        net.copy_from(str(file))
    with pytest.raises(caffeconv.CaffeconvError, match=r"no\.caffemodel"):
        net.copy_from("no.caffemodel")
    for path in (WEIGHTS, "no.h5"):
        with pytest.raises(caffeconv.CaffeconvError, match="this is no HDF5 file, or not there"):
            net.load_hdf5(path)
    np.testing.assert_array_equal(net.params["ip2"][0].data, before)


def test_a_net_is_saved_over_its_own_weights(tmp_path: Path) -> None:
    file = tmp_path / "w.caffemodel"
    shutil.copy(WEIGHTS, file)
    net = caffe.Net(NET, str(file), caffe.TEST)
    net.params["ip2"][1].data[...] = 0
    net.save(file)
    want = net.forward(data=picture(3))["prob"].copy()
    np.testing.assert_array_equal(caffe.Net(NET, str(file), caffe.TEST).forward(data=picture(3))["prob"], want)


def test_where_nothing_can_be_saved(net: caffe.Net, tmp_path: Path) -> None:
    for save in (net.save, net.save_hdf5):
        with pytest.raises(caffeconv.CaffeconvError, match="there is no folder"):
            save(str(tmp_path / "nowhere" / "w"))
    slashed = 'layer { name: "a/b" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 2 } }'
    other = caffe.Net(str(write_net(tmp_path, {"x": (1, 3)}, slashed)), caffe.TEST)
    with pytest.raises(caffeconv.CaffeconvError, match="layer 'a/b' cannot be a group in HDF5"):
        other.save_hdf5(tmp_path / "w.h5")
    assert not (tmp_path / "w.h5").exists()
    other.save(tmp_path / "w.caffemodel")


def test_share_with(net: caffe.Net) -> None:
    other = caffe.Net(NET, caffe.TEST)
    other.share_with(net)
    np.testing.assert_array_equal(other.forward(data=picture(5))["prob"], net.forward(data=picture(5))["prob"])
    net.params["ip2"][1].data[...] += 10 * np.arange(10)
    np.testing.assert_array_equal(other.forward()["prob"], net.forward()["prob"])
    assert other.forward()["prob"].argmax() == 9
    other.params["ip2"][1].data[...] = 0
    assert not net.params["ip2"][1].data.any()
    assert other.params["conv1"][0].diff is not net.params["conv1"][0].diff


def test_share_with_what_does_not_fit(net: caffe.Net, tmp_path: Path) -> None:
    layer = 'layer { name: "ip1" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 2 } }'
    other = caffe.Net(str(write_net(tmp_path, {"x": (1, 3)}, layer)), caffe.TEST)
    with pytest.raises(caffeconv.CaffeconvError, match="Cannot share param 0 weights from layer 'ip1'; shape mismatch"):
        other.share_with(net)


# -- where Python layers come from -------------------------------------------------------------------------------------

DOUBLE = """
import caffe
from caffe.proto import caffe_pb2
from caffe import layers as L
import caffe.io


class Double(caffe.Layer):
    def setup(self, bottom, top):
        assert self.phase == caffe.TEST == caffe_pb2.TEST
        assert caffe.__version__ == "1.0.0"
        self.factor = 2 * caffe.io.resize_image(__import__("numpy").ones((1, 1, 1)), (1, 1))[0, 0, 0]
        self.seen = 0

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        self.seen += 1
        top[0].data[...] = self.factor * bottom[0].data

    def backward(self, top, propagate_down, bottom):
        pass
"""
PYTHON = 'layer { name: "d" type: "Python" bottom: "x" top: "y" python_param { module: "doubling" layer: "Double" } }'


@pytest.fixture
def doubling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "doubling.py").write_text(DOUBLE)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    yield str(write_net(tmp_path, {"x": (1, 2)}, PYTHON))
    sys.modules.pop("doubling", None)


def test_python_layers_run_from_where_python_looks(doubling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(doubling).parent))
    net = caffe.Net(doubling, caffe.TEST)
    np.testing.assert_array_equal(net.forward(x=np.array([[1, 2]]))["y"], [[2, 4]])
    (layer,) = (layer for layer in net.layers if not isinstance(layer, NetLayer))
    assert (type(layer).__name__, layer.type, layer.seen) == ("Double", "Python", 1)  # type: ignore[attr-defined]
    assert "caffe" not in sys.modules


def test_python_layers_beside_the_prototxt_need_to_be_allowed(doubling: str) -> None:
    with pytest.raises(
        caffeconv.CaffeconvError, match=r"No module named 'doubling'.*on sys\.path only.*allow_python=True"
    ):
        caffe.Net(doubling, caffe.TEST)
    net = caffe.Net(doubling, caffe.TEST, allow_python=True)
    np.testing.assert_array_equal(net.forward(x=np.array([[1, 2]]))["y"], [[2, 4]])


def test_python_layers_can_be_refused(doubling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(doubling).parent))
    with pytest.raises(caffeconv.CaffeconvError, match="imported and run only where that is allowed"):
        caffe.Net(doubling, caffe.TEST, allow_python=False)
    with pytest.raises(caffeconv.CaffeconvError, match="imported and run only where that is allowed"):
        caffeconv.Net(doubling)
    assert "doubling" not in sys.modules


# -- the module --------------------------------------------------------------------------------------------------------


def test_the_module() -> None:
    assert (caffe.TRAIN, caffe.TEST, caffe.__version__) == (0, 1, "1.0.0")
    types = caffe.layer_type_list()
    assert {"Convolution", "InnerProduct", "Python"} <= set(types)
    assert types == sorted(types)
    caffe.init_log()
    caffe.log("said")
    assert caffe.proto.caffe_pb2.NetParameter is caffe.io.caffe_pb2.NetParameter
