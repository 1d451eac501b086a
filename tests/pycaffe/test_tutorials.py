"""Scripts as people have them from tutorials: they run as they are, with another import, and come to the right numbers."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

import h5py
import lmdb
import numpy as np
import pytest
from support.golden_cases import ROOT, Case, cases, difference, part

import caffeconv
import caffeconv.pycaffe as caffe
from caffeconv.pycaffe import mode

SCRIPTS = Path(__file__).parent / "tutorials"
DIGITS = f"{ROOT / 'fixtures' / 'digits'}/"
ZOO = Path(os.environ.get("CAFFECONV_ZOO", ROOT.parent / "shared" / "zoo"))


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own; what a script does to the process is undone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mode._PROCESS, "mode", mode.Mode())
    monkeypatch.setattr(sys, "path", list(sys.path))
    for module in ("digit_layers", "caffe"):
        monkeypatch.delitem(sys.modules, module, raising=False)


def run(monkeypatch: pytest.MonkeyPatch, script: str, *arguments: object) -> dict[str, object]:
    """The names that the script leaves."""
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    return runpy.run_path(str(SCRIPTS / script), run_name="__main__")


def array(value: object) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.asarray(value, np.float64)


def test_every_script_is_run() -> None:
    """And says `import caffe` nowhere but in the module of layers."""
    here = Path(__file__).read_text()
    for script in SCRIPTS.glob("*.py"):
        assert f'"{script.name}"' in here or script.name == "digit_layers.py"
        assert ("import caffe\n" in script.read_text()) == (script.name == "digit_layers.py")


def test_classification(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    names = run(monkeypatch, "classification.py", DIGITS, "digits.caffemodel")
    assert names["predicted"] == 7
    shown = capsys.readouterr().out
    assert "output label: seven" in shown
    assert "conv1\t(5, 8, 24, 24)\n" in shown
    assert "ip1\t(64, 256) (64,)" in shown
    plain = caffeconv.Net(DIGITS + "deploy.prototxt", DIGITS + "digits.caffemodel")
    image = array(names["transformed_image"])[None]
    np.testing.assert_allclose(array(names["output_prob"]), plain.forward(data=image)["prob"][0], rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(array(names["feat"]), plain.blobs["conv1"].data[0], rtol=1e-4, atol=1e-5)


FULL_CONV = (
    Path(DIGITS, "deploy.prototxt")
    .read_text()
    .replace('"ip1"', '"ip1-conv"')
    .replace('"ip2"', '"ip2-conv"')
    .replace('"InnerProduct"', '"Convolution"')
    .replace("inner_product_param { num_output: 64 }", "convolution_param { num_output: 64 kernel_size: 4 }")
    .replace("inner_product_param { num_output: 10 }", "convolution_param { num_output: 10 kernel_size: 1 }")
)


def test_net_surgery(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("full_conv.prototxt").write_text(FULL_CONV)
    names = run(monkeypatch, "net_surgery.py", DIGITS, "digits.caffemodel", "full_conv.prototxt")
    prob_map, windows = array(names["prob_map"]), array(names["prob_windows"])
    assert prob_map.shape == (10, 10, 10)
    np.testing.assert_allclose(prob_map.reshape(10, -1).T, windows, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(array(names["prob_again"]), prob_map)
    assert 3 in prob_map.argmax(0)
    one_filter = array(names["one_filter"])
    assert one_filter[0, 0].any()
    assert not one_filter[0, 1:].any()


def test_feature_extraction(monkeypatch: pytest.MonkeyPatch) -> None:
    names = run(monkeypatch, "feature_extraction.py", DIGITS, "digits.caffemodel", "ip1", "features.h5")
    assert array(names["predictions"]).argmax(1).tolist() == list(range(10))
    with h5py.File("features.h5") as file:
        features = file["features"][()]
    assert features.shape == (10, 64)
    # after ip1 itself, before the ReLU that overwrites its top: as in Caffe, where nothing later has run
    assert features.min() < 0
    plain = caffeconv.Net(DIGITS + "deploy.prototxt", DIGITS + "digits.caffemodel")
    transformer = caffe.io.Transformer({"data": (1, 1, 28, 28)})
    transformer.set_transpose("data", (2, 0, 1))
    transformer.set_raw_scale("data", 255)
    for digit in (0, 5, 9):
        image = transformer.preprocess("data", caffe.io.load_image(f"{DIGITS}{digit}.png", color=False))
        want = plain.forward(blobs=["ip1"], data=image[None])["ip1"][0]
        np.testing.assert_allclose(np.maximum(features[digit], 0), want, rtol=1e-4, atol=1e-4)


def test_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    names = run(monkeypatch, "filters.py", DIGITS)
    assert array(names["tiled"]).shape == (18, 18)
    in_file = names["in_file"]
    assert isinstance(in_file, dict)
    np.testing.assert_array_equal(array(in_file["conv1"]), array(names["filters"]))


def test_lenet_by_a_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    transformer = caffe.io.Transformer({"data": (1, 1, 28, 28)})
    transformer.set_transpose("data", (2, 0, 1))
    transformer.set_raw_scale("data", 255)
    with lmdb.open("digits_lmdb") as database, database.begin(write=True) as records:
        for digit in range(10):
            image = transformer.preprocess("data", caffe.io.load_image(f"{DIGITS}{digit}.png", color=False))
            datum = caffe.io.array_to_datum(image.round().clip(0, 255).astype(np.uint8), digit)
            records.put(f"{digit:08}".encode(), datum.SerializeToString())
    names = run(monkeypatch, "lenet_netspec.py", "digits_lmdb", DIGITS + "digits.caffemodel")
    assert np.isfinite(array(names["untrained"]))
    shapes = names["shapes"]
    assert isinstance(shapes, list)
    assert ("conv2", (5, 16, 8, 8)) in shapes
    assert names["correct"] == 10
    np.testing.assert_array_equal(array(names["labels"]), array(names["again"]))


def test_layers_in_python(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    names = run(monkeypatch, "python_data_layer.py", SCRIPTS, DIGITS)
    assert array(names["seen"]).tolist() == [[0, 1], [2, 3], [4, 5]]
    np.testing.assert_allclose(array(names["loss"]), array(names["by_hand"]), rtol=1e-5)
    np.testing.assert_allclose(array(names["gradient"]), array(names["gradient_by_hand"]), rtol=1e-5, atol=1e-7)
    assert capsys.readouterr().out.strip() == "[6, 7, 8, 9, 0, 1, 2, 3, 4, 5]"


def test_deep_dream(monkeypatch: pytest.MonkeyPatch) -> None:
    energy = array(run(monkeypatch, "deep_dream.py", DIGITS)["energy"])
    assert (np.diff(energy) > 0).all()


def test_mean_file(monkeypatch: pytest.MonkeyPatch) -> None:
    (file,) = (ROOT / "fixtures" / "goldens" / "layers" / "data_lmdb_mean_file").rglob("*.binaryproto")
    names = run(monkeypatch, "mean_file.py", file)
    mean = array(names["mu"])
    np.testing.assert_allclose(array(names["x"])[:, 0, 0], np.array([0, 127.5, 255]) - mean, rtol=1e-5)


# -- published nets, where they are at hand ----------------------------------------------------------------------------

PUBLISHED = cases(root=ZOO) if ZOO.exists() else []


@pytest.mark.skipif(not PUBLISHED, reason="no published models at hand ($CAFFECONV_ZOO)")
@pytest.mark.parametrize("case", PUBLISHED, ids=lambda c: c.folder.name)
def test_published_nets(case: Case, tmp_path: Path) -> None:
    """A picture in, intermediate blobs out, then a copy of the net from what `save` wrote: Caffe's numbers each time."""
    net = caffe.Net(str(case.folder / "deploy.prototxt"), str(case.folder / "weights.caffemodel"), caffe.TEST)
    net.save(str(tmp_path / "copy.caffemodel"))
    copy = caffe.Net(str(case.folder / "deploy.prototxt"), caffe.TEST)
    copy.copy_from(str(tmp_path / "copy.caffemodel"))
    for record in case.records():
        for one in (net, copy):
            for name, values in part(record, "in/").items():
                one.blobs[name].reshape(*values.shape)
                one.blobs[name].data[...] = values
            one.forward()
            found = {name: one.blobs[name].data for name in part(record, "blob/")}
            problems = [difference(case, name, found[name], want) for name, want in part(record, "blob/").items()]
            assert [problem for problem in problems if problem] == []
