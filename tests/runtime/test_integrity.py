"""A model whose weights lie outside of it runs with those weights or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from support.small_nets import write_net, write_weights

import caffeconv
from caffeconv.cli import main
from caffeconv.emit.onnx_writer import Storage


@pytest.fixture(params=["external", "link"])
def storage(request: pytest.FixtureRequest) -> Storage:
    found: Storage = request.param
    return found


@pytest.fixture
def model(tmp_path: Path, storage: Storage) -> tuple[Path, Path]:
    """A model, and the file that its weights lie in."""
    settings = "inner_product_param { num_output: 8 bias_term: false }"
    layers = f'layer {{ name: "ip" type: "InnerProduct" bottom: "x" top: "y" {settings} }}'
    net = write_net(tmp_path, {"x": (1, 64)}, layers)
    weights = write_weights(tmp_path / "w.caffemodel", "ip", [np.ones((8, 64), "f4")])
    written = caffeconv.convert_to(tmp_path / "m.onnx", net, weights, storage=storage)
    np.save(tmp_path / "x.npy", np.ones((1, 64), "f4"))
    return tmp_path / "m.onnx", weights if written.data is None else tmp_path / written.data.location


def run(path: Path) -> Result:
    return CliRunner().invoke(main, ["run", str(path), "--input", str(path.with_name("x.npy"))])


def test_as_it_was(model: tuple[Path, Path]) -> None:
    result = run(model[0])
    assert result.exit_code == 0
    assert "64" in result.stdout


def test_gone(model: tuple[Path, Path]) -> None:
    path, data = model
    data.unlink()
    result = run(path)
    assert result.exit_code == 1
    assert f"{path}: its weights lie in {data}, and there is no such file: put the file back" in result.stderr


@pytest.mark.parametrize("change", [-1, 1])
def test_another_size(model: tuple[Path, Path], change: int) -> None:
    path, data = model
    content = data.read_bytes()
    data.write_bytes(content[:-1] if change < 0 else content + b"x")
    result = run(path)
    assert result.exit_code == 1
    assert f"has {len(content) + change} bytes where {len(content)} were needed" in result.stderr


def test_one_bit_of_it(model: tuple[Path, Path]) -> None:
    path, data = model
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    result = run(path)
    assert result.exit_code == 1
    assert f"{data}, which has changed since the model was written (SHA-256 " in result.stderr


def test_both_moved(model: tuple[Path, Path], tmp_path: Path) -> None:
    path, data = model
    (tmp_path / "new").mkdir()
    for file in (path, data, tmp_path / "x.npy"):
        file.rename(tmp_path / "new" / file.name)
    assert run(tmp_path / "new" / path.name).exit_code == 0
