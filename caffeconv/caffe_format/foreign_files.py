"""Files that people give in place of a net or its weights, known by their first bytes."""

from __future__ import annotations

HEAD = 512
"""As many bytes of a file tell what it is."""
_UNPACK = "unpack it first"
_CONVERT = "only Caffe's own files can be read"
_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "weights in HDF5 come after the net, as WEIGHTS"),
    (b"PK\x03\x04", "a zip or npz file (or a PyTorch model)", _UNPACK),
    (b"\x1f\x8b", "gzip data", _UNPACK),
    (b"BZh", "bzip2 data", _UNPACK),
    (b"\xfd7zXZ\x00", "xz data", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!", "a RAR archive", _UNPACK),
    (b"\x93NUMPY", "a NumPy array", _CONVERT),
    (b"\x80\x02", "a Python pickle (an old PyTorch model)", _CONVERT),
    (b"\x89PNG", "a picture", _CONVERT),
    (b"\xff\xd8\xff", "a picture", _CONVERT),
    (b"%PDF", "a PDF document", "copy the net out of it as text"),
    (b"7767517", "a net of ncnn", _CONVERT),
    (b"[net]", "a net of darknet", _CONVERT),
)
_TEXT_SIGNATURES: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("<!doctype html", "<html", "<?xml", "<head"), "a web page", "download the file itself again (on GitHub: Raw)"),
    (("version https://git-lfs",), "a download pointer of Git LFS", "fetch the file itself with `git lfs pull`"),
    (("item {", "item{"), "a label map of SSD", "it belongs to the class names, not to the net"),
    (('{"', '{ "', "{\n"), "JSON", "a net of Caffe is a prototxt"),
)


def foreign_file(head: bytes) -> tuple[str, str]:
    """What a file is and what to do, by its first bytes; empty where that is not known."""
    for signature, what, advice in _SIGNATURES:
        if head.startswith(signature):
            return what, advice
    if head[4:8] == b"TFL3":
        return "a TFLite model", _CONVERT
    text = head.decode("utf-8", "replace").lstrip("\ufeff \t\r\n").lower()
    for starts, what, advice in _TEXT_SIGNATURES:
        if text.startswith(starts):
            return what, advice
    return "", ""


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
