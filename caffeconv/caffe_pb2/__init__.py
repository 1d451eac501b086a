"""Caffe's protobuf messages, built from the compiled schema beside this file (``proto/caffe.proto``).

They live in a descriptor pool of their own. A pool holds one ``caffe.NetParameter`` only, and the default pool belongs
to whoever comes first: a real pycaffe, or another package with its own copy of Caffe's schema.

What is here, with types, stands in ``__init__.pyi``.
"""

from __future__ import annotations

from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message import Message


def _compiled_schema() -> bytes:
    """Return the serialized FileDescriptorSet of the schema."""
    # An editable install keeps built files in another folder than the sources; `__path__` has both.
    candidates = [Path(folder, "caffe.desc") for folder in __path__]
    for candidate in candidates:
        if candidate.is_file():
            return candidate.read_bytes()
    raise ImportError(
        f"caffeconv is not built: {' or '.join(map(str, candidates))} is missing. "
        "Install it with `pip install .`, or in a source tree run `python proto/generate.py caffeconv/caffe_pb2/caffe.desc`."
    )


def _load_schema() -> FileDescriptor:
    """Return the schema's file in a new descriptor pool."""
    (schema,) = descriptor_pb2.FileDescriptorSet.FromString(_compiled_schema()).file
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(schema.SerializeToString())
    return pool.FindFileByName(schema.name)


DESCRIPTOR = _load_schema()

for _enum in DESCRIPTOR.enum_types_by_name.values():
    globals()[_enum.name] = EnumTypeWrapper(_enum)
    globals().update((_value.name, _value.number) for _value in _enum.values)


def __getattr__(name: str) -> type[Message]:
    """The class of a message, made when somebody first asks for it: all 300 take longer than a small net."""
    message = DESCRIPTOR.message_types_by_name.get(name)
    if message is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made = message_factory.GetMessageClass(message)
    globals()[name] = made
    return made


def __dir__() -> list[str]:
    return sorted({*globals(), *DESCRIPTOR.message_types_by_name})
