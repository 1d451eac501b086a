"""The rules of test_architecture.py fire, each on a small package that breaks it, and stay silent on one that does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.source_tree import SourceTree
from test_architecture import FLOORS, RULES, without_test_file

Files = dict[str, str]


def _package(folder: Path, files: Files) -> SourceTree:
    """A package of these files, by their paths below it."""
    for name, text in files.items():
        path = folder / "caffeconv" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return SourceTree(folder / "caffeconv")


LONG = "    pass\n"
BREACHES: list[tuple[str, Files, set[str]]] = [
    ("floors", {"ir/a.py": "from caffeconv import net"}, {"ir/a.py imports caffeconv itself"}),
    ("floors", {"ir/a.py": "from .. import errors"}, {"ir/a.py imports caffeconv itself"}),
    ("floors", {"errors.py": "from . import version"}, {"errors.py imports caffeconv itself"}),
    ("floors", {"ir/a.py": "import caffeconv"}, {"ir/a.py imports caffeconv itself"}),
    ("floors", {"ir/a.py": "import caffeconv.net.b"}, {"ir/a.py on floor 5 imports caffeconv.net.b on floor 10"}),
    ("floors", {"ir/a.py": "import caffeconv.cli as m"}, {"ir/a.py on floor 5 imports caffeconv.cli on floor 13"}),
    ("floors", {"ir/a.py": "from ..net.b import C"}, {"ir/a.py on floor 5 imports caffeconv.net.b on floor 10"}),
    ("floors", {"net/a.py": "import caffeconv.verify"}, {"net/a.py on floor 10 imports caffeconv.verify on floor 10"}),
    (
        "floors",
        {"ir/a.py": "if TYPE_CHECKING:\n    from caffeconv.net import b\ndef f():\n    from caffeconv.cli import c"},
        {
            "ir/a.py on floor 5 imports caffeconv.net on floor 10",
            "ir/a.py on floor 5 imports caffeconv.cli on floor 13",
        },
    ),
    ("floors", {"ir/a.py": "import caffeconv.read.x"}, {"ir/a.py imports caffeconv.read.x, which is in no room"}),
    ("circles", {"ir/a.py": "from . import b", "ir/b.py": "from .a import C"}, {"ir/a.py → ir/b.py → ir/a.py"}),
    (
        "circles",
        {
            "ir/a.py": "def f():\n    import caffeconv.ir.b",
            "ir/b.py": "if TYPE_CHECKING:\n    from caffeconv.ir.a import C",
        },
        {"ir/a.py → ir/b.py → ir/a.py"},
    ),
    (
        "circles",  # a name of the package that is no module of it
        {"ir/__init__.py": "from caffeconv.ir.a import A", "ir/a.py": "from caffeconv.ir import A"},
        {"ir/__init__.py → ir/a.py → ir/__init__.py"},
    ),
    (
        "circles",  # by way of an __init__ that is loaded because a module beside it is asked for
        {
            "emit/a.py": "import caffeconv.emit.b.c",
            "emit/b/__init__.py": "from caffeconv.emit.a import A",
            "emit/b/c.py": "",
        },
        {"emit/a.py → emit/b/__init__.py → emit/a.py"},
    ),
    ("loads_by_name", {"ir/a.py": "import importlib\nimportlib.import_module('x')"}, {"ir/a.py"}),
    ("loads_by_name", {"ir/a.py": "def f():\n    return __import__('x')"}, {"ir/a.py"}),
    ("options_in_messages", {"net/a.py": "def f(x):\n    raise E(f'{x}: leave --fp16 out')"}, {"net/a.py: --fp16"}),
    ("onnx_imports", {"net/a.py": "if TYPE_CHECKING:\n    from onnx.helper import x"}, {"net/a.py"}),
    ("schema_imports", {"emit/a.py": "from ..caffe_pb2 import NetParameter"}, {"emit/a.py"}),
    ("type_branches", {"net/a.py": "if layer.type == 'Input': pass"}, {"net/a.py: layer.type == 'Input'"}),
    ("type_branches", {"net/a.py": "x = a[0].type not in TYPES"}, {"net/a.py: a[0].type not in TYPES"}),
    ("sizes", {"ir/a.py": "\n" * 601}, {"ir/a.py has 601 lines"}),
    ("sizes", {"ir/a.py": "class A:\n" + LONG * 320}, {"ir/a.py: A has 321 lines"}),
    ("sizes", {"ir/a.py": "class A:\n    async def f(self):\n" + f"    {LONG}" * 60}, {"ir/a.py: f has 61 lines"}),
    (
        "constructors",
        {"ir/a.py": "class A:\n    def __init__(self, a, b, c, d, e, f, g, *, h, i, j, k): pass"},
        {"ir/a.py: A takes 11 arguments"},
    ),
    (
        "repeated_facts",
        {"ir/a.py": "_MOST: int = 2**31 - 1\nPathLike = str", "net/a.py": "MOST = 2**31 - 1\nclass Layout: pass"},
        {"MOST: ir/a.py, net/a.py"},
    ),
    (
        "repeated_facts",
        {"ir/a.py": "PathLike = str", "net/a.py": "PathLike = str | bytes"},
        {"PathLike: ir/a.py, net/a.py", "Layout: nowhere"},
    ),
]


@pytest.mark.parametrize(("name", "files", "breaches"), BREACHES)
def test_rule_sees_a_breach(name: str, files: Files, breaches: set[str], tmp_path: Path) -> None:
    assert set(RULES[name](_package(tmp_path, files))) == breaches


SOUND: Files = {
    **{f"{room}/__init__.py": "" for rooms in FLOORS[1:] for room in rooms},
    "__init__.py": "from caffeconv.net.net import Net\nfrom . import ops",
    "__main__.py": "from caffeconv.cli import main",
    "errors.py": "",
    "version.py": "V = '1'",
    "py.typed": "",
    "cli/__init__.py": "HINT = 'leave --fp16 out'",
    "emit/a.py": "import onnx\nimport caffeconv.emit.b.c\nfrom caffeconv.ir import a\nfrom ..errors import E",
    "emit/b/__init__.py": "from caffeconv.emit.b import c\nfrom caffeconv.emit.b.d import D",
    "emit/b/c.py": "from caffeconv.emit.b.d import D\nfrom caffeconv.emit import d",
    "emit/b/d.py": "D = [2]",
    "emit/d.py": "D = [3]\nEMPTY: dict[str, str] = {}",
    "ir/a.py": "'''Like --fp16.'''\nA = 1\n'''As --fp16.'''\nEMPTY = {}\nimport onnxruntime",
    "layers/base.py": "x = layer.type == 'Input'",
    "net/net.py": "PathLike = str\nLayout = str\nx = a.type in LAYERS or a.type != b.type or a.type == F.TYPE_INT",
}


@pytest.mark.parametrize("name", RULES)
def test_rule_is_silent(name: str, tmp_path: Path) -> None:
    assert list(RULES[name](_package(tmp_path, SOUND))) == []


def test_top_folder_has_rooms_and_nothing_else(tmp_path: Path) -> None:
    files = {name: text for name, text in SOUND.items() if not name.startswith("net/")}
    package = _package(tmp_path, {**files, "caffe.desc": "", "read/a.py": "", "old/__pycache__/a.pyc": ""})
    assert set(RULES["top_folder"](package)) == {"caffe.desc is no room", "read is no room", "net is missing"}


def test_module_needs_a_test_file_in_its_room(tmp_path: Path) -> None:
    texts = {
        "ir/a.py": "A = 1",
        "ir/b.py": "class B: pass",
        "ir/deep/c.py": "def c(): pass",
        "ir/__init__.py": "def d(): pass",
    }
    package = _package(tmp_path, {**texts, "errors.py": "class E: pass"})
    assert set(without_test_file(package, tmp_path)) == {"ir/b.py", "ir/deep/c.py"}
    (tmp_path / "ir").mkdir()
    (tmp_path / "ir" / "test_c.py").touch()
    assert set(without_test_file(package, tmp_path)) == {"ir/b.py"}
