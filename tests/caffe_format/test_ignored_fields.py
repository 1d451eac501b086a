"""Every field of the schema is read by some code, or stands in the table of those that are ignored."""

from __future__ import annotations

import ast
from pathlib import Path

from click.testing import CliRunner
from support.golden_cases import ROOT
from support.small_nets import write_net

from caffeconv import caffe_pb2
from caffeconv.caffe_format.ignored_fields import _REASONS, ALL, ignored_fields, reason_to_ignore
from caffeconv.caffe_format.prototxt import read_prototxt
from caffeconv.cli import main

COMPOSED = {
    "ConvolutionParameter": {"pad_l", "pad_r", "pad_t", "pad_b"},
    "PoolingParameter": {"pad_l", "pad_r", "pad_t", "pad_b"},
    "ResizeBilinearParameter": {
        f"{what}_{side}" for what in ("output", "scale") for side in ("height", "width", "depth")
    },
    "ResizeNearestNeighborParameter": {"output_height", "output_width", "scale_height", "scale_width"},
}
"""Fields whose names the code puts together: pad_l of `pad` and `l`."""
OLD_FORMS = {"V0LayerParameter", "V1LayerParameter"}
"""Read field by field, whatever they are called: tests/caffe_format/test_upgrade.py holds that."""


def words_of(path: Path) -> set[str]:
    """The attributes, names and texts that a file has."""
    words: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            words.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            words.add(node.value)
        elif isinstance(node, ast.Name):
            words.add(node.id)
    return words


def messages() -> dict[str, tuple[set[str], set[str]]]:
    """Every message of a net: its name, its fields, and the fields that hold one."""
    net = caffe_pb2.NetParameter.DESCRIPTOR
    known: dict[str, tuple[set[str], set[str]]] = {"NetParameter": (set(net.fields_by_name), {"net"})}
    pending = [net]
    while pending:
        message = pending.pop()
        for field in message.fields:
            if field.message_type is None:
                continue
            kind = field.message_type
            if kind.name not in known:
                known[kind.name] = set(kind.fields_by_name), set()
                pending.append(kind)
            known[kind.name][1].add(field.name)
    return known


def test_every_field_is_read_or_ignored_for_a_reason() -> None:
    package = ROOT / "caffeconv"
    files = [path for path in package.rglob("*.py") if path.parent.name != "caffe_pb2"]
    words = [words_of(path) for path in files if path.name != "ignored_fields.py"]
    unread = {}
    for name, (fields, holders) in messages().items():
        if name in OLD_FORMS:
            continue
        readers = set().union(*(file for file in words if name in file or holders & file))
        unknown = fields - readers - COMPOSED.get(name, set())
        missing = {field for field in unknown if not reason_to_ignore(name, field)}
        if missing:
            unread[name] = missing
    assert not unread


def test_the_table_names_what_there_is() -> None:
    known = messages()
    for rows in _REASONS.values():
        for name, fields in rows.items():
            assert fields == ALL or set(fields.split()) <= known[name][0], name


NET = """
name: "n" debug_info: true
layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 1 kernel_size: 1 engine: CAFFE } }
layer { name: "d" type: "Convolution" bottom: "c" top: "d" convolution_param { num_output: 1 kernel_size: 1 engine: CUDNN } }
layer { name: "b" type: "BatchNorm" bottom: "d" top: "d" batch_norm_param { filler { value: 1 } eps: 1e-4 } }
"""


def test_what_a_net_has(tmp_path: Path) -> None:
    source = read_prototxt(write_net(tmp_path, {"x": (1, 1, 2, 2)}, NET))
    assert [(f.message, f.field, f.layers) for f in ignored_fields(source.net)] == [
        ("NetParameter", "debug_info", ()),
        ("ConvolutionParameter", "engine", ("c", "d")),
        ("BatchNormParameter", "filler", ("b",)),
    ]  # fmt: skip
    assert str(ignored_fields(source.net)[1]).startswith(
        "ConvolutionParameter.engine is ignored (layer 'c' and 1 more): "
    )


def test_they_are_listed_on_request(tmp_path: Path) -> None:
    net = write_net(tmp_path, {"x": (1, 1, 2, 2)}, NET)
    arguments = ["convert", str(net), "-o", str(tmp_path / "n.onnx")]
    assert "is ignored" not in CliRunner().invoke(main, arguments).stderr
    assert "BatchNormParameter.filler is ignored (layer 'b'): only training has it" in (
        CliRunner().invoke(main, [*arguments, "-v"]).stderr
    )
