"""caffeconv make-h: the file, the layer that uses it on stdout, warnings on stderr."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from caffeconv.caffe_pb2 import NetParameter
from caffeconv.cli import main
from caffeconv.make_h import from_distances, from_frequencies, read_blob
from caffeconv.read.prototxt import parse_text


def make_h(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["make-h", *map(str, arguments)])


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "H.binaryproto"


def test_identity(out: Path) -> None:
    result = make_h("--identity", "3", "-o", out)
    assert result.exit_code == 0
    np.testing.assert_array_equal(read_blob(out), np.eye(3)[None, None])
    assert (
        result.stderr == "caffeconv: warning: H is the identity: InfogainLoss then computes what SoftmaxWithLoss does\n"
    )


def test_stdout_is_the_layer(out: Path) -> None:
    result = make_h("--frequencies", "900,90,10", "-o", out)
    net = NetParameter()
    parse_text(result.stdout, net, "stdout")
    (layer,) = net.layer
    assert (layer.type, layer.infogain_loss_param.source) == ("InfogainLoss", str(out))
    assert result.stderr == ""
    np.testing.assert_array_equal(read_blob(out)[0, 0], from_frequencies([900, 90, 10]))


def test_distances(out: Path) -> None:
    assert make_h("--distances", "0,1,2.5", "--spread", "2", "-o", out).exit_code == 0
    np.testing.assert_array_equal(read_blob(out)[0, 0], from_distances([0, 1, 2.5], 2))


def test_source(out: Path, tmp_path: Path) -> None:
    table = tmp_path / "H.csv"
    table.write_text("1,2\n0,0\n")
    result = make_h(table, "-o", out, "--legacy")
    assert out.read_bytes()[:8] == bytes.fromhex("0801100118022002")
    np.testing.assert_array_equal(read_blob(out)[0, 0], [[1, 2], [0, 0]])
    assert "warning: H is not symmetric" in result.stderr
    assert "warning: row 1 of H has only zeros" in result.stderr


def test_quiet_and_verbose(out: Path) -> None:
    assert make_h("--identity", "2", "-o", out, "-q").stderr == ""
    assert "H.binaryproto: 2×2" in make_h("--identity", "2", "-o", out, "-v").stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "nothing given; one of SOURCE, --identity, --frequencies, --distances was needed"),
        (("x.csv", "--identity", "2"), 2, "SOURCE and --identity given"),
        (("--identity", "0"), 2, "0 is not in the range"),
        (("--frequencies", "1;2"), 2, "--frequencies 1;2: numbers apart by commas were needed"),
        (("--frequencies", "1,0"), 1, "a number above 0 for each class was needed"),
        (("--distances", "0,1", "--spread", "0"), 1, "a spread above 0, were needed"),
        (("nowhere.csv",), 1, "nowhere.csv: no such file"),
    ],
)
def test_wrong_use(out: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    result = make_h(*arguments, "-o", out)
    assert result.exit_code == code
    assert message in result.stderr
    assert result.stdout == ""
    assert not out.exists()


def test_input_is_not_overwritten(out: Path) -> None:
    make_h("--identity", "2", "-o", out)
    before = out.read_bytes()
    result = make_h(out, "-o", out, "--legacy")
    assert result.exit_code == 1
    assert "this is the input, and is not overwritten" in result.stderr
    assert out.read_bytes() == before
