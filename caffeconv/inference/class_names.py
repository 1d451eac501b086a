"""Names of classes: a list, one name a line, or SSD's labelmap prototxt."""

from __future__ import annotations

import re
from pathlib import Path

from caffeconv.caffe_format.foreign_files import HEAD, decoded, foreign_file
from caffeconv.caffe_format.prototxt import parse_text
from caffeconv.caffe_format.small_files import read_bytes
from caffeconv.caffe_pb2 import LabelMap
from caffeconv.errors import CaffeconvError

_LABELMAP = re.compile(r"(\s|#.*\n)*item\s*:?\s*\{")
_NET = re.compile(r"^\s*layers?\s*\{", re.MULTILINE)
MOST_LABEL = (1 << 20) - 1


def read_class_names(path: Path) -> list[str]:
    """Class → name. Lines that are empty at the end do not count.

    Of a labelmap, `item { name: … label: … display_name: … }`, the display name counts, and a class that it does not list
    has no name. Raises CaffeconvError for a file that cannot be read, or that holds no name.
    """
    content = read_bytes(path, "a list of class names, one a line, or a labelmap,")
    text = decoded(content)
    what = "a net" if _NET.search(text) else "binary data" if "\0" in text else ""
    if not _LABELMAP.match(text):
        what = foreign_file(content[:HEAD])[0] or what
    if what:
        raise CaffeconvError(f"{path}: this is {what}; class names, one a line, or a labelmap were needed")
    names = _of_labelmap(path, text) if _LABELMAP.match(text) else text.rstrip().splitlines()
    if not any(names):
        raise CaffeconvError(f"{path}: holds no names; class names, one a line, or a labelmap were needed")
    return names


def _of_labelmap(path: Path, text: str) -> list[str]:
    labelmap = LabelMap()
    parse_text(text, labelmap, str(path))
    items = {item.label: item.display_name or item.name for item in labelmap.item}
    if min(items) < 0 or max(items) > MOST_LABEL:
        raise CaffeconvError(f"{path}: labels {min(items)} to {max(items)}; 0 to {MOST_LABEL} are possible")
    return [items.get(label, "") for label in range(max(items) + 1)]
