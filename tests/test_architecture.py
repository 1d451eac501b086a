"""The house stays as it is drawn: who may know whom, how large a thing may grow, one home for one fact.

Each rule is a function that lists what breaks it; docs/design.md says what each room is for.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from support.modules_without_tests import WITHOUT_TEST_FILE
from support.source_tree import FunctionNode, SourceTree

import caffeconv

PACKAGE = SourceTree(Path(caffeconv.__file__).parent)
TESTS = Path(__file__).parent

FLOORS = (
    ("errors", "version"),
    ("caffe_pb2",),
    ("tensor", "files", "ops"),
    ("caffe_format",),
    ("data", "python_layers"),
    ("ir",),
    ("layers", "infogain"),
    ("frontend",),
    ("passes", "emit", "inspection"),
    ("runtime", "conversion"),
    ("net", "verify"),
    ("inference", "training", "quantization"),
    ("pycaffe",),
    ("cli",),
)
"""Two modules that everyone may import, and the rooms above them. A file imports from its own room and lower floors."""
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
DOORS = ("__init__", "__main__")
"""Modules at the top that import whatever they hand on or start."""

ONNX_PLACES = (
    "ir/onnx_builder.py", "layers/infogain_functions.py", "emit/", "conversion/", "runtime/", "verify/",
    "inspection/layer_facts.py", "quantization/",
)  # fmt: skip
SCHEMA_FREE = ("tensor/", "files/", "python_layers/", "emit/", "runtime/", "net/", "cli/")
"""Where Caffe's messages are not known, but for one file."""
SCHEMA_PLACES = ("emit/weights/caffe_weights.py",)

TYPE_BRANCH = re.compile(r"[\w.\[\]]+\.type (?:==|!=|in|not in) (?!LAYERS\b|\S+\.type\b|\S+\.TYPE_)[^\s:,)]+")
"""A branch on a type. Whether a type is known at all, and whether two are the same, may be asked anywhere."""
TYPE_PLACES = ("layers/", "caffe_format/upgrade", "caffe_format/crop_offset.py", "ir/filler.py")
"""The layers; what makes old files new ones; and fillers, which have types too."""

OPTION = re.compile(r"--[a-z][a-z0-9-]+")
FILE_LINES, CLASS_LINES, FUNCTION_LINES, CONSTRUCTOR_ARGUMENTS = 600, 320, 60, 10
SINGLE = ("PathLike", "Layout")
"""Types that several rooms need, each defined once."""

EXCEPTIONS: dict[str, dict[str, str]] = {
    "floors": {},
    "circles": {},
    "loads_by_name": {
        "__init__.py": "what converting does not need is imported when it is asked for",
        "cli/__init__.py": "a command is imported when it is called",
        "layers/layer_types.py": "a layer's class is imported when a net has its type",
        "python_layers/host.py": "the user's modules, and caffeconv.pycaffe, which they know as caffe",
    },
    "top_folder": {},
    "options_in_messages": {},
    "onnx_imports": {},
    "schema_imports": {},
    "type_branches": {},
    "sizes": {},
    "constructors": {"net/net.py: Net takes 20 arguments": "docs/design.md fixes them"},
    "repeated_facts": {},
}
"""By rule: what breaks it all the same, and why. What no longer breaks it has to go."""


def floors(package: SourceTree) -> Iterator[str]:
    """Imports of caffeconv itself, of other rooms on the same floor or above, and of what is in no room."""
    for file in package.files:
        if file.room in DOORS or file.room not in FLOOR_OF:
            continue
        floor = FLOOR_OF[file.room]
        for request in file.imports:
            if request.room == "":
                yield f"{file.name} imports caffeconv itself"
            elif request.room not in (None, file.room, *FLOOR_OF):
                yield f"{file.name} imports {request.module}, which is in no room"
            elif request.room not in (None, file.room) and FLOOR_OF[request.room] >= floor:
                yield f"{file.name} on floor {floor} imports {request.module} on floor {FLOOR_OF[request.room]}"


def circles(package: SourceTree) -> Iterator[str]:
    """Files that import one another. One import of each circle is then taken away, to see the next circle."""
    graph = {file.name: package.neighbours(file) for file in package.files}
    while True:
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            importer, target, *rest = reversed(error.args[1])
            yield " → ".join((importer, target, *rest))
            graph[importer].remove(target)
        else:
            return


def loads_by_name(package: SourceTree) -> Iterator[str]:
    """Files that import modules whose names are strings."""
    for file in package.files:
        calls = {ast.unparse(node.func).split(".")[-1] for node in file.nodes if isinstance(node, ast.Call)}
        if not calls.isdisjoint(("import_module", "__import__")):
            yield file.name


def top_folder(package: SourceTree) -> Iterator[str]:
    """What is at the top of the package and is no room, and rooms that are not there."""
    rooms = {room for rooms in FLOORS[1:] for room in rooms}
    expected = {"__init__.py", "__main__.py", "errors.py", "version.py"} | rooms
    yield from (f"{name} is no room" for name in package.top_entries - expected - {"py.typed"})
    yield from (f"{name} is missing" for name in expected - package.top_entries)


def options_in_messages(package: SourceTree) -> Iterator[str]:
    """Options of the command line in strings of other rooms, whose users call Python."""
    for file in package.files:
        if file.room != "cli":
            yield from (f"{file.name}: {option}" for text in file.strings for option in OPTION.findall(text))


def onnx_imports(package: SourceTree) -> Iterator[str]:
    """Files that import onnx, beside those that write, run or measure models."""
    for file in package.files:
        if not file.name.startswith(ONNX_PLACES) and any(request.is_of("onnx") for request in file.imports):
            yield file.name


def schema_imports(package: SourceTree) -> Iterator[str]:
    """Files that import Caffe's messages in rooms that know none."""
    for file in package.files:
        if file.name.startswith(SCHEMA_FREE) and file.name not in SCHEMA_PLACES:
            yield from (file.name for request in file.imports if request.room == "caffe_pb2")


def type_branches(package: SourceTree) -> Iterator[str]:
    """Lines that treat one type of layer unlike others, which its class should do."""
    for file in package.files:
        if not file.name.startswith(TYPE_PLACES):
            yield from (f"{file.name}: {branch}" for branch in TYPE_BRANCH.findall(file.text))


def sizes(package: SourceTree) -> Iterator[str]:
    """Files, classes and functions that are too long."""
    for file in package.files:
        if (lines := len(file.text.splitlines())) > FILE_LINES:
            yield f"{file.name} has {lines} lines"
        limits = [(node, CLASS_LINES) for node in file.classes] + [(node, FUNCTION_LINES) for node in file.functions]
        for node, limit in limits:
            if (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > limit:
                yield f"{file.name}: {node.name} has {lines} lines"


def constructors(package: SourceTree) -> Iterator[str]:
    """Constructors, those that are written out, with more arguments than one remembers."""
    for file in package.files:
        for kind in file.classes:
            for node in kind.body:
                if isinstance(node, FunctionNode) and node.name == "__init__":
                    count = len([*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]) - 1  # without self
                    if count > CONSTRUCTOR_ARGUMENTS:
                        yield f"{file.name}: {kind.name} takes {count} arguments"


def repeated_facts(package: SourceTree) -> Iterator[str]:
    """Constants of one name and one value in several modules, and shared types that have not just one definition."""
    homes: dict[tuple[str, str], list[str]] = defaultdict(list)
    for file in package.files:
        for name, value in file.constants.items():
            if name.isupper() and not _is_trivial(value):
                homes[name.lstrip("_"), ast.dump(value)].append(file.name)
    yield from (f"{name}: {', '.join(files)}" for (name, _), files in homes.items() if len(files) > 1)
    for name in SINGLE:
        files = [
            file.name for file in package.files if name in {*file.constants, *(kind.name for kind in file.classes)}
        ]
        if len(files) != 1:
            yield f"{name}: {', '.join(files) or 'nowhere'}"


def _is_trivial(value: ast.expr) -> bool:
    """Whether a value says next to nothing: None, a truth value, 0, 1, or something empty."""
    empty = ("[]", "{}", "()", "''", "b''", "set()", "dict()", "list()", "frozenset()")
    return ast.unparse(value) in ("None", "True", "False", "0", "1", *empty)


def without_test_file(package: SourceTree, tests: Path) -> Iterator[str]:
    """Modules that define a function or class and have no tests/<room>/test_<module>.py."""
    for file in package.files:
        module = file.name.split("/")[-1]
        defines = any(isinstance(node, ast.ClassDef | FunctionNode) for node in file.tree.body)
        is_in_room = file.name != module and module != "__init__.py"
        if is_in_room and defines and not (tests / file.room / f"test_{module}").is_file():
            yield file.name


Rule = Callable[[SourceTree], Iterator[str]]
RULES: dict[str, Rule] = {
    "floors": floors,
    "circles": circles,
    "loads_by_name": loads_by_name,
    "top_folder": top_folder,
    "options_in_messages": options_in_messages,
    "onnx_imports": onnx_imports,
    "schema_imports": schema_imports,
    "type_branches": type_branches,
    "sizes": sizes,
    "constructors": constructors,
    "repeated_facts": repeated_facts,
}


@pytest.mark.parametrize("name", RULES)
def test_rule(name: str) -> None:
    assert sorted(set(RULES[name](PACKAGE))) == sorted(EXCEPTIONS[name])


def test_tests_mirror_rooms() -> None:
    assert sorted(without_test_file(PACKAGE, TESTS)) == sorted(WITHOUT_TEST_FILE)


def test_no_utils() -> None:
    assert [file.name for file in PACKAGE.files if re.search(r"util|helper", file.name.split("/")[-1])] == []


@pytest.mark.parametrize(
    "start", ["import caffeconv", "from caffeconv.cli import main; main(['--help'], standalone_mode=False)"]
)
def test_start_is_light(start: str) -> None:
    heavy = "print(sorted({'onnxruntime', 'onnx', 'cv2', 'h5py', 'rich', 'ray'} & set(sys.modules)), file=sys.stderr)"
    command = [sys.executable, "-c", f"import sys; {start}; {heavy}"]
    # from the folder of the package under test, so that a source tree in the current folder is not taken for it
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PACKAGE.root.parent)
    assert run.stderr.strip() == "[]"
