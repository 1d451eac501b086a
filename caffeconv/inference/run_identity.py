"""What a run is made of, in words: only the same run goes on where an interrupted one stopped."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path

from caffeconv.data.source import DataSource
from caffeconv.frontend.options import NetOptions
from caffeconv.inference.request import RunRequest
from caffeconv.runtime.providers import ComputeOptions
from caffeconv.version import __version__


def run_identity(
    files: Mapping[str, str], net: NetOptions, compute: ComputeOptions, reads: Mapping[str, str]
) -> dict[str, str]:
    """What a run is made of, by names that stay: a journal of today is compared with one of tomorrow.

    Options that came later have an entry only where they are not at their defaults.

    Args:
        files: what the net's files hold: name → SHA-256.
        reads: what is read, and how.
    """
    return {
        **{name: value for name, value in files.items() if not name.endswith(".name")},
        "net state": f"{net.phase}, level {net.level}, stages {', '.join(net.stages) or 'none'}",
        "shapes": ", ".join(f"{blob} {tuple(shape)}" for blob, shape in net.shapes.items()) or "the net's",
        "provider, nhwc, half": f"{compute.provider}, {compute.nhwc}, {compute.half}",
        "fully_convolutional": str(net.fully_convolutional),
        **_later_options(net),
        **reads,
        "caffeconv": __version__,
    }


_NAMED_ALWAYS = ("phase", "level", "stages", "shapes", "fully_convolutional")
_NO_MATTER = ("seed", "ignore_unknown_fields", "allow_python", "root", "output_dir")
"""Options that a run has not, or that change no number."""


def _later_options(net: NetOptions) -> dict[str, str]:
    return {
        option.name: str(getattr(net, option.name))
        for option in fields(net)
        if option.name not in (*_NAMED_ALWAYS, *_NO_MATTER) and getattr(net, option.name) != option.default
    }


def reads_of(request: RunRequest, sources: Mapping[str, DataSource]) -> dict[str, str]:
    """What a run reads, and how, for `run_identity`; sources by the layer or input that they fill."""
    images, data = request.images, request.data
    entries = {
        f"{name} reads": f"{source.name}, {stamp(file for file in source.files if file.exists())}, "
        f"in batches of {source.batch_size}"
        for name, source in sources.items()
    }
    entries |= {
        "passes": str(data.passes),
        "skip_bad": str(data.skip_bad),
        "mean, scale": f"{images.mean}, {images.scale:g}",
    }
    if request.inputs:
        entries["resize, crop, rgb"] = f"{images.resize}, {images.crop}, {images.rgb}"
    return entries


def stamp(files: Iterable[Path]) -> str:
    """Sizes and times of files: by these a source is known again."""
    statuses = [file.stat() for file in files]
    size, last = sum(status.st_size for status in statuses), max((status.st_mtime_ns for status in statuses), default=0)
    return f"{size} bytes, changed at {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(last // 10**9))} UTC"
