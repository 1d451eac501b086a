"""Files that people give in place of a net, its weights, a mean, H or class names, known by their first bytes."""

from __future__ import annotations

import re
from pathlib import Path

from caffeconv.errors import CaffeconvError

HEAD = 512
"""As many bytes of a file tell what it is."""
_UNPACK = "unpack it first"
_CONVERT = "only Caffe's own files can be read"
_PICTURE = "pictures are what a net is run on, `input=…`"
_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "weights in HDF5 come after the net, as WEIGHTS"),
    (b"\x1f\x8b", "gzip data", _UNPACK),
    (b"BZh", "bzip2 data", _UNPACK),
    (b"\xfd7zXZ\x00", "xz data", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!", "a RAR archive", _UNPACK),
    (b"\x93NUMPY", "a NumPy array", _CONVERT),
    (b"\x80\x02", "a Python pickle (an old PyTorch model)", _CONVERT),
    (b"\x89PNG", "a picture", _PICTURE),
    (b"\xff\xd8\xff", "a picture", _PICTURE),
    (b"%PDF", "a PDF document", "copy the net out of it as text"),
    (b"7767517", "a net of ncnn", _CONVERT),
    (b"[net]", "a net of darknet", _CONVERT),
    (b"\x00\x00\x00\x00\x02\x00\x00\x00", "weights of darknet", _CONVERT),
    (b"\x00\x00\x00\x00\x01\x00\x00\x00", "weights of darknet", _CONVERT),
    (b"GIF8", "a picture", _PICTURE),
    (b"BM", "a picture", _PICTURE),
)
_PATTERNS: tuple[tuple[bytes, str, str], ...] = (
    (rb"PK\x03\x04.{26,60}?data\.pkl", "a PyTorch model", f"{_CONVERT}; PyTorch writes ONNX itself"),
    (rb"PK\x03\x04.{26}.{0,200}?\.npy", "NumPy arrays (.npz)", _CONVERT),
    (rb"PK\x03\x04", "a zip or npz file", _UNPACK),
    (rb".{257}ustar", "a tar archive", _UNPACK),
    # SolverState: the iteration, then the weights' name
    (
        rb"\x08.{1,5}\x12.[ -~]+\.caffemodel",
        "a solver's state",
        "its weights are in the .caffemodel that was saved beside it",
    ),
    # ir_version, then the producer's name or the graph: ModelProto's fields 1, 2 and 7
    (
        rb"\x08[\x01-\x20](\x12.[ -~]*[\x1a\x22\x28\x32\x3a]|\x3a)",
        "an ONNX model",
        "`caffeconv run` takes it as its first argument",
    ),
    # GraphDef: its first node's name and operator
    (
        rb"\x0a.{1,2}\x0a.[ -~]+\x12.(Const|Placeholder|PlaceholderV2|VariableV2|VarHandleOp)",
        "a frozen graph of TensorFlow",
        _CONVERT,
    ),
    (rb"\x08\x01\x12.{1,400}\x12\x05serve", "a SavedModel of TensorFlow", _CONVERT),
    # caffe2's NetDef: a name, then operators with their inputs and outputs
    (rb"\x0a.[ -~]+\x12.{1,2}\x0a.[ -~]+(\x0a.[ -~]+)*\x12.[ -~]+\x1a.?\x22", "a net of Caffe2", _CONVERT),
)
"""Regular expressions at the start of a file."""
_FOLDERS = {
    "data.mdb": "an LMDB", "CURRENT": "a LevelDB", "saved_model.pb": "a SavedModel of TensorFlow",
    "variables/variables.index": "a SavedModel of TensorFlow", "checkpoint": "a folder of checkpoints of TensorFlow",
}  # fmt: skip
"""File in a folder → what the folder is."""
_TEXT_SIGNATURES: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("<!doctype html", "<html", "<?xml", "<head"), "a web page", "download the file itself again (on GitHub: Raw)"),
    (("version https://git-lfs",), "a download pointer of Git LFS", "fetch the file itself with `git lfs pull`"),
    (("item {", "item{"), "a label map of SSD", "it belongs to the class names, not to the net"),
    (("op {", "op{"), "a net of Caffe2 as text", _CONVERT),
    (("graph {", "node {", "node{"), "a graph of TensorFlow as text", _CONVERT),
    (('{"', '{ "', "{\n"), "JSON", "Caffe's own text is of another form"),
    (("import ", "from ", "#!/usr/bin/env python"), "Python code", "run it, where it is what writes the net"),
)


def foreign_file(head: bytes) -> tuple[str, str]:
    """What a file is and what to do, by its first bytes; empty where that is not known."""
    for signature, what, advice in _SIGNATURES:
        if head.startswith(signature):
            return what, advice
    for pattern, what, advice in _PATTERNS:
        if re.match(pattern, head, re.DOTALL):
            return what, advice
    if head[4:8] == b"TFL3":
        return "a TFLite model", _CONVERT
    text = head.decode("utf-8", "replace").lstrip("\ufeff \t\r\n").lower()
    for starts, what, advice in _TEXT_SIGNATURES:
        if text.startswith(starts):
            return what, advice
    return "", ""


def what_folder(path: Path) -> str:
    """What a folder is: ``an LMDB``, where it holds what is known, else ``a folder``."""
    for marker, what in _FOLDERS.items():
        if (path / marker).exists():
            return what
    return "a folder"


def refuse_foreign(path: Path, head: bytes, needed: str) -> None:
    """Raises CaffeconvError where the first bytes are those of some other kind of file."""
    what, advice = foreign_file(head)
    if what:
        raise CaffeconvError(f"{path}: this is {what}; {needed} was needed: {advice}")


def decoded(content: bytes) -> str:
    """Text of any of the usual encodings, its lines ended by line feeds: UTF-8, UTF-16 with a mark, else Latin-1."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = content.decode("utf-16", "replace")
    else:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")
