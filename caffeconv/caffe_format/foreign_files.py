"""Files that people give in place of a net, its weights, a mean, H or class names, known by their first bytes."""

from __future__ import annotations

import re
from pathlib import Path

from caffeconv.errors import CaffeconvError
from caffeconv.files.database_folders import DATABASE_FILES

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
    (b"\x28\xb5\x2f\xfd", "zstd data", _UNPACK),
    (b"\x93NUMPY", "a NumPy array", _CONVERT),
    (b"\x80\x02", "a Python pickle (an old PyTorch model)", _CONVERT),
    (b"\x80\x03", "a Python pickle", _CONVERT),
    (b"\x80\x04", "a Python pickle", _CONVERT),
    (b"\x80\x05", "a Python pickle", _CONVERT),
    (b"MATLAB 5.0", "a file of MATLAB", _CONVERT),
    (b"SQLite format 3", "an SQLite database", _CONVERT),
    (b"GGUF", "a GGUF model", _CONVERT),
    (b"ftrt", "an engine of TensorRT", _CONVERT),
    (b"\x12\x01\0\0\0\0\0\0", "a weights file of MXNet", _CONVERT),
    (b"\x7fELF", "a program", "the file that it was built for was meant, perhaps"),
    (b"MZ\x90", "a program", "the file that it was built for was meant, perhaps"),
    (b"II*\0", "a picture", _PICTURE),
    (b"MM\0*", "a picture", _PICTURE),
    (b"\x89PNG", "a picture", _PICTURE),
    (b"\xff\xd8\xff", "a picture", _PICTURE),
    (b"%PDF", "a PDF document", "copy the net out of it as text"),
    (b"7767517", "a net of ncnn", _CONVERT),
    (b"\x47\x6b\x30\x01", "a weights file of ncnn", _CONVERT),  # its marks of half precision and of 8 bits
    (b"\x38\x4b\x0d\0", "a weights file of ncnn", _CONVERT),
    (b"\x00\x00\x00\x00\x02\x00\x00\x00", "a weights file of darknet", _CONVERT),
    (b"\x00\x00\x00\x00\x01\x00\x00\x00", "a weights file of darknet", _CONVERT),
    (b"GIF8", "a picture", _PICTURE),
    (b"BM", "a picture", _PICTURE),
)
_PATTERNS: tuple[tuple[bytes, str, str], ...] = (
    (
        rb"PK\x03\x04.{26,90}?(data\.pkl|code/|\.format_version|byteorder)",
        "a PyTorch model",
        f"{_CONVERT}; PyTorch writes ONNX itself",
    ),
    (rb"PK\x03\x04.{26}(metadata|config)\.json", "a model of Keras", _CONVERT),
    (rb"RIFF.{4}WEBP", "a picture", _PICTURE),
    (rb".{4}ftyp", "a film", "pictures of it are what a net is run on, `input=…`"),
    (rb".{6}\0\0\{\"", "a safetensors file", _CONVERT),
    (rb"[\x01-\x04]\0\0\0\x01\0\0\0", "a file of Torch 7", _CONVERT),
    (rb"\0\0.\x08.{0,3}\x1a", "the index of a checkpoint of TensorFlow", _CONVERT),
    # ncnn's float32 weights follow the mark 0
    (rb"\0{4}(?!\0{4}).{3}[\x39-\x42\xb9-\xc2]", "a weights file of ncnn", _CONVERT),
    (rb"PK\x03\x04.{26}.{0,200}?\.npy", "an archive of NumPy arrays (.npz)", _CONVERT),
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
    # Model of Core ML: its version, then a description of inputs
    (rb"\x08[\x01-\x20]\x12.{1,3}\x0a.", "a Core ML model", _CONVERT),
    # caffe2's NetDef of fillers: a name, then operators with outputs alone
    (
        rb"\x0a.[ -~]+\x12.{1,3}\x12.[ -~]+(\x1a[^\x22]*)?\x22.(GivenTensor|Constant|Xavier|MSRA|Uniform|Gaussian)\w*Fill",
        "a weights file of Caffe2",
        _CONVERT,
    ),
    # caffe2's NetDef: a name, then operators with their inputs and outputs
    (rb"\x0a.[ -~]+\x12.{1,2}\x0a.[ -~]+(\x0a.[ -~]+)*\x12.[ -~]+\x1a.?\x22", "a net of Caffe2", _CONVERT),
)
"""Regular expressions at the start of a file."""
_FOLDERS = {
    DATABASE_FILES["LMDB"]: "an LMDB", DATABASE_FILES["LEVELDB"]: "a LevelDB", "saved_model.pb": "a SavedModel of TensorFlow",
    "variables/variables.index": "a SavedModel of TensorFlow", "checkpoint": "a folder of checkpoints of TensorFlow",
    "Manifest.json": "a package of Core ML",
}  # fmt: skip
"""File in a folder → what the folder is."""
_TEXT_SIGNATURES: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("<!doctype html", "<html", "<head"), "a web page", "download the file itself again (on GitHub: Raw)"),
    (
        ("<?xml", "<net "),
        "XML",
        "download the file itself again, if this is what a download left; OpenVINO's nets are XML too",
    ),
    (("version https://git-lfs",), "a download pointer of Git LFS", "fetch the file itself with `git lfs pull`"),
    (("item {", "item{"), "a label map of SSD", "it belongs to the class names, not to the net"),
    (("op {", "op{"), "a net of Caffe2 as text", _CONVERT),
    (("graph {", "node {", "node{"), "a graph of TensorFlow as text", _CONVERT),
    (("model_checkpoint_path",), "the list of TensorFlow's checkpoints", _CONVERT),
    (("[net]", "[network]"), "a net of darknet", _CONVERT),
    (('{"', '{ "', "{\n", '["', "[{", "[["), "JSON", "Caffe's own text is of another form"),
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
        # behind the comments, and a net's name, that may stand before what tells it
        if text.startswith(starts) or _BEFORE.sub("", text).startswith(starts):
            return what, advice
    return "", ""


_BEFORE = re.compile(r'\A(\s*([#;][^\n]*\n|name:\s*"[^"]*"\s))+\s*')
_NET_TAGS = (b"\x0a", b"\x12", b"\xa2\x06")
"""How a NetParameter begins: with its name, or with a layer of the old form or of today's."""


def may_be_caffemodel(head: bytes) -> bool:
    """Whether a file begins as a caffemodel does."""
    return head.startswith(_NET_TAGS)


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
    """Text of any of the usual encodings, its lines ended by line feeds: UTF-8, UTF-16, UTF-32 with a mark, else Latin-1."""
    wide = _wide_encoding(content)
    if wide:
        text = content.decode(wide, "replace")
    else:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _wide_encoding(content: bytes) -> str:
    """UTF-16 or UTF-32, by its mark, or by the zeros in every second byte of what begins as ASCII; empty for neither."""
    if content.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "utf-32"
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    even, odd = content[: HEAD // 4 : 2], content[1 : HEAD // 4 : 2]
    for zeros, letters, name in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
        is_text = len(zeros) > 2 and all(byte in b"\t\r\n" or byte >= 32 for byte in letters)
        if is_text and len(content) % 2 == 0 and not any(zeros):
            return name
    return ""
