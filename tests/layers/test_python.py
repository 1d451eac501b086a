"""Python layers: the user's own classes in a net, allowed or refused, with shapes, parameters, passes and mistakes."""

from __future__ import annotations

import sys
import textwrap
import types
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from support.small_nets import Array, net_text, write_net, write_weights

import caffeconv
from caffeconv import Net
from caffeconv.cli import main
from caffeconv.conversion.load import load
from caffeconv.frontend.options import NetOptions

HEAD = "import caffe\nimport numpy as np\n"
SCALE = """
class Scale(caffe.Layer):
    def setup(self, bottom, top):
        self.factor = float(self.param_str or 2)

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data * self.factor

    def backward(self, top, propagate_down, bottom):
        if propagate_down[0]:
            bottom[0].diff[...] = top[0].diff * self.factor
"""
KEEP = """
class Keep(caffe.Layer):
    def setup(self, bottom, top):
        pass

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        kept = bottom[0].data[bottom[0].data[:, 0] > 0]
        top[0].reshape(*kept.shape)
        top[0].data[...] = kept
"""
KEEP_BACK = """
    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = 0
        bottom[0].diff[bottom[0].data[:, 0] > 0] = top[0].diff
"""
X = np.arange(1, 7, dtype=np.float32).reshape(2, 3)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A current folder that is not the net's."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")


def layer(kind: str, bottoms: str = "x", tops: str = "y", param_str: str = "", name: str = "p", rest: str = "") -> str:
    blobs = "".join(f' bottom: "{b}"' for b in bottoms.split()) + "".join(f' top: "{t}"' for t in tops.split())
    module, _, class_ = kind.rpartition(".")
    param = f"module: '{module or 'mine'}' layer: '{class_}' param_str: '{param_str}'"
    return f'layer {{ name: "{name}" type: "Python"{blobs} python_param {{ {param} }} {rest} }}\n'


def code(folder: Path, *classes: str, module: str = "mine") -> None:
    (folder / f"{module}.py").write_text(HEAD + "".join(textwrap.dedent(text) for text in classes))


def net_of(folder: Path, layers: str, head: str = "", **inputs: tuple[int, ...]) -> Net:
    return Net(write_net(folder, inputs or {"x": (2, 3)}, layers, head), allow_python=True)


def refusal(folder: Path, layers: str) -> str:
    with pytest.raises(caffeconv.CaffeconvError) as caught:
        net_of(folder, layers).forward(x=X)
    return str(caught.value)


# -- allowed or not ----------------------------------------------------------------------------------------------------


def test_refused_without_leave(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise SystemExit('imported')")
    path = write_net(tmp_path, {"x": (2, 3)}, layer("Scale"))
    for use in (Net, caffeconv.convert):
        with pytest.raises(
            caffeconv.CaffeconvError, match=r"p \(Python\), line 2.*`allow_python=True`.*trust.*`shapes="
        ):
            use(path)
    assert "`allow_python=True`" in str(caffeconv.inspect(path).diagnostics[0])


def test_commands_take_the_option(tmp_path: Path) -> None:
    code(tmp_path, SCALE)
    path, array, out = write_net(tmp_path, {"x": (2, 3)}, layer("Scale")), tmp_path / "x.npy", tmp_path / "y.npz"
    np.save(array, X)
    for command in ("inspect", "run"):
        more = ["--input", str(array), "-o", str(out)] if command == "run" else []
        assert CliRunner().invoke(main, [command, str(path), *more]).exit_code == 1
        result = CliRunner().invoke(main, [command, str(path), *more, "--allow-python"])
        assert result.exit_code == 0, result.stderr
    np.testing.assert_array_equal(np.load(out)["y"], X * 2)


def test_every_batch_of_a_run_is_a_pass(tmp_path: Path) -> None:
    code(tmp_path, SCALE)
    path, array, out = write_net(tmp_path, {"x": (2, 3)}, layer("Scale")), tmp_path / "x.npy", tmp_path / "y.npz"
    values = np.arange(15, dtype=np.float32).reshape(5, 3)
    np.save(array, values)
    options = ["--input", str(array), "-o", str(out), "--batch-size", "2", "--allow-python"]
    result = CliRunner().invoke(main, ["run", str(path), *options])
    assert result.exit_code == 0, result.stderr
    np.testing.assert_array_equal(np.load(out)["y"], values * 2)


# -- converting --------------------------------------------------------------------------------------------------------


def test_converted_to_a_node_of_our_domain(tmp_path: Path) -> None:
    code(tmp_path, SCALE)
    path = write_net(tmp_path, {"x": (2, 3)}, layer("Scale", param_str="3"))
    model = caffeconv.convert(path, allow_python=True)
    (node,) = model.graph.node
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    assert (node.domain, node.op_type, list(node.input), list(node.output)) == ("caffeconv", "Python", ["x"], ["y"])
    assert attributes == {
        "name": b"p", "module": b"mine", "layer": b"Scale", "param_str": b"3", "top_shapes": b"?x3"
    }  # fmt: skip
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17), ("caffeconv", 1)]
    assert [d.dim_param for d in model.graph.output[0].type.tensor_type.shape.dim] == ["batch", ""]
    onnx.checker.check_model(model, full_check=True)
    bound = load(path, options=NetOptions(allow_python=True)).bound
    assert "caffeconv.Net" in str(bound.diagnostics[0])


def test_shapes_from_the_caller_need_no_code(tmp_path: Path) -> None:
    path = write_net(tmp_path, {"x": (2, 3)}, layer("Scale") + 'layer { name: "r" type: "ReLU" bottom: "y" top: "z" }')
    model = caffeconv.convert(path, shapes={"y": (2, 5)})
    assert [d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim][1] == 5
    assert caffeconv.inspect(path, shapes={"y": (2, 5)}).blobs["z"] == (2, 5)


def test_parameters_are_inputs_of_the_node(tmp_path: Path) -> None:
    path = affine_net(tmp_path)
    model = caffeconv.convert(path, allow_python=True)
    assert list(model.graph.node[0].input) == ["x", "p/blob0", "p/blob1"]


def test_an_onnx_file_alone_is_refused_with_the_way_out(tmp_path: Path) -> None:
    code(tmp_path, SCALE)
    path, array = write_net(tmp_path, {"x": (2, 3)}, layer("Scale")), tmp_path / "x.npy"
    np.save(array, X)
    (tmp_path / "m.onnx").write_bytes(caffeconv.convert(path, allow_python=True).SerializeToString())
    result = CliRunner().invoke(main, ["run", str(tmp_path / "m.onnx"), "--input", str(array)])
    assert (result.exit_code, str(result.exception)) == (1, "1")
    assert "p: a Python layer runs only where caffeconv makes the session" in result.stderr


# -- running -----------------------------------------------------------------------------------------------------------


def test_two_layers_of_one_module(tmp_path: Path) -> None:
    code(tmp_path, SCALE)
    net = net_of(tmp_path, layer("Scale", "x", "y", "3", "a") + layer("Scale", "y", "z", "0.5", "b"))
    found = net.forward(["y"], x=X)
    np.testing.assert_array_equal(found["y"], X * 3)
    np.testing.assert_array_equal(found["z"], X * 1.5)


def test_layers_of_one_name(tmp_path: Path) -> None:
    code(tmp_path, SCALE)
    net = net_of(tmp_path, layer("Scale", "x", "y", "3") + layer("Scale", "y", "z", "5"))
    np.testing.assert_array_equal(net.forward(x=X)["z"], X * 15)


def test_between_other_layers(tmp_path: Path) -> None:
    code(tmp_path, SCALE)
    power = 'layer {{ name: "{0}" type: "Power" bottom: "{1}" top: "{0}" power_param {{ shift: 1 }} }}\n'
    net = net_of(tmp_path, power.format("a", "x") + layer("Scale", "a", "y") + power.format("b", "y"))
    np.testing.assert_array_equal(net.forward(x=X)["b"], (X + 1) * 2 + 1)


def test_another_batch_reshapes(tmp_path: Path) -> None:
    code(tmp_path, SCALE)
    net = net_of(tmp_path, layer("Scale"))
    for rows in (2, 5, 1, 2):
        x = np.full((rows, 3), rows, np.float32)
        np.testing.assert_array_equal(net.forward(x=x)["y"], x * 2)
    net.blobs["x"].reshape(0, 3)
    assert net.forward()["y"].shape == (0, 3)


LOG = """
class Log(caffe.Layer):
    calls = []

    def setup(self, bottom, top):
        self.calls.append("setup")
        self.seen = (self.phase, self.param_str, self.param_str_, len(bottom), len(top))

    def reshape(self, bottom, top):
        self.calls.append("reshape")
        b = bottom[0]
        self.legacy = (b.num, b.channels, b.height, b.width, b.count, b.shape)
        for t in top:
            t.reshape(*b.data.shape)

    def forward(self, bottom, top):
        self.calls.append("forward")
        top[0].data[...] = sum(self.calls.count(c) * 10 ** i for i, c in enumerate(("setup", "reshape", "forward")))
        top[1].data[...] = self.seen == (caffe.TEST, "hello", "hello", 1, 2) and self.legacy == (2, 3, 1, 1, 6, (2, 3))
"""


def test_setup_once_then_reshape_and_forward_in_each_pass(tmp_path: Path) -> None:
    code(tmp_path, LOG)
    net = net_of(tmp_path, layer("Log", "x", "y z", "hello"))
    found = net.forward(x=X)
    assert (found["y"].max(), found["z"].min()) == (121, 1)
    assert net.blobs["y"].data.max() == 121
    assert net.forward(x=X)["y"].max() == 231


def test_a_run_sets_up_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = SCALE.replace("def setup(self, bottom, top):", "def setup(self, bottom, top):\n        print('set up')")
    (tmp_path / "mine.py").write_text(HEAD + code)
    data = 'layer { name: "x" type: "DummyData" top: "x" dummy_data_param { shape { dim: 2 dim: 3 } } }\n'
    layer = 'layer { name: "p" type: "Python" bottom: "x" top: "y" python_param { module: "mine" layer: "Scale" } }'
    (tmp_path / "net.prototxt").write_text(data + layer)
    result = CliRunner().invoke(main, ["run", str(tmp_path / "net.prototxt"), "--allow-python", "--iterations", "2"])
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("set up") + capfd.readouterr().out.count("set up") == 1


def test_source(tmp_path: Path) -> None:
    code(
        tmp_path,
        """
        class Count(caffe.Layer):
            def setup(self, bottom, top):
                self.n = 0
            def reshape(self, bottom, top):
                top[0].reshape(2, 1)
            def forward(self, bottom, top):
                top[0].data[...] = self.n
                self.n += 1
        """,
    )
    path = tmp_path / "net.prototxt"
    power = 'layer { name: "r" type: "Power" bottom: "c" top: "d" power_param { scale: 2 } }\n'
    path.write_text(layer("Count", "", "c") + power + 'layer { name: "s" type: "Silence" bottom: "d" }')
    net = Net(path, allow_python=True)
    assert net.inputs == []
    for step in range(3):
        net.forward()
        # read afterwards: computed then, without another pass of the layer
        assert net.blobs["d"].data.tolist() == [[2 * step]] * 2
        assert net.blobs["c"].data.tolist() == [[step]] * 2


def test_number_of_rows_known_when_it_runs(tmp_path: Path) -> None:
    code(tmp_path, KEEP, SCALE)
    power = 'layer { name: "q" type: "Power" bottom: "kept" top: "q" power_param { shift: 1 } }\n'
    flat = 'layer { name: "f" type: "Flatten" bottom: "q" top: "f" flatten_param { axis: 0 } }\n'
    net = net_of(tmp_path, layer("Keep", "x", "kept", name="k") + power + layer("Scale", "q", "y") + flat, x=(6, 3))
    rng = np.random.default_rng(1)
    for rows in (6, 2, 5, 6, 0, 1):
        x = rng.normal(size=(6, 3)).astype(np.float32)
        x[:, 0] = [1] * rows + [-1] * (6 - rows)
        found = net.forward(["kept"], x=x)
        np.testing.assert_array_equal(found["kept"], x[:rows])
        np.testing.assert_array_equal(found["y"], (x[:rows] + 1) * 2)
        np.testing.assert_array_equal(found["f"], (x[:rows] + 1).ravel())
    assert len(net._sessions) <= 3


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_a_run_over_inputs_plans_anew_too(tmp_path: Path, batch: int, capfd: pytest.CaptureFixture[str]) -> None:
    code = KEEP.replace("        kept =", "        print('forward')\n        kept =")
    (tmp_path / "mine.py").write_text(HEAD + code + SCALE)
    layers = "".join(
        f'layer {{ name: "{top}" type: "Python" bottom: "{bottom}" top: "{top}" '
        f'python_param {{ module: "mine" layer: "{kind}" }} }}\n'
        for bottom, top, kind in (("x", "kept", "Keep"), ("kept", "scaled", "Scale"))
    )
    layers += 'layer { name: "z" type: "Power" bottom: "scaled" top: "z" power_param { shift: 1 } }\n'
    net = write_net(tmp_path, {"x": (2, 3)}, layers)
    x = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    x[0, 0], x[2, 0] = 1, -1
    np.save(tmp_path / "x.npy", x)
    out = tmp_path / "z.npy"
    options = ["--input", str(tmp_path / "x.npy"), "--batch-size", str(batch), "--allow-python", "-o", str(out), "-q"]
    result = CliRunner().invoke(main, ["run", str(net), *options])
    assert result.exit_code == 0, result.stderr
    np.testing.assert_allclose(np.load(out), x[x[:, 0] > 0] * 2 + 1, rtol=1e-6)
    assert (result.stdout + capfd.readouterr().out).count("forward") == -(-8 // batch)


def test_rows_known_when_it_runs_below_a_layer_that_needs_them(tmp_path: Path) -> None:
    code(tmp_path, KEEP, SCALE)
    lstm = 'layer { name: "l" type: "Reshape" bottom: "kept" top: "l" reshape_param { shape { dim: 1 dim: -1 dim: 3 } } }\n'
    tile = 'layer { name: "t" type: "MVN" bottom: "l" top: "t" mvn_param { normalize_variance: false } }\n'
    net = net_of(tmp_path, layer("Keep", "x", "kept", name="k") + lstm + tile + layer("Scale", "l", "y"), x=(6, 3))
    for batch, rows in ((6, 6), (6, 2), (4, 3), (4, 1), (6, 2)):
        x = np.arange(batch * 3, dtype=np.float32).reshape(batch, 3)
        x[:, 0] = [1] * rows + [-1] * (batch - rows)
        found = net.forward(x=x)
        np.testing.assert_array_equal(found["y"], x[None, :rows] * 2)
        assert abs(found["t"].mean()) < 1e-5


GROW = """
class Grow(caffe.Layer):
    def setup(self, bottom, top):
        self.n = 1
        top[0].reshape(1, 1, 4, 4)

    def reshape(self, bottom, top):
        pass

    def forward(self, bottom, top):
        self.n += 1
        top[0].reshape(1, 1, 4 * self.n, 4 + self.n)
        top[0].data[...] = self.n
"""


def test_any_shape_known_when_it_runs(tmp_path: Path) -> None:
    code(tmp_path, GROW, SCALE)
    pool = 'layer { name: "q" type: "Pooling" bottom: "g" top: "q" pooling_param { pool: AVE global_pooling: true } }\n'
    flat = 'layer { name: "f" type: "Reshape" bottom: "y" top: "f" reshape_param { shape { dim: 2 dim: -1 } } }\n'
    path = tmp_path / "net.prototxt"
    path.write_text(layer("Grow", "", "g", name="g") + pool + layer("Scale", "g", "y", name="s") + flat)
    net = Net(path, allow_python=True)
    for n in (2, 3, 4):
        found = net.forward(["y"])
        assert found["y"].shape == (1, 1, 4 * n, 4 + n)
        assert found["f"].shape == (2, 2 * n * (4 + n))
        assert (found["f"] == 2 * n).all()
        assert found["q"].ravel() == n


def test_in_place(tmp_path: Path) -> None:
    code(
        tmp_path,
        """
        class Add(caffe.Layer):
            def setup(self, bottom, top):
                pass
            def reshape(self, bottom, top):
                pass
            def forward(self, bottom, top):
                top[0].data[...] += 1
        """,
    )
    power = 'layer { name: "c" type: "Power" bottom: "x" top: "c" }\n'
    net = net_of(tmp_path, power + layer("Add", "c", "c", name="a") + layer("Add", "c", "c", name="b"))
    assert net.blobs["c"].shape == (2, 3)
    np.testing.assert_array_equal(net.forward(x=X)["c"], X + 2)


def test_scalar_top(tmp_path: Path) -> None:
    total = SCALE.replace("*bottom[0].shape", "").replace("bottom[0].data *", "bottom[0].data.sum() *")
    code(tmp_path, total)
    net = net_of(tmp_path, layer("Scale"))
    assert net.forward(x=X)["y"].shape == ()
    assert net.blobs["y"].data == 42


def test_layer_without_tops_runs_in_each_pass(tmp_path: Path) -> None:
    code(
        tmp_path,
        """
        class Write(caffe.Layer):
            def setup(self, bottom, top):
                pass
            def reshape(self, bottom, top):
                pass
            def forward(self, bottom, top):
                with open(self.param_str, "a") as file:
                    file.write(f"{bottom[0].data.sum():g} ")
        """,
    )
    relu = 'layer { name: "r" type: "ReLU" bottom: "x" top: "y" }'
    net = net_of(tmp_path, layer("Write", "x", "", str(tmp_path / "seen.txt")) + relu)
    net.forward(x=X)
    net.forward(x=X * 2)
    assert (tmp_path / "seen.txt").read_text() == "21 42 "


# -- parameters --------------------------------------------------------------------------------------------------------

AFFINE = """
class Affine(caffe.Layer):
    def setup(self, bottom, top):
        self.blobs.add_blob(bottom[0].channels)
        self.blobs.add_blob(1)
        self.blobs[0].data[...] = 2
        assert len(self.blobs) == 2

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data * self.blobs[0].data + self.blobs[1].data

    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[...] += (top[0].diff * bottom[0].data).sum(axis=0)
        self.blobs[1].diff[...] += top[0].diff.sum()
        if propagate_down[0]:
            bottom[0].diff[...] = top[0].diff * self.blobs[0].data
"""


def affine_net(folder: Path, rest: str = "", head: str = "") -> Path:
    code(folder, AFFINE)
    return write_net(folder, {"x": (2, 3)}, layer("Affine") + rest, head)


def test_parameters(tmp_path: Path) -> None:
    path = affine_net(tmp_path)
    assert caffeconv.inspect(path, allow_python=True).params == {"p": [(3,), (1,)]}
    net = Net(path, allow_python=True)
    np.testing.assert_array_equal(net.forward(x=X)["y"], X * 2)
    net.params["p"][1].data[...] = 5
    np.testing.assert_array_equal(net.forward(x=X)["y"], X * 2 + 5)
    factors = np.array([1, 2, 3], np.float32)
    weights = write_weights(tmp_path / "w.caffemodel", "p", [factors, np.ones(1, np.float32)])
    np.testing.assert_array_equal(Net(path, weights, allow_python=True).forward(x=X)["y"], X * factors + 1)
    bad = write_weights(tmp_path / "bad.caffemodel", "p", [np.ones(4, np.float32), np.ones(1, np.float32)])
    with pytest.raises(caffeconv.CaffeconvError, match="shape mismatch"):
        Net(path, bad, allow_python=True)
    net.copy_from(weights)
    np.testing.assert_array_equal(net.params["p"][0].data, factors)
    np.testing.assert_array_equal(net.forward(x=X)["y"], X * factors + 1)


# -- backward ----------------------------------------------------------------------------------------------------------


def test_backward_through_the_users_method(tmp_path: Path) -> None:
    loss = 'layer { name: "l" type: "Reduction" bottom: "z" top: "l" loss_weight: 1 }\n'
    path = affine_net(tmp_path, layer("Scale", "y", "z", "3", "s") + loss, "force_backward: true\n")
    code(tmp_path, AFFINE, SCALE)
    net = Net(path, allow_python=True)
    for passes in (1, 2):
        net.forward(x=X)
        np.testing.assert_array_equal(net.backward()["x"], np.full((2, 3), 6))
        np.testing.assert_array_equal(net.blobs["y"].diff, np.full((2, 3), 3))
        np.testing.assert_array_equal(net.params["p"][0].diff, 3 * X.sum(axis=0) * passes)
        np.testing.assert_array_equal(net.params["p"][1].diff, [18 * passes])


def test_what_a_layer_notes_in_forward_is_there_in_backward(tmp_path: Path) -> None:
    """Planning for other shapes leaves the layer as its last pass did."""
    noting = SCALE.replace("top[0].reshape(", "self.noted = np.zeros(bottom[0].shape)\n        top[0].reshape(")
    noting = noting.replace("top[0].data[...] =", "self.noted[...] = bottom[0].data\n        top[0].data[...] =")
    code(tmp_path, KEEP + KEEP_BACK, noting.replace("top[0].diff *", "self.noted * top[0].diff *"))
    loss = 'layer { name: "l" type: "Reduction" bottom: "y" top: "l" loss_weight: 1 }\n'
    layers = layer("Keep", "x", "kept", name="k") + layer("Scale", "kept", "y", name="s") + loss
    net = net_of(tmp_path, layers, "force_backward: true\n", x=(4, 3))
    for kept in (2, 3, 2):
        x = np.arange(12, dtype=np.float32).reshape(4, 3)
        x[:, 0] = [1] * kept + [-1] * (4 - kept)
        net.forward(x=x)
        found = net.backward(["kept"])
        np.testing.assert_array_equal(found["kept"], x[:kept] * 2)
        np.testing.assert_array_equal(found["x"], np.where(x[:, :1] > 0, x * 2, 0))


# -- where the module is -----------------------------------------------------------------------------------------------


def test_nets_with_modules_of_one_name(tmp_path: Path) -> None:
    nets = []
    for factor in ("2", "7"):
        folder = tmp_path / factor
        folder.mkdir()
        (folder / "helper_of_mine.py").write_text(f"FACTOR = {factor}\n")
        code(folder, "import helper_of_mine\n" + SCALE.replace("self.param_str or 2", "helper_of_mine.FACTOR"))
        nets.append(net_of(folder, layer("Scale")))
    assert [net.forward(x=X)["y"][0, 0] for net in nets] == [2, 7]
    assert not {"mine", "helper_of_mine", "caffe"} & sys.modules.keys()


def test_module_in_the_current_folder_and_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code(Path.cwd(), SCALE, module="here")
    assert net_of(tmp_path, layer("here.Scale")).forward(x=X)["y"][0, 0] == 2
    (tmp_path / "path" / "pack").mkdir(parents=True)
    code(tmp_path / "path" / "pack", SCALE, module="__init__")
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    assert net_of(tmp_path, layer("pack.Scale")).forward(x=X)["y"][0, 0] == 2
    monkeypatch.delitem(sys.modules, "pack")


def test_import_while_running(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text("import caffe\nFACTOR = 4 + caffe.TRAIN\n")
    code(tmp_path, SCALE.replace("bottom[0].data *", "bottom[0].data * __import__('late').FACTOR *"))
    assert net_of(tmp_path, layer("Scale")).forward(x=X)["y"][0, 0] == 8
    assert "late" not in sys.modules


def test_a_real_caffe_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = types.ModuleType("caffe")

    class Layer:
        def __init__(self, needed: int) -> None:
            raise AssertionError("only Caffe makes these")

    real.Layer = Layer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "caffe", real)
    code(tmp_path, SCALE, "\nassert caffe.Layer.__module__ != 'caffeconv.pycaffe_shim'\n")
    assert net_of(tmp_path, layer("Scale", param_str="4")).forward(x=X)["y"][0, 0] == 4
    assert sys.modules["caffe"] is real


# -- mistakes ----------------------------------------------------------------------------------------------------------


def test_no_module(tmp_path: Path) -> None:
    message = refusal(tmp_path, layer("nowhere.L"))
    assert "p (Python), line 2: No module named 'nowhere'" in message
    assert str(tmp_path) in message
    assert str(Path.cwd()) in message


def test_module_that_lacks_another(tmp_path: Path) -> None:
    code(tmp_path, "import not_there_either\n")
    message = refusal(tmp_path, layer("L"))
    assert f'File "{tmp_path / "mine.py"}", line 3, in <module>' in message
    assert message.endswith("ModuleNotFoundError: No module named 'not_there_either'")


def test_no_class(tmp_path: Path) -> None:
    code(tmp_path, SCALE)
    assert "has no class 'Skale'; layers in it: Scale" in refusal(tmp_path, layer("Skale"))


def test_no_param(tmp_path: Path) -> None:
    assert "python_param" in refusal(tmp_path, 'layer { name: "p" type: "Python" bottom: "x" top: "y" }')


@pytest.mark.parametrize("method", ["setup", "reshape", "forward"])
def test_exception_shows_the_users_traceback(tmp_path: Path, method: str) -> None:
    head = f"    def {method}(self, bottom, top):\n"
    deep = "    def deep(self):\n        raise ValueError('no good')\n"
    code(tmp_path, SCALE.replace(head, head + "        self.deep()\n" + deep + "    def rest(self, bottom, top):\n"))
    with pytest.raises(caffeconv.CaffeconvError) as caught:
        net_of(tmp_path, layer("Scale")).forward(x=X)
    message = str(caught.value)
    assert message.startswith(f"p (Python), line 2: layer 'Scale' of module 'mine' failed in {method}\nTraceback")
    assert message.endswith("ValueError: no good")
    assert f'{tmp_path / "mine.py"}", line' in message
    assert "in deep" in message
    assert "caffeconv/" not in message
    assert "onnxruntime" not in message


def test_syntax_error(tmp_path: Path) -> None:
    code(tmp_path, "def broken(:\n")
    message = refusal(tmp_path, layer("L"))
    assert "SyntaxError" in message
    assert "def broken(:" in message
    assert "importlib" not in message


def test_setup_that_fails_runs_once(tmp_path: Path) -> None:
    code(
        tmp_path,
        """
        class L(caffe.Layer):
            def setup(self, bottom, top):
                open('tried', 'a').write('x')
                raise ValueError
        """,
    )
    assert "ValueError" in refusal(tmp_path, layer("L"))
    assert Path("tried").read_text() == "x"


def test_interrupt_passes_through(tmp_path: Path) -> None:
    code(tmp_path, SCALE.replace("top[0].data[...] =", "raise KeyboardInterrupt\n        top[0].data[...] ="))
    net = net_of(tmp_path, layer("Scale"))
    with pytest.raises(KeyboardInterrupt) as caught:
        net.forward(x=X)
    assert caught.value.__context__ is None


def test_after_an_exception_the_net_still_runs(tmp_path: Path) -> None:
    check = "assert bottom[0].data.min() > 0, 'negative'\n        "
    code(tmp_path, SCALE.replace("top[0].data[...] =", check + "top[0].data[...] ="))
    net = net_of(tmp_path, layer("Scale"))
    with pytest.raises(caffeconv.CaffeconvError, match="AssertionError: negative"):
        net.forward(x=-X)
    np.testing.assert_array_equal(net.forward(x=X)["y"], X * 2)


def test_values_of_a_pass_may_be_kept(tmp_path: Path) -> None:
    """What user code keeps of `data` is memory of its own blobs, never of onnxruntime's."""
    keep = "self.held = bottom[0].data\n        top[0].data[...] ="
    code(tmp_path, SCALE.replace("top[0].data[...] =", keep).replace("top[0].diff *", "self.held * top[0].diff *"))
    loss = 'layer { name: "l" type: "Reduction" bottom: "y" top: "l" loss_weight: 1 }\n'
    net = net_of(tmp_path, layer("Scale") + loss, "force_backward: true\n")
    net.forward(x=X)
    np.testing.assert_array_equal(net.backward()["x"], X * 2)


def test_net_text_needs_no_python_for_other_phases(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    relu = 'layer { name: "r" type: "ReLU" bottom: "x" top: "z" }\n'
    path.write_text(net_text({"x": (2, 3)}, layer("Scale", rest="include { phase: TRAIN }") + relu))
    found: Array = Net(path).forward(x=-X)["z"]
    assert not found.any()
