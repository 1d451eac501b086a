"""Messages for whoever types a command: arguments of Python become options."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.golden_cases import ROOT

import caffeconv
from caffeconv.cli import main
from caffeconv.cli.commands import convert, inspect, make_h, run, upgrade
from caffeconv.cli.shell_words import OPTIONS, in_shell_words

COMMANDS = (
    convert.convert_command, inspect.inspect_command, make_h.make_h_command, run.run_command, upgrade.upgrade_command
)  # fmt: skip
OF_OTHERS = {"ntop", "stateful"}
"""Arguments of pycaffe's NetSpec and of Keras that messages name."""
OF_PYTHON_ALONE = {"batches", "kind", "model", "most_deviation", "name", "other"}
"""Arguments of functions that no command calls with what a user types."""
DIGITS = ROOT / "fixtures" / "digits"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("leave `half=True` out", "leave --fp16 out"),
        ("`provider='cuda:1'`: no GPU", "--provider cuda:1: no GPU"),
        ("name it: `shapes={'data': (1, 3, 224, 224)}`", "name it: --shape data=1,3,224,224"),
        ("`deploy=True` `shapes={'a b': (5,), \"it's\": (2, 3)}`", "--deploy --shape a b=5 --shape it's=2,3"),
        ("each top (`shapes={TOP: (N, …)}`)", "each top (--shape TOP=N,…)"),
        ("write it: `caffeconv.convert_to(storage='external')`", "write it: `caffeconv convert --weights external`"),
        ("run it: `caffeconv.Net(allow_python=True)`", "run it: `caffeconv run --allow-python`"),
        ("it is in phase TRAIN: `phase='TRAIN'`", "it is in phase TRAIN: --phase train"),
        ("in Keras that is `stateful=True`", "in Keras that is `stateful=True`"),
        ("add `pad: 1` to layer `mean=x", "add `pad: 1` to layer `mean=x"),
    ],
)
def test_words(message: str, expected: str) -> None:
    assert in_shell_words(message) == expected


def test_every_option_exists() -> None:
    options = {name for command in COMMANDS for parameter in command.params for name in parameter.opts}
    assert set(OPTIONS.values()) <= options


def test_every_argument_in_a_message_is_known() -> None:
    package = Path(caffeconv.__file__).parent
    names = {
        name
        for path in package.rglob("*.py") if "cli" not in path.relative_to(package).parts
        for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for name in re.findall(r"`([a-z][a-z_]*)=", node.value)
    }  # fmt: skip
    assert names - OPTIONS.keys() == OF_OTHERS | OF_PYTHON_ALONE


def test_the_same_error_in_python_and_in_the_shell(tmp_path: Path) -> None:
    net = tmp_path / "net.prototxt"
    net.write_text('layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 } } } speed: 7')
    with pytest.raises(caffeconv.CaffeconvError, match="continue without them with `ignore_unknown_fields=True`"):
        caffeconv.convert(net)
    result = CliRunner().invoke(main, ["convert", str(net), "-o", str(tmp_path / "net.onnx")])
    assert result.exit_code == 1
    assert "continue without them with --ignore-unknown-fields." in result.stderr


def test_what_inspect_says_of_a_training_net(tmp_path: Path) -> None:
    net = tmp_path / "train.prototxt"
    net.write_text('layer { name: "d" type: "Data" top: "d" data_param { source: "nowhere" batch_size: 2 } }')
    assert "--shape TOP=N,C,H,W" in CliRunner().invoke(main, ["inspect", str(net)]).stderr
    assert "`shapes={TOP: (N, C, H, W)}`" in str(caffeconv.inspect(net).diagnostics[0])
