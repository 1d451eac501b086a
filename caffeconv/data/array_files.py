"""Arrays in .npy, .npz and binaryproto files, of which every size is compared with the file's before it is believed."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from caffeconv.caffe_format.caffemodel import read_binaryproto
from caffeconv.errors import CaffeconvError
from caffeconv.files.claims import refuse_bomb
from caffeconv.files.plain_file import NotPlainFileError, require_plain
from caffeconv.tensor.shape import FloatArray, format_shape


def read_array(path: Path, name: str) -> FloatArray:
    """A float32 array from .npy, from .npz (the array called `name`, ``in/name``, or the only one), or a binaryproto.

    Raises CaffeconvError where there is none, or the file is damaged or claims what it does not hold.
    """
    if path.suffix.lower() == ".binaryproto":
        blob_proto = read_binaryproto(path)
        return blob_proto.array().reshape(blob_proto.shape)
    try:
        array = _read(path, name)
    except (CaffeconvError, NotPlainFileError):
        raise
    except FileNotFoundError:
        raise CaffeconvError(f"{path}: no such file; an array (.npy, .npz) was needed") from None
    except Exception as error:  # numpy, zipfile and zlib raise whatever a damaged file makes them stumble over
        reason = (str(error).splitlines() or [repr(error)])[0]
        raise CaffeconvError(f"{path}: not a readable array file: {reason}") from None
    if array.dtype.kind not in "fiub":
        raise CaffeconvError(f"{path}: holds {array.dtype}; numbers were needed")
    with np.errstate(over="ignore"):  # what no float32 holds is infinite
        return np.asarray(array, np.float32)


def _read(path: Path, name: str) -> NDArray[np.generic]:
    require_plain(path)
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            file.seek(0)
            return _read_npy(file, path.stat().st_size, path)
    with zipfile.ZipFile(path) as archive:
        member = _member(path, name, archive)
        where = f"{path}, {member.filename}"
        refuse_bomb(member.file_size, member.compress_size, where)
        with archive.open(member) as packed:
            return _read_npy(packed, member.file_size, where)


def _member(path: Path, name: str, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
    for key in (name, f"in/{name}", *(members if len(members) == 1 else ())):
        if key in members:
            return members[key]
    raise CaffeconvError(f"{path}: no array called '{name}'; it has {', '.join(list(members)[:10]) or 'none'}")


def _read_npy(file: IO[bytes], length: int, where: object) -> NDArray[np.generic]:
    """The array in a .npy file of `length` bytes; raises whatever numpy does where it is none."""
    version = npy.read_magic(file)
    read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read_header is None:
        raise CaffeconvError(f"{where}: version {version[0]}.{version[1]} of the format; 1.0 or 2.0 was needed")
    shape, _, dtype = read_header(file)
    if dtype.hasobject or dtype.kind not in "fiub" or min(shape, default=1) < 0:
        raise CaffeconvError(f"{where}: holds {dtype}; numbers were needed")
    needed = math.prod(shape) * dtype.itemsize
    if needed > length - file.tell():
        raise CaffeconvError(
            f"{where}: {length - file.tell()} bytes of values; {needed} were needed for {format_shape(shape)} {dtype}: it is "
            "cut off, or damaged"
        )
    file.seek(0)
    array: NDArray[np.generic] = npy.read_array(file, allow_pickle=False)
    return array
