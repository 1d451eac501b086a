"""The house stays as it is drawn: imports point one way, and starting up stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import caffeconv
from caffeconv.layers import LAYERS
from caffeconv.read.netdef import INPUT_TYPES

PACKAGE = Path(caffeconv.__file__).parent
ORDER = (
    ("version", "errors", "caffe_pb2"),
    ("ir",),
    ("pycaffe_shim",),
    ("user_code",),
    ("read",),
    ("data",),
    ("ops",),
    ("layers",),
    ("build",),
    ("deploy",),
    ("bind", "diagnose", "batch", "fully_convolutional", "recent"),
    ("segment", "item_batches"),
    ("passes",),
    ("emit",),
    ("gradient", "runtime"),
    ("preprocess",),
    ("convert", "infogain", "make_h", "upgrade"),
    ("held",),
    ("report", "net", "compare", "costs", "explain", "values", "planned"),
    ("sweep",),
    ("scores", "extract", "sharded"),
    ("pycaffe",),
    ("verify",),
    ("cli",),
)
"""Stages from first to last; a module imports from its own stage and those before it."""
RANK = {module: rank for rank, modules in enumerate(ORDER) for module in modules}


def _imports(path: Path) -> set[str]:
    """Stages of caffeconv that a file imports when it is loaded or run, but not those only for type checking."""
    tree = ast.parse(path.read_text())
    guarded = {
        inner for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }  # fmt: skip
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node not in guarded and (node.module or "").startswith("caffeconv"):
            parts = (node.module or "").split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    stage = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if stage in ("__init__", "__main__"):
        return
    assert {other for other in _imports(path) if RANK[other] > RANK[stage]} == set()


@pytest.mark.parametrize(
    "start", ["import caffeconv", "from caffeconv.cli import main; main(['--help'], standalone_mode=False)"]
)
def test_start_is_light(start: str) -> None:
    heavy = "print(sorted({'onnxruntime', 'onnx', 'cv2', 'h5py', 'rich', 'ray'} & set(sys.modules)), file=sys.stderr)"
    command = [sys.executable, "-c", f"import sys; {start}; {heavy}"]
    # from the folder of the package under test, so that a source tree in the current folder is not taken for it
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert run.stderr.strip() == "[]"


def test_no_utils() -> None:
    assert [path for path in PACKAGE.rglob("*.py") if "util" in path.stem or "helper" in path.stem] == []


def test_input_types_agree_with_the_layers() -> None:
    assert {name for name, kind in LAYERS.items() if kind.is_input} <= INPUT_TYPES
    assert all(LAYERS[name].is_input for name in INPUT_TYPES & LAYERS.keys())
