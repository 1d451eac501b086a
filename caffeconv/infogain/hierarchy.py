"""Trees of labels: classes that share more of their ancestors are more alike.

As text, a class or group a line, what belongs to a group indented below it; `= N` gives a class its label. Comments
begin with #. Without labels, classes are numbered in the order of their lines:

    animal
        pet
            cat = 0
            dog = 1
        horse = 2
    vehicle
        car = 3

As JSON (a file name that ends in .json): a group is an object whose keys are its members, or a list of classes:

    {"animal": {"pet": {"cat": 0, "dog": 1}, "horse": 2}, "vehicle": {"car": 3}}
    {"animal": [["cat", "dog"], "horse"], "vehicle": ["car"]}
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caffeconv.caffe_format.small_files import read_bytes
from caffeconv.errors import CaffeconvError
from caffeconv.files import arguments
from caffeconv.infogain.matrices import MAX_CLASSES
from caffeconv.tensor.shape import FloatArray

_COMMENT = re.compile(r"(?:^|\s)#.*")
_NO_CLASS = "no class in it"
_SHAPE = "a tree of labels was needed: a class or group a line, members indented below their group"


@dataclass(frozen=True)
class _Leaf:
    name: str
    path: tuple[int, ...]
    """Numbers of the groups that it is in, the root aside, from the outermost on; then its own."""
    label: int | None
    where: str


@dataclass(frozen=True)
class LabelTree:
    """The classes of a tree in the order of their labels."""

    names: tuple[str, ...]
    paths: tuple[tuple[int, ...], ...]
    """For each class the numbers of its ancestors below the root, from the outermost on, and its own."""

    def similarities(self) -> FloatArray:
        """H: 2·depth(a)/(depth(n) + depth(k)), `a` being the last common ancestor of classes n and k.

        The root's depth is 0: classes that share nothing else get 0, and a tree without groups gives the identity. 1 on
        the diagonal (Wu and Palmer 1994, "Verb Semantics and Lexical Selection").
        """
        depths = np.array([len(path) for path in self.paths])
        table = np.full((len(self.paths), depths.max()), -1)
        for row, path in zip(table, self.paths, strict=True):
            row[: len(path)] = path
        common = np.zeros((len(table), len(table)), np.int64)
        same = np.ones(common.shape, bool)
        for level in table.T:
            same &= (level[:, None] == level[None, :]) & (level[:, None] >= 0)
            common += same
        matrix: FloatArray = (2 * common / (depths[:, None] + depths[None, :])).astype(np.float32)
        return matrix


def read_hierarchy(path: Path, names: Sequence[str] | None = None) -> LabelTree:
    """The label tree of a file (its form: see above).

    `names` are the classes' names in the order of their labels, for a tree that gives no labels itself. Raises
    CaffeconvError where the file is no such tree, or its labels are not 0…L-1.
    """
    path = arguments.path("path", path)
    names = None if names is None else arguments.names("names", names)
    text = read_bytes(path, "a tree of labels").decode("utf-8-sig", "replace")
    read_leaves = _read_json if path.suffix.lower() == ".json" else _read_text
    leaves = _without_lone_root(list(read_leaves(text, path)))
    if not leaves:
        raise CaffeconvError(f"{path}: {_NO_CLASS}; {_SHAPE}")
    if len(leaves) > MAX_CLASSES:
        raise CaffeconvError(f"{path}: {len(leaves)} classes; {MAX_CLASSES} at most are possible")
    ordered = _by_label(leaves, path) if names is None else _by_name(leaves, names, path)
    return LabelTree(tuple(leaf.name for leaf in ordered), tuple(leaf.path for leaf in ordered))


def _without_lone_root(leaves: list[_Leaf]) -> list[_Leaf]:
    """One group around everything is the root itself."""
    while len({leaf.path[0] for leaf in leaves}) == 1 and min(len(leaf.path) for leaf in leaves) > 1:
        leaves = [_Leaf(leaf.name, leaf.path[1:], leaf.label, leaf.where) for leaf in leaves]
    return leaves


def _by_label(leaves: list[_Leaf], path: Path) -> list[_Leaf]:
    labelled = [leaf for leaf in leaves if leaf.label is not None]
    if not labelled:
        return leaves
    if len(labelled) < len(leaves):
        unlabelled = next(leaf for leaf in leaves if leaf.label is None)
        raise CaffeconvError(
            f"{unlabelled.where}: '{unlabelled.name}' has no label, others do; all or none were needed"
        )
    by_label: dict[int, _Leaf] = {}
    for leaf in leaves:
        assert leaf.label is not None
        other = by_label.setdefault(leaf.label, leaf)
        if other is not leaf:
            raise CaffeconvError(f"{leaf.where}: '{leaf.name}' has label {leaf.label}, as '{other.name}' has already")
    missing = next((label for label in range(len(leaves)) if label not in by_label), None)
    if missing is not None:
        raise CaffeconvError(f"{path}: no class has label {missing}; 0 to {len(leaves) - 1} were needed")
    return [by_label[label] for label in range(len(leaves))]


def _by_name(leaves: list[_Leaf], names: Sequence[str], path: Path) -> list[_Leaf]:
    by_name: dict[str, _Leaf] = {}
    for leaf in leaves:
        if by_name.setdefault(leaf.name, leaf) is not leaf:
            raise CaffeconvError(_twice(leaf.where, leaf.name))
    for name in names:
        if name not in by_name:
            raise CaffeconvError(f"{path}: no class '{name}', which is one of the labels")
    if len(names) < len(leaves):
        extra = next(leaf for leaf in leaves if leaf.name not in set(names))
        raise CaffeconvError(f"{extra.where}: '{extra.name}' is none of the {len(names)} labels")
    return [by_name[name] for name in names]


def _twice(where: str, name: str) -> str:
    return f"{where}: '{name}' is there twice; one class of each name was needed"


# -- text --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Line:
    number: int
    indent: str
    name: str
    label: str | None


def _read_text(text: str, path: Path) -> Iterator[_Leaf]:
    lines = list(_lines(text))
    groups: list[_Line] = []
    members: set[tuple[int, str]] = set()
    for line, next_line in zip(lines, [*lines, None][1:], strict=True):
        where = f"{path}, line {line.number}"
        closed = None
        while groups and len(groups[-1].indent) >= len(line.indent):
            closed = groups.pop()
        if closed is not None and closed.indent != line.indent:
            raise CaffeconvError(f"{where}: '{line.name}' is indented as no line above it in its group; {_SHAPE}")
        if groups and not line.indent.startswith(groups[-1].indent):
            raise CaffeconvError(f"{where}: '{line.name}': tabs and spaces mixed in its indentation; {_SHAPE}")
        if not line.name:
            raise CaffeconvError(f"{where}: no name before '='; {_SHAPE}")
        if "=" in line.name:
            raise CaffeconvError(f"{where}: '{line.name}': a label, a whole number from 0 on, was needed after '='")
        member = (groups[-1].number if groups else 0, line.name)
        if member in members:
            raise CaffeconvError(_twice(where, line.name))
        members.add(member)
        groups.append(line)
        if next_line is None or len(next_line.indent) <= len(line.indent):
            label = None if line.label is None else _label(line.label, where)
            yield _Leaf(line.name, tuple(group.number for group in groups), label, where)
        elif line.label is not None:
            raise CaffeconvError(f"{where}: '{line.name}' has a label, but members too; only classes have labels")


def _label(text: str, where: str) -> int:
    if len(text) > len(str(MAX_CLASSES)):
        raise CaffeconvError(f"{where}: label {text[:10]}…; 0 to {MAX_CLASSES - 1} are possible")
    return int(text)


def _lines(text: str) -> Iterator[_Line]:
    for number, content in enumerate(text.splitlines(), 1):
        content = _COMMENT.sub("", content).rstrip()
        if not content:
            continue
        name = content.lstrip()
        indent = content[: len(content) - len(name)]
        before, equals, label = name.rpartition("=")
        if equals and label.strip().isdecimal():
            yield _Line(number, indent, before.rstrip(), label.strip())
        else:
            yield _Line(number, indent, name, None)


# -- JSON --------------------------------------------------------------------------------------------------------------

_FORM = 'a group ({"name": …} or ["class", …]), or for a class its label (a whole number) or null, was needed'


class _Members(list[tuple[str, object]]):
    """The members of a JSON object in order; a name may be there twice."""


def _read_json(text: str, path: Path) -> list[_Leaf]:
    try:
        tree = json.loads(text, object_pairs_hook=_Members)
        return list(_walk(tree, (), str(path), itertools.count()))
    except RecursionError:
        raise CaffeconvError(f"{path}: groups within groups without end; {_SHAPE}") from None
    except ValueError as error:
        raise CaffeconvError(f"{path}: not readable as JSON: {error}") from None


def _walk(group: object, outer: tuple[int, ...], where: str, numbers: Iterator[int]) -> Iterator[_Leaf]:
    """The classes in a group; `where` is the path of names to it."""
    if group == []:
        raise CaffeconvError(f"{where}: {_NO_CLASS}; {_FORM}")
    names: set[str] = set()
    if isinstance(group, _Members):
        for name, member in group:
            if name in names:
                raise CaffeconvError(_twice(where, name))
            names.add(name)
            member_where, path = f"{where}: {name}", (*outer, next(numbers))
            if member is None or (isinstance(member, int) and not isinstance(member, bool) and member >= 0):
                yield _Leaf(name, path, member, member_where)
            else:
                yield from _walk(member, path, member_where, numbers)
    elif isinstance(group, list):
        for item in group:
            if isinstance(item, str):
                if item in names:
                    raise CaffeconvError(_twice(where, item))
                names.add(item)
                yield _Leaf(item, (*outer, next(numbers)), None, where)
            else:  # an object's groups belong to the list's group; a list is a group without a name
                path = outer if isinstance(item, _Members) else (*outer, next(numbers))
                yield from _walk(item, path, where, numbers)
    else:
        raise CaffeconvError(f"{where}: {json.dumps(group)}; {_FORM}")
