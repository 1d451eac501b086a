"""Messages say arguments as in Python, `half=True`; whoever types a command knows them as options, --fp16."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping

_OTHER_NAMES = {
    "epsilon": "--smooth",
    "fix_weights": "--fix-weights",
    "swap_channels": "--swap-channels",
    "half": "--fp16",
    "outputs": "--output",
    "passes": "--iterations",
    "shapes": "--shape",
    "size": "--resize",
    "stages": "--stage",
    "storage": "--weights",
}
_SAME_NAMES = (
    "allow_python", "batch", "batch_size", "beta", "blobs", "calibrate", "classes", "crop", "deploy", "dialect", "engine",
    "extended", "from_distances", "fully_convolutional", "ignore_label", "ignore_unknown_fields", "infogain", "input",
    "input_db", "label_maps", "labels", "layout", "level", "mean", "nhwc", "normalize", "opset", "output_dir", "oversample",
    "phase", "preprocess", "provider", "resize", "resume", "rgb", "root", "scale", "seed", "sigma", "threads", "verify",
    "verify_report", "verify_with", "workers",
)  # fmt: skip
OPTIONS: Mapping[str, str] = {**{name: f"--{name.replace('_', '-')}" for name in _SAME_NAMES}, **_OTHER_NAMES}
"""Argument → option. What is in none of the two lists is no argument of ours: Keras has `stateful=True`."""
COMMANDS: Mapping[str, str] = {"Net": "run", "convert_to": "convert"}
"""Function of the package → command, where that is not its name."""

_CALL = re.compile(r"`caffeconv\.(\w+)\(([^`]*)\)`")
_ARGUMENT = re.compile(r"`([a-z][a-z_]*)=([^`]*)`")
_ENTRY = re.compile(r"""(?:'([^']*)'|"([^"]*)"|(\w+)): \(([^)]*)\)""")


def in_shell_words(message: str) -> str:
    """The message with every `argument=value` as the option that stands for it.

    After ``True`` and ``…`` the option stands alone; a string or number follows it; a dict of shapes repeats it for each.
    """
    message = _CALL.sub(lambda call: f"`caffeconv {_command(call[1])} {_options(call[2])}`", message)
    return _ARGUMENT.sub(lambda match: _option(match[1], match[2]) if match[1] in OPTIONS else match[0], message)


def _command(function: str) -> str:
    return COMMANDS.get(function, function.replace("_", "-"))


def _options(arguments: str) -> str:
    call = ast.parse(f"f({arguments})", mode="eval").body
    assert isinstance(call, ast.Call)
    return " ".join(_option(str(word.arg), ast.unparse(word.value)) for word in call.keywords)


def _option(name: str, value: str) -> str:
    option = OPTIONS[name]
    if value in ("True", "…"):
        return option
    if value.startswith("{"):
        entries = (("".join(key), sizes.replace(" ", "").rstrip(",")) for *key, sizes in _ENTRY.findall(value))
        return " ".join(f"{option} {key}={sizes}" for key, sizes in entries)
    value = value.strip("'\"")
    return f"{option} {value.lower() if name == 'phase' else value}"
