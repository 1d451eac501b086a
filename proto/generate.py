"""Compile proto/caffe.proto: ``python proto/generate.py OUT.desc [--pyi caffeconv/caffe_pb2/__init__.pyi]``.

Needs grpcio-tools, which bundles protoc. OUT.desc is the FileDescriptorSet that ``caffeconv/caffe_pb2/__init__.py`` reads;
the build writes it, it is not kept in the repository. The typing stub is, so run this with ``--pyi`` after every
change of the schema.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

SCHEMA = Path(__file__).resolve().with_name("caffe.proto")
STUB_HEADER = """\
# Generated from proto/caffe.proto, do not edit:
#     python proto/generate.py caffeconv/caffe_pb2/caffe.desc --pyi caffeconv/caffe_pb2/__init__.pyi
# ruff: noqa
# fmt: off
# mypy: disable-error-code="type-arg,no-untyped-def"
"""


def protoc(*options: str) -> None:
    """Run protoc on the schema; its messages go to stderr."""
    # From the schema's folder, because protoc splits an include path at ":" (a drive letter has one).
    command = [sys.executable, "-m", "grpc_tools.protoc", "--proto_path=.", *options, SCHEMA.name]
    subprocess.run(command, check=True, cwd=SCHEMA.parent)


def write_descriptors(target: Path) -> None:
    """Write the schema to `target` as a serialized FileDescriptorSet."""
    protoc(f"--descriptor_set_out={target.resolve()}")


def write_stub(target: Path) -> None:
    """Write the typing stub of the generated messages to `target`."""
    with tempfile.TemporaryDirectory() as folder:
        protoc(f"--pyi_out={folder}")
        stub = Path(folder, "caffe_pb2.pyi").read_text(encoding="utf-8")
    target.write_text(STUB_HEADER + stub, encoding="utf-8", newline="\n")


def main() -> int:
    """Parse the command line and write what it asks for."""
    parser = argparse.ArgumentParser(description="Compile proto/caffe.proto.")
    parser.add_argument("descriptors", type=Path, metavar="OUT.desc", help="FileDescriptorSet to write")
    parser.add_argument("--pyi", type=Path, metavar="STUB", help="also write the typing stub")
    arguments = parser.parse_args()
    try:
        write_descriptors(arguments.descriptors)
        if arguments.pyi is not None:
            write_stub(arguments.pyi)
    except subprocess.CalledProcessError as error:
        print(f"generate.py: protoc failed (exit {error.returncode}); is grpcio-tools installed?", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
